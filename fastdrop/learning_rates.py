"""Learning rates over time: callables of the update's number, for an optimiser's `learning_rate`.

The formulas and names are those of Keras. Any other callable will do as well, but only an object
whose class derives from `LearningRateSchedule` can be part of an optimiser's `get_config`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, TypeAlias

from fastdrop._checks import check_count, check_number
from fastdrop._messages import shown
from fastdrop._serialization import Configurable, deserialize, plain, serialize

__all__ = [
    "CosineDecay",
    "ExponentialDecay",
    "InverseTimeDecay",
    "LearningRate",
    "LearningRateSchedule",
    "PiecewiseConstantDecay",
    "PolynomialDecay",
]


@dataclass(frozen=True)
class LearningRateSchedule(Configurable):
    """Base class of the schedules. They check their arguments once, when they are made."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, Mapping) and set(value) == {"class_name", "config"}:
                value = deserialize(field.name, value, LearningRateSchedule)
            elif not isinstance(value, Configurable):
                value = plain(value)  # a Python number, even for a NumPy one
            object.__setattr__(self, field.name, value)

    def __call__(self, step: int) -> float:
        """Return the learning rate of an update.

        Parameters
        ----------
        step : int
            The number of the update, counted from 0.

        Returns
        -------
        float
            The learning rate.
        """
        raise NotImplementedError


@dataclass(frozen=True)
class _RateDecay(LearningRateSchedule):
    """Base class of schedules that decay by a rate in every `decay_steps`."""

    initial_learning_rate: float
    decay_steps: int
    decay_rate: float
    staircase: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("initial_learning_rate", self.initial_learning_rate)
        check_count("decay_steps", self.decay_steps)
        check_number("decay_rate", self.decay_rate)

    def _periods(self, step: int) -> float:
        return step // self.decay_steps if self.staircase else step / self.decay_steps


@dataclass(frozen=True)
class ExponentialDecay(_RateDecay):
    """Decay by a constant factor: initial_learning_rate decay_rate^(step / decay_steps).

    Parameters
    ----------
    initial_learning_rate : float
        The rate at step 0, at least 0.
    decay_steps : int
        The number of updates in which the rate changes by `decay_rate`, at least 1.
    decay_rate : float
        The factor, at least 0.
    staircase : bool
        Whether to round step / decay_steps down.

    Raises
    ------
    ValueError
        When an argument is outside its range.
    """

    def __call__(self, step: int) -> float:
        return self.initial_learning_rate * self.decay_rate ** self._periods(step)


@dataclass(frozen=True)
class InverseTimeDecay(_RateDecay):
    """Decay like 1 / step: initial_learning_rate / (1 + decay_rate step / decay_steps).

    Parameters
    ----------
    initial_learning_rate, decay_steps, decay_rate, staircase
        As for `ExponentialDecay`.

    Raises
    ------
    ValueError
        When an argument is outside its range.
    """

    def __call__(self, step: int) -> float:
        return self.initial_learning_rate / (1 + self.decay_rate * self._periods(step))


@dataclass(frozen=True)
class PiecewiseConstantDecay(LearningRateSchedule):
    """Change the rate in steps: values[i] holds after boundaries[i - 1].

    Parameters
    ----------
    boundaries : sequence of int
        The last update with each value except the last value, at least one number, ascending.
    values : sequence of float
        The rates, each at least 0. There is one more than boundaries.

    Raises
    ------
    ValueError
        When an argument is outside its range.
    """

    boundaries: Sequence[int]
    values: Sequence[float]

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("boundaries", "values"):
            values = getattr(self, name)
            if not isinstance(values, Iterable):
                raise ValueError(f"{name}: expected a list of numbers, got {shown(values)}")
            values = tuple(plain(list(values)))
            object.__setattr__(self, name, values)  # a tuple, which stays as it was checked
        for boundary in self.boundaries:
            check_number("boundaries", boundary)
        if not self.boundaries or list(self.boundaries) != sorted(set(self.boundaries)):
            raise ValueError(f"boundaries: expected ascending steps, got {self.boundaries}")
        for value in self.values:
            check_number("values", value)
        if len(self.values) != len(self.boundaries) + 1:
            raise ValueError(
                f"values: expected {len(self.boundaries) + 1}, one more than boundaries, "
                f"got {len(self.values)}"
            )

    def __call__(self, step: int) -> float:
        return self.values[sum(step > boundary for boundary in self.boundaries)]


