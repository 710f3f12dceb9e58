"""What goes wrong in one rank of several: `python mpi_faults.py kind rank` or `... uneven folder`.

`FAILURES` are errors that one rank has for itself, and `UNEVEN` are ranks that were given different
data, or do different things.
"""

import json
import os
import sys
from pathlib import Path

import numpy as np

from fastdrop import layers, losses, metrics, models
from fastdrop.callbacks import Callback
from fastdrop.layers import Dense, Dropout, Layer

ROWS, FEATURES, BATCH = 64, 4, 16
X = np.random.default_rng(0).normal(size=(ROWS, FEATURES)).astype(np.float32)
Y = np.arange(ROWS) % 3
WEIGHT = np.linspace(0.5, 1.5, ROWS)


def model_of(stack=(), loss="sparse_categorical_crossentropy", chosen=()):
    model = models.Sequential([*stack, Dense(5, "relu"), Dense(3, "softmax")], seed=0)
    model.compile("adam", loss, list(chosen))
    return model


# Errors of one rank


class Own(BaseException):
    """Neither an Exception nor one of Python's."""


class UnprintableError(Exception):
    def __str__(self):
        raise RuntimeError


ERRORS = {
    "RuntimeError": RuntimeError("boom"),
    "ValueError": ValueError("boom"),
    "KeyboardInterrupt": KeyboardInterrupt("boom"),
    "SystemExit": SystemExit(3),
    "SystemExit without a fault": SystemExit(0),
    "SystemExit with a text": SystemExit("boom"),
    "MemoryError": MemoryError("boom"),
    "GeneratorExit": GeneratorExit("boom"),
    "StopIteration": StopIteration("boom"),
    "of one's own": Own("boom"),
    "without a text": UnprintableError(),
}
STATUS = {  # others end with 1
    "SystemExit in a callback": 3,
    "KeyboardInterrupt in a callback": 130,
    "data, interrupted": 130,
}
HOOKS = [name for name in vars(Callback) if name.startswith("on_") and "predict" not in name]


def failing(comm, rank, error=ERRORS["RuntimeError"]):
    """Return a function that fails on this rank, when it is called for the third time."""
    calls = []

    def fail(*arguments, **named):
        calls.append(None)
        if comm.rank == rank and len(calls) == 3:
            raise error

    return fail


class Failing(Callback):
    every_rank = True

    def __init__(self, hook, fail):
        setattr(self, hook, fail)


class OnRank0(Callback):
    def __init__(self, hook, function):
        setattr(self, hook, lambda *_: function(self))


class FailingLayer(Layer):
    def __init__(self, forward, backward):
        super().__init__()
        self._fail = forward, backward

    def forward(self, x, batch):
        self._fail[0]()

        def backward(dy):
            self._fail[1]()
            return dy

        return x, backward


class FailingLoss(losses.SparseCategoricalCrossentropy):
    def __init__(self, fail):
        super().__init__()
        self._fail = fail

    def __call__(self, *arguments, **named):
        self._fail()
        return super().__call__(*arguments, **named)


class FailingMetric(metrics.SparseCategoricalAccuracy):
    def __init__(self, **fails):
        super().__init__(name="failing")
        self._fails = fails

    def update(self, *arguments, **named):
        self._fails.get("update", str)()
        super().update(*arguments, **named)

    def result(self):
        self._fails.get("result", str)()
        return super().result()

    def __deepcopy__(self, memo):
        return FailingMetric(**self._fails)

    def __getstate__(self):
        self._fails.get("getstate", str)()
        return {name: value for name, value in self.__dict__.items() if name != "_fails"}

    def __setstate__(self, state):
        self.__dict__.update(state, _fails={})


def batches(fail=str, epochs=1):
    for start in range(0, epochs * ROWS, BATCH):
        fail()
        start %= ROWS
        yield X[start : start + BATCH], Y[start : start + BATCH]


def at_once(fail):
    """A function that fails when it is first called."""

    def first(*arguments, **named):
        fail()
        fail()
        fail()

    return first


class Barrier(Callback):
    """Wait for the others, who may not come any more."""

    every_rank = True

    def __init__(self, comm):
        self.comm = comm

    def on_train_end(self, logs=None):
        self.comm.Barrier()


