"""What training has to know about a model: its layers, what `compile` chose, and its progress.

`Sequential` is the interface of this class to users, and the other files here compute with it.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Self, TypeAlias, TypeVar, cast, overload

import numpy as np
from numpy.typing import ArrayLike

from fastdrop import metrics as metrics_module
from fastdrop._checks import check_keys, checked_count, lookup
from fastdrop._messages import shown
from fastdrop._serialization import deserialize, serialize
from fastdrop.layers import Array, Input, Layer, Residual, Shape
from fastdrop.layers.base import assign, build_all, by_layer, check_each_once, shapes_between
from fastdrop.losses import Loss
from fastdrop.metrics import LossMetric, Metric
from fastdrop.optimizers import Optimizer
from fastdrop.random import Generator

__all__ = ["NOT_BUILT", "Metrics", "Network", "OfNetwork", "metrics_of"]

T = TypeVar("T")
Metrics: TypeAlias = Sequence[str | Metric | Callable[[Array, Array], Any]] | None
DTYPES = {"float32": np.float32, "float64": np.float64}
NOT_BUILT = "; the model's input shape is not known yet"


@dataclass(eq=False)
class Network:
    """A stack of layers, how it is trained, and how far it has been trained.

    Parameters
    ----------
    generator : Generator
        A generator whose seed fixes the initial weights, the order of samples and every mask.
    dtype : {"float32", "float64"}
        The dtype of parameters, batches and outputs.
    name : str
        The model's name.

    Attributes
    ----------
    seed : int
        The generator's seed, which may be assigned.
    layers : list of Layer
        The layers, from the input to the output.
    input_shape : tuple of int or None
        Shape of one sample; None until it is known.
    loss, optimizer : Loss or None, Optimizer or None
        None until `compile`.
    metrics, weighted_metrics : list of Metric
        The metrics without and with sample weights.
    epoch, step : int
        How many whole epochs, and how many batches, have been trained.
    stop_training : bool
        Whether training ends after this batch.
    """

    generator: Generator
    dtype: Any
    name: str = "sequential"
    layers: list[Layer] = field(default_factory=list, init=False)
    input_shape: Shape | None = field(default=None, init=False)
    loss: Loss | None = field(default=None, init=False)
    optimizer: Optimizer | None = field(default=None, init=False)
    metrics: list[Metric] = field(default_factory=list, init=False)
    weighted_metrics: list[Metric] = field(default_factory=list, init=False)
    epoch: int = field(default=0, init=False)
    step: int = field(default=0, init=False)
    stop_training: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        self.dtype = np.dtype(lookup("dtype", self.dtype, DTYPES))
        if not isinstance(self.name, str) or not self.name:
            raise ValueError(f"name: expected text, got {shown(self.name)}")

    @property
    def seed(self) -> int:
        return self.generator.seed

    @seed.setter
    def seed(self, seed: int) -> None:
        self.generator.state = (seed, 0)

    def add(self, layer: Layer | Input) -> None:
        """Add a layer on top, see `Sequential.add`."""
        if isinstance(layer, Input):
            if self.layers or self.input_shape is not None:
                raise ValueError("layer: expected an Input only as the first item of a model")
            self.input_shape = layer.shape
            return
        if not isinstance(layer, Layer):
            raise TypeError(f"layer: expected a fastdrop layer, got {shown(layer)}")
        self._add_all([layer])

    def _add_all(self, new: Sequence[Layer]) -> None:
        """Add layers on top, in their order."""
        layers = [*self.layers, *new]
        check_each_once("layer", layers)
        input_shape = self.input_shape
        if input_shape is None and layers:
            input_shape = layers[0].input_shape
        if input_shape is not None:
            build_all(layers, input_shape, self.seed, self.dtype)
        names = {other.name for other in self.layers}
        numbers: dict[str, int] = {}  # the last number after each name
        for layer in new:
            plain = layer.name
            while layer.name in names:
                numbers[plain] = numbers.get(plain, 0) + 1
                layer.name = f"{plain}_{numbers[plain]}"
            names.add(layer.name)
        self.layers, self.input_shape = layers, input_shape

    def pop(self) -> Layer:
        """Remove the layer on top, see `Sequential.pop`."""
        if not self.layers:
            raise ValueError("layers: expected at least one, got none")
        *self.layers, layer = self.layers
        if not self.layers and layer.input_shape is not None:
            self.input_shape = None  # it was that of the layer
        if self.optimizer is not None:  # a layer that takes its place has the same parameter names
            state, prefix = self.optimizer.state, f"{len(self.layers)}."
            self.optimizer.state = {k: v for k, v in state.items() if not k.startswith(prefix)}
        return layer

    def shape_for(self, given: Sequence[int | None] | None) -> Shape:
        """Return the input shape to build for, see `Sequential.build`."""
        shape = self.input_shape
        if given is not None:
            sizes = list(given)
            if sizes[:1] == [None]:
                del sizes[0]
            shape = Input(cast(Sequence[int], sizes)).shape
        if shape is None or self.input_shape not in (None, shape) or not self.layers:
            raise ValueError(
                f"input_shape: expected that of a model with layers, {self.input_shape or 'any'}, "
                f"got {shown(shape)}"
            )
        return shape

    def build(self, input_shape: Shape) -> None:
        """Make the missing parameters, for samples of this shape."""
        build_all(self.layers, input_shape, self.seed, self.dtype)
        self.input_shape = input_shape

    def built_shape(self) -> Shape:
        """Return the input shape of a network that has its parameters.

        Raises
        ------
        ValueError
            When the network has no parameters yet.
        """
        if self.input_shape is None or not self.layers:
            raise ValueError(
                "model: expected a built one, got one whose input shape is not known yet; "
                "fit it, or call build(input_shape)"
            )
        return self.input_shape

    def compile(
        self,
        optimizer: Optimizer,
        loss: Loss,
        metrics: Metrics,
        weighted_metrics: Metrics,
    ) -> None:
        """Choose how to train, see `Sequential.compile`."""
        plain = metrics_of(metrics)
        weighted = metrics_of(weighted_metrics, "weighted_metrics")
        unweighted = {metric.name for metric in plain}
        for metric in weighted:
            if metric.name in unweighted:
                metric.name = f"weighted_{metric.name}"
        names = [metric.name for metric in (*plain, *weighted)]
        if not all(isinstance(name, str) for name in names) or len(
            {"", "epoch", "loss", *names}
        ) < 3 + len(names):
            raise ValueError(
                f"metrics: expected names of their own, other than epoch and loss, "
                f"got {shown(names)}"
            )
        self.optimizer, self.loss = optimizer, loss
        self.metrics, self.weighted_metrics = plain, weighted

    def compiled(self) -> tuple[Loss, Optimizer]:
        """Return loss and optimiser; raise RuntimeError if there are none."""
        if self.loss is None or self.optimizer is None:
            raise RuntimeError(
                "model: expected a compiled one, call compile(optimizer, loss) first"
            )
        return self.loss, self.optimizer

    def output_shape(self, input_shape: Shape) -> Shape:
        """Return the shape of one output for samples of this shape."""
        return shapes_between(self.layers, input_shape)[-1]

    def check_meaning(self, shapes: Sequence[Shape]) -> None:
        """Refuse outputs for which the loss or a metric has no meaning.

        Parameters
        ----------
        shapes : sequence of tuple of int
            What `shapes_between` returned.

        Raises
        ------
        ValueError
            When there are such outputs. The message tells what to use instead.
        """
        loss, _ = self.compiled()
        _check_softmax(self.layers, shapes)
        loss.check_outputs(shapes[-1])
        activation = self.layers[-1].activation
        for metric in (*self.metrics, *self.weighted_metrics):
            other = metric.loss if isinstance(metric, LossMetric) else loss
            if other.from_logits and activation == other.folds != loss.folds:
                raise ValueError(
                    f"metrics: expected from_logits=False for {metric.name!r} of a model that "
                    f"ends with {activation}, got True"
                )

    def params(self) -> dict[str, Array]:
        """Return the parameters by "<number of the layer>.<name in the layer>"."""
        return {
            f"{number}.{name}": array
            for number, layer in enumerate(self.layers)
            for name, array in layer.params.items()
        }

    def set_weights(self, weights: Iterable[ArrayLike]) -> None:
        """Overwrite `weights`, see `Sequential.set_weights`."""
        assign(self.weights(), weights, "model", "" if self.input_shape else NOT_BUILT)

    def weights(self) -> dict[str, Array]:
        """Return parameters and other state by the same names, layer by layer."""
        return {
            f"{number}.{name}": array
            for number, layer in enumerate(self.layers)
            for name, array in (layer.params | layer.state).items()
        }

    def take_over(self, weights: Mapping[str, Array]) -> None:
        """Overwrite `weights` with those of the same names, in the network's dtype.

        Raises
        ------
        ValueError
            When they belong to another network. Then nothing is changed.
        """
        own = self.weights()
        if own.keys() != weights.keys():
            name = min(own.keys() ^ weights.keys())
            has = "has" if name in weights else "lacks"
            raise ValueError(
                f"expected weights of the same layers, got a file that {has} "
                f"{name!r}" + ("" if self.input_shape else NOT_BUILT)
            )
        for name, array in own.items():
            new = weights[name]
            if new.shape != array.shape or new.dtype != self.dtype:
                raise ValueError(
                    f"expected {self.dtype} of shape {array.shape} as {name!r}, "
                    f"got {new.dtype} {new.shape}"
                )
        for name, array in own.items():
            if array is not weights[name]:
                array[...] = weights[name]

    def get_config(self) -> dict[str, Any]:
        """Return seed, dtype, input shape and layers, for JSON."""
        return {
            "seed": self.seed,
            "dtype": self.dtype.name,
            "name": self.name,
            "input_shape": self.input_shape,
            "layers": [serialize(layer) for layer in self.layers],
        }

    @classmethod
    def from_config(
        cls, config: Mapping[str, Any], weights: Mapping[str, Array] | None = None
    ) -> Network:
        """Make a network from what `get_config` returned.

        Parameters
        ----------
        config : mapping
            What `get_config` returned.
        weights : mapping of str to ndarray, optional
            What `weights` returned. They are taken over, and no initial weights are made. By
            default the network gets initial weights.

        Raises
        ------
        ValueError
            When `config` is something else, or the weights belong to another network.
        """
        named = ["name"] if isinstance(config, Mapping) and "name" in config else []  # or older
        check_keys("config", config, ["seed", "dtype", *named, "input_shape", "layers"])
        if not isinstance(config["layers"], list | tuple):
            raise ValueError(f"layers: expected a list, got {shown(config['layers'])}")
        layers = [deserialize("layers", layer, Layer) for layer in config["layers"]]
        seed = checked_count("seed", config["seed"], least=0)
        network = cls(Generator(seed), config["dtype"], config.get("name", cls.name))
        if config["input_shape"] is not None:
            network.add(Input(config["input_shape"]))
        if weights is None:
            network._add_all(layers)
            return network
        for layer, arrays in by_layer(layers, weights):
            layer._take(arrays)
        network._add_all(layers)
        for layer in layers:
            for inner in layer.flattened():
                inner._given = None
        network.take_over(weights)
        return network


def _check_softmax(layers: Sequence[Layer], shapes: Sequence[Shape]) -> None:
    """Refuse a softmax over one unit."""
    for layer, before, after in zip(layers, shapes, shapes[1:]):
        if isinstance(layer, Residual):
            _check_softmax(layer.layers, shapes_between(layer.layers, before))
        elif layer.activation == "softmax" and after[-1:] == (1,):
            raise ValueError(
                f"layer {layer.name!r}: expected softmax over two units or more, got one, whose "
                "output is always 1; use 'sigmoid' with 'binary_crossentropy', or two units"
            )


class OfNetwork(Generic[T]):
    """An attribute of a model that belongs to its network.

    Parameters
    ----------
    made : callable, optional
        Converts what is assigned, such as a name.
    """

    def __init__(self, made: Callable[[Any], T] | None = None) -> None:
        self.made = made

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    @overload
    def __get__(self, model: None, owner: type) -> Self: ...
    @overload
    def __get__(self, model: Any, owner: type) -> T: ...
    def __get__(self, model: Any, owner: type) -> T | Self:
        return self if model is None else cast(T, getattr(model.network, self.name))

    def __set__(self, model: Any, value: Any) -> None:
        setattr(model.network, self.name, self.made(value) if self.made else value)


def metrics_of(metrics: Metrics, argument: str = "metrics") -> list[Metric]:
    """Return metrics that belong to one network only, because they gather what they are given.

    Raises
    ------
    ValueError
        When `metrics` is not a list of metrics, names and functions, or a name is there twice.
    """
    if not isinstance(metrics, list | tuple | None):
        raise ValueError(
            f"{argument}: expected a list of names, metrics or functions, got {shown(metrics)}"
        )
    chosen = [copy.deepcopy(metrics_module.get(metric)) for metric in metrics or ()]
    names = [metric.name for metric in chosen]
    if len(set(names)) < len(names):
        raise ValueError(f"{argument}: expected each name once, got {shown(names)}")
    return chosen
