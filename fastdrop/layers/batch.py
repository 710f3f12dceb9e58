"""What a layer has to know about the batch it computes on, besides the rows themselves."""

from __future__ import annotations

import math
from typing import NamedTuple

from numpy.typing import NDArray

from fastdrop.random import Key

__all__ = ["Batch"]


class Batch(NamedTuple):
    """The batch that a layer computes on as a whole, or in parts.

    Parameters
    ----------
    training : bool
        Whether random layers are active.
    key : Key, optional
        Source of the layer's randomness. Its `call` is the number of the training step. Without a
        key, the layer's own generator gives one.
    row : int
        Index of the first row of this part in the whole batch. A batch that is split over calls or
        processes then gets the same masks as the undivided batch.
    rows : int, optional
        Number of rows of the whole batch, for layers whose rule depends on it. By default it is
        the number of rows given.
    """

    training: bool = True
    key: Key | None = None
    row: int = 0
    rows: int | None = None

    @property
    def step(self) -> int:
        """The number of the training step; 0 without a key."""
        return 0 if self.key is None else self.key.call

    def size(self, x: NDArray) -> int:
        """Return the number of rows of the whole batch.

        Parameters
        ----------
        x : ndarray, (samples, ...)
            All rows of the batch, or some.

        Returns
        -------
        int
            The number of rows.
        """
        return len(x) if self.rows is None else self.rows

    def offset(self, x: NDArray) -> int:
        """Return the index of the first element of `x` in the whole batch.

        Parameters
        ----------
        x : ndarray, (samples, ...)
            All rows of the batch, or some.

        Returns
        -------
        int
            The index, in elements.
        """
        return self.row * math.prod(x.shape[1:])

    def inside(self, number: int) -> Batch:
        """Return the same batch for a layer inside this layer, with a key of its own.

        Parameters
        ----------
        number : int
            The number of the layer inside this one.

        Returns
        -------
        Batch
            The batch for that layer.
        """
        if self.key is None:
            return self
        return self._replace(key=Key(self.key.fold_in(number).seed, self.key.call))
