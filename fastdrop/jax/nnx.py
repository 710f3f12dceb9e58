"""flax.nnx's Dropout by fastdrop's kernels."""

from __future__ import annotations

from typing import Any

import jax

try:
    from flax import nnx
except ImportError as error:
    raise ImportError(f"fastdrop.jax.nnx needs Flax: pip install flax ({error})") from None

from fastdrop.jax.functional import dropout

__all__ = ["Dropout"]


class Dropout(nnx.Dropout):
    """`flax.nnx.Dropout` with fastdrop's kernels: the same arguments and the same stream of keys.

    Parameters
    ----------
    rate : float
        Probability of dropping.
    broadcast_dims : sequence of int
        Axes along which the mask is shared.
    deterministic, rng_collection, rngs
        As in `flax.nnx.Dropout`.
    """

    def __call__(
        self, inputs: Any, *, deterministic: bool | None = None, rngs: Any = None
    ) -> jax.Array:
        """Apply dropout.

        Parameters
        ----------
        inputs : Array
            The array to drop elements of.
        deterministic, rngs
            As in `flax.nnx.Dropout`.

        Returns
        -------
        Array
            Dropout of inputs, or inputs itself.
        """
        off = self.deterministic if deterministic is None else deterministic
        source = self.rngs if rngs is None else rngs
        if off is None or off or self.rate in (0, 1):  # Flax draws no key then
            return super().__call__(inputs, deterministic=deterministic, rngs=rngs)
        if isinstance(source, nnx.Rngs):
            key = source[self.rng_collection]()
        elif isinstance(source, nnx.RngStream):
            key = source()
        elif isinstance(source, jax.Array):
            key = source
        else:
            return super().__call__(inputs, deterministic=deterministic, rngs=rngs)  # raises
        return dropout(key, inputs, self.rate, shared_axes=self.broadcast_dims)
