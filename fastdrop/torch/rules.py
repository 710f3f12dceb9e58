"""What is done to a tensor, apart from how gradients, compilers and transforms see it.

A `Rule` and a seed make a pure function of a tensor: `apply`. All of them but "alpha" are linear,
and their own gradient.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from numpy.typing import NDArray
from torch import Tensor

from fastdrop.compiled import _core
from fastdrop.functional import inverted_scale
from fastdrop.noise import gaussian_dropout
from fastdrop.random import Key
from fastdrop.torch.tensors import DTYPES, array, empty, in_memory_order, thread_limit, undone
from fastdrop.variants import alpha_dropout, alpha_dropout_backward, drop_block2d

__all__ = ["Packed", "Rule", "apply", "scale_elements"]

Packed = NDArray[Any] | None


class Rule(NamedTuple):
    """One of the family, with its parameters.

    Attributes
    ----------
    kind : {"scale", "alpha", "alpha gradient", "gaussian", "blocks"}
    p : float
    shared : tuple of int
        Axes along which a decision is shared.
    order : tuple of int
        The axes as the mask counts them, the outermost first; () for their own order.
    block_size : int
        Of "blocks".
    """

    kind: str
    p: float
    shared: tuple[int, ...] = ()
    order: tuple[int, ...] = ()
    block_size: int = 0

    @property
    def gradient(self) -> Rule:
        """What is done to dy."""
        return self._replace(kind="alpha gradient") if self.kind == "alpha" else self


def apply(
    x: Tensor,
    seed: int,
    rule: Rule,
    packed: Packed = None,
    inplace: bool = False,
    save_mask: bool = False,
) -> tuple[Tensor, Packed]:
    """Apply a rule; no part of autograd.

    Parameters
    ----------
    x : Tensor
        Plain.
    seed : int
        The key's.
    rule : Rule
    packed : ndarray, optional
        The packed mask of a "scale", if it is there already.
    inplace : bool
        Write to x's memory; PyTorch is not told.
    save_mask : bool
        Return the packed mask of a "scale".

    Returns
    -------
    y : Tensor
        x, or a new tensor whose axes lie in memory in the rule's order.
    packed : ndarray or None
    """
    kind, p, shared, order, _ = rule
    if kind == "scale" and not (shared or order or inplace or save_mask) and packed is None:
        return scale_elements(x.contiguous(), p, seed), None
    source = in_memory_order(x, order)
    y = source if inplace else empty(source)
    packed = _run(source, y, seed, rule, packed, save_mask)
    if not inplace:
        return undone(y, order), packed
    if y.data_ptr() != x.data_ptr():
        x.copy_(undone(y, order))
    return x, packed


def scale_elements(x: Tensor, p: float, seed: int) -> Tensor:
    """`apply` in the usual case, a "scale" of contiguous elements that share nothing.

    Without arrays, which on small tensors would be a tenth of the time.

    Parameters
    ----------
    x : Tensor
        Plain and contiguous.
    p : float
    seed : int

    Returns
    -------
    Tensor
    """
    y = empty(x)
    n, dtype, scale = x.numel(), DTYPES[x.dtype], inverted_scale(p)
    _core.masked_scale_memory(x.data_ptr(), y.data_ptr(), n, dtype, p, scale, seed, thread_limit())
    return y


def _run(x: Tensor, y: Tensor, seed: int, rule: Rule, packed: Packed, save_mask: bool) -> Packed:
    """Run a kernel on contiguous tensors, with the axes in the rule's order."""
    kind, p, axes, order, block_size = rule
    shape = tuple(x.shape) if axes or block_size else (x.numel(),)
    source, out, threads = array(x, shape), array(y, shape), thread_limit()
    if order:
        axes = tuple(order.index(axis) for axis in axes)
    if kind == "scale":
        scale = inverted_scale(p)
        if packed is not None:
            _core.apply_packed(source, packed, scale, axes, out, threads)
        elif save_mask:
            _, packed = _core.masked_scale(source, p, scale, seed, 0, axes, 0, out, True, threads)
        else:
            _core.masked_scale(source, p, scale, seed, 0, axes, 0, out, False, threads)
        return packed
    key: Any = Key(seed)
    if kind == "alpha":
        alpha_dropout(source, p, key=key, shared_axes=axes, out=out, num_threads=threads)
    elif kind == "alpha gradient":
        alpha_dropout_backward(source, p, key=key, shared_axes=axes, out=out, num_threads=threads)
    elif kind == "gaussian":
        gaussian_dropout(source, p, key=key, out=out, num_threads=threads)
    else:
        drop_block2d(source, p, block_size, key=key, out=out, num_threads=threads)
    return None
