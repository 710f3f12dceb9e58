"""Dropout as a PyTorch operator, which compilers and dispatch modes see.

It is a pure function of a tensor and a key, so a compiler may compute it again in backward, or
merge equal calls. Only the key is random. It comes from ``torch.randint``, which every compiler
knows. If a custom operator were random itself, its tag would not keep AOTAutograd from merging two
of its calls.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

from fastdrop.torch.rules import Rule, apply
from fastdrop.torch.tensors import undone

__all__ = ["masked", "untraced"]

Function = TypeVar("Function", bound=Callable[..., Any])


def _rule(kind: str, p: float, shared: Sequence[int], order: Sequence[int], block: int) -> Rule:
    return Rule(kind, p, tuple(shared), tuple(order), block)


@torch.library.custom_op(
    "fastdrop::masked",
    mutates_args=(),
    schema="(Tensor x, Tensor key, str kind, float p, int[] shared, int[] order, int block_size)"
    " -> Tensor",
)
def masked(x: Tensor, key: Tensor, *rule: Any) -> Tensor:
    """Apply the rule with these fields and the seed of a key, an int64 tensor of shape ()."""
    return apply(x.resolve_neg(), int(key), _rule(*rule))[0]


@masked.register_fake
def _(x: Tensor, key: Tensor, *rule: Any) -> Tensor:
    order = _rule(*rule).order
    source = x.permute(order) if order else x
    return undone(torch.empty_like(source, memory_format=torch.contiguous_format), order)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    _, key, *rule = inputs
    ctx.rule = _rule(*rule).gradient
    ctx.save_for_backward(key)


def _backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
    (key,) = ctx.saved_tensors
    return masked(dy, key, *ctx.rule), None, *[None] * len(ctx.rule)


masked.register_autograd(_backward, setup_context=_setup_context)


def untraced(function: Function) -> Function:
    """Make torch.compile run a function that C++ calls, with all that it calls, uncompiled.

    Otherwise it would be compiled after a graph break. Calls from Python are traced through.
    """
    eval_frame = torch._C._dynamo.eval_frame
    skip = eval_frame._FrameAction.SKIP
    strategy = eval_frame._FrameExecStrategy(skip, skip)
    eval_frame.set_code_exec_strategy(function.__code__, strategy)
    return function
