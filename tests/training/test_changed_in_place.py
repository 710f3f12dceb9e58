"""Shapes, dtypes and the like that callbacks, metrics and other threads assign in the middle."""

import warnings
from contextlib import suppress

import numpy as np
import pytest
from processes import run

from fastdrop import callbacks, layers, losses, metrics
from fastdrop.models import Sequential


def assign(array, name, value):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        setattr(array, name, value)


CHANGES = {
    "flat": lambda a: assign(a, "shape", (-1,)),
    "one row": lambda a: assign(a, "shape", (1, -1)),
    "one column": lambda a: assign(a, "shape", (-1, 1)),
    "narrower": lambda a: assign(a, "dtype", np.uint16),
    "other dtype": lambda a: assign(a, "dtype", f"S{a.itemsize}"),
    "byte order": lambda a: assign(a, "dtype", a.dtype.newbyteorder()),
    "strides": lambda a: assign(a, "strides", (0,) * a.ndim),
    "read-only": lambda a: a.setflags(write=False),
    "memory": lambda a: a.resize(1, refcheck=False),
}


class Data:
    """What is given to `fit`, of 48 samples; `weights` are those of the model."""

    def __init__(self, *stack, dtype="float32"):
        rng = np.random.default_rng(0)
        self.x, self.xv = (rng.normal(size=(48, 40)).astype(dtype) for _ in range(2))
        self.y, self.yv = (rng.integers(0, 3, 48).astype(np.intp) for _ in range(2))
        self.w = np.ones(48, dtype)
        self.model = Sequential([*stack, layers.Dense(3, "softmax")], seed=1, dtype=dtype)
        self.model.compile("adam", "sparse_categorical_crossentropy", ["accuracy"])

    def weight(self, number):
        arrays = [*self.model.network.weights().values()]
        return arrays[number % len(arrays)]

    def fit(self, shuffle=True, callback=None):
        self.model.fit(
            *(self.x, self.y, 16, 2),
            sample_weight=self.w,
            validation_data=(self.xv, self.yv),
            verbose=0,
            shuffle=shuffle,
            callbacks=[callback] if callback else [],
        )
        return [w.tobytes() for w in self.model.get_weights()]


def dense():
    return layers.Dense(8, "relu"), layers.Dropout(0.5)


STACKS = {
    "dense": dense,
    "one mask for the batch": lambda: (
        layers.Dropout(0.3, shared_axes=0),
        layers.Dense(8, "relu"),
        layers.Dropout(0.5, shared_axes=0, groups=2),
        layers.Dense(8, "tanh"),
    ),
    "normalized": lambda: (layers.Dense(8), layers.BatchNormalization(), layers.ReLU()),
}

ARRAYS = {
    "x": lambda data: data.x,
    "y": lambda data: data.y,
    "sample_weight": lambda data: data.w,
    "validation_data[0]": lambda data: data.xv,
    "validation_data[1]": lambda data: data.yv,
    **{f"weights {number}": lambda data, number=number: data.weight(number) for number in range(5)},
    **{
        f"state {number}": lambda data, number=number: list(
            list(data.model.optimizer.state.values())[number].values()
        )[number]
        for number in range(2)
    },
}


class Change(callbacks.Callback):
    """Changes an array once, unless NumPy refuses it."""

    def __init__(self, hook, data, which, change):
        super().__init__()
        self.data, self.which, self.change = data, which, change
        self.begun = False
        setattr(self, hook, self.once)

    def once(self, number, logs=None):
        if number == 1 and not self.begun:
            self.begun = True
            with suppress(ValueError, TypeError):
                CHANGES[self.change](ARRAYS[self.which](self.data))


# What an error may name: parameters by the update's name, too, states by that of the rule.
NAMES = {"weights": ("weights[", "params["), "state": ("m[", "v[")}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("which", ARRAYS)
@pytest.mark.parametrize("stack", STACKS)
def test_by_a_callback(stack, which, change):
    """An error that names the array, or weights as if nothing had happened."""
    for shuffle in (True, False):
        expected = Data(*STACKS[stack]()).fit(shuffle)
        for hook in ("on_train_batch_begin", "on_train_batch_end", "on_epoch_begin"):
            data, error = Data(*STACKS[stack]()), None
            try:
                got = data.fit(shuffle, Change(hook, data, which, change))
            except (ValueError, TypeError) as refused:
                error = str(refused)
            if error is None:
                assert got == expected
            else:
                assert error.startswith(NAMES.get(which.split()[0], f"{which}: ")), error


