"""The same function of a tensor in eager mode, in torch.func's transforms, and for compilers.

In eager mode an autograd.Function costs half as much as an operator. Transforms need a Function of
another form, and compilers need the operator.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function, forward_ad
from torch.autograd.graph import increment_version
from torch.compiler import is_compiling

from fastdrop.torch import operators
from fastdrop.torch.keys import draw_key, draw_seed
from fastdrop.torch.rules import Packed, Rule, apply, scale_elements
from fastdrop.torch.samples import Seed
from fastdrop.torch.tensors import DTYPES, is_batched, is_plain

__all__ = [
    "again",
    "at_once",
    "drop",
    "drop_elements",
    "forbids_in_place",
    "is_eager",
    "is_usual",
    "transforms_are_active",
]


def transforms_are_active() -> bool:
    """Tell whether torch.func's transforms, or forward-mode gradients, are active."""
    return torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0


def is_eager() -> bool:
    """Tell whether no compiler, dispatch mode, transform or forward-mode gradient is active."""
    return not (is_compiling() or torch._C._len_torch_dispatch_stack() or transforms_are_active())


def is_usual(x: Tensor) -> bool:
    """Tell `is_eager() and is_plain(x)` in a third of the time, for calls that PyTorch makes.

    Such a call passes a tensor on the CPU that is not nested, outside of the tracing of torch.jit
    and torch.compile.
    """
    return (
        (type(x) is Tensor or type(x) is torch.nn.Parameter)
        and x.dtype in DTYPES
        and x.layout is torch.strided
        and not (x.is_neg() or x._is_zerotensor())
        and not torch._C._len_torch_dispatch_stack()
        and not torch._C._are_functorch_transforms_active()
        and forward_ad._current_level < 0
        and not is_batched(x)
        and x.numel() > 0
    )


def needs_graph(x: Tensor) -> bool:
    """Tell whether autograd has to know what is done to x."""
    return x.requires_grad and torch.is_grad_enabled()


def forbids_in_place(x: Tensor) -> bool:
    """Tell whether PyTorch would refuse to write to x, or has special rules for such a view."""
    if is_compiling():  # a compiler has all such checks as well
        return False
    if x.is_inference():
        return not torch.is_inference_mode_enabled()
    if not needs_graph(x):
        return False
    if not x._is_view():
        return x.is_leaf
    base = x._base
    return (base.is_leaf and base.requires_grad) or (
        torch._C._autograd._get_creation_meta(x) != torch._C._autograd.CreationMeta.DEFAULT
    )


def drop(
    x: Tensor,
    rule: Rule,
    generator: torch.Generator | None,
    inplace: bool = False,
    save_mask: bool = False,
) -> Tensor:
    """Apply a rule with a key drawn from a generator.

    Parameters
    ----------
    x : Tensor
        A plain tensor.
    rule : Rule
        What to do to x.
    generator : torch.Generator, optional
        The source of the key; by default PyTorch's default generator.
    inplace : bool
        Whether to write to the memory of x.
    save_mask : bool
        Whether to keep the packed mask for backward, not to draw it again. This is for a "scale" in
        eager mode.

    Returns
    -------
    Tensor
        The result of the rule.
    """
    p = 0.0 if rule.kind == "blocks" else rule.p  # blocks leave gaps even at p = 1
    if not is_eager():
        y = _transformed(x, draw_key(generator, p), rule)
        return x.copy_(y) if inplace else y
    return again(x, draw_seed(generator, p), rule, None, inplace, save_mask)


def at_once(
    x: Tensor,
    seed: Seed,
    rule: Rule,
    packed: Packed = None,
    inplace: bool = False,
    save_mask: bool = False,
) -> Tensor:
    """Do what `again` does for a plain tensor, unseen by dispatch modes. It saves no tensor.

    Parameters
    ----------
    x, seed, rule, packed, inplace, save_mask
        As for `again`.

    Returns
    -------
    Tensor
        The result of the rule.
    """
    if needs_graph(x):
        return _masked(x, (seed, rule, packed, inplace, save_mask))
    if inplace:
        increment_version(x)
    return apply(x, seed, rule, packed, inplace)[0]


