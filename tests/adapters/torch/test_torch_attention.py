"""PyTorch's attention while `enable` holds: with dropout, by blocks; all else is PyTorch's own."""

import subprocess
import sys

import pytest

torch = pytest.importorskip("torch", reason="needs PyTorch")

from torch import nn
from torch.autograd import gradcheck, gradgradcheck
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

import fastdrop
import fastdrop.torch as fnn
from fastdrop.compiled import _attention

pytestmark = [
    pytest.mark.filterwarnings("ignore:Dropout mask should only be used for testing"),
    pytest.mark.filterwarnings("ignore:`torch.jit.script"),
]
BLOCKS = pytest.mark.skipif(not _attention.has_products(), reason="needs fused multiply-adds")
DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
P = 0.3


@pytest.fixture(autouse=True)
def _enabled():
    with fnn.enable():
        yield


def sdpa(*tensors, **options):
    """With the same masks whenever it is called."""
    torch.manual_seed(3)
    return functional.scaled_dot_product_attention(*tensors, **options)


def kept(query, key, p):
    """The mask of that call: dropout's of all weights, with the seed that is drawn."""
    torch.manual_seed(3)
    seed = int(torch.empty((), dtype=torch.int64).random_())
    shape = (*query.shape[:-1], key.size(-2))
    return torch.from_numpy(fastdrop.dropout_mask(shape, p, key=fastdrop.Key(seed)))


def by_steps(query, key, value, attn_mask=None, dropout_p=P, is_causal=False, **options):
    """PyTorch's own attention, step by step, with the same mask."""
    mask = attn_mask
    if mask is not None and mask.dtype == torch.bool:
        mask = torch.zeros(mask.shape, dtype=query.dtype).masked_fill(~mask, -torch.inf)
    y, _ = torch._scaled_dot_product_attention_math(
        query, key, value, mask, dropout_p, is_causal, kept(query, key, dropout_p), **options
    )
    return y


def results(function, tensors, dy, **options):
    """Output and gradients, as float64."""
    tensors = [x.detach().requires_grad_() for x in tensors]
    y = function(*tensors, **options)
    return [a.double() for a in (y, *torch.autograd.grad(y, tensors, dy.to(y.dtype)))]


def check(tensors, **options):
    """As exact as PyTorch's steps with the same mask, compared with those in float64."""
    wide = [x.double() for x in tensors]
    mask = options.get("attn_mask")
    wide_mask = {} if mask is None or mask.dtype == torch.bool else {"attn_mask": mask.double()}
    shape = (*tensors[0].shape[:-1], tensors[2].size(-1))
    dy = torch.randn(shape, generator=torch.Generator().manual_seed(5))
    exact = results(by_steps, wide, dy, **{**options, **wide_mask})
    found = results(sdpa, tensors, dy, **{"dropout_p": P, **options})
    theirs = results(by_steps, tensors, dy, **options)
    dtype = tensors[0].dtype
    slack = torch.finfo(dtype).eps * (
        64 if dtype == torch.float64 else 4
    )  # theirs is what float64 is held against
    for ours, own, true in zip(found, theirs, exact, strict=True):
        assert ours.isfinite().all()
        # the largest error of either side is a matter of luck: of how it orders the sums
        wrong = (ours - true).norm().item()
        assert wrong <= 1.5 * (own - true).norm().item() + slack * true.norm().item()


def tensors_of(query, key=None, value=None, dtype=torch.float32):
    generator = torch.Generator().manual_seed(1)
    key = key or query
    return [
        torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)
        for shape in (query, key, value or key)
    ]


# query, key and value; the last two like the first where they are left out
SHAPES = {
    "self": [(2, 4, 70, 16)],
    "cross": [(2, 4, 33, 16), (2, 4, 70, 16)],
    "more queries": [(2, 4, 70, 16), (2, 4, 33, 16)],
    "other values": [(2, 4, 33, 16), (2, 4, 70, 16), (2, 4, 70, 5)],
    "one query": [(2, 4, 1, 16), (2, 4, 300, 16)],
    "one key": [(2, 4, 9, 16), (2, 4, 1, 16)],
    "one number": [(2, 4, 9, 1)],
    "three axes": [(3, 65, 8), (3, 129, 8)],
    "five axes": [(2, 3, 2, 17, 8)],
    "many keys": [(1, 2, 5, 8), (1, 2, 5000, 8)],
    "wide": [(1, 2, 75, 300), (1, 2, 75, 300), (1, 2, 75, 64)],
    "several blocks": [(1, 2, 200, 8)],
    "several sums": [(1, 1, 1000, 8), (1, 1, 90, 8)],
}


