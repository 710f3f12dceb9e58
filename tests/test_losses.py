import math
from typing import NamedTuple

import numpy as np
import pytest
from test_layers import central_differences

from fastdrop.layers import Activation
from fastdrop.losses import LOSSES

RNG = np.random.default_rng(0)
ONE_HOT = np.eye(3)[[2, 0, 1, 1, 0]]


class Case(NamedTuple):
    loss: str
    y: np.ndarray
    outputs: np.ndarray  # as an activation gives them


def probabilities(*shape):
    p = RNG.uniform(0.05, 0.9, shape)
    return p / p.sum(axis=-1, keepdims=True)


CASES = {
    "mse": Case("mse", RNG.normal(size=(5, 2)), RNG.normal(size=(5, 2))),
    "mse, column": Case("mse", RNG.normal(size=5), RNG.normal(size=(5, 1))),
    "categorical": Case("categorical_crossentropy", ONE_HOT, probabilities(5, 3)),
    "soft labels": Case("categorical_crossentropy", probabilities(5, 3), probabilities(5, 3)),
    "sums not 1": Case("categorical_crossentropy", ONE_HOT, RNG.uniform(0.1, 2, (5, 3))),
    "sparse": Case("sparse_categorical_crossentropy", np.arange(5) % 3, probabilities(5, 3)),
    "sparse floats": Case("sparse_categorical_crossentropy", np.ones((5, 1)), probabilities(5, 3)),
    "sequences": Case(
        "sparse_categorical_crossentropy", np.array([[0, 1], [2, 2]]), probabilities(2, 2, 3)
    ),
    "binary": Case("binary_crossentropy", np.array([0, 1, 1, 0]), RNG.uniform(0.1, 0.9, (4, 1))),
    "multi-label": Case("binary_crossentropy", ONE_HOT, RNG.uniform(0.1, 0.9, (5, 3))),
}


@pytest.fixture(params=CASES.values(), ids=list(CASES))
def case(request):
    return request.param


def prepared(case):
    loss = LOSSES[case.loss]()
    return loss, loss.targets(case.y, case.outputs.shape[1:]).astype(
        np.int64 if case.loss.startswith("sparse") else np.float64
    )


def test_gradient_is_that_of_central_differences(case):
    (loss, y), outputs = prepared(case), case.outputs.copy()
    value, gradient = loss(outputs, y)
    expected = central_differences(lambda: loss(outputs, y)[0], outputs)
    assert isinstance(value, float)
    np.testing.assert_allclose(gradient, expected, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.loss != "mse"])
def test_logits_agree_with_probabilities(name):
    case = CASES[name]
    loss, y = prepared(case)
    logits = RNG.normal(size=case.outputs.shape)
    value, gradient = loss(logits, y, from_logits=True)
    assert value == pytest.approx(loss(Activation(loss.folds)(logits), y)[0], rel=1e-6)
    expected = central_differences(lambda: loss(logits, y, from_logits=True)[0], logits)
    np.testing.assert_allclose(gradient, expected, rtol=1e-5, atol=1e-8)


def test_gradient_keeps_the_outputs_dtype(case):
    loss = LOSSES[case.loss]()
    y = loss.targets(case.y, case.outputs.shape[1:])
    for from_logits in {False, loss.folds is not None}:
        _, gradient = loss(case.outputs.astype(np.float32), y, from_logits)
        assert gradient.dtype == np.float32


KNOWN_VALUES = {
    "mse": ("mse", [[1.0, 2.0]], [[3.0, 3.0]], False, 2.5),
    "categorical": ("categorical_crossentropy", [[0, 1]], [[0.5, 0.5]], False, math.log(2)),
    "sparse": ("sparse_categorical_crossentropy", [1], [[1.0, 3.0]], False, math.log(4 / 3)),
    "binary": ("binary_crossentropy", [1], [[0.25]], False, math.log(4)),
    "clipped": ("binary_crossentropy", [1], [[0.0]], False, -math.log(1e-7)),
    "clipped class": ("sparse_categorical_crossentropy", [0], [[0.0, 1.0]], False, -math.log(1e-7)),
    "large logits": ("sparse_categorical_crossentropy", [0], [[-1e4, 1e4]], True, 2e4),
    "large logit": ("binary_crossentropy", [1], [[-1e4]], True, 1e4),
}


@pytest.mark.parametrize(
    ("name", "y", "outputs", "from_logits", "expected"),
    KNOWN_VALUES.values(),
    ids=list(KNOWN_VALUES),
)
def test_known_values(name, y, outputs, from_logits, expected):
    loss = LOSSES[name]()
    outputs = np.array(outputs)
    value, gradient = loss(outputs, loss.targets(y, outputs.shape[1:]), from_logits)
    assert value == pytest.approx(expected, rel=1e-6)
    assert np.isfinite(gradient).all()


BAD_LABELS = {
    "too large": ("sparse_categorical_crossentropy", [0, 3], (3,), r"\[0, 3\).* got 3"),
    "negative": ("sparse_categorical_crossentropy", [0, -1], (3,), "got -1"),
    "fraction": ("sparse_categorical_crossentropy", [0.5], (3,), "whole numbers"),
    "NaN": ("sparse_categorical_crossentropy", [math.nan], (3,), "got nan"),
    "one-hot": ("sparse_categorical_crossentropy", np.eye(3), (3,), "categorical_crossentropy"),
    "class numbers": ("categorical_crossentropy", [0, 1], (3,), "sparse_categorical_crossentropy"),
    "not one-hot": ("categorical_crossentropy", [[0, 2]], (2,), r"\[0, 1\]"),
    "no probability": ("binary_crossentropy", [[-1.0]], (1,), r"\[0, 1\].* got -1.0"),
    "NaN in binary": ("binary_crossentropy", [[math.nan]], (1,), r"\[0, 1\]"),
    "infinite": ("mse", [[math.inf]], (1,), "finite"),
    "mse shape": ("mse", np.ones((2, 3)), (2,), r"\(samples, 2\).* got \(2, 3\)"),
    "text": ("mse", ["a"], (1,), "numbers"),
    "scalar": ("sparse_categorical_crossentropy", 1, (3,), "array of numbers"),
}


@pytest.mark.parametrize(
    ("name", "y", "output_shape", "message"), BAD_LABELS.values(), ids=list(BAD_LABELS)
)
def test_bad_labels(name, y, output_shape, message):
    with pytest.raises(ValueError, match="y_val: .*" + message):
        LOSSES[name]().targets(y, output_shape, "y_val")
