"""What all layers share.

A layer maps a batch `x`, whose first axis counts samples, to `y`. A layer keeps nothing about a
single call: the function that `forward` returns holds what the backward pass needs::

    y, backward = layer.forward(x, batch)     # batch: in training or not, with which key, ...
    dx = backward(dy)                         # layer.grads now has the gradients of layer.params

To write a layer, derive from `Layer` and define `forward`. A layer that has parameters also defines
`build`, and one that changes shapes also defines `output_shape`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from typing import Any, ClassVar, NamedTuple, Self, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastdrop import _serialization
from fastdrop._attributes import Declared
from fastdrop._checks import (
    as_array,
    as_numbers,
    check_mapping,
    described,
    is_count,
    is_series,
    unsigned,
)
from fastdrop._messages import shown
from fastdrop._quiet import quiet, underflowing
from fastdrop._serialization import Configurable, serialize
from fastdrop._typed import not_default, typed
from fastdrop.initializers import Initializer
from fastdrop.layers.batch import Batch
from fastdrop.layers.schedules import rate_at, rate_config
from fastdrop.random import Generator, Key, generator_of

__all__ = [
    "Array",
    "Backward",
    "Input",
    "Layer",
    "PartialGradient",
    "Shape",
    "WeightRule",
    "assign",
    "batch_shape",
    "build_all",
    "by_layer",
    "check_each_once",
    "deserialize",
    "serialize",
    "shapes_between",
    "sum_over_ranks",
]

Array: TypeAlias = NDArray[Any]
Shape: TypeAlias = tuple[int, ...]
Backward: TypeAlias = Callable[..., Any]

# While ranks train on the parts of one batch, this function replaces an array, in place, by its sum
# over all ranks. It is for layers that have to know the whole batch. All ranks must call it equally
# often.
sum_over_ranks: ContextVar[Callable[[Array], Array] | None] = ContextVar(
    "sum_over_ranks", default=None
)


class WeightRule(NamedTuple):
    """What an optimiser does to a weight besides following its gradient.

    Attributes
    ----------
    l1, l2 : float
        At least 0: l1 sum(abs(weight)) + l2 sum(weight^2) is added to the loss.
    max_norm : float or None
        After each update, a row (the weights into one unit) whose Euclidean norm is larger than
        this is scaled down to it.
    """

    l1: float = 0.0
    l2: float = 0.0
    max_norm: float | None = None


class PartialGradient(NamedTuple):
    """The gradient of a matrix of which most elements took no part in a batch.

    Attributes
    ----------
    shape : tuple of int
        The shape of the matrix.
    parts : list of (rows, columns, values)
        ``rows`` and ``columns`` are ascending intp indices, and ``values`` is an array of shape
        (len(rows), len(columns)). The gradient is the sum of the parts,
        ``gradient[np.ix_(rows, columns)] += values`` for each, and 0 elsewhere.
    """

    shape: Shape
    parts: list[tuple[Array, Array, Array]]

    def dense(self) -> Array:
        """Return the gradient as an array.

        Returns
        -------
        ndarray
            The gradient, with the shape of the matrix and the dtype of the parts.
        """
        gradient = np.zeros(self.shape, self.parts[0][2].dtype)
        for rows, columns, values in self.parts:
            gradient[np.ix_(rows, columns)] += values
        return gradient


def batch_shape(shape: Shape) -> str:
    """Return the shape of a batch of samples of `shape`, for messages.

    Parameters
    ----------
    shape : tuple of int
        Shape of one sample, without the batch axis.

    Returns
    -------
    str
        A text such as "(samples, 28, 28)".
    """
    return f"(samples, {', '.join(map(str, shape))})" if shape else "(samples,)"


def _as_shape(argument: str, shape: Iterable[int]) -> Shape:
    sizes = tuple(shape) if isinstance(shape, Iterable) else ()
    if not 0 < len(sizes) < 32 or not all(map(is_count, sizes)):  # NumPy's limit, with the samples
        raise ValueError(
            f"{argument}: expected a tuple of sizes without the batch axis, such as (28, 28), "
            f"got {shown(shape)}"
        )
    return tuple(int(size) for size in sizes)


class Input(Declared):
    """The shape of a model's input. It is the first item of a `Sequential`, but not a layer.

    Parameters
    ----------
    shape : tuple of int
        Shape of one sample, without the batch axis.

    Raises
    ------
    ValueError
        When `shape` is not a tuple of positive whole numbers.
    """

    def __init__(self, shape: Iterable[int]) -> None:
        self.shape = _as_shape("shape", shape)


class Layer(Configurable):
    """Base class of all layers. On its own it is the identity, without parameters.

    Parameters
    ----------
    input_shape : tuple of int, optional
        Shape of one sample, without the batch axis. If the first layer of a model has it, the model
        is built at once. Otherwise the first data decide.
    name : str, optional
        By default the name of the class in lower case. A model appends numbers where layers would
        have the same name.

    Attributes
    ----------
    params, grads : dict of str to ndarray
        The parameters, and their gradients after a backward pass. Both are empty in a layer
        without parameters. A layer with parameters computes in their dtype, which is float32 unless
        they are replaced. A layer without parameters computes in the dtype of its input.
    state : dict of str to ndarray
        Arrays that are not trained, but belong to the model as parameters do and are saved with
        them, such as moving averages. Most layers have none. These arrays are rewritten in place.
    trainable : bool
        Whether training a model changes the parameters. A frozen layer adds no penalty to the loss.
        This attribute may be assigned at any time, and is saved with the model.
    activation : str
        Name of the activation that ends the layer.
    seed : int or None
        Seed of the layer's own generator, which is made at its first use and again after each
        assignment. Without a seed, the generator is spawned from the default generator. Inside a
        model, the model's seed decides instead.
    """

    renamed: ClassVar = {
        **{"call": "forward", "compute_output_shape": "output_shape"},
        **dict.fromkeys(("compute_output_spec", "compute_mask", "quantized_call")),
        **dict.fromkeys(("build_from_config", "get_build_config")),
        **dict.fromkeys(("load_own_variables", "save_own_variables", "stateless_call")),
        **dict.fromkeys(("trainable_variables", "trainable_weights")),
        **dict.fromkeys(("non_trainable_variables", "non_trainable_weights")),
    }
    # Whether the layer is of the dropout family, which a model's `predict_mc` leaves active.
    is_random: ClassVar[bool] = False
    # What such a layer decides on, for messages.
    decides_on: ClassVar[str] = "units"
    own_methods = False  # layers that are computed together bypass most of their methods
    # Arguments that have no effect any more once the parameters are made.
    _until_built: ClassVar[frozenset[str]] = frozenset()

    params: dict[str, Array]
    grads: dict[str, Array]
    state: dict[str, Array]
    trainable: bool
    activation = "linear"
    _seed: int | None = None
    _given: Mapping[str, Array] | None = None  # see `_take`
    _generator: Generator

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        for name in ("forward", "forward_logits"):
            method = vars(cls).get(name)
            # A batch passed for `training` would be true, even at inference.
            if method is not None and "training" in inspect.signature(method).parameters:
                raise TypeError(
                    f"{name}: expected {cls.__name__} to take (self, x, batch), got `training`, "
                    "which is now batch.training"
                )

    def __init__(
        self, *, input_shape: Iterable[int] | None = None, name: str | None = None
    ) -> None:
        self.input_shape = None if input_shape is None else _as_shape("input_shape", input_shape)
        self.name = type(self).__name__.lower() if name is None else name
        self.params, self.grads, self.state = {}, {}, {}
        self.trainable = True

    def __setattr__(self, name: str, value: Any) -> None:
        if name in self._until_built and self.__dict__.get("params"):
            raise AttributeError(
                f"{name}: expected an assignment before the layer {self.name!r} has parameters, "
                "which it would not change; make a new layer"
            )
        super().__setattr__(name, value)

    def __call__(self, x: ArrayLike, training: bool = False) -> Array:
        """Return the layer's output for the batch `x`, see `forward`.

        Parameters
        ----------
        x : array_like, (samples, ...)
            One batch.
        training : bool
            Whether random layers are active.

        Returns
        -------
        ndarray
            The layer's output for each sample.
        """
        y, _ = self.forward(as_numbers("x", x), Batch(training))
        return y

    def __repr__(self) -> str:
        if getattr(self, "trainable", True):
            return super().__repr__()
        config = not_default(type(self), self._arguments()) | {"trainable": False}
        return f"{type(self).__name__}.from_config({typed(config)})"

    def _arguments(self) -> dict[str, Any]:
        arguments = super()._arguments()
        parameters = inspect.signature(type(self)).parameters
        for name, unsaid in {"name": type(self).__name__.lower(), "activation": "linear"}.items():
            none = name not in parameters or parameters[name].default is None
            if none and arguments.get(name) == unsaid:
                del arguments[name]  # None stands for it
        return arguments

    def get_config(self) -> dict[str, Any]:
        """Return the arguments that make an equal layer, for `from_config`.

        Returns
        -------
        dict
            The constructor's arguments, and ``"trainable": False`` if the layer is frozen.
        """
        config = {name: rate_config(value) for name, value in super().get_config().items()}
        return config if self.trainable else config | {"trainable": False}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """Make a layer from what `get_config` returned.

        Parameters
        ----------
        config : dict
            What `get_config` of a layer of this class returned.

        Returns
        -------
        Layer
            A new layer, without parameters so far.

        Raises
        ------
        TypeError, ValueError
            When an argument is unknown, or does not fit its description.
        """
        check_mapping("config", config)
        arguments = dict(config)
        trainable = arguments.pop("trainable", True)
        if not isinstance(trainable, bool):
            raise ValueError(f"trainable: expected True or False, got {shown(trainable)}")
        layer = super().from_config(arguments)
        if not trainable:
            layer.trainable = False
        return layer

    def share_kept(self, step: int = 0) -> float | None:
        """Return the share of what the layer decides on that it is expected to keep in training.

        Parameters
        ----------
        step : int
            Number of the training step, for a schedule of p.

        Returns
        -------
        float or None
            1 - p; `DropBlock2d`, whose squares overlap, keeps a little more. None where a layer has
            no p or is not of the dropout family.
        """
        p = getattr(self, "p", None)
        known = self.is_random and (callable(p) or isinstance(p, float | int))
        return 1 - rate_at(p, step) if known and p is not None else None

    def kept(self, step: int = 0) -> str:
        """Return what `share_kept` says in words, nothing of layers that are not random."""
        share = self.share_kept(step)
        if share is None:
            return "all, with noise" if self.is_random else ""
        return f"{100 * share:.3g} % of {self.decides_on}"

    def count_params(self) -> int:
        """Return the number of elements of all parameters and of the state.

        Returns
        -------
        int
            The number, 0 before the layer is built.
        """
        return sum(array.size for array in self._weights().values())

    def get_weights(self) -> list[Array]:
        """Return copies of the parameters, followed by copies of the state.

        Returns
        -------
        list of ndarray
            The copies, none before the layer is built.
        """
        return [array.copy() for array in self._weights().values()]

    def set_weights(self, weights: Iterable[ArrayLike]) -> None:
        """Set the parameters and the state to what `get_weights` returned.

        Parameters
        ----------
        weights : iterable of array_like
            Arrays in the order and in the shapes of `get_weights`. See `Sequential.set_weights`.

        Raises
        ------
        TypeError
            When `weights` is not a list.
        ValueError
            When the number or the shapes of the arrays differ.
        """
        hint = "" if self._weights() else "; the layer has none, or not yet: its input is unknown"
        assign(self._weights(), weights, "layer", hint)

    def _weights(self) -> dict[str, Array]:
        return self.params | self.state

    @property
    def trainable_params(self) -> dict[str, Array]:
        """The parameters that training changes: none in a frozen layer."""
        return self.params if self.trainable else {}

    def flattened(self) -> Iterator[Layer]:
        """Iterate over this layer and the layers inside it."""
        yield self

    def penalty(self) -> float:
        """Return what the layer adds to a model's loss.

        The optimiser adds the gradient of what `weight_rules` describes. The layer's backward pass
        adds the gradient of anything else. For a part of a batch it adds it in proportion to the
        part's rows, so that the gradients of the parts add up.

        Returns
        -------
        float
            The penalty, 0 for most layers.
        """
        return 0.0

    def weight_rules(self) -> dict[str, WeightRule]:
        """Return the rules for the optimiser, by parameter name.

        Returns
        -------
        dict of str to WeightRule
            The rules. Most layers have none.
        """
        return {}

    def build(self, input_shape: Shape, key: Key) -> None:
        """Make the parameters for samples of `input_shape`. Parameters that exist are kept.

        Parameters
        ----------
        input_shape : tuple of int
            Shape of one sample, without the batch axis.
        key : Key
            Source of the randomness: parameter number j is drawn with ``key.fold_in(j)``.
        """

    def _take(self, arrays: Mapping[str, Array]) -> None:
        """Let `build` take the parameters and the state, by name, from the arrays of a file.

        Then nothing is drawn or allocated, and the shapes that the file states are compared with
        its arrays.
        """
        if not _serialization.is_ours(type(self)):  # the class's `build` may change its arrays
            arrays = {name: array.copy() for name, array in arrays.items()}
        self._given = arrays

    def _first_values(self, name: str, shape: Shape, initializer: Initializer, key: Key) -> Array:
        """Return an array for `build`: initial values in float32, or an array given to `_take`.

        Raises
        ------
        ValueError
            When `_take` was given no such array.
        """
        if self._given is None:
            return initializer(shape, key).astype(np.float32)
        array = self._given.get(name)
        if array is None or array.shape != shape:
            got = "none" if array is None else f"shape {array.shape}"
            raise ValueError(
                f"layer {self.name!r}: expected an array {name!r} of shape {shape}, got {got}"
            )
        return array

    def output_shape(self, input_shape: Shape) -> Shape:
        """Return the shape of one output sample for input samples of `input_shape`.

        Parameters
        ----------
        input_shape : tuple of int
            Shape of one sample, without the batch axis.

        Returns
        -------
        tuple of int
            Shape of one output sample.

        Raises
        ------
        ValueError
            When the layer cannot take such samples.
        """
        return input_shape

    def forward(self, x: Array, batch: Batch = Batch()) -> tuple[Array, Backward]:
        """Return the output and the function that propagates gradients back.

        Parameters
        ----------
        x : ndarray, (samples, ...)
            One batch, or a part of one.
        batch : Batch
            What the layer needs to know about the whole batch. By default the layer is in training,
            x is the whole batch, and the key comes from the layer's own generator.

        Returns
        -------
        y : ndarray
            The output. It may be `x` itself, or a view of it, and is never rewritten later.
        backward : callable
            ``backward(dy) -> dx``, which also sets `grads`. In a layer with parameters,
            ``backward(dy, need_dx=False)`` only sets `grads` and returns None, because nothing
            needs dx below the first such layer of a model.
        """
        return x, lambda dy: dy

    def forward_logits(self, x: Array, batch: Batch = Batch()) -> tuple[Array, Backward]:
        """Do what `forward` does, but stop before the activation that ends the layer.

        Parameters
        ----------
        x, batch
            As for `forward`.

        Returns
        -------
        y, backward
            As for `forward`.
        """
        return self.forward(x, batch)

    @property
    def seed(self) -> int | None:
        """The seed of the layer's own generator, or None."""
        return self._seed

    @seed.setter
    def seed(self, seed: int | None) -> None:
        self._seed = None if seed is None else unsigned(seed, "seed")
        self.__dict__.pop("_generator", None)  # the next use makes a generator of this seed

    def key_of(self, batch: Batch) -> Key:
        """Return the batch's key, or the next key of the layer's own generator.

        Parameters
        ----------
        batch : Batch
            The batch, with or without a key.

        Returns
        -------
        Key
            The key of this call's randomness.
        """
        return self._next_key() if batch.key is None else batch.key

    def _next_key(self) -> Key:
        if "_generator" not in self.__dict__:
            made = generator_of(self.seed)
            self.__dict__.setdefault("_generator", made)  # the first of competing threads wins
        return self._generator.next_key()


