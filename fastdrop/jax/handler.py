"""A block of an array, computed by the compiled handler on CPUs, and in jax.numpy elsewhere."""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.extend.core import Primitive
from jax.interpreters import mlir

from fastdrop.compiled import _core
from fastdrop.jax.reference import masked
from fastdrop.jax.rules import Rule

__all__ = ["TARGET", "block", "register"]

TARGET = "fastdrop"  # XLA's name for the handler

# takes x, [z,] key, offset, starts, [p], as `reference.masked` does
block = Primitive("fastdrop_block")


@block.def_abstract_eval
def _like_x(x: Any, *_: Any, **params: Any) -> Any:
    return x.update(weak_type=False)


@lru_cache
def register() -> None:
    """Make the handler known to XLA. The first call of any function of `fastdrop.jax` does it, too.

    Call it before running a program that was made elsewhere, for instance by `jax.export`.

    Raises
    ------
    ImportError
        If the handler does not know the interface of the installed jaxlib.
    """
    jax.devices("cpu")  # raises an error of one line now, and not in the calls below
    needs = f"fastdrop.jax needs a jaxlib with foreign functions of version 0, got {_interface()}"
    if _interface()[0] not in ("0", "?"):
        raise ImportError(needs)
    try:
        jax.ffi.register_ffi_target(TARGET, _core.xla_handler(), platform="cpu")
    except Exception as error:
        raise ImportError(f"{needs}: {' '.join(str(error).split()):.100}") from None


def _interface() -> str:
    """Return the version of the interface, according to jaxlib's header."""
    header = Path(jax.ffi.include_dir(), "xla", "ffi", "api", "c_api.h")
    try:
        text = header.read_text()
    except OSError:
        return "? (no header)"
    found = re.findall(r"#define XLA_FFI_API_(?:MAJOR|MINOR) (\d+)", text)
    return ".".join(found) or "? (no version in its header)"


@lru_cache
def _lowering() -> Any:
    register()
    return jax.ffi.ffi_lowering(TARGET)


def _lower_on_cpu(
    ctx: Any, *operands: Any, rule: Rule, batch: int, strides: tuple[int, ...]
) -> Any:
    return _lowering()(
        ctx,
        *operands,
        op=np.int64(_core.OPS[rule.op]),
        batch=np.int64(batch),
        strides=np.array(strides or (0,), np.int64),
        p=np.float64(-1 if rule.p is None else rule.p),
        scale=np.float64(rule.scale),
        shift=np.float64(rule.shift),
        fill=np.float64(rule.fill),
    )


mlir.register_lowering(block, mlir.lower_fun(masked, multiple_results=False))
mlir.register_lowering(block, _lower_on_cpu, platform="cpu")
