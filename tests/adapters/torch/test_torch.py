"""fastdrop.torch in eager mode: values, memory, randomness, and torch.nn's manners."""

import copy
import inspect
import pickle
import subprocess
import sys
import warnings

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs PyTorch")

import fastdrop
import fastdrop.torch as fnn

functional = fnn.functional
own = torch.nn.functional

DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
NAMES = ["Dropout", "Dropout1d", "Dropout2d", "Dropout3d", "AlphaDropout", "FeatureAlphaDropout"]
FUNCTIONS = {
    "dropout": functional.dropout,
    "dropout2d": functional.dropout2d,
    "alpha": lambda x, p=0.5, **more: functional.alpha_dropout(x, p, True, **more),
    "feature alpha": lambda x, p=0.5, **more: functional.feature_alpha_dropout(x, p, True, **more),
    "path": functional.drop_path,
    "gaussian": functional.gaussian_dropout,
    "blocks": lambda x, p=0.5, **more: functional.drop_block2d(x, p, 3, **more),
}


def next_key():
    """The key of the next call, without drawing it."""
    state = torch.get_rng_state()
    seed = int(torch.empty((), dtype=torch.int64).random_())
    torch.set_rng_state(state)
    return fastdrop.Key(seed)


def normal(*shape, dtype=torch.float32):
    return torch.from_numpy(np.random.default_rng(0).standard_normal(shape)).to(dtype)


def bits(x):
    """A tensor's elements as bytes, in C order."""
    return x.detach().contiguous().view(torch.uint8).numpy().tobytes()


# ---- the NumPy functions' numbers ----------------------------------------------------------------

NUMPY = {
    "dropout": fastdrop.dropout,
    "dropout2d": lambda x, p, key: fastdrop.dropout(x, p, key=key, shared_axes=(2, 3)),
    "alpha": fastdrop.alpha_dropout,
    "feature alpha": fastdrop.feature_alpha_dropout,
    "path": fastdrop.drop_path,
    "gaussian": fastdrop.gaussian_dropout,
    "blocks": lambda x, p, key: fastdrop.drop_block2d(x, p, 3, key=key),
}


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_same_numbers_as_numpy(name, dtype):
    x = normal(4, 6, 9, 8, dtype=dtype).requires_grad_()
    key = next_key()
    y = FUNCTIONS[name](x, 0.3)
    assert bits(y) == NUMPY[name](x.detach().numpy(), 0.3, key=key).tobytes()


@pytest.mark.parametrize("name", FUNCTIONS)
def test_bfloat16_as_ml_dtypes_has_it(name):
    bfloat16 = pytest.importorskip("ml_dtypes").bfloat16
    x = normal(4, 6, 9, 8, dtype=torch.bfloat16)
    key = next_key()
    y = FUNCTIONS[name](x, 0.3)
    expected = NUMPY[name](x.view(torch.int16).numpy().view(bfloat16), 0.3, key=key)
    assert y.dtype == torch.bfloat16
    assert bits(y) == expected.tobytes()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("activation", [None, "relu"])
def test_fused_as_unfused(dtype, activation):
    values = [normal(*shape, dtype=dtype) for shape in [(2, 7, 33), (33, 7, 2), (33,)]]
    x, residual, bias = leaves = [value.requires_grad_() for value in values]
    results = []
    for fused in (True, False):
        torch.manual_seed(5)
        if fused:
            y = functional.bias_act_dropout(x, bias, activation, 0.3)
            z = functional.dropout_add(y, residual.permute(2, 1, 0), 0.3)
        else:
            y = x + bias if activation is None else torch.relu(x + bias)
            y = functional.dropout(y, 0.3)
            z = functional.dropout(y, 0.3) + residual.permute(2, 1, 0)
        results.append([y, z, *torch.autograd.grad(z.double().square().sum(), leaves)])
    tolerance = {2: 0.1, 4: 1e-5, 8: 1e-12}[dtype.itemsize]
    for a, b in zip(*results):
        torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


def test_fused_in_evaluation_and_with_what_pytorch_adds():
    x, bias = normal(5, 4), normal(4)
    assert torch.equal(functional.dropout_add(x, bias, 0.5, False), x + bias)
    assert torch.equal(functional.bias_act_dropout(x, bias, "relu", 0.5, False), (x + bias).relu())
    torch.manual_seed(0)
    y = functional.dropout_add(x, bias, 0.5)  # broadcast
    torch.manual_seed(0)
    assert torch.equal(y, functional.dropout(x, 0.5) + bias)
    with pytest.raises(ValueError, match="activation: expected None or 'relu', got 'gelu'"):
        functional.bias_act_dropout(x, bias, "gelu")


