"""Gaussian noise: layers that are random in training, as the dropout family is."""

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import partial

from fastdrop._checks import checked_stddev
from fastdrop.layers.base import Shape
from fastdrop.layers.dropout import RandomLayer, Rule, same
from fastdrop.layers.schedules import Rate, checked_rate, p_or_rate, rate_at
from fastdrop.noise import gaussian_dropout, gaussian_noise
from fastdrop.random import Key

__all__ = ["GaussianDropout", "GaussianNoise"]


class GaussianDropout(RandomLayer):
    """Multiply by Gaussian noise of mean 1 in training [1]_.

    The result is y = x (1 + sqrt(p / (1 - p)) z) with a standard normal z for each element.

    Parameters
    ----------
    p : float or callable
        A number in [0, 1), or a schedule of it; by default 0.5. The noise has the variance of
        dropout with this p.
    rate : float or callable, optional
        Keras's name for `p`.
    seed, input_shape, name
        As for `Layer`.

    Raises
    ------
    TypeError
        When both `p` and `rate` are given.
    ValueError
        When `p` is outside [0, 1).

    References
    ----------
    .. [1] Srivastava et al. 2014, Dropout: a simple way to prevent neural networks from
       overfitting, JMLR 15:1929, section 10.
    """

    def __init__(
        self,
        p: Rate | None = None,
        *,
        rate: Rate | None = None,
        seed: int | None = None,
        input_shape: Iterable[int] | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(seed=seed, input_shape=input_shape, name=name)
        self.p = checked_rate(p_or_rate(p, rate, 0.5))
        if self.p == 1:
            raise ValueError("p: expected 0 <= p < 1, got 1")

    def share_kept(self, step: int = 0) -> None:
        return None  # all is kept, and multiplied by noise

    def _rules(self, shape: Shape, key: Key, row: int, rows: int) -> tuple[Rule, Rule]:
        offset = row * math.prod(shape[1:])
        rule = partial(gaussian_dropout, p=rate_at(self.p, key.call), key=key, offset=offset)
        return rule, rule


class GaussianNoise(RandomLayer):
    """Add Gaussian noise in training [1]_.

    The result is y = x + stddev z with a standard normal z for each element.

    Parameters
    ----------
    stddev : float
        Standard deviation of the noise, at least 0.
    seed, input_shape, name
        As for `Layer`.

    Raises
    ------
    ValueError
        When `stddev` is negative or not finite.

    References
    ----------
    .. [1] Srivastava et al. 2014, Dropout: a simple way to prevent neural networks from
       overfitting, JMLR 15:1929, section 10.
    """

    def __init__(
        self,
        stddev: float,
        *,
        seed: int | None = None,
        input_shape: Iterable[int] | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(seed=seed, input_shape=input_shape, name=name)
        self.stddev = checked_stddev(stddev)

    def _rules(self, shape: Shape, key: Key, row: int, rows: int) -> tuple[Rule, Rule]:
        offset = row * math.prod(shape[1:])
        return partial(gaussian_noise, stddev=self.stddev, key=key, offset=offset), same
