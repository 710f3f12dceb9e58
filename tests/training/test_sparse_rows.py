"""Sparse rows as a network's input compute what the same rows compute when they are dense."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fastdrop
from fastdrop import Sequential
from fastdrop.compiled._core import available_isas, use_isa
from fastdrop.compiled._sparse import SparseRows
from fastdrop.compiled._train import ProductGradient
from fastdrop.layers import BatchNormalization, Dense, Dropout, Input
from fastdrop.optimizers import SGD, Adam
from fastdrop.training.step import Step

DTYPES = {"float32": 2e-5, "float64": 1e-12}
NETWORKS = {
    "linear": [Dense(5)],
    "relu": [Dense(9, "relu"), Dense(2)],
    "a function": [Dense(4, "tanh"), Dense(2)],
    "dropout": [Dense(8, "relu"), Dropout(0.3), Dense(2)],
    "dropout of the input": [Dropout(0.5), Dense(7, "relu"), Dropout(0.1), Dense(2)],
    "all of the input dropped": [Dropout(1.0), Dense(3), Dense(2)],
    "a shared mask": [Dense(8, "relu"), Dropout(0.3, shared_axes=0), Dense(2)],
    "one unit": [Dense(1, "relu")],
    "no bias": [Dense(6, use_bias=False), Dense(2)],
}
DENSE_ONLY = {
    "a shared mask of the input": [Dropout(0.3, shared_axes=0), Dense(2)],
    "batch normalisation": [Dense(4), BatchNormalization(), Dense(2)],
    "no weights": [Dropout(0.3)],
}


def model_of(layers, features, dtype="float64", optimizer=None):
    layers = [type(layer).from_config(layer.get_config()) for layer in layers]
    model = Sequential([Input((features,)), *layers], seed=3, dtype=dtype)
    model.compile(optimizer or SGD(0.1), "mse")
    return model


def step_of(model):
    step = Step(model.network)
    step.follow()
    return step


def matrix(rows, features, density, seed=0):
    """Return the arrays of a CSR matrix, with columns in any order and several times."""
    rng = np.random.default_rng(seed)
    counts = rng.binomial(features, density, rows)
    columns = rng.integers(0, features, counts.sum())
    values = rng.normal(size=len(columns)) * rng.integers(0, 4, len(columns))  # some are zeros
    return np.append(0, counts.cumsum()), columns, values


def dense(arrays, features, dtype="float64"):
    starts, columns, values = arrays
    x = np.zeros((len(starts) - 1, features), dtype)
    np.add.at(x, (np.repeat(np.arange(len(x)), np.diff(starts)), columns), values.astype(dtype))
    return x


def taken(model, x, y):
    """Return losses and parameters of some steps, and the outputs after them."""
    step, found = step_of(model), []
    for _ in range(2):
        step.follow()
        loss, gradients = step.gradients(x, y)
        model.network.step += 1
        model.optimizer.update(model.params, gradients)
        found += [np.array(loss), *model.get_weights()]
    return [*found, step.predict(x).copy()]


@pytest.mark.parametrize("clipnorm", [None, 1.0])  # with which gradients are multiplied at once
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", NETWORKS)
def test_as_dense_rows(name, dtype, clipnorm):
    arrays = matrix(40, 300, 0.03)
    y = np.random.default_rng(1).normal(size=(40, NETWORKS[name][-1].units)).astype(dtype)
    expected, got = (
        taken(model_of(NETWORKS[name], 300, dtype, Adam(0.01, clipnorm=clipnorm)), x, y)
        for x in (dense(arrays, 300, dtype), SparseRows(*arrays, np.arange(40), 300, dtype))
    )
    for a, b in zip(expected, got, strict=True):
        np.testing.assert_allclose(b, a, rtol=DTYPES[dtype], atol=DTYPES[dtype] * 10)


@settings(deadline=None, max_examples=60)
@given(
    rows=st.integers(0, 30),
    features=st.integers(1, 200),
    units=st.integers(1, 13),
    density=st.sampled_from([0, 0.01, 0.3, 1]),
    index=st.sampled_from(["int32", "int64", ">i4", "uint16"]),
    order=st.randoms(use_true_random=False),
)
def test_any_matrix_and_any_of_its_rows(rows, features, units, density, index, order):
    starts, columns, values = matrix(rows, features, density)
    chosen = [order.randrange(rows) for _ in range(order.randrange(60))] if rows else []
    x = dense((starts, columns, values), features)[chosen].reshape(len(chosen), features)
    arrays = starts.astype(index), columns.astype(index), values
    sparse = SparseRows(*arrays, np.array(chosen, int), features, "float64")
    outputs = [
        step_of(model_of([Dense(units)], features)).predict(given).copy() for given in (x, sparse)
    ]
    np.testing.assert_allclose(outputs[1], outputs[0], atol=1e-12)
    if chosen:
        layers, y = [Dropout(0.4), Dense(units)], np.ones((len(chosen), units))
        for a, b in zip(*(taken(model_of(layers, features), given, y) for given in (x, sparse))):
            np.testing.assert_allclose(b, a, atol=1e-12)


@pytest.mark.parametrize("dtype", DTYPES)
def test_bits_depend_neither_on_threads_nor_on_the_instruction_set(dtype):
    arrays, expected = matrix(200, 1000, 0.03), None
    rows, y = SparseRows(*arrays, np.arange(200), 1000, dtype), np.ones((200, 50), dtype)
    before = fastdrop.get_num_threads()
    try:
        for isa in available_isas():
            for threads in (1, 2, 3):
                fastdrop.set_num_threads(threads)
                with use_isa(isa):
                    layers = [Dropout(0.3), Dense(50, "relu"), Dropout(0.2)]
                    found = [
                        array.tobytes() for array in taken(model_of(layers, 1000, dtype), rows, y)
                    ]
                expected = expected or found
                assert found == expected, (isa, threads)
    finally:
        fastdrop.set_num_threads(before)


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_that_take_them(name):
    assert step_of(model_of(NETWORKS[name], 5)).takes_sparse()


@pytest.mark.parametrize("name", DENSE_ONLY)
def test_networks_that_do_not(name):
    step = step_of(model_of(DENSE_ONLY[name], 5))
    assert not step.takes_sparse()


WRONG = {
    "a column too far": ([0, 1], [4], [1.0], [0], 4),
    "a negative column": ([0, 1], [-1], [1.0], [0], 4),
    "rows that end before they begin": ([0, 2, 1, 2], [0, 1], [1.0, 2.0], [1], 4),
    "rows behind the numbers": ([0, 3], [0, 1], [1.0, 2.0], [0], 4),
    "rows before the numbers": ([-1, 1], [0, 1], [1.0, 2.0], [0], 4),
    "a row that is not there": ([0, 1], [0], [1.0], [1], 4),
    "a negative row": ([0, 1], [0], [1.0], [-1], 4),
    "fewer numbers than columns": ([0, 2], [0, 1], [1.0], [0], 4),
    "a table of numbers": ([0, 1], [0], [[1.0]], [0], 4),
    "no rows' beginnings": ([], [], [], [0], 4),
    "negative features": ([0, 1], [0], [1.0], [0], -4),
}


@pytest.mark.parametrize("name", WRONG)
def test_no_csr_matrix(name):
    *arrays, rows, features = WRONG[name]
    with pytest.raises(ValueError, match="expected a CSR matrix with the chosen rows and"):
        SparseRows(*map(np.array, arrays), np.array(rows, int), features, "float64")


@pytest.mark.parametrize("dtype", ["float16", "int32", np.dtype("f8").newbyteorder()])
def test_other_dtypes(dtype):
    with pytest.raises(TypeError, match="dtype: expected float32 or float64, got "):
        SparseRows(np.array([0, 0]), np.array([]), np.array([]), np.array([0]), 4, dtype)


def test_a_chain_for_other_rows():
    rows = SparseRows(*matrix(4, 6, 0.5), np.arange(4), 6, "float64")
    for model in (model_of([Dense(2)], 7), model_of([Dense(2)], 6, "float32")):
        with pytest.raises(ValueError, match=r"x: expected [67] features of float"):
            step_of(model).predict(rows)


def test_a_gradient_of_another_shape_is_refused_before_the_update():
    rows = SparseRows(*matrix(4, 6, 0.5), np.arange(4), 6, "float64")
    params = {"w": np.ones((2, 6)), "v": np.ones((2, 5))}
    out = np.ones((2, 5))
    wrong = ProductGradient(np.ones((4, 2)).T, rows, out)
    with pytest.raises(ValueError, match="expected plain float64 for 4 samples and 6 features"):
        SGD(0.1).update(params, {"w": np.ones((2, 6)), "v": wrong})
    assert (params["w"] == 1).all()
