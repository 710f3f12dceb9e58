"""Many Python threads at once, with and without a GIL: results are those of one thread."""

import itertools
import sys
import sysconfig
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from dtypes import HALF
from processes import run

import fastdrop
from fastdrop import Generator, Key, layers, models
from fastdrop import functional as F  # noqa: N812
from fastdrop.compiled import _core
from fastdrop.random import uniform

THREADS = 16
KEY = Key(1, 2)
X = np.linspace(-1, 1, 24 * 32 * 64, dtype=np.float32).reshape(24, 32, 64)
MAPS = X.reshape(24, 32, 8, 8)
BIAS = np.linspace(0, 1, 64, dtype=np.float32)
MASK = fastdrop.dropout_mask(X.shape, 0.3, key=KEY, packed=True)


def train():
    """A small network with every kind of block; the weights after three epochs."""
    model = models.Sequential(
        [
            layers.Dense(32, activation="relu"),
            layers.Dropout(0.5),
            layers.Dense(16, activation="gelu"),
            layers.LayerNormalization(),
            layers.GaussianNoise(0.1),
            layers.Dense(4, activation="softmax"),
        ],
        seed=3,
    )
    model.compile("adam", "sparse_categorical_crossentropy", ["accuracy"])
    model.fit(X[0], np.arange(32) % 4, batch_size=8, epochs=3, verbose=0)
    return np.concatenate([param.ravel() for param in model.params.values()])


CALLS = {
    "dropout": lambda: F.dropout(X, 0.1, key=KEY),
    "dropout, 3 threads": lambda: F.dropout(X, 0.1, key=KEY, num_threads=3),
    "dropout, small": lambda: F.dropout(X[0, 0], 0.5, key=KEY),
    "dropout, float16": lambda: F.dropout(X.astype(np.float16), 0.3, key=KEY),
    "dropout, last half type": lambda: F.dropout(X.astype(HALF[-1]), 0.3, key=KEY),
    "dropout, shared axes": lambda: F.dropout(X, 0.5, key=KEY, shared_axes=(0, 2)),
    "mask": lambda: F.dropout_mask(X.shape, 0.3, key=KEY),
    "mask applied": lambda: F.apply_mask(X, MASK, 0.3),
    "bias": lambda: F.bias_act_dropout(X, BIAS, "relu", 0.5, key=KEY),
    "add": lambda: F.dropout_add(X, X, 0.5, key=KEY, num_threads=2),
    "softmax": lambda: fastdrop.softmax_dropout(X, 0.5, key=KEY, causal=True, num_threads=2),
    "softmax's backward": lambda: fastdrop.softmax_dropout_backward(X, X, 0.5, key=KEY),
    "alpha": lambda: fastdrop.alpha_dropout(X, 0.5, key=KEY),
    "noise": lambda: fastdrop.gaussian_dropout(X, 0.5, key=KEY),
    "blocks": lambda: fastdrop.drop_block2d(MAPS, 0.3, 3, key=KEY, num_threads=2),
    "uniform": lambda: uniform(KEY, (1000,)),
    "training": train,
}


def at_once(work):
    """What work(0), work(1), ... return, each called in a thread of its own, all at once."""
    barrier = threading.Barrier(THREADS)

    def start(number):
        barrier.wait()
        return work(number)

    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(start, range(THREADS)))


@pytest.fixture(autouse=True)
def _frequent_switches():
    """With a GIL, let threads take turns as often as they can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.fixture
def switching_isas():
    """Another thread that changes the instruction set all the time."""
    before, done = _core.active_isa(), threading.Event()

    def switch():
        for isa in itertools.cycle(fastdrop.available_isas()):
            _core.set_isa(isa)
            if done.wait(1e-4):
                return

    thread = threading.Thread(target=switch)
    thread.start()
    yield
    done.set()
    thread.join()
    _core.set_isa(before)


@pytest.mark.usefixtures("switching_isas")
def test_every_kind_of_call():
    expected = {name: call().tobytes() for name, call in CALLS.items()}
    names = list(CALLS)

    def wrong(number):
        turns = names[number:] + names[:number]
        return [name for name in 2 * turns if CALLS[name]().tobytes() != expected[name]]

    assert at_once(wrong) == [[]] * THREADS


def test_one_model_may_predict_in_many_threads():
    model = models.Sequential([layers.Dense(32, activation="relu"), layers.Dense(4)], seed=1)
    expected = model.predict(X[0], verbose=0)
    results = at_once(lambda number: model.predict(X[0], batch_size=number + 1, verbose=0))
    for result in results:
        np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-6)


def test_keys_while_the_state_is_set():
    generator, states = Generator(0), [(0, 0), (1, 1 << 40)]
    generator.state = states[0]
    drawing = threading.Event()

    def work(number):
        if number:
            return [generator.next_key() for _ in range(3000)]
        while not drawing.is_set():
            for generator.state in states:
                pass
        return []

    def draw(number):
        try:
            return work(number)
        finally:
            drawing.set()

    for key in itertools.chain(*at_once(draw)):
        assert key.call >> 40 == key.seed


def test_layers_used_first_by_many_threads():
    many, x = [layers.Dropout(0.5, seed=1) for _ in range(300)], X[0]
    for masks in zip(*at_once(lambda _: [layer(x, True).tobytes() for layer in many]), strict=True):
        assert len(set(masks)) == THREADS  # no key twice


def test_modules_imported_by_many_threads():
    code = """
import threading, fastdrop
def use():
    fastdrop.models.Sequential([fastdrop.layers.Dense(1)]), fastdrop.metrics, fastdrop.optimizers
    print("done ", end="")
threads = [threading.Thread(target=use) for _ in range(8)]
[thread.start() for thread in threads]
"""
    result = run(code)
    assert result.stdout.split() == ["done"] * 8, result.stderr


@pytest.mark.skipif(not sysconfig.get_config_var("Py_GIL_DISABLED"), reason="this Python has a GIL")
def test_the_gil_stays_off():
    result = run("import sys, fastdrop.models; print(sys._is_gil_enabled())", PYTHON_GIL="")
    assert result.stdout.strip() == "False", result.stderr
