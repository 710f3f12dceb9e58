"""Keras's backend jax, by fastdrop.jax."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp

from fastdrop.jax import alpha_dropout, dropout, gaussian_dropout, gaussian_noise
from fastdrop.keras.rules import Rule

__all__ = ["SUPPORTS_JIT", "apply"]

SUPPORTS_JIT = True


def apply(x: Any, rule: Rule, state: Any) -> Any:
    """Apply a rule with the key of a seed generator's state: (seed, call).

    Parameters
    ----------
    x : Array
        The array.
    rule : Rule
        What to do to it.
    state : Array
        Two integers, the seed and the call.

    Returns
    -------
    Array
        The result, like x.
    """
    seed, call = (word.astype(jnp.uint32) for word in state)
    zero = jnp.zeros_like(seed)
    key = jnp.stack([zero, seed, zero, call])
    if rule.kind == "gaussian":
        return gaussian_dropout(key, x, rule.p)
    if rule.kind == "noise":
        return gaussian_noise(key, x, rule.p)
    function = alpha_dropout if rule.kind == "alpha" else dropout
    return function(key, x, rule.p, shared_axes=rule.shared(x.shape))