class Caught(Callback):
    """Raise once more, on one rank, what was raised on all before."""

    every_rank = True

    def __init__(self, comm, rank):
        self.comm, self.rank = comm, rank

    def on_epoch_end(self, epoch, logs=None):
        try:
            self.model.evaluate(X, Y[1:], verbose=0, comm=self.comm)
        except ValueError as error:
            self.error = error

    def on_epoch_begin(self, epoch, logs=None):
        if epoch and self.comm.rank == self.rank:
            raise self.error


class ClosedStreams(Callback):
    every_rank = True

    def __init__(self, comm, rank):
        self.comm, self.rank = comm, rank

    def on_epoch_end(self, epoch, logs=None):
        if self.comm.rank == self.rank:
            sys.stderr.close()
            sys.stdout.close()
            raise RuntimeError("boom")


def fit(comm, x=X, y=Y, *, model=None, **arguments):
    model = model or model_of()
    arguments = {"batch_size": BATCH, "epochs": 4, "verbose": 0} | arguments
    model.fit(x, y, comm=comm, **arguments)


def failures(comm, rank):
    """Return functions by name; each fails on `rank` alone."""
    boom = failing(comm, rank)
    kinds = {
        f"{name} in a callback": lambda error=error: fit(
            comm, callbacks=[Failing("on_train_batch_end", failing(comm, rank, error))]
        )
        for name, error in ERRORS.items()
    }
    kinds |= {
        hook: lambda hook=hook: fit(
            comm,
            callbacks=[Failing(hook, at_once(boom) if hook.startswith("on_train_") else boom)],
            validation_data=(X, Y),
        )
        for hook in HOOKS
    }
    if rank == 0:

        def evaluate(callback):
            callback.model.predict(X, verbose=0)
            callback.model.evaluate(X, Y, verbose=0, comm=comm)

        kinds |= {
            f"evaluate on rank 0 alone, {hook}": lambda hook=hook: fit(
                comm, callbacks=[OnRank0(hook, evaluate)], validation_data=(X, Y)
            )
            for hook in HOOKS
        }
    return kinds | {
        "data": lambda: fit(comm, batches(failing(comm, rank)), None, epochs=1),
        "data, interrupted": lambda: fit(
            comm, batches(failing(comm, rank, KeyboardInterrupt("boom"))), None, epochs=1
        ),
        "validation data": lambda: fit(
            comm, validation_data=batches(failing(comm, rank)), epochs=1
        ),
        "forward": lambda: fit(comm, model=model_of([FailingLayer(boom, str)])),
        "backward": lambda: fit(comm, model=model_of([Dense(4), FailingLayer(str, boom)])),
        "forward, after sums": lambda: fit(
            comm, model=model_of([layers.BatchNormalization(), FailingLayer(boom, str)])
        ),
        "loss": lambda: fit(comm, model=model_of(loss=FailingLoss(boom))),
        "update of a metric": lambda: fit(
            comm, model=model_of(chosen=[FailingMetric(update=boom)])
        ),
        "metric that cannot be sent": lambda: fit(
            comm, model=model_of(chosen=[FailingMetric(getstate=boom)])
        ),
        "at the end of an error's way": lambda: fit(
            comm,
            callbacks=[
                Failing("on_epoch_end", failing(comm, rank, ValueError("earlier"))),
                Failing("on_train_end", at_once(boom)),
            ],
        ),
        "a callback that waits": lambda: fit(
            comm, callbacks=[Barrier(comm), Failing("on_epoch_end", boom)]
        ),
        "an error that was shared once": lambda: fit(comm, callbacks=[Caught(comm, rank)]),
        "closed streams": lambda: fit(comm, callbacks=[ClosedStreams(comm, rank)]),
        "evaluate": lambda: model_of([FailingLayer(boom, str)]).evaluate(
            X, Y, BATCH, verbose=0, comm=comm
        ),
        "evaluate, data": lambda: model_of().evaluate(
            batches(failing(comm, rank)), verbose=0, comm=comm
        ),
        "evaluate in a callback that goes on": lambda: fit(
            comm, callbacks=[_Suppressing(comm, failing(comm, rank))]
        ),
    }


