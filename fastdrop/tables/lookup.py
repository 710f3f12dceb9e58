"""A network's outputs for rows of a table, without products of zeros.

Of a column of words all inputs but one are 0. What its product with the weights of a `Dense` layer
is, is therefore a row of these weights, which is looked up by the word's code and added. A million
rows of ten such columns take half the time then, and no row is ever written out.
"""

from __future__ import annotations

import numpy as np

from fastdrop._quiet import quiet
from fastdrop.compiled._products import matmul
from fastdrop.layers import ACTIVATIONS, Array, Dense, Flatten, Input, Layer
from fastdrop.models import Sequential
from fastdrop.tables.encoding import EncodedRows, Encoding

__all__ = ["Lookup"]


class Lookup:
    """Computes a network's outputs at inference: up to rounding, what the network does.

    Parameters
    ----------
    network : Sequential
        One that does not begin with a `Dense` layer computes as ever.
    encoding : Encoding
        What made the rows.
    """

    def __init__(self, network: Sequential, encoding: Encoding) -> None:
        self._network = network
        layers = network.layers
        number = next((n for n, layer in enumerate(layers) if not isinstance(layer, Flatten)), 0)
        dense = layers[number]
        self._dense = dense if type(dense) is Dense else None
        if self._dense is None:
            return
        kernel = self._dense.params["weight"].T
        begin = len(encoding.numbers) + encoding.flags
        self._of_numbers = np.ascontiguousarray(kernel[:begin])
        self._of_words = [
            np.ascontiguousarray(kernel[offset : offset + column.width])
            for offset, column in zip(encoding.offsets, encoding.words, strict=True)
        ]
        above: list[Layer | Input] = [Input((self._dense.units,)), *layers[number + 1 :]]
        self._above = Sequential(above, dtype=str(network.dtype))

    def __call__(self, rows: EncodedRows) -> Array:
        """Return the network's outputs for these rows."""
        if self._dense is None:
            return self._network(rows[:])
        with quiet():
            sums = matmul(rows.numbers.astype(self._of_numbers.dtype, copy=False), self._of_numbers)
            part = np.empty_like(sums)
            for weights, codes in zip(self._of_words, rows.codes.T, strict=True):
                # "clip" writes to `part` as it goes; no code is out of range
                sums += np.take(weights, codes, axis=0, out=part, mode="clip")
            if self._dense.use_bias:
                sums += self._dense.params["bias"]
        outputs, _ = ACTIVATIONS[self._dense.activation](sums, sums)
        return self._above(outputs) if self._above.layers else outputs
