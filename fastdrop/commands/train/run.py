"""`fastdrop train`: what dropout does to a network on a data set, shown side by side."""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from typing import Any

from fastdrop._output import claimed, make_writable, write
from fastdrop.callbacks import Callback, Logs, ProgressBar
from fastdrop.commands.runs.data import Data, load
from fastdrop.commands.runs.network import model_of, settings_of
from fastdrop.commands.runs.results import MODELS, PICTURE, RESULTS, Figures
from fastdrop.commands.train.progress import (
    CHECKPOINT,
    Progress,
    check_progress,
    check_settings,
    position,
)
from fastdrop.layers import Array
from fastdrop.training import files
from fastdrop.training.ranks import Ranks, launched, world

__all__ = ["advice", "run"]

FILES = (CHECKPOINT, *MODELS, RESULTS, PICTURE)


def run(arguments: argparse.Namespace) -> None:
    """Train with and without dropout; print both results, write them, the models and a picture.

    Where a launcher of MPI has started several processes, they train together, and rank 0 prints
    and writes.

    Parameters
    ----------
    arguments : argparse.Namespace
        What the command line's parser for ``train`` gave.

    Raises
    ------
    ValueError, OSError
        For arguments, data, a checkpoint or a folder that do not serve.
    SystemExit
        On another rank than 0, which says what is wrong.
    """
    comm = world() if launched() else None
    ranks = Ranks(comm)
    try:
        with ranks.ending_together("train"), ExitStack() as held:
            _run(arguments, comm, ranks, held)
    except Exception:
        if ranks.rank > 0:
            raise SystemExit(2) from None
        raise


def advice(arguments: argparse.Namespace) -> str:
    """Return how to go on after an interruption, if there is a checkpoint."""
    path = arguments.out / CHECKPOINT
    return f"; go on with --resume, from {path}" if path.is_file() else ""


def _run(arguments: argparse.Namespace, comm: Any, ranks: Ranks, held: ExitStack) -> None:
    path = arguments.out / CHECKPOINT
    checkpoint = None
    with ranks.together("the data"):
        if arguments.label and (arguments.data is None or arguments.data.suffix != ".csv"):
            raise ValueError(f"--label: expected it with a .csv file only, got {arguments.label!r}")
        data = load(arguments.data, arguments.label or "label", arguments.seed)
        if arguments.epochs is None:
            arguments.epochs = 100 if arguments.data is None else 10
        if ranks.rank == 0:
            make_writable(arguments.out, FILES)
            held.enter_context(claimed(arguments.out))
            print(f"{data}; {ranks.size} ranks" if ranks.size > 1 else data)
            if arguments.resume and not path.exists():
                print(f"no checkpoint {path}: starting anew")
            elif arguments.resume:
                checkpoint = files.read(path, ("training",))
    checkpoint = ranks.broadcast(checkpoint)  # which other ranks may not be able to read
    titles = {"without dropout": 0.0, f"dropout p = {arguments.dropout:g}": arguments.dropout}
    with ranks.together("the settings"):
        settings = settings_of(data, arguments) | {"label": arguments.label, "bytes": data.checksum}
        if checkpoint is None:
            progress = Progress(settings, 0, {}, model_of(data, 0.0, arguments))
        else:
            progress = Progress.of(path, *checkpoint)
            check_settings(path, progress, settings)
            models = {title: model_of(data, q, arguments) for title, q in titles.items()}
            check_progress(path, progress, models, arguments.epochs)
            if ranks.rank == 0:
                print(f"{path}: {position(progress, arguments.epochs)}")
    for number, (title, p) in enumerate(titles.items()):
        if progress.run < number:
            progress = progress._replace(run=number, model=model_of(data, p, arguments))
        _train(title, progress, number, data, arguments, comm)
    if ranks.rank == 0:
        for name, content in _files(data, progress.runs, arguments):
            write(arguments.out / name, content)
        print(_table(progress.runs))


