"""Keys from PyTorch's generators, so that PyTorch's seeds, states and forks apply to fastdrop.

If p is 1, everything is dropped with any key. Then no key is drawn, as PyTorch draws nothing.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from fastdrop.torch.samples import Group, Seed

__all__ = ["draw_key", "draw_plain_seed", "draw_seed", "drawing", "group"]

_INT64_MAX = 2**63 - 1


class _Word(threading.local):
    """A tensor to draw a seed into, for each thread. A new one would cost more than the draw."""

    group: Group | None = None  # draws its own seeds in place of a generator's

    def __init__(self) -> None:
        with torch.inference_mode(False):  # a tensor of inference mode would be unusable elsewhere
            self.tensor = torch.empty((), dtype=torch.int64, device="cpu")
        self.array = self.tensor.numpy()  # the same memory, read in a fifth of the time


_word = _Word()


def group() -> Group | None:
    """Return the group of samples that this thread computes, or None."""
    return _word.group


@contextmanager
def drawing(samples: Group) -> Iterator[None]:
    """Make dropout in this thread draw the seeds of a group, and use no generator."""
    before, _word.group = _word.group, samples
    try:
        yield
    finally:
        _word.group = before


def draw_seed(generator: torch.Generator | None, p: float) -> Seed:
    """Draw the seed of a dropout: the group's within `drawing`, else that of `draw_plain_seed`.

    Parameters
    ----------
    generator : torch.Generator, optional
        A generator of the CPU; by default PyTorch's default generator.
    p : float
        Probability of dropping.

    Returns
    -------
    int or Seeds
        The seed, or a seed for each sample of the group.
    """
    samples = _word.group
    return draw_plain_seed(generator, p) if samples is None else samples.draw()


def draw_plain_seed(generator: torch.Generator | None, p: float) -> int:
    """Draw a key's seed as ``torch.empty((), dtype=torch.int64).random_()`` would.

    Parameters
    ----------
    generator : torch.Generator, optional
        A generator of the CPU; by default PyTorch's default generator.
    p : float
        Probability of dropping.

    Returns
    -------
    int
        A seed with 0 <= seed < 2**63.
    """
    if p == 1:
        return 0
    if generator is None:  # saves an argument
        _word.tensor.random_()
    else:
        _word.tensor.random_(generator=generator)
    seed: int = _word.array.item()
    return seed


def draw_key(generator: torch.Generator | None, p: float) -> Tensor:
    """Draw a seed as a tensor, which is one for each sample where `torch.func.vmap` says so.

    `torch.randint` gives 64 bits of the generator here, of which `random_` has the low 63.
    """
    if p == 1:
        return torch.zeros((), dtype=torch.int64, device="cpu")
    word = torch.randint(-_INT64_MAX - 1, _INT64_MAX, (), generator=generator, device="cpu")
    return word & _INT64_MAX
