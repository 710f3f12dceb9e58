"""From numbers to places in a picture, and to words."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

__all__ = ["Scale", "number", "percent", "tick_labels", "ticks", "whole_ticks"]

THIN = "\u202f"  # a narrow space that breaks no line
MINUS = "\u2212"


class Scale(NamedTuple):
    """A range of numbers, and the range of places where they are drawn."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)

    def holds(self, value: float) -> bool:
        """Whether a number lies in the range, but for rounding."""
        slack = 1e-9 * (self.high - self.low)
        return self.low - slack <= value <= self.high + slack

    @classmethod
    def over(cls, values: Iterable[float], start: float, end: float, margin: float = 0.06) -> Scale:
        """Return the scale that has room for all finite values, and for a margin beside them."""
        finite = [value for value in values if math.isfinite(value)] or [0.0]
        low, high = min(finite), max(finite)
        beside = margin * (high - low) or 0.05 * abs(high) or 0.05
        return cls(low - beside, high + beside, start, end)


def ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Return at most so many round numbers in a range: multiples of 1, 2 or 5 times 10^k."""
    span = high - low
    if not (math.isfinite(span) and span > 1e-9 * max(abs(low), abs(high))):
        return [low]  # all the same, but for rounding
    step = 10.0 ** math.floor(math.log10(span / most))
    step *= next(factor for factor in (1, 2, 5, 10, 20) if span / (factor * step) <= most)
    first = math.ceil(low / step - 1e-9)
    return [step * i for i in range(first, math.floor(high / step + 1e-9) + 1)]


def whole_ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Return at most so many round whole numbers in a range."""
    return [value for value in ticks(low, high, most) if abs(value - round(value)) < 1e-9]


def number(value: float, digits: int = 3) -> str:
    """Return a number with so many digits that count, in groups of three: 12 345, 0.0123."""
    if not math.isfinite(value):
        return "none" if math.isnan(value) else "infinite"
    if value == 0:
        return "0"
    size = math.floor(math.log10(abs(value)))
    if not -5 <= size < 15:
        text = f"{value:.{digits - 1}e}"
    else:
        text = f"{value:,.{max(digits - 1 - size, 0)}f}"
    return text.replace(",", THIN).replace("-", MINUS)


def tick_labels(values: Sequence[float]) -> list[str]:
    """Return the labels of an axis, all with as many decimals as the finest of them needs.

    Large numbers are short, or they would not fit beside an axis: 250k, 1.5M.
    """
    largest = max(map(abs, values), default=0)
    step = min((b - a for a, b in itertools.pairwise(values)), default=largest) or 1
    if largest >= 1e15 or step < 1e-5:
        return [f"{value:.3g}".replace("-", MINUS) for value in values]
    divisor, unit = next(
        ((d, u) for d, u in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")) if largest >= 10 * d),
        (1, ""),
    )
    step /= divisor
    decimals = max(-math.floor(math.log10(step) + 1e-9), 0)
    decimals += abs(step - round(step, decimals)) > 1e-6 * step  # 0.25 needs another one
    return [
        f"{value / divisor + 0.0:.{decimals}f}{unit if value else ''}".replace("-", MINUS)
        for value in values
    ]


def percent(share: float, decimals: int = 1) -> str:
    """Return a share as a percentage."""
    if not math.isfinite(share):
        return number(share)
    return f"{100 * share:.{decimals}f}{THIN}%".replace("-", MINUS)
