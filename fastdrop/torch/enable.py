"""`enable` and `disable`: fastdrop's kernels for PyTorch's own dropout, whatever code calls it."""

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

OLDEST = "2.8"  # the same as in pyproject.toml

_lock = threading.RLock()
_holders: set[Block] = set()  # calls of `enable` that are in effect
_guests = 0  # contexts of `registered` that are open
_library: torch.library.Library | None = None  # has the kernels while they are registered


def enable() -> Block:
    """Use fastdrop's kernels for all dropout that this process computes on CPU tensors.

    This covers dropout from everywhere: layers, ``torch.nn.functional``, ``torch.dropout``,
    attention, and what PyTorch does in C++, such as ``torch.nn.LSTM(dropout=)``. Models stay as
    they are. PyTorch still computes what fastdrop's kernels do not take, such as other devices and
    dtypes.

    Returns
    -------
    Block
        A context manager for ``with enable():``, at whose end this call is no longer in effect.
        Without ``with`` it is in effect until `disable`.

    Raises
    ------
    RuntimeError
        If this PyTorch is too old or lacks something that is needed, or if other code has
        registered kernels for the same operators. Then nothing is changed.
    """
    with _lock:
        if not switch.on:
            _check_torch()
            _remove()  # kernels that are left over, to see whether there are others
            _check_nobody_else()
            if _library is None:
                _register()
        block = Block()
        _holders.add(block)
        _update()
    return block


def disable() -> Pause:
    """Use PyTorch's own dropout again, however often `enable` was called.

    If checkpointing computes something again in a backward pass, it stays fastdrop's if it was
    fastdrop's before.

    Returns
    -------
    Pause
        A context manager for ``with disable():``, at whose end dropout is as it was before.
    """
    with _lock:
        pause = Pause(frozenset(_holders))
        _holders.clear()
        _update()
    return pause


@contextmanager
def registered() -> Iterator[None]:
    """Register the kernels in the dispatcher, but only for dropout of groups of samples.

    Raises
    ------
    RuntimeError
        As for `enable`.
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
    """The result of `enable`: a context manager whose end ends it."""

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
    """The result of `disable`: a context manager whose end undoes it."""

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
    """Make the switch, the compilers' caches and the dispatcher follow the holders."""
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

    They stay if another thread may be about to call one, because PyTorch frees them at once. A
    kernel that stays passes every call on to PyTorch.
    """
    global _library
    if _library and threading.active_count() == 1:
        _library._destroy()
        _library = None
        _let_compilers_look_anew()


def _let_compilers_look_anew() -> None:
    """Make PyTorch's dispatcher for compilers forget which kernels it has found for our operators.

    It looks once for each operator and key, and keeps what it finds. Without this function, what
    was compiled before would hide kernels that are registered later from everything that is
    compiled afterwards.
    """
    for operator in {kernel.operator for kernel in kernels()}:
        getattr(torch.ops.aten, operator).default._dispatch_cache.clear()


def _check_torch() -> None:
    """Raise RuntimeError if this PyTorch is too old, or lacks a name."""
    found = torch.__version__
    release, oldest = ([int(n) for n in re.findall(r"\d+", v)[:2]] for v in (found, OLDEST))
    if release < oldest:
        raise RuntimeError(f"enable: expected PyTorch {OLDEST} or later, got {found}")
    if missing := first_missing(IMPORTED + REGISTERED):
        raise RuntimeError(f"enable: expected {missing}, which PyTorch {found} lacks")


def _check_nobody_else() -> None:
    """Raise RuntimeError if other code's kernels would be overwritten, or no longer be reached."""
    for operator in sorted({kernel.operator for kernel in kernels()}):
        table = torch._C._dispatch_dump_table(f"aten::{operator}")
        for key in ("CompositeImplicitAutograd", "Autograd", "AutogradCPU", "CPU"):
            found = re.search(rf"^{key}: (.*)", table, flags=re.MULTILINE)
            entry = found[1] if found else ""  # the place where that kernel was registered
            # PyTorch 2.8 says "/dev/null" of all kernels that Python registers
            ours = __file__ in entry or (_library is not None and "/dev/null" in entry)
            theirs = ".py:" in entry and not ours
            if key in ("AutogradCPU", "CPU"):
                there = torch._C._dispatch_has_kernel_for_dispatch_key(f"aten::{operator}", key)
                # PyTorch itself registers only native_dropout; the others are made of operators
                theirs |= there and not ours and operator != "native_dropout"
            else:
                theirs |= f"aten/{operator}/{key}" in torch.library._impls
            if theirs:
                raise RuntimeError(
                    f"enable: expected PyTorch's own {operator}, "
                    f"got a kernel that other code registered for {key}"
                )


os.register_at_fork(after_in_child=_lock._at_fork_reinit)  # type: ignore[attr-defined]
