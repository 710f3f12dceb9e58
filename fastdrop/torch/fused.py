"""Two fused steps in eager mode: what follows a matrix product, and what ends a residual branch."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from fastdrop.compiled import _core
from fastdrop.functional import inverted_scale
from fastdrop.torch.autograd import again, is_eager
from fastdrop.torch.rules import Rule
from fastdrop.torch.tensors import array, empty, in_memory_order, is_plain, thread_limit, undone

__all__ = ["Add", "BiasAct"]


class Add(Function):
    """apply(x, residual, seed, rule) applies the rule, a "scale", to x, and adds the residual."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, residual: Tensor, seed: int, rule: Rule) -> Tensor:
        ctx.seed, ctx.rule = seed, rule
        source = in_memory_order(x, rule.order)
        z = in_memory_order(residual, rule.order)
        y = empty(undone(source, rule.order))
        a, b, out = (array(tensor, (x.numel(),)) for tensor in (source, z, y))
        scale = inverted_scale(rule.p)
        _core.masked_add(a, b, rule.p, scale, seed, 0, (), 0, out, thread_limit())
        return y

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        dx = again(dy, ctx.seed, ctx.rule) if ctx.needs_input_grad[0] else None
        return dx, dy, None, None


class BiasAct(Function):
    """apply(x, bias, relu, p, seed) drops x + bias, or its ReLU; the bias is on the last axis.

    After a ReLU, y > 0 is both masks in one, so backward reads y and draws nothing.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, bias: Tensor, relu: bool, p: float, seed: int) -> Tensor:
        x, bias = x.contiguous(), bias.contiguous()
        y = empty(x)
        a, out = array(x, tuple(x.shape)), array(y, tuple(x.shape))
        z, scale = array(bias, tuple(bias.shape)), inverted_scale(p)
        _core.masked_bias(a, z, relu, p, scale, seed, 0, (), 0, out, thread_limit())
        ctx.options = relu, p, seed
        ctx.save_for_backward(y if relu else None)
        return y

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        (y,) = ctx.saved_tensors
        if is_eager() and is_plain(dy):
            dx, dbias = _BiasActGradient.apply(dy, y, *ctx.options)
        else:
            dx = _gradient(dy, y, *ctx.options)
            dbias = dx.sum(tuple(range(dx.dim() - 1))) if dx.dim() > 1 else dx
        return dx, dbias, None, None, None


class _BiasActGradient(Function):
    """Gradients of `BiasAct` for x and bias."""

    @staticmethod
    def forward(
        ctx: Any, dy: Tensor, y: Tensor | None, relu: bool, p: float, seed: int
    ) -> tuple[Tensor, Tensor]:
        dy = dy.contiguous()
        dx = empty(dy)
        shape = tuple(dy.shape)
        a, out = array(dy, shape), array(dx, shape)
        z = None if y is None else array(y, shape)
        scale, threads = inverted_scale(p), thread_limit()
        _, sums = _core.bias_backward(a, z, relu, p, scale, seed, 0, (), 0, out, threads)
        ctx.options = relu, p, seed
        ctx.save_for_backward(y)
        return dx, torch.from_numpy(sums).to(dy.dtype)

    @staticmethod
    def backward(ctx: Any, ddx: Tensor, ddbias: Tensor) -> tuple[Tensor | None, ...]:
        (y,) = ctx.saved_tensors
        return _gradient(ddx + ddbias, y, *ctx.options), None, None, None, None


def _gradient(dy: Tensor, y: Any, relu: bool, p: float, seed: int) -> Tensor:
    """Return dx of `BiasAct`, computed by operations that autograd and transforms know."""
    if relu:
        return torch.where(y > 0, dy * inverted_scale(p), 0)
    return again(dy, seed, Rule("scale", p))