# ---- memory --------------------------------------------------------------------------------------

LAYOUTS = {
    "contiguous": lambda x: x,
    "channels last": lambda x: x.contiguous(memory_format=torch.channels_last),
    "permuted": lambda x: x.permute(2, 0, 3, 1),
    "sliced": lambda x: x[:, ::2, 1:],
    "expanded": lambda x: x[:1].expand(4, -1, -1, -1),
    "backwards": lambda x: x.permute(3, 2, 1, 0),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_layouts(name, layout):
    x = LAYOUTS[layout](normal(4, 6, 9, 8))
    dense = torch.empty_like(x).copy_(x)  # of the memory format that PyTorch gives results
    y = FUNCTIONS[name](x.clone(memory_format=torch.preserve_format).requires_grad_(), 0.3)
    if layout not in ("sliced", "expanded"):
        assert y.stride() == dense.stride() == own.dropout(x, 0.3).stride()
    x.requires_grad_()
    torch.manual_seed(1)
    y = FUNCTIONS[name](x, 0.3)
    for dy in (torch.ones_like(y), normal(*y.shape), torch.ones(()).expand(y.shape)):
        torch.manual_seed(1)
        (dx,) = torch.autograd.grad(y, x, dy, retain_graph=True)
        z = FUNCTIONS[name](x.detach(), 0.3)
        assert torch.equal(y, z)
        if name in ("dropout", "dropout2d", "path"):
            torch.testing.assert_close(dx, torch.where(y != 0, dy / 0.7, 0))


@pytest.mark.parametrize("layout", ["contiguous", "channels last", "permuted"])
@pytest.mark.parametrize("name", ["dropout", "dropout2d", "alpha", "feature alpha"])
def test_masks_in_memory_order(name, layout):
    x = LAYOUTS[layout](normal(4, 6, 9, 8))
    strides = x.stride()
    order = sorted(range(4), key=lambda axis: -strides[axis])
    key = next_key()
    y = FUNCTIONS[name](x, 0.3)
    shared = (
        [order.index(axis) for axis in (2, 3)] if name in ("dropout2d", "feature alpha") else ()
    )
    function = fastdrop.alpha_dropout if "alpha" in name else fastdrop.dropout
    expected = function(x.permute(order).numpy(), 0.3, key=key, shared_axes=shared)
    assert bits(y.permute(order)) == expected.tobytes()


def test_channels_are_dropped_as_a_whole():
    for x in (torch.ones(4, 6, 9, 8), LAYOUTS["channels last"](torch.ones(4, 6, 9, 8))):
        y = functional.dropout2d(x, 0.5)
        assert set(y.sum((2, 3)).unique().tolist()) == {0, 144}


def test_in_place():
    x = normal(5, 6)
    for view in (lambda x: x, lambda x: x.T, lambda x: x[:, ::2]):
        torch.manual_seed(0)
        expected = functional.dropout(view(x), 0.5)
        a = x.clone()
        version = a._version
        torch.manual_seed(0)
        y = functional.dropout(view(a), 0.5, inplace=True)
        assert y.data_ptr() == view(a).data_ptr()
        assert torch.equal(y, expected)
        assert torch.equal(view(a), expected)
        assert a._version > version
        leaf = x.clone().requires_grad_()
        torch.manual_seed(0)
        y = functional.dropout(view(leaf * 1), 0.5, inplace=True)
        assert torch.equal(y, expected)
        (dx,) = torch.autograd.grad(y.sum(), leaf)
        assert torch.equal(view(dx), torch.where(y != 0, 2.0, 0.0))


def test_a_saved_tensor_that_is_overwritten_is_noticed():
    x = normal(5).requires_grad_()
    y = x.exp()
    fnn.Dropout(0.5, inplace=True)(y)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


@pytest.mark.parametrize("name", ["Dropout", "Dropout2d"])
def test_refused_in_place_as_by_pytorch(name):
    def tensors():
        leaf = normal(2, 3, 4, 4).requires_grad_()
        yield leaf
        yield leaf[:]
        yield (leaf * 1).split(1)[0]
        yield torch.zeros(1, 3, 4, 4).expand(2, -1, -1, -1)
        with torch.inference_mode():
            inference = torch.ones(2, 3, 4, 4)
        yield inference

    for x in tensors():
        before = x.detach().clone()
        messages = []
        for layer in (getattr(torch.nn, name)(0.5, True), getattr(fnn, name)(0.5, True)):
            with pytest.raises(RuntimeError) as caught:
                layer(x)
            messages.append(str(caught.value))
        assert messages[0] == messages[1]
        if not x.is_inference():  # PyTorch writes to it before it refuses
            assert torch.equal(x.detach(), before)


def test_inference_mode():
    layer = fnn.Dropout(0.5, inplace=True)
    with torch.inference_mode():
        x = torch.ones(100)
        layer(x)
    assert 0 < x.sum() < 200
    functional.dropout(x, 0.5)
    functional.dropout(torch.ones(3), 0.5)


def test_probabilities_at_the_ends():
    x = torch.tensor([1.0, float("nan"), float("inf")], requires_grad=True)
    y = functional.dropout(x, 1.0)
    assert torch.equal(y, torch.zeros(3))
    assert torch.equal(torch.autograd.grad(y.sum(), x)[0], torch.zeros(3))
    x = torch.ones(1 << 16)
    assert functional.dropout(x, 1e-10).ne(0).all()
    assert functional.dropout(x, 0.0) is x
    assert functional.dropout(x, 0.5, False) is x


def test_large_outputs():
    x = torch.ones(1 << 22)
    key = next_key()
    y = functional.dropout(x, 0.5)
    assert np.array_equal(y.numpy() != 0, fastdrop.dropout_mask(1 << 22, 0.5, key=key))


@pytest.mark.parametrize("shape", [(), (1,), (0,), (3, 0), (2, 1, 1)])
def test_small_shapes(shape):
    x = torch.ones(shape, requires_grad=True)
    y = functional.dropout(x, 0.5)
    assert y.shape == shape
    y.sum().backward()
    assert torch.equal(x.grad, y)


OF_EMPTY = {
    "dropout": functional.dropout,
    "alpha_dropout": functional.alpha_dropout,
    "feature_alpha_dropout": functional.feature_alpha_dropout,
    "gaussian_dropout": functional.gaussian_dropout,
    "drop_path": functional.drop_path,
    "drop_path of the batch": lambda x: functional.drop_path(x, mode="batch"),
    "dropout2d": functional.dropout2d,
    "drop_block2d": lambda x: functional.drop_block2d(x, 0.3, 1),
    "dropout_add": lambda x: functional.dropout_add(x, x),
    "bias_act_dropout": lambda x: functional.bias_act_dropout(x, x.new_ones(x.shape[-1]), "relu"),
    "saved mask": fnn.Dropout(0.5, save_mask=True),
}


@pytest.mark.parametrize("shape", [(0, 3, 7, 7), (4, 0, 7, 7), (0, 0, 64, 64)], ids=str)
@pytest.mark.parametrize("name", OF_EMPTY)
def test_empty_tensors(name, shape):
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        x = torch.ones(shape, dtype=dtype, requires_grad=True)
        y = OF_EMPTY[name](x)
        assert (y.shape, y.dtype) == (shape, dtype)
        y.sum().backward()
        assert x.grad.shape == shape


def test_saved_mask():
    x = normal(5, 7).requires_grad_()
    for view in (lambda x: x, lambda x: x.T, lambda x: x[:, ::2]):
        torch.manual_seed(0)
        y = fnn.Dropout(0.3)(view(x))
        torch.manual_seed(0)
        z = fnn.Dropout(0.3, save_mask=True)(view(x))
        assert torch.equal(y, z)
        dy = normal(*y.shape)
        assert torch.equal(*(torch.autograd.grad(t, x, dy)[0] for t in (y, z)))
    assert z.grad_fn.saved[-1].nbytes == 3


# ---- randomness ----------------------------------------------------------------------------------


def test_torchs_seeds_states_and_forks():
    x = torch.ones(50)
    torch.manual_seed(3)
    first, second = functional.dropout(x), functional.dropout(x)
    assert not torch.equal(first, second)
    torch.manual_seed(3)
    assert torch.equal(functional.dropout(x), first)
    state = torch.get_rng_state()
    assert torch.equal(functional.dropout(x), second)
    torch.set_rng_state(state)
    with torch.random.fork_rng():
        assert torch.equal(functional.dropout(x), second)
    assert torch.equal(functional.dropout(x), second)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_own_generators(name):
    x = torch.ones(4, 6, 9, 8)
    state = torch.get_rng_state()
    a, b = (FUNCTIONS[name](x, generator=torch.Generator().manual_seed(7)) for _ in "ab")
    assert torch.equal(a, b)
    assert torch.equal(torch.get_rng_state(), state)


def test_generators_where_pytorch_drops():
    with pytest.raises(ValueError, match="generator: expected None for a tensor that PyTorch"):
        functional.dropout(torch.ones(3, device="meta"), generator=torch.Generator())


def test_threads_change_nothing():
    x = torch.ones(1 << 21, requires_grad=True)
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            torch.manual_seed(0)
            y = functional.dropout(x, 0.1)
            results.append((y, *torch.autograd.grad(y.sum(), x)))
    finally:
        torch.set_num_threads(before)
    for y, dx in results:
        assert torch.equal(y, results[0][0])
        assert torch.equal(dx, results[0][1])


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("name", ["Dropout", "AlphaDropout", "GaussianDropout"])
def test_checkpointing(name, reentrant):
    model = torch.nn.Sequential(
        getattr(fnn, name)(0.5), torch.nn.Linear(30, 30), getattr(fnn, name)(0.5)
    )
    results = []
    for checkpointed in (True, False):
        x = normal(4, 30).requires_grad_()
        torch.manual_seed(1)
        if checkpointed:
            y = torch.utils.checkpoint.checkpoint(model, x, use_reentrant=reentrant)
        else:
            y = model(x)
        y.sum().backward()
        results.append((y, x.grad))
    torch.testing.assert_close(*results)


def _sample(index):
    return functional.dropout(torch.ones(64), 0.5)


class Samples(torch.utils.data.Dataset):
    def __len__(self):
        return 8

    def __getitem__(self, index):
        return _sample(index)


def _loaded():
    torch.manual_seed(0)
    loader = torch.utils.data.DataLoader(
        Samples(),
        num_workers=2,
        multiprocessing_context="fork" if sys.platform == "linux" else None,
    )
    return torch.cat(list(loader))


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_data_loader_workers():
    functional.dropout(torch.ones(1 << 21), 0.1)  # threads, before the fork
    first = _loaded()
    assert torch.equal(first, _loaded())
    assert len({row.numpy().tobytes() for row in first}) == 8


# ---- torch.nn's manners --------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_layers_are_torchs(name):
    theirs, ours = getattr(torch.nn, name), getattr(fnn, name)
    assert issubclass(ours, theirs)
    arguments, expected = (
        [
            (each.name, each.kind, each.default)
            for each in inspect.signature(kind).parameters.values()
        ]
        for kind in (ours, theirs)
    )
    assert arguments[: len(expected)] == expected
    assert all(kind == inspect.Parameter.KEYWORD_ONLY for _, kind, _ in arguments[len(expected) :])
    assert repr(ours(0.25, inplace=True)) == repr(theirs(0.25, inplace=True))
    assert ours().state_dict() == theirs().state_dict()
    for p in (-0.1, 1.5):
        messages = []
        for kind in (theirs, ours):
            with pytest.raises(ValueError, match="dropout probability") as caught:
                kind(p)
            messages.append(str(caught.value))
        assert messages[0] == messages[1]
    x = torch.ones({"Dropout1d": (2, 3, 4), "Dropout3d": (2, 3, 4, 4, 4)}.get(name, (2, 3, 4, 4)))
    assert ours(0.5).eval()(x) is x


SHAPES = [(4,), (3, 4), (2, 3, 4), (2, 3, 4, 5), (2, 3, 4, 5, 6), (1, 2, 2, 2, 2, 2), ()]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_accepted_shapes_warnings_and_errors(name, shape):
    outcomes = []
    for kind in (getattr(torch.nn, name), getattr(fnn, name)):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                result = kind(0.5)(torch.ones(shape)).shape
            except RuntimeError as error:
                result = str(error)
        outcomes.append((result, [(w.category, str(w.message)) for w in caught]))
    assert outcomes[0] == outcomes[1]


@pytest.mark.filterwarnings("ignore:dropout[23]d")
@pytest.mark.parametrize("shape", [s for s in SHAPES if len(s) > 1], ids=str)
@pytest.mark.parametrize("name", ["Dropout1d", "Dropout2d", "Dropout3d", "FeatureAlphaDropout"])
def test_what_is_shared(name, shape):
    if name == "Dropout1d":  # which takes no more axes
        shape = shape[:3]

    def partition(layer):
        """Do elements differ from the first along each axis, ever?"""
        ys = torch.stack([layer(torch.ones(shape)) for _ in range(40)])
        first = [ys.narrow(axis, 0, 1) for axis in range(1, ys.dim())]
        return [bool((ys != f).any()) for f in first]

    assert partition(getattr(fnn, name)(0.5)) == partition(getattr(torch.nn, name)(0.5))


@pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.complex64, torch.float8_e5m2])
def test_other_dtypes_are_pytorchs(dtype):
    def outcome(function):
        torch.manual_seed(0)
        try:
            return bits(function(torch.ones(10).to(dtype), 0.5))
        except (RuntimeError, NotImplementedError) as error:
            return str(error)

    assert outcome(functional.dropout) == outcome(own.dropout)


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_other_tensors_are_pytorchs():
    class Subclass(torch.Tensor):
        pass

    x = torch.ones(6, 6)
    tensors = [
        torch.ones(3, device="meta"),
        x.as_subclass(Subclass),
        torch.nested.nested_tensor([x, x]),
        torch.imag(torch.ones(6, dtype=torch.complex64).conj()),
    ]
    for tensor in tensors:
        y = functional.dropout(tensor, 0.5)
        assert type(y) is type(tensor)
        assert y.device == tensor.device
    with pytest.raises(NotImplementedError):
        functional.dropout(x.to_sparse(), 0.5)
    with pytest.raises(TypeError, match="must be Tensor, not"):
        functional.dropout(np.ones(3), 0.5)
    with pytest.raises(ValueError, match=r"between 0 and 1, but got 1\.5"):
        functional.dropout(x, 1.5)
    with pytest.raises((ValueError, RuntimeError), match="nan"):
        functional.dropout(x, float("nan"))


