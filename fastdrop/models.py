"""`Sequential`: a stack of layers with Keras's interface."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterable, Mapping, Sequence
from os import PathLike
from typing import Any, ClassVar, Self, TypeGuard

import numpy as np
from numpy.typing import ArrayLike
from tqdm import tqdm

from fastdrop import losses, optimizers
from fastdrop._attributes import Declared
from fastdrop._checks import as_array, check_flag, checked_count, lookup
from fastdrop._messages import shown
from fastdrop._quiet import quiet
from fastdrop.callbacks import Callback, History
from fastdrop.callbacks.base import callbacks_of
from fastdrop.callbacks.reports import format_logs, reports_of
from fastdrop.compiled._train import are_batch
from fastdrop.layers import Array, Batch, Input, Layer, Shape
from fastdrop.losses import Loss
from fastdrop.metrics import Metric
from fastdrop.optimizers import Optimizer
from fastdrop.random import Key, generator_of
from fastdrop.training import files, loop, saving, summary
from fastdrop.training.batches import ArrayBatches, Minibatch, batches_of
from fastdrop.training.expected import check_values
from fastdrop.training.figures import Figures, figures_of_one
from fastdrop.training.given import INFERENCE_BATCH, batch_size_for, batches_for_fit
from fastdrop.training.moments import Moments
from fastdrop.training.network import Metrics, Network, OfNetwork, metrics_of
from fastdrop.training.ranks import ALONE, Ranks, facts_of, facts_of_model
from fastdrop.training.sampling import Sampler
from fastdrop.training.step import Step
from fastdrop.uncertainty import Prediction, checked_quantiles

__all__ = ["Sequential", "load_model"]

CALLS = 2**41  # folded into the seed for masks of calls of the model; no layer has this number
BRIEF_LINES = 1 << 16  # samples of rows that take less time than to read a progress bar


class Sequential(Declared):
    """A stack of layers, each of which takes the output of the one before.

    Parameters
    ----------
    layers : iterable of Layer, optional
        The layers. The first item may be an `Input`.
    seed : int, optional
        The seed fixes the initial weights, the order of samples and every mask. Without it the
        default generator gives one. Then a forked child gets another one, unless the default
        generator has been seeded.
    dtype : {"float32", "float64"}
        The dtype of parameters, batches and outputs.
    name : str, optional
        The name of the model, by default "sequential".

    Attributes
    ----------
    layers : list of Layer
        The layers, without the `Input`.
    seed, epoch, step : int
        The whole random state: the seed, the number of whole epochs, and the number of batches that
        have been trained. An epoch that ends in the middle does not count.
    input_shape, output_shape : tuple of int or None
        Shapes of one sample and of one output; None until they are known.
    optimizer, loss, metrics, weighted_metrics : Optimizer, Loss, list of Metric, list of Metric
        What `compile` chose.
    history : History or None
        What the last `fit` returned.
    stop_training : bool
        A callback that sets it ends `fit` after the current batch. `epoch` counts the epoch only if
        this was its last batch.
    network : Network
        All of these except `history`, in the form that `fastdrop.training` computes with.

    Raises
    ------
    TypeError
        When `layers` is not a list of layers.
    ValueError
        When the layers do not fit on each other.
    """

    layers = OfNetwork[list[Layer]]()
    seed = OfNetwork[int]()
    name = OfNetwork[str]()
    epoch = OfNetwork[int]()
    step = OfNetwork[int]()
    input_shape = OfNetwork["Shape | None"]()
    optimizer = OfNetwork["Optimizer | None"](optimizers.get)
    loss = OfNetwork["Loss | None"](losses.get)
    metrics = OfNetwork[list[Metric]](metrics_of)
    weighted_metrics = OfNetwork[list[Metric]](metrics_of)
    stop_training = OfNetwork[bool]()
    renamed: ClassVar = dict.fromkeys(
        (
            *Layer.renamed,
            *("train_step", "test_step", "predict_step", "compute_loss", "compute_metrics"),
            *("make_train_function", "make_test_function", "make_predict_function"),
            *("compute_loss_and_updates", "stateless_compute_loss", "get_metrics_result"),
            *("reset_metrics", "compile_from_config", "get_compile_config"),
        )
    )
    network: Network
    history: History | None

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        for name in vars(cls):
            if name == "get_config" or isinstance(vars(Sequential).get(name), OfNetwork):
                raise TypeError(
                    f"{name}: expected {cls.__name__} to leave it as it is, because only the "
                    "network's is read"
                )

    def __init__(
        self,
        layers: Iterable[Layer | Input] | None = None,
        *,
        seed: int | None = None,
        dtype: str = "float32",
        name: str = "sequential",
    ) -> None:
        if not isinstance(layers, Iterable | None):
            raise TypeError(f"layers: expected a list of layers, got {type(layers).__name__}")
        self.network = Network(generator_of(seed), dtype, name)
        self.history = None
        self._kept = _Kept()
        for layer in () if layers is None else layers:
            self.add(layer)

    def add(self, layer: Layer | Input) -> None:
        """Add a layer on top of the stack.

        Parameters
        ----------
        layer : Layer or Input
            The layer. An `Input` can only be the first item.

        Raises
        ------
        TypeError
            When `layer` is neither a `Layer` nor an `Input`.
        ValueError
            When `layer` does not fit on the layers below, is in the model already, or is an `Input`
            in another place than the first.
        """
        self.network.add(layer)

    def pop(self) -> Layer:
        """Remove the layer on top of the stack, with what the optimiser keeps for it.

        Returns
        -------
        Layer
            The layer that was on top.

        Raises
        ------
        ValueError
            When there is no layer.
        """
        return self.network.pop()

    def build(self, input_shape: Sequence[int | None] | None = None) -> None:
        """Make the parameters now. Otherwise they are made when the first data come.

        Parameters
        ----------
        input_shape : tuple of int, optional
            Shape of one sample, with or without None in front for the batch axis, as in Keras. It
            may be left out if the model knows it.

        Raises
        ------
        ValueError
            When the shape is not known, differs from the model's, or does not fit the layers.
        """
        self.network.build(self.network.shape_for(input_shape))

    def compile(
        self,
        optimizer: str | Optimizer = "rmsprop",
        loss: str | Loss = "mse",
        metrics: Metrics = None,
        weighted_metrics: Metrics = None,
    ) -> None:
        """Choose how to train.

        Parameters
        ----------
        optimizer : str or Optimizer
            One of `fastdrop.optimizers`. A name stands for the optimiser with default arguments.
        loss : str or Loss
            One of `fastdrop.losses`. If the loss folds the last layer's activation (softmax,
            sigmoid), training uses logits, which is exact for outputs near 0 and 1.
        metrics : list of str, Metric or callable, optional
            Figures of `fastdrop.metrics` to report besides the loss, or functions
            ``function(y, outputs)`` of batches, see `fastdrop.metrics.FunctionMetric`.
        weighted_metrics : list of str, Metric or callable, optional
            Figures in which samples count by their weights. If one of them is also among `metrics`,
            its name gets the prefix ``weighted_``.

        Raises
        ------
        ValueError
            When a name is unknown, or is there twice.
        """
        optimizer, loss = optimizers.get(optimizer), losses.get(loss)
        if optimizer.model not in (None, self):
            raise ValueError("optimizer: expected one of this model's own, got another model's")
        self.network.compile(optimizer, loss, metrics, weighted_metrics)
        optimizer.model = self

    def fit(
        self,
        x: Any,
        y: ArrayLike | None = None,
        batch_size: int | None = None,
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
            Finite numbers, which are cast to the model's dtype batch by batch. An array in memory
            is checked before training starts. If it lies by columns, as pandas has it, it is
            copied when its samples are shuffled. An array on disk (`numpy.memmap`, HDF5, Zarr) is
            read and checked batch by batch. An iterable yields (x, y) or (x, y, sample_weight),
            and is iterated once for every epoch. An object with the interface of Keras's
            `Sequence` or `PyDataset`, with or without ``__iter__``, is asked for batches by number.
        y : array_like, (samples, ...)
            Labels, with the shape and values that the loss expects. None with an iterable.
        batch_size : int, optional
            Samples in a batch, at least 1, by default 32. With `steps_per_epoch` the default is the
            size with which so many batches reach all samples of the arrays. The last batch may be
            smaller. Batches of an iterable keep their size.
        epochs : int
            The number of epochs, at least 1, or, with `initial_epoch`, the number of the last one.
        verbose : {"auto", 0, 1, 2}
            0 prints nothing, 1 (and "auto") shows a progress bar, 2 prints a line per epoch.
        callbacks : Callback or iterable of Callback, optional
            Callbacks, which are called in order, before the model's own report.
        validation_split : float
            Share of the samples to validate on, in [0, 1). They come from the end of the arrays.
        validation_data : (x, y), (x, y, sample_weight) or iterable of batches, optional
            Data to validate on after each epoch. They override `validation_split`.
        shuffle : bool
            Whether each epoch takes an array's samples, or a `Sequence`'s batches, in an order of
            its own. The order is a function of the model's seed and the epoch's number.
        class_weight : mapping of int to float, optional
            Factors of the losses of samples with these labels; 1 for the others.
        sample_weight : array_like, (samples,), optional
            Factors of the samples' losses, at least 0.
        initial_epoch : int
            Number of the first epoch, for the callbacks. Nothing is trained if `epochs` is not
            larger. To go on with a model, pass its `epoch`.
        steps_per_epoch, validation_steps : int, optional
            Batches to take for each epoch. Training goes on where the last epoch ended; at the end
            of arrays an epoch is shorter. Validation starts anew, so that every epoch has the same
            batches, unless its data are an iterator, which cannot start anew.
        validation_batch_size : int, optional
            Samples in a batch, at least 1, by default 1024; with `validation_steps` as for
            `batch_size`. Without `validation_steps` it only changes time and memory.
        comm : mpi4py.MPI.Intracomm, optional
            Train with all its processes, its ranks: each calls `fit` with the same model, data and
            arguments, and computes its rows of every batch (docs/how-to/mpi.md). Callbacks are
            called on rank 0 only, and until the end of an epoch get metrics of its rows alone; what
            they do to weights at the end of an epoch or of training, to the learning rate and to
            `stop_training` reaches all ranks.

        Returns
        -------
        History
            Loss and metrics of each epoch.

        Raises
        ------
        RuntimeError
            When the model has not been compiled; a `RankError` when something is wrong on another
            rank. An error that only one rank has ends the processes of all, see docs/how-to/mpi.md.
        TypeError
            When `callbacks` or `comm` are something else.
        ValueError
            When an argument does not fit its description, the model or the loss. This is found
            before anything is trained, except in data that are read batch by batch. When a
            generator ends before the last epoch. When the loss is no longer finite, unless a
            callback then stops training (`TerminateOnNaN`); by then the weights are spoilt. When
            ranks differ in their arguments, or there are more ranks than `batch_size`.
        """
        ranks = Ranks(comm)
        with ranks.ending_together("fit"):
            with ranks.together("the arguments of fit"):
                self.network.compiled()
                given = callbacks_of(callbacks)
                epochs = checked_count("epochs", epochs)
                initial_epoch = checked_count("initial_epoch", initial_epoch, least=0)
                reports = reports_of(verbose)
                training, validation = batches_for_fit(
                    (x, y, sample_weight),
                    batch_size,
                    steps_per_epoch,
                    validation_data,
                    validation_split,
                    validation_batch_size,
                    validation_steps,
                )
                if isinstance(training, ArrayBatches) and training.batch_size < ranks.size:
                    raise ValueError(
                        f"batch_size: expected at least a row for each of the {ranks.size} ranks, "
                        f"got {training.batch_size}"
                    )
                check_flag("shuffle", shuffle)
                loop.prepare(self.network, training, validation, class_weight)
                facts: dict[str, Any] = {}
                if ranks.size > 1:
                    Figures(self.network).check_merging()
                    facts = facts_of(self.network) | {
                        "optimizer": self.optimizer,
                        "training data": training.facts(),
                        "validation data": None if validation is None else validation.facts(),
                        "epochs": epochs,
                        "initial_epoch": initial_epoch,
                        "shuffle": bool(shuffle),
                        "class_weight": class_weight,
                    }
            ranks.check_same("the beginning of fit", facts)
            history = self.history = History()
            params = {"epochs": epochs, "steps": training.steps, "verbose": verbose}
            chain = self._listening([*given, history, *reports], ranks, params)
            numbers = range(initial_epoch, epochs)
            loop.fit(self.network, training, validation, chain, history, ranks, numbers, shuffle)
        return history

    def evaluate(
        self,
        x: Any,
        y: ArrayLike | None = None,
        batch_size: int | None = None,
        verbose: str | int = "auto",
        sample_weight: ArrayLike | None = None,
        steps: int | None = None,
        callbacks: Callback | Iterable[Callback] | None = None,
        return_dict: bool = False,
        *,
        comm: Any = None,
    ) -> float | list[float] | dict[str, float]:
        """Measure loss and metrics at inference.

        Parameters
        ----------
        x, y
            As for `fit`.
        batch_size : int, optional
            Samples in a batch, at least 1, by default 1024. With `steps` the default is the size
            with which so many batches reach all samples of the arrays. Without `steps` it only
            changes time and memory.
        verbose : {"auto", 0, 1, 2}
            0 prints nothing, anything else prints one line.
        sample_weight : array_like, (samples,), optional
            As for `fit`.
        steps : int, optional
            How many batches to take, from the first one on.
        callbacks : Callback or iterable of Callback, optional
            Callbacks, whose hooks with names ``on_test_...`` are called.
        return_dict : bool
            Whether to return a dict.
        comm : mpi4py.MPI.Intracomm, optional
            A communicator, with all of whose processes to measure, as in `fit`.

        Returns
        -------
        float, list of float, or dict of str to float
            The loss, or, with metrics, a list of the loss and the metrics.

        Raises
        ------
        RuntimeError, TypeError, ValueError
            As for `fit`.
        """
        ranks = ALONE if comm is None else Ranks(comm)
        with ranks.ending_together("evaluate"):
            with ranks.together("the arguments of evaluate"):
                self.network.compiled()
                size = batch_size_for("batch_size", batch_size, steps, INFERENCE_BATCH)
                quiet = not reports_of(verbose) or ranks.rank > 0
                given = callbacks_of(callbacks)
                if ranks.alone and not given and steps is None and _is_one_batch(x, size):
                    figures = self._tested(x, y, sample_weight)
                    if not quiet:
                        print(format_logs(figures))
                    return _returned(figures, return_dict)
                names = ("x", "y", "sample_weight", "steps")
                batches = batches_of(x, y, sample_weight, names, size, steps)
                loop.prepare(self.network, batches)
                facts: dict[str, Any] = {}
                if ranks.size > 1:
                    facts = facts_of(self.network) | {"data": batches.facts()}
            ranks.check_same("the beginning of evaluate", facts)
            params = {"epochs": 1, "steps": batches.steps, "verbose": verbose}
            chain = self._listening(given, ranks, params)
            step = Step(self.network, ranks)
            figures = loop.evaluate(step, batches, "this call", chain, ranks)
            if not quiet:
                print(format_logs(figures))
        return _returned(figures, return_dict)

    def predict(
        self,
        x: Any,
        batch_size: int | None = None,
        verbose: str | int = "auto",
        steps: int | None = None,
        callbacks: Callback | Iterable[Callback] | None = None,
    ) -> Array:
        """Return the outputs at inference.

        Parameters
        ----------
        x : array_like, (samples, ...), or iterable of batches
            Finite numbers. If a batch is a tuple, only its first item counts.
        batch_size : int, optional
            Samples in a batch, at least 1, by default 1024. With `steps` the default is the size
            with which so many batches reach all samples of the arrays. Without `steps` it only
            changes time and memory.
        verbose : {"auto", 0, 1, 2}
            0 prints nothing, 1 and 2 show a progress bar. "auto" shows one unless x is an array of
            one batch.
        steps : int, optional
            How many batches to take, from the first one on.
        callbacks : Callback or iterable of Callback, optional
            Callbacks, whose hooks with names ``on_predict_...`` are called.

        Returns
        -------
        ndarray, (samples, ...)
            The outputs for each sample, in the model's dtype.

        Raises
        ------
        ValueError
            When `x` does not fit the model.
        """
        size = batch_size_for("batch_size", batch_size, steps, INFERENCE_BATCH)
        quiet = not reports_of(verbose)
        one = steps is None and _is_one_batch(x, size)
        if one and callbacks is None and (quiet or verbose == "auto"):
            return self(x)
        given = callbacks_of(callbacks)
        names = ("x", "y", "sample_weight", "steps")
        batches = batches_of(x, None, None, names, size, steps)
        loop.prepare(self.network, batches, y_needed=False)
        params = {"epochs": 1, "steps": batches.steps, "verbose": verbose}
        chain = self._listening(given, ALONE, params)
        bar = tqdm(
            batches.epoch("this call"),
            "predict",
            batches.steps,
            disable=quiet or sys.stderr is None,
        )
        return loop.predict(Step(self.network), bar, chain)

    def predict_mc(
        self,
        x: Any,
        samples: int = 100,
        *,
        batch_size: int | None = None,
        seed: int | None = None,
        consistent: bool = False,
        quantiles: ArrayLike | None = None,
        return_samples: bool = False,
        verbose: str | int = "auto",
        comm: Any = None,
    ) -> Prediction:
        """Return what many outputs say, each with other dropout masks (docs/how-to/uncertainty.md).

        Dropout and its family stay active, while BatchNormalization and all other layers infer
        [1]_. A sample of a row is a function of (`seed`, the sample's number, the row's number).

        Parameters
        ----------
        x : array_like, (samples, ...), or iterable of batches
            As for `predict`.
        samples : int
            How many outputs to compute for each row of x, at least 1.
        batch_size : int, optional
            How many rows to compute at once, at least 1, by default 1024. It only changes time and
            memory, which does not grow with `samples`.
        seed : int, optional
            The seed of the masks. Without it every call draws its own masks.
        consistent : bool
            Whether a sample's masks are the same for all rows, as in the outputs of one thinned
            network. Then only kept units are multiplied.
        quantiles : array_like, optional
            Numbers in [0, 1]. Quantiles are exact, and keep the samples of some rows at a time in
            memory.
        return_samples : bool
            Whether to return the samples, too.
        verbose : {"auto", 0, 1, 2}
            0 prints nothing, 1 and 2 show a progress bar. "auto" shows one unless x is an array of
            one batch of which few samples are drawn.
        comm : mpi4py.MPI.Intracomm, optional
            A communicator, with all of whose processes to compute, as in `fit`. All of them return
            the whole prediction.

        Returns
        -------
        Prediction
            The mean, the standard deviation and more of the samples, for each row.

        Raises
        ------
        ValueError
            When the model is not built or has no layer of the dropout family, when an argument does
            not fit its description or the model, or when `consistent` is True and rows cannot share
            a mask of some layer.

        References
        ----------
        .. [1] Gal and Ghahramani 2016, Dropout as a Bayesian approximation: representing model
           uncertainty in deep learning, ICML.
        """
        ranks = ALONE if comm is None else Ranks(comm)
        with ranks.ending_together("predict_mc"):
            with ranks.together("the arguments of predict_mc"):
                samples = checked_count("samples", samples)
                levels = checked_quantiles(quantiles)
                check_flag("consistent", consistent)
                check_flag("return_samples", return_samples)
                size = batch_size_for("batch_size", batch_size, None, INFERENCE_BATCH)
                fits = self._fits(x)
                brief = verbose == "auto" and fits and samples * len(x) <= BRIEF_LINES
                quiet = brief or not reports_of(verbose) or ranks.rank > 0
                sampler = self._sampler(consistent)
                key = self.network.generator.next_key() if seed is None else Key(seed)
                options = (samples, levels, return_samples)
                if ranks.alone and quiet and fits and len(x) <= (size or 0):
                    check_values("x", x, self.dtype)
                    sampler.seed(key)
                    return sampler.predict(x, 0, len(x), *options)
                batches = batches_of(x, None, None, ("x", "y", "sample_weight", "steps"), size)
                loop.prepare(self.network, batches, y_needed=False)
                sampler.check_rows(batches)
                given = {"samples": samples, "seed": seed, "quantiles": str(levels)}
                given |= {"consistent": consistent, "return_samples": return_samples}
                facts = facts_of_model(self.network) | {"data": batches.facts()} | given
            ranks.check_same("the beginning of predict_mc", facts)
            sampler.seed(Key(*ranks.broadcast(tuple(key))))
            return loop.predict_mc(sampler, batches, ranks, quiet, options)

    def predict_moments(self, x: Any) -> Prediction:
        """Return about what `predict_mc` does with many samples, without sampling.

        One pass forward and one backward for each output. docs/explanation/moments.md tells by
        which rules, and where they are wrong [1]_.

        Parameters
        ----------
        x : array_like, (samples, ...), or iterable of batches
            As for `predict`.

        Returns
        -------
        Prediction
            A prediction without `quantiles` and `samples`.

        Raises
        ------
        ValueError
            When the model is not built, has no layer of the dropout family, or has a layer that
            moments cannot pass through; the message names it. When `x` does not fit the model.

        References
        ----------
        .. [1] Wang and Manning 2013, Fast dropout training, ICML.
        """
        moments = Moments(self.network)
        batches = batches_of(x, None, None, ("x", "y", "sample_weight", "steps"), INFERENCE_BATCH)
        loop.prepare(self.network, batches, y_needed=False)
        return Prediction.concatenate(
            [moments.predict(batch.x) for batch in batches.epoch("this call")]
        )

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
            As for `fit`, except that a loss that is not finite is returned.
        """
        step, batch = self._one_batch(x, y, sample_weight, class_weight)
        figures = figures_of_one(self.network, batch, *step.train(*batch))
        return _returned(figures, return_dict)

    def test_on_batch(
        self,
        x: ArrayLike,
        y: ArrayLike,
        sample_weight: ArrayLike | None = None,
        return_dict: bool = False,
    ) -> float | list[float] | dict[str, float]:
        """Measure loss and metrics of one batch at inference, see `evaluate`.

        Parameters
        ----------
        x, y, sample_weight
            One batch, as for `fit`.
        return_dict : bool
            Whether to return a dict.

        Returns
        -------
        float, list of float, or dict of str to float
            As for `evaluate`.

        Raises
        ------
        RuntimeError, ValueError
            As for `evaluate`.
        """
        return _returned(self._tested(x, y, sample_weight), return_dict)

    def predict_on_batch(self, x: ArrayLike) -> Array:
        """Return the outputs for one batch at inference, see `predict`.

        Parameters
        ----------
        x : array_like, (samples, ...)
            Finite numbers.

        Returns
        -------
        ndarray, (samples, ...)
            The outputs for each sample, in the model's dtype.

        Raises
        ------
        ValueError
            When `x` does not fit the model.
        """
        return self(x)

    def __call__(self, x: ArrayLike, training: bool = False) -> Array:
        """Return the outputs for one batch.

        Parameters
        ----------
        x : array_like, (samples, ...)
            Finite numbers.
        training : bool
            Whether random layers are active. Every such call draws its own masks.

        Returns
        -------
        ndarray, (samples, ...)
            The outputs for each sample, in the model's dtype.

        Raises
        ------
        ValueError
            When `x` does not fit the model.
        """
        step = self._kept.step
        if not training and step is not None and self._fits(x):  # in a few us for a small network
            check_values("x", x, self.network.dtype)
            step.follow()
            return step.predict(x).copy()
        batches = ArrayBatches(as_array("x", x), None, None, ("x", "y", "sample_weight"))
        loop.prepare(self.network, batches, y_needed=False)
        checked = next(batches.epoch("this call")).x
        if not training:
            step = self._step_for_a_batch()
            step.follow()
            return step.predict(checked).copy()
        with quiet():
            outputs = checked.astype(self.dtype)
        seed, call = self.network.generator.next_key()
        key = Key(Key(seed).fold_in(CALLS).seed, call)
        for number, layer in enumerate(self.layers):
            layer_key = Key(key.fold_in(number).seed, self.step)
            outputs, _ = layer.forward(outputs, Batch(training=True, key=layer_key))
        return outputs

    def get_weights(self) -> list[Array]:
        """Return copies of all weights, layer by layer.

        Returns
        -------
        list of ndarray
            For every layer its parameters, and then what else it keeps, such as moving means. The
            weight matrix of a `Dense` is (units, inputs), the transpose of Keras's.
        """
        return [array.copy() for array in self.network.weights().values()]

    def set_weights(self, weights: Sequence[ArrayLike]) -> None:
        """Set all weights.

        Parameters
        ----------
        weights : sequence of array_like
            What `get_weights` of this model, or of one with the same layers, returned.

        Raises
        ------
        TypeError
            When `weights` is not a list.
        ValueError
            When the number or the shapes of the arrays differ. Then nothing is changed.
        """
        self.network.set_weights(weights)

    def get_layer(self, name: str | None = None, index: int | None = None) -> Layer:
        """Return the layer with this name, or with this number in `layers`.

        Parameters
        ----------
        name : str, optional
            The name of the layer.
        index : int, optional
            The number of the layer, from 0, or from the end if it is negative.

        Returns
        -------
        Layer
            The layer.

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
            raise ValueError(
                f"index: expected one of {len(self.layers)} layers, got {shown(index)}"
            )
        return self.layers[index]

    def count_params(self) -> int:
        """Return the number of elements of all weights: parameters, moving means and so on.

        Returns
        -------
        int
            The number of elements.
        """
        return sum(layer.count_params() for layer in self.layers)

    def get_config(self) -> dict[str, Any]:
        """Return seed, dtype, input shape and layers, of which `from_config` makes a new model.

        Returns
        -------
        dict
            Objects that JSON can hold.
        """
        return self.network.get_config()

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """Make a model with initial weights from what `get_config` returned.

        Parameters
        ----------
        config : mapping
            What `get_config` of a model returned.

        Returns
        -------
        Sequential
            A new model, not compiled.

        Raises
        ------
        ValueError
            When `config` is something else.
        """
        return cls.from_network(Network.from_config(config))

    @classmethod
    def from_network(cls, network: Network) -> Self:
        """Make a model that keeps and uses a network.

        Parameters
        ----------
        network : Network
            The network.

        Returns
        -------
        Sequential
            A new model.
        """
        model = cls(seed=network.seed, dtype=network.dtype.name)
        model.network = network
        if network.optimizer is not None:
            network.optimizer.model = model
        return model

    def save(self, path: str | PathLike[str]) -> None:
        """Write the model to a file: all that is needed to go on, see `load_model`.

        The file holds layers, weights, what `compile` chose, the optimiser's state, seed, and the
        numbers of epochs and steps trained, in the format safetensors: arrays and JSON, no code.
        It appears under its name only when it is whole.

        Parameters
        ----------
        path : path
            The file, which is replaced if it exists.

        Raises
        ------
        ValueError
            When the model holds something that a file cannot hold, such as a function, or a
            schedule of p that is not one of `fastdrop.layers.schedules`. When weights that are not
            finite would replace finite weights. In both cases the file stays as it is.
        OSError
            When the file cannot be written.
        """
        files.write(path, "model", *saving.pack(self.network))

    def save_weights(self, path: str | PathLike[str]) -> None:
        """Write only the weights to a file, see `save`.

        Parameters
        ----------
        path : path
            The file, which is replaced if it exists.

        Raises
        ------
        ValueError, OSError
            As for `save`.
        """
        files.write(path, "weights", {}, saving.pack_weights(self.network))

    def load_weights(self, path: str | PathLike[str]) -> None:
        """Set all weights from a file that `save_weights` or `save` wrote.

        Parameters
        ----------
        path : path
            The file.

        Raises
        ------
        ValueError
            When the file is damaged, is not such a file, or belongs to a model with other layers or
            another dtype. Then nothing is changed. The message is one line that names the file.
        OSError
            When the file cannot be read.
        """
        _, arrays = files.read(path, ("weights", "model"))
        saving.load_weights(path, self.network, arrays)

    def summary(self, show_dropout: bool = False) -> None:
        """Print a table of the layers, their output shapes and numbers of parameters.

        Parameters
        ----------
        show_dropout : bool
            Whether to tell of each layer of the dropout family which share of the units it is
            expected to keep in the next training step, also of layers inside others.

        Raises
        ------
        ValueError
            When `show_dropout` is neither True nor False.
        """
        check_flag("show_dropout", show_dropout)
        print(summary.as_text(self.network, bool(show_dropout)))

    def __repr__(self) -> str:
        """Return the call that makes a model of the same layers and seed, not trained."""
        return summary.as_call(type(self).__name__, self.network)

    def _repr_html_(self) -> str:
        """Return the table of `summary` for notebooks."""
        return summary.as_html(self.network)

    @property
    def dtype(self) -> np.dtype:
        """The dtype of parameters, batches and outputs."""
        return self.network.dtype

    @property
    def output_shape(self) -> Shape | None:
        """The shape of one output, without the batch axis; None until it is known."""
        shape = self.input_shape
        return None if shape is None or not self.layers else self.network.output_shape(shape)

    @property
    def trainable(self) -> bool:
        """Whether any layer is trained. An assignment goes to all layers."""
        return any(layer.trainable for layer in self.layers)

    @trainable.setter
    def trainable(self, trainable: bool) -> None:
        for layer in self.layers:
            layer.trainable = trainable

    @property
    def params(self) -> dict[str, Array]:
        """Every parameter by name: "<number of the layer>.<name in the layer>"."""
        return self.network.params()

    def _listening(
        self, callbacks: Iterable[Callback], ranks: Ranks, params: Mapping[str, Any]
    ) -> list[Callback]:
        """Return the callbacks that this rank calls, after giving them the model."""
        chain = [callback for callback in callbacks if ranks.rank == 0 or callback.every_rank]
        for callback in chain:
            callback.set_model(self)
            callback.set_params(params)
        return chain

    def _tested(
        self, x: ArrayLike, y: ArrayLike | None, sample_weight: ArrayLike | None
    ) -> dict[str, float]:
        """Return loss and metrics of one batch at inference."""
        step, batch = self._one_batch(x, y, sample_weight)
        return figures_of_one(self.network, batch, *step.test(*batch))

    def _one_batch(
        self,
        x: ArrayLike,
        y: ArrayLike | None,
        sample_weight: ArrayLike | None,
        class_weight: Mapping[int, float] | None = None,
    ) -> tuple[Step, Minibatch]:
        """Return a step that has followed the network, and the arguments as a batch for it."""
        step = self._kept.step
        if step is not None and sample_weight is None and class_weight is None:
            batch = self._batch_like_the_last(step, x, y)
            if batch is not None:
                return step, batch
        self.network.compiled()
        batches = ArrayBatches(as_array("x", x), y, sample_weight, ("x", "y", "sample_weight"))
        loop.prepare(self.network, batches, None, class_weight)
        batch = next(batches.epoch("this call"))
        step = self._step_for_a_batch()
        step.follow()
        if class_weight is None:
            step.expected = batches.expected
        return step, batch

    def _batch_like_the_last(self, step: Step, x: Any, y: Any) -> Minibatch | None:
        """Return arrays as a batch if all that is still to check are their values.

        A small network takes a few us for a sample, so there is little to it.
        """
        network, expected = self.network, step.expected
        if expected is None or y is None or not step.is_current():
            return None
        if not are_batch(x, y, network.dtype, network.input_shape):
            return None
        metrics = [*network.metrics, *network.weighted_metrics]
        if metrics != expected.metrics:
            return None
        check_values("x", x, network.dtype)
        targets = expected.targets("y", y)
        if metrics:
            expected.check_labels("y", targets)
        return Minibatch(x, targets, None, 0, len(x))

    def _fits(self, x: ArrayLike) -> TypeGuard[Array]:
        """Tell whether x is an array that the model takes, apart from its values."""
        return are_batch(x, None, self.network.dtype, self.network.input_shape)

    def _step_for_a_batch(self) -> Step:
        """Return a step that is kept from call to call, for methods that compute one batch."""
        if self._kept.step is None:
            self._kept.step = Step(self.network)
        return self._kept.step

    def _sampler(self, consistent: bool) -> Sampler:
        """Return a sampler, which is kept from call to call."""
        sampler = self._kept.sampler
        if sampler is None or sampler.consistent != consistent or not sampler.is_current():
            sampler = self._kept.sampler = Sampler(self.network, consistent)
        return sampler

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_kept"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _kept=_Kept())  # copies make their own


