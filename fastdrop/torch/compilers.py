"""Dropout in code that torch.compile makes of a model while `enable` is in effect."""

from __future__ import annotations

import sys
from typing import Any

import torch
from torch import Tensor

from fastdrop._version import __version__
from fastdrop.torch import operators
from fastdrop.torch.attention import has_products
from fastdrop.torch.autograd import transforms_are_active
from fastdrop.torch.keys import draw_key
from fastdrop.torch.rules import Rule
from fastdrop.torch.tensors import DTYPES

__all__ = ["compiled_apart", "is_compiled_better", "is_traced", "traced"]

# From so many elements on, an operator of our own is quicker than the code that Inductor makes for
# PyTorch's dropout. That code draws a random number for each element, but in one loop with what
# comes before and after. Of attention it counts the scores. benchmarks/torch_compile.py: 2^13
# elements take the same time either way, 2^14 three quarters of it.
PAYS = 1 << 14

TAG = f"fastdrop {__version__}{'' if has_products() else ' without attention'}"


def compiled_apart(on: bool) -> None:
    """Make torch.compile's caches on disk distinguish code with and without fastdrop's operator.

    The caches go by the model's code, which is the same in both cases. A process without fastdrop
    could not run code with its operator.
    """
    try:
        from torch.compiler import config
    except ImportError:
        return
    tag = getattr(config, "cache_key_tag", None)
    if tag is not None:
        config.cache_key_tag = tag.replace(TAG, "") + (TAG if on else "")


def is_compiled_better(x: Any, elements: Any) -> bool:
    """Tell whether `is_traced`, and kernels are quicker for so many elements than Inductor's code.

    The number of a dynamic shape is the current one, without a guard.
    """
    if not is_traced(x):
        return False
    if not isinstance(elements, int):
        node = elements.node
        elements = node.hint if node.has_hint() else 0
    return bool(elements >= PAYS)


def is_traced(x: Any) -> bool:
    """Tell whether Inductor traces x, which kernels could take.

    Other compilers, torch.export, and Inductor ahead of time get PyTorch's dropout, because their
    code has to run where fastdrop is not installed.
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
    )


def traced(x: Tensor, p: float, rule: Rule, inplace: bool) -> Tensor:
    """Record a rule, with a key that is drawn in the graph.

    Parameters
    ----------
    x : Tensor
        A compiler's tensor.
    p : float
        Probability of dropping.
    rule : Rule
        What to do to x.
    inplace : bool
        Whether to write to the memory of x.

    Returns
    -------
    Tensor
        The result of the rule.
    """
    y = operators.masked(x, draw_key(None, p), *rule)
    return x.copy_(y) if inplace else y
