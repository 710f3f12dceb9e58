import math
from collections.abc import Mapping

import numpy as np
import pytest

from fastdrop.callbacks import (
    Callback,
    CSVLogger,
    EarlyStopping,
    LambdaCallback,
    LearningRateScheduler,
    ModelCheckpoint,
    ProgressBar,
    ReduceLROnPlateau,
    TerminateOnNaN,
)
from fastdrop.layers import Dense
from fastdrop.learning_rates import ExponentialDecay
from fastdrop.models import Sequential, load_model
from fastdrop.optimizers import SGD

RNG = np.random.default_rng(0)
X = RNG.normal(size=(20, 4)).astype(np.float32)
Y = RNG.integers(0, 3, 20)


def model(optimizer="sgd"):
    model = Sequential([Dense(3, "softmax")], seed=0)
    model.compile(optimizer, "sparse_categorical_crossentropy", ["accuracy"])
    return model


def fit(*callbacks, epochs=1, model_=None, **given):
    given = {"batch_size": 10, "verbose": 0, "validation_data": (X, Y)} | given
    return (model_ or model()).fit(X, Y, epochs=epochs, callbacks=callbacks, **given)


class Figures(Callback):
    """Report figures of our own, one an epoch, and keep the weights and rates of each."""

    def __init__(self, *values, name="val_loss"):
        self.values, self.name = values, name
        self.weights, self.rates = [], []

    def on_epoch_end(self, epoch, logs):
        logs[self.name] = self.values[epoch]
        self.weights.append(self.model.get_weights()[0])
        self.rates.append(self.model.optimizer.learning_rate)


# What is called


HOOKS = [name for name in vars(Callback) if name.startswith("on_")]


def listener(hooks=HOOKS):
    """Return a callback, and the list of what it hears: hook, number, names of the figures."""
    heard = []

    def listen(hook):
        return lambda *arguments: heard.append((hook, *arguments[:-1], [*arguments[-1]]))

    return LambdaCallback(**{hook: listen(hook) for hook in hooks}), heard


FIGURES = ["loss", "accuracy"]
EVALUATION = [
    ("on_test_begin", []),
    ("on_test_batch_begin", 0, []),
    ("on_test_batch_end", 0, FIGURES),
    ("on_test_end", FIGURES),
]


def test_every_hook_in_order():
    callback, heard = listener()
    fit(callback, epochs=2, initial_epoch=1)
    epoch = [*FIGURES, *(f"val_{name}" for name in FIGURES)]
    assert heard == [
        ("on_train_begin", []),
        ("on_epoch_begin", 1, []),
        ("on_train_batch_begin", 0, []),
        ("on_train_batch_end", 0, FIGURES),
        ("on_train_batch_begin", 1, []),
        ("on_train_batch_end", 1, FIGURES),
        *EVALUATION,
        ("on_epoch_end", 1, epoch),
        ("on_train_end", epoch),
    ]
    heard.clear()
    model().evaluate(X, Y, verbose=0, callbacks=[callback])
    assert heard == EVALUATION
    heard.clear()
    outputs = model().predict(X, 15, verbose=0, callbacks=callback)
    assert outputs.shape == (20, 3)
    assert heard == [
        ("on_predict_begin", []),
        ("on_predict_batch_begin", 0, []),
        ("on_predict_batch_end", 0, ["outputs"]),
        ("on_predict_batch_begin", 1, []),
        ("on_predict_batch_end", 1, ["outputs"]),
        ("on_predict_end", []),
    ]


def test_hooks_of_training_batches_have_another_name():
    callback, heard = listener(["on_batch_begin", "on_batch_end"])
    fit(callback)
    assert heard == [
        (hook, batch, names)
        for batch in (0, 1)
        for hook, names in (("on_batch_begin", []), ("on_batch_end", FIGURES))
    ]


def test_one_callback_needs_no_list():
    figures = Figures(1)
    model().fit(X, Y, verbose=0, callbacks=figures)
    assert len(figures.rates) == 1


