"""Callbacks: what `Sequential.fit` tells while it trains, and what listens.

A figure in ``logs`` has the name it has in `History`: "loss", "accuracy", "val_loss", ...
"""

from __future__ import annotations

import csv
import inspect
import math
import os
import re
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from numbers import Real
from os import PathLike
from pathlib import Path
from typing import Any, TextIO

from tqdm import tqdm

from fastdrop._checks import NotFiniteError, check_number
from fastdrop.layers import Array

__all__ = [
    "CSVLogger",
    "Callback",
    "EarlyStopping",
    "EpochLines",
    "History",
    "LambdaCallback",
    "LearningRateScheduler",
    "ModelCheckpoint",
    "ProgressBar",
    "ReduceLROnPlateau",
    "TerminateOnNaN",
]

Logs = Mapping[str, float]
LESS_IS_BETTER = {
    *("loss", "error", "crossentropy", "divergence"),
    *("bce", "huber", "kld", "mae", "mse"),
}


def format_logs(logs: Logs) -> str:
    """Return figures as one line: ``loss: 0.1234 - accuracy: 0.9876``."""
    return " - ".join(
        f"{name}: {value:.4f}" if abs(value) >= 1e-3 or value == 0 else f"{name}: {value:.1e}"
        for name, value in logs.items()
    )


class Callback:
    """Base of all callbacks; does nothing.

    Attributes
    ----------
    model : Sequential
        The model that is trained. `fit` sets it before the first call.
    params : dict
        "epochs", "verbose", and "steps" (batches) per epoch, None where nobody knows. `fit` sets
        it before the first call.
    every_rank : bool
        Where several ranks train together: whether it is called on all of them, and not only on
        rank 0. Epochs' figures in `logs` are the same everywhere.
    """

    model: Any = None
    params: Mapping[str, Any] = {}
    every_rank = False

    def on_train_begin(self, logs: Logs | None = None) -> None:
        """Take note that `fit` starts; `logs` is empty."""

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        """Take note that epoch number `epoch`, from 0, starts; `logs` is empty."""

    def on_train_batch_begin(self, batch: int, logs: Logs | None = None) -> None:
        """Take note that batch number `batch` of the epoch starts; `logs` is empty."""

    def on_train_batch_end(self, batch: int, logs: Logs) -> None:
        """Take note of the means over the batches 0 to `batch` of this epoch, to be read now.

        Over several ranks the loss is that of the whole batches, metrics are those of rank 0's rows
        of them; at the end of the epoch they are those of all rows.
        """

    def on_epoch_end(self, epoch: int, logs: dict[str, float]) -> None:
        """Take note of the epoch's figures; what is added to `logs` reaches later callbacks.

        `model.epoch` has counted the epoch by now, unless it was stopped in the middle.
        """

    def on_train_end(self, logs: Logs | None = None) -> None:
        """Take note that `fit` ends, be it by an exception; `logs` are the last epoch's."""


class LambdaCallback(Callback):
    """Call functions.

    Parameters
    ----------
    on_epoch_begin, on_epoch_end, on_train_begin, on_train_end, on_train_batch_begin, \
on_train_batch_end : callable, optional
        With the arguments of the methods of `Callback`, `logs` included.

    Raises
    ------
    TypeError
        For other names, or what cannot be called.
    """

    def __init__(
        self,
        on_epoch_begin: Callable[[int, Logs], object] | None = None,
        on_epoch_end: Callable[[int, dict[str, float]], object] | None = None,
        on_train_begin: Callable[[Logs], object] | None = None,
        on_train_end: Callable[[Logs], object] | None = None,
        on_train_batch_begin: Callable[[int, Logs], object] | None = None,
        on_train_batch_end: Callable[[int, Logs], object] | None = None,
    ) -> None:
        hooks = {name: value for name, value in locals().items() if name.startswith("on_")}
        for name, function in hooks.items():
            if function is not None:
                _check_callable(name, function)
                setattr(self, name, function)


class History(Callback):
    """The figures of every epoch, which `fit` returns.

    Attributes
    ----------
    epoch : list of int
        Numbers of the epochs, from 0.
    history : dict of str to list of float
        A list with one figure per epoch for "loss", every metric and, with validation data, the
        same names with "val_" before them. Training figures are means over the epoch's batches
        while the model learns and drops; ``evaluate`` measures it as it is used.
    """

    def __init__(self) -> None:
        self.epoch: list[int] = []
        self.history: dict[str, list[float]] = {}

    def on_epoch_end(self, epoch: int, logs: dict[str, float]) -> None:
        self.epoch.append(epoch)
        for name, value in logs.items():
            self.history.setdefault(name, []).append(value)


