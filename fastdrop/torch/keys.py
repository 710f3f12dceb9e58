"""Keys from PyTorch's generators: its seeds, states and forks are the library's, too."""

from __future__ import annotations

import threading

import torch
from torch import Tensor

__all__ = ["draw_key", "draw_seed"]

_END = 2**63 - 1  # of the seeds that are drawn; an int64 holds no more


class _Word(threading.local):
    """A tensor to draw a seed into, for each thread: a fresh one costs more than the draw."""

    def __init__(self) -> None:
        with torch.inference_mode(False):  # such a tensor would be good for nothing elsewhere
            self.tensor = torch.empty((), dtype=torch.int64, device="cpu")
        self.array = self.tensor.numpy()  # the same memory, read in a fifth of the time


_word = _Word()


def draw_seed(generator: torch.Generator | None) -> int:
    """Draw a key's seed, the number that ``torch.randint(2**63 - 1, ())`` would draw.

    Parameters
    ----------
    generator : torch.Generator, optional
        Of the CPU; by default PyTorch's default generator.

    Returns
    -------
    int
        0 <= seed < 2**63 - 1.
    """
    _word.tensor.random_(0, _END, generator=generator)
    seed: int = _word.array.item()
    return seed


def draw_key(generator: torch.Generator | None) -> Tensor:
    """`draw_seed` as a tensor, one for each sample where `torch.func.vmap` says so."""
    return torch.randint(_END, (), generator=generator, device="cpu")
