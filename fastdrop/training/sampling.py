"""Outputs of a network whose dropout stays on: the samples of `Sequential.predict_mc`.

Sample s of row r has the masks that row r has in training step s. These are the masks of the key
Key(seed).fold_in(number of the layer), with call s, from the first element of the row on. So a
sample is a function of (seed, s, r), of the weights and of the row itself.

What lies before the first layer of the dropout family is computed once. After it, a sample of a row
is a line, and many lines are computed at once. The bits of our own layers are those of the line
alone. In layers of users, the last bits of what a BLAS computes for a line depend on the size of
the product and on the place of the line. So lines come in pieces of `LINES`, and each line has its
place, (s + r) mod `LINES`. Its neighbours may be other rows of the same sample, or other samples of
the same row::

    line         0      1      2      3    ...
    many rows    s1 r3  s1 r0  s1 r1  s1 r2        four of 1024 rows, sample 1
    few rows     s0 r0  s1 r0  s2 r0  s3 r0        samples of the only row

Only element-wise dropout is computed like that. A network with other dropout, such as one mask for
all rows or channels, gets one sample after the other, with row r at line r mod `LINES`. If all rows
share one mask of a sample, only what the mask keeps is multiplied.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from fastdrop._quiet import quiet
from fastdrop.compiled._train import Layouts, Watched
from fastdrop.layers import Array, Batch
from fastdrop.layers.base import shapes_between
from fastdrop.random import Key
from fastdrop.training.batches import ArrayBatches, Batches
from fastdrop.training.block import Block, Part, whole
from fastdrop.training.blocks import make_blocks
from fastdrop.training.chains import ChainBlock
from fastdrop.training.network import Network
from fastdrop.training.sampled_layers import (
    called,
    first_random,
    is_element_wise,
    is_random,
    sampled,
)
from fastdrop.uncertainty import Accumulator, Prediction, rows_at_once

__all__ = ["Sampler"]

# Lines of a piece. More would hardly be faster, and fewer would waste less on few rows.
LINES = 128
ONCE = 32  # rows of a piece for what is computed once, where a single row has to be fast
AT_ONCE = 1024  # lines that go through the network together
INFERENCE = Batch(training=False)
SAMPLINGS = 2**41 + 1  # folded into the seed for samples; no layer has this number


class Sampler:
    """Draws samples of a network.

    Parameters
    ----------
    network : Network
        A network that is built.
    consistent : bool
        Whether each sample's masks are the same for all rows.

    Raises
    ------
    ValueError
        When no layer is of the dropout family, or, if `consistent`, when one cannot share masks.
    """

    def __init__(self, network: Network, consistent: bool = False) -> None:
        input_shape = network.built_shape()
        self.network, self.consistent = network, consistent
        layers, step = network.layers, network.step
        network.build(input_shape)  # because users may have replaced parameters
        self._number = first_random(layers)
        self._shapes = shapes_between(layers, input_shape)
        self.activation = layers[-1].activation
        before, behind = layers[: self._number], layers[self._number :]
        shapes = self._shapes[: self._number + 1]
        once = [called(layer, shape, ONCE) for layer, shape in zip(before, shapes)]
        self._piece = 1 if once == before else ONCE  # no layer depends on the rows beside a row
        self._once = make_blocks(once, shapes, 0, False, network.dtype)
        self._behind = [
            called(sampled(layer, shape, step, consistent), shape, LINES)
            for layer, shape in zip(behind, self._shapes[self._number :])
        ]
        self._together = all(
            not is_random(layer) or is_element_wise(layer) for layer in self._behind
        )
        self._random = [n for n, layer in enumerate(behind, self._number) if is_random(layer)]
        self._key: Key | None = None
        self._blocks: list[Block] = []
        self._chain: ChainBlock | None = None
        self._watch()

    def _watch(self) -> None:
        network = self.network
        inner = [layer for outer in network.layers for layer in outer.flattened()]
        settings: list[tuple[Any, str]] = [
            (layer, name) for layer in inner for name in (*_SETTINGS, "p") if hasattr(layer, name)
        ]
        if any(callable(getattr(layer, "p", None)) for layer in inner):
            settings.append((network, "step"))
        self._layouts = Layouts({f"weights[{n!r}]": a for n, a in network.weights().items()})
        self._watched = Watched(network.layers, settings)

    def is_current(self) -> bool:
        """Tell whether the network still consists of the same parts as when this was made."""
        if not self._watched.is_still(self.network.layers):
            return False
        self._layouts.check()
        return True

    def check_rows(self, batches: Batches) -> None:
        """Refuse rows of unknown number if masks depend on it.

        Raises
        ------
        ValueError
            When the number of rows is not known, and a layer has masks for groups of rows.
        """
        inner = [layer for outer in self._behind for layer in outer.flattened()]
        if any(getattr(layer, "groups", 1) > 1 for layer in inner) and not isinstance(
            batches, ArrayBatches
        ):
            raise ValueError("x: expected an array, for layers have masks for groups of its rows")

    def seed(self, key: Key) -> None:
        """Use another key for the samples that follow."""
        key = key.fold_in(SAMPLINGS)
        if key == self._key:
            return
        if self._chain is not None:
            self._chain.chain.reseed([key.fold_in(number).seed for number in self._random])
        else:
            shapes, number = self._shapes[self._number :], self._number
            self._blocks = make_blocks(
                self._behind, shapes, key.seed, False, self.network.dtype, first=number
            )
            first = self._blocks[0]
            if self._together and len(self._blocks) == 1 and isinstance(first, ChainBlock):
                self._chain = first
        self._key = key

    def predict(
        self,
        x: Array,
        row: int,
        rows: int | None,
        samples: int,
        quantiles: Array | None = None,
        return_samples: bool = False,
        tell: Callable[[int], Any] = lambda count: None,
    ) -> Prediction:
        """Draw samples of some rows, and return their prediction.

        Parameters
        ----------
        x : ndarray, (samples, ...)
            Finite numbers of any type, at least one row.
        row, rows : int
            The number of the first of these rows, and the number of all rows, or None if that is
            not known.
        samples : int
            How many samples to draw of each row, at least 1.
        quantiles, return_samples
            As for `Accumulator`.
        tell : callable
            Called with the number of lines that have been computed.

        Returns
        -------
        Prediction
            What the samples tell about these rows.
        """
        with quiet(over="ignore", invalid="ignore"):
            last, shape = row + len(x), self._shapes[-1]
            most = len(x)
            if quantiles is not None:
                itemsize = self.network.dtype.itemsize
                most = rows_at_once(samples, math.prod(shape), itemsize, most)
            x = self._computed_once(x, row)
            predictions = []
            for start, stop, by_rows in self._parts(row, last, most, samples):
                sums = Accumulator(stop - start, shape, self.activation, quantiles, return_samples)
                part = x[start - row : stop - row]
                step = self._samples_at_once(start, stop, by_rows)
                for first in range(0, samples, step):
                    end = min(samples, first + step)
                    if self._together:
                        lines = lines_of(start, stop, first, end, by_rows)
                        sums.add(self._draw_lines(part, start, lines))
                    else:
                        sums.add(self._draw_alone(part, start, first, rows)[np.newaxis])
                    tell((end - first) * len(part))
                predictions.append(sums.prediction())
            return Prediction.concatenate(predictions)

    def _computed_once(self, x: Array, row: int) -> Array:
        """Return what lies before the first random layer."""
        dtype, n, piece = self.network.dtype, len(x), self._piece
        skipped = row % piece
        if not self._once:
            return np.ascontiguousarray(x, dtype)
        padded = np.zeros((-(-(skipped + n) // piece) * piece, *x.shape[1:]), dtype)
        padded[skipped : skipped + n] = x
        parts = [Part(0, len(padded), None, padded)]
        for block in self._once:
            parts = block.forward(parts, INFERENCE)
        return np.ascontiguousarray(whole(parts)[skipped : skipped + n])

    def _parts(
        self, row: int, last: int, most: int, samples: int
    ) -> Iterator[tuple[int, int, bool]]:
        """Yield the rows [row, last) in parts, and whether each part is computed row by row."""

        def pays(rows: int) -> bool:
            """Tell whether the samples of a row, side by side, take far fewer lines than rows do.

            They take more time for each line, because each line has its mask drawn by itself.
            """
            return self._together and 2 * rows * -(-samples // LINES) < samples

        while row < last:
            stop = min(last, row + most)
            aligned = stop - stop % LINES
            if row < aligned < stop and pays(stop - aligned):
                stop = aligned
            by_rows = stop - row < LINES and pays(stop - row)
            if by_rows:
                stop = min(stop, row + AT_ONCE // LINES)
            yield row, stop, by_rows
            row = stop

    def _samples_at_once(self, start: int, stop: int, by_rows: bool) -> int:
        if not self._together:
            return 1
        tiles = -(-stop // LINES) - start // LINES
        return LINES if by_rows else max(1, AT_ONCE // (tiles * LINES))

    def _draw_lines(self, x: Array, row: int, lines: Lines) -> Array:
        """Return the samples of rows in these lines, (samples, rows, ...)."""
        in_lines = False
        for block in self._blocks:
            if isinstance(block, ChainBlock):
                x = block.sample(x, lines.segments, row, in_lines)
            else:
                x = whole(block.forward([Part(0, len(x), None, x)], INFERENCE))
            in_lines = True
        return x.take(lines.places, axis=0)

    def _draw_alone(self, x: Array, row: int, sample: int, rows: int | None) -> Array:
        """Return one sample of the rows."""
        skipped = row % LINES
        padded = np.zeros((-(-(skipped + len(x)) // LINES) * LINES, *x.shape[1:]), x.dtype)
        padded[skipped : skipped + len(x)] = x
        parts = [Part(0, len(padded), None, padded)]
        batch = Batch(training=True, key=Key(0, sample), row=row - skipped, rows=rows)
        for block in self._blocks:
            parts = block.forward(parts, batch)
        return whole(parts)[skipped : skipped + len(x)]


_SETTINGS = ("activation", "use_bias", "shared_axes", "groups", "mode", "stddev", "block_size")


class Lines(NamedTuple):
    """Lines that are computed at once.

    Attributes
    ----------
    segments : ndarray
        As for `Chain.sample`.
    places : ndarray of intp, (samples, rows)
        The lines in which the samples of the rows are.
    """

    segments: Array
    places: Array


def lines_of(start: int, stop: int, first: int, last: int, by_rows: bool) -> Lines:
    """Return the lines of samples [first, last) of rows [start, stop).

    Each piece has `LINES` rows of one sample or, `by_rows`, at most `LINES` samples of one row.
    """
    turn, place = first % LINES, start % LINES
    lines = _lines_of(place, place + stop - start, turn, turn + last - first, by_rows)
    if first == turn:
        return lines
    segments = lines.segments.copy()
    segments[:, 3] += (first - turn) * (segments[:, 3] >= 0)
    return lines._replace(segments=segments)


@lru_cache(maxsize=2 * LINES)
def _lines_of(start: int, stop: int, first: int, last: int, by_rows: bool) -> Lines:
    row, sample = np.arange(start, stop), np.arange(first, last)[:, np.newaxis]
    tile = row // LINES - start // LINES
    product = row - start if by_rows else (sample - first) * (tile[-1] + 1) + tile
    places = product * LINES + (sample + row) % LINES
    order = places.argsort(axis=None)
    lines = places.ravel()[order]
    samples, rows = np.divmod(order, stop - start)
    samples += first
    steps = [np.diff(values, prepend=-9) for values in (lines, rows, samples)]
    begins = (steps[0] != 1) | (steps[1] != 1) | (steps[2] != 0)
    numbers = begins.nonzero()[0]
    counts = np.diff(numbers, append=len(lines))
    used = np.stack([lines[numbers], counts, rows[numbers], samples[numbers]], axis=1)
    ends = np.concatenate([[0], used[:, 0] + counts])  # the ends of what is used
    total = -(-int(ends[-1]) // LINES) * LINES
    gaps = np.append(used[:, 0], total) - ends
    unused = np.stack([ends, gaps, np.zeros_like(ends), np.full_like(ends, -1)], axis=1)[gaps > 0]
    segments = np.concatenate([used, unused]).astype(np.int64)
    return Lines(segments[segments[:, 0].argsort()], places)
