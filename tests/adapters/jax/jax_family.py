"""What the tests of fastdrop.jax share: its family beside the functions of NumPy's arrays."""

from contextlib import contextmanager
from typing import NamedTuple

import jax
import numpy as np

import fastdrop
import fastdrop.jax as fjax

DTYPES = ["float16", "bfloat16", "float32", "float64"]
KEY = fastdrop.Key(42)
RESIDUAL = np.random.default_rng(1).normal(size=(6, 5, 130))


class Function(NamedTuple):
    """Of a key, x and p; with JAX's arrays and with NumPy's."""

    jax: object
    numpy: object
    exact: bool = True  # elsewhere than on CPUs, too


def _like(x, n=None):
    other = RESIDUAL if n is None else RESIDUAL[0, 0]
    return np.resize(other, x.shape if n is None else (n,)).astype(x.dtype)


def _relu(x, p, key):
    return fastdrop.bias_act_dropout(x, _like(x, x.shape[-1]), "relu", p, key=key)


FAMILY = {
    "dropout": Function(fjax.dropout, lambda x, p, key: fastdrop.dropout(x, p, key=key)),
    "channels": Function(
        lambda key, x, p: fjax.dropout(key, x, p, shared_axes=(-1,)),
        lambda x, p, key: fastdrop.dropout(x, p, key=key, shared_axes=(-1,)),
    ),
    "locked": Function(
        lambda key, x, p: fjax.dropout(key, x, p, shared_axes=1),
        lambda x, p, key: fastdrop.dropout(x, p, key=key, shared_axes=1),
    ),
    "alpha": Function(fjax.alpha_dropout, lambda x, p, key: fastdrop.alpha_dropout(x, p, key=key)),
    "feature alpha": Function(
        lambda key, x, p: fjax.alpha_dropout(key, x, p, shared_axes=range(2, x.ndim)),
        lambda x, p, key: fastdrop.feature_alpha_dropout(x, p, key=key),
    ),
    "path": Function(fjax.drop_path, lambda x, p, key: fastdrop.drop_path(x, p, key=key)),
    "path, batch": Function(
        lambda key, x, p: fjax.drop_path(key, x, p, mode="batch"),
        lambda x, p, key: fastdrop.drop_path(x, p, key=key, mode="batch"),
    ),
    "gaussian": Function(
        fjax.gaussian_dropout, lambda x, p, key: fastdrop.gaussian_dropout(x, p, key=key), False
    ),
    "noise": Function(
        fjax.gaussian_noise, lambda x, p, key: fastdrop.gaussian_noise(x, p, key=key), False
    ),
    "add": Function(
        lambda key, x, p: fjax.dropout_add(key, x, _like(x), p),
        lambda x, p, key: fastdrop.dropout_add(x, _like(x), p, key=key),
    ),
    "bias": Function(
        lambda key, x, p: fjax.bias_act_dropout(key, x, _like(x, x.shape[-1]), None, p),
        lambda x, p, key: fastdrop.bias_act_dropout(x, _like(x, x.shape[-1]), None, p, key=key),
    ),
    "bias relu": Function(
        lambda key, x, p: fjax.bias_act_dropout(key, x, _like(x, x.shape[-1]), "relu", p), _relu
    ),
}


def numbers(shape, dtype="float32", seed=0):
    import ml_dtypes  # JAX needs it

    dtype = ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


def key_of(key):
    """The library's key for one of JAX's with two words."""
    high, low = np.asarray(jax.random.key_data(key))
    return fastdrop.Key(int(high) << 32 | int(low))


@contextmanager
def x64(on=True):
    before = jax.config.jax_enable_x64
    jax.config.update("jax_enable_x64", on)
    try:
        yield
    finally:
        jax.config.update("jax_enable_x64", before)
