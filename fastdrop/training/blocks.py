"""The blocks that a training step is made of, each one or more layers computed at once.

A `Dense` with its bias, ReLU and dropout is one matrix product and one pass over its output, in
place. Where one dropout mask is shared by the whole batch, or by groups of its rows, and a `Dense`
reads what it leaves, only kept units are multiplied:

    mask of layer 1    1 0 0 1 1 0            x of layer 2 holds 3 of 6 columns,
    mask of layer 2    0 1 0 1                so 2 x 3 of its 4 x 6 weights take part

Activations between blocks are lists of parts, rows of the batch with the columns that were kept;
mostly there is one, with all of them. Arrays that blocks return live in buffers of theirs and are
rewritten by the next batch. A block's batch has the model's key, (seed, step), from which each
layer has its own: (seed folded with the layer's number, step). Numbers are those of the layers one
by one: the same bits where all is multiplied, the same but for the order of sums where not.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import DTypeLike

from fastdrop._quiet import bare
from fastdrop.compiled import _core
from fastdrop.compiled._train import submatrix
from fastdrop.functional import dropout, inverted_scale
from fastdrop.layers import (
    ACTIVATIONS,
    Activation,
    Array,
    Backward,
    Batch,
    Dense,
    Dropout,
    Layer,
    PartialGradient,
    ProductGradient,
    ReLU,
    Shape,
    Softmax,
)
from fastdrop.layers.dropout import group_spans
from fastdrop.layers.schedules import rate_at
from fastdrop.random import Key

__all__ = ["Block", "Gradient", "Matmul", "Part", "make_blocks", "whole"]

Gradient: TypeAlias = Array | PartialGradient | ProductGradient
Matmul: TypeAlias = Callable[[Array, Array, Array], Array]
Span: TypeAlias = tuple[int, int, Array | None]


class Part(NamedTuple):
    """Rows [start, stop) of a batch; `columns` are ascending indices, None where all are there."""

    start: int
    stop: int
    columns: Array | None
    values: Array


def whole(parts: Sequence[Part]) -> Array:
    """Return the array that is the only part."""
    (part,) = parts
    return part.values


class Buffers:
    """Arrays that are made once and used again, each as large as it ever had to be."""

    def __init__(self, dtype: DTypeLike) -> None:
        self.dtype = np.dtype(dtype)
        self._memory: dict[Hashable, Array] = {}
        self._latest: dict[Hashable, Array] = {}

    def __call__(self, name: Hashable, *shape: int) -> Array:
        latest = self._latest.get(name)
        if latest is None or latest.shape != shape:  # mostly it is the batch before's
            size = math.prod(shape)
            memory = self._memory.get(name)
            if memory is None or memory.size < size:
                memory = self._memory[name] = aligned(size, self.dtype)
            latest = self._latest[name] = memory[:size].reshape(shape)
        return latest


CACHE_LINE, HUGE_PAGE = 64, 2 << 20  # bytes


def aligned(size: int, dtype: np.dtype) -> Array:
    """Return an array that starts where a cache line does: its rows are faster to walk.

    From 4 MiB on, where NumPy asks for huge pages, it starts where one of them does: faster to
    compute on, and for MPI to copy.
    """
    boundary = HUGE_PAGE if size * dtype.itemsize >= 2 * HUGE_PAGE else CACHE_LINE
    spare = np.empty(size + boundary // dtype.itemsize, dtype)
    start = -spare.ctypes.data % boundary // dtype.itemsize
    return spare[start : start + size]


class Block:
    """One or more layers.

    Attributes
    ----------
    grads : dict of str to array, PartialGradient or ProductGradient
        After a backward pass the gradients by the model's names of parameters. Empty in a block
        without parameters.
    trains : bool
        Whether any of its parameters is trained.
    """

    grads: dict[str, Gradient]
    trains: bool

    def forward(self, parts: list[Part], batch: Batch) -> list[Part]:
        """Return the outputs of a batch."""
        raise NotImplementedError

    def backward(self, parts: list[Part], need_dx: bool) -> list[Part]:
        """Return the inputs' gradients, given the outputs', which may be overwritten.

        Follows a forward pass in training, and sets `grads`. Without `need_dx`, for blocks
        that train only, what is returned means nothing.
        """
        raise NotImplementedError


class LayerBlock(Block):
    """Any layer, by its own forward and backward."""

    def __init__(self, number: int, layer: Layer, seed: int, logits: bool) -> None:
        self._number, self._layer, self._seed = number, layer, seed
        self._forward = bare(layer.forward_logits if logits else layer.forward)
        self._backward: Backward
        self.trains = bool(layer.trainable_params)
        self.grads = {}

    def forward(self, parts: list[Part], batch: Batch) -> list[Part]:
        x = whole(parts)
        key = Key(self._seed, batch.step) if batch.training else None
        y, self._backward = self._forward(x, batch._replace(key=key))
        return [Part(0, len(x), None, y)]

    def backward(self, parts: list[Part], need_dx: bool) -> list[Part]:
        dy = whole(parts)
        dx = self._backward(dy) if need_dx else self._backward(dy, need_dx=False)
        self.grads = {f"{self._number}.{name}": g for name, g in self._layer.grads.items()}
        return [Part(0, len(dy), None, dx)]


class DropoutRule:
    """A `Dropout` that a block takes in: element-wise, or one mask for each group of rows."""

    def __init__(self, layer: Dropout, seed: int) -> None:
        self._layer, self.seed = layer, seed
        self.shared = layer.shared_axes in (0, (0,))

    def p(self, batch: Batch) -> float:
        """Return the probability of dropping in this batch."""
        return rate_at(self._layer.p, batch.step) if batch.training else 0.0

    def key(self, batch: Batch) -> Key:
        """Return the key of this batch's mask."""
        return Key(self.seed, batch.step)

    def kept(self, n: int, features: int, batch: Batch) -> list[Span]:
        """Return (first row, last row + 1, indices of the kept features) of each group."""
        p, key = self.p(batch), self.key(batch)
        if p == 0:
            return [(0, n, None)]
        spans = group_spans(self._layer.groups, batch.row, batch.row + n, batch.rows or n)
        if not n:
            spans = [(0, batch.row, batch.row)]  # no rows, but the columns of those of other ranks
        return [
            (
                start - batch.row,
                stop - batch.row,
                _core.make_mask(features, p, *key, group * features, False, None).nonzero()[0],
            )
            for group, start, stop in spans
        ]