class TerminateOnNaN(Callback):
    """Stop, without an error, after a batch whose loss is not finite; its epoch ends at once."""

    def on_train_batch_end(self, batch: int, logs: Logs) -> None:
        if not math.isfinite(logs["loss"]):
            print(f"Batch {batch + 1}: the loss is {logs['loss']}, training stops")
            self.model.stop_training = True


class Monitor(Callback):
    """Base of callbacks that follow one figure from epoch to epoch.

    Parameters
    ----------
    monitor : str
        Name of the figure.
    mode : {"auto", "min", "max"}
        Whether less or more is better; "auto" knows losses, errors, accuracies and areas.
    min_delta : float
        Changes for the better by no more than this do not count.

    Raises
    ------
    ValueError
        When `mode` is unknown or `min_delta` no number, and in training when the figure is unknown,
        or what is better about it.
    """

    def __init__(self, monitor: str, mode: str, min_delta: float = 0.0) -> None:
        if mode not in ("auto", "min", "max"):
            raise ValueError(f"mode: expected auto, min or max, got {mode!r}")
        self.monitor = monitor
        self.mode = mode
        check_number("min_delta", abs(min_delta) if isinstance(min_delta, Real) else min_delta)
        self.min_delta = abs(min_delta)
        self.best: float | None = None

    def value(self, logs: Logs) -> float:
        """Return the figure."""
        if self.monitor not in logs:
            raise ValueError(f"monitor: expected one of {', '.join(logs)}, got {self.monitor!r}")
        self._less_is_better()  # now, not when there are two figures to compare
        return logs[self.monitor]

    def improves(self, value: float, reference: float | None) -> bool:
        """Tell whether a figure is better than another; any is better than None, NaN never."""
        if math.isnan(value):
            return False
        if reference is None:
            return True
        if self._less_is_better():
            return value + self.min_delta < reference
        return value - self.min_delta > reference

    def _less_is_better(self) -> bool:
        if self.mode != "auto":
            return self.mode == "min"
        words = self.monitor.lower().removeprefix("val_").split("_")
        if set(words) & {"acc", "accuracy", "auc"}:
            return False
        if set(words) & LESS_IS_BETTER:
            return True
        raise ValueError(f"mode: expected min or max for {self.monitor!r}, got auto")


class EarlyStopping(Monitor):
    """Stop when a figure has not become better for a while.

    Parameters
    ----------
    monitor, min_delta, mode
        As for `Monitor`.
    patience : int
        Epochs without a change for the better that are put up with.
    verbose : int
        Whether to say so.
    baseline : float, optional
        What has to be reached for a change to count.
    restore_best_weights : bool
        Whether the model gets back the weights of its best epoch when training ends.
    start_from_epoch : int
        Number of the first epoch that counts.

    Raises
    ------
    ValueError
        As for `Monitor`, or when `patience` or `start_from_epoch` is no number of at least 0.

    Attributes
    ----------
    best, best_epoch, stopped_epoch : float or None, int, int
        The best figure, its epoch, and the epoch that stopped training, 0 if none did.
    """

    def __init__(
        self,
        monitor: str = "val_loss",
        min_delta: float = 0.0,
        patience: int = 0,
        verbose: int = 0,
        mode: str = "auto",
        baseline: float | None = None,
        restore_best_weights: bool = False,
        start_from_epoch: int = 0,
    ) -> None:
        super().__init__(monitor, mode, min_delta)
        check_number("patience", patience)
        check_number("start_from_epoch", start_from_epoch)
        self.patience = patience
        self.verbose = verbose
        _check_real("baseline", baseline)
        self.baseline = baseline
        self.restore_best_weights = restore_best_weights
        self.start_from_epoch = start_from_epoch

    def on_train_begin(self, logs: Logs | None = None) -> None:
        self.wait = self.best_epoch = self.stopped_epoch = 0
        self.best = None
        self._best_weights: list[Array] | None = None

    def on_epoch_end(self, epoch: int, logs: dict[str, float]) -> None:
        value = self.value(logs)
        if epoch < self.start_from_epoch:
            return
        better = self.improves(value, self.best)
        if better or (self.restore_best_weights and self._best_weights is None):
            self.best_epoch = epoch
            if self.restore_best_weights:
                self._best_weights = self.model.get_weights()
        self.wait += 1
        if better:
            self.best = value
            if self.baseline is None or self.improves(value, self.baseline):
                self.wait = 0
        elif self.wait >= self.patience and epoch > 0:
            self.stopped_epoch = epoch
            self.model.stop_training = True

    def on_train_end(self, logs: Logs | None = None) -> None:
        if self.stopped_epoch and self.verbose:
            print(f"Epoch {self.stopped_epoch + 1}: early stopping")
        if self._best_weights is not None:
            if self.verbose:
                print(f"The model has the weights of epoch {self.best_epoch + 1} again")
            self.model.set_weights(self._best_weights)


