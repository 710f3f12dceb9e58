"""The column that a network learns to predict: classes, or a number in its own units."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np

from fastdrop._checks import check_number, lookup
from fastdrop._messages import shown
from fastdrop.datasets import check_classes
from fastdrop.layers import Array
from fastdrop.tables.kinds import Words

__all__ = ["TASKS", "Target"]

TASKS = ("classification", "regression")
FEW_NUMBERS = 20  # so many different whole numbers are classes, if each is there
OFTEN = 5  # times, on average
LARGEST = 1e300  # of a target's numbers: their sums, and errors that are larger, are in range


@dataclass(frozen=True)
class Target:
    """What is predicted.

    Attributes
    ----------
    name : str
        Of the column.
    task : {"classification", "regression"}
    classes : tuple
        Of a classification, sorted: text, whole numbers, or False and True.
    mean, deviation : float
        Of a regression, among the rows to train on: what a network learns is
        (target - mean) / deviation.
    """

    name: str
    task: str
    classes: tuple[Any, ...] = ()
    mean: float = 0.0
    deviation: float = 1.0

    @property
    def outputs(self) -> int:
        """How many a network has."""
        return len(self.classes) or 1

    @property
    def activation(self) -> str:
        """That of a network's last layer."""
        return "softmax" if self.classes else "linear"

    @property
    def loss(self) -> str:
        return "sparse_categorical_crossentropy" if self.classes else "mean_squared_error"

    @property
    def metric(self) -> str:
        return "accuracy" if self.classes else "root_mean_squared_error"

    def numbers(self, outputs: Array) -> Array:
        """Return a regression's outputs in the target's units, as float64, (rows,)."""
        return outputs[:, 0].astype(np.float64) * self.deviation + self.mean

    def config(self) -> dict[str, Any]:
        """Return what `from_config` makes an equal target of."""
        return asdict(self) | {"classes": list(self.classes)}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """Make a target of what `config` returned."""
        target = cls(**config | {"classes": tuple(config["classes"])})
        lookup("task", target.task, dict(zip(TASKS, TASKS)))
        kinds = {type(name) for name in target.classes}
        right = isinstance(target.name, str) and len(set(target.classes)) == len(target.classes)
        if not right or len(kinds) > 1 or not kinds <= {str, int, bool}:
            raise ValueError(f"target: expected different classes of one kind, got {kinds}")
        if (target.task == "classification") != (len(target.classes) > 1):
            raise ValueError(f"target: expected classes, 2 or more, got {len(target.classes)}")
        check_number("deviation", target.deviation, above_zero=True)
        check_number("mean", abs(target.mean))
        return target


def task_of(name: str, kind: str, values: Array | Words, task: str | None) -> tuple[str, str]:
    """Return the task that a target's values are for, and why.

    Raises
    ------
    ValueError
        When they are for none, or not for the one that was asked for.
    """
    if kind in ("date", "time"):
        raise ValueError(f"target: expected numbers or words, got {kind}s in {shown(name)}")
    if isinstance(values, Words):
        if task == "regression":
            raise ValueError(
                f"target: expected numbers for a regression, got words in {shown(name)}"
            )
        return "classification", f"words, {len(values.distinct)} different ones"
    if kind == "flag":
        if task == "regression":
            raise ValueError(
                f"target: expected numbers for a regression, got flags in {shown(name)}"
            )
        return "classification", "true and false"
    present = values[~np.isnan(values)]
    distinct = np.unique(present)
    whole = bool((distinct == np.floor(distinct)).all()) and bool((np.abs(distinct) < 2**53).all())
    if task == "classification" and not whole:
        raise ValueError(
            f"target: expected words or whole numbers as classes, got numbers in {shown(name)}"
        )
    few = len(distinct) == 2 or (
        len(distinct) <= FEW_NUMBERS and len(distinct) * OFTEN <= len(present)
    )
    form = f"{'whole ' if whole else ''}numbers, {len(distinct)} different ones"
    return task or ("classification" if whole and few else "regression"), form


def encoded(
    name: str, kind: str, values: Array | Words, task: str, training: Array
) -> tuple[Target, Array]:
    """Return a target, and what a network is to learn of each row.

    Parameters
    ----------
    name, kind : str
    values : ndarray or Words
        Without missing ones.
    task : {"classification", "regression"}
    training : ndarray of int
        The rows to train on.

    Returns
    -------
    target : Target
    y : ndarray, (rows,) of class numbers or (rows, 1) of standardised numbers
    """
    if task == "classification":
        return _classes(name, kind, values, training)
    assert not isinstance(values, Words)
    largest = values[np.abs(values).argmax()]
    if abs(largest) > LARGEST:
        raise ValueError(
            f"target: expected numbers of at most {LARGEST:g}, got {largest:g} in {shown(name)}"
        )
    some = values[training]
    half = some / 2  # of any numbers a difference is in range then
    deviation = float(2 * _deviation(half))
    if deviation == 0 or not np.isfinite(deviation):
        raise ValueError(
            f"target: expected different numbers in {shown(name)} among the rows to train on, "
            f"got {some[0]:g} in all {len(some)}"
        )
    mean = float(2 * half.mean())
    y = (values / 2 - mean / 2) / (deviation / 2)
    return Target(name, task, (), mean, deviation), y.astype(np.float32)[:, np.newaxis]


def _deviation(values: Array) -> float:
    """Return the standard deviation; of numbers of any size."""
    scale = float(np.abs(values).max()) or 1.0
    scaled = values / scale
    return float(scaled.std()) * scale if np.ptp(scaled) > 1e-12 else 0.0


def _classes(name: str, kind: str, values: Array | Words, training: Array) -> tuple[Target, Array]:
    names: Sequence[Any]
    if isinstance(values, Words):
        order = np.argsort(np.array(values.distinct, object), kind="stable")
        ranks = np.empty(len(order), np.int64)
        ranks[order] = np.arange(len(order))
        y, names = ranks[values.codes], [values.distinct[i] for i in order]
    else:
        distinct, y = np.unique(values, return_inverse=True)
        names = [bool(each) if kind == "flag" else int(each) for each in distinct]
    check_classes(f"target: column {shown(name)}", y)
    some = y[training]
    if (some == some[0]).all():
        raise ValueError(
            f"target: expected at least 2 classes in {shown(name)} among the rows to train on, "
            f"got {shown(names[int(some[0])])} in all {len(some)}"
        )
    return Target(name, "classification", tuple(names)), y.reshape(-1).astype(np.int64)