@BLOCKS
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("is_causal", [False, True])
@pytest.mark.parametrize("name", SHAPES)
def test_shapes(name, is_causal, dtype):
    check(tensors_of(*SHAPES[name], dtype=dtype), is_causal=is_causal)


def some_true(*shape):
    mask = torch.rand(shape, generator=torch.Generator().manual_seed(2)) < 0.6
    mask[..., 0] = True  # of rows without keys PyTorch's steps have gradients of NaN
    return mask


def numbers(*shape, dtype=torch.float32):
    return torch.randn(shape, generator=torch.Generator().manual_seed(2)).to(dtype)


MASKS = {
    "bool": some_true(33, 70),
    "bool of keys": some_true(2, 1, 1, 70),
    "bool of all": some_true(2, 4, 33, 70),
    "bool of heads": some_true(4, 33, 70),
    "float": numbers(33, 70),
    "float of all": numbers(2, 4, 33, 70),
    "float, transposed": numbers(2, 4, 70, 33).transpose(-2, -1),
    "float, of queries": numbers(33, 1),
    "float, expanded": numbers(2, 1, 33, 1).expand(2, 4, 33, 70),
    "causal, by hand": torch.zeros(33, 70).masked_fill(torch.ones(33, 70).triu(1) > 0, -torch.inf),
}


@BLOCKS
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", MASKS)
def test_masks(name, dtype):
    mask = MASKS[name]
    mask = mask if mask.dtype == torch.bool else mask.to(dtype)
    check(tensors_of((2, 4, 33, 16), (2, 4, 70, 16), dtype=dtype), attn_mask=mask)


@BLOCKS
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("options", [{}, {"is_causal": True}, {"attn_mask": some_true(66, 66)}])
@pytest.mark.parametrize("heads", [1, 2])
def test_grouped_queries(heads, options, dtype):
    shapes = (2, 4, 66, 8), (2, heads, 66, 8)
    check(tensors_of(*shapes, dtype=dtype), enable_gqa=True, **options)
    check(
        [x[0] for x in tensors_of(*shapes, dtype=dtype)],
        enable_gqa=True,
        **(options if "attn_mask" not in options else {}),
    )


@BLOCKS
@pytest.mark.parametrize("scale", [0.0, 0.01, 0.5, 3.0])
def test_scale(scale):
    check(tensors_of((2, 4, 33, 16)), scale=scale)


LAYOUTS = {
    "heads inside": lambda x: x.transpose(1, 2).contiguous().transpose(1, 2),
    "columns apart": lambda x: x.transpose(-2, -1).contiguous().transpose(-2, -1),
    "rows expanded": lambda x: x[:, :, :1].expand(x.shape),
    "heads expanded": lambda x: x[:, :1].expand(x.shape),
    "sliced": lambda x: torch.cat([x, x], -1)[..., : x.size(-1)],
}


@BLOCKS
@pytest.mark.parametrize("name", LAYOUTS)
def test_layouts(name):
    tensors = [LAYOUTS[name](x) for x in tensors_of((2, 4, 70, 16))]
    check(tensors, is_causal=True)
    x = tensors[0].detach().requires_grad_()
    dx = [torch.autograd.grad(sdpa(x, x, x, dropout_p=P).sum(), x)[0] for _ in range(2)]
    wide = by_steps(*[x.double()] * 3)
    torch.testing.assert_close(dx[0], torch.autograd.grad(wide.sum(), x)[0], atol=1e-4, rtol=1e-4)
    assert dx[0].equal(dx[1])


@BLOCKS
def test_rows_without_keys_are_zero():
    tensors = [x.requires_grad_() for x in tensors_of((2, 4, 6, 8))]
    mask = torch.arange(6)[:, None].expand(6, 6) > 2
    y = sdpa(*tensors, attn_mask=mask, dropout_p=P)
    assert (y[:, :, :3] == 0).all()
    assert (y[:, :, 3:] != 0).any()
    for gradient in torch.autograd.grad(y.sum(), tensors):
        assert gradient.isfinite().all()


