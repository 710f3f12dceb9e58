"""Keras's backend tensorflow, by kernels in a `tf.numpy_function`."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from fastdrop.keras.lent import empty_like
from fastdrop.keras.rules import Rule, key_of, run

__all__ = ["SUPPORTS_JIT", "apply"]

SUPPORTS_JIT = False  # XLA cannot call Python


def apply(x: Any, rule: Rule, state: Any) -> Any:
    """Apply a rule with the key of a seed generator's state: (seed, call).

    Parameters
    ----------
    x : tf.Tensor
        The tensor. Some of its lengths may be unknown.
    rule : Rule
        What to do to it.
    state : tf.Tensor
        Two integers, the seed and the call.

    Returns
    -------
    tf.Tensor
        The result, like x.
    """
    if x.shape.rank is not None and x.shape.is_fully_defined():
        rule.shared(tuple(x.shape))  # raises now if noise_shape does not fit

    @tf.custom_gradient  # type: ignore[untyped-decorator, unused-ignore]
    def masked(x: Any) -> Any:
        y = tf.numpy_function(
            lambda x, state: _run(x, rule, state), [x, state], x.dtype, stateful=False
        )
        y.set_shape(x.shape)
        gradient = rule.gradient
        return y, lambda dy: dy if gradient is None else apply(dy, gradient, state)

    return masked(x)


def _run(x: Any, rule: Rule, state: Any) -> Any:
    x = np.asarray(x)
    return run(x, rule, key_of(*map(int, state)), empty_like(x))