class ModelCheckpoint(Monitor):
    """Save the model after every epoch, or when a figure has become better.

    Parameters
    ----------
    filepath : path
        May have fields for the epoch, from 1, and the figures, such as
        ``"{epoch:02d}-{val_loss:.2f}.safetensors"``. Missing folders are made.
    monitor, mode
        As for `Monitor`.
    verbose : int
        Whether to say so.
    save_best_only : bool
        Whether an epoch that is not better than all before is left out.
    save_weights_only : bool
        Whether to call `Sequential.save_weights` in the place of `Sequential.save`.
    save_freq : "epoch"
        Nothing else: only what was saved at the end of an epoch goes on exactly. Callbacks that
        change the learning rate then have to come before this one. An epoch that is stopped in the
        middle is not saved.
    initial_value_threshold : float, optional
        What the first epoch has to be better than.

    Raises
    ------
    ValueError
        As for `Monitor`, or when `filepath` has a field that is no figure.
    """

    def __init__(
        self,
        filepath: str | PathLike[str],
        monitor: str = "val_loss",
        verbose: int = 0,
        save_best_only: bool = False,
        save_weights_only: bool = False,
        mode: str = "auto",
        save_freq: str = "epoch",
        initial_value_threshold: float | None = None,
    ) -> None:
        super().__init__(monitor, mode)
        if save_freq != "epoch":
            raise ValueError(f"save_freq: expected 'epoch', got {save_freq!r}")
        self.filepath = os.fspath(filepath)
        self.verbose = verbose
        self.save_best_only = save_best_only
        self.save_weights_only = save_weights_only
        _check_real("initial_value_threshold", initial_value_threshold)
        self.best = initial_value_threshold
        self._epochs_before: int | None = None

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        self._epochs_before = self.model.epoch

    def on_epoch_end(self, epoch: int, logs: dict[str, float]) -> None:
        value = None
        if self.save_best_only:
            value = self.value(logs)
            if not self.improves(value, self.best):
                return
        if self.model.epoch == self._epochs_before:
            print(f"Epoch {epoch + 1}: stopped in the middle, not saved")
            return
        try:
            path = Path(self.filepath.format(epoch=epoch + 1, **logs))
        except (AttributeError, KeyError, IndexError, TypeError, ValueError) as error:
            raise ValueError(
                f"filepath: expected fields among epoch, {', '.join(logs)}, "
                f"got {self.filepath!r} ({error})"
            ) from None
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            if self.save_weights_only:
                self.model.save_weights(path)
            else:
                self.model.save(path)
        except NotFiniteError as error:
            print(f"Epoch {epoch + 1}: not saved: {error}")
            return
        if self.save_best_only:
            self.best = value
        if self.verbose:
            print(f"Epoch {epoch + 1}: saved {path}")


class LearningRateScheduler(Callback):
    """Set the learning rate for each epoch.

    Parameters
    ----------
    schedule : callable
        ``schedule(epoch, learning_rate) -> learning_rate`` or ``schedule(epoch) -> learning_rate``,
        with epochs from 0.
    verbose : int
        Whether to say so.

    Raises
    ------
    TypeError
        When `schedule` cannot be called.
    ValueError
        In training, when it returns no number of at least 0.

    Notes
    -----
    The rate is among the figures of the epoch, as "learning_rate".
    """

    def __init__(self, schedule: Callable[..., float], verbose: int = 0) -> None:
        _check_callable("schedule", schedule)
        self.schedule = schedule
        self.verbose = verbose

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        rate = _learning_rate(self.model)
        takes_rate = _takes(self.schedule, epoch, rate)
        rate = self.schedule(epoch, rate) if takes_rate else self.schedule(epoch)
        try:
            number = float(rate)
        except (TypeError, ValueError):
            raise ValueError(f"schedule: expected it to return a number, got {rate!r}") from None
        self.model.optimizer.learning_rate = number
        if self.verbose:
            print(f"Epoch {epoch + 1}: the learning rate is {number:g}")

    def on_epoch_end(self, epoch: int, logs: dict[str, float]) -> None:
        logs["learning_rate"] = _learning_rate(self.model)


