"""Blocks of `Dense` layers that follow one another, with activations and dropout."""

from __future__ import annotations

import math
from collections.abc import Sequence

from numpy.typing import DTypeLike

from fastdrop._quiet import bare
from fastdrop.compiled._chain import Chain, Link
from fastdrop.layers import ACTIVATIONS, Array, Batch, Dense, Dropout, PartialGradient, Shape
from fastdrop.layers.schedules import rate_at
from fastdrop.training.block import Block, Buffers, Part, whole

__all__ = ["ChainBlock", "dense_link", "dropout_link"]


def dense_link(
    number: int, dense: Dense, activation: str, dropout: Dropout | None, seed: int
) -> Link:
    """Return a `Dense`, with number `number` in the model, and what follows it.

    `activation` is the name of what follows the bias, and `seed` the seed of the dropout's key.
    """
    return Link(
        dense.units,
        dense.params["weight"],
        dense.params.get("bias"),
        (f"{number}.weight", f"{number}.bias"),
        activation if activation in ("linear", "relu") else bare(ACTIVATIONS[activation]),
        dropout,
        seed,
        dense.trainable,
        _is_shared(dropout),
    )


def dropout_link(features: int, dropout: Dropout, seed: int) -> Link:
    """Return a dropout without a `Dense` before it."""
    return Link(features, dropout=dropout, seed=seed, shared=_is_shared(dropout))


def _is_shared(dropout: Dropout | None) -> bool:
    return dropout is not None and dropout.shared_axes != ()


class ChainBlock(Block):
    """Layers that one compiled call computes forward, and another one backward.

    Attributes
    ----------
    chain : Chain
        The compiled layers, which take arrays of two axes instead of parts.
    flat : bool
        Whether samples have one axis, so that these arrays are the block's own.

    Parameters
    ----------
    links : sequence of Link
        The links, in their order.
    trains : bool
        Whether any of them is trained.
    shape : tuple of int
        Shape of an input sample. Only a dropout alone can have more than one axis.
    dtype : dtype
        The model's dtype.
    shared : Buffers, optional
        Memory for weights' gradients that are left as products for the update; nothing may change
        the block's inputs until then. Without it the block multiplies at once.
    """

    def __init__(
        self,
        links: Sequence[Link],
        trains: bool,
        shape: Shape,
        dtype: DTypeLike,
        shared: Buffers | None,
    ) -> None:
        self.trains, self.flat = trains, len(shape) == 1
        self._features = math.prod(shape)
        buffers = Buffers(dtype)
        self.chain = Chain(
            list(links), self._features, dtype, buffers, shared, rate_at, PartialGradient
        )
        self.grads = {}

    def forward(self, parts: list[Part], batch: Batch) -> list[Part]:
        x = whole(parts)
        flat = x if self.flat else x.reshape(len(x), self._features)
        y = self.chain.forward(flat, batch.training, batch.step, batch.row)
        return [Part(0, len(x), None, y if self.flat else y.reshape(x.shape))]

    def sample(self, x: Array, segments: Array, row: int, in_lines: bool) -> Array:
        """Return the outputs of lines that have their own masks, see `Chain.sample`."""
        flat = x if self.flat else x.reshape(len(x), self._features)
        y = self.chain.sample(flat, segments, row, in_lines)
        return y if self.flat else y.reshape(len(y), *x.shape[1:])

    def backward(self, parts: list[Part], need_dx: bool) -> list[Part]:
        dy = whole(parts)
        flat = dy if self.flat else dy.reshape(len(dy), self._features)
        dx = self.chain.backward(flat, need_dx)
        self.grads = {**self.chain.grads}
        return [Part(0, len(dy), None, dx if self.flat else dx.reshape(dy.shape))]
