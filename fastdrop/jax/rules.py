"""What is done to an array, apart from how gradients, batches and shardings see it."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["Rule"]


class Rule(NamedTuple):
    """One of the family, with its parameters: all that is known when a program is traced.

    Attributes
    ----------
    op : {"scale", "add", "bias", "bias relu", "alpha", "gaussian", "noise"}
        Of `fastdrop.compiled._core.OPS`.
    p : float or None
        Probability of dropping; None where it is an operand, and scale is 1 / (1 - p).
    scale, shift, fill : float
        As in fd_op of kernels.h.
    shared : tuple of int
        Axes along which a decision is shared; batch axes do not count.
    """

    op: str
    p: float | None
    scale: float
    shift: float = 0.0
    fill: float = 0.0
    shared: tuple[int, ...] = ()

    @property
    def has_second(self) -> bool:
        """Is there a second operand: a residual, or a bias?"""
        return self.op in ("add", "bias", "bias relu")

    @property
    def linear(self) -> Rule:
        """What is done to a tangent, and to a gradient."""
        return self if self.op == "gaussian" else self._replace(op="scale", shift=0.0, fill=0.0)
