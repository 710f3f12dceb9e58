"""Where masks get their randomness: keys, and generators that hand them out.

The call counter of a `Generator` is the only hidden state here. ``kernels/kernels.h`` states the
contract, with the meaning of every bit.
"""

from __future__ import annotations

import math
import os
import secrets
import threading
from collections.abc import Iterable
from functools import partial
from typing import NamedTuple, SupportsIndex
from weakref import WeakSet

import numpy as np

from fastdrop._checks import unsigned
from fastdrop._messages import shown
from fastdrop.compiled import _core

__all__ = [
    "Generator",
    "Key",
    "default_generator",
    "generator_of",
    "permutation",
    "seed",
    "uniform",
]


class _Key(NamedTuple):
    seed: int
    call: int


class Key(_Key):
    """A key, which decides a mask together with p and the index of an element.

    Parameters
    ----------
    seed, call : int
        Unsigned 64-bit integers: the number of a random stream, and of one use of this stream.

    Raises
    ------
    TypeError, ValueError
        If seed or call is not an integer in [0, 2**64).

    Notes
    -----
    Keys are immutable and hashable, and compare by value. Masks of different keys are independent.
    Masks of one key are nested: a smaller p keeps every element that a larger p keeps. The
    generator is Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC11).

    Examples
    --------
    >>> from fastdrop import Key
    >>> Key(42).fold_in(1)
    Key(seed=935947606504197999, call=0)
    """

    __slots__ = ()

    def __new__(cls, seed: SupportsIndex, call: SupportsIndex = 0) -> Key:
        return super().__new__(cls, unsigned(seed, "seed"), unsigned(call, "call"))

    def _replace(self, **changed: SupportsIndex) -> Key:
        return Key(**{**self._asdict(), **changed})

    @classmethod
    def _make(cls, iterable: Iterable[SupportsIndex]) -> Key:  # type: ignore[override]
        return cls(*iterable)

    def fold_in(self, n: SupportsIndex) -> Key:
        """Derive the n-th key of this key, independent of this key and of all its other ones.

        Parameters
        ----------
        n : int
            0 <= n < 2**48, for instance the number of a layer or of a rank.

        Returns
        -------
        Key
            A key with a new seed and call 0.

        Raises
        ------
        TypeError, ValueError
            If n is not an integer in [0, 2**48).
        """
        n = unsigned(n, "n", 48)
        return _new_key((_core.fold_in(self.seed, self.call, n), 0))


# Makes a key of two integers that were checked already.
_new_key = partial(tuple.__new__, Key)

# One lock serves all generators. It is held for a few instructions only, and because there is only
# one, a fork can wait until no thread holds it, so that no child inherits a locked lock.
_lock = threading.Lock()
os.register_at_fork(
    before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_lock.release
)

# Generators whose seed nobody has given: they get a new seed in every forked child.
_unseeded: WeakSet[Generator] = WeakSet()


def _draw_seeds() -> None:
    for generator in _unseeded:
        generator._seed, generator._call = secrets.randbits(64), 0


os.register_at_fork(after_in_child=_draw_seeds)


