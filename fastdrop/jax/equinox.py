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
    """`equinox.nn.Dropout`, by fastdrop's kernels, with its arguments.

    Parameters
    ----------
    p : float or Array
        Probability of dropping; it may be traced. As there, no gradient flows to it.
    inference : bool
        Return the input as it is.
    """

    def __call__(
        self,
        x: Any,
        *,
        key: Any = None,
        inference: bool | None = None,
        deterministic: bool | None = None,
    ) -> Any:
        """Apply dropout; see `equinox.nn.Dropout` for the arguments."""
        off = self.inference if inference is None else inference
        if deterministic is not None or off or key is None:
            return self._original(x, key, inference, deterministic)
        return dropout(key, x, self.p)

    def _original(self, x: Any, key: Any, inference: Any, deterministic: Any) -> Any:
        """What warns, returns x or raises there does so here."""
        if deterministic is None:
            return super().__call__(x, key=key, inference=inference)
        off = super().__call__(x, key=None, deterministic=True)  # warns
        return off if deterministic else self(x, key=key, inference=False)
