"""No call of a compiled function ends the process, or reads and writes where it should not."""

import sys
import threading
import time
import warnings
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from processes import run

import fastdrop as fd
from fastdrop import Key
from fastdrop.compiled import _core, _losses, _products, _train

KEY = Key(1)

sys.path.insert(0, str(Path(__file__).parent))
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="guard pages as Linux has them")


@LINUX
def test_wrong_arguments():
    """tools/fuzz-compiled makes many more of these calls."""
    import fuzz

    outcomes, failures = fuzz.fuzz(seed=0, calls=800, at_once=400)
    assert not failures, "\n".join(failures)
    assert sum(outcomes.values()) >= 800
    called = {what.split()[0] for what in outcomes}
    assert called == fuzz.functions().keys()


# One element beyond an array that ends with its page, and the process ends.
BEYOND = """
import fuzz, numpy as np
a = fuzz.guarded(4096, True).view(np.float32)
print(a[-1] > 0, flush=True)
np.lib.stride_tricks.as_strided(a, (1025,), (4,)).sum()
print("not reached")
"""


@LINUX
def test_the_fuzzers_pages_are_guarded():
    folder = str(Path(__file__).parent)
    done = run(f"import sys; sys.path.insert(0, {folder!r})\n{BEYOND}")
    assert (done.returncode != 0, done.stdout) == (True, "True\n"), done.stderr


class Meddler:
    """Assigns in the middle of a call, where this number is asked for."""

    def __init__(self, meddle):
        self.meddle = meddle

    def __index__(self):
        self.meddle()
        return 2


def meddlers(array):
    """What may be assigned in place."""

    def assign(name, value):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            with suppress(ValueError):  # NumPy refuses some of it
                setattr(array, name, value)

    return {
        "wider dtype": lambda: assign("dtype", np.float64),
        "narrower dtype": lambda: assign("dtype", np.float16),
        "other dtype": lambda: assign("dtype", np.int32),
        "byte order": lambda: assign("dtype", ">f4"),
        "strides": lambda: assign("strides", (0, 0)),
        "flat": lambda: assign("shape", (-1,)),
        "read-only": lambda: array.setflags(write=False),
    }


def operations(x, z, out, n):
    """Those that have every kind of operand."""
    y = np.maximum(x, 0)
    return {
        "dropout": lambda: fd.dropout(x, 0.3, key=KEY, out=out, num_threads=n),
        "shared": lambda: fd.dropout(x, 0.3, key=KEY, shared_axes=1, out=out, num_threads=n),
        "mask": lambda: fd.dropout(x, 0.3, key=KEY, out=out, return_mask=True, num_threads=n)[0],
        "add": lambda: fd.dropout_add(x, z, 0.3, key=KEY, out=out, num_threads=n),
        "alpha": lambda: fd.alpha_dropout(x, 0.3, key=KEY, out=out, num_threads=n),
        "zoneout": lambda: fd.zoneout(x, z, 0.3, key=KEY, out=out, num_threads=n),
        "noise": lambda: fd.gaussian_noise(x, 0.3, key=KEY, out=out, num_threads=n),
        "bias": lambda: fd.bias_act_dropout(x, z[0], None, 0.3, key=KEY, out=out, num_threads=n),
        "backward": lambda: fd.bias_act_dropout_backward(
            x, y, "relu", 0.3, key=KEY, out=out, num_threads=n
        )[0],
        "softmax": lambda: fd.softmax_dropout(x, 0.3, key=KEY, mask=z, out=out, num_threads=n),
        "softmax's backward": lambda: fd.softmax_dropout_backward(
            x, z, 0.3, key=KEY, out=out, num_threads=n
        ),
    }


