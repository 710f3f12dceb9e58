"""Scaled dot product attention with dropout of its weights, by blocks that stay in the cache.

With dropout, PyTorch on the CPU computes attention step by step, on the scores of the whole batch.
Here the scores never lie in memory as a whole (compiled/kernels/attention.h), and backward computes
them again. The mask is that of dropout of all the weights with the same seed, so the single steps
give the same results where they are needed. Compilers see an operator, which is a pure function of
its tensors and a key (operators.py).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import Function

from fastdrop.compiled import _attention
from fastdrop.compiled._attention import has_products
from fastdrop.functional import inverted_scale
from fastdrop.torch.autograd import again, is_usual, needs_graph
from fastdrop.torch.rules import Rule
from fastdrop.torch.tensors import thread_limit

__all__ = ["attend", "fits", "has_products"]

# With fewer heads than this, several sums for each head give threads this many parts to work on.
# The number does not follow the number of threads, because results would depend on it then.
PARTS = 8


def fits(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None,
    dropout_p: float,
    is_causal: bool,
    enable_gqa: bool,
    takes: Callable[[Tensor], bool] = is_usual,
) -> bool:
    """Tell whether `attend` takes these arguments. PyTorch computes or refuses all others.

    Parameters
    ----------
    query, key, value, attn_mask, dropout_p, is_causal, enable_gqa
        As in PyTorch.
    takes : callable
        Whether a query, key or value is one that the caller has in mind.

    Returns
    -------
    bool
        True if `attend` takes them.
    """
    tensors = (query, key, value)
    axes = query.dim()
    return (
        0 < dropout_p < 1
        and has_products()
        and all(takes(x) and x.dtype is query.dtype and x.dim() == axes for x in tensors)
        and axes >= 3
        and query.size(-1) == key.size(-1) > 0
        and value.size(-1) > 0
        and key.size(-2) == value.size(-2)
        and key.shape[:-2] == value.shape[:-2]
        and query.shape[:-3] == key.shape[:-3]
        and (query.size(-3) % key.size(-3) == 0 if enable_gqa else query.size(-3) == key.size(-3))
        and (attn_mask is None or (not is_causal and _fits_scores(attn_mask, query, key)))
    )


def _fits_scores(mask: Tensor, query: Tensor, key: Tensor) -> bool:
    """Tell whether a mask broadcasts to the scores, and is of a kind that PyTorch takes."""
    scores = (*query.shape[:-1], key.size(-2))
    return (
        type(mask) in (Tensor, torch.nn.Parameter, type(query))
        and mask.dtype in (torch.bool, torch.float32, query.dtype)
        and mask.is_cpu
        and mask.layout is torch.strided
        and not (mask.requires_grad or mask.is_neg())
        and mask.dim() <= len(scores)
        and all(n in (1, m) for n, m in zip(mask.shape[::-1], scores[::-1]))
    )


class Call(NamedTuple):
    """What attention does with its tensors.

    Attributes
    ----------
    p : float
        Probability of dropping a weight.
    seed : int
        The seed of the mask's key.
    is_causal : bool
        Whether a query sees no later keys.
    scale : float, optional
        The factor of the scores; by default that of PyTorch.
    """

    p: float
    seed: int
    is_causal: bool
    scale: float | None

    def factor(self, q: Tensor) -> float:
        """Return the factor of the scores of q."""
        return 1 / math.sqrt(q.size(-1)) if self.scale is None else self.scale


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None,
    dropout_p: float,
    is_causal: bool,
    scale: float | None,
    seed: int | Tensor,
) -> Tensor:
    """Compute attention with the dropout mask of a seed.

    Half types are computed in float32, as in PyTorch, and rounded once.

    Parameters
    ----------
    query, key, value, attn_mask, dropout_p, is_causal, scale
        As in PyTorch, for which `fits` returns True. If key and value have fewer heads, groups of
        the query's heads share them.
    seed : int or Tensor
        The seed of the mask's key. It is a tensor where a compiler records what is done.

    Returns
    -------
    Tensor
        A contiguous result, as PyTorch's is with dropout.
    """
    dtype, shape = query.dtype, query.shape
    number = torch.float64 if dtype is torch.float64 else torch.float32
    q, k, v = (_four_axes(x).to(number) for x in (query, key, value))
    if attn_mask is not None:
        if attn_mask.dtype is not torch.bool:
            attn_mask = attn_mask.to(number)
        attn_mask = _four_axes(attn_mask.expand(*shape[:-1], key.size(-2)))
    if isinstance(seed, Tensor):
        y: Tensor = _operator(q, k, v, attn_mask, seed, dropout_p, is_causal, scale)
    elif any(map(needs_graph, (q, k, v))):
        y = _attention_of(q, k, v, attn_mask, Call(dropout_p, seed, is_causal, scale))
    else:
        y = _forward(q, k, v, attn_mask, Call(dropout_p, seed, is_causal, scale))
    y = y.to(dtype)
    if query.dim() != 4:  # not a view, because autograd may refuse to write to one
        y = torch.ops.aten._unsafe_view(y, (*shape[:-1], value.size(-1)))
    return y


def _four_axes(x: Tensor) -> Tensor:
    """Return x as (batch, head, row, column)."""
    if x.dim() == 4:
        return x
    return x.reshape(math.prod(x.shape[:-3]), *x.shape[-3:])


def _rows(x: Tensor) -> Any:
    """Return an array of x with contiguous rows."""
    if x.size(-1) > 1 and x.stride(-1) != 1:
        x = x.contiguous()
    return x.detach().numpy()


def _mask_rows(mask: Tensor | None) -> Any:
    if mask is None:
        return None
    if mask.size(-1) > 1 and mask.stride(-1) != 1:
        # expands the last axis only; the other axes that share values stay as they are
        own = mask[tuple(slice(None if s else 1) for s in mask.stride()[:-1])]
        mask = own.contiguous().expand_as(mask)
    return mask.detach().numpy()


def _forward(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, call: Call) -> Tensor:
    y = torch.empty((*q.shape[:-1], v.size(-1)), dtype=q.dtype, device="cpu")
    p, seed, is_causal, _ = call
    a, b, c, m = _rows(q), _rows(k), _rows(v), _mask_rows(mask)
    kept_scale, scale, threads = inverted_scale(p), call.factor(q), thread_limit()
    _attention.attention(a, b, c, m, is_causal, p, kept_scale, scale, seed, y.numpy(), threads)
    return y


def _backward(
    dy: Tensor, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, call: Call
) -> tuple[Tensor, Tensor, Tensor]:
    dq = torch.empty(q.shape, dtype=q.dtype, device="cpu")
    batches, heads, keys, _ = k.shape
    sums = max(1, min(PARTS // (batches * heads), q.size(2) // 256))
    dk, dv = (
        torch.empty((sums * batches, heads, keys, x.size(-1)), dtype=q.dtype, device="cpu")
        for x in (k, v)
    )
    p, seed, is_causal, _ = call
    d, a, b, c, m = _rows(dy), _rows(q), _rows(k), _rows(v), _mask_rows(mask)
    outs = dq.numpy(), dk.numpy(), dv.numpy()
    kept_scale, scale, threads = inverted_scale(p), call.factor(q), thread_limit()
    _attention.attention_backward(
        d, a, b, c, m, is_causal, p, kept_scale, scale, seed, *outs, threads
    )
    if sums > 1:
        dk, dv = (x.view(sums, *like.shape).sum(0) for x, like in ((dk, k), (dv, v)))
    return dq, dk, dv


class _Attention(Function):
    """`attend` for tensors of four axes."""

    @staticmethod
    def forward(
        ctx: Any, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, call: Call
    ) -> Tensor:
        ctx.save_for_backward(q, k, v, mask)
        ctx.call = call
        return _forward(q, k, v, mask, call)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        tensors = ctx.saved_tensors
        usual = is_usual(dy) and not torch.is_grad_enabled()
        backward: Any = _backward if usual else _backward_by_steps
        return *backward(dy, *tensors, ctx.call), None, None


# Calls apply without the checks for torch.func's transforms, which is_usual has made already.
_attention_of = super(Function, _Attention).apply


def _backward_by_steps(
    dy: Tensor, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, call: Call
) -> tuple[Tensor, ...]:
    """Do what `_backward` does, by operations that autograd and transforms know."""
    p, seed, is_causal, _ = call
    rule, group, scale = Rule("scale", p), q.size(1) // k.size(1), call.factor(q)
    keys, values = (x.repeat_interleave(group, 1) if group > 1 else x for x in (k, v))
    scores = q @ keys.transpose(-2, -1) * scale
    if is_causal:
        mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device="cpu").tril()
    if mask is not None and mask.dtype is torch.bool:
        scores = scores.masked_fill(mask.logical_not(), -math.inf)
    elif mask is not None:
        scores = scores + mask
    weights = torch._safe_softmax(scores, -1)
    dropped = again(weights, seed, rule)
    gradient = again(dy @ values.transpose(-2, -1), seed, rule)
    dscores = weights * (gradient - (weights * gradient).sum(-1, keepdim=True)) * scale
    dq, dk = dscores @ keys, dscores.transpose(-2, -1) @ q
    dv = dropped.transpose(-2, -1) @ dy
    if group > 1:
        shape = (*k.shape[:2], group, k.size(2), -1)
        dk, dv = (x.reshape(shape).sum(2) for x in (dk, dv))
    return dq, dk, dv


@torch.library.custom_op(
    "fastdrop::attention",
    mutates_args=(),
    schema="(Tensor q, Tensor k, Tensor v, Tensor? mask, Tensor key,"
    " float p, bool is_causal, float? scale) -> Tensor",
)
def _operator(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, key: Tensor, p: float, *how: Any
) -> Tensor:
    return _forward(q, k, v, mask, Call(p, int(key), *how))


@torch.library.custom_op(
    "fastdrop::attention_backward",
    mutates_args=(),
    schema="(Tensor dy, Tensor q, Tensor k, Tensor v, Tensor? mask, Tensor key,"
    " float p, bool is_causal, float? scale) -> (Tensor, Tensor, Tensor)",
)
def _operator_backward(
    dy: Tensor, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, key: Tensor, *how: Any
) -> tuple[Tensor, Tensor, Tensor]:
    p, is_causal, scale = how
    return _backward(dy, q, k, v, mask, Call(p, int(key), is_causal, scale))


@_operator.register_fake
def _(q: Tensor, k: Tensor, v: Tensor, *_: Any) -> Tensor:
    return q.new_empty((*q.shape[:-1], v.size(-1)))


@_operator_backward.register_fake
def _(dy: Tensor, *tensors: Any) -> tuple[Tensor, ...]:
    return tuple(x.new_empty(x.shape) for x in tensors[:3])


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *tensors, p, is_causal, scale = inputs
    ctx.save_for_backward(*tensors)
    ctx.how = p, is_causal, scale


def _backward_of_operator(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
    gradients = _operator_backward(dy, *ctx.saved_tensors, *ctx.how)
    return *gradients, *[None] * 5


_operator.register_autograd(_backward_of_operator, setup_context=_setup_context)