class Generator:
    """A generator of keys: one seed, and a counter of calls.

    Parameters
    ----------
    seed : int, optional
        0 <= seed < 2**64. By default the operating system draws it.

    Attributes
    ----------
    seed : int
        The number of the generator's random stream.

    Raises
    ------
    TypeError, ValueError
        If seed is not an integer in [0, 2**64).

    Notes
    -----
    Threads may share a generator: it hands out every key once. In a forked child, a generator whose
    seed was drawn gets a new seed, and so do the generators spawned from it. A generator whose seed
    was given hands out the same keys in every child, so give each child a generator of its own, by
    `spawn` or `Key.fold_in`. A pickled copy is the same in every process.
    """

    __slots__ = ("__weakref__", "_call", "_seed")

    def __init__(self, seed: SupportsIndex | None = None) -> None:
        self._seed = secrets.randbits(64) if seed is None else unsigned(seed, "seed")
        self._call = 0
        if seed is None:
            _unseeded.add(self)

    def __getstate__(self) -> tuple[int, int, bool]:
        return *self.state, self in _unseeded

    def __setstate__(self, state: tuple[int, int, bool]) -> None:
        self._seed, self._call, unseeded = state
        (_unseeded.add if unseeded else _unseeded.discard)(self)

    def __repr__(self) -> str:
        seed, call = self.state
        return f"Generator(seed={seed}), call {call}"

    def next_key(self) -> Key:
        """Return (seed, call) and advance call by one, atomically.

        Returns
        -------
        Key
            The key (seed, call), with call as it was before.
        """
        with _lock:
            seed, call = self._seed, self._call
            self._call = call + 1 & 0xFFFFFFFFFFFFFFFF
        return _new_key((seed, call))

    def spawn(self, n: SupportsIndex) -> list[Generator]:
        """Make n independent generators. This uses up one key of this generator.

        Parameters
        ----------
        n : int
            How many generators to make, at least 0.

        Returns
        -------
        list of Generator
            The new generators; equal states give equal generators.
        """
        n = unsigned(n, "n", 48)
        key = self.next_key()
        children = [Generator(key.fold_in(i).seed) for i in range(n)]
        if self in _unseeded:
            _unseeded.update(children)
        return children

    @property
    def seed(self) -> int:
        return self._seed

    @property
    def state(self) -> tuple[int, int]:
        """The pair (seed, call), which is all there is to save and restore."""
        with _lock:
            return self._seed, self._call

    @state.setter
    def state(self, state: tuple[SupportsIndex, SupportsIndex]) -> None:
        try:
            seed, call = state
        except (TypeError, ValueError):
            raise ValueError(f"state: expected (seed, call), got {shown(state)}") from None
        key = Key(seed, call)
        with _lock:
            self._seed, self._call = key
        _unseeded.discard(self)


default_generator = Generator()


def generator_of(seed: SupportsIndex | None) -> Generator:
    """Return a generator with this seed, or one spawned from the default generator for None.

    Parameters
    ----------
    seed : int or None
        0 <= seed < 2**64.

    Returns
    -------
    Generator
        A new generator.
    """
    return default_generator.spawn(1)[0] if seed is None else Generator(seed)


def seed(n: SupportsIndex) -> None:
    """Set the default generator to seed n, call 0.

    The default generator gives keys to calls of `dropout` without a key, and seeds to layers and
    models without a seed. All children that are forked later repeat it alike: in worker i, call
    ``seed(Key(n).fold_in(i).seed)``. Without this function every child has a seed of its own.

    Parameters
    ----------
    n : int
        0 <= n < 2**64.

    Raises
    ------
    TypeError, ValueError
        If n is not an integer in [0, 2**64).
    """
    default_generator.state = (n, 0)


def uniform(key: Key, shape: tuple[int, ...], offset: int = 0) -> np.ndarray:
    """Return uniform variates of a key, one for each element.

    A variate is (word + 1/2) / 2**32, for one word of domain 1.

    Parameters
    ----------
    key : Key
        The key that decides the variates.
    shape : tuple of int
        The shape of the result.
    offset : int
        Index of the first element in a larger array.

    Returns
    -------
    ndarray of float64
        Numbers in (0, 1), in the given shape.
    """
    words = _core.random_words(math.prod(shape), key.seed, key.call, offset)
    return ((words + 0.5) / 2.0**32).reshape(shape)


def permutation(key: Key, n: int) -> np.ndarray:
    """Return a permutation of range(n): the order of 64-bit words of the key's domain 1.

    Parameters
    ----------
    key : Key
        The key that decides the permutation.
    n : int
        Its length, at least 0.

    Returns
    -------
    ndarray of int64
        The numbers 0 to n - 1, of shape (n,).
    """
    words = _core.random_words(2 * n, key.seed, key.call, 0).view(np.uint64)
    # The low bits hold the numbers, which the sort carries along: 15 times faster than argsort.
    low = np.uint64((1 << max(n - 1, 0).bit_length()) - 1)
    packed = (words & ~low) | np.arange(n, dtype=np.uint64)
    packed.sort()
    if (packed[1:] & ~low == packed[:-1] & ~low).any():  # where low bits would have decided
        return np.argsort(words, kind="stable")
    return (packed & low).astype(np.intp)