class ReduceLROnPlateau(Monitor):
    """Reduce the learning rate when a figure has not become better for a while.

    Parameters
    ----------
    monitor, mode, min_delta
        As for `Monitor`.
    factor : float
        What the rate is multiplied by, in (0, 1).
    patience : int
        Epochs without a change for the better after which that happens.
    verbose : int
        Whether to say so.
    cooldown : int
        Epochs that do not count after that.
    min_lr : float
        The rate does not go below it.

    Raises
    ------
    ValueError
        As for `Monitor`, when `factor` is outside (0, 1), or another number below 0.

    Notes
    -----
    The rate that the epoch was trained with is among its figures, as "learning_rate".
    """

    def __init__(
        self,
        monitor: str = "val_loss",
        factor: float = 0.1,
        patience: int = 10,
        verbose: int = 0,
        mode: str = "auto",
        min_delta: float = 1e-4,
        cooldown: int = 0,
        min_lr: float = 0.0,
    ) -> None:
        super().__init__(monitor, mode, min_delta)
        check_number("factor", factor, above_zero=True, below=1)
        check_number("patience", patience)
        check_number("cooldown", cooldown)
        check_number("min_lr", min_lr)
        self.factor = factor
        self.patience = patience
        self.verbose = verbose
        self.cooldown = cooldown
        self.min_lr = min_lr

    def on_train_begin(self, logs: Logs | None = None) -> None:
        self.best = None
        self.wait = self.cooling = 0

    def on_epoch_end(self, epoch: int, logs: dict[str, float]) -> None:
        rate = logs["learning_rate"] = _learning_rate(self.model)
        value = self.value(logs)
        if self.cooling:
            self.cooling -= 1
            self.wait = 0
        if self.improves(value, self.best):
            self.best = value
            self.wait = 0
        elif not self.cooling:
            self.wait += 1
            if self.wait >= self.patience and rate > self.min_lr:
                rate = max(rate * self.factor, self.min_lr)
                self.model.optimizer.learning_rate = rate
                self.cooling, self.wait = self.cooldown, 0
                if self.verbose:
                    print(f"Epoch {epoch + 1}: the learning rate is reduced to {rate:g}")


def _check_callable(argument: str, value: object) -> None:
    if not callable(value):
        raise TypeError(f"{argument}: expected what can be called, got {value!r}")


def _check_real(argument: str, value: object) -> None:
    if value is not None and (not isinstance(value, Real) or isinstance(value, bool)):
        raise ValueError(f"{argument}: expected a number, got {value!r}")


def _takes(function: Callable[..., object], *arguments: object) -> bool:
    """Tell whether the function can be called with these arguments."""
    try:
        inspect.signature(function).bind(*arguments)
    except TypeError:
        return False
    except ValueError:  # nobody knows, of some built-in functions
        pass
    return True


def _learning_rate(model: Any) -> float:
    rate = model.optimizer.learning_rate
    if callable(rate):
        raise ValueError(
            f"learning_rate: expected a number for this callback to change, got {rate!r}"
        )
    return float(rate)


