"""The rows of X that make a batch, dense or sparse."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeAlias

import numpy as np
from scipy.sparse import issparse

from fastdrop.compiled._sparse import SparseRows
from fastdrop.compiled._train import RowsAhead, rows_ahead, submatrix
from fastdrop.layers import Array
from fastdrop.training.block import Buffers

__all__ = ["Chosen", "Rows", "chunks"]

Chosen: TypeAlias = "slice | Array"  # which rows

CHUNK_ROWS, CHUNK_SIZE = 1024, 1 << 20  # the most rows and elements, where any number would do

# The largest share of stored numbers for which products skip the others: each of them takes some
# ten times as long as one of many in a dense product.
SPARSE = 0.1


class Rows:
    """The rows of a matrix, taken in batches.

    Parameters
    ----------
    X : ndarray or CSR matrix, (samples, features)
        A matrix of numbers; of float32 or float64 where rows are taken by their numbers, or stay
        sparse.

    Attributes
    ----------
    thin : bool
        Whether X is sparse and has so few numbers that its rows had better stay sparse.
    """

    def __init__(self, X: Any) -> None:
        self.X = X
        self.samples, self.features = X.shape
        self._sparse = issparse(X)
        self.thin = self._sparse and X.nnz <= SPARSE * self.samples * self.features
        if self.thin:
            self._starts = np.asarray(X.indptr, np.int64)  # once for all batches
        self._plain = not self._sparse and X.flags.c_contiguous and X.flags.aligned
        self._buffers = Buffers(X.dtype)
        self._turn = 0
        self._ahead: tuple[Chosen, RowsAhead] | tuple[None, None] = (None, None)

    def take(self, rows: Chosen, then: Chosen | None = None) -> Array:
        """Return these rows as a dense array, which the next call may rewrite.

        Parameters
        ----------
        rows : slice or ndarray of intp
            Which rows to take.
        then : slice or ndarray of intp, optional
            The `rows` of the next call, the same object, or none. Threads that would wait until
            then copy them meanwhile.

        Returns
        -------
        ndarray
            The rows, of shape (rows, features).
        """
        if self._sparse:
            some = self.X[rows]
            return np.asarray(some.toarray(out=self._room_for(some.shape[0])))
        if isinstance(rows, slice):
            return np.ascontiguousarray(self.X[rows])
        if not self._plain:
            # Once, because pandas has numbers by columns, and gathering rows number by number
            # takes several times as long
            self.X, self._plain = np.require(self.X, requirements=["C", "A"]), True
        announced, ahead = self._ahead
        self._ahead = None, None
        if ahead is not None:  # even if other rows were announced: their place may be needed
            room = ahead.finish()
        if announced is not rows:
            room = self._room_for(len(rows))
            submatrix(self.X, rows, None, room)
        if isinstance(then, np.ndarray):
            self._copy_ahead(then)
        return room

    def take_sparse(self, rows: Chosen) -> SparseRows:
        """Return these rows of a `thin` matrix, which stay sparse."""
        if isinstance(rows, slice):
            rows = np.arange(*rows.indices(self.samples))
        X = self.X
        return SparseRows(self._starts, X.indices, X.data, rows, self.features, X.dtype)

    def _copy_ahead(self, rows: Array) -> None:
        """Have rows copied to another place than the last ones, if anybody would do it."""
        turn, self._turn = self._turn, 1 - self._turn
        copying = rows_ahead(self.X, rows, self._room_for(len(rows)))
        if copying is None:
            self._turn = turn  # one place stays in the cache
        else:
            self._ahead = rows, copying

    def _room_for(self, rows: int) -> Array:
        return self._buffers(self._turn, rows, self.features)


def chunks(rows: Rows, sparse: bool = False) -> Iterator[slice]:
    """Yield slices that cover all rows, and are small, whether rows become dense or stay sparse."""
    size = CHUNK_ROWS if sparse else max(1, min(CHUNK_ROWS, CHUNK_SIZE // rows.features))
    for start in range(0, rows.samples, size):
        yield slice(start, start + size)