def _train(
    title: str,
    progress: Progress,
    run: int,
    data: Data,
    arguments: argparse.Namespace,
    comm: Any,
) -> None:
    """Train one of the runs to its end, unless it is over."""
    first = comm is None or comm.Get_rank() == 0
    if progress.run > run:
        if first and not (arguments.out / MODELS[run]).exists():
            print(f"{arguments.out / MODELS[run]} is gone; only a run without --resume makes it")
        return
    model = progress.model
    figures = progress.runs.setdefault(title, {})
    path = arguments.out / CHECKPOINT
    model.fit(
        data.x,
        data.y,
        arguments.batch_size,
        arguments.epochs,
        verbose=0,
        callbacks=[
            _MeasureTraining(data.x, data.y, comm),
            _Record(figures, lambda: progress.write(path)),
            ProgressBar(title),
        ],
        validation_data=(data.x_val, data.y_val),
        initial_epoch=model.epoch,
        comm=comm,
    )
    if first:
        model.save(arguments.out / MODELS[run])


class _MeasureTraining(Callback):
    """Replace the training figures by those at inference, to compare with the validation's."""

    every_rank = True

    def __init__(self, x: Array, y: Array, comm: Any) -> None:
        self.x, self.y, self.comm = x, y, comm

    def on_epoch_end(self, epoch: int, logs: dict[str, float]) -> None:
        measured = self.model.evaluate(self.x, self.y, verbose=0, return_dict=True, comm=self.comm)
        logs.update(measured)


class _Record(Callback):
    """Keep the figures of every epoch, and write a checkpoint at the start and after each."""

    def __init__(self, figures: Figures, write: Callable[[], None]) -> None:
        self.figures, self.write = figures, write

    def on_train_begin(self, logs: Logs | None = None) -> None:
        self.write()

    def on_train_batch_end(self, batch: int, logs: Logs) -> None:
        self._check(logs["loss"])

    def on_epoch_end(self, epoch: int, logs: dict[str, float]) -> None:
        self._check(logs["loss"] + logs["val_loss"])
        for name, value in logs.items():
            self.figures.setdefault(name, []).append(value)
        self.write()

    def _check(self, loss: float) -> None:
        if not math.isfinite(loss):
            raise ValueError(
                "--lr: expected a smaller learning rate, got a loss that is not finite"
            )


def _files(
    data: Data, runs: Mapping[str, Figures], arguments: argparse.Namespace
) -> Iterator[tuple[str, bytes]]:
    """Give the names and contents of the files to write, the picture last: it may fail."""
    settings = settings_of(data, arguments)
    yield RESULTS, json.dumps({"settings": settings, "runs": runs}, indent=1).encode()
    try:
        from fastdrop.commands.train.pictures import render_comparison
    except ImportError as error:
        print(f"no picture: it needs matplotlib, pip install 'fastdrop-nn[plot]' ({error})")
        return
    without, with_dropout = (figures["val_loss"][-1] for figures in runs.values())
    title = f"Validation loss: {without:.3f} without dropout, {with_dropout:.3f} with"
    subtitle = (
        f"{data}; hidden layers {', '.join(map(str, arguments.hidden))}; "
        f"batch {arguments.batch_size}; {arguments.optimizer}, learning rate {settings['lr']:g}; "
        f"seed {arguments.seed}"
    )
    yield PICTURE, render_comparison(runs, title, subtitle)


def _table(runs: Mapping[str, Figures]) -> str:
    """Return both runs' last figures side by side."""
    lines = [("", *runs)]
    for name, form in (("loss", "{:.4f}"), ("accuracy", "{:.2%}")):
        last = [(figures[name][-1], figures[f"val_{name}"][-1]) for figures in runs.values()]
        lines += [
            (f"training {name}", *(form.format(training) for training, _ in last)),
            (f"validation {name}", *(form.format(validation) for _, validation in last)),
            ("  gap", *(form.format(abs(validation - training)) for training, validation in last)),
        ]
    return "\n".join(
        f"{line[0]:<20}" + "".join(f"{cell:>20}" for cell in line[1:]) for line in lines
    )