def test_what_a_callback_knows():
    class Curious(Callback):
        def on_train_batch_end(self, batch, logs):
            self.batch_logs = dict(logs)
            assert len(logs) == len(self.batch_logs)

        def on_epoch_end(self, epoch, logs):
            self.logs = dict(logs)
            self.model.evaluate(X, Y, verbose=0)  # does not disturb the figures of the epoch

    curious, m = Curious(), model()
    history = fit(curious, model_=m).history
    assert curious.model is m
    assert curious.params == {"epochs": 1, "steps": 2, "verbose": 0}
    assert list(curious.logs) == ["loss", "accuracy", "val_loss", "val_accuracy"]
    assert curious.batch_logs == {name: curious.logs[name] for name in ("loss", "accuracy")}
    assert history == {name: [value] for name, value in curious.logs.items()}


def test_the_end_is_told_after_an_error():
    ends = []

    def fail(epoch, logs):
        raise RuntimeError("mine")

    with pytest.raises(RuntimeError, match="mine"):
        fit(LambdaCallback(on_epoch_end=fail, on_train_end=ends.append))
    assert len(ends) == 1


def test_what_has_begun_ends_when_another_cannot_begin(tmp_path):
    ends = []
    logger = CSVLogger(tmp_path / "log.csv")
    with pytest.raises(ZeroDivisionError):
        fit(
            logger,
            LambdaCallback(on_train_begin=lambda logs: 1 / 0, on_train_end=ends.append),
            LambdaCallback(on_train_end=ends.append),
        )
    assert logger._file.closed
    assert ends == []


def test_a_callback_may_have_names_of_its_own():
    class Own(Callback):
        on_gpu = False

        def on_new_best(self):
            raise NotImplementedError

    assert fit(Own(), epochs=2).epoch == [0, 1]


def test_all_end_behind_one_that_fails():
    ends = []
    with pytest.raises(ZeroDivisionError):
        fit(
            LambdaCallback(on_train_end=lambda logs: 1 / 0),
            LambdaCallback(on_train_end=ends.append),
        )
    assert len(ends) == 1


def test_stop_training_within_an_epoch():
    m = model()

    def stop(batch, logs):
        m.stop_training = True

    history = fit(LambdaCallback(on_train_batch_end=stop), model_=m, epochs=5)
    assert history.epoch == [0]
    assert (m.step, m.epoch) == (1, 0)  # no whole epoch
    assert "val_loss" in history.history
    fit(model_=m, epochs=2)
    assert (m.step, m.epoch) == (5, 2)


def test_nothing_to_train():
    m = model()
    for epochs, first in ((3, 3), (2, 5)):
        assert fit(model_=m, epochs=epochs, initial_epoch=first).epoch == []
    assert (m.step, m.epoch) == (0, 0)


# Early stopping

STOPS = {
    "at once": ({}, [3, 2, 2, 1], 2),
    "less is better": ({"patience": 2}, [3, 2, 2.5, 2.5, 1], 3),
    "an improvement starts anew": ({"patience": 2}, [3, 3, 2, 3, 1, 2, 2, 0], 6),
    "too small": ({"min_delta": 0.5}, [3, 2, 1.6, 0], 2),
    "more is better": ({"mode": "max"}, [1, 2, 2], 2),
    "late": ({"start_from_epoch": 2}, [1, 2, 3, 2, 3, 2], 4),
    "NaN": ({}, [3, math.nan, 2], 1),
    "baseline": ({"baseline": 1, "patience": 2}, [4, 3, 2.5, 2.5, 2], 3),
}


@pytest.mark.parametrize(("given", "values", "last"), STOPS.values(), ids=list(STOPS))
def test_early_stopping(given, values, last):
    stopping = EarlyStopping(**given)
    history = fit(Figures(*values), stopping, epochs=len(values))
    assert history.epoch[-1] == stopping.stopped_epoch == last


@pytest.mark.parametrize(("values", "best"), [([3, 1, 2, 2], 1), ([3, 2, 1], 2)])
def test_the_best_weights_come_back(values, best, capsys):
    m, figures = model(), Figures(*values)
    stopping = EarlyStopping(patience=2, restore_best_weights=True, verbose=1)
    fit(figures, stopping, epochs=len(values), model_=m)
    assert stopping.best_epoch == best
    np.testing.assert_array_equal(m.get_weights()[0], figures.weights[best])
    assert f"weights of epoch {best + 1}" in capsys.readouterr().out