def test_relatives_on_other_devices():
    x = torch.ones(3, 4, device="meta")
    assert functional.drop_path(x, 0.5).device == x.device
    assert functional.gaussian_dropout(x, 0.5).device == x.device
    y = functional.drop_path(torch.imag(torch.ones(400, 3, dtype=torch.complex64).conj()), 0.5)
    assert torch.equal(y, torch.zeros(400, 3))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: fnn.DropPath(2), "dropout probability has to be between 0 and 1, but got 2"),
        (lambda: fnn.DropPath(0.1, "column"), "mode: expected 'row' or 'batch', got 'column'"),
        (lambda: functional.drop_path(torch.ones(())), "input: expected shape"),
        (lambda: fnn.GaussianDropout(1), "p: expected 0 <= p < 1"),
        (lambda: fnn.DropBlock2d(0.1, 0), "block_size: expected a whole number of at least 1"),
        (lambda: fnn.DropBlock2d()(torch.ones(3, 3)), "input: expected shape"),
        (lambda: fnn.DropBlock2d()(torch.ones(1, 1, 5, 9)), "block_size: expected at most 5"),
    ],
)
def test_bad_input_of_relatives(call, message):
    with pytest.raises(ValueError, match=message):
        call()
    with pytest.raises(TypeError, match="input: expected a dense float tensor on the CPU"):
        fnn.DropBlock2d()(torch.ones(1, 1, 9, 9, dtype=torch.int32))


