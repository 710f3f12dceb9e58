"""flax.linen's Dropout by fastdrop's kernels."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp

try:
    from flax import linen
except ImportError as error:
    raise ImportError(f"fastdrop.jax.linen needs Flax: pip install flax ({error})") from None

from fastdrop.jax.functional import dropout

__all__ = ["Dropout"]


class Dropout(linen.Dropout):
    """`flax.linen.Dropout` with fastdrop's kernels: the same arguments and the same stream of keys.

    Parameters
    ----------
    rate : float
        Probability of dropping.
    broadcast_dims : sequence of int
        Axes along which the mask is shared.
    deterministic, rng_collection
        As in `flax.linen.Dropout`.
    """

    @linen.compact
    def __call__(self, inputs: Any, deterministic: bool | None = None, rng: Any = None) -> Any:
        """Apply dropout.

        Parameters
        ----------
        inputs : Array
            The array to drop elements of.
        deterministic, rng
            As in `flax.linen.Dropout`.

        Returns
        -------
        Array
            Dropout of inputs, or inputs itself.
        """
        off = linen.merge_param("deterministic", self.deterministic, deterministic)
        if off or self.rate == 0:
            return inputs
        if self.rate == 1:  # Flax draws no key then
            return jnp.zeros_like(inputs)
        key = self.make_rng(self.rng_collection) if rng is None else rng
        return dropout(key, inputs, self.rate, shared_axes=self.broadcast_dims)
