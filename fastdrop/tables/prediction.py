"""What a network says of a table, block by block, as a table."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa

from fastdrop._checks import check_flag, checked_count
from fastdrop.layers import Array
from fastdrop.models import Sequential
from fastdrop.random import Key
from fastdrop.tables.encoding import EncodedRows, Encoding
from fastdrop.tables.lookup import Lookup
from fastdrop.tables.target import Target
from fastdrop.uncertainty import Prediction

__all__ = ["LEVEL", "Predictor"]

AT_ONCE = 2048  # rows that are computed at a time
LEVEL, DEVIATIONS = 0.95, 1.959963984540054  # of intervals: the share of a normal distribution
BLOCKS = 2**42  # folded into the seed for blocks of rows; no layer has this number


class Predictor:
    """Makes columns of a network's outputs.

    Parameters
    ----------
    network : Sequential
    encoding : Encoding
    target : Target
    noise : float
        Of a regression: the root of the mean squared error among the rows to validate on.
    mc : int, optional
        How many dropout masks tell of the uncertainty.
    moments : bool
        Whether `predict_moments` does.
    seed : int
        Of the masks.
    """

    def __init__(
        self,
        network: Sequential,
        encoding: Encoding,
        target: Target,
        noise: float,
        mc: int | None = None,
        moments: bool = False,
        seed: int = 0,
    ) -> None:
        if mc is not None:
            mc = checked_count("mc", mc)
        check_flag("moments", moments)
        if mc is not None and moments:
            raise ValueError("mc, moments: expected one of them, got both")
        self.network, self.target, self.noise = network, target, noise
        self.mc, self.moments = mc, moments
        self._outputs = Lookup(network, encoding)
        self._key = Key(seed).fold_in(BLOCKS)
        self._classes = pa.array(target.classes) if target.classes else None

    @property
    def schema(self) -> pa.Schema:
        """Names and types of the columns."""
        return self.columns(np.zeros((0, self.target.outputs), np.float32), None).schema

    def blocks(self, rows: Iterable[EncodedRows]) -> Iterator[pa.RecordBatch]:
        """Give what is predicted of blocks of rows, however many are in each."""
        if self.mc is None and not self.moments:
            yield from (self.columns(outputs, None) for outputs in self.outputs(rows))
            return
        for number, x in enumerate(_ahead(each[:] for each in _regrouped(rows))):
            said = self._said(x, number)
            yield self.columns(said.mean, said)

    def outputs(self, rows: Iterable[EncodedRows]) -> Iterator[Array]:
        """Give the network's outputs for blocks of rows."""
        for each in _ahead(_regrouped(rows)):
            yield self._outputs(each)

    def _said(self, x: Array, number: int) -> Prediction:
        if self.mc is None:
            return self.network.predict_moments(x)
        seed = self._key.fold_in(number).seed
        return self.network.predict_mc(x, self.mc, seed=seed, verbose=0)

    def columns(self, outputs: Array, said: Prediction | None) -> pa.RecordBatch:
        """Return the columns of these rows; with uncertainty if it was asked for."""
        uncertain = self.mc is not None or self.moments
        made = self._of_classes(outputs) if self.target.classes else self._of_numbers(outputs)
        if uncertain:
            made |= self._uncertainty(outputs, said, made)
        return pa.RecordBatch.from_pydict(made)

    def _of_numbers(self, outputs: Array) -> dict[str, Any]:
        return {"prediction": self.target.numbers(outputs)}

    def _of_classes(self, outputs: Array) -> dict[str, Any]:
        assert self._classes is not None
        chosen = outputs.argmax(axis=1) if len(outputs) else np.zeros(0, np.intp)
        made: dict[str, Any] = {"prediction": self._classes.take(pa.array(chosen))}
        for number, name in enumerate(self.target.classes):
            made[f"probability_{name}"] = outputs[:, number].astype(np.float32)
        return made

    def _uncertainty(
        self, outputs: Array, said: Prediction | None, made: dict[str, Any]
    ) -> dict[str, Any]:
        """Return the spread over masks, and the interval that it makes."""
        spread = np.zeros(outputs.shape) if said is None else said.std
        if not self.target.classes:
            std = spread[:, 0] * self.target.deviation
            reach = DEVIATIONS * np.hypot(std, self.noise)
            mean = made["prediction"]
            return {"std": std, "low": mean - reach, "high": mean + reach}
        rows = np.arange(len(outputs))
        chosen = outputs.argmax(axis=1) if len(outputs) else np.zeros(0, np.intp)
        mean, std = outputs[rows, chosen], spread[rows, chosen]
        reach = DEVIATIONS * std
        columns = {
            "std": std,
            "low": np.maximum(mean - reach, 0),
            "high": np.minimum(mean + reach, 1),
            "entropy": np.zeros(0) if said is None else said.entropy,
            "mutual_information": np.zeros(0) if said is None else said.mutual_information,
        }
        return {name: values.astype(np.float32) for name, values in columns.items()}


T = TypeVar("T")


def _ahead(items: Iterator[T]) -> Iterator[T]:
    """Give items, each of which is made while the one before it is used."""
    with ThreadPoolExecutor(1) as other:
        following = other.submit(next, items, None)
        while (item := following.result()) is not None:
            following = other.submit(next, items, None)
            yield item


def _regrouped(blocks: Iterable[EncodedRows]) -> Iterator[EncodedRows]:
    """Give rows `AT_ONCE` at a time: neither masks nor rounding depend on the blocks."""
    rest: EncodedRows | None = None
    for block in blocks:
        rows = block if rest is None else rest.followed_by(block)
        whole = len(rows) // AT_ONCE * AT_ONCE
        for start in range(0, whole, AT_ONCE):
            yield rows.part(slice(start, start + AT_ONCE))
        rest = rows.part(slice(whole, None))
    if rest is not None and len(rest):
        yield rest
