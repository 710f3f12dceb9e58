"""Whose dropout it is that is computed again: PyTorch's or fastdrop's.

Checkpointing drops activations, restores the generator in the backward pass, and computes them
again. If `enable` or `disable` came in between, PyTorch's mask would be taken where fastdrop's was
taken before, or the other way round, and gradients would be wrong without a word. So seeds are
remembered that fastdrop draws where a repeat may follow, and in a backward pass a dropout is
fastdrop's only if its seed is one of them: the same state of the generator, the same dropout.

Each checkpoint has seeds of its own, so that another one which began in the same state of the
generator, and whose dropout is PyTorch's, is not taken for it. A checkpoint inside another is made
anew when that one is repeated; for it there are the seeds of all.
"""

from __future__ import annotations

import inspect
import sys
from typing import Any
from weakref import ref

import torch
from torch.utils import checkpoint

from fastdrop.torch.keys import draw_plain_seed

__all__ = ["are_expected", "draw", "draw_again", "forget"]

MOST = 1 << 18  # dropouts between a forward and its backward pass: some 25 MB

_seeds: dict[int, None] = {}  # of all; the oldest first
_FRAME: Any = getattr(checkpoint, "_CheckpointFrame", ())  # what a checkpoint is, not reentrant
_OWN = "_fastdrop_seeds"  # an attribute of checkpoints


def are_expected() -> bool:
    """May there be a backward pass that repeats what fastdrop did?"""
    return bool(_seeds)


def may_follow() -> bool:
    """Is this inside a saved tensors' hook, or in the forward of an autograd.Function?

    As non-reentrant and reentrant checkpointing are. In a Function both kinds of gradients are off;
    in torch.no_grad() only one is.
    """
    if torch.is_grad_enabled():
        return torch._C._autograd._top_saved_tensors_default_hooks(True) is not None
    return not (torch._C._is_fwd_grad_enabled() or torch.is_inference_mode_enabled())


def _checkpoint() -> tuple[Any, bool]:
    """Which checkpoint is this in, if that can be told, and is it being computed again?"""
    hooks = torch._C._autograd._top_saved_tensors_default_hooks(True)
    if torch.is_grad_enabled() and hooks:
        for cell in getattr(inspect.unwrap(hooks[0]), "__closure__", None) or ():
            found = cell.cell_contents
            if isinstance(found, _FRAME):
                return found, False
            if isinstance(found, ref) and isinstance(found(), _FRAME):
                return found(), True
    frame = sys._getframe(2)
    while frame := frame.f_back:  # type: ignore[assignment]
        code = frame.f_code
        if code.co_name in ("forward", "backward") and code.co_argcount:
            first = frame.f_locals.get(code.co_varnames[0])
            if isinstance(first, torch._C._FunctionBase):
                return first, code.co_name == "backward"
    return None, False


def _remember(seed: int, owner: Any) -> None:
    _seeds[seed] = None
    if len(_seeds) > MOST:
        _seeds.pop(next(iter(_seeds)), None)
    if owner is not None:
        vars(owner).setdefault(_OWN, set()).add(seed)


def draw(p: float) -> int:
    """Draw a seed for a dropout of fastdrop's, and remember it if it may be asked for again.

    Parameters
    ----------
    p : float

    Returns
    -------
    int
    """
    seed = draw_plain_seed(None, p)
    if may_follow():
        _remember(seed, _checkpoint()[0])
    return seed


def draw_again(p: float) -> int | None:
    """Draw, in a backward pass, a seed that fastdrop drew before.

    Parameters
    ----------
    p : float

    Returns
    -------
    int or None
        None where this is PyTorch's to repeat, or new; nothing is drawn then.
    """
    if not _seeds:
        return None
    owner, again = _checkpoint()
    known = getattr(owner, _OWN, ()) if again else _seeds
    state = torch.default_generator.get_state()
    seed = draw_plain_seed(None, p)
    if seed in known:
        if not again:
            _remember(seed, owner)
        return seed
    torch.default_generator.set_state(state)
    return None


def forget(p: float) -> None:
    """Let a dropout that is PyTorch's be PyTorch's in a repeat, too, from the same state on."""
    if _seeds and may_follow():
        state = torch.default_generator.get_state()
        _seeds.pop(draw_plain_seed(None, p), None)
        torch.default_generator.set_state(state)
