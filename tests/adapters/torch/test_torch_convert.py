"""convert and revert: fastdrop in the layers of one model."""

import copy

import pytest

torch = pytest.importorskip("torch", reason="needs PyTorch")

from torch import nn

import fastdrop.torch as fnn

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