@BLOCKS
def test_threads_and_instruction_sets_change_nothing(isa):
    tensors = tensors_of((2, 1, 600, 16))
    dy, before = torch.ones(2, 1, 600, 16), torch.get_num_threads()
    with fastdrop.use_isa("generic"):
        expected = results(sdpa, tensors, dy, dropout_p=P, is_causal=True)
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            found = results(sdpa, tensors, dy, dropout_p=P, is_causal=True)
            assert all(a.equal(b) for a, b in zip(found, expected, strict=True))
    finally:
        torch.set_num_threads(before)


# ---- gradients of all kinds ---------------------------------------------------------------------


@BLOCKS
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"is_causal": True},
        {"attn_mask": some_true(5, 6)},
        {"attn_mask": numbers(5, 6, dtype=torch.float64)},
        {"enable_gqa": True, "scale": 0.3},
    ],
)
def test_gradients(options):
    kv = (1, 1, 6, 3) if "enable_gqa" in options else (1, 2, 6, 3)
    tensors = [x.requires_grad_() for x in tensors_of((1, 2, 5, 3), kv, dtype=torch.float64)]

    def function(*tensors):
        return sdpa(*tensors, dropout_p=P, **options)

    assert gradcheck(function, tensors, check_batched_grad=True)
    assert gradgradcheck(function, tensors)


@BLOCKS
@pytest.mark.parametrize("needs", [(0,), (1,), (2,), (0, 2)])
def test_gradients_of_some(needs):
    tensors, dy = tensors_of((1, 2, 70, 4)), torch.ones(1, 2, 70, 4)
    expected = results(sdpa, tensors, dy, dropout_p=P)
    inputs = [x.detach().requires_grad_(i in needs) for i, x in enumerate(tensors)]
    sdpa(*inputs, dropout_p=P).sum().backward()
    for i, x in enumerate(inputs):
        if i in needs:
            assert x.grad.double().equal(expected[1 + i])
        else:
            assert x.grad is None


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize("name", ["self", "three axes", "five axes"])
def test_results_may_be_written_to(name, dtype):
    """As PyTorch's, they are no views, to which autograd may refuse to write."""
    tensors = [x.requires_grad_() for x in tensors_of(*SHAPES[name], dtype=dtype)]
    expected = torch.autograd.grad((sdpa(*tensors, dropout_p=P) * 2).sum(), tensors)
    found = torch.autograd.grad(sdpa(*tensors, dropout_p=P).mul_(2).sum(), tensors)
    assert all(map(torch.equal, found, expected))
    with torch.no_grad():
        y = sdpa(*tensors, dropout_p=P)
    y.mul_(torch.ones(1, dtype=dtype, requires_grad=True)).sum().backward()
    assert not sdpa(*tensors, dropout_p=P).detach_().requires_grad


@pytest.mark.parametrize("use_reentrant", [False, True])
def test_checkpoints_whose_block_ended(use_reentrant):
    tensors = [x.requires_grad_() for x in tensors_of((2, 2, 70, 8))]
    expected = torch.autograd.grad(sdpa(*tensors, dropout_p=P).square().sum(), tensors)
    torch.manual_seed(3)
    with fnn.enable():
        y = checkpoint(
            lambda *t: functional.scaled_dot_product_attention(*t, dropout_p=P),
            *tensors,
            use_reentrant=use_reentrant,
        )
    with fnn.disable():
        y.square().sum().backward()
    for x, gradient in zip(tensors, expected, strict=True):
        assert x.grad.equal(gradient)


def test_inference_mode_and_no_grad():
    tensors = tensors_of((2, 2, 70, 8))
    expected = sdpa(*(x.requires_grad_() for x in tensors), dropout_p=P)
    with torch.inference_mode():
        assert sdpa(*tensors, dropout_p=P).equal(expected)
    with torch.no_grad():
        y = sdpa(*tensors, dropout_p=P)
    assert y.equal(expected)
    assert y.grad_fn is None


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_autocast(dtype):
    tensors = tensors_of((2, 2, 70, 8))
    with torch.autocast("cpu", dtype=dtype):
        y = sdpa(*tensors, dropout_p=P)
    assert y.dtype == dtype
    assert y.equal(sdpa(*(x.to(dtype) for x in tensors), dropout_p=P))


