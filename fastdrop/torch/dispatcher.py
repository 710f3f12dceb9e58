"""PyTorch's own dropouts with fastdrop's kernels: the functions that its dispatcher calls.

All code that uses dropout, in Python or in C++, calls PyTorch's dispatcher. While `enable` is in
effect, the dispatcher calls the functions of `kernels` for tensors on the CPU. Which dropout they
use depends on the call::

    nothing to drop                                    the tensor itself
    in a backward pass, computed again (repeats.py)    the same as before
    a plain tensor, in eager mode                      fastdrop's
    Inductor compiles (compilers.py)                   fastdrop's operator, where that is quicker
    anything else                                      PyTorch's own

Attention consists of other operators, so its dropout is reached like any other. If attention.py
takes the call, fastdrop computes all of it, also where Inductor compiles.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.graph import increment_version

from fastdrop.compiled import _core
from fastdrop.torch import compilers, repeats
from fastdrop.torch.attention import attend, fits
from fastdrop.torch.autograd import (
    again,
    at_once,
    drop_elements,
    forbids_in_place,
    is_usual,
    transforms_are_active,
)
from fastdrop.torch.keys import draw_key, draw_seed, group
from fastdrop.torch.operators import untraced
from fastdrop.torch.rules import Rule, apply
from fastdrop.torch.samples import Seed, Seeds
from fastdrop.torch.tensors import is_plain, memory_order, undone

__all__ = ["Kernel", "kernels", "switch"]


class Switch:
    """Whether dropout is fastdrop's now. Kernels may stay registered a while after `disable`."""

    on = False


switch = Switch()


class Kernel(NamedTuple):
    """A function, and the operator of PyTorch and the key of the dispatcher that it is for.

    "AutogradCPU" comes first, and "CPU" where autograd is left out, as in inference mode. A
    function for "CPU" must not record gradients.
    """

    operator: str
    key: str
    function: Callable[..., Any]


def kernels() -> list[Kernel]:
    """Return everything that `enable` registers.

    Returns
    -------
    list of Kernel
        The functions, with their operators and keys.
    """
    table = [Kernel("native_dropout", "CPU", _native_dropout)]
    for name, (kind, axes) in {
        "dropout": ("scale", 0),
        "feature_dropout": ("scale", 2),
        "alpha_dropout": ("alpha", 0),
        "feature_alpha_dropout": ("alpha", 2),
    }.items():
        for operator, inplace in ((name, False), (f"{name}_", True)):
            for key in ("AutogradCPU", "CPU"):
                function = _kernel(operator, kind, axes, inplace, key == "CPU")
                table.append(Kernel(operator, key, function))
    for key in ("AutogradCPU", "CPU"):
        table.append(Kernel("scaled_dot_product_attention", key, _attention))
    return table


def _claim(p: float) -> Seed | None:
    """Draw the seed of a call that fastdrop takes, or return None if PyTorch takes it."""
    if group() is not None:
        return draw_seed(None, p)
    if torch._C._current_graph_task_id() >= 0:  # in a backward pass
        return repeats.draw_again(p)
    if switch.on:
        return repeats.draw(p)
    repeats.forget(p)
    return None


def _kernel(
    operator: str, kind: str, axes: int, inplace: bool, below: bool
) -> Callable[[Tensor, float, bool], Tensor]:
    """Make the kernel of an operator, for below autograd or not.

    If `axes` is not 0, all axes from this one on share decisions.
    """
    own = _pytorchs(getattr(torch.ops.aten, operator).default)
    by_elements = kind == "scale" and not (axes or inplace or below)

    def forbids(x: Tensor) -> bool:
        if below:
            return x.is_inference() and not torch.is_inference_mode_enabled()
        return forbids_in_place(x)

    def rule(x: Tensor, p: float) -> Rule:
        shared = tuple(range(axes, x.dim())) if axes else ()
        return Rule(kind, p, shared, memory_order(x))

    @untraced
    def kernel(x: Tensor, p: float, train: bool) -> Tensor:
        if not is_usual(x):
            return unusual(x, p, train)
        if not train or p == 0:
            return x if 0 <= p <= 1 else own(x, p, train)
        if not 0 < p <= 1 or x.dim() < axes or (inplace and forbids(x)):
            return own(x, p, train)  # this raises an error
        seed = _claim(p)
        if seed is None:
            return own(x, p, train)
        if by_elements and x.is_contiguous():
            return drop_elements(x, p, seed)
        if below:
            return _apply_below(x, seed, rule(x, p), inplace)
        return at_once(x, seed, rule(x, p), None, inplace)

    def unusual(x: Tensor, p: float, train: bool) -> Tensor:
        if train and 0 < p <= 1 and x.dim() >= axes:
            if switch.on and compilers.is_compiled_better(x, x.numel()):
                return compilers.traced(x, p, rule(x, p), inplace)
            if _is_nearly_usual(x) and not (inplace and forbids(x)):
                seed = _claim(p)
                if seed is not None:
                    compute = again if transforms_are_active() else at_once
                    return compute(x, seed, rule(x, p), None, inplace)
        return own(x, p, train)

    return kernel


