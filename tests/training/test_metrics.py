import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastdrop import metrics
from fastdrop.layers import ACTIVATIONS
from fastdrop.losses import Huber

OUTPUTS = np.array([[0.1, 0.9], [0.8, 0.2], [0.6, 0.4], [0.3, 0.7]])
ONE_HOT = np.eye(2)[[1, 0, 1, 1]]  # the third is wrong
NUMBERS = np.array([1, 0, 1, 1])
COLUMN = np.array([[0.9], [0.2], [0.4], [0.6]])
LABELS = np.array([[1], [0], [1], [1]])
RANKS = np.array([[5, 4, 3, 2, 1, 0], [0, 1, 2, 3, 4, 5]]) / 10.0

CASES = {
    "class numbers": ("accuracy", OUTPUTS, NUMBERS, 0.75),
    "one-hot": ("accuracy", OUTPUTS, ONE_HOT, 0.75),
    "binary": ("accuracy", COLUMN, LABELS, 0.75),
    "Keras's short name": ("acc", COLUMN, LABELS, 0.75),
    "multi-label": ("binary_accuracy", OUTPUTS, ONE_HOT, 0.75),
    "sequences": ("accuracy", OUTPUTS.reshape(2, 2, 2), np.array([[1, 0], [1, 1]]), 0.75),
    "by name": ("sparse_categorical_accuracy", OUTPUTS, np.array([1, 1, 1, 1]), 0.5),
    "by name, one-hot": ("categorical_accuracy", OUTPUTS, ONE_HOT, 0.75),
    "top 5": ("sparse_top_k_categorical_accuracy", RANKS, np.array([5, 1]), 0.5),
    "top 5, one-hot": ("top_k_categorical_accuracy", RANKS, np.eye(6)[[5, 1]], 0.5),
    "top 2": (metrics.TopKCategoricalAccuracy(2), RANKS, np.eye(6)[[1, 3]], 0.5),
    "top 9": (metrics.SparseTopKCategoricalAccuracy(9), RANKS, np.array([5, 0]), 1.0),
    "top 1, equal": (metrics.SparseTopKCategoricalAccuracy(1), RANKS * 0, np.array([5, 0]), 1.0),
    "top 1, NaN": (metrics.SparseTopKCategoricalAccuracy(1), RANKS * math.nan, NUMBERS[:2], 0.0),
    "mse": ("mse", COLUMN, LABELS, (0.01 + 0.04 + 0.36 + 0.16) / 4),
    "mean_squared_error": ("mean_squared_error", COLUMN, LABELS, 0.1425),
    "mae": ("MAE", OUTPUTS, ONE_HOT, (0.1 + 0.2 + 0.6 + 0.3) / 4),
    "rmse": (metrics.RootMeanSquaredError(), COLUMN, LABELS, math.sqrt(0.1425)),
    "a loss": (
        "binary_crossentropy",
        COLUMN,
        LABELS,
        -np.log([0.9, 0.8, 0.4, 0.6]).mean(),
    ),
    "a sparse loss": (
        "sparse_categorical_crossentropy",
        OUTPUTS,
        NUMBERS,
        -np.log([0.9, 0.8, 0.4, 0.7]).mean(),
    ),
    "any loss": (metrics.LossMetric(Huber(0.2), "huber"), COLUMN, COLUMN + 0.1, 0.005),
    "auc": ("auc", COLUMN, LABELS, 1.0),
    "auc, one pair wrong": ("auc", COLUMN, LABELS[::-1], 2 / 3),
    "auc, all equal": ("auc", COLUMN * 0, LABELS, 0.5),
    "auc, one class": ("auc", COLUMN, LABELS * 0, math.nan),
    "auc, NaN": ("auc", COLUMN * math.nan, LABELS, math.nan),
}


@pytest.fixture(params=CASES.values(), ids=list(CASES))
def case(request):
    metric, outputs, y, expected = request.param
    metric = metrics.get(metric)
    metric.reset()
    return metric, outputs, y, expected


def test_known_values(case):
    metric, outputs, y, expected = case
    metric.update(outputs, y)
    assert metric.result() == pytest.approx(expected, nan_ok=True)
    assert isinstance(metric.result(), float)


def test_batches_add_up(case):
    metric, outputs, y, expected = case
    metric.update(outputs[1:], y[1:])
    metric.reset()
    metric.update(outputs[:1], y[:1])
    metric.update(outputs[1:], y[1:])
    assert metric.result() == pytest.approx(expected, nan_ok=True)


def test_a_weight_counts_samples(case):
    metric, outputs, y, _ = case
    times = np.arange(len(y))
    metric.update(np.repeat(outputs, times, axis=0), np.repeat(y, times, axis=0))
    expected = metric.result()
    metric.reset()
    metric.update(outputs, y, sample_weight=times.astype(np.float32) / 4)
    assert metric.result() == pytest.approx(expected, nan_ok=True)