def shapes_between(layers: Iterable[Layer], input_shape: Shape) -> list[Shape]:
    """Return the shapes of a sample before, between and after layers that follow one another.

    Parameters
    ----------
    layers : iterable of Layer
        The layers.
    input_shape : tuple of int
        Shape of one sample of the first layer's input.

    Returns
    -------
    list of tuple of int
        The shapes, one more than there are layers.

    Raises
    ------
    ValueError
        When a layer does not fit on the layer before it.
    """
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


def by_layer(
    layers: Sequence[Layer], arrays: Mapping[str, Array]
) -> Iterator[tuple[Layer, dict[str, Array]]]:
    """Return each layer with its own arrays.

    Parameters
    ----------
    layers : sequence of Layer
        The layers.
    arrays : mapping of str to ndarray
        The arrays of all layers, by "<number of the layer>.<name in the layer>".

    Returns
    -------
    iterator of (Layer, dict of str to ndarray)
        A layer, and its arrays by their names in the layer.
    """
    parts: dict[str, dict[str, Array]] = {str(number): {} for number in range(len(layers))}
    for name, array in arrays.items():
        number, _, inner = name.partition(".")
        if number in parts:
            parts[number][inner] = array
    return zip(layers, parts.values())


def build_all(layers: Sequence[Layer], input_shape: Shape, seed: int, dtype: np.dtype[Any]) -> None:
    """Make the missing parameters of layers that follow one another.

    Arrays that exist are kept. They are copied where compiled code could not read and write them.

    Parameters
    ----------
    layers : sequence of Layer
        The layers, each of which takes the output of the one before.
    input_shape : tuple of int
        Shape of one sample of the first layer's input.
    seed : int
        A layer's key is ``Key(seed).fold_in(number)``.
    dtype : dtype
        The dtype of all arrays.

    Raises
    ------
    ValueError
        When a layer does not fit on the layer before it. Then nothing is made.
    """
    shapes = shapes_between(layers, input_shape)
    for number, (layer, shape) in enumerate(zip(layers, shapes)):
        layer.build(shape, Key(seed).fold_in(number))
        for attribute in ("params", "state"):
            arrays = getattr(layer, attribute)
            if not all(
                type(a) is np.ndarray and a.dtype == dtype and a.flags.carray
                for a in arrays.values()
            ):
                with quiet():
                    usable = {
                        name: np.require(
                            as_numbers(f"{name} of {layer.name!r}", a), dtype, ["C", "A", "W"]
                        )
                        for name, a in arrays.items()
                    }
                setattr(layer, attribute, usable)


