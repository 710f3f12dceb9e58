"""The same numbers as Keras 3, where it is installed."""

import warnings

import numpy as np
import pytest

import fastdrop
from fastdrop import initializers, layers, losses, metrics
from fastdrop.random import Key

with warnings.catch_warnings():  # TensorFlow's own
    warnings.simplefilter("ignore")
    keras = pytest.importorskip("keras")

pytestmark = pytest.mark.filterwarnings("default")

RNG = np.random.default_rng(0)
N, CLASSES = 40, 7
NUMBERS = RNG.integers(0, CLASSES, N)
ONE_HOT = np.eye(CLASSES, dtype=np.float32)[NUMBERS]
LOGITS = RNG.normal(0, 2, (N, CLASSES)).astype(np.float32)
PROBABILITIES = layers.softmax(LOGITS)
POSITIVE = (PROBABILITIES * RNG.uniform(0.5, 2, (N, 1))).astype(np.float32)
BITS = RNG.integers(0, 2, (N, 1)).astype(np.float32)
SCORES = layers.sigmoid(LOGITS[:, :1])
WEIGHTS = RNG.uniform(0, 2, N).astype(np.float32)
WEIGHTS[3] = 0

LOSSES = {
    "mse": ("MeanSquaredError", {}, ONE_HOT, LOGITS),
    "mae": ("MeanAbsoluteError", {}, ONE_HOT, LOGITS),
    "huber": ("Huber", {}, ONE_HOT, LOGITS),
    "huber, delta": ("Huber", {"delta": 0.3}, ONE_HOT, LOGITS),
    "kl": ("KLDivergence", {}, PROBABILITIES[::-1].copy(), PROBABILITIES),
    "kl, one-hot": ("KLDivergence", {}, ONE_HOT, PROBABILITIES),
    "categorical": ("CategoricalCrossentropy", {}, ONE_HOT, PROBABILITIES),
    "sums not 1": ("CategoricalCrossentropy", {}, ONE_HOT, POSITIVE),
    "smooth": ("CategoricalCrossentropy", {"label_smoothing": 0.2}, ONE_HOT, PROBABILITIES),
    "logits": ("CategoricalCrossentropy", {"from_logits": True}, ONE_HOT, LOGITS),
    "sparse": ("SparseCategoricalCrossentropy", {}, NUMBERS, PROBABILITIES),
    "sparse logits": ("SparseCategoricalCrossentropy", {"from_logits": True}, NUMBERS, LOGITS),
    "binary": ("BinaryCrossentropy", {}, BITS, SCORES),
    "binary, smooth": ("BinaryCrossentropy", {"label_smoothing": 0.2}, BITS, SCORES),
    "binary logits": ("BinaryCrossentropy", {"from_logits": True}, ONE_HOT, LOGITS),
}


@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["plain", "weighted"])
@pytest.mark.parametrize(("name", "config", "y", "outputs"), LOSSES.values(), ids=list(LOSSES))
def test_losses(name, config, y, outputs, weights):
    expected = getattr(keras.losses, name)(**config)(y, outputs, sample_weight=weights)
    value, _ = getattr(losses, name)(**config)(outputs, y, sample_weight=weights)
    assert value == pytest.approx(float(expected), rel=2e-6)


KERAS_2 = {"kullback_leibler_divergence"}


def test_names_of_losses_and_metrics():
    for name in set(losses.LOSSES) - KERAS_2:
        expected = keras.losses.get(name)
        known = getattr(expected, "__name__", type(expected).__name__).replace("_", "").lower()
        assert known == type(losses.get(name)).__name__.lower()
    for name in set(metrics.METRICS) - set(losses.LOSSES) - {"acc", "accuracy"}:
        assert keras.metrics.get(name) is not None


METRICS = {
    "sparse": ("SparseCategoricalAccuracy", {}, NUMBERS, PROBABILITIES),
    "categorical": ("CategoricalAccuracy", {}, ONE_HOT, PROBABILITIES),
    "binary": ("BinaryAccuracy", {}, BITS, SCORES),
    "multi-label": ("BinaryAccuracy", {}, ONE_HOT, PROBABILITIES),
    "top k": ("TopKCategoricalAccuracy", {"k": 3}, ONE_HOT, PROBABILITIES),
    "sparse top k": ("SparseTopKCategoricalAccuracy", {}, NUMBERS, PROBABILITIES),
    "mse": ("MeanSquaredError", {}, ONE_HOT, PROBABILITIES),
    "mae": ("MeanAbsoluteError", {}, ONE_HOT, PROBABILITIES),
    "rmse": ("RootMeanSquaredError", {}, ONE_HOT, PROBABILITIES),
}


