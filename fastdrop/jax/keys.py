"""Keys from JAX's keys, whose words are a seed and a call."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

__all__ = ["key_words"]


def key_words(key: Any) -> Array:
    """Return the words of a key of `jax.random`, of any implementation.

    Parameters
    ----------
    key : Array
        A typed key, or a raw one of uint32.

    Returns
    -------
    Array of uint32
        1, 2 or 4 words of seed and call, each with the high word first. One or two words are the
        seed, and call is 0.

    Raises
    ------
    TypeError, ValueError
        If it is not a key, or is an array of keys.
    """
    dtype = getattr(key, "dtype", None)
    if dtype is None:
        raise TypeError(f"key: expected a key of jax.random, got {type(key).__name__}")
    if jnp.issubdtype(dtype, jax.dtypes.prng_key):
        if key.shape:
            raise ValueError(f"key: expected one key, got an array of shape {key.shape}")
        words: Array = jax.random.key_data(key)
    elif dtype == jnp.uint32:
        words = jnp.asarray(key)
    else:
        raise TypeError(f"key: expected a key of jax.random or its uint32 words, got {dtype}")
    if words.ndim != 1 or words.shape[0] not in (1, 2, 4):
        raise ValueError(f"key: expected 1, 2 or 4 words of uint32, got shape {words.shape}")
    return words
