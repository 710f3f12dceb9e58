"""`Sequential`: a stack of layers with Keras's interface."""

from __future__ import annotations

import copy
import math
import re
import sys
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from numbers import Real
from os import PathLike
from typing import Any, Self, TypeGuard

import numpy as np
from numpy.typing import ArrayLike
from tqdm import tqdm

from fastdrop import losses, optimizers
from fastdrop import metrics as metrics_module
from fastdrop._checks import as_array, check_count, check_finite, lookup
from fastdrop._serialization import check_can_be_read, deserialize, serialize
from fastdrop.callbacks import (
    Callback,
    EpochLines,
    History,
    ProgressBar,
    format_logs,
)
from fastdrop.layers import (
    Array,
    Input,
    Layer,
    Shape,
    assign,
    batch_shape,
    build_all,
    check_each_once,
    shapes_between,
)
from fastdrop.losses import Loss
from fastdrop.metrics import Metric
from fastdrop.optimizers import Optimizer
from fastdrop.random import Generator, Key, default_generator
from fastdrop.training import files
from fastdrop.training.batches import ArrayBatches, Batch, Batches, Expected, batches_of
from fastdrop.training.blas import matmul
from fastdrop.training.figures import Figures
from fastdrop.training.ranks import Ranks, agreed, facts_of
from fastdrop.training.step import Step

__all__ = ["Sequential", "load_model"]

# Nothing is kept for a backward pass at inference, so batches may be larger than in training.
INFERENCE_BATCH = 1024
CALLS = 2**41  # folded into the seed for masks of calls of the model; no layer has this number
_NOT_BUILT = "; the model's input shape is not known yet"