class DropoutBlock(Block):
    """An element-wise `Dropout`, without fresh memory."""

    trains = False

    def __init__(self, rule: DropoutRule, dtype: DTypeLike) -> None:
        self._rule = rule
        self._buffers = Buffers(dtype)
        self._batch: Batch
        self.grads = {}

    def _drop(self, a: Array, out: Array) -> Array:
        offset = self._batch.row * math.prod(a.shape[1:])
        p, key = self._rule.p(self._batch), self._rule.key(self._batch)
        y: Array = dropout(a, p, key=key, offset=offset, out=out)
        return y

    def forward(self, parts: list[Part], batch: Batch) -> list[Part]:
        self._batch = batch
        if not batch.training:
            return parts
        x = whole(parts)
        return [Part(0, len(x), None, self._drop(x, self._buffers("y", *x.shape)))]

    def backward(self, parts: list[Part], need_dx: bool) -> list[Part]:
        dy = whole(parts)
        return [Part(0, len(dy), None, self._drop(dy, dy))]


class ShrinkBlock(Block):
    """A `Dropout` shared by rows, in front of a `DenseBlock`: what is dropped is left out."""

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
    """Rows [start, stop) of the batch, from one part of the inputs to one of the outputs."""

    start: int
    stop: int
    input: int
    output: int
    weight: Array  # what of the layer's has part in it


