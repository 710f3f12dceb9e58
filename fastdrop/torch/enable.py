"""`enable` and `disable`: PyTorch's own dropout by fastdrop's kernels, whoever calls it."""

from __future__ import annotations

import os
import re
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self

import torch

from fastdrop.torch import compilers, repeats
from fastdrop.torch.dispatcher import kernels, switch
from fastdrop.torch.private import IMPORTED, REGISTERED, first_missing

__all__ = ["disable", "enable", "registered"]

OLDEST = "2.8"  # as pyproject.toml has it

_lock = threading.RLock()
_holders: set[Block] = set()  # calls of `enable` that hold
_guests = 0  # contexts of `registered`
_library: torch.library.Library | None = None  # with the kernels, while they are registered


def enable() -> Block:
    """Let every dropout that this process computes on CPU tensors be fastdrop's.

    Whoever calls it, and however: layers, ``torch.nn.functional``, ``torch.dropout``, attention,
    and what PyTorch does in C++, as ``torch.nn.LSTM(dropout=)``. Models stay as they are. What
    fastdrop's kernels do not take, other devices and dtypes, say, is PyTorch's as before.

    Returns
    -------
    Block
        For ``with enable():``, at whose end this call no longer holds. Without ``with`` it holds
        until `disable`.

    Raises
    ------
    RuntimeError
        If this PyTorch is too old or lacks what is needed, or somebody else has registered kernels
        for the same operators. Nothing is changed then.
    """
    with _lock:
        if not switch.on:
            _check_torch()
            _remove()  # kernels that were left, to see whether there are others
            _check_nobody_else()
            if _library is None:
                _register()
        block = Block()
        _holders.add(block)
        _update()
    return block


def disable() -> Pause:
    """Give PyTorch's own dropout back, however often `enable` was called.

    What checkpointing computes again in a backward pass stays fastdrop's if it was before.

    Returns
    -------
    Pause
        For ``with disable():``, at whose end dropout is again as it was before.
    """
    with _lock:
        pause = Pause(frozenset(_holders))
        _holders.clear()
        _update()
    return pause


@contextmanager
def registered() -> Iterator[None]:
    """Have the kernels in the dispatcher, for dropout of groups of samples and for no other.

    Raises
    ------
    RuntimeError
        As `enable`.
    """
    global _guests
    with _lock:
        if _library is None:
            _check_torch()
            _check_nobody_else()
            _register()
        _guests += 1
    try:
        yield
    finally:
        with _lock:
            _guests -= 1
            _update()


class Block:
    """What `enable` returns: a context that ends it."""

    over = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with _lock:
            self.over = True
            _holders.discard(self)
            _update()


class Pause:
    """What `disable` returns: a context that undoes it."""

    def __init__(self, paused: frozenset[Block]) -> None:
        self._paused = paused

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with _lock:
            _holders.update(block for block in self._paused if not block.over)
            if _holders and _library is None:
                _register()
            _update()


def _update() -> None:
    """Let the switch, compilers' caches and the dispatcher follow the holders."""
    if switch.on != bool(_holders):
        switch.on = bool(_holders)
        compilers.compiled_apart(switch.on)
    if not (switch.on or _guests or repeats.are_expected()):
        _remove()


def _register() -> None:
    global _library
    _let_compilers_look_anew()
    library = torch.library.Library("aten", "IMPL")
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Warning only once for all operators")
            for operator, key, function in kernels():
                library.impl(operator, function, key)
    except BaseException:
        library._destroy()
        raise
    _library = library


def _remove() -> None:
    """Take the kernels out of the dispatcher.

    They stay where another thread may be on its way into one, as PyTorch frees them at once. What
    stays hands every call on to PyTorch.
    """
    global _library
    if _library and threading.active_count() == 1:
        _library._destroy()
        _library = None
        _let_compilers_look_anew()


def _let_compilers_look_anew() -> None:
    """Make PyTorch's dispatcher for compilers forget whom it has found for our operators.

    It looks once for each operator and key, and keeps what it finds: what was compiled before would
    keep kernels that are registered later from all that is compiled afterwards.
    """
    for operator in {kernel.operator for kernel in kernels()}:
        getattr(torch.ops.aten, operator).default._dispatch_cache.clear()


def _check_torch() -> None:
    """Raise if this PyTorch is too old, or lacks a name."""
    found = torch.__version__
    release, oldest = ([int(n) for n in re.findall(r"\d+", v)[:2]] for v in (found, OLDEST))
    if release < oldest:
        raise RuntimeError(f"enable: expected PyTorch {OLDEST} or later, got {found}")
    if missing := first_missing(IMPORTED + REGISTERED):
        raise RuntimeError(f"enable: expected {missing}, which PyTorch {found} lacks")


def _check_nobody_else() -> None:
    """Raise if kernels of somebody else's would be overwritten, or no longer be reached."""
    for operator in sorted({kernel.operator for kernel in kernels()}):
        table = torch._C._dispatch_dump_table(f"aten::{operator}")
        for key in ("CompositeImplicitAutograd", "Autograd", "AutogradCPU", "CPU"):
            found = re.search(rf"^{key}: (.*)", table, flags=re.MULTILINE)
            entry = found[1] if found else ""  # where that kernel was registered
            theirs = ".py:" in entry and __file__ not in entry
            if key in ("AutogradCPU", "CPU"):
                there = torch._C._dispatch_has_kernel_for_dispatch_key(f"aten::{operator}", key)
                # by PyTorch itself only native_dropout is, all others are made of operators
                theirs |= there and __file__ not in entry and operator != "native_dropout"
            else:
                theirs |= f"aten/{operator}/{key}" in torch.library._impls
            if theirs:
                raise RuntimeError(
                    f"enable: expected PyTorch's own {operator}, "
                    f"got a kernel that somebody registered for {key}"
                )


os.register_at_fork(after_in_child=_lock._at_fork_reinit)  # type: ignore[attr-defined]
