"""Blocks that leave out what a mask drops from a group of a batch's rows.

They are for networks in which groups have masks of their own, and for training with several ranks.
Otherwise, if a whole batch shares a mask, `_chain.pyx` does the same with less Python in between.

If a `Dense` reads what such a dropout leaves, only kept units are multiplied::

    mask of layer 1    1 0 0 1 1 0            x of layer 2 holds 3 of 6 columns,
    mask of layer 2    0 1 0 1                so 2 x 3 of its 4 x 6 weights take part

The results are those of the single layers, up to the order of sums.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import DTypeLike

from fastdrop._quiet import bare
from fastdrop.compiled import _core
from fastdrop.compiled._products import matmul
from fastdrop.compiled._train import ProductGradient, submatrix
from fastdrop.functional import inverted_scale
from fastdrop.layers import ACTIVATIONS, Array, Batch, Dense, Dropout, PartialGradient
from fastdrop.layers.dropout import group_spans
from fastdrop.layers.schedules import rate_at
from fastdrop.random import Key
from fastdrop.training.block import Block, Buffers, Gradient, Part, whole

__all__ = ["DenseBlock", "DropoutRule", "ShrinkBlock"]

Span: TypeAlias = tuple[int, int, Array | None]


class DropoutRule:
    """A `Dropout` that a block includes: element-wise, or one mask for each group of rows."""

    def __init__(self, layer: Dropout, seed: int) -> None:
        self.layer, self.seed = layer, seed
        self.shared = layer.shared_axes in (0, (0,))

    def p(self, batch: Batch) -> float:
        """Return the probability of dropping in this batch."""
        return rate_at(self.layer.p, batch.step) if batch.training else 0.0

    def key(self, batch: Batch) -> Key:
        """Return the key of this batch's mask."""
        return Key(self.seed, batch.step)

    def kept(self, n: int, features: int, batch: Batch) -> list[Span]:
        """Return (first row, last row + 1, indices of the kept features) of each group."""
        p, key = self.p(batch), self.key(batch)
        if p == 0:
            return [(0, n, None)]
        spans = group_spans(self.layer.groups, batch.row, batch.row + n, batch.rows or n)
        if not n:
            spans = [(0, batch.row, batch.row)]  # no rows, but the same columns as on other ranks
        return [
            (
                start - batch.row,
                stop - batch.row,
                _core.make_mask(features, p, *key, group * features, False, None).nonzero()[0],
            )
            for group, start, stop in spans
        ]


class ShrinkBlock(Block):
    """A `Dropout` shared by rows, before a `DenseBlock`, which leaves out what is dropped."""

    trains = False

    def __init__(self, rule: DropoutRule, dtype: DTypeLike) -> None:
        self._rule = rule
        self._buffers = Buffers(dtype)
        self._features = 0
        self._scale = 1.0
        self.grads = {}

    def forward(self, parts: list[Part], batch: Batch) -> list[Part]:
        x = whole(parts)
        self._features = x.shape[1]
        self._scale = inverted_scale(self._rule.p(batch))
        shrunk = []
        for start, stop, columns in self._rule.kept(len(x), self._features, batch):
            if columns is None:
                return parts
            y = self._buffers(start, stop - start, len(columns))
            np.take(x[start:stop], columns, axis=1, out=y, mode="clip")
            y *= self._scale
            shrunk.append(Part(start, stop, columns, y))
        return shrunk

    def backward(self, parts: list[Part], need_dx: bool) -> list[Part]:
        if parts[0].columns is None:
            return parts
        dx = self._buffers("dx", parts[-1].stop, self._features)
        dx[...] = 0
        for start, stop, columns, dy in parts:
            dx[start:stop, columns] = dy * self._scale
        return [Part(0, len(dx), None, dx)]


class Product(NamedTuple):
    """A product for rows [start, stop) of the batch: a part of the inputs gives one of outputs."""

    start: int
    stop: int
    input: int
    output: int
    weight: Array  # the part of the layer's weight that takes part


