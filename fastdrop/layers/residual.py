"""Layers around other layers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from fastdrop._messages import shown
from fastdrop._quiet import bare, underflowing_both_ways
from fastdrop.layers.base import (
    Array,
    Backward,
    Layer,
    Shape,
    WeightRule,
    batch_shape,
    by_layer,
    check_each_once,
    deserialize,
    shapes_between,
)
from fastdrop.layers.batch import Batch
from fastdrop.random import Key

__all__ = ["Residual"]


class Residual(Layer):
    """A residual block: y = x + f(x), where f applies one layer after the other [1]_.

    Parameters
    ----------
    layers : iterable of Layer
        The layers of f, at least one. The output of the last has the shape of x.
    input_shape, name
        As for `Layer`.

    Attributes
    ----------
    params, grads, state : dict of str to ndarray
        The arrays of the layers inside: "0.weight" is the "weight" of the first layer.
    trainable : bool
        Whether any layer inside is trainable. An assignment goes to all of them.

    Raises
    ------
    TypeError
        When `layers` is not a list of layers.
    ValueError
        When `layers` is empty or holds a layer twice, or the shapes do not fit.

    References
    ----------
    .. [1] He et al. 2016, Deep residual learning for image recognition, CVPR.

    Examples
    --------
    >>> from fastdrop.layers import Dense, Dropout, LayerNormalization, Residual
    >>> block = Residual([LayerNormalization(), Dense(64, "gelu"), Dropout(0.1), Dense(16)])
    >>> block.output_shape((16,))
    (16,)
    """

    def __init__(
        self,
        layers: Iterable[Layer | Mapping[str, Any]],
        *,
        input_shape: Iterable[int] | None = None,
        name: str | None = None,
    ) -> None:
        if not isinstance(layers, Iterable):
            raise TypeError(f"layers: expected a list of layers, got {type(layers).__name__}")
        self.layers: list[Layer] = []  # so that the setters below change no layer yet
        super().__init__(input_shape=input_shape, name=name)
        self.layers = [deserialize(x) if isinstance(x, Mapping) else x for x in layers]
        if not self.layers:
            raise ValueError("layers: expected at least one layer, got none")
        for layer in self.layers:
            if not isinstance(layer, Layer):
                raise TypeError(f"layers: expected fastdrop layers, got {shown(layer)}")
        check_each_once("layers", self.layers)

    def flattened(self) -> Iterator[Layer]:
        yield self
        for layer in self.layers:
            yield from layer.flattened()

    def build(self, input_shape: Shape, key: Key) -> None:
        for number, (layer, shape) in enumerate(
            zip(self.layers, shapes_between(self.layers, input_shape))
        ):
            layer.build(shape, key.fold_in(number))

    def output_shape(self, input_shape: Shape) -> Shape:
        branch_shape = shapes_between(self.layers, input_shape)[-1]
        if branch_shape != input_shape:
            raise ValueError(
                f"layer {self.name!r} expects its layers' output to have the shape of x, "
                f"{batch_shape(input_shape)}, got {batch_shape(branch_shape)}"
            )
        return input_shape

    @underflowing_both_ways
    def forward(self, x: Array, batch: Batch = Batch()) -> tuple[Array, Backward]:
        self.output_shape(x.shape[1:])
        branch, backwards = x, []
        for number, layer in enumerate(self.layers):
            branch, backward_nested = bare(layer.forward)(branch, batch.inside(number))
            backwards.append(backward_nested)

        def backward(dy: Array, need_dx: bool = True) -> Array | None:
            dbranch = dy
            for step_back in reversed(backwards):
                dbranch = step_back(dbranch)
            return dy + dbranch if need_dx else None

        return x.astype(branch.dtype, copy=False) + branch, backward

    def penalty(self) -> float:
        return sum(layer.penalty() for layer in self.layers if layer.trainable)

    def weight_rules(self) -> dict[str, WeightRule]:
        return {
            f"{number}.{name}": rule
            for number, layer in enumerate(self.layers)
            for name, rule in layer.weight_rules().items()
        }

    @property
    def params(self) -> dict[str, Array]:
        return self._gather("params")

    @params.setter
    def params(self, arrays: Mapping[str, Array]) -> None:
        self._scatter("params", arrays)

    @property
    def grads(self) -> dict[str, Array]:
        return self._gather("grads")

    @grads.setter
    def grads(self, arrays: Mapping[str, Array]) -> None:
        self._scatter("grads", arrays)

    @property
    def state(self) -> dict[str, Array]:
        return self._gather("state")

    @state.setter
    def state(self, arrays: Mapping[str, Array]) -> None:
        self._scatter("state", arrays)

    def _take(self, arrays: Mapping[str, Array]) -> None:
        super()._take(arrays)
        for layer, inner in by_layer(self.layers, self._given or {}):
            layer._take(inner)

    @property
    def trainable(self) -> bool:
        return any(layer.trainable for layer in self.layers)

    @trainable.setter
    def trainable(self, trainable: bool) -> None:
        for layer in self.layers:
            layer.trainable = trainable

    @property
    def trainable_params(self) -> dict[str, Array]:
        return self._gather("trainable_params")

    def _gather(self, attribute: str) -> dict[str, Array]:
        return {
            f"{number}.{name}": array
            for number, layer in enumerate(self.layers)
            for name, array in getattr(layer, attribute).items()
        }

    def _scatter(self, attribute: str, arrays: Mapping[str, Array]) -> None:
        for layer, inner in by_layer(self.layers, arrays):
            setattr(layer, attribute, inner)