def test_the_direction_of_a_name():
    less = ("loss", "val_mean_squared_error", "kld", "val_bce", "val_my_loss", "huber")
    for name, last in (("accuracy", 1), ("val_auc", 1), *((name, 2) for name in less)):
        history = fit(Figures(2, 1, 1, name=name), EarlyStopping(name), epochs=3)
        assert history.epoch[-1] == last
    with pytest.raises(ValueError, match="mode: expected min or max for 'mine', got auto"):
        fit(Figures(2, name="mine"), EarlyStopping("mine"), epochs=1)


# Learning rates


def test_reduce_on_plateau():
    figures = Figures(3, 3, 3, 2, 2, 2, 2, 2)
    reduce = ReduceLROnPlateau(factor=0.5, patience=2, min_lr=0.003, verbose=1)
    history = fit(figures, reduce, epochs=8, model_=model())
    expected = [0.01, 0.01, 0.01, 0.005, 0.005, 0.005, 0.003, 0.003]
    assert figures.rates == history.history["learning_rate"] == expected


def test_reduce_on_plateau_with_cooldown():
    figures = Figures(*[1] * 7)
    fit(figures, ReduceLROnPlateau(factor=0.5, patience=1, cooldown=2), epochs=7)
    assert figures.rates == [0.01, 0.01, 0.005, 0.005, 0.0025, 0.0025, 0.00125]


def test_learning_rate_scheduler():
    figures = Figures(1, 1, 1)
    history = fit(figures, LearningRateScheduler(lambda epoch, rate: rate / (epoch + 1)), epochs=3)
    assert history.history["learning_rate"] == pytest.approx([0.01, 0.005, 0.01 / 6])
    assert figures.rates == history.history["learning_rate"]


def test_learning_rate_scheduler_of_the_epoch_alone():
    history = fit(LearningRateScheduler(lambda epoch: 0.1 / (epoch + 1)), epochs=3)
    assert history.history["learning_rate"] == pytest.approx([0.1, 0.05, 0.1 / 3])


def test_a_schedule_of_the_optimizer_is_left_alone():
    for callback in (LearningRateScheduler(lambda epoch, rate: rate), ReduceLROnPlateau()):
        with pytest.raises(ValueError, match="learning_rate: expected a number for this callback"):
            fit(callback, model_=model(SGD(ExponentialDecay(0.1, 5, 0.5))))


# Files


def test_checkpoints_of_every_epoch(tmp_path):
    m = model()
    path = tmp_path / "new" / "{epoch:02d}-{val_loss:.2f}.safetensors"
    history = fit(ModelCheckpoint(path), epochs=2, model_=m).history
    names = [f"{i + 1:02d}-{history['val_loss'][i]:.2f}.safetensors" for i in range(2)]
    assert sorted(file.name for file in path.parent.iterdir()) == names
    for epoch, name in enumerate(names):
        loaded = load_model(path.parent / name)
        assert loaded.epoch == epoch + 1
        loss, _ = loaded.evaluate(X, Y, verbose=0)
        assert loss == pytest.approx(history["val_loss"][epoch])


@pytest.mark.parametrize(
    ("given", "values", "best"),
    [
        ({}, [2, 1, 3], 2),
        ({"mode": "max"}, [2, 1, 3], 3),
        ({"initial_value_threshold": 0.5}, [2, 1, 3], None),
    ],
)
def test_checkpoint_of_the_best(tmp_path, given, values, best):
    path = tmp_path / "best.safetensors"
    callback = ModelCheckpoint(path, save_best_only=True, **given)
    fit(Figures(*values), callback, epochs=len(values))
    assert (load_model(path).epoch if path.exists() else None) == best