def check_each_once(argument: str, layers: Iterable[Layer]) -> None:
    """Refuse a layer that is there twice, even inside others: its gradients have only one place.

    Parameters
    ----------
    argument : str
        The caller's name for the layers, for messages.
    layers : iterable of Layer
        The layers.

    Raises
    ------
    ValueError
        When a layer is there twice.
    """
    seen: dict[int, Layer] = {}
    for layer in layers:
        for inner in layer.flattened():
            if id(inner) in seen:
                raise ValueError(
                    f"{argument}: expected each layer once, got {shown(inner.name)} twice"
                )
            seen[id(inner)] = inner


@underflowing
def assign(
    own: Mapping[str, Array], weights: Iterable[ArrayLike], owner: str, hint: str = ""
) -> None:
    """Overwrite all arrays in place, or none of them.

    Parameters
    ----------
    own : mapping of str to ndarray
        The arrays by name.
    weights : iterable of array_like
        Numbers of the same shapes, in the same order.
    owner, hint : str
        What the arrays belong to, and what to add to the message if their number is wrong.

    Raises
    ------
    TypeError
        When `weights` is not a list.
    ValueError
        When the number or the shapes of the arrays differ.
    """
    if not is_series(weights):
        raise TypeError(f"weights: expected a list of arrays, got {type(weights).__name__}")
    arrays = [as_array("weights", array) for array in weights]
    if len(arrays) != len(own):
        raise ValueError(
            f"weights: expected {len(own)} arrays for this {owner}, got {len(arrays)}{hint}"
        )
    for (name, array), new in zip(own.items(), arrays):
        if new.shape != array.shape or new.dtype.kind not in "biuf":
            raise ValueError(
                f"weights: expected an array of numbers of shape {array.shape} as {name!r}, "
                f"got {described(new)}"
            )
    for i, new in enumerate(arrays):  # copied before an array that it shares is overwritten
        if any(np.may_share_memory(new, array) for array in own.values()):
            arrays[i] = new.copy()
    for array, new in zip(own.values(), arrays):
        array[...] = new


def deserialize(data: object) -> Layer:
    """Make a layer from what `serialize` returned.

    Parameters
    ----------
    data : dict
        What `serialize` returned.

    Returns
    -------
    Layer
        A new layer, without parameters so far.

    Raises
    ------
    ValueError
        When `data` is something else, or its class is not known (any more).
    """
    return _serialization.deserialize("layer", data, Layer)
