"""What listens while `fastdrop train` trains: figures, time, lines for a log."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

from fastdrop.callbacks import Callback, Logs
from fastdrop.callbacks.reports import format_logs
from fastdrop.commands.console import Console
from fastdrop.commands.runs.data import Data
from fastdrop.commands.runs.results import Run

__all__ = ["Lines", "MeasureTraining", "Record"]

LINES = 30.0  # seconds from one line in a log to the next
CHECKPOINTS = 1.0  # seconds from one checkpoint to the next: short epochs would only write


class MeasureTraining(Callback):
    """Replace the training figures by those at inference, to compare with the validation's.

    A regression's metric is turned into the units of its target.
    """

    every_rank = True

    def __init__(self, data: Data, comm: Any) -> None:
        self.data, self.comm = data, comm

    def on_epoch_end(self, epoch: int, logs: dict[str, float]) -> None:
        x, y, weight = self.data.x, self.data.y, self.data.weight
        measured = self.model.evaluate(
            x, y, verbose=0, sample_weight=weight, return_dict=True, comm=self.comm
        )
        logs.update(measured)
        for name in (self.data.metric, f"val_{self.data.metric}"):
            logs[name] *= self.data.scale


class Record(Callback):
    """Keep the figures and the time of every epoch, and write checkpoints.

    One is written at the start and at the end, and after an epoch if the last one is a second old.

    Parameters
    ----------
    run : Run
    write : callable
        Writes the checkpoint.
    """

    def __init__(self, run: Run, write: Callable[[], None]) -> None:
        self.run, self.write = run, write

    def on_train_begin(self, logs: Logs | None = None) -> None:
        self.write()
        self._written = time.perf_counter()

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        self._begin = time.perf_counter()

    def on_train_batch_end(self, batch: int, logs: Logs) -> None:
        self._check(logs["loss"])
        self._trained = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: dict[str, float]) -> None:
        self._check(logs["loss"] + logs["val_loss"])
        evaluated = time.perf_counter()
        for name, value in logs.items():
            self.run.figures.setdefault(name, []).append(value)
        seconds = self.run.seconds
        seconds.setdefault("training", []).append(self._trained - self._begin)
        seconds.setdefault("evaluation", []).append(evaluated - self._trained)
        seconds.setdefault("checkpoint", []).append(0.0)  # which the checkpoint itself cannot know
        if epoch + 1 == self.params["epochs"] or evaluated - self._written >= CHECKPOINTS:
            self.write()
            self._written = time.perf_counter()
            seconds["checkpoint"][-1] = self._written - evaluated

    def _check(self, loss: float) -> None:
        if not math.isfinite(loss):
            raise ValueError(
                "--lr: expected a smaller learning rate, got a loss that is not finite"
            )


class Lines(Callback):
    """A line from time to time, for a log in which a bar would fill pages.

    Parameters
    ----------
    title : str
    console : Console
    """

    def __init__(self, title: str, console: Console) -> None:
        self.title, self.console = title, console

    def on_train_begin(self, logs: Logs | None = None) -> None:
        self._begin = self._last = time.monotonic()
        self._epoch = self.model.epoch

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
        now, epochs = time.monotonic(), self.params["epochs"]
        if now - self._last < LINES:
            return
        self._last = now
        left = (now - self._begin) / (epoch + 1 - self._epoch) * (epochs - epoch - 1)
        self.console.tell(
            f"{self.title}, epoch {epoch + 1}/{epochs}, {left:.0f} s left: {format_logs(logs)}"
        )
