"""`fastdrop train`: what dropout does to a network on a data set, shown side by side."""

from __future__ import annotations

import argparse
import json
import math
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fastdrop import saving
from fastdrop._output import make_writable, remove_leftovers, write
from fastdrop.batches import ArrayBatches, Expected
from fastdrop.callbacks import Callback, Logs, ProgressBar
from fastdrop.datasets import load_csv, load_digits, load_idx, load_npz
from fastdrop.layers import Array, Dense, Dropout, Flatten, Layer
from fastdrop.losses import SparseCategoricalCrossentropy
from fastdrop.models import Sequential
from fastdrop.optimizers import OPTIMIZERS, Optimizer
from fastdrop.random import Key, permutation

__all__ = ["CHECKPOINT", "MODELS", "PICTURE", "RESULTS", "run"]

DIGITS_TRAINING_SAMPLES = 1400  # the others were written by people whom the net has not seen
VALIDATION_SHARE = 0.2
SPLIT = 2**40  # folded into the seed for the split; no layer has this number
PICTURE, RESULTS, CHECKPOINT = "training.png", "training.json", "checkpoint.safetensors"
MODELS = ("model-without-dropout.safetensors", "model-with-dropout.safetensors")

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
        """Write a checkpoint."""
        model, arrays = self.model._state()
        saving.write(path, "training", self._asdict() | {"model": model}, arrays)

    @classmethod
    def read(cls, path: Path) -> Progress:
        """Read a checkpoint."""
        config, arrays = saving.read(path, ("training",))
        return cls(**config | {"model": Sequential._from_state(path, config["model"], arrays)})


def run(arguments: argparse.Namespace) -> None:
    """Train with and without dropout; print both results, write them, the models and a picture.

    Parameters
    ----------
    arguments : argparse.Namespace
        What the command line's parser for ``train`` gave.

    Raises
    ------
    ValueError, OSError
        For arguments, data, a checkpoint or a folder that do not serve.
    KeyboardInterrupt
        Says how to go on, once there is a checkpoint.
    """
    if arguments.label is not None and (arguments.data is None or arguments.data.suffix != ".csv"):
        raise ValueError(f"--label: expected it with a .csv file only, got {arguments.label!r}")
    data = _load(arguments.data, arguments.label or "label", arguments.seed)
    if arguments.epochs is None:
        arguments.epochs = 100 if arguments.data is None else 10
    make_writable(arguments.out)
    remove_leftovers(arguments.out, (CHECKPOINT, *MODELS, RESULTS, PICTURE))
    print(data)
    path = arguments.out / CHECKPOINT
    p = arguments.dropout
    settings = _settings(data, arguments) | {"label": arguments.label, "bytes": _crc32(data)}
    progress = _start(path, settings, arguments.epochs) if arguments.resume else None
    if progress is None:
        progress = Progress(settings, 0, {}, _model(data, 0.0, arguments))
    try:
        _train("without dropout", progress, 0, data, arguments)
        if progress.run == 0:
            progress = progress._replace(run=1, model=_model(data, p, arguments))
        _train(f"dropout p = {p:g}", progress, 1, data, arguments)
    except KeyboardInterrupt:
        if path.is_file():
            raise KeyboardInterrupt(f"go on with --resume, from {path}") from None
        raise
    print(_table(progress.runs))
    for name, content in _files(data, progress.runs, arguments).items():
        write(arguments.out / name, content)


def _start(path: Path, settings: Mapping[str, Any], epochs: int) -> Progress | None:
    """Return where the checkpoint was, if there is one."""
    if not path.exists():
        print(f"no checkpoint {path}: starting anew")
        return None
    progress = Progress.read(path)
    for name, value in settings.items():
        was = progress.settings.get(name)
        if value != was:
            option = "data" if name == "bytes" else name.replace("_", "-")
            what = "the same data" if name == "bytes" else was
            raise ValueError(
                f"--{option}: expected {what}, as in {path}, got "
                f"{'other data' if name == 'bytes' else value}; settings cannot change on --resume"
            )
    epoch = progress.model.epoch
    if progress.run == 1 and epoch == epochs:
        print(f"{path}: training has finished")
    else:
        print(f"{path}: going on {('without', 'with')[progress.run]} dropout, after epoch {epoch}")
    return progress