def test_relatives_as_layers():
    x = torch.ones(6, 3, 9, 9)
    for layer, text in [
        (fnn.DropPath(0.5, mode="batch"), "DropPath(p=0.5, mode='batch')"),
        (fnn.GaussianDropout(0.5), "GaussianDropout(p=0.5)"),
        (fnn.DropBlock2d(0.5, 3), "DropBlock2d(p=0.5, block_size=3)"),
    ]:
        assert repr(layer) == text
        assert not torch.equal(layer(x), x) or not torch.equal(layer(x), x)
        assert layer.eval()(x) is x


@pytest.mark.parametrize("name", [*NAMES, "DropPath", "GaussianDropout", "DropBlock2d"])
def test_copies_and_pickles(name):
    layer = getattr(fnn, name)(generator=torch.Generator().manual_seed(3))
    layer.p = 0.25
    copies = [copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))]
    x = torch.ones((3, 8, 8) if name == "Dropout1d" else (3, 8, 9, 9))
    y = layer(x)
    for other in copies:
        assert repr(other) == repr(layer)
        assert torch.equal(other(x), y)


def test_importing():
    code = "import sys, fastdrop; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "try:\n    import fastdrop.torch\n"
        "except ImportError as error:\n    sys.exit('fastdrop-nn[torch]' not in str(error))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
