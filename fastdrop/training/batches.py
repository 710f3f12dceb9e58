"""Where a model's batches come from: arrays, in memory or on disk, or any iterable of batches.

Both kinds know the shape of a sample, check themselves against what a model expects, and then
yield their batches epoch by epoch.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from math import gcd
from numbers import Real
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from fastdrop._checks import as_array, check_complete, checked_count, is_series
from fastdrop._messages import shown
from fastdrop.compiled._train import Layouts, submatrix
from fastdrop.layers import Array, Shape
from fastdrop.random import Key, permutation
from fastdrop.training.expected import Expected, check_samples, check_weight
from fastdrop.training.sources import END, is_numbered, source_of

__all__ = [
    "WHOLE",
    "ArrayBatches",
    "Batches",
    "IterableBatches",
    "Minibatch",
    "Share",
    "batches_of",
    "validation_batches",
]


class Share(NamedTuple):
    """The rows of every batch that are computed here: the share of one rank among several."""

    rank: int
    ranks: int

    def of(self, rows: int) -> slice:
        """Return the rows of a batch with this many; there are none where ranks outnumber them."""
        return slice(self.rank * rows // self.ranks, (self.rank + 1) * rows // self.ranks)


WHOLE = Share(0, 1)


class Minibatch(NamedTuple):
    """The samples that a model gets for a step.

    Attributes
    ----------
    x : ndarray, (samples, ...)
        The inputs.
    y : ndarray or None
        The labels as the loss's ``targets`` returns them, or None in `predict`.
    sample_weight : ndarray, (samples,), or None
        The weights of the samples.
    row, rows : int
        Index of the first row of x in the whole batch, and the number of rows of the whole batch.
    """

    x: Array
    y: Any
    sample_weight: Array | None
    row: int
    rows: int


class ArrayBatches:
    """Batches of samples that lie in arrays.

    An array in memory is checked as a whole before the first batch. An array on disk (a memory map,
    or anything else with ``shape``, ``dtype`` and slices) is read and checked batch by batch.

    Parameters
    ----------
    x, y, sample_weight : array_like
        Arrays with equally many samples. The latter two may be None.
    names : sequence of str
        The caller's names for these arrays and for `steps`, for messages.
    batch_size : int, optional
        At least 1; the last batch may be smaller. By default all samples are one batch, or as many
        batches as `steps` says.
    steps : int, optional
        Batches in an epoch, by default all of them. The next epoch goes on where the last one
        ended. An epoch at the end of the samples is shorter.
    """

    def __init__(
        self,
        x: Any,
        y: Any,
        sample_weight: Any,
        names: Sequence[str],
        batch_size: int | None = None,
        steps: int | None = None,
    ) -> None:
        self.names = names
        self.x = _Samples(names[0], x)
        self.y: _Samples | None = None
        self.sample_weight: _Samples | None = None
        if y is not None:
            self.y = _Samples(names[1], y)
            if self.x.array.shape[:1] != self.y.array.shape[:1]:
                raise ValueError(
                    f"{names[1]}: expected a label for each sample of {names[0]}, "
                    f"got {names[0]} {self.x.array.shape} and {names[1]} {self.y.array.shape}"
                )
        check_samples(names[0], self.x.array)
        self.samples: int = len(self.x.array)
        if sample_weight is not None:
            self.sample_weight = _Samples(names[2], as_array(names[2], sample_weight))
            check_weight(names[2], self.sample_weight.array, (self.samples,))
        self._given = (batch_size, steps)
        self.batch_size = -(-self.samples // (steps or 1)) if batch_size is None else batch_size
        self._in_all = -(-self.samples // self.batch_size)
        self.steps = self._in_all if steps is None else steps
        if self.steps > self._in_all:
            raise ValueError(
                f"{names[3]}: expected at most {self._in_all}, the batches of {names[0]}, "
                f"more with an iterable of batches only, got {steps}"
            )
        self.sample_shape: Shape = tuple(self.x.array.shape[1:])

    def split(
        self, share: float, last_batch_size: int | None, last_steps: int | None
    ) -> tuple[ArrayBatches, ArrayBatches]:
        """Return batches of the first samples, and batches of the last, which are a given share."""
        kept = _samples_before_split(self.samples, share)

        def part(samples: _Samples | None, rows: slice) -> Array | None:
            if samples is None:
                return None
            if not isinstance(samples.array, np.ndarray):
                raise ValueError(
                    f"validation_split: expected it with NumPy's arrays and memory maps only, "
                    f"got {type(samples.array).__name__}"
                )
            return samples.array[rows]

        def batches(rows: slice, name: str, *sizes: int | None) -> ArrayBatches:
            x, y, weights = part(self.x, rows), part(self.y, rows), part(self.sample_weight, rows)
            return ArrayBatches(x, y, weights, (*self.names[:3], name), *sizes)

        return (
            batches(slice(kept), self.names[3], *self._given),
            batches(slice(kept, None), "validation_steps", last_batch_size, last_steps),
        )

    def check(self, expected: Expected) -> None:
        """Refuse samples that do not fit; `epoch` checks the values of arrays on disk."""
        self.expected = expected
        if self.y is None and expected.loss is not None:
            raise ValueError(
                f"{self.names[1]}: expected labels for the array {self.names[0]}, got None"
            )
        expected.check_shape(self.names[0], self.x.array)
        if not self.x.on_disk:
            expected.check_values(self.names[0], self.x.array)
        self._y_is_ready = False
        if self.y is None or self.y.on_disk:
            return
        y = self.y.array
        if y.size == self.samples:  # one number for each sample, which takes little memory
            self.y = _Samples(self.names[1], expected.targets(self.names[1], y))
            self._y_is_ready = True
            expected.check_labels(self.names[1], self.y.array)
            return
        rows = max(1, _CHECKED_AT_ONCE // (y[:1].size or 1))
        for start in range(0, self.samples, rows):
            targets = expected.targets(self.names[1], y[start : start + rows])
            expected.check_labels(self.names[1], targets)

    def steps_in(self, number: int) -> int:
        """Return the number of batches of this epoch, see `epoch`."""
        part = number % -(-self._in_all // self.steps)
        return min(self.steps, self._in_all - part * self.steps)

    def facts(self) -> dict[str, Any]:
        """Return what ranks must have in common, with a checksum of some samples in memory."""
        parts = {"x": self.x, "y": self.y, "sample_weight": self.sample_weight}
        given = {name: part for name, part in parts.items() if part is not None}
        facts = {name: part.facts() for name, part in given.items()}
        return {"batch_size": self.batch_size, **facts, "steps": self._given[1]}

    def epoch(
        self, title: str, key: Key | None = None, share: Share = WHOLE, number: int = 0
    ) -> Iterator[Minibatch]:
        """Yield the batches of one epoch.

        Parameters
        ----------
        title : str
            The name of the epoch, for messages.
        key : Key, optional
            Source of the order of the samples. Without a key they keep their order.
        share : Share
            Which rows of every batch to take. No other rows are read.
        number : int
            The number of the epoch, from 0. It decides where the batches begin if an epoch does not
            have all of them.

        Yields
        ------
        Minibatch
            A batch, whose memory the next one overwrites.
        """
        part = number % -(-self._in_all // self.steps)  # of a pass over all samples
        order = None
        if key is not None:
            first = Key(key.seed, key.call - part) if part else key
            order = permutation(first, self.samples)
        rows_an_epoch = self.steps * self.batch_size
        begin = part * rows_an_epoch
        end = min(begin + rows_an_epoch, self.samples)
        for step, start in enumerate(range(begin, end, self.batch_size), 1):
            whole = min(self.batch_size, self.samples - start)
            own = share.of(whole) if share.ranks > 1 else slice(0, whole)
            rows: Any = slice(start + own.start, start + own.stop)
            if order is not None:
                rows = order[rows]
            x = self.x.take(rows)
            if self.x.on_disk:
                self.expected.check_values(f"{self.names[0]}, batch {step} of {title}", x)
            if self.y is None:
                yield Minibatch(x, None, None, own.start, whole)
                continue
            y = self.y.take(rows)
            if not self._y_is_ready:
                y = self.expected.targets(f"{self.names[1]}, batch {step} of {title}", y)
            if self.y.on_disk:
                self.expected.check_labels(f"{self.names[1]}, batch {step} of {title}", y)
            weights = None if self.sample_weight is None else self.sample_weight.take(rows)
            if weights is not None or self.expected.class_weight is not None:
                weights = self.expected.weights(y, weights)
            yield Minibatch(x, y, weights, own.start, whole)


_CHECKED_AT_ONCE = 1 << 18  # elements: little memory, and few calls
# Elements. Arrays with fewer are compared as a whole, which takes about a millisecond at most.
_COMPARED_OF_ARRAY, _COMPARED_OF_BATCH = 1 << 18, 1 << 10


class _Samples:
    """An array in memory or on disk whose first axis counts samples."""

    def __init__(self, argument: str, array: Any) -> None:
        self.argument = argument
        self.on_disk = isinstance(array, np.memmap) or _is_stored(array)
        if self.on_disk:
            check_complete(argument, array)
        self._set(array if self.on_disk else as_array(argument, array))
        self._buffer = np.empty((0, *self.array.shape[1:]), self.array.dtype)
        self._latest = self._buffer
        own = {argument: self.array} if isinstance(self.array, np.ndarray) else {}
        self._check_layout = Layouts(own).check

    def _set(self, array: Any) -> None:
        self.array = array
        # Of any other array, NumPy's `take` would copy the whole.
        self._plain = isinstance(array, np.ndarray) and (
            array.flags.c_contiguous and array.flags.aligned and array.dtype.isnative
        )
        self._compiled = self._plain and array.ndim == 2 and array.dtype in (np.float32, np.float64)
        # Whether the numbers of a sample lie apart, as by columns in pandas
        self._scattered = not (self.on_disk or array.ndim < 2 or array[:1].flags.c_contiguous)

    def facts(self) -> dict[str, Any]:
        array = self.array
        facts = {"shape": tuple(array.shape), "dtype": array.dtype.name}
        if self.on_disk:
            rows = sorted({i * (len(array) - 1) // 15 for i in range(16)})
            array = np.concatenate([np.asarray(array[row : row + 1]) for row in rows])
        return facts | {"checksum of some samples": _checksum(array, _COMPARED_OF_ARRAY)}

    def take(self, rows: Any) -> Array:
        """Return the samples of these rows, a slice or indices; the next call may overwrite them.

        Raises
        ------
        ValueError
            When somebody, such as a callback, has assigned another shape or dtype to the array.
        """
        self._check_layout()
        if self._scattered and type(rows) is not slice:
            # Once, because gathering samples number by number takes several times as long
            self._set(np.ascontiguousarray(self.array))
        array = self.array
        if self._plain and type(rows) is not slice:
            samples = self._room_for(len(rows))
            if self._compiled:
                submatrix(array, rows, None, samples)
                return samples
            return array.take(rows, 0, samples, "clip")  # "raise" copies once more
        if isinstance(array, np.ndarray):
            return np.asarray(array[rows])
        if isinstance(rows, slice):
            return as_array(self.argument, array[rows])
        ascending = np.argsort(rows)  # HDF5 takes only ascending indices
        samples = np.empty((len(rows), *array.shape[1:]), array.dtype)
        samples[ascending] = as_array(self.argument, array[rows[ascending]])
        return samples

    def _room_for(self, rows: int) -> Array:
        if len(self._latest) != rows:  # usually it is the same as for the batch before
            if len(self._buffer) < rows:
                self._buffer = np.empty((rows, *self.array.shape[1:]), self.array.dtype)
            self._latest = self._buffer[:rows]
        return self._latest.view()  # a view, because others may assign another shape to it


_name = cache(str)  # the name of a dtype, for which NumPy takes 2 us


def _checksum(array: Array, most: int) -> int:
    """Return a checksum of about `most` elements at most, from all over the array."""
    flat: Any = array.reshape(-1) if array.flags.c_contiguous else array.flat
    sample = array[:1].size
    step = max(1, array.size // most)
    while step > 1 and gcd(step, sample) > 1:  # so that it takes other places of each sample
        step += 1
    return zlib.crc32(np.ascontiguousarray(flat[::step]).data)


def _is_stored(array: Any) -> bool:
    """Tell whether this is like an array, but does not lie in memory: HDF5, Zarr, ..."""
    return (
        not isinstance(array, np.ndarray)
        and isinstance(getattr(array, "dtype", None), np.dtype)
        and all(hasattr(array, name) for name in ("shape", "__getitem__", "__len__"))
        and not hasattr(array, "__dlpack__")  # JAX and similar libraries
        and not hasattr(array, "iloc")  # pandas, whose indices are labels
    )


class IterableBatches:
    """Batches that the caller makes.

    Parameters
    ----------
    batches : iterable
        Yields x, (x,), (x, y) or (x, y, sample_weight), each array_like with equally many samples.
        It is iterated anew for every epoch, unless `steps` is given. It may also be an object with
        the interface of Keras's `Sequence`, with or without ``__iter__``. If it has the methods
        `on_epoch_begin` and `on_epoch_end`, they are called around every epoch that reaches its
        end.
    argument : str
        The caller's name for it, for messages.
    steps : int, optional
        Batches in an epoch. The next epoch goes on where the last one ended. An object that can be
        iterated again starts again at its end.
    anew : bool
        Whether each epoch starts at the beginning nevertheless, if the object can be iterated
        again.
    """

    def __init__(
        self, batches: Any, argument: str, steps: int | None = None, anew: bool = False
    ) -> None:
        self.argument = argument
        self.batches = batches
        self._source = source_of(batches, steps, anew)
        self.steps = self._source.known_steps
        self._endless = steps is not None
        self._first = self._source.first(self._kept)
        if self._first is END:
            raise ValueError(f"{argument}: expected at least one batch, got none")
        self.sample_shape: Shape = tuple(self._first[0].shape[1:])

    def check(self, expected: Expected) -> None:
        """Refuse a first batch that does not fit."""
        self.expected = expected
        self._checked(f"{self.argument}, first batch", *self._first)

    def steps_in(self, number: int) -> int | None:
        """Return the number of batches of this epoch, or None where it is not known."""
        return self.steps

    def facts(self) -> dict[str, Any]:
        """Return what ranks must have in common."""
        return {"sample's shape": self.sample_shape, "steps": self.steps}

    def facts_of_batch(self) -> dict[str, Any]:
        """Return what ranks must have in common about the last batch, with all its rows."""
        facts: dict[str, Any] = {"samples": len(self._last.x)}
        for name, given, array in zip(("x", "y", "sample_weight"), self._given, self._last):
            if array is not None:
                facts[name] = {
                    "shape": array.shape,
                    "dtype": _name(getattr(given, "dtype", array.dtype)),
                    "checksum": _checksum(array, _COMPARED_OF_BATCH),
                }
        return facts

    def epoch(
        self, title: str, key: Key | None = None, share: Share = WHOLE, number: int = 0
    ) -> Iterator[Minibatch]:
        """Yield the batches of one epoch, see `ArrayBatches.epoch`.

        The batches decide on their order themselves, unless they have numbers. Every rank iterates
        over all of them, and keeps its rows of each.
        """
        self._tell("on_epoch_begin")
        step = 0
        for step, batch in enumerate(self._source.epoch(key), 1):
            place = f"{self.argument}, batch {step} of {title}"
            self._given = self._parts(place, batch)
            self._last = self._checked(place, *self._given)
            x, y, sample_weight, _, whole = self._last
            own = share.of(whole)
            yield Minibatch(
                x[own],
                None if y is None else y[own],
                None if sample_weight is None else sample_weight[own],
                own.start,
                whole,
            )
        if step == 0 or (self._endless and step != self.steps):
            count = f"{self.steps} batches" if self._endless else "batches"
            raise ValueError(
                f"{self.argument}: expected {count} in {title}, got {step or 'none'}: the "
                "generator has ended; give what can be iterated again, or one that lasts for "
                "all epochs, and the number of steps in each"
            )
        self._tell("on_epoch_end")

    def _tell(self, hook: str) -> None:
        """Call a method of Keras's `Sequence` if there is one."""
        if hasattr(self.batches, hook):
            getattr(self.batches, hook)()

    def _kept(self, batch: Any) -> tuple[Array, Any, Any]:
        """Return copies of the parts of the first batch."""
        x, y, sample_weight = self._parts(f"{self.argument}, first batch", batch)
        return x.copy(), _copy(y), _copy(sample_weight)

    def _parts(self, argument: str, batch: Any) -> tuple[Array, Any, Any]:
        parts = batch if isinstance(batch, tuple | list) else (batch,)
        if not 1 <= len(parts) <= 3:
            raise ValueError(
                f"{argument}: expected (x, y) or (x, y, sample_weight), got {len(parts)} items"
            )
        x = as_array(argument, parts[0])
        check_samples(argument, x)
        y, sample_weight = (*parts[1:], None, None)[:2]
        return x, y, sample_weight

    def _checked(self, argument: str, x: Array, y: Any, sample_weight: Any) -> Minibatch:
        expected = self.expected
        expected.check_shape(argument, x)
        expected.check_values(argument, x)
        if expected.loss is None:
            return Minibatch(x, None, None, 0, len(x))
        y = as_array(f"{argument}, y", y)
        if y.shape[:1] != x.shape[:1]:
            raise ValueError(
                f"{argument}: expected (x, y) with a label for each sample, "
                f"got x {x.shape} and y {y.shape}"
            )
        y = expected.targets(f"{argument}, y", y)
        expected.check_labels(f"{argument}, y", y)
        if sample_weight is not None:
            sample_weight = as_array(f"{argument}, sample_weight", sample_weight)
            check_weight(f"{argument}, sample_weight", sample_weight, x.shape[:1])
        return Minibatch(x, y, expected.weights(y, sample_weight), 0, len(x))