def test_transforms():
    query, key, value = tensors_of((3, 2, 70, 8))

    def loss(query):
        y = functional.scaled_dot_product_attention(query, key[0], value[0], dropout_p=P)
        return y.square().sum()

    gradients = torch.func.vmap(torch.func.grad(loss), randomness="different")(query)
    assert gradients.shape == query.shape
    assert gradients.isfinite().all()
    _, tangent = torch.func.jvp(loss, (query[0],), (torch.ones_like(query[0]),))
    assert tangent.isfinite()


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # of PyTorch's compiler
@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_compiled(backend):
    def function(query, key, value):
        return functional.scaled_dot_product_attention(query, key, value, dropout_p=P) * 2

    tensors = [x.requires_grad_() for x in tensors_of((2, 4, 70, 16))]
    compiled = torch.compile(function, fullgraph=True, backend=backend)
    first, second = compiled(*tensors), compiled(*tensors)
    assert not first.equal(second)
    for gradient in torch.autograd.grad(first.sum(), tensors):
        assert gradient.isfinite().all()
    # on average over masks it is what it is without dropout
    mean = sum(compiled(*tensors).detach() for _ in range(200)) / 200
    torch.testing.assert_close(mean, 2 * sdpa(*tensors).detach(), atol=0.2, rtol=0)


# ---- what is PyTorch's own ----------------------------------------------------------------------


def outcome(function):
    try:
        return function()
    except Exception as error:
        return type(error), str(error)


OWN = {
    "no dropout": (tensors_of((2, 3, 8, 4)), {"dropout_p": 0.0, "is_causal": True}),
    "everything": (tensors_of((2, 3, 8, 4)), {"dropout_p": 1.0}),
    "wrong p": (tensors_of((2, 3, 8, 4)), {"dropout_p": 1.5}),
    "mask and causal": (
        tensors_of((2, 3, 8, 4)),
        {"dropout_p": P, "is_causal": True, "attn_mask": torch.ones(8, 8)},
    ),
    "integer mask": (
        tensors_of((2, 3, 8, 4)),
        {"dropout_p": P, "attn_mask": torch.ones(8, 8, dtype=torch.int64)},
    ),
    "mask of another shape": (
        tensors_of((2, 3, 8, 4)),
        {"dropout_p": P, "attn_mask": torch.ones(7, 8)},
    ),
    "other dtypes": (
        [x.to(d) for x, d in zip(tensors_of((2, 3, 8, 4)), DTYPES[1:])],
        {"dropout_p": P},
    ),
    "widths": (tensors_of((2, 3, 8, 4), (2, 3, 8, 5)), {"dropout_p": P}),
    "heads": (tensors_of((2, 4, 8, 4), (2, 3, 8, 4)), {"dropout_p": P}),
    "groups": (tensors_of((2, 4, 8, 4), (2, 3, 8, 4)), {"dropout_p": P, "enable_gqa": True}),
    "one axis": (tensors_of((8,)), {"dropout_p": P}),
    "no axes": (tensors_of(()), {"dropout_p": P}),
    "no columns, other heads": (tensors_of((2, 4, 8, 0), (2, 3, 8, 0)), {"dropout_p": P}),
    "complex": (tensors_of((2, 8, 4), dtype=torch.complex64), {"dropout_p": P}),
}


@pytest.mark.parametrize("name", OWN)
def test_what_pytorch_says(name):
    tensors, options = OWN[name]
    found = outcome(lambda: sdpa(*tensors, **options))
    with fnn.disable():
        expected = outcome(lambda: sdpa(*tensors, **options))
    if isinstance(expected, torch.Tensor):
        assert torch.equal(found, expected)
    else:
        assert found == expected


NOT_IN_BLOCKS = {
    "two axes": [(9, 4)],
    "no queries": [(2, 3, 0, 4), (2, 3, 8, 4)],
    "no keys": [(2, 3, 8, 4), (2, 3, 0, 4)],
    "no columns": [(2, 3, 8, 0)],
    "no columns but of values": [(2, 3, 8, 0), (2, 3, 8, 0), (2, 3, 8, 4)],
    "no batch": [(0, 3, 8, 4)],
    "shared batch": [(2, 3, 8, 4), (1, 3, 8, 4)],
    "fewer axes": [(3, 8, 4), (2, 3, 8, 4)],
}


