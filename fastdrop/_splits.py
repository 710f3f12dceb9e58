"""Which samples are set apart to validate on: by chance, by whole groups, or the latest ones."""

from __future__ import annotations

import math
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fastdrop.random import Key, permutation

__all__ = ["Rows", "by_chance", "by_groups", "by_time"]

SHARE = 0.2  # of the rows
SPLIT = 2**40  # folded into the seed for the split; no layer has this number

Array: TypeAlias = NDArray[Any]
Rows: TypeAlias = tuple[Array, Array]  # to train on, to validate on


def by_chance(rows: int, seed: int) -> Rows:
    """Split rows in an order that the seed fixes."""
    order = permutation(Key(seed).fold_in(SPLIT), rows)
    held_out = math.ceil(rows * SHARE)
    return order[held_out:], order[:held_out]


def by_groups(codes: Array, seed: int) -> Rows:
    """Split rows so that each group is on one side.

    Parameters
    ----------
    codes : ndarray of int, (rows,)
        The groups' numbers; -1 stands for rows without a group, which are one, too.

    Raises
    ------
    ValueError
        When there is one group only.
    """
    _, codes = np.unique(codes, return_inverse=True)
    counts = np.bincount(codes)
    if len(counts) < 2:
        raise ValueError("group: expected at least 2 groups, got 1")
    order = permutation(Key(seed).fold_in(SPLIT), len(counts))
    before = np.cumsum(counts[order]) - counts[order]  # rows of the groups before each
    held_out = np.zeros(len(counts), bool)
    held_out[order[before < len(codes) * SHARE][: len(counts) - 1]] = True
    return np.flatnonzero(~held_out[codes]), np.flatnonzero(held_out[codes])


def by_time(times: Array) -> Rows:
    """Split rows so that all to validate on are later than those to train on.

    Raises
    ------
    ValueError
        When a time is missing, or all are the same.
    """
    missing = int(np.isnan(times).sum())
    if missing:
        raise ValueError(f"time: expected a time in every row, got {missing} without")
    ascending = np.sort(times)
    first = ascending[len(times) - math.ceil(len(times) * SHARE)]
    if first == ascending[0]:  # so many rows have the earliest
        later = ascending[ascending > first]
        if not len(later):
            raise ValueError("time: expected different times, got the same in all rows")
        first = later[0]
    return np.flatnonzero(times < first), np.flatnonzero(times >= first)
