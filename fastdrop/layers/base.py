"""What all layers share.

A layer maps a batch `x`, whose first axis counts samples, to `y`. Nothing about one call is kept on
the layer: what the backward pass needs lives in the function that `forward` returns.

    y, backward = layer.forward(x, batch)     # batch: in training or not, with which key, ...
    dx = backward(dy)                         # and the gradients of layer.params are in layer.grads

A layer of one's own derives from `Layer`, and defines `forward`; `build` and `output_shape`, too,
where it has parameters or changes shapes.
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
from fastdrop._checks import as_array, as_numbers, described, is_count, is_series, unsigned
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

# While ranks train on the parts of one batch: what makes of an array, in place, its sum over all of
# them, for layers that have to know the whole batch. Every rank has to call it as often.
sum_over_ranks: ContextVar[Callable[[Array], Array] | None] = ContextVar(
    "sum_over_ranks", default=None
)


class WeightRule(NamedTuple):
    """What an optimiser does to a weight besides following its gradient.

    Attributes
    ----------
    l1, l2 : float
        At least 0: l1 sum(|weight|) + l2 sum(weight^2) is added to the loss.
    max_norm : float or None
        After each update a row, the weights into one unit, of a larger Euclidean norm is scaled
        down to this one.
    """

    l1: float = 0.0
    l2: float = 0.0
    max_norm: float | None = None


class PartialGradient(NamedTuple):
    """The gradient of a matrix most of which had no part in a batch.

    Attributes
    ----------
    shape : tuple of int
        The matrix's.
    parts : list of (rows, columns, values)
        ``rows`` and ``columns`` are ascending intp indices, ``values`` an array of shape
        (len(rows), len(columns)). The gradient is 0 but for the sum of the parts:
        ``gradient[np.ix_(rows, columns)] += values`` for each.
    """

    shape: Shape
    parts: list[tuple[Array, Array, Array]]

    def dense(self) -> Array:
        """Return the gradient as an array."""
        gradient = np.zeros(self.shape, self.parts[0][2].dtype)
        for rows, columns, values in self.parts:
            gradient[np.ix_(rows, columns)] += values
        return gradient


def batch_shape(shape: Shape) -> str:
    """Return the shape of a batch of samples of `shape`, for messages."""
    return f"(samples, {', '.join(map(str, shape))})" if shape else "(samples,)"


def _as_shape(argument: str, shape: Iterable[int]) -> Shape:
    sizes = tuple(shape) if isinstance(shape, Iterable) else ()
    if not 0 < len(sizes) < 32 or not all(map(is_count, sizes)):  # NumPy's limit, with the samples
        raise ValueError(
            f"{argument}: expected a tuple of sizes without the batch axis, such as (28, 28), "
            f"got {shape!r}"
        )
    return tuple(int(size) for size in sizes)


class Input(Declared):
    """The shape of a model's input, as the first item of a `Sequential`; not a layer itself.

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
    """Base of all layers: the identity, without parameters.

    Parameters
    ----------
    input_shape : tuple of int, optional
        Shape of one sample, without the batch axis. Given on the first layer of a model, it builds
        the model at once; otherwise the first data decide.
    name : str, optional
        Defaults to the class's name in lower case; a model appends a number to tell layers apart.

    Attributes
    ----------
    params, grads : dict of str to ndarray
        The parameters, and their gradients after a backward pass. Both are empty in a layer
        without parameters. A layer with parameters computes in their dtype (float32 unless they
        are replaced); one without keeps its input's.
    state : dict of str to ndarray
        Arrays that are not trained but belong to the model as parameters do, and are saved with
        them, such as moving averages; empty in most layers. They are rewritten in place.
    trainable : bool
        Whether a model's training changes the parameters. A layer that is frozen adds no penalty to
        the loss. May be assigned at any time; saved with the model.
    activation : str
        Name of the activation that ends the layer.
    seed : int or None
        Seed of the layer's own generator, made at first use and after each assignment; without it
        one is spawned from the default generator. Inside a model the model's seed decides instead.
    """

    renamed: ClassVar = {
        **{"call": "forward", "compute_output_shape": "output_shape"},
        **dict.fromkeys(("compute_output_spec", "compute_mask", "quantized_call")),
        **dict.fromkeys(("build_from_config", "get_build_config")),
        **dict.fromkeys(("load_own_variables", "save_own_variables", "stateless_call")),
        **dict.fromkeys(("trainable_variables", "trainable_weights")),
        **dict.fromkeys(("non_trainable_variables", "non_trainable_weights")),
    }
    # Whether the layer is of the dropout family: what `predict_mc` of a model leaves on.
    is_random: ClassVar[bool] = False
    # What such a layer takes its decisions on, for messages.
    decides_on: ClassVar[str] = "units"
    own_methods = False  # layers that are computed together do without most of them
    # Arguments that count until the parameters are made.
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
            # Taken for `training`, a batch would be true, at inference, too.
            if method is not None and "training" in inspect.signature(method).parameters:
                raise TypeError(
                    f"{name}: expected {cls.__name__} to take (self, x, batch), got `training`, "
                    "which is batch.training now"
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
                f"{name}: expected it before the layer {self.name!r} has parameters, which it "
                "would not change; make a new layer"
            )
        super().__setattr__(name, value)

    def __call__(self, x: ArrayLike, training: bool = False) -> Array:
        """Return the layer's output for the batch `x`, see `forward`."""
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
        """Return the constructor's arguments, and that the layer is frozen if it is.

        `from_config` makes an equal layer of them.
        """
        config = {name: rate_config(value) for name, value in super().get_config().items()}
        return config if self.trainable else config | {"trainable": False}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """Make a layer from what `get_config` returned."""
        arguments = dict(config)
        trainable = arguments.pop("trainable", True)
        if not isinstance(trainable, bool):
            raise ValueError(f"trainable: expected True or False, got {trainable!r}")
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
            1 - p. `DropBlock2d` keeps a little more, as its squares overlap. None of a layer that
            has no p or is not of the dropout family.
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
        """Return the number of elements of parameters and state."""
        return sum(array.size for array in self._weights().values())

    def get_weights(self) -> list[Array]:
        """Return copies of the parameters, then of the state."""
        return [array.copy() for array in self._weights().values()]

    def set_weights(self, weights: Iterable[ArrayLike]) -> None:
        """Set what `get_weights` returns, see `Sequential.set_weights`."""
        hint = "" if self._weights() else "; the layer has none, or not yet: its input is unknown"
        assign(self._weights(), weights, "layer", hint)

    def _weights(self) -> dict[str, Array]:
        return self.params | self.state

    @property
    def trainable_params(self) -> dict[str, Array]:
        """The parameters that training changes."""
        return self.params if self.trainable else {}

    def flattened(self) -> Iterator[Layer]:
        """Give this layer and the layers inside it."""
        yield self

    def penalty(self) -> float:
        """Return what the layer adds to a model's loss.

        The gradient of what `weight_rules` say is added by the optimiser, of anything else by the
        layer's backward pass: of a part of a batch in proportion to its rows, so that the parts'
        gradients add up.
        """
        return 0.0

    def weight_rules(self) -> dict[str, WeightRule]:
        """Return the rules for the optimiser, by names of parameters; none for most."""
        return {}

    def build(self, input_shape: Shape, key: Key) -> None:
        """Make the parameters for samples of `input_shape`; existing ones are kept.

        Parameter number j is drawn with ``key.fold_in(j)``.
        """

    def _take(self, arrays: Mapping[str, Array]) -> None:
        """Let `build` make the parameters and state of these arrays, a file's, by their names.

        Nothing is drawn or allocated then: what a file says of shapes is compared with the arrays
        that it has.
        """
        if not _serialization.is_ours(type(self)):  # whose `build` may change what it gets
            arrays = {name: array.copy() for name, array in arrays.items()}
        self._given = arrays

    def _first_values(self, name: str, shape: Shape, initializer: Initializer, key: Key) -> Array:
        """Return an array for `build`: float32 initial values, or what `_take` was given.

        Raises
        ------
        ValueError
            When that has no such array.
        """
        if self._given is None:
            return initializer(shape, key).astype(np.float32)
        array = self._given.get(name)
        if array is None or array.shape != shape:
            got = "none" if array is None else f"one of {array.shape}"
            raise ValueError(
                f"layer {self.name!r}: expected an array {name!r} of shape {shape}, got {got}"
            )
        return array

    def output_shape(self, input_shape: Shape) -> Shape:
        """Return the shape of one output sample for input samples of `input_shape`.

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
            What is to be known of the whole batch; by default training, with a key of the layer's
            own generator, and x is all of it.

        Returns
        -------
        y : ndarray
            Never rewritten later. It may be `x` itself, or a view of it.
        backward : callable
            ``backward(dy) -> dx``; it also sets `grads`. In a layer with parameters,
            ``backward(dy, need_dx=False)`` sets `grads` only and returns None: below the first of
            them in a model nobody needs dx.
        """
        return x, lambda dy: dy

    def forward_logits(self, x: Array, batch: Batch = Batch()) -> tuple[Array, Backward]:
        """Do what `forward` does, but stop before the activation that ends the layer."""
        return self.forward(x, batch)

    @property
    def seed(self) -> int | None:
        """The seed of the layer's own generator."""
        return self._seed

    @seed.setter
    def seed(self, seed: int | None) -> None:
        self._seed = None if seed is None else unsigned(seed, "seed")
        self.__dict__.pop("_generator", None)  # the next use makes that of this seed

    def key_of(self, batch: Batch) -> Key:
        """Return the batch's key, or the next one of the layer's own generator."""
        return self._next_key() if batch.key is None else batch.key

    def _next_key(self) -> Key:
        if "_generator" not in self.__dict__:
            made = generator_of(self.seed)
            self.__dict__.setdefault("_generator", made)  # of several threads, the first one's
        return self._generator.next_key()