class _Suppressing(Callback):
    every_rank = True

    def __init__(self, comm, fail):
        self.comm, self.fail = comm, fail

    def on_epoch_end(self, epoch, logs=None):
        try:
            self.model.evaluate(batches(self.fail), verbose=0, comm=self.comm)
        except RuntimeError:
            os.write(1, f"rank {self.comm.rank} has left evaluate\n".encode())


def fail(comm, kind, rank):
    """Fail, and say so when code behind `fit` is reached in any way."""
    try:
        failures(comm, rank)[kind]()
    finally:
        os.write(1, f"rank {comm.rank} has left\n".encode())


# Ranks that differ


class Again:
    """Batches that can be iterated again and have no length."""

    def __init__(self, *epochs):
        self.epochs = list(epochs)

    def __iter__(self):
        return iter(self.epochs.pop(0) if len(self.epochs) > 1 else self.epochs[0])


def shuffled(array):
    return array[np.random.default_rng(1).permutation(len(array))]


def changed(array, index, value):
    array = array.copy()
    array[index] = value
    return array


def stored(path, array):
    np.save(path, array)
    return np.load(path, mmap_mode="r")


def uneven(comm, other_rank, folder):
    """Return trainings by name: `other_rank` is given something else than the others."""
    rank = comm.rank
    is_odd = rank == other_rank
    whole = list(batches())
    size = comm.size

    def data(odd_one, *others):
        """Batches that can be iterated again; the odd rank's, and the other ranks'."""
        return Again(*(odd_one if is_odd else others or [whole]))

    def with_batch(number, *batch):
        return [[*whole[:number], batch, *whole[number + 1 :]]]

    def evaluate(x, y=None):
        model_of().evaluate(x, y, BATCH, verbose=0, comm=comm)

    x, y = whole[2]
    weighted = [(x, y, np.ones(BATCH)) for x, y in whole]
    fewer, more = [whole[:3]], [[*whole, whole[0]]]
    kinds = {
        "fewer batches": data(fewer),
        "more batches": data(more),
        "no batch in the second epoch": data([whole, []]),
        "fewer batches in the second epoch": data([whole, whole[:1]]),
        "a batch of fewer rows": data(with_batch(2, x[1:], y[1:])),
        "a batch of more rows": data(with_batch(2, X, Y)),
        "other rows": data([[(x[::-1], y[::-1]) for x, y in whole]]),
        "other rows in the third batch": data(with_batch(2, x[::-1], y)),
        "one number": data(with_batch(2, changed(x, (3, 1), 7), y)),
        "other labels": data(with_batch(2, x, y[::-1])),
        "another dtype": data(with_batch(2, x.astype(np.float64), y)),
        "another dtype of labels": data(with_batch(2, x, y.astype(np.uint8))),
        "another shape": data(with_batch(2, x[:, :3], y)),
        "labels of another shape": data(with_batch(2, x, y[1:])),
        "no finite number": data(with_batch(2, changed(x, (3, 1), np.nan), y)),
        "weights on one rank": data([weighted]),
        "other weights": data([[(x, y, changed(w, 3, 2)) for x, y, w in weighted]], weighted),
        "shards": Again(whole[rank::size]),
        "shards of batches": Again([(x[rank::size], y[rank::size]) for x, y in whole]),
        "a float's last bit": data(with_batch(2, np.nextafter(x, np.float32(9)), y)),
    }
    kinds = {
        name: lambda given=given: fit(comm, given, None, epochs=2) for name, given in kinds.items()
    }
    kinds |= {
        f"validation, {name}": lambda given=given: fit(comm, validation_data=given)
        for name, given in {
            "fewer batches": data(fewer),
            "no batch in the second epoch": data([whole, []]),
            "other rows": data(with_batch(2, x[::-1], y)),
            "another shape": data(with_batch(2, x[:, :3], y)),
            "samples": (X[is_odd:], Y[is_odd:]),
            "labels": (X, Y[::-1] if is_odd else Y),
        }.items()
    }
    kinds |= {
        f"evaluate, {name}": lambda given=given: evaluate(given)
        for name, given in {
            "fewer batches": data(fewer),
            "other rows": data(with_batch(2, x[::-1], y)),
            "a shape": data(with_batch(2, x[:, :3], y)),
        }.items()
    }
    steps = {"steps_per_epoch": 3, "epochs": 4}
    shard = slice(rank * ROWS // size, (rank + 1) * ROWS // size)
    other = {
        "a generator that ends early": lambda: fit(
            comm, batches(epochs=2 if is_odd else 5), None, **steps
        ),
        "steps_per_epoch": lambda: fit(
            comm, Again(whole), None, steps_per_epoch=3 if is_odd else 4
        ),
        "array, samples": lambda: fit(comm, X[is_odd:], Y[is_odd:]),
        "array, order": lambda: fit(comm, shuffled(X) if is_odd else X),
        "array, labels": lambda: fit(comm, y=shuffled(Y) if is_odd else Y),
        "array, one number": lambda: fit(comm, changed(X, (37, 2), 1) if is_odd else X),
        "array, one of many numbers": lambda: fit(
            comm, np.tile(changed(X, 37, 1) if is_odd else X, (300, 8)), np.tile(Y, 300)
        ),
        "array, columns": lambda: fit(comm, X[:, ::-1] if is_odd else X),
        "array, dtype": lambda: fit(comm, X.astype(np.float64) if is_odd else X),
        "array, weights": lambda: fit(
            comm, sample_weight=changed(WEIGHT, 37, 1) if is_odd else WEIGHT
        ),
        "array, weights on one rank": lambda: fit(comm, sample_weight=WEIGHT if is_odd else None),
        "array, shards": lambda: fit(comm, X[shard], Y[shard]),
        "array, shards on disk": lambda: fit(
            comm, stored(f"{folder}/{rank}.npy", X[shard]), Y[shard]
        ),
        "array, another on disk": lambda: fit(
            comm, stored(f"{folder}/{rank}.npy", shuffled(X) if is_odd else X)
        ),
        "array, its validation": lambda: fit(comm, validation_split=0.25 if is_odd else 0.5),
        "array and batches": lambda: fit(comm, *((whole, None) if is_odd else (X, Y))),
        "evaluate, array": lambda: evaluate(shuffled(X) if is_odd else X, Y),
        "evaluate, labels": lambda: evaluate(X, shuffled(Y) if is_odd else Y),
        "fit and evaluate": lambda: evaluate(X, Y) if is_odd else fit(comm),
    }
    changes = {
        f"rank 0 changes {name}, {hook}": lambda name=name, value=value, hook=hook: fit(
            comm,
            model=model_of([Dense(40), Dropout(0.5, shared_axes=(0,))]),
            callbacks=[OnRank0(hook, lambda callback: set_in(callback.model, name, value))],
        )
        for name, value in {"p": 0.1, "trainable": False}.items()
        for hook in ("on_train_batch_end", "on_epoch_begin")
    }
    return kinds | other | changes


def set_in(model, name, value):
    for layer in model.layers:
        if hasattr(layer, name):
            setattr(layer, name, value)


def odd(time, ranks):
    """Return the rank that differs at this time: the last one first."""
    return (time - 1) % ranks


def told(comm, folder, times):
    """Return what this rank is told, of each kind as often, by name."""
    names = list(uneven(comm, 0, folder))
    found = {name: [] for name in names}
    for time in range(times):
        for name in names:
            error = None
            try:
                uneven(comm, odd(time, comm.size), folder)[name]()
            except Exception as raised:
                error = f"{type(raised).__name__}: {raised}"
            found[name].append(error)
    return found


if __name__ == "__main__":
    from mpi4py import MPI

    if sys.argv[1] == "uneven":
        folder, rank = Path(sys.argv[2]), MPI.COMM_WORLD.rank
        texts = told(MPI.COMM_WORLD, folder, int(sys.argv[3]))
        (folder / f"{rank}.json").write_text(json.dumps(texts))
    else:
        fail(MPI.COMM_WORLD, sys.argv[1], int(sys.argv[2]))