class Sequential:
    """A stack of layers, each fed by the one before.

    Parameters
    ----------
    layers : iterable of Layer, optional
        The first item may be an `Input`.
    seed : int, optional
        Fixes initial weights, the order of samples and every mask; without it the default
        generator gives one.
    dtype : {"float32", "float64"}
        Of parameters, batches and outputs.

    Attributes
    ----------
    layers : list of Layer
        The layers; an `Input` is not among them.
    seed, epoch, step : int
        The whole random state: the seed, and how many epochs and batches have been trained.
    input_shape : tuple of int or None
        Shape of one sample; None until it is known.
    optimizer, loss, metrics, weighted_metrics : Optimizer, Loss, list of Metric, list of Metric
        What `compile` chose.
    history : History or None
        What the last `fit` returned.
    stop_training : bool
        A callback that sets it ends `fit` after this batch.

    Raises
    ------
    TypeError
        When `layers` is no list of layers.
    ValueError
        When layers do not fit on each other.
    """

    def __init__(
        self,
        layers: Iterable[Layer | Input] | None = None,
        *,
        seed: int | None = None,
        dtype: str = "float32",
    ) -> None:
        if not isinstance(layers, Iterable | None):
            raise TypeError(f"layers: expected a list of layers, got {type(layers).__name__}")
        if seed is None:
            seed = default_generator.next_key().fold_in(0).seed
        self.seed: int = Key(seed).seed
        self.dtype = np.dtype(
            lookup("dtype", dtype, {"float32": np.float32, "float64": np.float64})
        )
        self.epoch = 0
        self.step = 0
        self.layers: list[Layer] = []
        self.input_shape: Shape | None = None
        self.history: History | None = None
        self.loss: Loss | None = None
        self.optimizer: Optimizer | None = None
        self.metrics: list[Metric] = []
        self.weighted_metrics: list[Metric] = []
        self.stop_training = False
        self._kept = _Kept()
        self._calls = Generator(Key(self.seed).fold_in(CALLS).seed)
        for layer in () if layers is None else layers:
            self.add(layer)

    def add(self, layer: Layer | Input) -> None:
        """Put `layer` on top of the stack.

        Raises
        ------
        TypeError
            When `layer` is neither a `Layer` nor an `Input`.
        ValueError
            When it does not fit on the layers below, is in the model already or is an `Input` in
            another place than the first.
        """
        if isinstance(layer, Input):
            if self.layers or self.input_shape is not None:
                raise ValueError("layer: expected an Input only as the first item of a model")
            self.input_shape = layer.shape
            return
        if not isinstance(layer, Layer):
            raise TypeError(f"layer: expected a fastdrop layer, got {layer!r}")
        layers = [*self.layers, layer]
        check_each_once("layer", layers)
        input_shape = layers[0].input_shape if self.input_shape is None else self.input_shape
        if input_shape is not None:
            build_all(layers, input_shape, self.seed, self.dtype)
        names = {other.name for other in self.layers}
        plain, number = layer.name, 0
        while layer.name in names:
            number += 1
            layer.name = f"{plain}_{number}"
        self.layers, self.input_shape = layers, input_shape

    def compile(
        self,
        optimizer: str | Optimizer = "rmsprop",
        loss: str | Loss = "mse",
        metrics: Sequence[str | Metric] | None = None,
        weighted_metrics: Sequence[str | Metric] | None = None,
    ) -> None:
        """Choose how to train.

        Parameters
        ----------
        optimizer : str or Optimizer
            One of `fastdrop.optimizers`; a name stands for the optimiser with its defaults.
        loss : str or Loss
            One of `fastdrop.losses`. When it folds the last layer's activation (softmax, sigmoid),
            training works from logits, which is exact for outputs near 0 and 1.
        metrics : list of str or Metric, optional
            Figures of `fastdrop.metrics` to report besides the loss.
        weighted_metrics : list of str or Metric, optional
            Figures in which samples count by their weights. Where one is among `metrics`, too, its
            name gets "weighted_" before it.

        Raises
        ------
        ValueError
            When a name is unknown, or is there twice.
        """
        plain = _metrics("metrics", metrics)
        weighted = _metrics("weighted_metrics", weighted_metrics)
        for metric in weighted:
            if metric.name in {other.name for other in plain}:
                metric.name = f"weighted_{metric.name}"
        names = [metric.name for metric in (*plain, *weighted)]
        if not all(isinstance(name, str) for name in names) or len(
            {"", "epoch", "loss", *names}
        ) < 3 + len(names):
            raise ValueError(
                f"metrics: expected names of their own, other than epoch and loss, got {names}"
            )
        optimizer = optimizers.get(optimizer)
        loss = losses.get(loss)
        if optimizer.model not in (None, self):
            raise ValueError("optimizer: expected one of this model's own, got another model's")
        optimizer.model = self
        self.optimizer, self.loss = optimizer, loss
        self.metrics, self.weighted_metrics = plain, weighted

    def fit(
        self,
        x: Any,
        y: ArrayLike | None = None,
        batch_size: int | None = 32,
        epochs: int = 1,
        verbose: str | int = "auto",
        callbacks: Callback | Iterable[Callback] | None = None,
        validation_split: float = 0.0,
        validation_data: Any = None,
        shuffle: bool = True,
        class_weight: Mapping[int, float] | None = None,
        sample_weight: ArrayLike | None = None,
        initial_epoch: int = 0,
        steps_per_epoch: int | None = None,
        validation_steps: int | None = None,
        validation_batch_size: int | None = None,
        comm: Any = None,
    ) -> History:
        """Train the model. A second call goes on where the first one ended.

        Parameters
        ----------
        x : array_like, (samples, ...), or iterable of batches
            Finite numbers; they are cast to the model's dtype batch by batch. An array in memory is
            checked before training starts. One on disk (`numpy.memmap`, HDF5, Zarr) is read and
            checked batch by batch. An iterable gives (x, y) or (x, y, sample_weight); it is
            iterated once for every epoch.
        y : array_like, (samples, ...)
            Labels, of the shape and values that the loss expects. None with an iterable.
        batch_size : int, optional
            At least 1; None means 32. The last batch of an epoch may be smaller. An iterable's
            batches stay as they are.
        epochs : int
            At least 1: the number of epochs or, with `initial_epoch`, of the last one.
        verbose : {"auto", 0, 1, 2}
            0 is silent, 1 (and "auto") a progress bar, 2 a line per epoch.
        callbacks : Callback or iterable of Callback, optional
            Called in order, before the model's own report.
        validation_split : float
            Share of the samples, in [0, 1), taken from the end of the arrays to validate on.
        validation_data : (x, y), (x, y, sample_weight) or iterable of batches, optional
            Data to validate on after each epoch; overrides `validation_split`.
        shuffle : bool
            Whether each epoch takes an array's samples in an order of its own.
        class_weight : mapping of int to float, optional
            Factors of the losses of samples with these labels; 1 for the others.
        sample_weight : array_like, (samples,), optional
            Factors of the samples' losses, at least 0.
        initial_epoch : int
            Number of the first epoch, for the callbacks; nothing is trained from `epochs` on. To
            go on with a model, give its `epoch`.
        steps_per_epoch, validation_steps : int, optional
            Batches to take of an iterable for each epoch; each goes on where the last one ended.
        validation_batch_size : int, optional
            At least 1; changes nothing but time and memory.
        comm : mpi4py.MPI.Intracomm, optional
            Train with all its processes, its ranks: each calls `fit` with the same model, data and
            arguments, and computes its rows of every batch (docs/mpi.md). Callbacks are called on
            rank 0 only, and until the end of an epoch get metrics of its rows alone; what they do
            to weights at the end of an epoch or of training, to the learning rate and to
            `stop_training` reaches all ranks.

        Returns
        -------
        History
            Loss and metrics of each epoch.

        Raises
        ------
        RuntimeError
            When the model has not been compiled; a `RankError` when something is wrong on another
            rank.
        TypeError
            When `callbacks` or `comm` are something else.
        ValueError
            When an argument does not fit its description, the model or the loss: before anything
            is trained, except for what is read batch by batch. When a generator ends before the
            last epoch. When the loss is no longer finite, unless a callback stops training at that
            (`TerminateOnNaN`); the weights are spoilt by then. When ranks differ in what they were
            given, or there are more of them than `batch_size`.
        """
        ranks = Ranks(comm)
        with ranks.together():
            self._compiled()
            batch_size = _batch_size("batch_size", batch_size, 32)
            validation_batch_size = _batch_size(
                "validation_batch_size", validation_batch_size, INFERENCE_BATCH
            )
            if batch_size < ranks.size:
                raise ValueError(
                    f"batch_size: expected at least a row for each of the {ranks.size} ranks, "
                    f"got {batch_size}"
                )
            given = _callbacks(callbacks)
            check_count("epochs", epochs)
            check_count("initial_epoch", initial_epoch, least=0)
            reports = _reports(verbose)
            names = ("x", "y", "sample_weight", "steps_per_epoch")
            training = batches_of(x, y, sample_weight, names, batch_size, steps_per_epoch)
            validation: Batches | None = None
            if validation_data is not None:
                validation = _validation(validation_data, validation_batch_size, validation_steps)
            elif not isinstance(validation_split, Real | None) or validation_split:
                if not isinstance(training, ArrayBatches):
                    raise ValueError("validation_split: expected it with arrays only")
                training, validation = training.split(validation_split, validation_batch_size)
            self._prepare(training, validation, class_weight)
            if ranks.size > 1:
                Figures(self).merge(Figures(self).metrics)  # can they be merged?
        if ranks.size > 1:
            ranks.check_same(
                facts_of(self)
                | {
                    "optimizer": self.optimizer,
                    "training data": training.facts(),
                    "validation data": None if validation is None else validation.facts(),
                    "epochs": epochs,
                    "initial_epoch": initial_epoch,
                    "shuffle": bool(shuffle),
                    "class_weight": class_weight,
                }
            )

        history = self.history = History()
        chain = [*given, history, *reports]
        if ranks.rank > 0:
            chain = [callback for callback in chain if callback.every_rank]
        for callback in chain:
            callback.model = self
            callback.params = {"epochs": epochs, "steps": training.steps, "verbose": verbose}

        def tell(hook: str, *arguments: Any) -> None:
            for callback in chain:
                getattr(callback, hook)(*arguments)

        # Where others' code runs between the batches, it may have products of its own.
        product = matmul if isinstance(training, ArrayBatches) else np.matmul
        step, validation_step = (
            Step(self, None if comm is None else ranks, product) for _ in range(2)
        )
        self.stop_training = False
        logs: dict[str, float] = {}
        with ranks.ending_together():
            begun: list[Callback] = []
            try:
                for callback in chain:
                    callback.on_train_begin({})
                    begun.append(callback)
                for epoch in range(initial_epoch, epochs):
                    title = f"epoch {epoch + 1}"
                    tell("on_epoch_begin", epoch, {})
                    order = Key(self.seed, self.epoch) if shuffle else None
                    figures = self._train_epoch(
                        step, training.epoch(title, order, ranks.share), title, tell, ranks
                    )
                    logs = figures.over(ranks)
                    if validation is not None:
                        place = f"validation, {title}"
                        measured = self._evaluate(validation_step, validation, place, ranks)
                        logs.update({f"val_{name}": value for name, value in measured.items()})
                    self.epoch += 1
                    if ranks.size > 1:
                        ranks.check_same(facts_of(self))
                    tell("on_epoch_end", epoch, logs)
                    ranks.share_weights(self._weights().values())
                    self.stop_training = ranks.broadcast(self.stop_training)
                    if self.stop_training:
                        break
            finally:
                with ExitStack() as endings:  # all of them, also behind one that fails
                    for callback in reversed(begun):
                        endings.callback(callback.on_train_end, logs)
            ranks.share_weights(self._weights().values())
            _, optimizer = self._compiled()
            history.epoch, history.history, rate = ranks.broadcast(
                (history.epoch, history.history, optimizer.current_learning_rate)
            )
            optimizer.follow(rate)
        return history

    def _train_epoch(
        self,
        step: Step,
        batches: Iterable[Batch],
        title: str,
        tell: Callable[..., None],
        ranks: Ranks,
    ) -> Figures:
        """Take a step for each batch, unless a callback stops training, and return the figures."""
        figures = Figures(self)
        for number, batch in enumerate(batches):
            tell("on_train_batch_begin", number, {})
            result = step.train(*batch)
            self.step += 1
            figures.add(batch, *result)
            tell("on_train_batch_end", number, figures)
            self.stop_training = ranks.broadcast(self.stop_training)
            if self.stop_training:
                break
            if not math.isfinite(result[0]):
                raise agreed(
                    ValueError(
                        f"loss: expected a finite one, got {result[0]} in {title}, "
                        f"step {number + 1}, whose update has spoilt the weights; "
                        "try a smaller learning rate"
                    )
                )
        return figures

    def evaluate(
        self,
        x: Any,
        y: ArrayLike | None = None,
        batch_size: int | None = INFERENCE_BATCH,
        verbose: str | int = "auto",
        sample_weight: ArrayLike | None = None,
        steps: int | None = None,
        *,
        return_dict: bool = False,
        comm: Any = None,
    ) -> float | list[float] | dict[str, float]:
        """Measure loss and metrics at inference.

        Parameters
        ----------
        x, y, sample_weight
            As for `fit`.
        batch_size : int, optional
            At least 1; changes nothing but time and memory.
        verbose : {"auto", 0, 1, 2}
            0 is silent, anything else prints one line.
        steps : int, optional
            Batches to take of an iterable.
        return_dict : bool
            Whether to return a dict.
        comm : mpi4py.MPI.Intracomm, optional
            Measure with all its processes, as in `fit`.

        Returns
        -------
        float, list of float, or dict of str to float
            The loss; with metrics, [loss, *metrics].

        Raises
        ------
        RuntimeError, TypeError, ValueError
            As for `fit`.
        """
        ranks = Ranks(comm)
        with ranks.together():
            self._compiled()
            batch_size = _batch_size("batch_size", batch_size, INFERENCE_BATCH)
            quiet = not _reports(verbose) or ranks.rank > 0
            names = ("x", "y", "sample_weight", "steps")
            batches = batches_of(x, y, sample_weight, names, batch_size, steps)
            self._prepare(batches)
        if ranks.size > 1:
            ranks.check_same(facts_of(self) | {"data": batches.facts()})
        step = Step(self, None if comm is None else ranks)
        with ranks.ending_together():
            figures = self._evaluate(step, batches, "this call", ranks)
        if not quiet:
            print(format_logs(figures))
        return _returned(figures, return_dict)

    def predict(
        self,
        x: Any,
        batch_size: int | None = INFERENCE_BATCH,
        verbose: str | int = "auto",
        steps: int | None = None,
    ) -> Array:
        """Return the outputs at inference.

        Parameters
        ----------
        x : array_like, (samples, ...), or iterable of batches
            Finite numbers. Of batches that are tuples, the first item counts.
        batch_size : int, optional
            At least 1; changes nothing but time and memory.
        verbose : {"auto", 0, 1, 2}
            0 is silent, anything else shows a progress bar.
        steps : int, optional
            Batches to take of an iterable.

        Returns
        -------
        ndarray of the model's dtype, (samples, *output_shape)

        Raises
        ------
        ValueError
            When `x` does not fit the model.
        """
        batch_size = _batch_size("batch_size", batch_size, INFERENCE_BATCH)
        quiet = not _reports(verbose)
        one = type(x) is np.ndarray and x.ndim > 0 and 0 < len(x) <= batch_size
        if quiet and steps is None and one:
            return self(x)
        names = ("x", "y", "sample_weight", "steps")
        batches = batches_of(x, None, None, names, batch_size, steps)
        self._prepare(batches, y_needed=False)
        step = Step(self)
        bar = tqdm(
            batches.epoch("this call"),
            "predict",
            batches.steps,
            disable=quiet or sys.stderr is None,
        )
        return np.concatenate([step.predict(batch.x).copy() for batch in bar])

    def train_on_batch(
        self,
        x: ArrayLike,
        y: ArrayLike,
        sample_weight: ArrayLike | None = None,
        class_weight: Mapping[int, float] | None = None,
        return_dict: bool = False,
    ) -> float | list[float] | dict[str, float]:
        """Take one optimiser step.

        Parameters
        ----------
        x, y, sample_weight, class_weight
            One batch, as for `fit`.
        return_dict : bool
            Whether to return a dict.

        Returns
        -------
        float, list of float, or dict of str to float
            As for `evaluate`: the figures of this batch alone, before the update.

        Raises
        ------
        RuntimeError, ValueError
            As for `fit`, except that a loss which is not finite is returned.
        """
        batch = self._one_batch(x, y, sample_weight, class_weight)
        figures = Figures(self)
        figures.add(batch, *self._step_for_a_batch().train(*batch))
        self.step += 1
        return _returned(figures, return_dict)

    def test_on_batch(
        self,
        x: ArrayLike,
        y: ArrayLike,
        sample_weight: ArrayLike | None = None,
        return_dict: bool = False,
    ) -> float | list[float] | dict[str, float]:
        """Measure loss and metrics of one batch at inference, see `evaluate`."""
        batch = self._one_batch(x, y, sample_weight)
        figures = Figures(self)
        figures.add(batch, *self._step_for_a_batch().test(*batch))
        return _returned(figures, return_dict)

    def predict_on_batch(self, x: ArrayLike) -> Array:
        """Return the outputs for one batch at inference, see `predict`."""
        return self(x)

    def __call__(self, x: ArrayLike, training: bool = False) -> Array:
        """Return the outputs for one batch.

        Parameters
        ----------
        x : array_like, (samples, ...)
            Finite numbers.
        training : bool
            Whether random layers are active. Every such call draws masks of its own.

        Returns
        -------
        ndarray of the model's dtype, (samples, *output_shape)

        Raises
        ------
        ValueError
            When `x` does not fit the model.
        """
        if not training and self._is_ready_for(x):
            check_finite("x", x, self.dtype)
            return self._step_for_a_batch().predict(x).copy()
        batch = self._one_batch(x, y_needed=False)
        if not training:
            return self._step_for_a_batch().predict(batch.x).copy()
        outputs, key = batch.x.astype(self.dtype), self._calls.next_key()
        for number, layer in enumerate(self.layers):
            layer_key = Key(key.fold_in(number).seed, self.step)
            outputs, _ = layer.forward(outputs, True, key=layer_key)
        return outputs

    def get_weights(self) -> list[Array]:
        """Return copies of all weights, layer by layer.

        Returns
        -------
        list of ndarray
            For every layer its parameters, then what else it keeps, such as moving means. The
            weight matrix of a `Dense` is (units, inputs): the transpose of Keras's.
        """
        return [array.copy() for array in self._weights().values()]

    def set_weights(self, weights: Sequence[ArrayLike]) -> None:
        """Set all weights.

        Parameters
        ----------
        weights : sequence of array_like
            What `get_weights` returned, of this model or one with the same layers.

        Raises
        ------
        TypeError
            When `weights` is no list.
        ValueError
            When number or shapes differ; nothing is changed then.
        """
        assign(self._weights(), weights, "model", "" if self.input_shape else _NOT_BUILT)

    def get_layer(self, name: str | None = None, index: int | None = None) -> Layer:
        """Return the layer of this name, or number in `layers`.

        Raises
        ------
        TypeError
            When not exactly one of `name` and `index` is given.
        ValueError
            When there is no such layer.
        """
        if (name is None) == (index is None):
            raise TypeError("name, index: expected one of them")
        if index is None:
            return lookup("name", name, {layer.name: layer for layer in self.layers})
        if index not in range(-len(self.layers), len(self.layers)):
            raise ValueError(f"index: expected one of {len(self.layers)} layers, got {index!r}")
        return self.layers[index]

    def count_params(self) -> int:
        """Return the number of all weights' elements: parameters, and moving means and the like."""
        return sum(layer.count_params() for layer in self.layers)

    def get_config(self) -> dict[str, Any]:
        """Return seed, dtype, input shape and layers; `from_config` makes an equal new model."""
        return {
            "seed": self.seed,
            "dtype": self.dtype.name,
            "input_shape": self.input_shape,
            "layers": [serialize(layer) for layer in self.layers],
        }

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """Make a model with initial weights from what `get_config` returned."""
        layers = [deserialize("layers", layer, Layer) for layer in config["layers"]]
        shape = config["input_shape"]
        start = [] if shape is None else [Input(shape)]
        return cls([*start, *layers], seed=config["seed"], dtype=config["dtype"])

    def save(self, path: str | PathLike[str]) -> None:
        """Write the model to a file: all that is needed to go on, see `load_model`.

        The file holds layers, weights, what `compile` chose, the optimiser's state, seed, and the
        numbers of epochs and steps trained, in the format safetensors: arrays and JSON, no code.
        It appears under its name only when it is whole.

        Parameters
        ----------
        path : path
            Replaced if it exists.

        Raises
        ------
        ValueError
            When the model holds functions, such as a schedule of p that is not one of
            `fastdrop.layers.schedules`; before the file is touched.
        OSError
            When the file cannot be written.
        """
        files.write(path, "model", *self._state())

    def save_weights(self, path: str | PathLike[str]) -> None:
        """Write the weights alone to a file, see `save`."""
        files.write(path, "weights", {}, self._weights())

    def load_weights(self, path: str | PathLike[str]) -> None:
        """Set all weights from a file of `save_weights` or `save`.

        Parameters
        ----------
        path : path

        Raises
        ------
        ValueError
            When the file is damaged, is no such file, or of a model with other layers; nothing is
            changed then.
        OSError
            When it cannot be read.
        """
        _, arrays = files.read(path, ("weights", "model"))
        self._set_arrays(path, arrays)

    def summary(self) -> None:
        """Print a table of the layers, their output shapes and numbers of parameters."""
        shapes: Sequence[Shape | None] = [None] * len(self.layers)
        if self.input_shape is not None:
            _, *shapes = shapes_between(self.layers, self.input_shape)
        row = "{:<32} {:<24} {:>12}".format
        print(row("Layer (type)", "Output shape", "Params"))
        print("-" * 70)
        total = 0
        for layer, shape in zip(self.layers, shapes, strict=True):
            count = sum(param.size for param in layer.params.values())
            total += count
            described = "unknown yet" if shape is None else batch_shape(shape)
            print(row(f"{layer.name} ({type(layer).__name__})", described, f"{count:,}"))
        print("-" * 70)
        print(f"Total params: {total:,}")
        trainable = sum(p.size for layer in self.layers for p in layer.trainable_params.values())
        if trainable < total:
            print(f"Trainable params: {trainable:,}")

    @property
    def trainable(self) -> bool:
        """Whether any layer is trained; assigned to all layers."""
        return any(layer.trainable for layer in self.layers)

    @trainable.setter
    def trainable(self, trainable: bool) -> None:
        for layer in self.layers:
            layer.trainable = trainable

    @property
    def params(self) -> dict[str, Array]:
        """Every parameter by name: "<number of the layer>.<name in the layer>"."""
        return {
            f"{number}.{name}": array
            for number, layer in enumerate(self.layers)
            for name, array in layer.params.items()
        }

    def _weights(self) -> dict[str, Array]:
        """Return parameters and other state by name, layer by layer."""
        return {
            f"{number}.{name}": array
            for number, layer in enumerate(self.layers)
            for name, array in (layer.params | layer.state).items()
        }

    def _state(self) -> tuple[dict[str, Any], dict[str, Array]]:
        """Return all that is needed to go on, as a configuration and arrays, see `_from_state`."""
        check_can_be_read([self.layers, self.loss, self.metrics, self.weighted_metrics])
        if self.optimizer is not None:
            check_can_be_read(self.optimizer)
        config: dict[str, Any] = {
            "model": self.get_config(),
            "epoch": self.epoch,
            "step": self.step,
            "compiled": None,
        }
        arrays = self._weights()
        if self.optimizer is not None and self.loss is not None:
            config["compiled"] = {
                "optimizer": serialize(self.optimizer),
                "iterations": self.optimizer.iterations,
                "loss": serialize(self.loss),
                "metrics": [serialize(metric) for metric in self.metrics],
                "weighted_metrics": [serialize(metric) for metric in self.weighted_metrics],
            }
            arrays |= {
                f"optimizer/{name}/{part}": array
                for name, state in self.optimizer.state.items()
                for part, array in state.items()
            }
        return config, arrays

    @classmethod
    def _from_state(
        cls, path: str | PathLike[str], config: Mapping[str, Any], arrays: Mapping[str, Array]
    ) -> Self:
        """Make a model of what `_state` returned; `path` names it in messages."""
        try:
            model = cls.from_config(config["model"])
            model.epoch, model.step = config["epoch"], config["step"]
            compiled = config["compiled"]
            if compiled is not None:
                metrics, weighted_metrics = (
                    [deserialize("metrics", metric, Metric) for metric in compiled[name]]
                    for name in ("metrics", "weighted_metrics")
                )
                optimizer = deserialize("optimizer", compiled["optimizer"], Optimizer)
                optimizer.iterations = compiled["iterations"]
                loss = deserialize("loss", compiled["loss"], Loss)
                model.compile(optimizer, loss, metrics, weighted_metrics)
                for name, array in arrays.items():
                    if name.startswith("optimizer/"):
                        _, param, part = name.split("/")
                        optimizer.state.setdefault(param, {})[part] = array
        except (KeyError, TypeError, AttributeError) as error:  # not as `_state` writes it
            raise ValueError(f"{path}: expected a saved model, got {error!r}") from error
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None
        model._set_arrays(path, arrays)
        return model

    def _set_arrays(self, path: str | PathLike[str], arrays: Mapping[str, Array]) -> None:
        """Set the weights from a file's arrays."""
        names = self._weights()
        own = {name: array for name, array in arrays.items() if not name.startswith("optimizer/")}
        if set(own) != set(names):
            name = min(set(own) ^ set(names))
            has = "has" if name in own else "lacks"
            raise ValueError(
                f"{path}: expected the weights of a model with the same layers, got a file that "
                f"{has} {name!r}" + ("" if self.input_shape else _NOT_BUILT)
            )
        try:
            self.set_weights([own[name] for name in names])
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None

    def _prepare(
        self,
        batches: Batches,
        validation: Batches | None = None,
        class_weight: Mapping[int, float] | None = None,
        y_needed: bool = True,
    ) -> None:
        """Check the data against the model, then build the model if it is not."""
        if not self.layers:
            raise ValueError("layers: expected at least one, got none")
        input_shape = batches.sample_shape if self.input_shape is None else self.input_shape
        output_shape = shapes_between(self.layers, input_shape)[-1]
        loss = self.loss if y_needed else None
        expected = Expected(input_shape, output_shape, self.dtype, loss, class_weight)
        batches.check(expected)
        if validation is not None:
            validation.check(replace(expected, class_weight=None))
        if loss is not None and self._kept.fitting is not self.metrics:
            Figures(self).check(batches.first_target(), output_shape, self.dtype)
            self._kept.fitting = self.metrics
        build_all(self.layers, input_shape, self.seed, self.dtype)
        self.input_shape = input_shape

    def _one_batch(
        self,
        x: ArrayLike,
        y: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
        class_weight: Mapping[int, float] | None = None,
        y_needed: bool = True,
    ) -> Batch:
        if y_needed:
            self._compiled()
        batches = ArrayBatches(as_array("x", x), y, sample_weight, ("x", "y", "sample_weight"))
        self._prepare(batches, None, class_weight, y_needed)
        return next(batches.epoch("this call"))

    def _is_ready_for(self, x: ArrayLike) -> TypeGuard[Array]:
        """Tell whether nothing but x's values is to be checked: small nets take a few us."""
        return (
            self._kept.step is not None
            and type(x) is np.ndarray
            and x.dtype == self.dtype
            and x.shape[1:] == self.input_shape
            and len(x) > 0
        )

    def _step_for_a_batch(self) -> Step:
        """Return a step that is kept from call to call, for those that compute on one batch."""
        if self._kept.step is None:
            self._kept.step = Step(self)
        return self._kept.step

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_kept"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _kept=_Kept())  # copies make their own

    def _compiled(self) -> tuple[Loss, Optimizer]:
        if self.loss is None or self.optimizer is None:
            raise RuntimeError(
                "model: expected a compiled one, call compile(optimizer, loss) first"
            )
        return self.loss, self.optimizer

    def _evaluate(self, step: Step, batches: Batches, title: str, ranks: Ranks) -> dict[str, float]:
        figures = Figures(self)
        for batch in batches.epoch(title, share=ranks.share):
            figures.add(batch, *step.test(*batch))
        return figures.over(ranks)


