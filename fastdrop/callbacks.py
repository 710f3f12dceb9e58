"""Callbacks: what `Sequential.fit` tells while it trains."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from typing import Any

from tqdm import tqdm

__all__ = ["Callback", "EpochLines", "History", "ProgressBar"]

Logs = Mapping[str, float]


def format_logs(logs: Logs) -> str:
    """Return figures as one line: ``loss: 0.1234 - accuracy: 0.9876``."""
    return " - ".join(f"{name}: {value:.4f}" for name, value in logs.items())


class Callback:
    """Base of all callbacks; does nothing.

    Attributes
    ----------
    model : Sequential
        The model that is trained. `fit` sets it before the first call.
    params : dict
        "epochs", and "steps" (batches) per epoch. `fit` sets it before the first call.
    """

    model: Any = None
    params: Mapping[str, int] = {}

    def on_train_begin(self) -> None:
        """Take note that `fit` starts."""

    def on_epoch_begin(self, epoch: int) -> None:
        """Take note that epoch number `epoch`, from 0, starts."""

    def on_train_batch_end(self, batch: int, logs: Logs) -> None:
        """Take note of the means over the batches 0 to `batch` of this epoch."""

    def on_epoch_end(self, epoch: int, logs: dict[str, float]) -> None:
        """Take note of the epoch's figures; what is added to `logs` reaches later callbacks."""

    def on_train_end(self) -> None:
        """Take note that `fit` ends, be it by an exception."""


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


class ProgressBar(Callback):
    """One bar for the whole of `fit`, with the latest figures and the time left.

    Parameters
    ----------
    title : str
        What stands before the bar.
    """

    def __init__(self, title: str = "fit") -> None:
        self.title = title

    def on_train_begin(self) -> None:
        epochs, steps = self.params["epochs"], self.params["steps"]
        self._bar = tqdm(
            total=epochs * steps,
            desc=self.title,
            unit="step",
            dynamic_ncols=True,
            mininterval=0.1 if sys.stderr.isatty() else 10,  # a log file wants few lines
        )
        self._validation: Logs = {}

    def on_epoch_begin(self, epoch: int) -> None:
        self._bar.set_description(
            f"{self.title}, epoch {epoch + 1}/{self.params['epochs']}", refresh=False
        )

    def on_train_batch_end(self, batch: int, logs: Logs) -> None:
        self._bar.set_postfix({**logs, **self._validation}, refresh=False)
        self._bar.update()

    def on_epoch_end(self, epoch: int, logs: dict[str, float]) -> None:
        self._validation = {name: logs[name] for name in logs if name.startswith("val_")}
        self._bar.set_postfix(logs, refresh=False)

    def on_train_end(self) -> None:
        self._bar.close()


class EpochLines(Callback):
    """One printed line per epoch."""

    def on_epoch_begin(self, epoch: int) -> None:
        self._start = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: dict[str, float]) -> None:
        seconds = time.perf_counter() - self._start
        print(f"Epoch {epoch + 1}/{self.params['epochs']} - {seconds:.1f}s - {format_logs(logs)}")