@pytest.mark.parametrize("kind", meddlers(None))
@pytest.mark.parametrize("which", ["x", "z", "out"])
@pytest.mark.parametrize("name", operations(*[np.ones((2, 2), np.float32)] * 3, 1))
def test_layouts_that_change_in_the_middle_of_a_call(name, which, kind):
    """The result of the array as it was, or an error that names it."""
    for plain in (True, False):
        arrays = {k: np.full((60, 64), i + 1, np.float32) for i, k in enumerate(("x", "z", "out"))}
        if not plain:
            arrays["x"] = np.ones((60, 128), np.float32)[:, ::2]
        expected = operations(**arrays, n=1)[name]().copy()
        arrays["out"][...] = 7
        before = arrays["out"].copy()
        meddle = Meddler(meddlers(arrays[which])[kind])
        named = ""
        try:
            y = operations(**arrays, n=meddle)[name]()
        except (ValueError, TypeError) as error:
            named = str(error).split(":")[0]
            named = "z" if named in ("scores", "mask") else named  # what softmax calls it
        if named:
            assert named == which or (kind, named) == ("flat", "out")
            np.testing.assert_array_equal(np.frombuffer(arrays["out"], np.float32), before.ravel())
        elif which == "z" or kind not in ("flat", "byte order", "strides"):
            np.testing.assert_array_equal(y, expected)


def test_layouts_that_another_thread_changes():
    """While kernels run without the GIL, and between their parts."""
    x, z, out = (np.ones((300, 400), np.float32) for _ in range(3))
    rows, labels = np.arange(300), np.zeros(300, np.intp)
    matrix, taken = np.ones((300, 400), np.float32), np.empty((300, 400), np.float32)
    end = threading.Event()

    def meddle():
        number = 0
        while not end.is_set():
            for array in (x, z, out, matrix):
                number += 1
                shape = ((400, 300), (1, 120_000), (120_000,), (300, 400))[number % 4]
                array.shape = (-1,)
                array.dtype = (np.float32, np.float64, np.float16)[number % 3]
                time.sleep(0)
                array.dtype = np.float32
                array.shape = shape
            labels[...] = number % 500
            time.sleep(0)

    calls = [
        *operations(x, z, out, 2).values(),
        lambda: _train.submatrix(matrix, rows, None, taken),
        lambda: _train.rows_ahead(matrix, rows, taken),
        lambda: _losses.softmax_cross_entropy(matrix, labels),
        lambda: _train.update({"w": x}, {"w": z}, None, {}, "adam", {"rate": 0.1}),
        lambda: fd.apply_mask(x, np.full(15_000, 255, np.uint8), 0.5, out=out),
        lambda: _core.drop_blocks(x[None, None], 3, 0.1, 1, 1, 0, None, 2),
    ]
    thread = threading.Thread(target=meddle)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        thread.start()
        finished = 0
        start = time.monotonic()
        # on a busy machine the other thread may have all arrays in its hands for a while
        while time.monotonic() < start + (1 if finished else 30):
            for call in calls:
                try:
                    call()
                    finished += 1
                except (ValueError, TypeError):
                    pass
        end.set()
        thread.join()
    assert finished