def load_model(path: str | PathLike[str]) -> Sequential:
    """Read a model that `Sequential.save` wrote.

    On the same machine, with as many threads,
    ``load_model(path).fit(..., initial_epoch=model.epoch)`` goes on bit for bit as the saved model
    would have, if it was saved at the end of an epoch. Callbacks start anew.

    Parameters
    ----------
    path : path

    Returns
    -------
    Sequential
        Compiled, if the saved one was.

    Raises
    ------
    ValueError
        When the file is damaged, no such file, of another version of the format, or holds a layer,
        loss or the like that is defined neither in fastdrop nor in the running program.
    OSError
        When it cannot be read.
    """
    return Sequential._from_state(path, *files.read(path, ("model",)))


class _Kept(threading.local):
    """The step for calls on single batches: one a thread, for its buffers are rewritten."""

    step: Step | None = None
    fitting: list[Metric] | None = None  # metrics that have been checked


def _callbacks(callbacks: Any) -> list[Callback]:
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


def _metrics(argument: str, metrics: Sequence[str | Metric] | None) -> list[Metric]:
    if not isinstance(metrics, list | tuple | None):
        raise ValueError(f"{argument}: expected a list of names or metrics, got {metrics!r}")
    chosen = [copy.deepcopy(metrics_module.get(metric)) for metric in metrics or ()]
    names = [metric.name for metric in chosen]
    if len(set(names)) < len(names):
        raise ValueError(f"{argument}: expected each name once, got {names}")
    return chosen


