"""What dropout draws where one pass of a module computes several samples.

A pass of `predict_mc` computes a `Group`: some samples of some rows of x. Each dropout in the pass
draws `Seeds`, one for each sample. It applies each seed to its sample's part of the tensor, along
the first axis::

    the first dropout of a group that is spread    a later one, or a group that is not spread

    x of a row or more   -> sample 0               sample 0 -> sample 0
                         -> sample 1               sample 1 -> sample 1
                         -> sample 2               sample 2 -> sample 2

So a sample has the same mask alone and in any group.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

__all__ = ["Group", "Seed", "Seeds"]

_MOST = 2**63 - 1


class Group:
    """The samples of a pass, and how many dropouts it has had so far.

    Parameters
    ----------
    bases : sequence of int
        A number for each sample. The seed of the sample's n-th dropout is this number plus n.
    row, rows : int
        The pass computes x[row : row + rows].
    spread : bool
        Whether tensors have one sample until the first dropout.

    Attributes
    ----------
    calls : int
        Dropouts until now.
    largest : int
        Elements of the largest tensor that was dropped.
    """

    def __init__(
        self,
        bases: Sequence[int],
        row: int,
        rows: int,
        spread: bool = False,
    ) -> None:
        self.bases, self.row, self.rows = bases, row, rows
        self._spread = spread
        self.calls = self.largest = 0

    @property
    def is_plain(self) -> bool:
        """Whether this is one sample, of rows from the first on, so that a plain seed is enough."""
        return len(self.bases) == 1 and not self.row

    def see(self, elements: int) -> None:
        """Take note of a tensor that is dropped."""
        self.largest = max(self.largest, elements)

    def draw(self) -> Seeds:
        """Return the seeds of the next dropout."""
        call, spread = self.calls, self._spread
        self.calls, self._spread = call + 1, False
        return Seeds(tuple([(base + call) & _MOST for base in self.bases]), spread, self)


class Seeds(NamedTuple):
    """The seeds of one dropout of a group.

    Attributes
    ----------
    values : tuple of int
        A seed for each sample.
    spread : bool
        Whether the tensor has one sample, and the result all of them.
    group : Group
        The group that drew the seeds.
    """

    values: tuple[int, ...]
    spread: bool
    group: Group


Seed: TypeAlias = int | Seeds
