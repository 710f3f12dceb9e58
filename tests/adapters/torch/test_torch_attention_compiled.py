"""Attention by blocks in code that Inductor makes of a model while `enable` holds."""

import pytest

torch = pytest.importorskip("torch", reason="needs PyTorch")

from torch.library import opcheck
from torch.nn import functional

import fastdrop.torch as fnn
from fastdrop.compiled import _attention
from fastdrop.torch import attention

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("default"),  # of PyTorch's compiler
    pytest.mark.skipif(not _attention.has_products(), reason="needs fused multiply-adds"),
]
P = 0.3


@pytest.fixture(autouse=True)
def _enabled():
    with fnn.enable():
        yield


def numbers(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def some_true(*shape):
    mask = numbers(*shape) < 0.3
    mask[..., 0] = True  # of rows without keys PyTorch's steps have gradients of NaN
    return mask


HALF = 5  # which of `several` is in a half type


def several(query, key, value, few, mask, numbers):
    """Attention with each kind of argument."""
    own = functional.scaled_dot_product_attention
    half = [x.bfloat16() for x in (query, key, value)]
    return [
        own(query, key, value, dropout_p=P) * 2,
        own(query, key, value, dropout_p=P, is_causal=True, scale=0.3),
        own(query, key, value, mask, P),
        own(query[0], key[0], value[0], numbers, P),
        own(query, few, few, dropout_p=P, enable_gqa=True),
        own(*half, dropout_p=P).float(),
    ]


def by_seed(seed, query, key, value, few, mask, numbers):
    """What `several` returns, if all calls draw this seed."""
    attend = attention.attend
    half = [x.bfloat16() for x in (query, key, value)]
    return [
        attend(query, key, value, None, P, False, None, seed) * 2,
        attend(query, key, value, None, P, True, 0.3, seed),
        attend(query, key, value, mask, P, False, None, seed),
        attend(query[0], key[0], value[0], numbers, P, False, None, seed),
        attend(query, few, few, None, P, False, None, seed),
        attend(*half, None, P, False, None, seed).float(),
    ]


@pytest.fixture
def seeds(monkeypatch):
    """Seeds of all calls of attention by blocks."""
    found, forward = [], attention._forward
    monkeypatch.setattr(attention, "_forward", lambda *a: found.append(a[-1].seed) or forward(*a))
    return found


def compiled_by_inductor(function, *inputs, **options):
    torch._dynamo.reset()
    compiled = torch.compile(function, fullgraph=True, **options)
    try:
        compiled(*inputs)
    except torch._inductor.exc.InductorError as error:  # no compiler that it likes
        pytest.skip(f"inductor does not work here: {error}")
    return compiled


@pytest.mark.parametrize("dynamic", [False, True])
def test_inductor(dynamic, seeds):
    def inputs(length):
        heads_inside = [numbers(2, length, n, 16, seed=i) for i, n in enumerate((4, 4, 4, 2))]
        tensors = [x.transpose(1, 2).requires_grad_() for x in heads_inside]
        return *tensors, some_true(length, length), numbers(1, length)

    compiled = compiled_by_inductor(several, *inputs(128), dynamic=dynamic)
    for length in (128, 144):
        tensors = inputs(length)
        seeds.clear()
        torch.manual_seed(0)
        ys = compiled(*tensors)
        drawn = list(seeds)
        assert len(set(drawn)) == len(ys)  # equal calls, different masks
        torch.manual_seed(0)
        assert all(map(torch.equal, compiled(*tensors), ys))
        candidates = [by_seed(seed, *tensors) for seed in drawn]
        as_eager = []
        for i, y in enumerate(ys):
            atol = 3e-2 if i == HALF else 1e-4  # Inductor rounds to half types less often
            (same,) = (c[i] for c in candidates if torch.allclose(c[i], y, atol=atol))
            assert same.stride() == y.stride()
            as_eager.append(same)
        gradients, expected = (
            torch.autograd.grad(sum(y.square().sum() for y in some[:HALF]), tensors[:4])
            for some in (ys, as_eager)
        )
        for a, b in zip(gradients, expected, strict=True):
            torch.testing.assert_close(a, b, atol=1e-3, rtol=1e-3)


def test_inductor_has_its_own_for_few_scores(seeds):
    tensors = [numbers(1, 2, 8, 4).requires_grad_() for _ in "qkv"]
    mask = torch.zeros(64, 64, requires_grad=True)  # learned
    large = [numbers(4, 8, 64, 4) for _ in "qkv"]

    def function(*tensors):
        own = functional.scaled_dot_product_attention
        return own(*tensors, dropout_p=P), own(*large, mask, P)

    for y in compiled_by_inductor(function, *tensors)(*tensors):
        assert y.isfinite().all()
    assert not seeds


@pytest.mark.parametrize("widths", [(0, 4), (4, 0), (0, 0)])
def test_inductor_without_columns(widths):
    query, value = (numbers(2, 4, 64, width).requires_grad_() for width in widths)

    def function(query, value):
        return functional.scaled_dot_product_attention(query, query, value, dropout_p=P)

    y = torch.compile(function, fullgraph=True)(query, value)
    assert y.shape == value.shape
    y.sum().backward()
    assert value.grad.shape == value.shape


@pytest.mark.parametrize("mask", [None, some_true(1, 2, 5, 6)])
def test_operators(mask):
    tensors = [numbers(1, 2, n, 3, seed=i).requires_grad_() for i, n in enumerate((5, 6, 6))]
    seed, dy = torch.tensor(5), torch.ones(1, 2, 5, 3)
    forward, backward = torch.ops.fastdrop.attention, torch.ops.fastdrop.attention_backward
    found = opcheck(forward.default, (*tensors, mask, seed, P, False, None))
    assert set(found.values()) == {"SUCCESS"}
    plain = [x.detach() for x in tensors]
    found = opcheck(backward.default, (dy, *plain, mask, seed, P, False, 0.5))
    assert set(found.values()) == {"SUCCESS"}