def test_checkpoint_of_weights_alone(tmp_path):
    m, path = model(), tmp_path / "weights.safetensors"
    fit(ModelCheckpoint(path, save_weights_only=True), model_=m)
    other = Sequential([Dense(3, "softmax", input_dim=4)])
    other.load_weights(path)
    np.testing.assert_array_equal(other.get_weights()[0], m.get_weights()[0])


def test_csv_logger(tmp_path):
    path = tmp_path / "log.csv"
    m = model()
    first = fit(CSVLogger(path, ";"), epochs=2, model_=m).history
    second = fit(CSVLogger(path, ";", append=True), epochs=3, initial_epoch=2, model_=m).history
    header, *lines = path.read_text().splitlines()
    assert header == "epoch;loss;accuracy;val_loss;val_accuracy"
    losses = first["loss"] + second["loss"]
    assert [line.split(";")[:2] for line in lines] == [[str(i), str(losses[i])] for i in range(3)]
    fit(CSVLogger(path))
    assert len(path.read_text().splitlines()) == 2


def test_csv_logger_keeps_a_files_columns(tmp_path):
    path = tmp_path / "log.csv"
    path.write_text("epoch,accuracy,lr,loss\n0,0.5,0.1,1.5\n")
    history = fit(CSVLogger(path, append=True), epochs=2, initial_epoch=1).history
    line = path.read_text().splitlines()[-1]
    assert line == f"1,{history['accuracy'][0]},NA,{history['loss'][0]}"
    path.write_text("x,y\n1,2\n")
    with pytest.raises(ValueError, match="filename: expected a file whose first column is 'epoch'"):
        fit(CSVLogger(path, append=True))
    assert path.read_text() == "x,y\n1,2\n"


BEGUN = {  # what is in the file, the separator, and what is there after epoch 2
    "whole": ("epoch,loss\n0,5.5\n", ",", "epoch,loss\n0,5.5\n2,0.25\n"),
    "no end": ("epoch,loss\n0,5.5\n1,4.9", ",", "epoch,loss\n0,5.5\n1,4.9\n2,0.25\n"),
    "half a line": ("epoch,loss,lr\n1,", ",", "epoch,loss,lr\n1,\n2,0.25,NA\n"),
    "half a number": ("epoch,loss\n1,4.", ",", "epoch,loss\n1,4.\n2,0.25\n"),
    "one figure": ("epoch,loss\n1", ",", "epoch,loss\n1\n2,0.25\n"),
    "CRLF": ("epoch,loss\r\n0,5.5\r\n", ",", "epoch,loss\r\n0,5.5\r\n2,0.25\r\n"),
    "CRLF, no end": ("epoch,loss\r\n0,5.5", ",", "epoch,loss\r\n0,5.5\r\n2,0.25\r\n"),
    "CRLF, half an end": ("epoch,loss\r\n0,5.5\r", ",", "epoch,loss\r\n0,5.5\r\r\n2,0.25\r\n"),
    "other columns": ("epoch;acc;loss\n0;1;2", ";", "epoch;acc;loss\n0;1;2\n2;NA;0.25\n"),
    "a mark and no more": ("\ufeff", ",", "epoch,loss\n2,0.25\n"),
    "a mark": ("\ufeffepoch,loss\n0,5.5", ",", "\ufeffepoch,loss\n0,5.5\n2,0.25\n"),
    "quotes": ('"epoch","loss"\n"0","5,5"', ",", '"epoch","loss"\n"0","5,5"\n2,0.25\n'),
    "names of many letters": ("epoch,verlust_\u00e4\n", ",", "epoch,verlust_\u00e4\n2,NA\n"),
    "empty": ("", ",", "epoch,loss\n2,0.25\n"),
    "empty lines": ("\n\n", ",", "\n\nepoch,loss\n2,0.25\n"),
    "columns only": ("epoch,lr\n", ",", "epoch,lr\n2,NA\n"),
    "columns without an end": ("epoch,lo", ",", "epoch,loss\n2,0.25\n"),
    "one name without an end": ("epoch", ",", "epoch,loss\n2,0.25\n"),
}


def log(path, separator):
    """Go on with a file for one epoch."""
    logger = CSVLogger(path, separator, append=True)
    logger.on_train_begin()
    try:
        logger.on_epoch_end(2, {"loss": 0.25})
    finally:
        logger.on_train_end()