class DenseBlock(Block):
    """A `Dense`, an activation, and the `Dropout` after it.

    Bias, ReLU (or no activation) and dropout are one compiled pass, forward and backward. Other
    activations are passes of their own.

    Parameters
    ----------
    number : int
        The number of the layer in the model.
    dense : Dense
        A layer that is built.
    activation : str
        Name of what follows the bias.
    rule : DropoutRule, optional
        The dropout after it. It may be shared only if another `DenseBlock` follows, and the
        activation takes each element by itself.
    shared : Buffers, optional
        Memory for the weight's gradient if it is left as a product for the update; nothing may
        change the block's inputs until then. Without it the block multiplies at once.
    """

    def __init__(
        self,
        number: int,
        dense: Dense,
        activation: str,
        rule: DropoutRule | None,
        shared: Buffers | None,
    ) -> None:
        self._number, self._rule = number, rule
        self._shared = shared
        self.trains = dense.trainable
        self._compiled, self._relu = activation in ("linear", "relu"), activation == "relu"
        self._activate = bare(ACTIVATIONS[activation])
        self._gradients: list[Callable[[Array], Array]] = []
        self._weight = dense.params["weight"]
        self._every = [np.arange(size) for size in self._weight.shape]
        self._use_bias = dense.use_bias
        self._bias = dense.params.get("bias", np.zeros(dense.units, self._weight.dtype))
        self._buffers = Buffers(self._weight.dtype)
        self._mask: tuple[float, float, int, int, tuple[()], int]
        self._inputs: list[Part] = []
        self._outputs: list[Part] = []
        self._products: list[Product] = []
        self.grads = {}

    def forward(self, parts: list[Part], batch: Batch) -> list[Part]:
        if not batch.training:
            return [self._inferred(whole(parts))]
        units, n = len(self._weight), parts[-1].stop
        self._inputs, self._outputs, self._products, self._gradients = parts, [], [], []
        spans: list[Span] = [(0, n, None)]
        p, scale, seed, call = 0.0, 1.0, 0, 0
        if self._rule is not None:
            p, seed, call = self._rule.p(batch), self._rule.seed, batch.step
            scale = inverted_scale(p)
            if self._rule.shared:
                spans, p = self._rule.kept(n, units, batch), 0.0  # only kept units are multiplied
        self._mask = (p, scale, seed, call, (), batch.row * units)
        for number, (start, stop, columns) in enumerate(spans):
            kept = units if columns is None else len(columns)
            z = self._buffers(("y", number), stop - start, kept)
            for product in self._products_of(start, stop, number, columns):
                part = parts[product.input]
                x = part.values[product.start - part.start : product.stop - part.start]
                matmul(x, product.weight.T, z[product.start - start : product.stop - start])
                self._products.append(product)
            bias = self._bias if columns is None else self._bias[columns]
            if self._compiled:
                y = _core.masked_bias(z, bias, self._relu, *self._mask, z, None)
            else:
                z += bias
                y, gradient = self._activate(z, z)
                self._gradients.append(gradient)
                y = self._masked(y, self._buffers(("masked", number), *y.shape))
            self._outputs.append(Part(start, stop, columns, y))
        return self._outputs

    def backward(self, parts: list[Part], need_dx: bool) -> list[Part]:
        bias: Array | None = None
        if parts[0].columns is not None:
            bias = np.zeros_like(self._bias)
        dz = []
        for number, (part, output) in enumerate(zip(parts, self._outputs, strict=True)):
            dy = part.values
            if self._compiled:
                d, dbias = _core.bias_backward(dy, output.values, self._relu, *self._mask, dy, None)
            else:
                d = self._gradients[number](self._masked(dy, dy))
                dbias = d.sum(axis=0)
            dz.append(d)
            if bias is None:  # this is the only part
                bias = dbias
            else:
                bias[part.columns] += dbias
        dx = [
            Part(start, stop, columns, self._buffers(("dx", number), *x.shape))
            for number, (start, stop, columns, x) in enumerate(self._inputs)
            if need_dx
        ]
        gradient, product = [], None
        for number, (start, stop, i, o, weight) in enumerate(self._products):
            x_start, o_start = self._inputs[i].start, self._outputs[o].start
            x = self._inputs[i].values[start - x_start : stop - x_start]
            d = dz[o][start - o_start : stop - o_start]
            if self._shared is not None and weight is self._weight:
                product = ProductGradient(d.T, x, self._shared("gradient", *weight.shape))
            else:
                values = self._buffers(("gradient", number), *weight.shape)
                gradient.append((self._outputs[o].columns, self._inputs[i].columns, values))
                matmul(d.T, x, values)
            if need_dx:
                matmul(d, weight, dx[i].values[start - x_start : stop - x_start])
        self.grads = {f"{self._number}.weight": product or self._gradient(gradient)}
        if self._use_bias and bias is not None:
            self.grads[f"{self._number}.bias"] = bias
        return dx

    def _inferred(self, x: Array) -> Part:
        """Return the outputs at inference."""
        z = self._buffers(("y", 0), len(x), len(self._weight))
        matmul(x, self._weight.T, z)
        if self._compiled:
            y = _core.masked_bias(z, self._bias, self._relu, 0.0, 1.0, 0, 0, (), 0, z, None)
        else:
            z += self._bias
            y, _ = self._activate(z, z)
        return Part(0, len(x), None, y)

    def _masked(self, a: Array, out: Array) -> Array:
        """Return what dropout leaves of a, in `out` if there is dropout."""
        p, scale = self._mask[:2]
        if p == 0 and scale == 1:
            return a
        masked: Array = _core.masked_scale(a, *self._mask, out, False, None)
        return masked

    def _products_of(self, start: int, stop: int, output: int, rows: Array | None) -> list[Product]:
        """Return the products that compute rows [start, stop) of the outputs."""
        products = []
        for number, part in enumerate(self._inputs):
            first, last = max(start, part.start), min(stop, part.stop)
            if first < last or start == stop:
                weight = self._submatrix(("weight", output, number), rows, part.columns)
                products.append(Product(first, last, number, output, weight))
        return products

    def _submatrix(self, name: Hashable, rows: Array | None, columns: Array | None) -> Array:
        weight = self._weight
        if rows is None and columns is None:
            return weight
        height = len(weight) if rows is None else len(rows)
        width = weight.shape[1] if columns is None else len(columns)
        out = self._buffers(name, height, width)
        submatrix(weight, rows, columns, out)
        return out

    def _gradient(self, parts: list[tuple[Array | None, Array | None, Array]]) -> Gradient:
        rows, columns, values = parts[0]
        if rows is None and columns is None:
            return values
        every_row, every_column = self._every
        return PartialGradient(
            self._weight.shape,
            [
                (
                    every_row if rows is None else rows,
                    every_column if columns is None else columns,
                    values,
                )
                for rows, columns, values in parts
            ],
        )
