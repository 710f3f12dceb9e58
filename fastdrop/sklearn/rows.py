"""The rows of X that make a batch, dense or sparse. Only the rows of a batch become dense."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeAlias

import numpy as np
from scipy.sparse import issparse

from fastdrop.compiled._train import submatrix
from fastdrop.layers import Array
from fastdrop.training.block import Buffers

__all__ = ["Chosen", "Rows", "chunks"]

Chosen: TypeAlias = "slice | Array"  # which rows

CHUNK_ROWS, CHUNK_SIZE = 1024, 1 << 20  # the most rows and elements, where any number would do


class Rows:
    """The rows of a matrix, taken in batches.

    Parameters
    ----------
    X : ndarray or CSR matrix, (samples, features)
        A matrix of numbers; of float32 or float64 where rows are taken by their numbers.
    """

    def __init__(self, X: Any) -> None:
        self.X = X
        self.samples, self.features = X.shape
        self._sparse = issparse(X)
        self._plain = not self._sparse and X.flags.c_contiguous and X.flags.aligned
        self._buffers = Buffers(X.dtype)

    def take(self, rows: Chosen) -> Array:
        """Return these rows as a dense array, which the next call may rewrite.

        Parameters
        ----------
        rows : slice or ndarray of intp
            Which rows to take.

        Returns
        -------
        ndarray
            The rows, of shape (rows, features).
        """
        if self._sparse:
            some = self.X[rows]
            return np.asarray(some.toarray(out=self._room_for(some.shape[0])))
        if isinstance(rows, slice) or not self._plain:
            return np.ascontiguousarray(self.X[rows])
        room = self._room_for(len(rows))
        submatrix(self.X, rows, None, room)
        return room

    def _room_for(self, rows: int) -> Array:
        return self._buffers("rows", rows, self.features)


def chunks(rows: Rows) -> Iterator[slice]:
    """Yield slices that cover all rows, and whose dense arrays are small."""
    size = max(1, min(CHUNK_ROWS, CHUNK_SIZE // rows.features))
    for start in range(0, rows.samples, size):
        yield slice(start, start + size)