@dataclass(frozen=True)
class CosineDecay(LearningRateSchedule):
    """Half a cosine from the first rate down to alpha times this rate [1]_, after a warm-up if any.

    Parameters
    ----------
    initial_learning_rate : float
        The rate at step 0, at least 0. The cosine starts from it, or, with `warmup_target`, the
        warm-up does.
    decay_steps : int
        The number of updates of the cosine, at least 1, without those of the warm-up.
    alpha : float
        Share of the cosine's first rate that remains at the end, at least 0.
    warmup_target : float, optional
        The rate at which the warm-up ends and the cosine starts, at least 0.
    warmup_steps : int
        The number of updates of the warm-up, at least 0.

    Raises
    ------
    ValueError
        When an argument is outside its range.

    References
    ----------
    .. [1] Loshchilov and Hutter 2017, SGDR: stochastic gradient descent with warm restarts, ICLR.
    """

    initial_learning_rate: float
    decay_steps: int
    alpha: float = 0.0
    warmup_target: float | None = None
    warmup_steps: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("initial_learning_rate", self.initial_learning_rate)
        check_count("decay_steps", self.decay_steps)
        check_number("alpha", self.alpha)
        if self.warmup_target is not None:
            check_number("warmup_target", self.warmup_target)
        if self.warmup_steps != 0:
            check_count("warmup_steps", self.warmup_steps)

    def __call__(self, step: int) -> float:
        start = self.initial_learning_rate
        if self.warmup_target is not None:
            if step < self.warmup_steps:
                return start + (self.warmup_target - start) * (step / self.warmup_steps)
            step -= self.warmup_steps
            start = self.warmup_target
        cosine = 0.5 * (1 + math.cos(math.pi * min(step / self.decay_steps, 1)))
        return start * ((1 - self.alpha) * cosine + self.alpha)


@dataclass(frozen=True)
class PolynomialDecay(LearningRateSchedule):
    """From the first rate to the last, by a power of the share of the updates that is left.

    Parameters
    ----------
    initial_learning_rate : float
        The rate at step 0, at least 0.
    decay_steps : int
        The number of updates from the first rate to the last, at least 1.
    end_learning_rate : float
        The rate after `decay_steps` updates, at least 0.
    power : float
        At least 0; 1 is a straight line.
    cycle : bool
        Whether to replace `decay_steps`, once it is reached, by its next multiple.

    Raises
    ------
    ValueError
        When an argument is outside its range.
    """

    initial_learning_rate: float
    decay_steps: int
    end_learning_rate: float = 0.0001
    power: float = 1.0
    cycle: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("initial_learning_rate", self.initial_learning_rate)
        check_count("decay_steps", self.decay_steps)
        check_number("end_learning_rate", self.end_learning_rate)
        check_number("power", self.power)

    def __call__(self, step: int) -> float:
        steps = self.decay_steps
        if self.cycle:
            steps *= max(1, math.ceil(step / steps))
        left = 1 - min(step / steps, 1)
        start, end = self.initial_learning_rate, self.end_learning_rate
        return (start - end) * left**self.power + end


LearningRate: TypeAlias = float | Callable[[int], float]


def checked_learning_rate(rate: LearningRate | Mapping[str, Any]) -> LearningRate:
    """Return a number of at least 0, or a callable (also from `learning_rate_config`)."""
    if isinstance(rate, Mapping):
        return deserialize("learning_rate", rate, LearningRateSchedule)
    if callable(rate):
        return rate
    check_number("learning_rate", rate)
    return float(rate)


def learning_rate_config(rate: LearningRate) -> float | dict[str, Any]:
    """Return the rate for JSON, in a form that `checked_learning_rate` takes."""
    if isinstance(rate, LearningRateSchedule):
        return serialize(rate)
    if callable(rate):
        raise ValueError(
            "learning_rate: expected a number or one of fastdrop.learning_rates, for a config, "
            f"got {shown(rate)}"
        )
    return rate


def learning_rate_at(rate: LearningRate, step: int) -> float:
    """Return the learning rate of an update.

    Raises
    ------
    ValueError
        When a callable returns anything but a finite number of at least 0.
    """
    if not callable(rate):
        return rate
    value = rate(step)
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not 0 <= number < math.inf:
        raise ValueError(
            f"learning_rate: expected a finite number of at least 0, "
            f"got {shown(value)} at step {step}"
        )
    return number