def _copy(part: Any) -> Any:
    """Return a copy as an array. What cannot be an array is left to the checks, which refuse it."""
    try:
        return None if part is None else as_array("", part).copy()
    except ValueError:
        return part


Batches: TypeAlias = ArrayBatches | IterableBatches


def batches_of(
    x: Any,
    y: Any,
    sample_weight: Any,
    names: Sequence[str],
    batch_size: int | None,
    steps: int | None = None,
    anew: bool = False,
) -> Batches:
    """Return batches of arrays, or the batches themselves if `x` is an iterable of batches.

    `names` are the caller's names for `x`, `y`, `sample_weight` and `steps`. `anew` is for
    `IterableBatches`.

    Raises
    ------
    ValueError
        When the arguments do not fit together.
    """
    if steps is not None:
        steps = checked_count(names[3], steps)
    is_array = not is_numbered(x) and (
        isinstance(x, list | tuple) or hasattr(x, "__array__") or hasattr(x, "shape")
    )
    if is_array and y is None and isinstance(x, list | tuple) and _is_batch(x[0] if x else None):
        is_array = False
    if is_array:
        return ArrayBatches(x, y, sample_weight, names, batch_size, steps)
    if not is_series(x) and not is_numbered(x):
        got = type(x).__name__ if isinstance(x, Iterable) else repr(x)
        raise ValueError(f"{names[0]}: expected an array or an iterable of batches, got {got}")
    for name, argument in zip(names[1:], (y, sample_weight)):
        if argument is not None:
            raise ValueError(
                f"{name}: expected None beside an iterable of batches, which has its own"
            )
    return IterableBatches(x, names[0], steps, anew)


