"""The gradients of one batch, summed over the ranks that train together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from fastdrop.layers import Array, PartialGradient
from fastdrop.training.ranks import Ranks

__all__ = ["GradientSums"]

Gradient = Array | PartialGradient

BUCKET = 4 << 20  # bytes that are summed at a time; larger gradients are cut
SMALL = 1 << 20  # gradients with fewer bytes wait to be summed together with others


class GradientSums:
    """The gradients of one batch, summed over the ranks while the backward pass goes on.

    Parameters
    ----------
    ranks : Ranks
        The processes of a communicator.
    in_groups : bool
        Whether ranks may have dropped different units, so that gradients have to be made whole.
    """

    def __init__(self, ranks: Ranks, in_groups: bool) -> None:
        assert ranks._comm is not None
        self._comm, self._mpi = ranks._comm, ranks._mpi
        self._in_groups = in_groups
        self._requests: list[Any] = []
        self._small: list[Array] = []
        self._buckets: list[tuple[Array, list[Array]]] = []
        self._grads: dict[str, Gradient] = {}

    def start(self, array: Array) -> None:
        """Begin to replace an array by the sum over all ranks. Leave it alone until `finish`."""
        flat = array.reshape(-1)
        step = BUCKET // array.itemsize
        for start in range(0, flat.size, step):
            piece = flat[start : start + step]
            self._requests.append(self._comm.Iallreduce(self._mpi.IN_PLACE, piece))

    def add(self, grads: Mapping[str, Gradient]) -> None:
        """Add gradients as the backward pass computes them, the same ones on every rank."""
        for name, gradient in grads.items():
            if isinstance(gradient, PartialGradient) and self._in_groups:
                gradient = gradient.dense()
            self._grads[name] = gradient
            if isinstance(gradient, PartialGradient):
                ((_, _, array),) = gradient.parts  # the same rows and columns on every rank
            else:
                array = gradient
            if array.nbytes >= SMALL and array.flags.c_contiguous:
                self.start(array)
            else:
                self._small.append(array)
                if sum(small.nbytes for small in self._small) >= SMALL:
                    self._start_small()
        # MPI makes progress with sums only while one of its functions is called.
        self._mpi.Request.Testall(self._requests)

    def finish(self) -> dict[str, Gradient]:
        """Return the sums by the gradients' names."""
        self._start_small()
        self._mpi.Request.Waitall(self._requests)
        for bucket, arrays in self._buckets:
            start = 0
            for array in arrays:
                array[...] = bucket[start : start + array.size].reshape(array.shape)
                start += array.size
        return self._grads

    def _start_small(self) -> None:
        if self._small:
            bucket = np.concatenate([array.ravel() for array in self._small])
            self.start(bucket)
            self._buckets.append((bucket, self._small))
            self._small = []
