"""Figures that cannot mean anything are refused before training; the others know of logits."""

import copy
import functools
import itertools

import numpy as np
import pytest

from fastdrop import losses, metrics
from fastdrop.layers import Activation, Dense, Residual, Softmax
from fastdrop.losses import BinaryCrossentropy, CategoricalCrossentropy
from fastdrop.metrics import LossMetric, SparseTopKCategoricalAccuracy, TopKCategoricalAccuracy
from fastdrop.models import Sequential

RNG = np.random.default_rng(0)
ROWS, CLASSES = 40, 4
X = RNG.normal(size=(ROWS, 3)).astype(np.float32)
NUMBERS = RNG.integers(0, CLASSES, ROWS)
ONE_HOT = np.eye(CLASSES)[NUMBERS]
SOFT = RNG.dirichlet(np.ones(CLASSES), ROWS)
SEVERAL = RNG.integers(0, 2, (ROWS, CLASSES))
SEVERAL[0] = 1
REAL = RNG.normal(size=(ROWS, CLASSES))
BINARY = NUMBERS % 2
LABELS = {
    "class numbers": NUMBERS,
    "one-hot": ONE_HOT,
    "soft": SOFT,
    "several at once": SEVERAL,
    "real": REAL,
    "0 and 1": BINARY,
    "between 0 and 1": SOFT[:, 0],
    "a real": REAL[:, 0],
}
LOSSES = {
    **{name: losses.get(name) for name in ("mse", "kl_divergence")},
    **{
        f"{name}{', logits' * logits}": kind(from_logits=logits)
        for name, kind in (
            ("binary_crossentropy", BinaryCrossentropy),
            ("categorical_crossentropy", CategoricalCrossentropy),
            ("sparse_categorical_crossentropy", losses.SparseCategoricalCrossentropy),
        )
        for logits in (False, True)
    },
}
METRICS = {
    **{name: name for name in metrics.METRICS if name.endswith(("_accuracy", "_crossentropy"))},
    **{name: name for name in ("mse", "huber", "root_mean_squared_error", "auc", "accuracy")},
    "kl_divergence": "kl_divergence",
    "top_k_categorical_accuracy": TopKCategoricalAccuracy(2),
    "sparse_top_k_categorical_accuracy": SparseTopKCategoricalAccuracy(2),
}
# which labels each figure is about, where the loss takes them in this shape
EXPECTED = {
    "accuracy": {"class numbers", "one-hot", "soft", "0 and 1"},
    "binary_accuracy": {"one-hot", "several at once", "0 and 1"},
    "categorical_accuracy": {"one-hot", "soft"},
    "top_k_categorical_accuracy": {"one-hot", "soft"},
    "sparse_categorical_accuracy": {"class numbers"},
    "sparse_top_k_categorical_accuracy": {"class numbers"},
    "sparse_categorical_crossentropy": {"class numbers"},
    "auc": {"one-hot", "soft", "several at once", "0 and 1", "between 0 and 1"},
    "binary_crossentropy": {"one-hot", "soft", "several at once", "0 and 1", "between 0 and 1"},
    "categorical_crossentropy": {"one-hot", "soft", "several at once"},
    "kl_divergence": {"one-hot", "soft", "several at once"},
    "mse": {*LABELS} - {"class numbers"},
}
EXPECTED |= dict.fromkeys(("huber", "root_mean_squared_error"), EXPECTED["mse"])


def model(loss, metric=None, activation="linear", units=CLASSES, **given):
    m = Sequential([Dense(5, "tanh", input_shape=(3,)), Dense(units, activation)], seed=1)
    m.compile("sgd", loss, [] if metric is None else [metric], **given)
    return m


@functools.cache
def takes(loss, labels, units):
    """Whether the loss alone takes these labels."""
    m = model(LOSSES[loss], units=units)
    return not refused(lambda: m.evaluate(X, LABELS[labels], verbose=0))


def refused(call):
    """Tell whether a call raises as it should: one short line."""
    try:
        with np.errstate(all="ignore"):
            call()
    except ValueError as error:
        message = str(error)
    else:
        return False
    assert message.isprintable()
    assert len(message) <= 200
    return True


def right_figure(metric, outputs, y, from_logits):
    """The figure from what the model means by its outputs."""
    if from_logits == "sigmoid":
        outputs = 1 / (1 + np.exp(-outputs))
    elif from_logits == "softmax":
        outputs = np.exp(outputs) / np.exp(outputs).sum(axis=-1, keepdims=True)
    metric = copy.deepcopy(metrics.get(metric))
    metric.update(outputs, y)
    return metric.result()