def validation_batches(data: Any, batch_size: int | None, steps: int | None) -> Batches:
    """Return the batches of `fit`'s argument `validation_data`.

    Raises
    ------
    ValueError
        When it is neither a pair or triple of arrays nor an iterable of batches.
    """
    names = [f"validation_data[{i}]" for i in range(3)]
    pair = isinstance(data, tuple) or (
        isinstance(data, list) and len(data) in (2, 3) and not isinstance(data[0], tuple)
    )
    if pair and len(data) in (2, 3):
        x, y, weights = (*data, None)[:3]
        return batches_of(x, y, weights, (*names, "validation_steps"), batch_size, steps)
    iterable = is_series(data) and not hasattr(data, "shape")
    if pair or not (iterable or is_numbered(data)):
        raise ValueError(
            "validation_data: expected (x, y), (x, y, sample_weight) or an iterable of batches"
        )
    names = ["validation_data", *names[1:], "validation_steps"]
    return batches_of(data, None, None, names, batch_size, steps, anew=True)


def _is_batch(item: Any) -> bool:
    """Tell whether an item of a list is a batch, and not a row of numbers."""
    return isinstance(item, tuple) and len(item) > 0 and np.ndim(item[0]) > 1


def _samples_before_split(samples: int, validation_split: float) -> int:
    share = isinstance(validation_split, Real) and not isinstance(validation_split, bool)
    if not share or not 0 < validation_split < 1:
        raise ValueError(
            f"validation_split: expected a share in [0, 1), got {shown(validation_split)}"
        )
    kept = int(samples * (1 - validation_split))
    if kept in (0, samples):
        raise ValueError(
            f"validation_split: expected at least one sample in both parts, "
            f"got {validation_split} of {samples} samples"
        )
    return kept
