"""p over time: callables of the training step, which a layer takes in place of a number.

Any callable will do, for instance ``lambda step: 0.5 * (1 - math.exp(-step / 1000))``, the rule of
Morerio et al. 2017 (Curriculum dropout, ICCV). The step is the ``call`` of the layer's key. In a
model it is the number of batches trained so far. For a layer on its own it is the number of its
calls.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, TypeAlias, overload

from fastdrop._checks import check_count, checked_p, lookup
from fastdrop._messages import shown
from fastdrop._serialization import check_kinds

__all__ = ["Constant", "Cosine", "Early", "Late", "Linear", "Rate", "Schedule"]


@dataclass(frozen=True)
class Schedule:
    """Base class of the schedules. They check their arguments once, when they are made."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name == "steps":
                check_count("steps", value)
                value = int(value)
            else:
                value = checked_p(value)
            object.__setattr__(self, field.name, value)  # a Python number, even for a NumPy one

    def _as_argument(self) -> str:
        """Return how it is written as an argument of a layer, beside which `schedules` is known."""
        ours = SCHEDULES.get(type(self).__name__) is type(self)
        return f"schedules.{self!r}" if ours else repr(self)

    def __call__(self, step: int) -> float:
        """Return p at a step.

        Parameters
        ----------
        step : int
            The number of the training step, counted from 0.

        Returns
        -------
        float
            The probability of dropping, in [0, 1].
        """
        raise NotImplementedError


@dataclass(frozen=True)
class Constant(Schedule):
    """The same p at all steps.

    Parameters
    ----------
    p : float
        Probability of dropping, in [0, 1].
    """

    p: float

    def __call__(self, step: int) -> float:
        return self.p


@dataclass(frozen=True)
class Linear(Schedule):
    """A straight line from `start` to `end` over `steps` steps, and `end` from then on.

    Parameters
    ----------
    start, end : float
        The first and the last p, in [0, 1].
    steps : int
        How many steps the way takes, at least 1.
    """

    start: float
    end: float
    steps: int

    def __call__(self, step: int) -> float:
        part = min(step / self.steps, 1)
        return (1 - part) * self.start + part * self.end


@dataclass(frozen=True)
class Cosine(Schedule):
    """Half a cosine from `start` to `end` over `steps` steps, and `end` from then on.

    Parameters
    ----------
    start, end, steps
        As for `Linear`.
    """

    start: float
    end: float
    steps: int

    def __call__(self, step: int) -> float:
        part = (1 - math.cos(math.pi * min(step / self.steps, 1))) / 2
        return (1 - part) * self.start + part * self.end


@dataclass(frozen=True)
class Early(Schedule):
    """p for the first `steps` steps, then 0 [1]_.

    Parameters
    ----------
    p : float
        Probability of dropping, in [0, 1].
    steps : int
        How many steps have dropout, at least 1.

    References
    ----------
    .. [1] Liu et al. 2023, Dropout reduces underfitting, ICML.
    """

    p: float
    steps: int

    def __call__(self, step: int) -> float:
        return self.p if step < self.steps else 0.0


@dataclass(frozen=True)
class Late(Schedule):
    """0 for the first `steps` steps, then p [1]_.

    Parameters
    ----------
    p : float
        Probability of dropping, in [0, 1].
    steps : int
        How many steps have no dropout, at least 1.

    References
    ----------
    .. [1] Liu et al. 2023, Dropout reduces underfitting, ICML.
    """

    p: float
    steps: int

    def __call__(self, step: int) -> float:
        return 0.0 if step < self.steps else self.p


Rate: TypeAlias = float | Callable[[int], float]
SCHEDULES: dict[str, type[Schedule]] = {
    schedule.__name__: schedule for schedule in (Constant, Linear, Cosine, Early, Late)
}


def checked_rate(p: Rate | Mapping[str, Any]) -> Rate:
    """Return a checked number or a callable; the dict of `rate_config` becomes a schedule again."""
    if isinstance(p, Mapping):
        config = dict(p)
        cls = lookup("schedule", config.pop("schedule", None), SCHEDULES)
        check_kinds(cls, config)
        return cls(**config)
    return p if callable(p) else checked_p(p)


@overload
def p_or_rate(p: float | None, rate: float | None, default: float) -> float: ...
@overload
def p_or_rate(p: Rate | None, rate: Rate | None, default: float) -> Rate: ...
def p_or_rate(p: Rate | None, rate: Rate | None, default: float) -> Rate:
    """Return what a layer was given as `p`, or as `rate`, which is Keras's name for it.

    Raises
    ------
    TypeError
        When the layer was given both.
    """
    if p is not None and rate is not None:
        raise TypeError("rate: expected either rate or p, got both")
    given = rate if p is None else p
    return default if given is None else given


def rate_config(p: Rate) -> Any:
    """Return p for JSON: a dict for a schedule of this module, otherwise p itself."""
    if SCHEDULES.get(type(p).__name__) is not type(p):
        return p
    return {"schedule": type(p).__name__, **asdict(p)}


def rate_at(p: Rate, step: int) -> float:
    """Return p at a step.

    Raises
    ------
    ValueError
        When a schedule leaves [0, 1].
    """
    if not callable(p):
        return p
    value = p(step)
    try:
        return checked_p(value)
    except ValueError:
        raise ValueError(
            f"p: expected a schedule within [0, 1], got {shown(value)} at step {step}"
        ) from None
