"""Keras's backend torch, by kernels on the tensors' own memory."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from fastdrop.keras.rules import Rule, key_of, run
from fastdrop.random import Key
from fastdrop.torch.tensors import array, empty, thread_limit

__all__ = ["SUPPORTS_JIT", "apply"]

SUPPORTS_JIT = True  # PyTorch's compiler leaves `apply` as it is


class _Masked(Function):
    """A rule, with derivatives of any order. Only the key is saved."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, rule: Rule, key: Key) -> Tensor:
        ctx.rule, ctx.key = rule.gradient, key
        source = x.detach().contiguous()
        y = empty(source)
        if source.numel():
            shape = tuple(source.shape)
            run(array(source, shape), rule, key, array(y, shape), thread_limit())
        return y

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> Any:
        return _linear(dy, ctx.rule, ctx.key), None, None

    @staticmethod
    def jvp(ctx: Any, dx: Tensor, *_: Any) -> Tensor:
        return _linear(dx, ctx.rule, ctx.key)


def _linear(x: Tensor, rule: Rule | None, key: Key) -> Tensor:
    if rule is None:
        return x.clone()
    y: Tensor = _Masked.apply(x, rule, key)
    return y


@torch.compiler.disable
def apply(x: Any, rule: Rule, state: Any) -> Any:
    """Apply a rule with the key of a seed generator's state: (seed, call).

    Parameters
    ----------
    x : Tensor
        A tensor on the CPU, or on the device "meta", where only shapes are computed.
    rule : Rule
        What to do to it.
    state : Tensor
        Two integers, the seed and the call.

    Returns
    -------
    Tensor
        The result, like x.
    """
    if x.device.type == "meta":
        return torch.empty_like(x)
    seed, call = state.tolist()
    return _Masked.apply(x, rule, key_of(seed, call))