def _train(
    title: str, progress: Progress, run: int, data: Data, arguments: argparse.Namespace
) -> None:
    """Train one of the runs to its end, unless it is over."""
    if progress.run > run:
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
            _MeasureTraining(data.x, data.y),
            _Record(figures, lambda: progress.write(path)),
            ProgressBar(title),
        ],
        validation_data=(data.x_val, data.y_val),
        initial_epoch=model.epoch,
    )
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

    def __init__(self, x: Array, y: Array) -> None:
        self.x, self.y = x, y

    def on_epoch_end(self, epoch: int, logs: dict[str, float]) -> None:
        logs.update(self.model.evaluate(self.x, self.y, verbose=0, return_dict=True))


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
) -> dict[str, bytes]:
    """Return the contents of the files to write, by their names."""
    settings = _settings(data, arguments)
    results = json.dumps({"settings": settings, "runs": runs}, indent=1)
    try:
        from fastdrop.plots import render_comparison
    except ImportError as error:
        print(f"no picture: it needs matplotlib, pip install fastdrop[plot] ({error})")
        return {RESULTS: results.encode()}
    without, with_dropout = (figures["val_loss"][-1] for figures in runs.values())
    title = f"Validation loss: {without:.3f} without dropout, {with_dropout:.3f} with"
    subtitle = (
        f"{data}; hidden layers {', '.join(map(str, arguments.hidden))}; "
        f"batch {arguments.batch_size}; {arguments.optimizer}, learning rate {settings['lr']:g}; "
        f"seed {arguments.seed}"
    )
    return {RESULTS: results.encode(), PICTURE: render_comparison(runs, title, subtitle)}


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
        return _data(path.resolve().name, *train, *test)
    if path.suffix == ".npz":
        arrays = load_npz(path)
        if len(arrays) == 4:
            x_val, y_val = arrays["x_val"], arrays["y_val"]
            return _data(path.name, arrays["x"], arrays["y"], x_val, y_val)
        return _split(path.name, arrays["x"], arrays["y"], seed)
    if path.suffix == ".csv":
        x, y, _ = load_csv(path, label)
        data = _split(path.name, x, y, seed)
        mean, deviation = data.x.mean(axis=0), data.x.std(axis=0)
        deviation[deviation == 0] = 1
        return data._replace(x=(data.x - mean) / deviation, x_val=(data.x_val - mean) / deviation)
    raise ValueError(f"--data: expected a folder, an .npz or a .csv file, got {path}")


def _split(name: str, x: Array, y: Array, seed: int) -> Data:
    """Set samples apart for validation, in an order that the seed fixes."""
    if x.ndim < 2 or y.shape[:1] != x.shape[:1] or len(x) < 2:
        raise ValueError(
            f"{name}: expected x of shape (samples, ...) and a label in y for each of at least 2 "
            f"samples, got x {x.shape} and y {y.shape}"
        )
    order = permutation(Key(seed).fold_in(SPLIT), len(x))
    held_out = math.ceil(len(x) * VALIDATION_SHARE)
    rest, first = order[:held_out], order[held_out:]
    return _data(name, x[first], y[first], x[rest], y[rest], ("x", "y", "x", "y"))


def _data(
    name: str,
    x: Array,
    y: Array,
    x_val: Array,
    y_val: Array,
    names: Sequence[str] = ("x", "y", "x_val", "y_val"),
) -> Data:
    """Make class numbers of the labels; refuse what cannot be trained on, by the file's names."""

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
    classes = 1 + max(int(labels.max(initial=0)) for labels in (y, y_val))
    data = Data(name, classes, prepared(x), y, prepared(x_val), y_val)
    training = ArrayBatches(data.x, y, None, names[:2])
    expected = Expected(training.sample_shape, (classes,), np.dtype(np.float32), loss)
    training.check(expected)
    ArrayBatches(data.x_val, y_val, None, names[2:]).check(expected)
    return data
