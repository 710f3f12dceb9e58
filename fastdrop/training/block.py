"""What all blocks of a training step share, see `fastdrop.training.blocks`."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import DTypeLike

from fastdrop.compiled._train import ProductGradient
from fastdrop.layers import Array, Batch, PartialGradient

__all__ = ["Block", "Buffers", "Gradient", "Part", "whole"]

Gradient: TypeAlias = Array | PartialGradient | ProductGradient


class Part(NamedTuple):
    """Rows [start, stop) of a batch. `columns` are ascending indices, or None for all columns."""

    start: int
    stop: int
    columns: Array | None
    values: Array


def whole(parts: Sequence[Part]) -> Array:
    """Return the array of the only part."""
    (part,) = parts
    return part.values


class Buffers:
    """Arrays that are made once and used again. Each is as large as it ever had to be."""

    def __init__(self, dtype: DTypeLike) -> None:
        self.dtype = np.dtype(dtype)
        self._memory: dict[Hashable, Array] = {}
        self._latest: dict[Hashable, Array] = {}

    def __call__(self, name: Hashable, *shape: int) -> Array:
        latest = self._latest.get(name)
        if latest is None or latest.shape != shape:  # usually it is the same as for the last batch
            size = math.prod(shape)
            memory = self._memory.get(name)
            if memory is None or memory.size < size:
                memory = self._memory[name] = aligned(size, self.dtype)
            latest = self._latest[name] = memory[:size].reshape(shape)
        return latest


CACHE_LINE, HUGE_PAGE = 64, 2 << 20  # bytes


def aligned(size: int, dtype: np.dtype) -> Array:
    """Return an array that starts at a cache line, so that it is faster to walk along its rows.

    From 4 MiB on, where NumPy asks for huge pages, it starts at a huge page. That is faster to
    compute on, and for MPI to copy.
    """
    boundary = HUGE_PAGE if size * dtype.itemsize >= 2 * HUGE_PAGE else CACHE_LINE
    spare = np.empty(size + boundary // dtype.itemsize, dtype)
    start = -spare.ctypes.data % boundary // dtype.itemsize
    return spare[start : start + size]


class Block:
    """A block of one or more layers.

    Attributes
    ----------
    grads : dict of str to array, PartialGradient or ProductGradient
        The gradients after a backward pass, by the model's parameter names. It is empty in a block
        without parameters.
    trains : bool
        Whether any of the block's parameters is trained.
    """

    grads: dict[str, Gradient]
    trains: bool

    def forward(self, parts: list[Part], batch: Batch) -> list[Part]:
        """Return the outputs for a batch."""
        raise NotImplementedError

    def backward(self, parts: list[Part], need_dx: bool) -> list[Part]:
        """Return the gradients of the inputs, given those of the outputs, and set `grads`.

        The call follows a forward pass in training. It may overwrite the gradients of the outputs.
        Without `need_dx`, which is for blocks that train, the result has no meaning.
        """
        raise NotImplementedError