@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["plain", "weighted"])
@pytest.mark.parametrize(("name", "config", "y", "outputs"), METRICS.values(), ids=list(METRICS))
def test_metrics(name, config, y, outputs, weights):
    one, other = getattr(keras.metrics, name)(**config), getattr(metrics, name)(**config)
    assert other.name == one.name.rsplit("_", 1)[0] if one.name[-1].isdigit() else one.name
    for rows in (slice(0, 10), slice(10, None)):
        batch = None if weights is None else weights[rows]
        one.update_state(y[rows], outputs[rows], sample_weight=batch)
        other.update(outputs[rows], y[rows], sample_weight=batch)
    assert other.result() == pytest.approx(float(one.result()), rel=1e-6)


def test_auc_is_what_kerass_comes_near():
    one, other = keras.metrics.AUC(num_thresholds=20_000), metrics.AUC()
    one.update_state(BITS, SCORES, sample_weight=WEIGHTS)
    other.update(SCORES, BITS, sample_weight=WEIGHTS)
    assert other.result() == pytest.approx(float(one.result()), abs=1e-3)


@pytest.mark.parametrize("name", layers.ACTIVATIONS)
def test_activations(name):
    expected = keras.ops.convert_to_numpy(keras.activations.get(name)(LOGITS))
    np.testing.assert_allclose(layers.Activation(name)(LOGITS), expected, rtol=1e-5, atol=1e-6)


NORMALIZATIONS = {
    "batch": ("BatchNormalization", {}),
    "batch, arguments": ("BatchNormalization", {"momentum": 0.5, "epsilon": 0.1, "scale": False}),
    "layer": ("LayerNormalization", {}),
}


@pytest.mark.parametrize(("name", "config"), NORMALIZATIONS.values(), ids=list(NORMALIZATIONS))
def test_normalization(name, config):
    one, other = getattr(keras.layers, name)(**config), getattr(layers, name)(**config)
    for training in (True, True, False):
        x = RNG.normal(1, 3, (N, 3, CLASSES)).astype(np.float32)
        expected = keras.ops.convert_to_numpy(one(x, training=training))
        np.testing.assert_allclose(other(x, training), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "name", [name for name in initializers.INITIALIZERS if name not in ("ones", "zeros")]
)
def test_initializers(name):
    one, other = keras.initializers.get(name), initializers.get(name)
    expected = keras.ops.convert_to_numpy(one((300, 200)))  # Keras's order: inputs, units
    values = other((200, 300), Key(1))
    assert values.std() == pytest.approx(expected.std(), rel=0.02)
    if name != "random_normal":
        assert abs(values).max() == pytest.approx(abs(expected).max(), rel=0.01)


KINDS = {
    "layers": (
        *("Dense", "Dropout", "GaussianDropout", "GaussianNoise", "AlphaDropout", "Activation"),
        *("BatchNormalization", "LayerNormalization", "Flatten", "ReLU", "Softmax"),
    ),
    "optimizers": ("SGD", "Adam", "AdamW", "RMSprop"),
    "losses": (
        *("MeanSquaredError", "MeanAbsoluteError", "Huber", "KLDivergence", "BinaryCrossentropy"),
        *("CategoricalCrossentropy", "SparseCategoricalCrossentropy"),
    ),
    "metrics": (
        *("AUC", "Accuracy", "BinaryAccuracy", "CategoricalAccuracy", "TopKCategoricalAccuracy"),
        *("MeanSquaredError", "RootMeanSquaredError", "SparseCategoricalAccuracy"),
    ),
    "callbacks": (
        *("Callback", "CSVLogger", "EarlyStopping", "History", "LearningRateScheduler"),
        *("ModelCheckpoint", "ReduceLROnPlateau", "TerminateOnNaN"),
    ),
    "models": ("Sequential",),
}
GIVEN = {
    **{"Dense": (3,), "Activation": ("relu",), "LearningRateScheduler": (print,)},
    **dict.fromkeys(("CSVLogger", "ModelCheckpoint"), ("a.keras",)),
    **dict.fromkeys(("Dropout", "GaussianDropout", "GaussianNoise", "AlphaDropout"), (0.5,)),
}


@pytest.mark.parametrize(
    ("kind", "name"), [(kind, name) for kind, names in KINDS.items() for name in names]
)
def test_no_attribute_of_keras_is_assigned_for_nothing(kind, name):
    ours, theirs = (
        getattr(getattr(library, kind), name)(*GIVEN.get(name, ())) for library in (fastdrop, keras)
    )
    for attribute in dir(theirs):
        if not attribute.startswith("_") and not hasattr(ours, attribute):
            with pytest.raises(AttributeError, match=f"^{attribute}: expected an attribute"):
                setattr(ours, attribute, 0.5)