def load_model(path: str | PathLike[str]) -> Sequential:
    """Read a model that `Sequential.save` wrote.

    On the same machine, with as many threads,
    ``load_model(path).fit(..., initial_epoch=model.epoch)`` goes on bit for bit as the saved model
    would have. If that was saved at the end of a whole epoch, it goes on as a model whose training
    was never interrupted. Callbacks start anew.

    Parameters
    ----------
    path : path
        The file.

    Returns
    -------
    Sequential
        A new model, compiled if the saved model was.

    Raises
    ------
    ValueError
        When the file is damaged, is not such a file, or has a later version of the format. When a
        layer, loss or other object in it has a class that neither fastdrop nor the running program
        defines, or whose class raises an error. The message is one line that names the file.
    OSError
        When the file cannot be read.
    """
    return Sequential.from_network(saving.unpack(path, *files.read(path, ("model",))))


class _Kept(threading.local):
    """What calls on single batches keep, for each thread, because they overwrite buffers."""

    step: Step | None = None
    sampler: Sampler | None = None


def _is_one_batch(x: Any, size: int | None) -> bool:
    """Tell whether it is an array in memory with samples for no more than one batch."""
    return type(x) is np.ndarray and x.ndim > 0 and size is not None and 0 < len(x) <= size


def _returned(
    figures: dict[str, float], return_dict: bool
) -> float | list[float] | dict[str, float]:
    if return_dict:
        return figures
    return [*figures.values()] if len(figures) > 1 else figures["loss"]
