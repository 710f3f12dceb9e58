"""What is done to an array, apart from how gradients, batches and shardings see it."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["Rule"]


class Rule(NamedTuple):
    """A member of the dropout family, with all parameters that are known when a program is traced.

    Attributes
    ----------
    op : {"scale", "add", "bias", "bias relu", "alpha", "gaussian", "noise"}
        An operation of `fastdrop.compiled._core.OPS`.
    p : float or None
        Probability of dropping. None if p is an operand, and scale is then 1 / (1 - p).
    scale, shift, fill : float
        As in fd_op of kernels.h.
    shared : tuple of int
        Axes along which a decision is shared, counted without batch axes.
    """

    op: str
    p: float | None
    scale: float
    shift: float = 0.0
    fill: float = 0.0
    shared: tuple[int, ...] = ()

    @property
    def has_second(self) -> bool:
        """Whether there is a second operand: a residual, or a bias."""
        return self.op in ("add", "bias", "bias relu")

    @property
    def linear(self) -> Rule:
        """The rule for a tangent, and for a gradient."""
        return self if self.op == "gaussian" else self._replace(op="scale", shift=0.0, fill=0.0)