def shapes_between(layers: Iterable[Layer], input_shape: Shape) -> list[Shape]:
    """Return the shapes of a sample between layers, each fed by the one before, and at both ends.

    Raises
    ------
    ValueError
        When a layer does not fit on the one before.
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
    """Give each layer with its arrays among those of all, "<number of the layer>.<name>"."""
    parts: dict[str, dict[str, Array]] = {str(number): {} for number in range(len(layers))}
    for name, array in arrays.items():
        number, _, inner = name.partition(".")
        if number in parts:
            parts[number][inner] = array
    return zip(layers, parts.values())


def build_all(layers: Sequence[Layer], input_shape: Shape, seed: int, dtype: np.dtype[Any]) -> None:
    """Make the parameters of layers, each fed by the one before, that have none yet.

    Arrays that are there already are kept, or copied where compiled code could not read and write
    them.

    Parameters
    ----------
    layers : sequence of Layer
    input_shape : tuple of int
        Of one sample of the first layer's input.
    seed : int
        Each layer's key is this one's, folded with its number.
    dtype : dtype
        Of all arrays.

    Raises
    ------
    ValueError
        When a layer does not fit on the one before; then nothing is made.
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
    """Refuse layers of which one is there twice, be it inside others: its gradients have one place.

    Raises
    ------
    ValueError
        In that case.
    """
    seen: dict[int, Layer] = {}
    for layer in layers:
        for inner in layer.flattened():
            if id(inner) in seen:
                raise ValueError(f"{argument}: expected each once, got {inner.name!r} twice")
            seen[id(inner)] = inner


@underflowing
def assign(
    own: Mapping[str, Array], weights: Iterable[ArrayLike], owner: str, hint: str = ""
) -> None:
    """Overwrite arrays in place, all or none.

    Parameters
    ----------
    own : mapping of str to ndarray
        The arrays by name.
    weights : iterable of array_like
        Numbers of the same shapes, in the same order.
    owner, hint : str
        Whose they are, and what else is to say when there are not as many.

    Raises
    ------
    TypeError
        When `weights` is no list.
    ValueError
        When number or shapes differ.
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
    for i, new in enumerate(arrays):  # before it is overwritten
        if any(np.may_share_memory(new, array) for array in own.values()):
            arrays[i] = new.copy()
    for array, new in zip(own.values(), arrays):
        array[...] = new


def deserialize(data: object) -> Layer:
    """Make a layer from what `serialize` returned.

    Raises
    ------
    ValueError
        When `data` is something else, or of a class that is not known (any more).
    """
    return _serialization.deserialize("layer", data, Layer)