def test_lists_and_mappings_that_lie_about_their_length():
    class Parameters(dict):
        def __len__(self):
            return 1

    class Parts(list):
        def __len__(self):
            return 0

    def arrays():
        return {str(i): np.ones((3, 4), np.float32) for i in range(50)}

    expected, params = arrays(), Parameters(arrays())
    _train.update(expected, arrays(), None, {}, "sgd", {"rate": 0.5})
    _train.update(params, arrays(), None, {}, "sgd", {"rate": 0.5})
    assert all((params[name] == expected[name]).all() for name in expected)

    part = (np.arange(3), np.arange(4), np.ones((3, 4), np.float32))
    w = np.zeros((3, 4), np.float32)
    gradient = fd.layers.PartialGradient((3, 4), Parts([part] * 20))
    _train.update({"w": w}, {"w": gradient}, None, {}, "sgd", {"rate": 1})
    assert (w == -20).all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: _core.memory(64, (1,) * 65, np.dtype("f4")), "shape: expected at most 64 axes"),
        (lambda: _core.memory(64, (-1,), np.dtype("f4")), "negative dimensions"),
        (lambda: _core.memory(66, (1,), np.dtype("f4")), "address: expected one aligned"),
        (lambda: _core.memory(0, (1,), np.dtype("f4")), "address: expected one aligned"),
        (lambda: _core.memory(64, (1,), np.dtype(object)), "dtype: expected an array of float16"),
        (lambda: _core.make_mask(2**64 - 1, 0.5, 0, 0, 0, True, None), "n: expected at most"),
        (lambda: _core.make_mask(8, 1.5, 0, 0, 0, True, None), "p: expected a probability"),
        (
            lambda: _core.make_mask(8, float("nan"), 0, 0, 0, True, None),
            "p: expected a probability",
        ),
        (
            lambda: _core.drop_blocks(np.ones((3, 4)), 1, 0.1, 0, 0, 0, None, None),
            "x: expected 4 axes",
        ),
        (
            lambda: _core.drop_blocks(np.ones((1, 1, 3, 4)), 4, 0.1, 0, 0, 0, None, None),
            "block: expected one that fits",
        ),
        (
            lambda: _core.apply_packed(np.ones(9), np.ones(1, np.uint8), 2.0, (), None, None),
            r"mask: expected 2 contiguous bytes of uint8 for 9 packed bits, got uint8 .*\(1,\)",
        ),
        (
            lambda: _core.masked_scale(np.ones(9), 0.5, 2.0, 0, 0, (1,), 0, None, False, None),
            r"axes: expected numbers in \[0, 1\), got 1",
        ),
        (
            lambda: _train.submatrix(np.ones((3, 4)), np.array([0, 3]), None, np.ones((2, 4))),
            "matrix: expected C-contiguous floats",
        ),
        (
            lambda: _train.submatrix(np.ones((3, 4)), None, np.array([1, 0]), np.ones((3, 2))),
            "matrix: expected C-contiguous floats",
        ),
        (
            lambda: _train.rows_ahead(np.ones((3, 9999)), np.array([0, 3]), np.ones((2, 9999))),
            "matrix: expected C-contiguous floats",
        ),
        (
            lambda: _losses.softmax_cross_entropy(np.ones(3), np.zeros(3, np.intp)),
            "outputs: expected C-contiguous",
        ),
        (
            lambda: _losses.softmax_cross_entropy(np.ones((3, 2)), np.zeros(3, np.int32)),
            "y: expected labels or probabilities",
        ),
        (
            lambda: _losses.softmax_cross_entropy(np.ones((3, 2)), np.array([0, -1, 0])),
            r"y: expected class numbers in \[0, 2\), got -1",
        ),
        (lambda: _core.philox((1, 2, 3), 0), "need more than 3 values"),
    ],
)
def test_refused(call, message):
    with pytest.raises((ValueError, TypeError), match=message):
        call()


@pytest.mark.parametrize(
    "call",
    [
        lambda: _core.memory(64, None, np.dtype("f4")),
        lambda: _core.memory(64, (1,), None),
        lambda: _core.apply_packed(np.ones(8), None, 2.0, (), None, None),
        lambda: _core.masked_scale(np.ones(8), 0.5, 2.0, 0, 0, None, 0, None, False, None),
        lambda: _core.stream_copy(None, np.ones(8), 1),
        lambda: _products.matmul(None, np.ones((2, 2)), np.ones((2, 2))),
        lambda: _train.submatrix(None, None, None, None),
        lambda: _train.rows_ahead(None, None, None),
        lambda: _losses.softmax_cross_entropy(None, None),
        lambda: _train.update({}, {}, None, None, "adam", {"rate": 0.1}),
    ],
)
def test_none_is_no_array(call):
    with pytest.raises(TypeError, match="NoneType"):
        call()
