"""What runs with dropout and without say together, over all seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from fastdrop.commands.runs.results import Run, title_of

__all__ = ["Difference", "Rate", "best_of", "chance_of", "difference", "rates_of"]

LUCK = 0.05  # a difference that comes as often without any cause may be luck


class Rate(NamedTuple):
    """What the runs of one rate came to in their last epoch.

    Attributes
    ----------
    dropout : float
    mean : dict of str to float
        By a figure's name, over the seeds.
    spread : dict of str to float or None
        The standard deviation from seed to seed; None where there is only one.
    """

    dropout: float
    mean: dict[str, float]
    spread: dict[str, float | None]

    @property
    def title(self) -> str:
        """What it is called."""
        return title_of(self.dropout)


class Difference(NamedTuple):
    """A figure with dropout minus the same without, seed by seed.

    Attributes
    ----------
    figure : str
    mean : float
        Over the seeds.
    error : float
        Its standard error.
    chance : float
        How often such a mean, or one farther from 0, would come if dropout changed nothing:
        Student's t test of pairs on two sides. The best of several rates is chosen after the
        fact, so that it has as many chances (Bonferroni).
    """

    figure: str
    mean: float
    error: float
    chance: float

    @property
    def is_luck(self) -> bool:
        """Whether it may be luck."""
        return self.chance >= LUCK


def rates_of(runs: Sequence[Run]) -> list[Rate]:
    """Sum up the runs by their rates, in the order in which they are there."""
    return [_rate(p, [run for run in runs if run.dropout == p]) for p in _distinct(runs)]


def best_of(rates: Sequence[Rate]) -> Rate:
    """Return the rate, other than 0, with the smallest validation loss."""
    return min((rate for rate in rates if rate.dropout), key=lambda rate: rate.mean["val_loss"])


def difference(runs: Sequence[Run], dropout: float, figure: str) -> Difference | None:
    """Compare the runs of a rate with those without dropout; one seed tells nothing."""
    last = {(run.dropout, run.seed): run.figures[figure][-1] for run in runs}
    pairs = [last[p, seed] - last[0.0, seed] for p, seed in last if p == dropout]
    if len(pairs) < 2:
        return None
    mean, error = float(np.mean(pairs)), float(np.std(pairs, ddof=1)) / math.sqrt(len(pairs))
    t = mean / error if error else math.inf * mean if mean else 0.0
    choices = len(_distinct(runs)) - 1
    return Difference(figure, mean, error, min(1.0, choices * chance_of(t, len(pairs) - 1)))


def chance_of(t: float, degrees: int) -> float:
    """Return how often Student's t is at least as far from 0, on either side.

    References
    ----------
    Abramowitz and Stegun 1964, Handbook of Mathematical Functions, 26.7.3 and 26.7.4.
    """
    angle = math.atan2(abs(t), math.sqrt(degrees))
    odd = degrees % 2
    term, total = math.cos(angle) ** odd, 0.0
    for power in range(odd, degrees - 1, 2):
        total += term
        term *= math.cos(angle) ** 2 * (power + 1) / (power + 2)
    inside = math.sin(angle) * total
    return max(0.0, 1 - ((angle + inside) * 2 / math.pi if odd else inside))


def _distinct(runs: Sequence[Run]) -> list[float]:
    return list(dict.fromkeys(run.dropout for run in runs))


def _rate(dropout: float, runs: Sequence[Run]) -> Rate:
    last = {name: [run.figures[name][-1] for run in runs] for name in runs[0].figures}
    return Rate(
        dropout,
        {name: float(np.mean(values)) for name, values in last.items()},
        {
            name: float(np.std(values, ddof=1)) if len(values) > 1 else None
            for name, values in last.items()
        },
    )