def _pytorchs(operator: Any) -> Callable[..., Tensor]:
    """Return what PyTorch itself would call for an operator that it composes of others."""
    included = torch._C._dispatch_tls_is_dispatch_key_included
    compilers_key = torch._C.DispatchKey.PythonDispatcher
    own_key = torch._C.DispatchKey.CompositeImplicitAutograd

    def own(*args: Any, **kwargs: Any) -> Tensor:
        if included(compilers_key):  # compilers have their own version
            y: Tensor = operator.decompose(*args, **kwargs)
        else:
            y = operator._op_dk(own_key, *args, **kwargs)
        return y

    return own


_own_attention = _pytorchs(torch.ops.aten.scaled_dot_product_attention.default)


def _attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """Compute attention by blocks if it has dropout, and by PyTorch otherwise."""
    samples = group()
    whole = samples is None or samples.is_plain
    arguments = query, key, value, attn_mask, dropout_p, is_causal
    if whole and fits(*arguments, enable_gqa):
        seed = _claim(dropout_p)
        if isinstance(seed, Seeds):
            seed.group.see(math.prod(query.shape[:-1]) * key.size(-2))
            seed = seed.values[0]
        if seed is not None:
            return attend(*arguments, scale, seed)
    elif switch.on and 0 < dropout_p < 1 and key.dim() > 1:
        scores = math.prod(query.shape[:-1]) * key.size(-2)
        if compilers.is_compiled_better(query, scores) and fits(
            *arguments, enable_gqa, compilers.is_traced
        ):
            return attend(*arguments, scale, draw_key(None, dropout_p))
    return _own_attention(*arguments, scale=scale, enable_gqa=enable_gqa)


def _is_nearly_usual(x: Tensor) -> bool:
    """Tell whether only forward-mode gradients, or a dispatch mode that sees a repeat, are unusual.

    Such a mode counts or prints operations, say. It sees PyTorch's, unless masks have to be the
    same.
    """
    if not is_plain(x) or torch._C._are_functorch_transforms_active():
        return False
    if torch._C._len_torch_dispatch_stack():
        return repeats.are_expected() and torch._C._current_graph_task_id() >= 0
    return True


def _apply_below(x: Tensor, seed: Seed, rule: Rule, inplace: bool) -> Tensor:
    """Apply a rule where autograd is left out."""
    excluded = torch._C._dispatch_tls_is_dispatch_key_excluded
    if inplace and not excluded(torch._C.DispatchKey.ADInplaceOrView):
        increment_version(x)
    return apply(x, seed, rule, inplace=inplace)[0]


@untraced
def _native_dropout(x: Tensor, p: float, train: bool | None) -> tuple[Tensor, Tensor]:
    """Return dropout and its mask, below autograd."""
    if not x.numel():
        return x, torch.empty_like(x)
    if train is False:
        return x.clone(), torch.ones_like(x, dtype=torch.bool)
    seed = _claim(p) if 0 < p <= 1 and is_usual(x) else None
    if not isinstance(seed, int):  # do what PyTorch's own kernel does, which cannot be reached now
        mask = torch.empty_like(x, dtype=torch.bool).bernoulli_(1 - p)
        return x.mul(mask).mul_(0.0 if p == 1 else 1 / (1 - p)), mask
    order = memory_order(x)
    shape = [x.shape[axis] for axis in order] if order else x.shape
    bits = torch.from_numpy(_core.make_mask(x.numel(), p, seed, 0, 0, False, None))
    mask = undone(bits.view(torch.bool).view(shape), order)
    return apply(x, seed, Rule("scale", p, (), order))[0], mask