class MeddlingLoss(losses.MeanSquaredError):
    def _losses(self, outputs, y, from_logits):
        found = super()._losses(outputs, y, from_logits)
        CHANGES[self.change](outputs)
        return found


class MeddlingMetric(metrics.Metric):
    def update(self, outputs, y, from_logits=None, sample_weight=None):
        CHANGES[self.change](outputs)

    def result(self):
        return 0.0


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("kind", ["loss", "metric"])
def test_by_losses_and_metrics(kind, change):
    """Outputs are buffers that the next batch uses again: an error is fine, a crash is not."""
    MeddlingLoss.change = MeddlingMetric.change = change
    model = Sequential([layers.Dense(8, "relu"), layers.Dropout(0.5), layers.Dense(3)], seed=1)
    x, y = np.ones((48, 5), np.float32), np.ones((48, 3), np.float32)
    model.compile(
        "sgd",
        MeddlingLoss() if kind == "loss" else "mse",
        metrics=[MeddlingMetric("figure")] if kind == "metric" else [],
    )
    with suppress(ValueError, TypeError):
        model.fit(x, y, 16, 2, verbose=0)


THREAD = """
import threading, time, warnings
import numpy as np
from fastdrop import layers, optimizers
from fastdrop.models import Sequential

warnings.simplefilter("ignore")
x, y = np.ones((256, 40), np.float32), np.zeros(256, np.intp)
stack = [
    layers.Dropout(0.2, shared_axes=0),
    layers.Dense(64, "relu"),
    layers.Dropout(0.5, shared_axes=0),
    layers.Dense(64, "relu"),
    layers.Dense(3, "softmax"),
]
model = Sequential(stack, seed=1)
model.compile("adam", "sparse_categorical_crossentropy")
model.fit(x, y, 64, 1, verbose=0)
arrays = [(a, a.shape) for a in (x, y, *model.network.weights().values())]
end = threading.Event()

def meddle():
    number = 0
    while not end.is_set():
        for array, shape in arrays:
            number += 1
            dtype = array.dtype
            array.shape = ((-1,), (1, -1), (-1, 1))[number % 3]
            array.dtype = (dtype, np.uint16, f"S{dtype.itemsize}")[number // 3 % 3]
            time.sleep(0)
            array.dtype = dtype
            array.shape = shape
        y[...] = number % 5 // 4 * 10**9
        time.sleep(0)

thread = threading.Thread(target=meddle)
thread.start()
calls = [
    lambda: model.fit(x, y, 64, 1, verbose=0),
    lambda: model.fit(x, y, 64, 1, verbose=0, shuffle=False),
    lambda: model.evaluate(x, y, 64, verbose=0),
    lambda: model.predict(x, 64, verbose=0),
    lambda: model.train_on_batch(x[:64], y[:64]),
    lambda: stack[3].forward(np.ones((9, 64), np.float32)),
]
deadline = time.monotonic() + 1.2
while time.monotonic() < deadline:
    for call in calls:
        try:
            call()
        except (ValueError, TypeError, IndexError):
            pass
end.set()
thread.join()
print("alive")
"""


def test_by_another_thread():
    done = run(THREAD)
    assert (done.returncode, done.stdout) == (0, "alive\n"), done.stderr[-2000:]


@pytest.mark.parametrize("shuffle", [True, False])
def test_memory_is_kept_where_it_is(shuffle):
    """Views of what the user gave look at it all the time."""
    data = Data(*dense())
    refused = []

    class Resize(callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            weights = data.model.network.weights().values() if batch else ()
            for array in (data.x, data.y, *weights):
                with pytest.raises(ValueError, match="resize"):
                    array.resize(1, refcheck=False)
                refused.append(array)

    data.model.fit(
        *(data.x, data.y, 16, 1),
        *(0, [Resize()], 0.25),
        shuffle=shuffle,
    )
    assert refused
