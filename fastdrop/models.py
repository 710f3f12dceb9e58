"""`Sequential`: a stack of layers with Keras's interface."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import ArrayLike
from tqdm import tqdm

from fastdrop import losses
from fastdrop import metrics as metrics_module
from fastdrop._checks import check_count, check_finite, lookup
from fastdrop.callbacks import Callback, EpochLines, History, ProgressBar, format_logs
from fastdrop.layers import Array, Input, Layer, Shape, batch_shape
from fastdrop.losses import Loss
from fastdrop.metrics import Metric
from fastdrop.optimizers import OPTIMIZERS, Optimizer
from fastdrop.random import Key, default_generator, permutation
from fastdrop.steps import Step

__all__ = ["Sequential"]

# Nothing is kept for a backward pass at inference, so batches may be larger than in training.
INFERENCE_BATCH = 1024


class Sequential:
    """A stack of layers, each fed by the one before.

    Parameters
    ----------
    layers : iterable of Layer, optional
        The first item may be an `Input`.
    seed : int, optional
        Fixes initial weights, the order of samples and every mask; without it the default
        generator gives one.

    Attributes
    ----------
    layers : list of Layer
        The layers; an `Input` is not among them.
    seed, epoch, step : int
        The whole random state: the seed, and how many epochs and batches have been trained.
    input_shape : tuple of int or None
        Shape of one sample; None until it is known.
    optimizer, loss, metrics : Optimizer, Loss, list of str
        What `compile` chose.
    history : History or None
        What the last `fit` returned.

    Raises
    ------
    ValueError
        When layers do not fit on each other.
    """

    def __init__(
        self, layers: Iterable[Layer | Input] | None = None, *, seed: int | None = None
    ) -> None:
        if seed is None:
            seed = default_generator.next_key().fold_in(0).seed
        self.seed: int = Key(seed).seed
        self.epoch = 0
        self.step = 0
        self.layers: list[Layer] = []
        self.input_shape: Shape | None = None
        self.history: History | None = None
        self.loss: Loss | None = None
        self.optimizer: Optimizer | None = None
        self.metrics: list[Metric] = []
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
        if any(layer is other for other in self.layers):
            raise ValueError(
                f"layer: expected a new one, got {layer.name!r}, which is in the model already"
            )
        layers = [*self.layers, layer]
        input_shape = layers[0].input_shape if self.input_shape is None else self.input_shape
        if input_shape is not None:
            self._build(layers, input_shape)
        names = {other.name for other in self.layers}
        plain, number = layer.name, 0
        while layer.name in names:
            number += 1
            layer.name = f"{plain}_{number}"
        self.layers, self.input_shape = layers, input_shape

    def compile(
        self,
        optimizer: str | Optimizer = "sgd",
        loss: str | Loss = "mse",
        metrics: Sequence[str | Metric] | None = None,
    ) -> None:
        """Choose how to train.

        Parameters
        ----------
        optimizer : {"adam", "sgd"} or Optimizer
            A name stands for the optimiser with its defaults.
        loss : {"binary_crossentropy", "categorical_crossentropy", "mse", \
"sparse_categorical_crossentropy"} or Loss
            When it folds the last layer's activation (softmax, sigmoid), training works from
            logits, which is exact for outputs near 0 and 1.
        metrics : list of {"accuracy", "binary_accuracy", "categorical_accuracy", \
"sparse_categorical_accuracy"}, optional
            Figures to report besides the loss.

        Raises
        ------
        ValueError
            When a name is unknown.
        """
        if not isinstance(metrics, list | tuple | None):
            raise ValueError(f"metrics: expected a list of names, got {metrics!r}")
        chosen = [metrics_module.get(metric) for metric in metrics or ()]
        names = [metric.name for metric in chosen]
        if len(set(names)) < len(names):
            raise ValueError(f"metrics: expected each name once, got {names}")
        if not isinstance(optimizer, Optimizer):
            optimizer = lookup("optimizer", optimizer, OPTIMIZERS)()
        loss = losses.get(loss)
        if optimizer.model not in (None, self):
            raise ValueError("optimizer: expected one of this model's own, got another model's")
        optimizer.model = self
        self.optimizer, self.loss, self.metrics = optimizer, loss, chosen

    def fit(
        self,
        x: ArrayLike,
        y: ArrayLike,
        batch_size: int | None = 32,
        epochs: int = 1,
        verbose: str | int = "auto",
        callbacks: Iterable[Callback] | None = None,
        validation_split: float = 0.0,
        validation_data: tuple[ArrayLike, ArrayLike] | None = None,
        shuffle: bool = True,
    ) -> History:
        """Train the model. A second call goes on where the first one ended.

        Parameters
        ----------
        x : array_like, (samples, ...)
            Finite numbers; they are cast to float32 batch by batch.
        y : array_like, (samples, ...)
            Labels, of the shape and values that the loss expects.
        batch_size : int, optional
            At least 1; None means 32. The last batch of an epoch may be smaller.
        epochs : int
            At least 1.
        verbose : {"auto", 0, 1, 2}
            0 is silent, 1 (and "auto") a progress bar, 2 a line per epoch.
        callbacks : iterable of Callback, optional
            Called in order, before the model's own report.
        validation_split : float
            Share of the samples, in [0, 1), taken from the end of `x` and `y` to validate on.
        validation_data : (x, y), optional
            Data to validate on after each epoch; overrides `validation_split`.
        shuffle : bool
            Whether each epoch takes the samples in an order of its own.

        Returns
        -------
        History
            Loss and metrics of each epoch.

        Raises
        ------
        RuntimeError
            When the model has not been compiled.
        ValueError
            When an argument does not fit its description, the model or the loss.
        """
        batch_size = _batch_size(batch_size, 32)
        callbacks = list(callbacks or ())
        if not all(isinstance(callback, Callback) for callback in callbacks):
            raise TypeError(f"callbacks: expected fastdrop callbacks, got {callbacks}")
        check_count("epochs", epochs)
        reports = _reports(verbose)
        x, y = self._check_data(x, y, "x", "y")
        if validation_data is not None:
            if not isinstance(validation_data, tuple | list) or len(validation_data) != 2:
                raise ValueError("validation_data: expected a pair (x, y)")
            validation_data = self._check_data(
                *validation_data, "validation_data[0]", "validation_data[1]"
            )
        elif validation_split:
            kept = _samples_before_split(len(x), validation_split)
            validation_data = x[kept:], y[kept:]
            x, y = x[:kept], y[:kept]

        starts = range(0, len(x), batch_size)
        step = Step(self)
        history = self.history = History()
        chain = [*callbacks, history, *reports]
        for callback in chain:
            callback.model = self
            callback.params = {"epochs": epochs, "steps": len(starts)}
            callback.on_train_begin()
        try:
            for epoch in range(epochs):
                for callback in chain:
                    callback.on_epoch_begin(epoch)
                order = permutation(Key(self.seed, self.epoch), len(x)) if shuffle else None
                mean = _Mean("loss", *(metric.name for metric in self.metrics))
                for batch, start in enumerate(starts):
                    rows = slice(start, start + batch_size)
                    chosen = rows if order is None else order[rows]
                    values = self._run_batch(step, x[chosen], y[chosen], training=True)
                    mean.add(values, len(x[rows]))
                    logs = mean.logs()
                    for callback in chain:
                        callback.on_train_batch_end(batch, logs)
                if validation_data is not None:
                    figures = self._evaluate(*validation_data, INFERENCE_BATCH)
                    logs.update({f"val_{name}": value for name, value in figures.items()})
                self.epoch += 1
                for callback in chain:
                    callback.on_epoch_end(epoch, logs)
        finally:
            for callback in chain:
                callback.on_train_end()
        return history

    def evaluate(
        self,
        x: ArrayLike,
        y: ArrayLike,
        batch_size: int | None = INFERENCE_BATCH,
        verbose: str | int = "auto",
        *,
        return_dict: bool = False,
    ) -> float | list[float] | dict[str, float]:
        """Measure loss and metrics at inference.

        Parameters
        ----------
        x, y : array_like
            As for `fit`.
        batch_size : int, optional
            At least 1; changes nothing but time and memory.
        verbose : {"auto", 0, 1, 2}
            0 is silent, anything else prints one line.
        return_dict : bool
            Whether to return a dict.

        Returns
        -------
        float, list of float, or dict of str to float
            The loss; with metrics, [loss, *metrics].

        Raises
        ------
        RuntimeError, ValueError
            As for `fit`.
        """
        batch_size = _batch_size(batch_size, INFERENCE_BATCH)
        quiet = not _reports(verbose)
        figures = self._evaluate(*self._check_data(x, y, "x", "y"), batch_size)
        if not quiet:
            print(format_logs(figures))
        if return_dict:
            return figures
        values = list(figures.values())
        return values if self.metrics else values[0]

    def predict(
        self, x: ArrayLike, batch_size: int | None = INFERENCE_BATCH, verbose: str | int = "auto"
    ) -> Array:
        """Return the outputs at inference.

        Parameters
        ----------
        x : array_like, (samples, ...)
            Finite numbers.
        batch_size : int, optional
            At least 1; changes nothing but time and memory.
        verbose : {"auto", 0, 1, 2}
            0 is silent, anything else shows a progress bar.

        Returns
        -------
        ndarray, float32, (samples, *output_shape)

        Raises
        ------
        ValueError
            When `x` does not fit the model.
        """
        batch_size = _batch_size(batch_size, INFERENCE_BATCH)
        quiet = not _reports(verbose)
        x, _ = self._check_x(x, "x")
        self._build(self.layers, x.shape[1:])
        self.input_shape = x.shape[1:]
        starts = tqdm(range(0, len(x), batch_size), "predict", disable=quiet)
        step = Step(self)
        # copies, as Step rewrites its outputs
        outputs = [step.predict(x[start : start + batch_size]).copy() for start in starts]
        return np.concatenate(outputs)

    def summary(self) -> None:
        """Print a table of the layers, their output shapes and numbers of parameters."""
        shapes: Sequence[Shape | None] = [None] * len(self.layers)
        if self.input_shape is not None:
            _, *shapes = self._shapes(self.layers, self.input_shape)
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

    @property
    def params(self) -> dict[str, Array]:
        """Every parameter by name: "<number of the layer>.<name in the layer>"."""
        return self._gather("params")

    @property
    def grads(self) -> dict[str, Array]:
        """The parameters' gradients, under the same names, after a step of training."""
        return self._gather("grads")

    @property
    def _key(self) -> Key:
        return Key(self.seed)

    def _gather(self, attribute: str) -> dict[str, Array]:
        return {
            f"{number}.{name}": array
            for number, layer in enumerate(self.layers)
            for name, array in getattr(layer, attribute).items()
        }

    def _build(self, layers: Sequence[Layer], input_shape: Shape) -> None:
        """Make the layers' parameters, if their shapes fit."""
        shapes = self._shapes(layers, input_shape)
        for number, (layer, shape) in enumerate(zip(layers, shapes)):
            layer.build(shape, self._key.fold_in(number))

    def _shapes(self, layers: Sequence[Layer], input_shape: Shape) -> list[Shape]:
        """Return the shapes between layers, input and output too."""
        shapes = [input_shape]
        for layer in layers:
            shape = shapes[-1]
            if layer.input_shape not in (None, shape):
                raise ValueError(
                    f"layer {layer.name!r} expects x of shape {batch_shape(layer.input_shape)}, "
                    f"got {batch_shape(shape)}"
                )
            shapes.append(layer.output_shape(shape))
        return shapes

    def _check_x(self, x: ArrayLike, argument: str) -> tuple[Array, Shape]:
        """Return x as an array and the model's output shape; build the model if it is not."""
        array = np.asarray(x)
        if array.dtype.kind not in "biuf" or array.ndim < 2 or not array.size:
            raise ValueError(
                f"{argument}: expected a non-empty array of numbers of shape (samples, ...), "
                f"got {array.dtype} {array.shape}"
            )
        check_finite(argument, array)
        if not self.layers:
            raise ValueError("layers: expected at least one, got none")
        input_shape = array.shape[1:] if self.input_shape is None else self.input_shape
        if array.shape[1:] != input_shape:
            raise ValueError(
                f"{argument}: expected shape {batch_shape(input_shape)}, got {array.shape}"
            )
        return array, self._shapes(self.layers, input_shape)[-1]

    def _check_data(
        self, x: ArrayLike, y: ArrayLike, x_argument: str, y_argument: str
    ) -> tuple[Array, Array]:
        loss, _ = self._compiled()
        x, y = np.asarray(x), np.asarray(y)
        if x.shape[:1] != y.shape[:1]:
            raise ValueError(
                f"{y_argument}: expected a label for each sample of {x_argument}, "
                f"got {x_argument} {x.shape} and {y_argument} {y.shape}"
            )
        x, output_shape = self._check_x(x, x_argument)
        y = loss.targets(y, output_shape, y_argument)
        self._build(self.layers, x.shape[1:])
        self.input_shape = x.shape[1:]
        return x, y

    def _compiled(self) -> tuple[Loss, Optimizer]:
        if self.loss is None or self.optimizer is None:
            raise RuntimeError(
                "model: expected a compiled one, call compile(optimizer, loss) first"
            )
        return self.loss, self.optimizer

    def _run_batch(self, step: Step, x: Array, y: Array, training: bool = False) -> list[float]:
        """Return loss and metrics of a batch; in training, also take one optimiser step."""
        value, outputs, logits = (step.train if training else step.test)(x, y)
        self.step += training
        return [value, *(self._figure(metric, outputs, y, logits) for metric in self.metrics)]

    def _figure(self, metric: Metric, outputs: Array, y: Array, logits: bool) -> float:
        assert self.loss is not None
        metric.reset()
        metric.update(outputs, y, self.loss.folds if logits else None)
        return metric.result()

    def _evaluate(self, x: Array, y: Array, batch_size: int) -> dict[str, float]:
        step, mean = Step(self), _Mean("loss", *(metric.name for metric in self.metrics))
        for start in range(0, len(x), batch_size):
            rows = slice(start, start + batch_size)
            mean.add(self._run_batch(step, x[rows], y[rows]), len(x[rows]))
        return mean.logs()


