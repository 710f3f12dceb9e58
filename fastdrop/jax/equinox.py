"""Equinox's Dropout by fastdrop's kernels."""

from __future__ import annotations

from typing import Any

try:
    import equinox
except ImportError as error:
    raise ImportError(
        f"fastdrop.jax.equinox needs Equinox: pip install equinox ({error})"
    ) from None

from fastdrop.jax.functional import dropout

__all__ = ["Dropout"]


class Dropout(equinox.nn.Dropout):
    """`equinox.nn.Dropout` with fastdrop's kernels.

    Parameters
    ----------
    p : float or Array
        Probability of dropping. It may be traced; as in Equinox, no gradient flows to it.
    inference : bool
        Whether to return the input as it is.
    """

    def __call__(
        self,
        x: Any,
        *,
        key: Any = None,
        inference: bool | None = None,
        deterministic: bool | None = None,
    ) -> Any:
        """Apply dropout.

        Parameters
        ----------
        x : Array
            The array to drop elements of.
        key, inference, deterministic
            As in `equinox.nn.Dropout`.

        Returns
        -------
        Array
            Dropout of x, or x itself.
        """
        off = self.inference if inference is None else inference
        if deterministic is not None or off or key is None:
            return self._original(x, key, inference, deterministic)
        return dropout(key, x, self.p)

    def _original(self, x: Any, key: Any, inference: Any, deterministic: Any) -> Any:
        """Call Equinox's own layer in cases where it warns, returns x or raises."""
        if deterministic is None:
            return super().__call__(x, key=key, inference=inference)
        off = super().__call__(x, key=None, deterministic=True)  # warns
        return off if deterministic else self(x, key=key, inference=False)
