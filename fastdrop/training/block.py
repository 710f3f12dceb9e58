"""What all blocks of a training step have in common, see `fastdrop.training.blocks`."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import DTypeLike

from fastdrop.compiled._train import ProductGradient
from fastdrop.layers import Array, Batch, PartialGradient

__all__ = ["Block", "Buffers", "Gradient", "Matmul", "Part", "whole"]

Gradient: TypeAlias = Array | PartialGradient | ProductGradient
Matmul: TypeAlias = Callable[[Array, Array, Array], Array]


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
