"""Callbacks that watch a figure and, depending on it, stop, save or change the learning rate."""

from __future__ import annotations

import inspect
import math
import os
from collections.abc import Callable
from numbers import Real
from os import PathLike
from pathlib import Path
from typing import Any, ClassVar

from fastdrop._checks import check_choice, check_number
from fastdrop._messages import NotFiniteError, shown
from fastdrop._output import of_the_path
from fastdrop.callbacks.base import Callback, Logs, check_callable
from fastdrop.layers import Array

__all__ = [
    "EarlyStopping",
    "LearningRateScheduler",
    "ModelCheckpoint",
    "ReduceLROnPlateau",
    "TerminateOnNaN",
]


class TerminateOnNaN(Callback):
    """Stop, without an error, after a batch whose loss is not finite. Its epoch ends at once."""

    def on_train_batch_end(self, batch: int, logs: Logs) -> None:
        if not math.isfinite(logs["loss"]):
            print(f"Batch {batch + 1}: the loss is {logs['loss']}, training stops")
            self.model.stop_training = True


LESS_IS_BETTER = {
    *("loss", "error", "crossentropy", "divergence"),
    *("bce", "huber", "kld", "mae", "mse"),
}


class Monitor(Callback):
    """Base class of callbacks that follow one figure from epoch to epoch.

    Parameters
    ----------
    monitor : str
        Name of the figure.
    mode : {"auto", "min", "max"}
        Whether less or more is better. "auto" knows it for losses, errors, accuracies and areas.
    min_delta : float
        An improvement by no more than this does not count.

    Raises
    ------
    ValueError
        When `mode` is unknown or `min_delta` is not a number. In training, when the figure does not
        exist, or "auto" does not know whether less or more of it is better.
    """

    best: float | None

    def __init__(self, monitor: str, mode: str, min_delta: float = 0.0) -> None:
        check_choice("mode", mode, "auto", "min", "max")
        self.monitor = monitor
        self.mode = mode
        check_number("min_delta", abs(min_delta) if isinstance(min_delta, Real) else min_delta)
        self.min_delta = abs(min_delta)
        self.best = None

    def value(self, logs: Logs) -> float:
        """Return the figure.

        Parameters
        ----------
        logs : dict of str to float
            The figures of an epoch.

        Returns
        -------
        float
            The figure with the name `monitor`.

        Raises
        ------
        ValueError
            When there is no such figure.
        """
        if self.monitor not in logs:
            raise ValueError(
                f"monitor: expected one of {', '.join(logs)}, got {shown(self.monitor)}"
            )
        self._less_is_better()  # raises now, and not when there are two figures to compare
        return logs[self.monitor]

    def improves(self, value: float, reference: float | None) -> bool:
        """Tell whether a figure is better than another. Any but NaN is better than None.

        Parameters
        ----------
        value : float
            The figure.
        reference : float or None
            The figure to compare it with.

        Returns
        -------
        bool
            Whether it is better. NaN never is.
        """
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
    """Stop when a figure has not improved for a while.

    Parameters
    ----------
    monitor : str
        Name of the figure.
    min_delta : float
        An improvement by no more than this does not count.
    patience : int
        How many epochs without an improvement are tolerated.
    verbose : int
        Whether to print a line when training stops.
    mode : {"auto", "min", "max"}
        Whether less or more is better. "auto" knows it for losses, errors, accuracies and areas.
    baseline : float, optional
        A figure that has to be surpassed for an improvement to count.
    restore_best_weights : bool
        Whether the model gets back the weights of its best epoch when training ends.
    start_from_epoch : int
        Number of the first epoch that counts.

    Raises
    ------
    ValueError
        When `mode` is unknown, `min_delta` is no number, or `patience` or `start_from_epoch` is not
        a number of at least 0. In training, when the figure does not exist, or "auto" does not know
        whether less or more of it is better.

    Attributes
    ----------
    best, best_epoch, stopped_epoch : float or None, int, int
        The best figure, its epoch, and the epoch that stopped training, or 0 if none did.
    """

    wait: int = 0
    best_epoch: int = 0
    stopped_epoch: int = 0

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

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
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
    """Save the model after every epoch, or whenever a figure has improved.

    Parameters
    ----------
    filepath : path
        The file. It may have fields for the epoch, counted from 1, and for the figures, such as
        ``"{epoch:02d}-{val_loss:.2f}.safetensors"``. Missing folders are made.
    monitor : str
        As for `EarlyStopping`.
    verbose : int
        Whether to print a line when the model is saved.
    save_best_only : bool
        Whether to skip an epoch that is not better than all epochs before.
    save_weights_only : bool
        Whether to call `Sequential.save_weights` instead of `Sequential.save`.
    mode : {"auto", "min", "max"}
        As for `EarlyStopping`.
    save_freq : "epoch"
        Nothing else is possible, because training only goes on exactly from the end of an epoch.
        Callbacks that change the learning rate have to come before this one. An epoch that stops
        in the middle is not saved.
    initial_value_threshold : float, optional
        A figure that the first epoch has to surpass.

    Raises
    ------
    ValueError
        When `mode` is unknown. In training, when `monitor` or a field of `filepath` is not a
        figure, or "auto" does not know whether less or more of it is better.
    """

    synonyms: ClassVar = {"save_freq": None, "initial_value_threshold": "best"}

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
        if not isinstance(save_freq, str) or save_freq != "epoch":
            raise ValueError(f"save_freq: expected 'epoch', got {shown(save_freq)}")
        self.filepath = os.fspath(filepath)
        self.verbose = verbose
        self.save_best_only = save_best_only
        self.save_weights_only = save_weights_only
        _check_real("initial_value_threshold", initial_value_threshold)
        self.best = initial_value_threshold
        self._epochs_before: int | None = None

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        self._epochs_before = self.model.epoch

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
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
                f"got {shown(self.filepath)} ({error})"
            ) from None
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if self.save_weights_only:
                self.model.save_weights(path)
            else:
                self.model.save(path)
        except NotFiniteError as error:
            print(f"Epoch {epoch + 1}: not saved: {error}")
            return
        except OSError as error:
            raise of_the_path(error, path, "filepath") from None
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
        with epochs counted from 0.
    verbose : int
        Whether to print the learning rate of each epoch.

    Raises
    ------
    TypeError
        When `schedule` cannot be called.
    ValueError
        In training, when it does not return a number of at least 0.

    Notes
    -----
    The rate is among the figures of the epoch, with the name "learning_rate".
    """

    def __init__(self, schedule: Callable[..., float], verbose: int = 0) -> None:
        check_callable("schedule", schedule)
        self.schedule = schedule
        self.verbose = verbose

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        rate = _learning_rate(self.model)
        takes_rate = _takes(self.schedule, epoch, rate)
        rate = self.schedule(epoch, rate) if takes_rate else self.schedule(epoch)
        try:
            number = float(rate)
        except (TypeError, ValueError):
            raise ValueError(
                f"schedule: expected it to return a number, got {shown(rate)}"
            ) from None
        self.model.optimizer.learning_rate = number
        if self.verbose:
            print(f"Epoch {epoch + 1}: the learning rate is {number:g}")

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
        logs["learning_rate"] = _learning_rate(self.model)


class ReduceLROnPlateau(Monitor):
    """Reduce the learning rate when a figure has not improved for a while.

    Parameters
    ----------
    monitor : str
        As for `EarlyStopping`.
    factor : float
        The factor of the learning rate, in (0, 1).
    patience : int
        After how many epochs without an improvement the rate is reduced.
    verbose : int
        Whether to print the reduced rate.
    mode : {"auto", "min", "max"}
        As for `EarlyStopping`.
    min_delta : float
        As for `EarlyStopping`.
    cooldown : int
        How many epochs do not count after a reduction.
    min_lr : float
        The lower limit of the rate.

    Raises
    ------
    ValueError
        As for `EarlyStopping`; also when `factor` is outside (0, 1), or a number is below 0.

    Notes
    -----
    The rate with which the epoch was trained is among its figures, with the name "learning_rate".
    """

    wait: int = 0
    cooling: int = 0

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

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
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
                rate = max(rate * float(self.factor), self.min_lr)
                self.model.optimizer.learning_rate = rate
                self.cooling, self.wait = self.cooldown, 0
                if self.verbose:
                    print(f"Epoch {epoch + 1}: the learning rate is reduced to {rate:g}")


def _check_real(argument: str, value: object) -> None:
    if value is not None and (not isinstance(value, Real) or isinstance(value, bool)):
        raise ValueError(f"{argument}: expected a number, got {shown(value)}")


def _takes(function: Callable[..., object], *arguments: object) -> bool:
    """Tell whether the function can be called with these arguments."""
    try:
        inspect.signature(function).bind(*arguments)
    except TypeError:
        return False
    except ValueError:  # some built-in functions have no signature
        pass
    return True


def _learning_rate(model: Any) -> float:
    rate = model.optimizer.learning_rate
    if callable(rate):
        raise ValueError(
            f"learning_rate: expected a number for this callback to change, got {shown(rate)}"
        )
    return float(rate)
