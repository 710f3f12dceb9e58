"""What the figures of a run say: curves, the gap, differences and how sure they are, rates, time.

Plain functions of `training.json`'s runs that return plain data; nothing here reads files or draws.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from fastdrop.commands.report.scales import number, percent
from fastdrop.commands.runs.comparison import Difference, difference
from fastdrop.commands.runs.results import Run

__all__ = [
    "Comparison",
    "Curve",
    "Learning",
    "Measure",
    "Sweep",
    "compare",
    "gap",
    "learning",
    "measures",
    "seconds",
    "sweep",
]

CONDITIONS = ("without", "with")


class Measure(NamedTuple):
    """A figure that is measured after every epoch, and how to speak of it.

    Attributes
    ----------
    name : str
        As in the figures; "val_" and the name is that of the validation part.
    title : str
        Its name in plain words.
    higher : bool
        Whether more is better.
    unit : str
        "%" where it is a share.
    """

    name: str
    title: str
    higher: bool
    unit: str

    @property
    def heading(self) -> str:
        """The name at the head of a line; RMSE stays RMSE."""
        return self.title[:1].upper() + self.title[1:]

    def say(self, value: float) -> str:
        """Return a value with its unit."""
        if self.unit == "%":
            return percent(value)
        return f"{number(value)} {self.unit}".strip()

    def say_change(self, value: float, signed: bool = False) -> str:
        """Return a difference of two values; those of shares are percentage points."""
        sign = "+" if signed and value > 0 else ""
        if self.unit == "%":
            return f"{sign}{number(100 * value, 2)} points"
        return f"{sign}{number(value)} {self.unit}".strip()


LOSS = Measure("loss", "loss", False, "")


class Curve(NamedTuple):
    """A figure over the epochs: its mean over the seeds, and its least and largest value.

    Attributes
    ----------
    condition : str
        "without" or "with" dropout.
    part : str
        "training" or "validation".
    mean, low, high : list of float
    """

    condition: str
    part: str
    mean: list[float]
    low: list[float]
    high: list[float]


class Learning(NamedTuple):
    """The curves of one figure."""

    measure: Measure
    epochs: list[int]
    curves: list[Curve]

    def curve(self, condition: str, part: str = "validation") -> Curve:
        """Return the curve of a condition and a part."""
        return next(c for c in self.curves if (c.condition, c.part) == (condition, part))


class Comparison(NamedTuple):
    """A figure after the last epoch with and without dropout, seed by seed.

    Attributes
    ----------
    measure : Measure
    seeds : list of int
        Those with which both were trained.
    without, with_dropout : list of float
        A value for each seed.
    difference : Difference, or None
        With minus without, and how sure that is; None for a single seed.
    """

    measure: Measure
    seeds: list[int]
    without: list[float]
    with_dropout: list[float]
    difference: Difference | None

    @property
    def means(self) -> tuple[float, float]:
        """Without and with dropout, the mean over the seeds."""
        return float(np.mean(self.without)), float(np.mean(self.with_dropout))

    @property
    def change(self) -> float:
        """With minus without."""
        return self.means[1] - self.means[0]

    @property
    def verdict(self) -> str:
        """Return "better" or "worse" with dropout, "unclear" within luck, "one seed"."""
        if self.difference is None:
            return "one seed"
        if self.difference.is_luck:
            return "unclear"
        return "better" if (self.change > 0) == self.measure.higher else "worse"


class Sweep(NamedTuple):
    """A figure after the last epoch by the rate of dropout.

    Attributes
    ----------
    measure : Measure
    rates : list of float
    values : list of list of float
        For each rate, a value for each seed.
    """

    measure: Measure
    rates: list[float]
    values: list[list[float]]

    @property
    def means(self) -> list[float]:
        """The mean of each rate's values."""
        return [float(np.mean(values)) for values in self.values]

    @property
    def errors(self) -> list[float]:
        """The standard error of each mean; NaN for a single seed."""
        return [_error(values) for values in self.values]

    @property
    def best(self) -> int:
        """The index of the best rate."""
        choose: Callable[[Any], Any] = np.argmax if self.measure.higher else np.argmin
        return int(choose(self.means))