@pytest.mark.parametrize(("before", "separator", "after"), BEGUN.values(), ids=list(BEGUN))
def test_csv_logger_never_merges_epochs(tmp_path, before, separator, after):
    path = tmp_path / "log.csv"
    path.write_bytes(before.encode())
    log(path, separator)
    assert path.read_bytes().decode() == after
    log(path, separator)
    assert path.read_bytes().decode().startswith(after)
    assert path.read_bytes().count(b"\n") == after.count("\n") + 1


NO_LOGS = {
    "another separator": b"epoch;loss\n0;5.5",
    "another first column": b"step,loss\n0,5.5",
    "a quote that is not closed": b'epoch,loss\n0,"5.5',
    "another encoding": "epoch,verlust\u00e4\n".encode("latin-1"),
    "UTF-16": "epoch,loss\n".encode("utf-16"),
    "a picture": b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 99,
    "half a name": b"epo",
}


@pytest.mark.parametrize("before", NO_LOGS.values(), ids=list(NO_LOGS))
def test_csv_logger_refuses_other_files(tmp_path, before):
    path = tmp_path / "log.csv"
    path.write_bytes(before)
    with pytest.raises(ValueError, match=r"log\.csv") as error:
        log(path, ",")
    assert len(str(error.value)) <= 200
    assert str(error.value).isprintable()
    assert path.read_bytes() == before


def test_a_slow_figure_takes_a_small_part_of_the_time(monkeypatch):
    clock, read = [0.0], []

    def slowly():
        clock[0] += 60  # seconds
        read.append(clock[0])
        return {"auc": 0.5}

    monkeypatch.setattr("fastdrop.callbacks.reports.time.monotonic", lambda: clock[0])
    bar = ProgressBar()
    bar.params = {"epochs": 1, "steps": 2000}
    bar.on_epoch_begin(0)
    for batch in range(2000):
        clock[0] += 1
        bar.on_train_batch_end(batch, Slow(slowly))
    bar.on_train_end()
    assert 1 < len(read) < 4


class Slow(Mapping):
    """Figures that are worked out when they are read."""

    def __init__(self, work):
        self.work = work

    def __getitem__(self, name):
        return self.work()[name]

    def __iter__(self):
        return iter(["auc"])

    def __len__(self):
        return 1


# A loss that is not finite


def test_a_loss_that_is_not_finite_ends_training():
    m = model()
    m.predict(X, verbose=0)
    m.params["0.bias"][0] = np.nan
    ends = []
    with pytest.raises(ValueError, match="loss: expected a finite one, got nan in epoch 1, step 1"):
        fit(LambdaCallback(on_train_end=ends.append), model_=m, epochs=3)
    assert len(ends) == 1


def test_divergence_tells_where():
    m = Sequential([Dense(3)], seed=0)
    m.compile(SGD(1e10), "mse")
    with pytest.raises(ValueError, match=r"loss: .* got (inf|nan) in epoch \d, step \d.*smaller"):
        m.fit(1e5 * X, X[:, :3], epochs=5, batch_size=10, verbose=0)


def test_terminate_on_nan(capsys):
    m = model()
    m.predict(X, verbose=0)
    m.params["0.bias"][0] = np.nan
    history = fit(TerminateOnNaN(), model_=m, epochs=3)
    assert history.epoch == [0]
    assert m.step == 1
    assert "Batch 1: the loss is nan, training stops" in capsys.readouterr().out


def test_terminate_on_divergence():
    m = Sequential([Dense(3)], seed=0)
    m.compile(SGD(1e10), "mse")
    y = X[:, :3]
    stop = TerminateOnNaN()
    history = m.fit(
        1e5 * X, y, 10, 50, verbose=0, callbacks=[stop], validation_data=(1e5 * X, y)
    ).history
    assert not math.isfinite(history["loss"][-1])
    assert not math.isfinite(history["val_loss"][-1])


# Bad input

