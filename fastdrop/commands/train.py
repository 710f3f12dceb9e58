"""`fastdrop train`: what dropout does to a network on a data set, shown side by side."""

from __future__ import annotations

import argparse
import json
import math
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fastdrop._checks import is_count
from fastdrop._messages import about, one_line, one_line_about
from fastdrop._output import claimed, make_writable, write
from fastdrop.callbacks import Callback, Logs, ProgressBar
from fastdrop.datasets import check_classes, load_csv, load_digits, load_idx, load_npz
from fastdrop.layers import Array, Dense, Dropout, Flatten, Layer
from fastdrop.losses import SparseCategoricalCrossentropy
from fastdrop.models import Sequential
from fastdrop.optimizers import OPTIMIZERS, Optimizer
from fastdrop.random import Key, permutation
from fastdrop.training import files, saving
from fastdrop.training.batches import ArrayBatches
from fastdrop.training.expected import Expected
from fastdrop.training.ranks import Ranks, launched, world

__all__ = ["CHECKPOINT", "MODELS", "PICTURE", "RESULTS", "run"]

DIGITS_TRAINING_SAMPLES = 1400  # the others were written by people whom the net has not seen
VALIDATION_SHARE = 0.2
ROUNDING = 1e-12  # how far numbers in [0.5, 1) may be apart that only rounding has made different
SPLIT = 2**40  # folded into the seed for the split; no layer has this number
SPLIT_NAMES = ("x", "y", "x", "y")  # what both parts are called in the file
PICTURE, RESULTS, CHECKPOINT = "training.png", "training.json", "checkpoint.safetensors"
MODELS = ("model-without-dropout.safetensors", "model-with-dropout.safetensors")
FILES = (CHECKPOINT, *MODELS, RESULTS, PICTURE)
RUNS = "runs/"  # before the names of a checkpoint's arrays of figures
FIGURES = ("loss", "accuracy", "val_loss", "val_accuracy")

Figures = dict[str, list[float]]  # History.history


class Data(NamedTuple):
    """A training and a validation part, with class numbers as labels."""

    name: str
    classes: int
    x: Array
    y: Array
    x_val: Array
    y_val: Array

    def __str__(self) -> str:
        return (
            f"{self.name}: {len(self.x)} training and {len(self.x_val)} validation samples, "
            f"{self.classes} classes"
        )


class Progress(NamedTuple):
    """What a checkpoint holds: all that is needed to go on as if nothing had happened.

    Attributes
    ----------
    settings : dict
        Those that have to be the same.
    run : int
        0 without dropout, 1 with.
    runs : dict of str to Figures
        The figures of each run so far, by its title.
    model : Sequential
        That of the run, after its last whole epoch.
    """

    settings: dict[str, Any]
    run: int
    runs: dict[str, Figures]
    model: Sequential

    def write(self, path: Path) -> None:
        """Write a checkpoint: the figures are arrays, for there is no end to them."""
        model, arrays = saving.pack(self.model.network)
        config = self._asdict() | {
            "runs": {title: list(figures) for title, figures in self.runs.items()},
            "model": model,
        }
        arrays |= {
            f"{RUNS}{title}/{name}": np.array(values)
            for title, figures in self.runs.items()
            for name, values in figures.items()
        }
        files.write(path, "training", config, arrays)

    @classmethod
    def of(cls, path: Path, config: Mapping[str, Any], arrays: Mapping[str, Array]) -> Progress:
        """Return what a checkpoint holds, which was read from `path`."""
        with one_line_about(path):
            if (
                set(config) != set(cls._fields)
                or not is_count(config["run"], least=0)
                or not isinstance(config["settings"], dict)
                or not isinstance(config["runs"], dict)
                or len(config["runs"]) != config["run"] + 1
            ):
                raise ValueError("expected a checkpoint, got another structure")
            rest = dict(arrays)
            runs = {
                # In format 1 figures were in the configuration.
                title: names
                if isinstance(names, dict)
                else {name: rest.pop(f"{RUNS}{title}/{name}").tolist() for name in names}
                for title, names in config["runs"].items()
            }
        model = Sequential.from_network(saving.unpack(path, config["model"], rest))
        return cls(config["settings"], config["run"], runs, model)


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
        data = _load(arguments.data, arguments.label or "label", arguments.seed)
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
        settings = _settings(data, arguments) | {"label": arguments.label, "bytes": _crc32(data)}
        if checkpoint is None:
            progress = Progress(settings, 0, {}, _model(data, 0.0, arguments))
        else:
            progress = Progress.of(path, *checkpoint)
            _check_settings(path, progress, settings)
            models = {title: _model(data, q, arguments) for title, q in titles.items()}
            _check_progress(path, progress, models, arguments.epochs)
            if ranks.rank == 0:
                print(f"{path}: {_position(progress, arguments.epochs)}")
    for number, (title, p) in enumerate(titles.items()):
        if progress.run < number:
            progress = progress._replace(run=number, model=_model(data, p, arguments))
        _train(title, progress, number, data, arguments, comm)
    if ranks.rank == 0:
        for name, content in _files(data, progress.runs, arguments):
            write(arguments.out / name, content)
        print(_table(progress.runs))


