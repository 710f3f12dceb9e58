"""Numbers that underflow become 0, whatever `numpy.seterr` is set to.

Programs that look for their own mistakes set ``numpy.seterr(all="raise")``. But it is no mistake
when an exponential, a product or a cast to a smaller type underflows. Our functions raise nothing
then, and leave the setting as it was.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial, wraps
from typing import Any, ParamSpec, TypeVar

import numpy as np

__all__ = ["bare", "quiet", "underflowing", "underflowing_both_ways"]

P = ParamSpec("P")
T = TypeVar("T")

_BARE: dict[Any, Callable[..., Any]] = {}


def quiet(**states: Any) -> np.errstate:
    """Return a context that ignores underflow, and sets `states` as `numpy.errstate` does."""
    return np.errstate(under="ignore", **states)


def _wrapped(function: Callable[P, T]) -> Callable[P, T]:
    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        with quiet():
            return function(*args, **kwargs)

    return call


def underflowing(function: Callable[P, T]) -> Callable[P, T]:
    """Let the numbers of a function of a module, or of a method, underflow."""
    call = _wrapped(function)
    _BARE[call] = function
    return call


def underflowing_both_ways(
    forward: Callable[P, tuple[T, Callable[..., Any]]],
) -> Callable[P, tuple[T, Callable[..., Any]]]:
    """Let them underflow, and those of the backward pass that it returns."""

    @wraps(forward)
    def call(*args: P.args, **kwargs: P.kwargs) -> tuple[T, Callable[..., Any]]:
        with quiet():
            y, backward = forward(*args, **kwargs)
        return y, _wrapped(backward)

    _BARE[call] = forward
    return call


def bare(forward: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function or method as it was written, without the context that it enters.

    For callers that ignore underflow themselves: to enter `numpy.errstate` takes a microsecond.
    """
    own = _BARE.get(getattr(forward, "__func__", forward))
    if own is None:
        return forward
    return partial(own, forward.__self__) if hasattr(forward, "__self__") else own