def drop_elements(x: Tensor, p: float, seed: Seed) -> Tensor:
    """Do what `again` does in the usual case, with few calls, which dominate for small tensors.

    Parameters
    ----------
    x : Tensor
        A plain and contiguous tensor, in eager mode.
    p : float
        Probability of dropping.
    seed : int or Seeds
        The seed of the key, or a seed for each sample.

    Returns
    -------
    Tensor
        Dropout of x.
    """
    if x.requires_grad and torch.is_grad_enabled():
        y: Tensor = _elements(x, (p, seed))
        return y
    return scale_elements(x, p, seed)


def _transformed(x: Tensor, key: Tensor, rule: Rule) -> Tensor:
    if transforms_are_active() and not is_batched(x):
        y: Tensor = _Transformed.apply(x, key, rule)
        return y
    return operators.masked(x, key, *rule)


def again(
    x: Tensor,
    seed: Seed,
    rule: Rule,
    packed: Packed = None,
    inplace: bool = False,
    save_mask: bool = False,
) -> Tensor:
    """Apply a rule with a key that was drawn before.

    Parameters
    ----------
    x : Tensor
        The tensor.
    seed : int or Seeds
        The seed of the key, or a seed for each sample.
    rule : Rule
        What to do to x.
    packed : ndarray, optional
        The mask of a "scale", if it exists already.
    inplace : bool
        Whether to write to the memory of x.
    save_mask : bool
        As for `drop`.

    Returns
    -------
    Tensor
        The result of the rule.
    """
    if is_eager() and is_plain(x):
        return at_once(x, seed, rule, packed, inplace, save_mask)
    y = _transformed(x, torch.tensor(seed, dtype=torch.int64, device="cpu"), rule)
    return x.copy_(y) if inplace else y


class _Masked(Function):
    """A rule in eager mode. What is no tensor comes in one tuple, as each argument costs time."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, how: tuple[Seed, Rule, Packed, bool, bool]) -> Tensor:
        seed, rule, packed, inplace, save_mask = how
        y, packed = apply(x, seed, rule, packed, inplace, save_mask)
        ctx.saved = seed, rule, packed
        if inplace:
            ctx.mark_dirty(x)
        return y

    @staticmethod
    @operators.untraced
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, None]:
        seed, rule, packed = ctx.saved
        return again(dy, seed, rule.gradient, packed), None


# Calls apply without the checks for torch.func's transforms, which is_eager has made already.
_masked = super(Function, _Masked).apply


class _Elements(Function):
    """The same as `_Masked`, in the usual case."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, how: tuple[float, Seed]) -> Tensor:
        ctx.how = how
        return scale_elements(x, *how)

    @staticmethod
    @operators.untraced
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, None]:
        p, seed = ctx.how
        if not (torch.is_grad_enabled() or is_compiling()) and is_usual(dy):
            return scale_elements(dy.contiguous(), p, seed), None
        return again(dy, seed, Rule("scale", p)), None


_elements = super(Function, _Elements).apply


class _Transformed(Function):
    """A rule in torch.func's transforms. The key is a tensor, so that vmap can have many keys."""

    @staticmethod
    def forward(x: Tensor, key: Tensor, rule: Rule) -> Tensor:
        return apply(x.resolve_neg(), int(key), rule)[0]

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Rule], output: Tensor) -> None:
        _, key, rule = inputs
        ctx.rule = rule.gradient
        ctx.save_for_backward(key)
        ctx.save_for_forward(key)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, None, None]:
        (key,) = ctx.saved_tensors
        return _Transformed.apply(dy, key, ctx.rule), None, None

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, *_: None) -> Tensor:
        (key,) = ctx.saved_tensors
        return _transformed(tangent, key, ctx.rule)

    @staticmethod
    def vmap(
        info: Any, in_dims: tuple[int | None, ...], x: Tensor, key: Tensor, rule: Rule
    ) -> tuple[Tensor, int]:
        def sample(tensor: Tensor, axis: int | None, i: int) -> Tensor:
            return tensor if axis is None else tensor.select(axis, i)

        x_axis, key_axis, _ = in_dims
        ys = [
            _Transformed.apply(sample(x, x_axis, i), sample(key, key_axis, i), rule)
            for i in range(info.batch_size)
        ]
        return torch.stack(ys), 0
