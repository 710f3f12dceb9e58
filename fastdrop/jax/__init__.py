"""JAX's dropout by fastdrop's kernels: ``from fastdrop.jax import dropout``.

This module has functions of a key of `jax.random` and an array. `fastdrop.jax.nnx`, `.linen` and
`.equinox` have layers for Flax and Equinox; they are imported only when asked for.
docs/reference/jax.md has the details.
"""

_NEEDED = (0, 8, 1)  # 0.8.0 crashes where a key differs between the devices of a shard_map

try:
    import jax as _jax
except ImportError as error:
    raise ImportError(f"fastdrop.jax needs JAX: pip install 'fastdrop-nn[jax]' ({error})") from None
if _jax.__version_info__ < _NEEDED:
    raise ImportError(
        f"fastdrop.jax needs JAX {'.'.join(map(str, _NEEDED))} or later, got {_jax.__version__}: "
        "pip install 'fastdrop-nn[jax]'"
    )

from fastdrop.jax.functional import (
    alpha_dropout,
    bias_act_dropout,
    drop_path,
    dropout,
    dropout_add,
    gaussian_dropout,
    gaussian_noise,
)
from fastdrop.jax.handler import register

__all__ = [
    "alpha_dropout",
    "bias_act_dropout",
    "drop_path",
    "dropout",
    "dropout_add",
    "gaussian_dropout",
    "gaussian_noise",
    "register",
]