def _check_settings(path: Path, progress: Progress, settings: Mapping[str, Any]) -> None:
    """Refuse to go on with other settings than the checkpoint's."""
    with one_line_about(path):
        files.check_keys("settings", progress.settings, list(settings))
    for name, value in settings.items():
        was = progress.settings[name]
        if value != was:
            option = "data" if name == "bytes" else name.replace("_", "-")
            what = "the same data" if name == "bytes" else one_line(str(was), 40)
            raise ValueError(
                f"--{option}: expected {what}, as in {path}, got "
                f"{'other data' if name == 'bytes' else value}; settings cannot change on --resume"
            )


def _check_progress(
    path: Path, progress: Progress, models: Mapping[str, Sequential], epochs: int
) -> None:
    """Refuse a checkpoint of other runs than these: their models by their titles."""
    with one_line_about(path):
        if list(progress.runs) != list(models)[: progress.run + 1]:
            raise ValueError(f"expected runs {', '.join(models)}, got {', '.join(progress.runs)}")
        expected = list(models.values())[progress.run]
        if _recipe(progress.model) != _recipe(expected) or progress.model.epoch > epochs:
            raise ValueError("expected the model of these settings, got another")
        for number, (title, figures) in enumerate(progress.runs.items()):
            trained = epochs if number < progress.run else progress.model.epoch
            whole = all(
                isinstance(values, list)
                and len(values) == trained
                and all(isinstance(value, float) and math.isfinite(value) for value in values)
                for values in figures.values()
            )
            if not whole or set(figures) != set(FIGURES if trained else ()):
                raise ValueError(f"{title}: expected the figures of {trained} epochs, got others")


def _position(progress: Progress, epochs: int) -> str:
    """Say where a checkpoint was written."""
    epoch = progress.model.epoch
    if progress.run == 1 and epoch == epochs:
        return "training has finished"
    return f"going on {('without', 'with')[progress.run]} dropout, after epoch {epoch}"


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


def _model(data: Data, p: float, arguments: argparse.Namespace) -> Sequential:
    model = Sequential(_layers(arguments.hidden, p, data.classes), seed=arguments.seed)
    model.compile(_optimizer(arguments), "sparse_categorical_crossentropy", ["accuracy"])
    return model


def _optimizer(arguments: argparse.Namespace) -> Optimizer:
    rate = {} if arguments.lr is None else {"learning_rate": arguments.lr}
    return OPTIMIZERS[arguments.optimizer](**rate)


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


def _recipe(model: Sequential) -> list[Any]:
    """Return what a model is and how it is trained, without how far it is."""
    config, _ = saving.pack(model.network)
    compiled = config["compiled"] and config["compiled"] | {"iterations": None}
    return [config["model"] | {"input_shape": None}, compiled]


def _layers(hidden: Sequence[int], p: float, classes: int) -> list[Layer]:
    layers: list[Layer] = [Flatten()]
    for units in hidden:
        layers.append(Dense(units, "relu"))
        if p:
            layers.append(Dropout(p))
    return [*layers, Dense(classes, "softmax")]


def _settings(data: Data, arguments: argparse.Namespace) -> dict[str, Any]:
    return {
        "data": data.name,
        "hidden": arguments.hidden,
        "dropout": arguments.dropout,
        "epochs": arguments.epochs,
        "batch_size": arguments.batch_size,
        "optimizer": arguments.optimizer,
        "lr": _optimizer(arguments).learning_rate,
        "seed": arguments.seed,
    }


def _crc32(data: Data) -> int:
    checksum = 0
    for array in (data.x, data.y, data.x_val, data.y_val):
        checksum = zlib.crc32(np.ascontiguousarray(array).data, checksum)
    return checksum


def _files(
    data: Data, runs: Mapping[str, Figures], arguments: argparse.Namespace
) -> Iterator[tuple[str, bytes]]:
    """Give the names and contents of the files to write, the picture last: it may fail."""
    settings = _settings(data, arguments)
    yield RESULTS, json.dumps({"settings": settings, "runs": runs}, indent=1).encode()
    try:
        from fastdrop.commands.pictures import render_comparison
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