@pytest.mark.parametrize("name", NOT_IN_BLOCKS)
def test_what_pytorch_computes(name):
    query, key, value = (x.requires_grad_() for x in tensors_of(*NOT_IN_BLOCKS[name]))
    y = sdpa(query, key, value, dropout_p=P)
    with fnn.disable():
        expected = sdpa(query, key, value)
    assert y.shape == expected.shape
    y.sum().backward()
    assert query.grad.shape == query.shape


def test_masks_that_are_learned():
    mask = torch.zeros(8, 8, requires_grad=True)
    sdpa(*tensors_of((2, 3, 8, 4)), attn_mask=mask, dropout_p=P).square().sum().backward()
    assert (mask.grad != 0).any()


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_nested_tensors():
    parts = [torch.randn(2, n, 4) for n in (3, 5)]
    nested = torch.nested.nested_tensor([x.transpose(0, 1) for x in parts]).transpose(1, 2)
    found = outcome(lambda: sdpa(nested, nested, nested, dropout_p=P))
    with fnn.disable():
        expected = outcome(lambda: sdpa(nested, nested, nested, dropout_p=P))
    assert isinstance(found, tuple) == isinstance(expected, tuple)
    if isinstance(found, tuple):
        assert found == expected
    else:
        assert [x.shape for x in found.unbind()] == [x.shape for x in expected.unbind()]


@pytest.mark.parametrize("need_weights", [False, True])
@pytest.mark.parametrize("average", [False, True])
def test_multihead_attention(need_weights, average):
    layer, x = nn.MultiheadAttention(16, 2, dropout=P, batch_first=True), torch.randn(3, 70, 16)
    options = {"need_weights": need_weights, "average_attn_weights": average}
    torch.manual_seed(3)
    y, weights = layer(x, x, x, **options)
    torch.manual_seed(3)
    again, _ = layer(x, x, x, **options)
    assert y.equal(again)
    assert not y.equal(layer(x, x, x, **options)[0])
    assert (weights is None) != need_weights
    y.sum().backward()
    assert layer.in_proj_weight.grad.isfinite().all()
    assert layer.eval()(x, x, x, need_weights=False)[0].equal(layer(x, x, x, need_weights=False)[0])


# ---- PyTorch's own samples ----------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore")  # PyTorch's, of its tests' helpers
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_samples_of_pytorch(dtype):
    pytest.importorskip("expecttest", reason="PyTorch's samples need expecttest")
    from torch.testing._internal.common_methods_invocations import op_db

    (info,) = (op for op in op_db if op.name == "nn.functional.scaled_dot_product_attention")
    dropped = 0
    for sample in info.sample_inputs("cpu", dtype, requires_grad=True):
        tensors, options = (sample.input, *sample.args), dict(sample.kwargs)
        p = options.pop("dropout_p", 0.0)
        y = sdpa(*tensors, dropout_p=p, **options)
        with fnn.disable():
            own = sdpa(*tensors, dropout_p=p, **options)
        assert (y.shape, y.dtype, y.requires_grad) == (own.shape, own.dtype, own.requires_grad)
        torch.autograd.grad(y.sum(), [x for x in tensors if x.requires_grad])
        if p == 0:
            assert y.equal(own)
        elif tensors[0].dim() == tensors[1].dim():
            dropped += 1
            check([x.detach() for x in tensors], dropout_p=p, **options)
    assert dropped >= 8


# ---- memory and speed ---------------------------------------------------------------------------

LONG = """
import resource, torch, fastdrop.torch as fnn
torch.set_num_threads(2)
fnn.enable()

def step(length):
    q, k, v = (torch.randn(1, 1, length, 8, requires_grad=True) for _ in "qkv")
    y = torch.nn.functional.scaled_dot_product_attention(q, k, v, dropout_p=0.1, is_causal=True)
    y.sum().backward()

step(64)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
step(8192)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@BLOCKS
@pytest.mark.skipif(sys.platform != "linux", reason="Linux counts memory in KiB")
def test_memory_does_not_grow_with_the_square_of_the_length():
    done = subprocess.run([sys.executable, "-c", LONG], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 32 << 10  # the scores would take 256 MiB, and more than once