def measures(metric: str, unit: str = "") -> list[Measure]:
    """Return what a run measures after every epoch: the loss, and a metric.

    Parameters
    ----------
    metric : str
        Its name in the figures.
    unit : str
        Of a regression's target, in which its metric is.
    """
    if metric == "accuracy":
        return [LOSS, Measure(metric, metric, True, "%")]
    titles = {"root_mean_squared_error": "RMSE"}
    return [LOSS, Measure(metric, titles.get(metric, metric.replace("_", " ")), False, unit)]


def by_condition(runs: Sequence[Run], rate: float) -> dict[str, list[Run]]:
    """Return the runs without dropout and those at a rate, each by their seeds."""
    found = {
        condition: sorted((run for run in runs if run.dropout == p), key=lambda run: run.seed)
        for condition, p in zip(CONDITIONS, (0.0, rate))
    }
    return {condition: trained for condition, trained in found.items() if trained}


def learning(runs: Sequence[Run], rate: float, measure: Measure) -> Learning:
    """Return a figure's curves over the epochs that all runs have."""
    groups = by_condition(runs, rate)
    names = {"training": measure.name, "validation": f"val_{measure.name}"}
    length = min(
        len(run.figures[name])
        for group in groups.values()
        for run in group
        for name in names.values()
    )
    curves = []
    for condition, group in groups.items():
        for part, name in names.items():
            table = np.array([run.figures[name][:length] for run in group])
            curves.append(
                Curve(
                    condition,
                    part,
                    table.mean(axis=0).tolist(),
                    table.min(axis=0).tolist(),
                    table.max(axis=0).tolist(),
                )
            )
    return Learning(measure, list(range(1, length + 1)), curves)


def gap(curves: Learning) -> Learning:
    """Return how much worse the validation part fares than the training part, by epoch."""
    sign = -1 if curves.measure.higher else 1
    gaps = []
    for condition in dict.fromkeys(curve.condition for curve in curves.curves):
        training, validation = (
            np.array(curves.curve(condition, part).mean) for part in ("training", "validation")
        )
        distance = (sign * (validation - training)).tolist()
        gaps.append(Curve(condition, "validation", distance, distance, distance))
    return curves._replace(curves=gaps)


def compare(runs: Sequence[Run], rate: float, measure: Measure) -> Comparison:
    """Hold the last epochs with and without dropout against each other, pairing equal seeds."""
    name = f"val_{measure.name}"
    last = {
        condition: {run.seed: run.figures[name][-1] for run in group}
        for condition, group in by_condition(runs, rate).items()
    }
    seeds = [seed for seed in last["without"] if seed in last["with"]]
    without, with_dropout = ([last[c][seed] for seed in seeds] for c in CONDITIONS)
    return Comparison(measure, seeds, without, with_dropout, difference(runs, rate, name))


def sweep(runs: Sequence[Run], measure: Measure) -> Sweep:
    """Return the last epoch's validation figure for every rate that was tried."""
    rates = sorted({run.dropout for run in runs})
    name = f"val_{measure.name}"
    values = [[run.figures[name][-1] for run in runs if run.dropout == rate] for rate in rates]
    return Sweep(measure, rates, values)


def seconds(runs: Sequence[Run], rate: float) -> dict[str, dict[str, float]]:
    """Return by condition what a run's time went to, in seconds, the mean over the seeds."""
    return {
        condition: {
            part: float(np.mean([sum(run.seconds[part]) for run in group]))
            for part in group[0].seconds
        }
        for condition, group in by_condition(runs, rate).items()
    }


def _error(values: Sequence[float]) -> float:
    """Return the standard error of the mean of some values; NaN for a single one."""
    if len(values) < 2:
        return math.nan
    return float(np.std(values, ddof=1) / math.sqrt(len(values)))
