"""Keras's backend tensorflow: kernels in a `tf.numpy_function`."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from fastdrop.keras.rules import Rule, key_of, run

__all__ = ["SUPPORTS_JIT", "apply"]

SUPPORTS_JIT = False  # XLA cannot call Python


def apply(x: Any, rule: Rule, state: Any) -> Any:
    """Apply a rule with the key of a seed generator's state: (seed, call).

    Parameters
    ----------
    x : tf.Tensor
        Lengths may be unknown.
    rule : Rule
    state : tf.Tensor
        Two integers.

    Returns
    -------
    tf.Tensor
    """
    if x.shape.rank is not None and x.shape.is_fully_defined():
        rule.shared(tuple(x.shape))  # what does not fit is said now

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
    return run(np.asarray(x), rule, key_of(*map(int, state)))
