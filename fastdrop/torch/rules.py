"""What is done to a tensor, apart from how gradients, compilers and transforms see it.

A `Rule` and a seed make a pure function of a tensor, `apply`. All rules but "alpha" are linear, and
so their own gradient.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from numpy.typing import NDArray
from torch import Tensor

from fastdrop.compiled import _core
from fastdrop.functional import inverted_scale
from fastdrop.noise import gaussian_dropout
from fastdrop.random import Key
from fastdrop.torch.samples import Seed, Seeds
from fastdrop.torch.tensors import DTYPES, array, empty, in_memory_order, thread_limit, undone
from fastdrop.variants import alpha_dropout, alpha_dropout_backward, drop_block2d

__all__ = ["Packed", "Rule", "apply", "scale_elements"]

Packed = NDArray[Any] | None


class Rule(NamedTuple):
    """A member of the dropout family, with its parameters.

    Attributes
    ----------
    kind : {"scale", "alpha", "alpha gradient", "gaussian", "blocks"}
        Which member it is.
    p : float
        Probability of dropping, or the share to drop of "blocks".
    shared : tuple of int
        Axes along which a decision is shared.
    order : tuple of int
        The axes in the order in which the mask counts them, the outermost first; () for their own
        order.
    block_size : int
        The side of the blocks of "blocks".
    """

    kind: str
    p: float
    shared: tuple[int, ...] = ()
    order: tuple[int, ...] = ()
    block_size: int = 0

    @property
    def gradient(self) -> Rule:
        """The rule for dy."""
        return self._replace(kind="alpha gradient") if self.kind == "alpha" else self


def apply(
    x: Tensor,
    seed: Seed,
    rule: Rule,
    packed: Packed = None,
    inplace: bool = False,
    save_mask: bool = False,
) -> tuple[Tensor, Packed]:
    """Apply a rule, without autograd.

    Parameters
    ----------
    x : Tensor
        A plain tensor.
    seed : int or Seeds
        The seed of the key, or a seed for each of several samples.
    rule : Rule
        What to do to x.
    packed : ndarray, optional
        The packed mask of a "scale", if it exists already.
    inplace : bool
        Whether to write to the memory of x. PyTorch is not told about it.
    save_mask : bool
        Whether to return the packed mask of a "scale".

    Returns
    -------
    y : Tensor
        x itself, or a new tensor whose axes lie in memory in the rule's order.
    packed : ndarray or None
        The packed mask, if asked for.
    """
    if isinstance(seed, Seeds):
        return _apply_to_samples(x, seed, rule, inplace), None
    kind, p, shared, order, _ = rule
    if kind == "scale" and not (shared or order or inplace or save_mask) and packed is None:
        return scale_elements(x.contiguous(), p, seed), None
    source = in_memory_order(x, order)
    if not inplace:  # not a view, because autograd refuses to write to a view that a Function makes
        y = empty(undone(source, order))
        return y, _run(source, y, seed, rule, packed, save_mask)
    packed = _run(source, source, seed, rule, packed, save_mask)
    if source.data_ptr() != x.data_ptr():
        x.copy_(undone(source, order))
    return x, packed


def scale_elements(x: Tensor, p: float, seed: Seed) -> Tensor:
    """Do what `apply` does in the usual case: a "scale" of contiguous elements that share nothing.

    It makes no arrays, which would take a tenth of the time on small tensors.

    Parameters
    ----------
    x : Tensor
        A plain and contiguous tensor.
    p : float
        Probability of dropping.
    seed : int or Seeds
        The seed of the key, or a seed for each of several samples.

    Returns
    -------
    Tensor
        Dropout of x.
    """
    if isinstance(seed, Seeds):
        return _apply_to_samples(x, seed, Rule("scale", p), False)
    y = empty(x)
    n, dtype, scale = x.numel(), DTYPES[x.dtype], inverted_scale(p)
    _core.masked_scale_memory(x.data_ptr(), y.data_ptr(), n, dtype, p, scale, seed, thread_limit())
    return y


def _apply_to_samples(x: Tensor, seeds: Seeds, rule: Rule, inplace: bool) -> Tensor:
    """Apply a rule to each part of the first axis that is a sample, with a seed of its own.

    `inplace` only means that the memory of x is used where it can hold the result.
    """
    values, spread, group = seeds
    if rule.order[:1] not in ((), (0,)):  # masks count along the first axis
        rule = rule._replace(order=())
    source = in_memory_order(x, rule.order)
    length = source.shape[0] if source.dim() else 0
    n, rest = divmod(length, 1 if spread else len(values))
    fits = n and not rest and not (group.row and n % group.rows)
    if len(values) == 1 and not (group.row and fits):
        group.see(x.numel())
        seed = Key(values[0]).fold_in(group.row).seed if group.row else values[0]
        return apply(x, seed, rule, None, inplace)[0]
    if not fits:
        raise ValueError(f"expected {len(values)} samples on the first axis, got {length}")
    offset = group.row * (n // group.rows) * _places(x, rule) if group.row else 0
    if inplace and not spread and source.data_ptr() == x.data_ptr():
        y = source
    else:
        y = empty(source, (n * len(values), *source.shape[1:]))
    if rule.kind == "scale" and not (rule.shared or offset):
        _scale_parts(source, y, values, rule.p)
    else:
        for i, value in enumerate(values):
            part = source if spread else source[i * n : (i + 1) * n]
            _run(part, y[i * n : (i + 1) * n], value, rule, None, False, offset)
    return undone(y, rule.order)


def _scale_parts(x: Tensor, y: Tensor, seeds: tuple[int, ...], p: float) -> None:
    """Apply `scale_elements` to each part of y, from the part of x or from a shared x."""
    n = y.numel() // len(seeds)
    dtype, scale, threads = DTYPES[y.dtype], inverted_scale(p), thread_limit()
    source, target, step = x.data_ptr(), y.data_ptr(), n * y.itemsize
    repeated = x.numel() == n
    for seed in seeds:
        _core.masked_scale_memory(source, target, n, dtype, p, scale, seed, threads)
        source, target = source if repeated else source + step, target + step


def _places(x: Tensor, rule: Rule) -> int:
    """Return how many elements a mask has for each row of x."""
    if rule.kind == "blocks":
        return x.shape[1] * math.prod(length - rule.block_size + 1 for length in x.shape[2:])
    if 0 in rule.shared:
        return 0
    return math.prod(n for axis, n in enumerate(x.shape) if axis and axis not in rule.shared)


def _run(
    x: Tensor,
    y: Tensor,
    seed: int,
    rule: Rule,
    packed: Packed,
    save_mask: bool,
    offset: int = 0,
) -> Packed:
    """Run a kernel on contiguous tensors, with the axes in the rule's order.

    `offset` is the place of the first element of x in the mask.
    """
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
            _, packed = _core.masked_scale(
                source, p, scale, seed, 0, axes, offset, out, True, threads
            )
        else:
            _core.masked_scale(source, p, scale, seed, 0, axes, offset, out, False, threads)
        return packed
    options: dict[str, Any] = {
        "key": Key(seed),
        "offset": offset,
        "out": out,
        "num_threads": threads,
    }
    if kind == "alpha":
        alpha_dropout(source, p, shared_axes=axes, **options)
    elif kind == "alpha gradient":
        alpha_dropout_backward(source, p, shared_axes=axes, **options)
    elif kind == "gaussian":
        gaussian_dropout(source, p, **options)
    else:
        drop_block2d(source, p, block_size, **options)
    return None
