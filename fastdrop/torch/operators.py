"""Dropout as PyTorch operators: what compilers and dispatch modes see.

Two, so that only one is random. `draw_key` is marked as such and never merged, folded or moved;
`masked` is a pure function of a tensor and a key, which a compiler may compute again in backward.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from fastdrop.torch.keys import draw_seed
from fastdrop.torch.rules import Rule, apply
from fastdrop.torch.tensors import undone

__all__ = ["draw_key", "masked"]


@torch.library.custom_op(
    "fastdrop::draw_key",
    mutates_args=(),
    schema="() -> Tensor",
    tags=[torch.Tag.nondeterministic_seeded],
)
def draw_key() -> Tensor:
    """Return a key's seed, drawn from PyTorch's default generator: int64, of shape ()."""
    return torch.tensor(draw_seed(None), dtype=torch.int64, device="cpu")


@draw_key.register_fake
def _() -> Tensor:
    return torch.empty((), dtype=torch.int64, device="cpu")


def _rule(kind: str, p: float, shared: Sequence[int], order: Sequence[int], block: int) -> Rule:
    return Rule(kind, p, tuple(shared), tuple(order), block)


@torch.library.custom_op(
    "fastdrop::masked",
    mutates_args=(),
    schema="(Tensor x, Tensor key, str kind, float p, int[] shared, int[] order, int block_size)"
    " -> Tensor",
)
def masked(x: Tensor, key: Tensor, *rule: Any) -> Tensor:
    """Apply the rule of these fields with the seed that `draw_key` returned."""
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
