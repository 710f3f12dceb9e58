"""Tensors as kernels see them: which memory they can use, in which order, and how results lie."""

from __future__ import annotations

import os
import sys
from functools import lru_cache
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.compiler import is_compiling

from fastdrop.compiled import _core

__all__ = [
    "DTYPES",
    "array",
    "empty",
    "in_memory_order",
    "is_batched",
    "is_plain",
    "memory_order",
    "thread_limit",
    "undone",
]

DTYPES = {getattr(torch, name): dtype for name, dtype in _core.MEMORY_DTYPES.items()}

_STRIDED = torch.strided
_is_tracing = torch._C._is_tracing
is_batched = torch._C._functorch.is_legacy_batchedtensor

HUGE_PAGES_PAY = 4 << 20  # bytes, as in NumPy


def is_plain(x: Any) -> bool:
    """Tell whether kernels can use a tensor's memory. PyTorch's own code takes all other tensors.

    Parameters
    ----------
    x : Tensor
        Any tensor.

    Returns
    -------
    bool
        False for other devices and dtypes, for sparse, nested, quantised and empty tensors, for
        views that are negated lazily, for zeros without memory, for batches of
        ``torch.autograd.grad(is_grads_batched=True)``, for subclasses, which define every operation
        in their own way, and while torch.jit traces.
    """
    return (
        (type(x) is Tensor or type(x) is torch.nn.Parameter)
        and x.dtype in DTYPES
        and x.is_cpu
        and x.layout is _STRIDED
        and not x.is_nested
        and (
            is_compiling()
            or not (x.is_neg() or x._is_zerotensor() or is_batched(x) or _is_tracing())
        )
        and x.numel() > 0
    )


def memory_order(x: Tensor) -> tuple[int, ...]:
    """Return the axes from the outermost to the innermost in memory; () if they are in order."""
    if x.is_contiguous():
        return ()
    strides = x.stride()
    if 0 in strides:  # an expanded tensor, in which elements have no place of their own
        return ()
    order: list[int] = []
    for axis, stride in enumerate(strides):  # sorts by insertion, as compilers cannot sort strides
        place = axis
        while place > 0 and strides[order[place - 1]] < stride:
            place -= 1
        order.insert(place, axis)
    return () if order == list(range(x.dim())) else tuple(order)


def in_memory_order(x: Tensor, order: tuple[int, ...]) -> Tensor:
    """Return x with its axes in this order. It is a copy unless x lies like that, without gaps."""
    if order:
        x = x.permute(order)
    return x if x.is_contiguous() else x.contiguous()


def undone(y: Tensor, order: tuple[int, ...]) -> Tensor:
    """Return y, whose axes are in this order, with its axes as they were before."""
    return y.permute([order.index(axis) for axis in range(len(order))]) if order else y


def empty(like: Tensor, shape: tuple[int, ...] | None = None) -> Tensor:
    """Return uninitialised memory like that of a tensor without gaps, or contiguous of a shape.

    Large memory is in huge pages.
    """
    y = torch.empty_like(like) if shape is None else like.new_empty(shape)
    nbytes = y.nbytes
    if nbytes >= HUGE_PAGES_PAY:
        _core.want_huge_pages(y.data_ptr(), nbytes)
    return y


def array(x: Tensor, shape: tuple[int, ...]) -> NDArray[Any]:
    """Return an array that uses a contiguous tensor's memory."""
    return _core.memory(x.data_ptr(), shape, DTYPES[x.dtype])


def _library_path() -> str:
    suffix = "dylib" if sys.platform == "darwin" else "so"
    return os.path.join(os.path.dirname(torch.__file__), "lib", f"libtorch_cpu.{suffix}")


# Kernels run on PyTorch's threads, which spin after an operation and would keep ours from a core.
_core.lend_threads(os.fsencode(_library_path()))


@lru_cache
def _at_most(n: int) -> _core.AtMost:
    return _core.AtMost(n)


def thread_limit() -> Any:
    """Return `num_threads` for kernels: they decide, up to PyTorch's number of threads."""
    return _at_most(torch.get_num_threads())
