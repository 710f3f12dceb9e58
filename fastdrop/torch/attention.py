"""Scaled dot product attention with dropout of its weights, by blocks that stay in the cache.

With dropout, PyTorch on the CPU computes attention step by step, on the scores of the whole batch.
Here the scores never lie in memory as a whole (compiled/kernels/attention.h), and backward computes
them again. The mask is that of dropout of all the weights with the same seed, so the single steps
give the same results where they are needed.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import Function

from fastdrop.compiled import _attention
from fastdrop.functional import inverted_scale
from fastdrop.torch.autograd import again, is_usual, needs_graph
from fastdrop.torch.rules import Rule
from fastdrop.torch.tensors import thread_limit
from fastdrop.training import blas

__all__ = ["attend", "fits"]

# With fewer heads than this, several sums for each head give threads this many parts to work on.
# The number does not follow the number of threads, because results would depend on it then.
PARTS = 8

assert blas  # imported because it looks for NumPy's BLAS, which computes the products


def fits(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None,
    dropout_p: float,
    is_causal: bool,
    enable_gqa: bool,
) -> bool:
    """Tell whether `attend` takes these arguments. PyTorch computes or refuses all others.

    Parameters
    ----------
    query, key, value, attn_mask, dropout_p, is_causal, enable_gqa
        As in PyTorch.

    Returns
    -------
    bool
        True if `attend` takes them.
    """
    tensors = (query, key, value)
    axes = query.dim()
    return (
        0 < dropout_p < 1
        and _attention.has_products()
        and all(is_usual(x) and x.dtype is query.dtype and x.dim() == axes for x in tensors)
        and axes >= 3
        and query.size(-1) == key.size(-1)
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
        (type(mask) is Tensor or type(mask) is torch.nn.Parameter)
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
    scale : float
        The factor of the scores.
    """

    p: float
    seed: int
    is_causal: bool
    scale: float


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None,
    dropout_p: float,
    is_causal: bool,
    scale: float | None,
    seed: int,
) -> Tensor:
    """Compute attention with the dropout mask of a seed.

    Half types are computed in float32, as in PyTorch, and rounded once.

    Parameters
    ----------
    query, key, value, attn_mask, dropout_p, is_causal, scale
        As in PyTorch, for which `fits` returns True. If key and value have fewer heads, groups of
        the query's heads share them.
    seed : int
        The seed of the mask's key.

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
    call = Call(dropout_p, seed, is_causal, 1 / math.sqrt(shape[-1]) if scale is None else scale)
    if any(map(needs_graph, (q, k, v))):
        y: Tensor = _attention_of(q, k, v, attn_mask, call)
    else:
        y = _forward(q, k, v, attn_mask, call)
    return y.to(dtype).view(*shape[:-1], value.size(-1))


def _four_axes(x: Tensor) -> Tensor:
    """Return x as (batch, head, row, column)."""
    if x.dim() == 4:
        return x
    return x.reshape(math.prod(x.shape[:-3]), *x.shape[-3:])


def _rows(x: Tensor) -> Any:
    """Return an array of x with rows that BLAS takes: each is contiguous, and none overlap."""
    if (x.size(-1) > 1 and x.stride(-1) != 1) or x.stride(-2) < x.size(-1):
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
    p, seed, is_causal, scale = call
    a, b, c, m = _rows(q), _rows(k), _rows(v), _mask_rows(mask)
    kept_scale, threads = inverted_scale(p), thread_limit()
    _attention.attention(a, b, c, m, is_causal, p, kept_scale, scale, seed, y.numpy(), threads)
    return y


def _backward(
    dy: Tensor, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, call: Call
) -> tuple[Tensor, Tensor, Tensor]:
    dq = torch.empty(q.shape, dtype=q.dtype, device="cpu")
    batches, heads, keys, _ = k.shape
    sums = max(1, min(PARTS // (batches * heads), q.size(2) // 256))
    dk, dv = (
        torch.zeros((sums * batches, heads, keys, x.size(-1)), dtype=q.dtype, device="cpu")
        for x in (k, v)
    )
    p, seed, is_causal, scale = call
    d, a, b, c, m = _rows(dy), _rows(q), _rows(k), _rows(v), _mask_rows(mask)
    outs = dq.numpy(), dk.numpy(), dv.numpy()
    kept_scale, threads = inverted_scale(p), thread_limit()
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
    p, seed, is_causal, scale = call
    rule, group = Rule("scale", p), q.size(1) // k.size(1)
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