class CSVLogger(Callback):
    """Write a line of figures for every epoch to a CSV file.

    Parameters
    ----------
    filename : path
        The first column is the epoch, from 0, the others are the figures of the first epoch.
    separator : str
        Stands between cells.
    append : bool
        Whether an existing file is gone on with: its columns stay as they are.

    Raises
    ------
    ValueError
        When `separator` is not one character, or in training when the file's first column is not
        "epoch".
    """

    def __init__(
        self, filename: str | PathLike[str], separator: str = ",", append: bool = False
    ) -> None:
        if not isinstance(separator, str) or len(separator) != 1:
            raise ValueError(f"separator: expected one character, got {separator!r}")
        self.filename = Path(filename)
        self.separator = separator
        self.append = append
        self._file: TextIO | None = None

    def on_train_begin(self, logs: Logs | None = None) -> None:
        self._columns: list[str] = []
        if self.append and self.filename.is_file():
            with self.filename.open(newline="") as file:
                rows = csv.reader(file, delimiter=self.separator)
                self._columns = next(filter(None, rows), [])
            if self._columns and self._columns[0] != "epoch":
                raise ValueError(
                    f"filename: expected a file whose first column is 'epoch', got {self.filename} "
                    f"with {self.separator.join(self._columns)}"
                )
        self._file = self.filename.open("a" if self.append else "w", newline="")
        self._writer: csv.DictWriter[str] | None = None

    def on_epoch_end(self, epoch: int, logs: dict[str, float]) -> None:
        assert self._file is not None
        if self._writer is None:
            self._writer = csv.DictWriter(
                self._file,
                self._columns or ["epoch", *logs],
                restval="NA",
                extrasaction="ignore",
                delimiter=self.separator,
                lineterminator="\n",
            )
            if not self._columns:
                self._writer.writeheader()
        self._writer.writerow({"epoch": epoch, **logs})
        self._file.flush()

    def on_train_end(self, logs: Logs | None = None) -> None:
        if self._file is not None:
            self._file.close()


class ProgressBar(Callback):
    """One bar for the whole of `fit`, with the latest figures and the time left.

    Parameters
    ----------
    title : str
        What stands before the bar.
    """

    def __init__(self, title: str = "fit") -> None:
        self.title = title
        self._bar: Any = None

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        epochs, steps = self.params["epochs"], self.params["steps"]
        if self._bar is None:
            there = sys.stderr is not None  # a daemon may have none
            self._interval = 0.1 if there and sys.stderr.isatty() else 10  # a log wants few lines
            self._bar = tqdm(
                total=steps and epochs * steps,
                initial=(steps and epoch * steps) or 0,
                unit="step",
                dynamic_ncols=True,
                mininterval=self._interval,
                disable=not there,
            )
            self._validation: Logs = {}
            self._due = 0.0
        self._bar.set_description(f"{self.title}, epoch {epoch + 1}/{epochs}", refresh=False)

    def on_train_batch_end(self, batch: int, logs: Logs) -> None:
        start = time.monotonic()
        if start >= self._due:
            self._bar.set_postfix({**logs, **self._validation}, refresh=False)
            end = time.monotonic()  # figures may take their time: at most a twentieth of it
            self._due = end + max(self._interval, 20 * (end - start))
        self._bar.update()

    def on_epoch_end(self, epoch: int, logs: dict[str, float]) -> None:
        self._validation = {name: logs[name] for name in logs if name.startswith("val_")}
        self._bar.set_postfix(logs, refresh=False)

    def on_train_end(self, logs: Logs | None = None) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None


class EpochLines(Callback):
    """One printed line per epoch."""

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        self._start = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: dict[str, float]) -> None:
        seconds = time.perf_counter() - self._start
        print(f"Epoch {epoch + 1}/{self.params['epochs']} - {seconds:.1f}s - {format_logs(logs)}")


def callbacks_of(callbacks: Any) -> list[Callback]:
    """Return the callbacks of `fit`'s argument.

    Raises
    ------
    TypeError
        When one is no callback, or has a hook that nobody would call.
    """
    if isinstance(callbacks, Callback):
        return [callbacks]
    given = list(callbacks or ()) if isinstance(callbacks, Iterable | None) else [callbacks]
    if not all(isinstance(callback, Callback) for callback in given):
        raise TypeError(f"callbacks: expected fastdrop callbacks, got {callbacks}")
    for callback in given:
        for hook in dir(callback):
            if re.fullmatch(r"on_(batch|(test|predict)(_batch)?)_(begin|end)", hook):
                raise TypeError(
                    f"callbacks: expected no hooks but Callback's, got {hook} of "
                    f"{type(callback).__name__}, which nobody would call"
                )
    return given


def reports_of(verbose: str | int) -> list[Callback]:
    """Return the callback that reports as `fit`'s argument `verbose` says, if any."""
    if verbose not in ("auto", 0, 1, 2):
        raise ValueError(f"verbose: expected 'auto', 0, 1 or 2, got {verbose!r}")
    if not verbose:
        return []
    return [EpochLines() if verbose == 2 else ProgressBar()]