CALLS = {
    "fit": fit,
    "evaluate": lambda callback: model().evaluate(X, Y, callbacks=callback),
    "predict": lambda callback: model().predict(X, callbacks=[callback]),
}
BAD = {
    "mode": (lambda: EarlyStopping(mode="up"), ValueError, "mode: expected 'auto', 'min' or 'max'"),
    "monitor": (
        lambda: fit(EarlyStopping("val_f1")),
        ValueError,
        "monitor: expected one of loss, accuracy, val_loss, val_accuracy, got 'val_f1'",
    ),
    "no validation": (
        lambda: fit(EarlyStopping(), validation_data=None),
        ValueError,
        "monitor: expected one of loss, accuracy, got 'val_loss'",
    ),
    "min_delta": (lambda: EarlyStopping(min_delta="a"), ValueError, "min_delta: expected .*'a'"),
    "patience": (lambda: EarlyStopping(patience="a"), ValueError, "patience: expected .*'a'"),
    "start": (lambda: EarlyStopping(start_from_epoch=None), ValueError, "start_from_epoch: exp"),
    "patience to reduce": (lambda: ReduceLROnPlateau(patience=-1), ValueError, "patience: exp"),
    "cooldown": (lambda: ReduceLROnPlateau(cooldown=None), ValueError, "cooldown: expected"),
    "min_lr": (lambda: ReduceLROnPlateau(min_lr="a"), ValueError, "min_lr: expected"),
    "schedule": (
        lambda: fit(LearningRateScheduler(lambda epoch: None)),
        ValueError,
        "schedule: expected it to return a number, got None",
    ),
    "factor text": (lambda: ReduceLROnPlateau(factor="a"), ValueError, "factor: expected"),
    "factor": (lambda: ReduceLROnPlateau(factor=1), ValueError, "factor: expected"),
    "save_freq": (lambda: ModelCheckpoint("a", save_freq=10), ValueError, "save_freq: expected"),
    "field": (
        lambda: fit(ModelCheckpoint("{val_f1}")),
        ValueError,
        "filepath: expected fields among epoch, loss, accuracy, .* got '{val_f1}'",
    ),
    "threshold": (
        lambda: ModelCheckpoint("a", initial_value_threshold="a"),
        ValueError,
        "initial_value_threshold: expected a number, got 'a'",
    ),
    "path": (lambda: ModelCheckpoint(None), TypeError, "PathLike"),
    "attribute of a field": (
        lambda: fit(ModelCheckpoint("{epoch.x}")),
        ValueError,
        "filepath: expected fields among epoch",
    ),
    "baseline": (lambda: EarlyStopping(baseline="1"), ValueError, "baseline: expected a number"),
    "separator": (lambda: CSVLogger("a", "::"), ValueError, "separator: expected one character"),
    "a quote": (lambda: CSVLogger("a", '"'), ValueError, "separator: expected one character"),
    "a line": (lambda: CSVLogger("a", "\n"), ValueError, "separator: expected one character"),
    "no schedule": (lambda: LearningRateScheduler(None), TypeError, "schedule: expected what can"),
    "text for a rate": (
        lambda: fit(LearningRateScheduler(lambda epoch: "fast")),
        ValueError,
        "schedule: expected it to return a number, got 'fast'",
    ),
    "hook": (lambda: LambdaCallback(on_lunch=print), TypeError, "on_lunch"),
    "no hook": (lambda: LambdaCallback(on_epoch_end=3), TypeError, "on_epoch_end: expected what"),
    "no callback": (lambda: fit(print), TypeError, "callbacks: expected fastdrop callbacks"),
    **{
        f"a hook that is not called, {call}": (
            lambda call=call: CALLS[call](type("Own", (Callback,), {"on_validation_end": print})()),
            TypeError,
            "callbacks: expected no hooks but Callback's, got on_validation_end of Own",
        )
        for call in CALLS
    },
    "initial_epoch": (lambda: fit(initial_epoch=-1), ValueError, "initial_epoch: expected"),
}


@pytest.mark.parametrize(("call", "error", "message"), BAD.values(), ids=list(BAD))
def test_bad_input(call, error, message):
    with pytest.raises(error, match=message):
        call()