@pytest.mark.parametrize(
    ("name", "activation"),
    [
        ("accuracy", "softmax"),
        ("accuracy", "sigmoid"),
        ("binary_accuracy", "softmax"),
        ("top_k_categorical_accuracy", "softmax"),
        ("mse", "softmax"),
        ("mae", "sigmoid"),
        ("auc", "softmax"),
        ("auc", "sigmoid"),
        ("categorical_crossentropy", "softmax"),
        ("categorical_crossentropy", "sigmoid"),
        ("binary_crossentropy", "softmax"),
    ],
)
def test_logits(name, activation):
    logits = np.random.default_rng(0).normal(size=(30, 7))
    y = np.eye(7)[np.arange(30) % 7]
    one, other = metrics.get(name), metrics.get(name)
    one.update(logits, y, activation)
    other.update(ACTIVATIONS[activation](logits, None)[0], y)
    assert one.result() == pytest.approx(other.result())


@given(
    st.lists(
        st.tuples(st.integers(0, 4), st.booleans(), st.sampled_from([0.0, 0.5, 1.0, 3.0])),
        min_size=1,
        max_size=20,
    )
)
def test_auc_counts_pairs(elements):
    """The definition: a pair counts one where the positive has the larger output, half if equal."""
    won = pairs = 0.0
    for high, positive, w in elements:
        for low, other_positive, v in elements:
            if positive and not other_positive:
                pairs += w * v
                won += w * v * ((high > low) + (high == low) / 2)
    outputs, y, weights = map(np.array, zip(*elements))
    metric = metrics.AUC()
    metric.update(outputs[:, np.newaxis] * 1.0, y[:, np.newaxis] * 1.0, sample_weight=weights)
    assert metric.result() == pytest.approx(won / pairs if pairs else math.nan, nan_ok=True)


def test_what_was_given_may_be_rewritten():
    outputs, y, metric = COLUMN.copy(), LABELS.astype(float), metrics.AUC()
    metric.update(outputs, y)
    outputs[:], y[:] = 0, 0
    assert metric.result() == 1.0


@pytest.mark.parametrize("name", ["acc", "Accuracy", "mse", "AUC", "kl_divergence"])
def test_reported_under_the_given_name(name):
    assert metrics.get(name).name == name
    assert metrics.AUC().name == "auc"
    assert metrics.AUC(name=name).name == name


def test_without_batches_there_is_no_figure():
    for name in metrics.METRICS:
        assert math.isnan(metrics.get(name).result())


def test_config_makes_an_equal_metric(case):
    metric, outputs, y, expected = case
    data = json.loads(json.dumps(metrics.serialize(metric)))
    other = metrics.get(data)
    assert type(other) is type(metric)
    assert other.name == metric.name
    other.update(outputs, y)
    assert other.result() == pytest.approx(expected, nan_ok=True)


BAD = {
    "name": (lambda: metrics.get("f1"), "metrics: .*accuracy.*got 'f1'"),
    "type": (lambda: metrics.get(3), "metrics: .*accuracy.*got 3"),
    "class": (lambda: metrics.get({"class_name": "F1", "config": {}}), "AUC.*got 'F1'"),
    "k": (lambda: metrics.TopKCategoricalAccuracy(0), "k: expected"),
    "sparse labels": (
        lambda: metrics.get("auc").update(OUTPUTS, NUMBERS),
        r"metrics: .*\(4, 2\) for 'auc'.*got \(4,\)",
    ),
    "one-hot labels": (
        lambda: metrics.get("sparse_categorical_accuracy").update(OUTPUTS, ONE_HOT),
        r"metrics: expected labels of shape \(4,\)",
    ),
    "which logits": (lambda: metrics.get("mse").update(COLUMN, LABELS, "logits"), "from_logits"),
}


@pytest.mark.parametrize(("call", "message"), BAD.values(), ids=list(BAD))
def test_bad_arguments(call, message):
    with pytest.raises(ValueError, match=message):
        call()


ROWS = [
    [0, 0, 0],
    [1, 2, 2],
    [3, -1, math.inf],
    [-math.inf] * 3,
    [0, math.nan, 5],
    [math.nan, 1, 2],
    [1, 0, math.nan],
]


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16])
@pytest.mark.parametrize("labels", [np.intp, np.uint8, np.float32])
@pytest.mark.parametrize("metric", [metrics.Accuracy, metrics.SparseCategoricalAccuracy])
def test_accuracy_counts_as_argmax(metric, labels, dtype):
    outputs = np.array(ROWS, dtype).repeat(3, axis=0)
    y = np.tile(np.arange(3), len(ROWS)).astype(labels)
    for rows in (outputs, np.asfortranarray(outputs), outputs[::-1]):
        counting = metric()
        counting.update(rows, y)
        assert counting.result() == np.mean(rows.argmax(axis=-1) == y)


def test_accuracy_of_ones_own():
    class Never(metrics.Accuracy):
        def _values(self, outputs, y, from_logits):
            return np.zeros(len(y), bool)

    never = Never()
    never.update(np.eye(3, dtype=np.float32), np.arange(3))
    assert never.result() == 0
