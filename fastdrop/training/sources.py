"""The sources of batches that the caller makes: iterables and sequences."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from typing import Any, TypeAlias

from fastdrop.random import Key, permutation

__all__ = ["END", "Numbered", "Source", "Stream", "is_numbered", "source_of"]

END = object()  # the end of batches; None may be a batch


class Stream:
    """Batches from an iterable.

    Parameters
    ----------
    batches : iterable
        The batches.
    steps : int, optional
        Batches in an epoch, by default all there are.
    anew : bool
        Whether an epoch with `steps` starts at the beginning, if possible, instead of going on
        where the last one ended.

    Attributes
    ----------
    known_steps : int or None
        Batches in an epoch according to `len`. It is only for display, because it may be wrong.
    """

    def __init__(self, batches: Iterable[Any], steps: int | None, anew: bool) -> None:
        self.batches = batches
        self.known_steps = _length(batches) if steps is None else steps
        self._steps = steps
        self._anew = anew or steps is None
        self._iterator: Iterator[Any] = iter(batches)
        self._fresh = True  # no batch of this iterator has been taken yet

    def first(self, kept: Callable[[Any], Any]) -> Any:
        """Return what `kept` makes of the first batch, which stays in its place; or END.

        `kept` must copy: until training starts, a loader may overwrite the memory with other
        batches.
        """
        batch = next(self._iterator, END)
        if batch is not END:
            batch = kept(batch)
            self._iterator = chain([batch], self._iterator)
        return batch

    def epoch(self, key: Key | None) -> Iterator[Any]:
        """Yield the batches of an epoch, or those that are left, in the order of the iterable."""
        if self._anew and not self._fresh:
            self._iterator = iter(self.batches)
        step = 0
        while step != self._steps:
            batch = next(self._iterator, END)
            if batch is END and self._steps is not None:
                self._iterator = iter(self.batches)
                batch = next(self._iterator, END)
            self._fresh = False
            if batch is END:
                return
            step += 1
            yield batch


class Numbered:
    """Batches by number, from an object with Keras's interface of a `Sequence` or `PyDataset`.

    The parameters and attributes are those of `Stream`. The batches of one epoch after the other
    form a row, which is cut into epochs of `steps`. With a key, each epoch has an order of its own.
    """

    def __init__(self, batches: Any, steps: int | None, anew: bool) -> None:
        self.batches = batches
        self.known_steps = _length(batches) if steps is None else steps
        self._steps = steps
        self._anew = anew
        self._epochs = 0

    def first(self, kept: Callable[[Any], Any]) -> Any:
        """Return what `kept` makes of batch 0, or END. That batch is read again in its turn."""
        return kept(self.batches[0]) if len(self.batches) else END

    def epoch(self, key: Key | None) -> Iterator[Any]:
        """Yield the batches of an epoch, whose order depends on the key and its call only."""
        number = self._epochs if key is None else key.call
        self._epochs += 1
        batches = len(self.batches)
        steps = self._steps or batches
        first = 0 if self._anew and self._steps else number * steps
        order: Any = range(batches)
        for position in range(first, first + steps if batches else first):
            turn, index = divmod(position, batches)
            if key is not None and (index == 0 or position == first):
                order = permutation(Key(key.seed, turn), batches)
            yield self.batches[int(order[index])]


Source: TypeAlias = Stream | Numbered


def is_numbered(batches: Any) -> bool:
    """Tell whether this has the interface of Keras's `Sequence`, or can be nothing else."""
    others = ("__iter__", "__array__", "shape")
    may_be = hasattr(batches, "__getitem__") and (
        hasattr(batches, "on_epoch_end") or not any(hasattr(batches, name) for name in others)
    )
    return may_be and _length(batches) is not None  # last, because `len` may take long


def source_of(batches: Any, steps: int | None, anew: bool) -> Source:
    """Return the source that yields the batches."""
    return (Numbered if is_numbered(batches) else Stream)(batches, steps, anew)


def _length(batches: Any) -> int | None:
    """Return `len`, or None where there is none or it raises any error."""
    try:
        return len(batches)
    except Exception:
        return None
