"""Scaled dot product attention with fastdrop's dropout on its weights."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as torch_functional

from fastdrop.torch.functional import dropout
from fastdrop.torch.tensors import is_plain

__all__ = ["scaled_dot_product_attention"]

_own = torch_functional.scaled_dot_product_attention


def scaled_dot_product_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """`torch.nn.functional.scaled_dot_product_attention`, with fastdrop's dropout.

    With dropout PyTorch computes attention on the CPU step by step, and so does this. Without
    dropout, and for what fastdrop's kernels do not take, PyTorch's own function is called.

    Parameters
    ----------
    query, key, value, attn_mask, dropout_p, is_causal, scale, enable_gqa
        As in PyTorch.

    Returns
    -------
    Tensor
    """
    tensors = (query, key, value)
    invalid = (
        not 0 < dropout_p <= 1
        or (is_causal and attn_mask is not None)
        or (scale is not None and scale < 0)
    )
    if invalid or not all(map(is_plain, tensors)) or len({x.dtype for x in tensors}) > 1:
        return _own(
            query, key, value, attn_mask, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa
        )
    dtype = query.dtype
    if dtype in (torch.float16, torch.bfloat16):  # sums of half precision are PyTorch's float32
        query, key, value = (x.float() for x in tensors)
    if enable_gqa:
        key, value = (x.repeat_interleave(query.size(-3) // x.size(-3), -3) for x in (key, value))
    root = math.sqrt(1 / math.sqrt(query.size(-1)) if scale is None else scale)
    scores = (query * root) @ (key.transpose(-2, -1) * root)
    if is_causal:
        attn_mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device="cpu").tril()
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        scores = scores.masked_fill(attn_mask.logical_not(), -math.inf)
    elif attn_mask is not None:
        scores = scores + attn_mask
    weights = torch._safe_softmax(scores, -1)  # zeros for a row that is all masked
    return (dropout(weights, dropout_p) @ value).to(dtype)
