"""convert, revert and patch: fastdrop in models and code that name torch.nn."""

import copy
import threading

import pytest

torch = pytest.importorskip("torch", reason="needs PyTorch")

from torch import nn

import fastdrop.torch as fnn

functional = nn.functional
ALL = [
    nn.Dropout,
    nn.Dropout1d,
    nn.Dropout2d,
    nn.Dropout3d,
    nn.AlphaDropout,
    nn.FeatureAlphaDropout,
]


class OwnDropout(nn.Dropout):
    pass


def test_every_layer_and_back():
    model = nn.Sequential(*[kind(0.1 * i, bool(i % 2)) for i, kind in enumerate(ALL)], OwnDropout())
    model[1].eval()
    before = repr(model)
    layers = list(model)
    assert fnn.convert(model) == [str(i) for i in range(6)]
    assert [type(layer) for layer in model] == [
        *[getattr(fnn, kind.__name__) for kind in ALL],
        OwnDropout,
    ]
    assert repr(model) == before
    assert [layer.training for layer in model] == [True, False, *[True] * 5]
    assert all(a is b for a, b in zip(layers, model))
    assert fnn.convert(model) == []
    assert fnn.revert(model) == [str(i) for i in range(6)]
    assert [type(layer) for layer in model] == [*ALL, OwnDropout]


def test_shared_nested_hooked_and_alone():
    shared = nn.Dropout(0.5)
    calls = []
    shared.register_forward_hook(lambda *_: calls.append(1))
    model = nn.ModuleDict({"a": nn.Sequential(nn.Linear(3, 3), shared), "b": shared})
    assert fnn.convert(model) == ["a.1"]
    assert type(model["b"]) is fnn.Dropout
    assert model["a"][1] is model["b"]
    model["b"](torch.ones(3))
    assert calls
    alone = nn.Dropout(0.25)
    assert fnn.convert(alone) == [""]
    assert type(alone) is fnn.Dropout
    assert type(copy.deepcopy(alone)) is fnn.Dropout


def test_transformers():
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(16, 2, 32, 0.5, batch_first=True)
    model = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
    own = copy.deepcopy(model)
    names = fnn.convert(model)
    assert names == [f"layers.{i}.{name}" for i in (0, 1) for name in ("dropout", *BEHIND)]
    x = torch.randn(3, 5, 16)
    y = model(x)
    assert y.isfinite().all()
    y.sum().backward()
    for mode in (torch.enable_grad, torch.inference_mode):  # the latter takes the fast path
        with mode():
            torch.testing.assert_close(model.eval()(x), own.eval()(x))


BEHIND = ("dropout1", "dropout2")


def test_state_dicts_fit():
    model = nn.Sequential(nn.Linear(3, 3), nn.Dropout())
    state = model.state_dict()
    fnn.convert(model)
    assert list(model.state_dict()) == list(state)
    model.load_state_dict(state)


def test_patch_replaces_and_restores():
    names = [
        "alpha_dropout",
        "dropout",
        "dropout1d",
        "dropout2d",
        "dropout3d",
        "feature_alpha_dropout",
        "scaled_dot_product_attention",
    ]
    before = {name: getattr(functional, name) for name in names}
    with fnn.patch():
        for name in names[:-1]:
            assert getattr(functional, name) is getattr(fnn.functional, name)
        with pytest.raises(RuntimeError, match="inner"), fnn.patch():
            raise RuntimeError("inner")
        assert functional.dropout is fnn.functional.dropout
        assert functional.dropout(torch.ones(3), 0.5, False).equal(torch.ones(3))
        functional.dropout(torch.ones(3, device="meta"), 0.5)  # PyTorch's own, not ours for ever
    assert {name: getattr(functional, name) for name in names} == before


def test_patch_in_threads_that_overlap():
    before = functional.dropout
    inside, leave = threading.Event(), threading.Event()

    def other():
        with fnn.patch():
            inside.set()
            leave.wait()

    thread = threading.Thread(target=other)
    with fnn.patch():
        thread.start()
        inside.wait()
    assert functional.dropout is fnn.functional.dropout
    leave.set()
    thread.join()
    assert functional.dropout is before


def expected_attention(query, key, value, dropped, **options):
    """PyTorch's own attention with dropout, but with a given mask."""
    mask = options.pop("attn_mask", None)
    if mask is not None and mask.dtype == torch.bool:
        mask = torch.zeros(mask.shape, dtype=query.dtype).masked_fill(~mask, -torch.inf)
    y, _ = torch._scaled_dot_product_attention_math(
        query, key, value, mask, 0.5, dropout_mask=~dropped, **options
    )
    return y


@pytest.mark.filterwarnings("ignore:Dropout mask should only be used for testing")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize(
    "case", ["plain", "causal", "bool", "float", "all masked", "scale", "groups"]
)
def test_attention(case, dtype):
    torch.manual_seed(0)
    query, key, value = (torch.randn(2, 4, 6, 8, dtype=dtype, requires_grad=True) for _ in "qkv")
    options = {
        "plain": {},
        "causal": {"is_causal": True},
        "bool": {"attn_mask": torch.rand(6, 6) < 0.7},
        "float": {"attn_mask": torch.randn(6, 6, dtype=dtype)},
        "all masked": {"attn_mask": torch.arange(6)[:, None].expand(6, 6) > 2},
        "scale": {"scale": 0.3},
        "groups": {"enable_gqa": True},
    }[case]
    if case == "groups":
        key, value = (x[:, :2].detach().requires_grad_() for x in (key, value))
    torch.manual_seed(1)
    dropped = fnn.functional.dropout(torch.ones(2, 4, 6, 6), 0.5) == 0
    torch.manual_seed(1)
    with fnn.patch():
        y = functional.scaled_dot_product_attention(query, key, value, dropout_p=0.5, **options)
    expected = expected_attention(query, key, value, dropped, **options)
    assert y.dtype == dtype
    tolerance = 0.02 if dtype == torch.bfloat16 else 1e-5
    pairs = [(y, expected)]
    if case != "all masked":
        pairs += zip(
            *(torch.autograd.grad(t.sum(), (query, key, value)) for t in (y, expected)),
            strict=True,
        )
    for a, b in pairs:
        torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


def test_attention_is_pytorchs_without_dropout_and_when_wrong():
    x = torch.randn(2, 4, 8)
    own = functional.scaled_dot_product_attention
    with fnn.patch():
        patched = functional.scaled_dot_product_attention
    assert torch.equal(patched(x, x, x, is_causal=True), own(x, x, x, is_causal=True))
    for options in (
        {"attn_mask": torch.ones(4, 4), "is_causal": True, "dropout_p": 0.5},
        {"dropout_p": 1.5},
    ):
        messages = []
        for function in (own, patched):
            with pytest.raises(RuntimeError) as caught:
                function(x, x, x, **options)
            messages.append(str(caught.value))
        assert messages[0] == messages[1]


@pytest.mark.parametrize("need_weights", [False, True])
def test_multihead_attention(need_weights):
    torch.manual_seed(0)
    layer, x = nn.MultiheadAttention(16, 2, dropout=0.5, batch_first=True), torch.randn(3, 5, 16)
    with fnn.patch():
        torch.manual_seed(1)
        y, _ = layer(x, x, x, need_weights=need_weights)
        torch.manual_seed(1)
        z, _ = layer(x, x, x, need_weights=not need_weights)
    torch.manual_seed(1)
    assert not torch.equal(layer(x, x, x)[0], y)
    torch.testing.assert_close(y, z)