def _validation(data: Any, batch_size: int, steps: int | None) -> Batches:
    names = [f"validation_data[{i}]" for i in range(3)]
    pair = isinstance(data, tuple) or (
        isinstance(data, list) and len(data) in (2, 3) and not isinstance(data[0], tuple)
    )
    if pair and len(data) in (2, 3):
        x, y, weights = (*data, None)[:3]
        return batches_of(x, y, weights, (*names, "validation_steps"), batch_size, steps)
    if pair or hasattr(data, "shape") or not isinstance(data, Iterable):
        raise ValueError(
            "validation_data: expected (x, y), (x, y, sample_weight) or an iterable of batches"
        )
    names = ["validation_data", *names[1:], "validation_steps"]
    return batches_of(data, None, None, names, batch_size, steps)


def _returned(
    figures: Mapping[str, float], return_dict: bool
) -> float | list[float] | dict[str, float]:
    if return_dict:
        return dict(figures)
    values = list(figures.values())
    return values if len(values) > 1 else values[0]


def _reports(verbose: str | int) -> list[Callback]:
    if verbose not in ("auto", 0, 1, 2):
        raise ValueError(f"verbose: expected 'auto', 0, 1 or 2, got {verbose!r}")
    if not verbose:
        return []
    return [EpochLines() if verbose == 2 else ProgressBar()]


def _batch_size(argument: str, batch_size: int | None, default: int) -> int:
    if batch_size is None:
        return default
    check_count(argument, batch_size)
    return batch_size
