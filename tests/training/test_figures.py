"""What callbacks get: dicts of figures, which may be kept, and cost nothing where nobody reads."""

import copy
import json
import operator
import pickle

import numpy as np
import pytest

from fastdrop.callbacks import Callback, LambdaCallback, TerminateOnNaN
from fastdrop.layers import Dense
from fastdrop.metrics import Metric
from fastdrop.models import Sequential

X = np.random.default_rng(0).normal(size=(20, 4)).astype(np.float32)
Y = np.arange(20) % 2


def updated(one, other):
    one.update(other)
    return one


COPIES = {
    "copy": lambda logs: logs.copy(),
    "copy.copy": copy.copy,
    "copy.deepcopy": copy.deepcopy,
    "pickle": lambda logs: pickle.loads(pickle.dumps(logs)),
    "dict": dict,
    "**": lambda logs: {**logs},
    "keywords": lambda logs: dict(**logs),
    "update": lambda logs: updated({}, logs),
    "|=": lambda logs: operator.ior({}, logs),
    "|": lambda logs: logs | {},
    "| behind": lambda logs: {} | logs,
    "items": lambda logs: dict(logs.items()),
    "values": lambda logs: dict(zip(logs.keys(), logs.values(), strict=True)),
    "get": lambda logs: {name: logs.get(name) for name in logs},
    "repr": lambda logs: eval(repr(logs)),
    "json": lambda logs: json.loads(json.dumps(logs)),
    "json, indented": lambda logs: json.loads(json.dumps(logs, indent=1, sort_keys=True)),
    "pop": lambda logs: {name: logs.pop(name) for name in list(logs)},
    "popitem": lambda logs: dict(logs.popitem() for _ in range(len(logs))),
    "setdefault": lambda logs: {name: logs.setdefault(name, 3) for name in logs},
}


def auc_model():
    m = Sequential([Dense(1, "sigmoid")], seed=0)
    m.compile("sgd", "bce", ["accuracy", "auc", "root_mean_squared_error"])
    return m


def figures_of_batches(take, run=lambda m, **given: m.fit(X, Y, 5, 1, **given)):
    """Return what `take` makes of the figures, batch by batch."""
    taken = []

    def hook(batch, logs):
        taken.append(take(logs))

    callback = LambdaCallback(on_train_batch_end=hook, on_test_batch_end=hook)
    run(auc_model(), verbose=0, callbacks=callback)
    return taken


@pytest.mark.parametrize("take", COPIES.values(), ids=list(COPIES))
def test_figures_of_a_batch_are_a_dict(take):
    expected = figures_of_batches(lambda logs: {name: logs[name] for name in logs})
    assert len({figures["auc"] for figures in expected}) > 1
    taken = figures_of_batches(take)
    assert taken == expected
    assert all(type(figures) is dict for figures in taken)


@pytest.mark.parametrize("run", ["fit", "evaluate"])
def test_figures_that_are_kept_stay_as_they_were(run):
    def call(m, **given):
        return m.fit(X, Y, 5, **given) if run == "fit" else m.evaluate(X, Y, 5, **given)

    kept = figures_of_batches(lambda logs: logs, call)
    assert all(isinstance(logs, dict) for logs in kept)
    assert kept == figures_of_batches(dict, call)
    assert len({logs["loss"] for logs in kept}) == 4


def test_figures_of_a_batch_may_be_changed():
    def change(logs):
        logs["loss"] = 3.0
        logs |= {"mine": 1}
        del logs["auc"]
        assert logs == {**logs} != {"loss": 3.0}
        kept = dict(logs)
        logs.clear()
        assert not logs
        return kept

    names = {"loss", "mine", "accuracy", "root_mean_squared_error"}
    assert [set(kept) for kept in figures_of_batches(change)] == [names] * 4


def test_figures_that_nobody_reads_are_not_worked_out():
    class Counted(Metric):
        def update(self, *given):
            pass

        def result(self):
            worked_out.append(self.name)
            return np.float32(0.5)

    worked_out = []
    m = Sequential([Dense(1, "sigmoid")], seed=0)
    m.compile("sgd", "bce", [Counted("one"), Counted("two")])
    losses = []
    callbacks = [
        LambdaCallback(on_train_batch_end=lambda batch, logs: losses.append(logs["loss"])),
        TerminateOnNaN(),
    ]
    history = m.fit(X, Y, 2, verbose=0, callbacks=callbacks).history
    assert len(losses) == 10
    assert worked_out == ["one", "two"]  # once, at the end of the epoch
    assert json.loads(json.dumps(history)) == history


def test_histories_hold_pythons_numbers():
    class Adds(Callback):
        def on_epoch_end(self, epoch, logs):
            logs |= {"a": np.float32(0.5), "b": np.array(2.0), "c": np.int64(3), "d": 4}

    history = auc_model().fit(X, Y, verbose=0, callbacks=Adds()).history
    assert all(type(figures[0]) in (int, float) for figures in history.values())
    assert json.loads(json.dumps(history)) == history
    assert [history[name] for name in "abcd"] == [[0.5], [2.0], [3], [4]]


def test_outputs_that_are_kept_stay_as_they_were():
    kept = []
    callback = LambdaCallback(on_predict_batch_end=lambda _, logs: kept.append(logs["outputs"]))
    outputs = auc_model().predict(X, 5, verbose=0, callbacks=callback)
    np.testing.assert_array_equal(np.concatenate(kept), outputs)
