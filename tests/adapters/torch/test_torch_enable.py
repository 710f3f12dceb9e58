"""enable and disable: every dropout of a process, in eager mode, and what stays PyTorch's."""

import copy
import subprocess
import sys
import threading
import warnings
from contextlib import nullcontext

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs PyTorch")

from torch import nn
from torch.nn.functional import dropout as imported_before

import fastdrop
import fastdrop.torch as fnn

F = nn.functional
aten = torch.ops.aten
ours = fnn.functional


@pytest.fixture(autouse=True)
def pytorchs_afterwards():
    yield
    fnn.disable()


def normal(*shape, dtype=torch.float32):
    return torch.from_numpy(np.random.default_rng(0).standard_normal(shape)).to(dtype)


def seeded(function, *arguments, seed=3):
    torch.manual_seed(seed)
    return function(*arguments)


# ---- who is reached ------------------------------------------------------------------------------

X = (4, 6, 5, 5)
# what somebody calls, and the function of fastdrop.torch that has the same numbers
CALLS = {
    "F.dropout": (lambda x: F.dropout(x, 0.3), lambda x: ours.dropout(x, 0.3)),
    "imported before": (lambda x: imported_before(x, 0.3), lambda x: ours.dropout(x, 0.3)),
    "torch.dropout": (lambda x: torch.dropout(x, 0.3, True), lambda x: ours.dropout(x, 0.3)),
    "layer": (nn.Dropout(0.3), fnn.Dropout(0.3)),
    "in place": (lambda x: F.dropout(x * 1, 0.3, inplace=True), lambda x: ours.dropout(x, 0.3)),
    "dropout_": (lambda x: torch.dropout_(x * 1, 0.3, True), lambda x: ours.dropout(x, 0.3)),
    "aten": (lambda x: aten.dropout.default(x, 0.3, True), lambda x: ours.dropout(x, 0.3)),
    "channels": (nn.Dropout2d(0.3), fnn.Dropout2d(0.3)),
    "channels in place": (
        lambda x: torch.feature_dropout_(x * 1, 0.3, True),
        lambda x: ours.dropout2d(x, 0.3),
    ),
    "alpha": (nn.AlphaDropout(0.3), fnn.AlphaDropout(0.3)),
    "alpha in place": (
        lambda x: torch.alpha_dropout_(x * 1, 0.3, True),
        lambda x: ours.alpha_dropout(x, 0.3, True),
    ),
    "feature alpha": (nn.FeatureAlphaDropout(0.3), fnn.FeatureAlphaDropout(0.3)),
    "feature alpha in place": (
        lambda x: torch.feature_alpha_dropout_(x * 1, 0.3, True),
        lambda x: ours.feature_alpha_dropout(x, 0.3, True),
    ),
    "native": (lambda x: torch.native_dropout(x, 0.3, True)[0], lambda x: ours.dropout(x, 0.3)),
    "p = 1": (lambda x: F.dropout(x, 1.0), lambda x: ours.dropout(x, 1.0)),
}
LAYOUTS = {
    "contiguous": lambda x: x,
    "channels last": lambda x: x.contiguous(memory_format=torch.channels_last),
    "permuted": lambda x: x.permute(2, 0, 3, 1),
    "sliced": lambda x: x[:, ::2, 1:],
    "expanded": lambda x: x[:1].expand(4, -1, -1, -1),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", CALLS)
def test_reached(name, layout):
    call, expected = CALLS[name]
    for dtype in (torch.float32, torch.float64, torch.bfloat16, torch.float16):
        x = LAYOUTS[layout](normal(*X, dtype=dtype)).requires_grad_()
        own = seeded(call, x)
        with fnn.enable():
            y, z = seeded(call, x), seeded(expected, x)
        assert torch.equal(y, z)
        assert y.stride() == own.stride()
        assert not torch.equal(y, own) or "p = 1" in name
        dy = normal(*y.shape, dtype=dtype)
        dx, dz = (torch.autograd.grad(t, x, dy)[0] for t in (y, z))
        torch.testing.assert_close(dx, dz)
        assert torch.equal(seeded(call, x), own)  # PyTorch's own again


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("name", CALLS)
def test_reached_without_gradients(name, mode):
    call, expected = CALLS[name]
    with mode(), fnn.enable():
        x = normal(*X)
        y = seeded(call, x)
        assert torch.equal(y, seeded(expected, x))
        assert y.is_inference() == (mode is torch.inference_mode)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", CALLS)
def test_results_may_be_written_to(name, layout):
    """A result is no view, to which autograd may refuse to write: relu_ after dropout, say."""
    call, _ = CALLS[name]
    x, factor = LAYOUTS[layout](normal(*X)).requires_grad_(), torch.ones(1, requires_grad=True)
    with fnn.enable():
        y = seeded(call, x)
        (expected,) = torch.autograd.grad(y.sum() * 3, x)
        y = seeded(call, x)
        assert not y._is_view()
        assert torch.equal(torch.autograd.grad(y.mul_(3).sum(), x)[0], expected)
        with torch.no_grad():
            y = seeded(call, x)
        y.mul_(factor).sum().backward()
        assert factor.grad is not None
        assert not seeded(call, x).detach_().requires_grad


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
@pytest.mark.parametrize("batch_first", [False, True])
def test_recurrent_layers(kind, batch_first):
    layer = kind(5, 7, 2, dropout=0.5, batch_first=batch_first)
    x = normal(3, 4, 5)
    first, second = kind(5, 7), kind(7, 7)
    state = layer.state_dict()
    first.load_state_dict({k: v for k, v in state.items() if k.endswith("l0")})
    second.load_state_dict({k.replace("l1", "l0"): v for k, v in state.items() if "l1" in k})

    def apart(x):
        x = x.transpose(0, 1) if batch_first else x
        y = second(fnn.Dropout(0.5)(first(x)[0]))[0]
        return y.transpose(0, 1) if batch_first else y

    with fnn.enable():
        y = seeded(layer, x)[0]
        torch.testing.assert_close(y, seeded(apart, x))
        gradient = torch.autograd.grad(y.sum(), layer.weight_ih_l0)[0]
    expected = torch.autograd.grad(seeded(apart, x).sum(), first.weight_ih_l0)[0]
    torch.testing.assert_close(gradient, expected)


def test_attention_and_models_of_it():
    x = normal(2, 4, 6, 8)
    with fnn.enable():
        weights = seeded(ours.dropout, (x @ x.mT / 8**0.5).softmax(-1), 0.5)
        y = seeded(lambda: F.scaled_dot_product_attention(x, x, x, dropout_p=0.5))
        torch.testing.assert_close(y, weights @ x)
        layer = nn.MultiheadAttention(16, 2, dropout=0.5, batch_first=True)
        x = normal(3, 5, 16)
        y, z = (seeded(layer, x, x, x, None, need)[0] for need in (True, False))
        torch.testing.assert_close(y, z)
    assert not torch.equal(seeded(layer, x, x, x)[0], y)


@pytest.mark.parametrize("train", [True, None])
def test_native_dropout(train):
    for layout in LAYOUTS.values():
        x = layout(normal(*X)).requires_grad_()
        own = torch.native_dropout(x, 0.3, train)[1]
        with fnn.enable():
            y, mask = torch.native_dropout(x, 0.3, train)
        assert mask.dtype == torch.bool
        assert mask.stride() == own.stride()
        torch.testing.assert_close(y, torch.where(mask, x / 0.7, 0))
        scale = 0.7 if train else 1  # PyTorch's gradient for None
        torch.testing.assert_close(torch.autograd.grad(y.sum(), x)[0], mask / scale)


# ---- what stays PyTorch's ------------------------------------------------------------------------


class Subclass(torch.Tensor):
    pass


OTHERS = {
    "int64": lambda: torch.ones(10, dtype=torch.int64),
    "bool": lambda: torch.ones(10, dtype=torch.bool),
    "complex": lambda: torch.ones(10, dtype=torch.complex64, requires_grad=True),
    "float8": lambda: torch.ones(10).to(torch.float8_e5m2),
    "meta": lambda: torch.ones(10, device="meta"),
    "sparse": lambda: torch.ones(3, 3).to_sparse(),
    "sparse csr": lambda: torch.ones(3, 3).to_sparse_csr(),
    "quantised": lambda: torch.quantize_per_tensor(torch.ones(9), 0.1, 0, torch.quint8),
    "subclass": lambda: torch.ones(10).as_subclass(Subclass),
    "negated lazily": lambda: torch.imag(torch.ones(6, dtype=torch.complex64).conj()),
    "zeros of no memory": lambda: torch._efficientzerotensor(5),
    "empty": lambda: torch.ones(0, 3),
    "leaf": lambda: torch.ones(3, 3, requires_grad=True),
    "view of a leaf": lambda: torch.ones(3, 3, requires_grad=True)[:],
    "one of many views": lambda: (torch.ones(3, 3, requires_grad=True) * 1).split(1)[0],
    "expanded": lambda: torch.ones(1, 3).expand(3, 3),
    "complex, permuted": lambda: torch.ones(2, 3, 4, dtype=torch.complex64).permute(2, 0, 1),
    "0-d": lambda: torch.ones(()),
    "array": lambda: np.ones(3),
}
IN_PLACE = ("leaf", "view of a leaf", "one of many views", "expanded")


def outcome(function, *arguments):
    """What a call returns or raises, with its warnings, as something to compare."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            y = seeded(function, *arguments)
        except Exception as error:
            result = type(error), str(error)[:80]  # behind that some list all kernels
        else:
            # of sparse tensors PyTorch returns memory that nobody has written
            values = repr(y.detach()) if y.layout is torch.strided else y.shape
            result = type(y), y.dtype, y.device, y.layout, values
    return result, [str(w.message) for w in caught if "torch.jit" not in str(w.message)]


FUNCTIONS = {
    f"{name}{end}": getattr(torch, f"{name}{end}")
    for name in ("dropout", "feature_dropout", "alpha_dropout", "feature_alpha_dropout")
    for end in ("", "_")
} | {"native_dropout": lambda *arguments: torch.native_dropout(*arguments)[0]}


@pytest.mark.filterwarnings("ignore::UserWarning")  # of what makes unusual tensors
@pytest.mark.parametrize("kind", OTHERS)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_as_pytorch(name, kind):
    if (kind == "expanded" and name[-1] != "_") or (kind in IN_PLACE and name[-1] != "_"):
        pytest.skip("fastdrop's")
    if kind == "0-d" and "feature" not in name:
        pytest.skip("fastdrop's")
    if kind == "negated lazily" and "native" in name:
        pytest.skip("PyTorch negates before it calls")
    for p in (0.5, 1.0):
        expected = outcome(FUNCTIONS[name], OTHERS[kind](), p, True)
        with fnn.enable():
            assert outcome(FUNCTIONS[name], OTHERS[kind](), p, True) == expected


@pytest.mark.parametrize("p", [0.0, 0.5, 1.0, -0.1, 1.1, float("nan")])
@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_nothing_to_drop_and_no_probability(name, train, p):
    if train and 0 < p <= 1:
        pytest.skip("something to drop")
    x = normal(3, 4)
    expected = outcome(FUNCTIONS[name], x.clone(), p, train)
    with fnn.enable():
        assert outcome(FUNCTIONS[name], x.clone(), p, train) == expected
        if 0 <= p <= 1 and "native" not in name:
            assert FUNCTIONS[name](x, p, train) is x
    state = torch.get_rng_state()
    with fnn.enable():
        outcome_state = (seeded(lambda: None), torch.get_rng_state())[1]
        outcome(FUNCTIONS[name], x, p, train)
    assert torch.equal(torch.get_rng_state(), outcome_state) or "native" in name
    torch.set_rng_state(state)


def test_inference_tensors_and_versions():
    with torch.inference_mode():
        x = torch.ones(4, 4)
    for function in (torch.dropout_, torch.alpha_dropout_):
        expected = outcome(function, x, 0.5, True)
        with fnn.enable():
            assert outcome(function, x, 0.5, True) == expected
    a = torch.ones(4)
    with fnn.enable(), torch.inference_mode():
        before = a._version
        torch.dropout_(a, 0.5, True)
    assert a._version > before
    y = normal(5).requires_grad_().exp()
    with fnn.enable():
        torch.dropout_(y, 0.5, True)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


def test_modes_see_what_they_saw():
    seen = []

    class Mode(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, function, types, arguments=(), options=None):
            seen[-1].append(str(function))
            return function(*arguments, **(options or {}))

    x, ys = torch.ones(64), []
    for context in (nullcontext, fnn.enable):
        seen.append([])
        with context(), Mode():
            ys.append(seeded(F.dropout, x, 0.5))
    assert seen[0] == seen[1]
    assert torch.equal(*ys)


# ---- gradients and transforms --------------------------------------------------------------------

UNARY = {
    "dropout": lambda x: F.dropout(x, 0.3),
    "channels": lambda x: F.dropout2d(x, 0.3),
    "alpha": lambda x: F.alpha_dropout(x, 0.3, True),
    "feature alpha": lambda x: F.feature_alpha_dropout(x, 0.3, True),
    "permuted": lambda x: F.dropout(x.permute(2, 0, 3, 1), 0.3),
    "in place": lambda x: F.dropout(x * 1, 0.3, inplace=True),
    "in place, sliced": lambda x: F.dropout((x * 1)[:, :, 1:], 0.3, inplace=True),
    "alpha in place": lambda x: F.alpha_dropout(x * 1, 0.3, True, True),
}


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")
@pytest.mark.parametrize("name", UNARY)
def test_gradients(name):
    def repeatable(x):
        return seeded(UNARY[name], x)

    x = normal(2, 3, 4, 2, dtype=torch.float64).requires_grad_()
    with fnn.enable():
        assert torch.autograd.gradcheck(
            repeatable, x, check_forward_ad=True, check_batched_grad=True
        )
        assert torch.autograd.gradgradcheck(repeatable, x, check_batched_grad=True)


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")
@pytest.mark.parametrize("strategy", ["reverse-mode", "forward-mode"])
@pytest.mark.parametrize("name", ["dropout", "feature_dropout", "alpha_dropout", "dropout_"])
def test_jacobians_where_nothing_is_random(name, strategy):
    def jacobian():
        return torch.autograd.functional.jacobian(
            lambda x: FUNCTIONS[name](x * 1, 1.0, True),
            normal(2, 3),
            vectorize=True,
            strategy=strategy,
        )

    with fnn.enable():
        found = jacobian()
    assert torch.equal(found, jacobian())


def test_what_is_dropped_is_0():
    x = torch.full((1000,), float("inf"), requires_grad=True)
    with fnn.enable():
        y = F.dropout(x, 0.5)
        (dx,) = torch.autograd.grad(y, x, torch.full_like(y, float("nan")))
    assert set(y.tolist()) == {0, float("inf")}
    assert torch.equal(dx.isnan(), y != 0)


TRANSFORMS = {
    "grad": lambda f: torch.func.grad(lambda x: f(x).sum()),
    "vmap, error": torch.func.vmap,
    "vmap, same": lambda f: torch.func.vmap(f, randomness="same"),
    "vmap, different": lambda f: torch.func.vmap(f, randomness="different"),
    "jvp": lambda f: lambda x: torch.func.jvp(f, (x,), (x,))[1],
    "jacrev": lambda f: torch.func.jacrev(f),
    "vmap of grad": lambda f: torch.func.vmap(
        torch.func.grad(lambda x: f(x).sum()), randomness="different"
    ),
    "functionalize": lambda f: torch.func.functionalize(f),
}


@pytest.mark.parametrize("name", TRANSFORMS)
@pytest.mark.parametrize("function", ["dropout", "alpha_dropout", "dropout_"])
def test_transforms_are_pytorchs(name, function):
    transformed = TRANSFORMS[name](lambda x: FUNCTIONS[function](x * 1, 0.5, True))
    x = normal(5, 8)
    expected = outcome(transformed, x)
    with fnn.enable():
        assert outcome(transformed, x) == expected


# ---- randomness ----------------------------------------------------------------------------------


def test_seeds_states_and_forks():
    x = torch.ones(50)
    with fnn.enable():
        first = seeded(F.dropout, x)
        state = torch.get_rng_state()
        second = F.dropout(x)
        assert not torch.equal(first, second)
        assert torch.equal(seeded(F.dropout, x), first)
        with torch.random.fork_rng():
            F.dropout(x)
        assert torch.equal(F.dropout(x), second)
        torch.set_rng_state(state)
        assert torch.equal(F.dropout(x), second)
        torch.use_deterministic_algorithms(True)
        try:
            assert torch.equal(seeded(F.dropout, x), first)
        finally:
            torch.use_deterministic_algorithms(False)
        with torch.autocast("cpu"):
            assert torch.equal(seeded(F.dropout, x), first)
    key = fastdrop.Key(seeded(lambda: int(torch.empty((), dtype=torch.int64).random_())))
    assert np.array_equal(first.numpy(), fastdrop.dropout(x.numpy(), 0.5, key=key))


# ---- enable and disable --------------------------------------------------------------------------


def is_on():
    return "_Elements" in str(F.dropout(torch.ones(3, requires_grad=True)).grad_fn)


def test_blocks_and_calls():
    assert not is_on()
    with fnn.enable():
        assert is_on()
        with pytest.raises(RuntimeError, match="inner"), fnn.enable():
            raise RuntimeError("inner")
        assert is_on()
        with fnn.disable():
            assert not is_on()
            with fnn.enable():
                assert is_on()
        assert is_on()
    assert not is_on()
    fnn.enable()
    fnn.enable()
    with fnn.enable():
        pass
    assert is_on()
    fnn.disable()
    assert not is_on()
    with fnn.disable():
        pass
    assert not is_on()
    with fnn.enable():
        fnn.disable()
        assert not is_on()
    assert not is_on()


def test_nothing_is_left_behind():
    script = (
        "import torch, fastdrop.torch as fnn\n"
        "def there(): return torch._C._dispatch_dump('aten::dropout'), set(torch.library._impls)\n"
        "before = there()\n"
        "for _ in range(3):\n"
        "    with fnn.enable():\n"
        "        torch.dropout(torch.ones(3, requires_grad=True), 0.5, True).sum().backward()\n"
        "        assert there() != before\n"
        "    assert there() == before\n"
    )
    found = subprocess.run([sys.executable, "-W", "error", "-c", script], capture_output=True)
    assert (found.returncode, found.stderr, found.stdout) == (0, b"", b"")


def test_threads_that_overlap():
    inside, leave = threading.Event(), threading.Event()

    def other():
        with fnn.enable():
            inside.set()
            leave.wait()

    thread = threading.Thread(target=other)
    with fnn.enable():
        thread.start()
        inside.wait()
    assert is_on()
    leave.set()
    thread.join()
    assert not is_on()


def test_threads_in_the_middle_of_dropout():
    x, end, wrong = torch.ones(1 << 14, requires_grad=True), threading.Event(), []

    def work():
        while not end.is_set():
            y = F.dropout(x, 0.5)
            (dx,) = torch.autograd.grad(y.sum(), x)
            if not torch.equal(y, dx):
                wrong.append(y)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for _ in range(100):
        with fnn.enable():
            F.dropout(x, 0.5)
    end.set()
    for thread in threads:
        thread.join()
    assert not wrong
    assert not is_on()


def test_models_stay_as_they_are():
    model = nn.TransformerEncoderLayer(16, 2, 32, 0.5, batch_first=True)
    before = copy.deepcopy(model)
    with fnn.enable():
        model(normal(3, 5, 16)).sum().backward()
        assert repr(model) == repr(before)
        assert list(map(type, model.modules())) == list(map(type, before.modules()))


# ---- bad input -----------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["AutogradCPU", "CPU", "CompositeImplicitAutograd"])
def test_somebody_elses_kernel(key):
    if threading.active_count() > 1:  # PyTorch 2.8's Inductor leaves one running
        pytest.skip("our kernels stay registered while another thread runs, and PyTorch wants one")
    library = torch.library.Library("aten", "IMPL")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch's own kernel is overridden
        library.impl("alpha_dropout", lambda x, p, train: x + 1, key)
    try:
        with pytest.raises(RuntimeError, match="enable: expected PyTorch's own alpha_dr") as caught:
            fnn.enable()
        assert key in str(caught.value)
        assert len(str(caught.value)) <= 200
        if key == "AutogradCPU":
            assert torch.equal(torch.alpha_dropout(torch.ones(2), 0.5, True), torch.ones(2) + 1)
    finally:
        library._destroy()
    with fnn.enable():
        assert is_on()


def test_an_older_pytorch(monkeypatch):
    monkeypatch.setattr(torch, "__version__", "2.7.1+cpu")
    with pytest.raises(
        RuntimeError, match=r"enable: expected PyTorch 2.8 or later, got 2.7.1\+cpu"
    ):
        fnn.enable()
    assert not is_on()


def test_a_newer_pytorch_that_lacks_a_name(monkeypatch):
    from fastdrop.torch.private import IMPORTED, REGISTERED

    for name in IMPORTED + REGISTERED:
        path = name.split(".")
        if path[0] == "ops":
            continue  # its names are made when they are asked for
        place = torch
        for part in path[:-1]:
            place = getattr(place, part)
        with monkeypatch.context() as patch:
            patch.delattr(place, path[-1])
            with pytest.raises(RuntimeError, match=f"enable: expected torch.{name}, which PyTorch"):
                fnn.enable()
        assert not is_on()


LACKING = """
import sys, torch
from fastdrop.torch.private import IMPORTED  # by the real thing, once
mistakes = []
for name in IMPORTED:
    place, (*path, last) = torch, name.split(".")
    for part in path:
        place = getattr(place, part)
    kept = getattr(place, last)
    delattr(place, last)
    for module in [module for module in sys.modules if module.startswith("fastdrop.torch")]:
        del sys.modules[module]
    try:
        import fastdrop.torch
    except ImportError as error:
        line = f"fastdrop.torch: expected torch.{name}, which PyTorch {torch.__version__} lacks"
        if str(error) != line or len(line) > 200:
            mistakes.append(str(error))
    else:
        mistakes.append(name)
    setattr(place, last, kept)
print(mistakes)
"""


def test_an_import_where_a_name_is_missing():
    found = subprocess.run([sys.executable, "-c", LACKING], capture_output=True, text=True)
    assert found.stdout == "[]\n", found.stderr