class _Mean:
    """Means of named figures over batches, each weighted by its number of samples."""

    def __init__(self, *names: str) -> None:
        self.totals = dict.fromkeys(names, 0.0)
        self.samples = 0

    def add(self, values: Iterable[float], samples: int) -> None:
        for name, value in zip(self.totals, values, strict=True):
            self.totals[name] += value * samples
        self.samples += samples

    def logs(self) -> dict[str, float]:
        return {name: total / self.samples for name, total in self.totals.items()}


def _reports(verbose: str | int) -> list[Callback]:
    if verbose not in ("auto", 0, 1, 2):
        raise ValueError(f"verbose: expected 'auto', 0, 1 or 2, got {verbose!r}")
    if not verbose:
        return []
    return [EpochLines() if verbose == 2 else ProgressBar()]


def _batch_size(batch_size: int | None, default: int) -> int:
    if batch_size is None:
        return default
    check_count("batch_size", batch_size)
    return batch_size


def _samples_before_split(samples: int, validation_split: float) -> int:
    if isinstance(validation_split, str) or not 0 < validation_split < 1:
        raise ValueError(f"validation_split: expected a share in [0, 1), got {validation_split!r}")
    kept = int(samples * (1 - validation_split))
    if kept in (0, samples):
        raise ValueError(
            f"validation_split: expected at least one sample in both parts, "
            f"got {validation_split} of {samples} samples"
        )
    return kept