class DenseBlock(Block):
    """A `Dense`, an activation, and the `Dropout` behind it.

    Bias, ReLU (or nothing) and dropout are one compiled pass, also backward; other activations are
    NumPy's work.

    Parameters
    ----------
    number : int
        The layer's in the model.
    dense : Dense
        Built.
    activation : str
        Name of what follows the bias.
    rule : DropoutRule, optional
        The dropout behind it; a shared one only where another `DenseBlock` follows, and the
        activation takes each element by itself.
    matmul : callable
        `np.matmul`, or what does the same.
    shared : Buffers, optional
        Where the weight's gradient goes if it is left as a product for the update: nothing may
        change the block's inputs until then. Without it the block multiplies at once.
    """

    def __init__(
        self,
        number: int,
        dense: Dense,
        activation: str,
        rule: DropoutRule | None,
        matmul: Matmul,
        shared: Buffers | None,
    ) -> None:
        self._number, self._rule, self._matmul = number, rule, matmul
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
                spans, p = self._rule.kept(n, units, batch), 0.0  # what is multiplied is kept
        self._mask = (p, scale, seed, call, (), batch.row * units)
        for number, (start, stop, columns) in enumerate(spans):
            kept = units if columns is None else len(columns)
            z = self._buffers(("y", number), stop - start, kept)
            for product in self._products_of(start, stop, number, columns):
                part = parts[product.input]
                x = part.values[product.start - part.start : product.stop - part.start]
                self._matmul(x, product.weight.T, z[product.start - start : product.stop - start])
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
            if bias is None:  # the only part
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
                product = ProductGradient(
                    d.T, x, self._shared("gradient", *weight.shape), self._matmul
                )
            else:
                values = self._buffers(("gradient", number), *weight.shape)
                gradient.append((self._outputs[o].columns, self._inputs[i].columns, values))
                self._matmul(d.T, x, values)
            if need_dx:
                self._matmul(d, weight, dx[i].values[start - x_start : stop - x_start])
        self.grads = {f"{self._number}.weight": product or self._gradient(gradient)}
        if self._use_bias and bias is not None:
            self.grads[f"{self._number}.bias"] = bias
        return dx

    def _inferred(self, x: Array) -> Part:
        """Return the outputs at inference."""
        z = self._buffers(("y", 0), len(x), len(self._weight))
        self._matmul(x, self._weight.T, z)
        if self._compiled:
            y = _core.masked_bias(z, self._bias, self._relu, 0.0, 1.0, 0, 0, (), 0, z, None)
        else:
            z += self._bias
            y, _ = self._activate(z, z)
        return Part(0, len(x), None, y)

    def _masked(self, a: Array, out: Array) -> Array:
        """Return what dropout leaves of a, in `out` where there is dropout."""
        p, scale = self._mask[:2]
        if p == 0 and scale == 1:
            return a
        masked: Array = _core.masked_scale(a, *self._mask, out, False, None)
        return masked

    def _products_of(self, start: int, stop: int, output: int, rows: Array | None) -> list[Product]:
        """Return the products that give rows [start, stop) of the outputs."""
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


def make_blocks(
    layers: Sequence[Layer],
    shapes: Sequence[Shape],
    seed: int,
    logits: bool,
    dtype: DTypeLike,
    matmul: Matmul = np.matmul,
    shared: Buffers | None = None,
) -> list[Block]:
    """Return the blocks that compute what a model's layers do.

    Parameters
    ----------
    layers : sequence of Layer
        Built.
    shapes : sequence of tuple of int
        Of the samples between them, input and output too.
    seed : int
        The model's.
    logits : bool
        Whether the last layer stops before its activation.
    dtype : dtype
        The model's.
    matmul : callable
        `np.matmul`, or what does the same.
    shared : Buffers, optional
        For gradients that are left as products for the update; without it none are.
    """
    seeds = [Key(seed).fold_in(number).seed for number in range(len(layers))]

    def takes_dense(number: int) -> bool:
        """Can a DenseBlock start here?"""
        if number >= len(layers) or len(shapes[number]) != 1:
            return False
        return type(layers[number]) is Dense

    def rule_of(number: int) -> DropoutRule | None:
        """Return the rule of a dropout that a block can take in."""
        layer = layers[number] if number < len(layers) else None
        if type(layer) is not Dropout or layer.mode != "inverted":
            return None
        rule = DropoutRule(layer, seeds[number])
        fits = takes_dense(number + 1) if rule.shared else layer.shared_axes == ()
        return rule if fits else None

    blocks: list[Block] = []
    number = 0
    while number < len(layers):
        layer = layers[number]
        if takes_dense(number):
            assert isinstance(layer, Dense)
            last = number + 1
            activation = "linear" if logits and last == len(layers) else layer.activation
            if activation == "linear" and last < len(layers):
                follower = layers[last]
                stops = logits and last == len(layers) - 1
                if type(follower) in (Activation, ReLU, Softmax):  # not what is derived by others
                    if not stops:
                        activation = follower.activation
                    last += 1
            rule = rule_of(last)
            if rule is not None and rule.shared and activation == "softmax":
                rule = None  # which depends on all units
            # A layer in front may change its outputs, or what it was given, in its backward pass.
            alone = not any(isinstance(block, LayerBlock) for block in blocks)
            memory = shared if alone else None
            blocks.append(DenseBlock(number, layer, activation, rule, matmul, memory))
            number = last if rule is None else last + 1
            continue
        rule = rule_of(number)
        if rule is None:
            stop = logits and number == len(layers) - 1
            blocks.append(LayerBlock(number, layer, seeds[number], stop))
        else:
            blocks.append(ShrinkBlock(rule, dtype) if rule.shared else DropoutBlock(rule, dtype))
        number += 1
    return blocks
