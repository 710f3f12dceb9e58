"""Whether dropout that is computed again was PyTorch's or fastdrop's.

Checkpointing drops activations, restores the generator in the backward pass, and computes the
activations again. If `enable` or `disable` came in between, PyTorch's mask would take the place of
fastdrop's, or the other way round, and gradients would be wrong without any sign. So this module
remembers the seeds that fastdrop draws where a repeat may follow. In a backward pass a dropout is
fastdrop's only if its seed is one of them: the same state of the generator gives the same dropout.

Each checkpoint has its own seeds. Another checkpoint that began in the same state of the generator,
but whose dropout is PyTorch's, is therefore not taken for it. A checkpoint inside another is made
anew when the outer one is repeated, so all seeds count for it.
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

MOST = 1 << 18  # dropouts between a forward and its backward pass, which take about 25 MB

_seeds: dict[int, None] = {}  # all seeds, the oldest first
_FRAME: Any = getattr(checkpoint, "_CheckpointFrame", ())  # the class of non-reentrant checkpoints
_OWN = "_fastdrop_seeds"  # an attribute of checkpoints


def are_expected() -> bool:
    """Tell whether a backward pass may repeat something that fastdrop did."""
    return bool(_seeds)


def may_follow() -> bool:
    """Tell whether this is inside a saved tensors' hook, or the forward of an autograd.Function.

    Non-reentrant checkpointing uses the former, reentrant checkpointing the latter. In a Function
    both kinds of gradients are off, in torch.no_grad() only one of them.
    """
    if torch.is_grad_enabled():
        return torch._C._autograd._top_saved_tensors_default_hooks(True) is not None
    return not (torch._C._is_fwd_grad_enabled() or torch.is_inference_mode_enabled())


def _checkpoint() -> tuple[Any, bool]:
    """Return the checkpoint that this is in, if it is known, and whether it is computed again."""
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
    """Draw a seed for a dropout of fastdrop's, and remember it if it may be needed again.

    Parameters
    ----------
    p : float
        Probability of dropping.

    Returns
    -------
    int
        The seed.
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
        Probability of dropping.

    Returns
    -------
    int or None
        The seed. None if the dropout is new, or PyTorch's to repeat; then nothing is drawn.
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
    """Make a dropout that is PyTorch's stay PyTorch's in a repeat from the same state on."""
    if _seeds and may_follow():
        state = torch.default_generator.get_state()
        _seeds.pop(draw_plain_seed(None, p), None)
        torch.default_generator.set_state(state)