def _load(path: Path | None, label: str, seed: int) -> Data:
    if path is None:
        x, y = load_digits()
        x = (x / 16).astype(np.float32)
        n = DIGITS_TRAINING_SAMPLES
        return _data("embedded digits", x[:n], y[:n], x[n:], y[n:])
    if not path.exists():
        raise FileNotFoundError(f"--data: expected an existing folder or file, got {path}")
    if path.is_dir():
        train, test = load_idx(path)
        with _naming(path):
            return _data(path.resolve().name, *train, *test)
    if path.suffix == ".npz":
        arrays = load_npz(path)
        x, y = arrays["x"], arrays["y"]
        with _naming(path):
            if len(arrays) == 4:
                return _data(path.name, x, y, arrays["x_val"], arrays["y_val"])
            return _data(path.name, *_split(x, y, seed), SPLIT_NAMES)
    if path.suffix == ".csv":
        x, y, _ = load_csv(path, label)
        with _naming(path):
            x, y, x_val, y_val = _split(x, y, seed)
            x, x_val = _standardised(x, x_val)
            return _data(path.name, x, y, x_val, y_val, SPLIT_NAMES)
    raise ValueError(f"--data: expected a folder, an .npz or a .csv file, got {path}")


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Name the file in what is said of its arrays."""
    try:
        yield
    except ValueError as error:
        raise ValueError(about(path, error)) from error


def _standardised(x: Array, x_val: Array) -> tuple[Array, Array]:
    """Subtract the mean of x, and divide by its deviation."""
    # By a power of two first, which changes no digit: of any numbers squares are in range then, and
    # a column is constant but for rounding if its values differ by little beside 1.
    _, exponent = np.frexp(np.abs(x).max(axis=0))
    with np.errstate(over="ignore"):  # what is out of range in the validation part is refused
        x, x_val = np.ldexp(x, -exponent), np.ldexp(x_val, -exponent)
    mean, deviation = x.mean(axis=0), x.std(axis=0)
    deviation[np.ptp(x, axis=0) <= ROUNDING] = 1
    return (x - mean) / deviation, (x_val - mean) / deviation


def _split(x: Array, y: Array, seed: int) -> tuple[Array, Array, Array, Array]:
    """Set samples apart for validation, in an order that the seed fixes."""
    if x.ndim < 2 or y.shape[:1] != x.shape[:1] or len(x) < 2:
        raise ValueError(
            f"expected x of shape (samples, ...) and a label in y for each of at least 2 samples, "
            f"got x {x.shape} and y {y.shape}"
        )
    order = permutation(Key(seed).fold_in(SPLIT), len(x))
    held_out = math.ceil(len(x) * VALIDATION_SHARE)
    rest, first = order[:held_out], order[held_out:]
    return x[first], y[first], x[rest], y[rest]


def _data(
    name: str,
    x: Array,
    y: Array,
    x_val: Array,
    y_val: Array,
    names: Sequence[str] = ("x", "y", "x_val", "y_val"),
) -> Data:
    """Make class numbers of the labels; refuse what cannot be trained on, by the arrays' names."""

    def prepared(images: Array) -> Array:
        return images / np.float32(255) if images.dtype == np.uint8 else images

    for argument, labels in ((names[1], y), (names[3], y_val)):
        if labels.shape[1:] not in ((), (1,)):
            raise ValueError(
                f"{argument}: expected shape (samples,), one class number each, got {labels.shape}"
            )
    # Nobody has more classes than samples: a number or date was taken for a label.
    limit = (y.size + y_val.size,)
    loss = SparseCategoricalCrossentropy()
    y = loss.targets(y, limit, names[1])
    y_val = loss.targets(y_val, limit, names[3])
    check_classes(names[1], np.concatenate([y, y_val]))
    if y.size and y.min() == y.max():
        raise ValueError(
            f"{names[1]}: expected at least 2 classes among the samples to train on, "
            f"got {y[0]} only"
        )
    classes = 1 + max(int(labels.max(initial=0)) for labels in (y, y_val))
    data = Data(name, classes, prepared(x), y, prepared(x_val), y_val)
    training = ArrayBatches(data.x, y, None, names[:2])
    expected = Expected(training.sample_shape, (classes,), np.dtype(np.float32), loss)
    training.check(expected)
    ArrayBatches(data.x_val, y_val, None, names[2:]).check(expected)
    return data
