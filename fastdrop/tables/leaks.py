"""Columns that give the target away: what is known only after it would look like a good model."""

from __future__ import annotations

import numpy as np

from fastdrop.layers import Array
from fastdrop.tables.kinds import Words

__all__ = ["gives_away"]

LOOKED_AT = 20_000  # rows, at most
LEAST = 50  # rows, in fewer of which much looks like a rule
OFTEN = 10  # times that a value is there on average, or it tells of single rows
ALL_BUT = 0.001  # of what is unknown of the target stays so
MONOTONE = 0.9999  # correlation of ranks of a column that is the target in other units


def gives_away(values: Array | Words, y: Array) -> bool:
    """Tell whether a column alone is enough to know the target.

    Parameters
    ----------
    values : ndarray or Words
    y : ndarray, (rows,) of class numbers or (rows, 1) of numbers
    """
    step = max(1, len(y) // LOOKED_AT)
    column = (values.codes if isinstance(values, Words) else values)[::step]
    present = column >= 0 if isinstance(values, Words) else ~np.isnan(column)
    target, column = y[::step][present], column[present]
    if len(column) < max(LEAST, 0.5 * len(present)):
        return False
    _, groups = np.unique(column, return_inverse=True)
    count = int(groups.max()) + 1
    often = count * OFTEN <= len(groups)
    if target.ndim == 1:
        if often:
            return _classes_of_groups(groups, count, target)
        return not isinstance(values, Words) and _classes_in_order(column, target)
    numbers = target[:, 0].astype(np.float64)
    if often and _spread_in_groups(groups, count, numbers) <= ALL_BUT**2:
        return True
    return not isinstance(values, Words) and _rank_correlation(column, numbers) > MONOTONE


def _classes_of_groups(groups: Array, count: int, y: Array) -> bool:
    """Tell whether each value of a column has one class, but for few rows."""
    classes = int(y.max()) + 1
    table = np.bincount(groups * classes + y, minlength=count * classes).reshape(count, classes)
    wrong = len(y) - table.max(axis=1).sum()
    by_chance = len(y) - table.sum(axis=0).max()
    return bool(by_chance > 0 and wrong <= ALL_BUT * by_chance)


def _classes_in_order(column: Array, y: Array) -> bool:
    """Tell whether the classes come one after the other as a column ascends."""
    ordered = y[np.argsort(column, kind="stable")]
    changes = int((ordered[1:] != ordered[:-1]).sum())
    return 0 < changes == len(np.unique(y)) - 1


def _spread_in_groups(groups: Array, count: int, y: Array) -> float:
    """Return the share of the variance that is left where a column's value is known."""
    centred = y - y.mean()
    variance = float((centred**2).mean())
    if variance == 0:
        return 1.0
    sizes = np.bincount(groups, minlength=count)
    means = np.bincount(groups, centred, minlength=count) / sizes
    return float(((centred - means[groups]) ** 2).mean()) / variance


def _rank_correlation(column: Array, y: Array) -> float:
    ranks = [np.argsort(np.argsort(each, kind="stable")).astype(float) for each in (column, y)]
    if np.ptp(y) == 0:
        return 0.0
    return abs(float(np.corrcoef(*ranks)[0, 1]))
