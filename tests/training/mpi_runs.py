"""Trainings that come out alike in one process and over ranks: `python mpi_runs.py folder`."""

import json
import sys
from pathlib import Path

import numpy as np

from fastdrop import layers, models
from fastdrop.callbacks import (
    Callback,
    EarlyStopping,
    LearningRateScheduler,
    ReduceLROnPlateau,
)
from fastdrop.layers import (
    AlphaDropout,
    BatchNormalization,
    ConcreteDropout,
    Dense,
    DropConnect,
    Dropout,
    DropPath,
    GaussianDropout,
    Layer,
    LayerNormalization,
    Residual,
)
from fastdrop.layers.base import build_all
from fastdrop.optimizers import SGD

# Four batches of 50 rows, and one of a single row: fewer than there are ranks.
SAMPLES, FEATURES, CLASSES, BATCH, EPOCHS = 201, 12, 4, 50, 3
RNG = np.random.default_rng(0)
X = RNG.normal(size=(SAMPLES, FEATURES))
Y = RNG.integers(0, CLASSES, SAMPLES)
WEIGHT = RNG.random(SAMPLES)


class Probe(Layer):
    """Remember which elements are not 0 in training."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def forward(self, x, batch):
        if batch.training:
            self.seen.append((batch.row, batch.rows, np.packbits(x != 0, axis=1)))
        return x, lambda dy: dy


def shared(p, groups=1):
    return Dropout(p, shared_axes=(0,), groups=groups)


class StopAt(Callback):
    def __init__(self, step):
        self.step = step

    def on_train_batch_end(self, batch, logs):
        self.model.stop_training = self.model.step == self.step


class Counter(Callback):
    def __init__(self):
        self.calls = 0

    def on_train_batch_end(self, batch, logs):
        self.calls += 1


def head():
    return Dense(CLASSES, "softmax")


def classifier(stack, optimizer="adam", dtype="float32"):
    model = models.Sequential(stack, seed=3, dtype=dtype)
    model.compile(optimizer, "sparse_categorical_crossentropy", ["accuracy"], ["accuracy"])
    return model


def stacks():
    """A bias below a BatchNormalization has no gradient but rounding, which Adam makes large."""
    return {
        "dropout": [Dense(33, "relu"), Dropout(0.3), Dense(9, "tanh"), Dropout(0.5), head()],
        "probe": [Dropout(0.4), Probe(), Dense(9, "relu"), head()],
        "probe of groups": [shared(0.4, 3), Probe(), Dense(9, "relu"), head()],
        "one mask": [Dense(33, "relu"), shared(0.5), Dense(9, "relu"), shared(0.5), head()],
        "groups": [
            shared(0.2, 2),
            Dense(33, "relu"),
            shared(0.5, 3),
            Dense(9, "relu"),
            shared(0.5, 2),
            head(),
        ],
        "max-norm, penalty": [Dense(33, "relu", max_norm=0.5, l2=0.01), Dropout(0.5), head()],
        "normalised": [
            Dense(33, use_bias=False),
            BatchNormalization(),
            layers.ReLU(),
            Dropout(0.3),
            head(),
        ],
        "concrete": [ConcreteDropout(9, 0.2, "relu", dropout_regularizer=0.01), head()],
        "family": [
            Dense(9, "selu"),
            AlphaDropout(0.2),
            Residual(
                [LayerNormalization(), Dense(9, "gelu", use_bias=False), BatchNormalization()]
            ),
            DropPath(0.2),
            GaussianDropout(0.2),
            DropConnect(9, 0.3, "relu"),
            head(),
        ],
        # gradients of more than a bucket, and buckets of several
        "wide": [Dense(1100, "relu"), Dropout(0.5), Dense(1000, "relu"), head()],
    }


def callbacks():
    return {
        "early stopping": [
            EarlyStopping("loss", min_delta=10, patience=1, restore_best_weights=True)
        ],
        "plateau": [ReduceLROnPlateau("loss", min_delta=10, patience=1, factor=0.5)],
        "schedule": [LearningRateScheduler(lambda epoch, rate: 0.9 * rate)],
        "stop within an epoch": [StopAt(7)],
    }


def cases(comm):
    """Give names and functions that train, and return the model."""
    data = {"batch_size": BATCH, "epochs": EPOCHS, "verbose": 0, "comm": comm}
    validation = {"validation_data": (X[:77], Y[:77])}
    for dtype in ("float32", "float64"):
        for name, stack in stacks().items():

            def plain(stack=stack, dtype=dtype):
                model = classifier(stack, dtype=dtype)
                model.fit(X, Y, **data, **validation, sample_weight=WEIGHT)
                return model

            if name != "wide" or dtype == "float32":
                yield f"{name}, {dtype}", plain
    for name, chosen in callbacks().items():

        def with_callbacks(chosen=chosen):
            model = classifier([Dense(9, "relu"), Dropout(0.5), head()], SGD(0.1, momentum=0.9))
            counter = Counter()
            model.fit(X, Y, **data, **validation, callbacks=[*chosen, counter])
            assert (counter.calls > 0) == (comm is None or comm.rank == 0)
            return model

        yield name, with_callbacks

    def binary():
        model = models.Sequential([Dense(9, "relu"), Dropout(0.5), Dense(1, "sigmoid")], seed=1)
        model.compile("rmsprop", "bce", ["auc", "root_mean_squared_error"])
        model.fit(X, Y % 2, **data, validation_split=0.2, shuffle=False, class_weight={1: 2.0})
        return model

    def iterable():
        batches = [(X[i : i + 30], Y[i : i + 30]) for i in range(0, SAMPLES, 30)]
        model = classifier([Dense(9, "relu"), Dropout(0.5), head()])
        model.fit(batches, **data)
        return model

    yield "area, classes' weights", binary
    yield "batches", iterable


def results(comm):
    """Return what every case ends with: arrays by name."""
    arrays = {}
    for name, train in cases(comm):
        model = train()
        found = dict(enumerate(model.get_weights()))
        for layer in model.layers:
            if isinstance(layer, Probe):
                found |= {f"mask {i} {row} {n}": m for i, (row, n, m) in enumerate(layer.seen)}
        found |= {
            f"state {param} {part}": array
            for param, state in model.optimizer.state.items()
            for part, array in state.items()
        }
        found |= {f"history {k}": np.array(v) for k, v in model.history.history.items()}
        found["rate"] = np.array(model.optimizer.current_learning_rate)
        arrays |= {f"{name}/{key}": array for key, array in found.items()}
    return arrays


def loss_is_nan(comm):
    model = classifier([Dense(9, "relu"), head()], SGD(1e20))
    model.fit(X, Y, BATCH, verbose=0, comm=comm)


def small(**changes):
    arguments = {"batch_size": BATCH, "verbose": 0} | changes
    seed, units = arguments.pop("seed", 3), arguments.pop("units", 9)
    optimizer = arguments.pop("optimizer", "adam")
    x, y = arguments.pop("x", X), arguments.pop("y", Y)
    model = models.Sequential([Dense(units, "relu"), Dropout(0.5), head()], seed=seed)
    model.compile(optimizer, "sparse_categorical_crossentropy")
    if arguments.pop("weights_changed", False):
        build_all(model.layers, (FEATURES,), model.seed, model.dtype)
        model.layers[0].params["bias"][0] = 1
    model.fit(x, y, **arguments)


def differences(comm):
    """Return what each rank is told when the last one has something else than the others."""
    odd = comm.rank == comm.size - 1
    callback = LearningRateScheduler(lambda epoch, rate: rate)
    given = {
        "samples": {"x": X[:200], "y": Y[:200]} if odd else {},
        "shape of samples": {"x": X[:, :5]} if odd else {},
        "contents": {"x": X[::-1]} if odd else {},
        "seed": {"seed": 4 if odd else 3},
        "configuration": {"units": 8 if odd else 9},
        "weights": {"weights_changed": odd},
        "learning rate": {"optimizer": SGD(0.1 if odd else 0.2)},
        "batch size": {"batch_size": 40 if odd else 50},
        "too small a batch": {"batch_size": comm.size - 1},
        "one rank's mistake": {"epochs": 0 if odd else 1},
        "callback": {"callbacks": [None] if odd else [callback]},
    }
    told = {}
    for name, changes in given.items():
        try:
            small(comm=comm, **changes)
        except Exception as error:
            told[name] = f"{type(error).__name__}: {error}"
    for name, function in {"NaN": loss_is_nan}.items():
        try:
            function(comm)
        except Exception as error:
            told[name] = f"{type(error).__name__}: {error}"
    return told


if __name__ == "__main__":
    from mpi4py import MPI

    folder, comm = Path(sys.argv[1]), MPI.COMM_WORLD
    if sys.argv[2] == "results":
        np.savez(folder / f"{comm.rank}.npz", **results(comm))
    else:
        (folder / f"{comm.rank}.json").write_text(json.dumps(differences(comm)))
