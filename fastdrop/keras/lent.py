"""Memory for results that TensorFlow takes without a copy, used again when it lets go of them.

Fresh memory costs as much as dropout, because the system clears each page at its first use.
"""

from __future__ import annotations

from collections import deque
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["empty_like"]

ALIGNMENT = 64  # of the first byte; TensorFlow copies arrays that lie otherwise
MOST_BLOCKS, MOST_BYTES = 8, 32 << 20  # what is kept: so many blocks, none larger

_free: deque[NDArray[np.uint8]] = deque(maxlen=MOST_BLOCKS)  # the oldest makes room


class _Loan:
    """Where an array has its memory from. The block comes back when the last array is gone."""

    def __init__(self, block: NDArray[np.uint8], nbytes: int) -> None:
        self._block = block
        address = block.__array_interface__["data"][0]
        self.__array_interface__ = {
            "version": 3,
            "typestr": "|u1",
            "shape": (nbytes,),
            "data": (address + -address % ALIGNMENT, False),
        }

    def __del__(self) -> None:
        if self._block.nbytes <= MOST_BYTES:
            _free.append(self._block)


def _taken(nbytes: int) -> NDArray[np.uint8]:
    """Return a free block of about this size, or a new one. The last one to come back is warm."""
    for _ in range(len(_free)):
        try:
            block = _free.pop()
        except IndexError:  # another thread was quicker
            break
        if nbytes <= block.nbytes <= 2 * nbytes:
            return block
        _free.appendleft(block)
    return np.empty(nbytes, np.uint8)


def empty_like(x: NDArray[Any]) -> NDArray[Any]:
    """Return an array of the shape and dtype of another one, with whatever its memory holds.

    Parameters
    ----------
    x : ndarray
        The other array.

    Returns
    -------
    ndarray
        The array. Its first byte lies at a multiple of 64.
    """
    return np.asarray(_Loan(_taken(x.nbytes + ALIGNMENT), x.nbytes)).view(x.dtype).reshape(x.shape)
