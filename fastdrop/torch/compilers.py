"""Dropout in what torch.compile makes of a model while `enable` holds."""

from __future__ import annotations

import sys
from typing import Any

import torch
from torch import Tensor

from fastdrop._version import __version__
from fastdrop.torch import operators
from fastdrop.torch.autograd import transforms_are_active
from fastdrop.torch.keys import draw_key
from fastdrop.torch.rules import Rule
from fastdrop.torch.tensors import DTYPES

__all__ = ["compiled_apart", "is_compiled_better", "traced"]

# Elements from which on an operator of its own is quicker than what Inductor makes of PyTorch's
# dropout: it draws a random number an element, but in one loop with what comes before and after. A
# guess so far: benchmarks/torch_compile.py measures it.
PAYS = 1 << 16

TAG = f"fastdrop {__version__}"


def compiled_apart(on: bool) -> None:
    """Let torch.compile's caches on disk tell code with fastdrop's operator from code without.

    They go by the model's code, which is the same: a process without fastdrop could not run it.
    """
    try:
        from torch.compiler import config
    except ImportError:
        return
    tag = getattr(config, "cache_key_tag", None)
    if tag is not None:
        config.cache_key_tag = tag.replace(TAG, "") + (TAG if on else "")


def is_compiled_better(x: Any) -> bool:
    """Does Inductor trace x, a tensor that kernels could take, and are they quicker than its own?

    Other compilers, torch.export, and Inductor ahead of time get PyTorch's dropout: what they make
    has to run where fastdrop is not.
    """
    module = sys.modules.get("torch._inductor.virtualized")
    config = sys.modules.get("torch.compiler.config")
    if module is None or TAG not in getattr(config, "cache_key_tag", ""):
        return False
    virtual = module.V
    return (
        isinstance(virtual.fake_mode, torch._subclasses.FakeTensorMode)
        and not virtual.aot_compilation
        and not torch.compiler.is_exporting()
        and type(x) is torch._subclasses.functional_tensor.FunctionalTensor
        and x.dtype in DTYPES
        and x.is_cpu
        and x.layout is torch.strided
        and not transforms_are_active()
        and _length(x) >= PAYS
    )


def _length(x: Tensor) -> int:
    """Number of elements; of a dynamic shape the one at hand, which no guard holds it to."""
    n: Any = x.numel()
    if isinstance(n, int):
        return n
    return int(n.node.hint) if n.node.has_hint() else 0


def traced(x: Tensor, p: float, rule: Rule, inplace: bool) -> Tensor:
    """Record a rule with a key drawn in the graph.

    Parameters
    ----------
    x : Tensor
        A compiler's.
    p : float
    rule : Rule
    inplace : bool

    Returns
    -------
    Tensor
    """
    y = operators.masked(x, draw_key(None, p), *rule)
    return x.copy_(y) if inplace else y
