"""The course of `fastdrop train`: what dropout does to a network, shown side by side."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from fastdrop import __version__
from fastdrop._messages import shown
from fastdrop._output import claimed, make_writable, replace_file
from fastdrop.callbacks import Callback, ProgressBar
from fastdrop.commands.report import command as report
from fastdrop.commands.runs.comparison import best_of, rates_of
from fastdrop.commands.runs.data import Data, is_table, load
from fastdrop.commands.runs.network import Settings, save_model
from fastdrop.commands.runs.results import (
    MODELS,
    PICTURE,
    RESULTS,
    Results,
    environment,
    model_name,
)
from fastdrop.commands.train.progress import CHECKPOINT, Progress
from fastdrop.commands.train.recording import Lines, MeasureTraining, Record
from fastdrop.commands.train.summary import facts_of, last_line, summary
from fastdrop.training import files
from fastdrop.training.ranks import Ranks, launched, world

__all__ = ["advice", "run"]

ROLES = ("task", "weight", "ignore", "group", "time", "missing")  # options about a table
DIGITS_EPOCHS, EPOCHS = 100, 10  # of the embedded digits, of all else


def run(arguments: argparse.Namespace) -> None:
    """Train with and without dropout; print the results, write them, the models and a picture.

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
    out, console = arguments.out, arguments.console
    path = out / CHECKPOINT
    content = None
    with ranks.together("the data"):
        roles = _roles(arguments)
        if arguments.epochs is None:
            arguments.epochs = DIGITS_EPOCHS if arguments.data is None else EPOCHS
        settings = Settings.of(arguments)
        if (
            ranks.rank == 0
            and arguments.data
            and is_table(arguments.data)
            and arguments.label is None
        ):
            console.tell("no --target: the column 'label' is predicted")
        if ranks.rank == 0 and not arguments.force:
            _refuse_to_overwrite(arguments)  # before data are read, which may take a while
        label = "label" if arguments.label is None else arguments.label
        data = load(arguments.data, label, arguments.seed, roles)
        if ranks.rank == 0:
            names = [model_name(p, settings.dropout) for p in (0.0, *settings.dropout)]
            if not out.exists():
                held.callback(_remove_if_empty, out)
            make_writable(out, (CHECKPOINT, *MODELS, *names, RESULTS, PICTURE))
            held.enter_context(claimed(out))
            if arguments.report:
                report.check(arguments.report, arguments.force)
            console.tell(f"{data}; {ranks.size} ranks" if ranks.size > 1 else str(data))
            for line in data.table.lines if data.table else ():
                console.tell(line)
            if arguments.resume and not path.exists():
                console.tell(f"no checkpoint {path}: starting anew")
            elif arguments.resume:
                content = files.read(path, ("training",))
    content = ranks.broadcast(content)  # which other ranks may not be able to read
    with ranks.together("the settings"):
        more = {"label": arguments.label} | roles
        if content is None:
            progress = Progress.begin(data, settings, more)
        else:
            progress = Progress.read(path, content, data, settings, more)
            if ranks.rank == 0:
                console.tell(f"{path}: {progress.describe(settings)}")
    while True:
        _train(progress, data, settings, arguments, comm)
        if len(progress.runs) == len(settings.plan):
            break
        progress = progress.next_run(data, settings)
    if ranks.rank == 0:
        _finish(progress, data, settings, arguments)


def _remove_if_empty(folder: Path) -> None:
    """Leave no folder of a run that wrote nothing."""
    with suppress(OSError):
        folder.rmdir()


def _roles(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return what was said of a table's columns; take the table from where it was named."""
    if arguments.table is not None:
        if arguments.data is not None:
            raise ValueError(f"--data: expected it or a table, got both, {arguments.data}")
        arguments.data = arguments.table
    roles = {name: getattr(arguments, name) for name in ROLES}
    said = {"target": arguments.label, **roles}
    data = arguments.data
    for name, value in said.items():
        if value is not None and (data is None or data.is_dir() or data.suffix == ".npz"):
            data = "the embedded digits" if data is None else data
            raise ValueError(
                f"--{name}: expected it with a table only, got {shown(value)} with {data}"
            )
    return {name: value for name, value in roles.items() if value is not None}


def _refuse_to_overwrite(arguments: argparse.Namespace) -> None:
    """Refuse a folder with what somebody else, or another day, has trained."""
    ends = (CHECKPOINT, RESULTS, *MODELS)
    there = [name for name in ends if (arguments.out / name).is_file()]
    if there and not (arguments.resume and CHECKPOINT in there):
        go_on = "--resume goes on with it, " if CHECKPOINT in there else ""
        raise ValueError(
            f"--out: expected a folder without another run, got {arguments.out} with {there[0]}; "
            f"{go_on}--force replaces it"
        )


def _train(
    progress: Progress, data: Data, settings: Settings, arguments: argparse.Namespace, comm: Any
) -> None:
    """Train the last run that has begun to its end."""
    model, run = progress.model, progress.runs[-1]
    console, path = arguments.console, arguments.out / CHECKPOINT
    number, runs = len(progress.runs), len(settings.plan)
    seed = f", seed {run.seed}" if settings.seeds > 1 else ""
    title = f"run {number} of {runs}: {run.title}{seed}"
    shown: Callback = ProgressBar(title, leave=False) if console.bars else Lines(title, console)
    model.fit(
        data.x,
        data.y,
        settings.batch_size,
        settings.epochs,
        verbose=0,
        callbacks=[
            MeasureTraining(data, comm),
            Record(run, lambda: progress.write(path)),
            shown,
        ],
        validation_data=data.validation,
        sample_weight=data.weight,
        initial_epoch=model.epoch,
        comm=comm,
    )
    if comm is not None and comm.Get_rank() > 0:
        return
    if run.seed == settings.seed:
        name = model_name(run.dropout, settings.dropout)
        save_model(arguments.out / name, model, data, settings, run.dropout, run.seed)
    console.tell(f"{title}: {last_line(run, data)}")


def _finish(
    progress: Progress, data: Data, settings: Settings, arguments: argparse.Namespace
) -> None:
    """Write what stays of all runs, and print what they say."""
    out, console = arguments.out, arguments.console
    origin = {
        "path": arguments.data and str(arguments.data),
        "folder": str(Path.cwd()),
        "label": arguments.label,
    }
    results = Results(
        __version__,
        environment(),
        arguments.typed,
        data.facts() | origin,
        settings._asdict(),
        progress.runs,
    )
    console.tell(f"written: {results.write(out)}")
    best = best_of(rates_of(results.runs)).dropout
    for p in (0.0, *settings.dropout):
        path = out / model_name(p, settings.dropout)
        if not path.exists():
            console.tell(f"{path} is gone; only a run without --resume makes it")
        elif p == best and path.name != MODELS[1]:
            replace_file(out / MODELS[1], path.read_bytes())
    for name, content in _pictures(results, arguments):
        replace_file(out / name, content)
        console.tell(f"written: {out / name}")
    if arguments.report:
        for missing in report.write(out, arguments.report):
            console.tell(missing)
        console.tell(f"written: {arguments.report}")
    console.result(summary(results, console), facts_of(results, out))


def _pictures(results: Results, arguments: argparse.Namespace) -> Iterator[tuple[str, bytes]]:
    """Give names and contents of pictures, if they can be drawn."""
    try:
        from fastdrop.commands.train.pictures import render
    except ImportError as error:
        arguments.console.tell(
            f"no picture: it needs matplotlib, pip install 'fastdrop-nn[plot]' ({error})"
        )
        return
    yield PICTURE, render(results)