@pytest.mark.parametrize("name", METRICS)
def test_every_figure_of_every_loss_and_all_labels(name):
    allowed = set()
    for (labels, y), (loss_name, loss), activation in itertools.product(
        LABELS.items(), LOSSES.items(), ("linear", "sigmoid", "softmax")
    ):
        units = 1 if y.ndim == 1 and y is not NUMBERS else CLASSES
        one_softmax = units == 1 and activation == "softmax"
        if one_softmax or not takes(loss_name, labels, units):
            continue
        m = model(loss, METRICS[name], activation, units)
        weights, case = m.get_weights(), f"{labels}, {loss_name}, {activation}"
        if refused(lambda m=m, y=y: m.fit(X, y, verbose=0)):
            assert refused(lambda m=m, y=y: m.train_on_batch(X, y)), case
            assert refused(lambda m=m, y=y: m.fit([(X, y)], verbose=0)), case
            assert refused(lambda m=m, y=y: m.evaluate(X, y, verbose=0)), case
            assert m.step == 0, case
            assert all(map(np.array_equal, m.get_weights(), weights)), case
            assert labels not in EXPECTED[name], case
            continue
        assert labels in EXPECTED[name], case
        allowed.add(labels)
        logits = loss.folds if loss.from_logits and activation != loss.folds else None
        targets = loss.targets(y, (units,))
        expected = right_figure(METRICS[name], m.predict(X, verbose=0), targets, logits)
        given = {"batch_size": 16, "verbose": 0, "return_dict": True}
        figure = list(m.evaluate(X, y, **given).values())[1]
        assert figure == pytest.approx(expected, rel=1e-4), case
        assert m.test_on_batch(X, y)[1] == pytest.approx(expected, rel=1e-4), case
        assert m.train_on_batch(X, y)[1] == pytest.approx(expected, rel=1e-4), case
    assert allowed == EXPECTED[name]


def test_logits_of_the_loss_are_the_figures_too():
    m = Sequential([Dense(1, use_bias=False, input_shape=(1,))], seed=0)
    m.set_weights([[[0.6]]])  # a logit of 0.6 is a probability above 1/2, one of 0.3 too
    m.compile("sgd", BinaryCrossentropy(from_logits=True), ["accuracy", "binary_crossentropy"])
    x = np.linspace(-1, 1, 201)[:, np.newaxis]
    figures = m.evaluate(x, x[:, 0] > 0, verbose=0, return_dict=True)
    assert figures["accuracy"] == 1
    assert figures["binary_crossentropy"] == pytest.approx(figures["loss"])
    history = m.fit(x, x[:, 0] > 0, verbose=0, validation_data=(x, x[:, 0] > 0)).history
    assert history["val_binary_crossentropy"] == pytest.approx(history["val_loss"])
    m.loss.from_logits = False  # as what `loss` says now
    assert m.evaluate(x, x[:, 0] > 0, verbose=0)[1] < 1


MEANINGLESS = {
    **{
        f"softmax over one unit, {name}": (
            lambda loss=loss: model(loss, activation="softmax", units=1).fit(X, BINARY, verbose=0),
            "dense_1': expected softmax over two units or more, got one, .*'sigmoid'",
        )
        for name, loss in LOSSES.items()
    },
    "softmax over one unit, a layer of its own": (
        lambda: deep(Dense(1), Softmax()),
        "softmax': expected softmax over two units",
    ),
    "softmax over one unit in the middle": (
        lambda: deep(Dense(1, "softmax"), Dense(2), loss="mse", y=REAL[:, :2]),
        "dense': expected softmax over two units",
    ),
    "softmax over one unit in a branch": (
        lambda: deep(Dense(1), Residual([Activation("softmax")]), Dense(1)),
        "activation': expected softmax over two units",
    ),
    **{
        f"{name} of one output": (
            lambda loss=loss: model(loss, units=1).train_on_batch(X, BINARY * 0),
            "loss: expected two outputs or more for .* 'binary_crossentropy'",
        )
        for name, loss in LOSSES.items()
        if "categorical" in name or "kl" in name
    },
    **{
        f"class weights of labels that are {labels}": (
            lambda y=LABELS[labels], loss=loss: model(loss).fit(X, y, 8, class_weight={0: 2.0}),
            "class_weight: expected one class each in y, a single 1, got .*; use sample_weight",
        )
        for labels, loss in {
            "soft": "categorical_crossentropy",
            "several at once": "binary_crossentropy",
            "real": "mse",
        }.items()
    },
    "class weights of a regression": (
        lambda: model("mse", units=1).fit(X, REAL[:, 0], class_weight={0: 2.0}),
        "class_weight: expected it with labels that are classes, got",
    ),
    "class weights of batches": (
        lambda: model("mse").fit([(X, REAL)], class_weight={0: 2.0}),
        "class_weight: expected one class each in x, first batch, y",
    ),
    "accuracy of a regression": (
        lambda: model("mse", "accuracy", units=1).fit(X, REAL[:, 0]),
        "metrics: expected labels 0 or 1 in y for 'accuracy', got .*; other numbers need 'mse'",
    ),
    "accuracy of a validation": (
        lambda: model("mse", "accuracy", units=1).fit(
            X, BINARY, validation_data=(X, REAL[:, 0]), verbose=0
        ),
        r"metrics: expected labels 0 or 1 in validation_data\[1\] for 'accuracy'",
    ),
    "a weighted figure": (
        lambda: model("mse", units=1, weighted_metrics=["accuracy"]).evaluate(X, REAL[:, 0]),
        "metrics: expected labels 0 or 1 in y for 'accuracy'",
    ),
    "accuracy of several classes at once": (
        lambda: model("bce", "accuracy").evaluate(X, SEVERAL),
        "metrics: expected labels in y that add up to 1 for 'accuracy', .*'binary_accuracy'",
    ),
    "which of one class": (
        lambda: model("bce", "categorical_accuracy", units=1).evaluate(X, BINARY),
        "metrics: expected more than 1 outputs for 'categorical_accuracy', .*'binary_accuracy'",
    ),
    "the best 4 of 4": (
        lambda: model("sparse_categorical_crossentropy", SparseTopKCategoricalAccuracy(4)).fit(
            X, NUMBERS
        ),
        "metrics: expected more than 4 outputs for 'sparse_top_k.* choose k below 4",
    ),
    "AUC of class numbers": (
        lambda: model("sparse_categorical_crossentropy", "auc").fit(X, NUMBERS),
        "metrics: expected labels of shape .* for 'auc' .* got .*; try one-hot labels",
    ),
    "AUC of a regression": (
        lambda: model("mse", "auc", units=1).evaluate(X, REAL[:, 0]),
        r"metrics: expected labels in \[0, 1\] in y for 'auc'",
    ),
    "a crossentropy of a regression": (
        lambda: model("mse", "bce").evaluate(X, REAL),
        r"metrics, 'bce': expected values in \[0, 1\]",
    ),
    "a crossentropy of one output": (
        lambda: model("bce", "categorical_crossentropy", units=1).evaluate(X, BINARY),
        "metrics: expected two outputs or more for CategoricalCrossentropy",
    ),
    "logits of probabilities": (
        lambda: model(
            "mse", LossMetric(CategoricalCrossentropy(from_logits=True), "mine"), "softmax"
        ).evaluate(X, ONE_HOT),
        "metrics: expected from_logits=False for 'mine' of a model that ends with softmax",
    ),
}


