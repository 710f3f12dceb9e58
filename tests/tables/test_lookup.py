"""Rows of weights looked up and added are the products of one-hot rows, up to rounding."""

import numpy as np
import pytest
from sleeping_blas import assert_they_sleep
from table_files import columns

pytest.importorskip("pyarrow", reason="pyarrow is not installed: the extra tables")

from fastdrop import Sequential, TableModel
from fastdrop.layers import BatchNormalization, Dense, Dropout, Flatten, Input, ReLU
from fastdrop.tables import prediction
from fastdrop.tables.lookup import Lookup
from fastdrop.tables.preparation import Roles, prepare

TABLE = columns(120)
NETWORKS = {
    "dense": lambda: [Dense(8, "relu"), Dropout(0.5), Dense(3, "softmax")],
    "one layer": lambda: [Dense(3, "softmax")],
    "without a bias": lambda: [Dense(8, "tanh", use_bias=False), Dense(1)],
    "flattened": lambda: [Flatten(), Dense(8), BatchNormalization(), ReLU(), Dense(2)],
    "dropout first": lambda: [Dropout(0.5), Dense(8, "relu"), Dense(1)],
    "nothing dense": lambda: [BatchNormalization()],
}
LEFT_OUT = {
    "nothing": ("verdict",),
    "words": ("verdict", "town"),
    "numbers": ("verdict", "size", "sold", "new"),
}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("left_out", LEFT_OUT)
@pytest.mark.parametrize("layers", NETWORKS)
def test_outputs_are_those_of_the_network(layers, left_out, dtype):
    size = TABLE["size"].copy()
    size[::7] = np.nan  # so that it has a flag
    table = TABLE | {"size": size}
    prepared = prepare(table, Roles("price", ignore=LEFT_OUT[left_out]))
    width = prepared.encoding.width
    network = Sequential([Input((width,)), *NETWORKS[layers]()], seed=1, dtype=dtype)
    names = [layer.name for layer in network.layers]
    found = Lookup(network, prepared.encoding)(prepared.x)
    expected = network(prepared.x[:])
    assert found.dtype == expected.dtype == dtype
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    assert [layer.name for layer in network.layers] == names


def test_rounding_does_not_depend_on_the_blocks(monkeypatch):
    table = {name: values for name, values in TABLE.items() if name != "verdict"}
    model = TableModel(hidden=(16,), epochs=1).fit(table, "price", verbose=0)
    predictor = model.predictor()
    prepared = prepare(table, Roles("price"))
    monkeypatch.setattr(prediction, "AT_ONCE", 32)
    whole = np.concatenate(list(predictor.outputs([prepared.x])))
    assert len(whole) == len(prepared.x)
    parts = [prepared.x.part(slice(i, i + 7)) for i in range(0, len(prepared.x), 7)]
    np.testing.assert_array_equal(np.concatenate(list(predictor.outputs(parts))), whole)
    assert list(predictor.outputs([])) == []


def test_numpys_threads_sleep_while_rows_are_predicted():
    assert_they_sleep("""
from fastdrop import TableModel

rng = np.random.default_rng(0)
table = {f"x{i}": rng.normal(size=4000) for i in range(30)}
table |= {"town": rng.choice(list("abc"), 4000), "y": rng.normal(size=4000)}
model = TableModel(hidden=(64,), epochs=1).fit(table, "y", verbose=0)


def train():
    model.predict(table)
""")