def deep(*layers, loss="bce", y=BINARY):
    m = Sequential(layers)
    m.compile("sgd", loss)
    m.fit(X, y, verbose=0)


@pytest.mark.parametrize(("call", "message"), MEANINGLESS.values(), ids=list(MEANINGLESS))
def test_what_means_nothing_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
    assert refused(call)


def test_a_metric_of_ones_own_is_asked_about_nothing():
    class Own(metrics.BinaryAccuracy):
        pass

    m = model("mse", Own("own"), units=1)
    assert m.evaluate(X, REAL[:, 0], verbose=0)[1] == 0


def brier(y, outputs):
    return (y - outputs) ** 2


def test_functions_are_metrics():
    m = model(BinaryCrossentropy(from_logits=True), units=1, weighted_metrics=[brier, "mse"])
    m.compile(m.optimizer, m.loss, [brier, lambda y, p: 7.0], [brier, "mse"])
    weights = RNG.uniform(0, 2, ROWS)
    given = {"batch_size": 16, "verbose": 0, "return_dict": True}
    with pytest.raises(ValueError, match="each name once"):
        m.compile("sgd", "mse", [brier, brier])
    figures = m.evaluate(X, BINARY, sample_weight=weights, **given)
    assert list(figures) == ["loss", "brier", "<lambda>", "weighted_brier", "mse"]
    p = 1 / (1 + np.exp(-m.predict(X, verbose=0)[:, 0]))
    errors = (BINARY - p) ** 2
    assert figures["brier"] == pytest.approx(errors.mean(), rel=1e-5)
    assert figures["weighted_brier"] == pytest.approx(np.average(errors, weights=weights), rel=1e-5)
    assert figures["weighted_brier"] == pytest.approx(figures["mse"], rel=1e-5)
    assert figures["<lambda>"] == 7
    assert "brier" in m.fit(X, BINARY, verbose=0).history


@pytest.mark.parametrize(
    ("function", "given"),
    [(lambda y, p: p[:3], {}), (lambda y, p: 3.0, {"sample_weight": np.ones(ROWS)})],
)
def test_functions_of_samples_return_a_figure_for_each(function, given):
    m = model("bce", units=1)
    m.compile("sgd", "bce", weighted_metrics=[function])
    with pytest.raises(ValueError, match=f"'<lambda>' to return a figure for each of {ROWS}"):
        m.evaluate(X, BINARY, verbose=0, **given)


def test_functions_cannot_be_saved(tmp_path):
    m = model("mse", brier)
    with pytest.raises(ValueError, match="function: expected numbers, text"):
        m.save(tmp_path / "model")
    assert not list(tmp_path.iterdir())
