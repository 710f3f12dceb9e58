"""Uncertainty by the names of scikit-learn, from the trainer's predictions."""

import numpy as np
import pytest

pytest.importorskip("sklearn")
from scipy import sparse
from sklearn.datasets import load_diabetes, load_digits
from sklearn.exceptions import NotFittedError

from fastdrop.sklearn import MLPClassifier, MLPRegressor

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

X, Y = load_digits(return_X_y=True)
X, Y = X[:300] / 16, Y[:300]
TABLE, TARGET = load_diabetes(return_X_y=True)
TABLE, TARGET = TABLE / TABLE.std(axis=0), (TARGET - TARGET.mean()) / TARGET.std()
SAMPLES = 3000
LABELS = np.stack([Y > 4, Y % 2], axis=1).astype(int)


def classifier(y=Y, **settings):
    given = {"hidden_layer_sizes": (32, 16), "max_iter": 60, "random_state": 0, "dropout": 0.2}
    given["learning_rate_init"] = 0.01
    return MLPClassifier(**given | settings).fit(X, y)


def regressor(y=TARGET, **settings):
    given = {"hidden_layer_sizes": (50,), "max_iter": 100, "random_state": 0, "dropout": 0.1}
    return MLPRegressor(**given | settings).fit(TABLE, y)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("y", [TARGET, np.stack([TARGET, TARGET**2], axis=1)])
@pytest.mark.parametrize("settings", [{}, {"dropout": 0.0, "input_dropout": 0.1}])
def test_standard_deviation(settings, y, dtype):
    net = regressor(y, dtype=dtype, **settings)
    mean, std = net.predict(TABLE, return_std=True)
    np.testing.assert_array_equal(mean, net.predict(TABLE))
    assert mean.shape == std.shape == y.shape
    assert mean.dtype == std.dtype == dtype
    sampled = net._model.predict_mc(TABLE.astype(dtype), SAMPLES, seed=1, verbose=0)
    expected = sampled.std.reshape(y.shape)
    assert 0.9 < np.median(std / expected) < 1.1
    assert np.corrcoef(std.ravel(), expected.ravel())[0, 1] > 0.9


def test_standard_deviation_of_counts():
    counts = np.round(np.exp(TARGET))
    net = regressor(counts, loss="poisson", dropout=0.05)
    _, std = net.predict(TABLE, return_std=True)
    logs = net._model.predict_mc(TABLE, 1000, seed=1, verbose=0, return_samples=True).samples
    expected = np.exp(logs).std(axis=0)[:, 0]
    assert 0.8 < np.median(std / expected) < 1.2


@pytest.mark.parametrize("y", [Y, Y > 4, LABELS, np.zeros_like(Y)])
def test_probabilities(y):
    net = classifier(y)
    probabilities = net.predict_proba(X, mc_samples=50)
    assert probabilities.shape == net.predict_proba(X).shape
    np.testing.assert_array_equal(probabilities, net.predict_proba(X, mc_samples=50))
    if y is not LABELS:
        np.testing.assert_allclose(probabilities.sum(axis=1), 1)
    if len(net.classes_) > 1:
        assert not np.array_equal(probabilities, net.predict_proba(X))
        mean = net._model.predict_mc(X, 50, seed=net._model.seed, verbose=0).mean
        np.testing.assert_allclose(probabilities[:, -1], mean[:, -1])


@pytest.mark.parametrize("y", [Y, Y > 4, LABELS, np.zeros_like(Y)])
def test_entropy(y):
    net = classifier(y)
    by_moments, by_samples = net.predict_entropy(X), net.predict_entropy(X, mc_samples=1000)
    assert by_moments.shape == by_samples.shape == y.shape
    assert (by_samples >= 0).all()
    if len(net.classes_) == 1:
        assert not by_moments.any()
        return
    assert np.corrcoef(by_moments.ravel(), by_samples.ravel())[0, 1] > 0.95
    p = net.predict_proba(X, mc_samples=1000)
    if y is LABELS:
        expected = -(p * np.log(p) + (1 - p) * np.log(1 - p))
    else:
        expected = -(p * np.log(p)).sum(axis=1)
    np.testing.assert_allclose(by_samples, expected, rtol=1e-6)


def test_noise_is_less_certain():
    net = classifier()
    noise = np.random.default_rng(0).random(X.shape)
    assert net.predict_entropy(noise).mean() > 2 * net.predict_entropy(X).mean()


def test_sparse_rows_and_many_of_them():
    net = classifier()
    rows = np.tile(X, (5, 1))  # more than are computed at once
    for method in (lambda x: net.predict_proba(x, mc_samples=5), net.predict_entropy):
        np.testing.assert_allclose(method(sparse.csr_array(rows)), method(rows), rtol=1e-12)
    chances = net.predict_proba(rows, mc_samples=5)
    assert not np.array_equal(chances[:300], chances[1200:])  # each row has masks of its own


@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize("shared_dropout", [False, True])
@pytest.mark.parametrize("activation", ["relu", "tanh", "logistic", "identity"])
def test_any_network(activation, shared_dropout, batch_norm):
    settings = {"batch_norm": batch_norm, "shared_dropout": shared_dropout}
    net = regressor(activation=activation, max_iter=5, **settings)
    _, std = net.predict(TABLE, return_std=True)
    assert (std > 0).all()


@pytest.mark.parametrize(
    "call",
    [
        lambda: classifier(dropout=0, max_iter=2).predict_proba(X, mc_samples=3),
        lambda: classifier(dropout=0, max_iter=2).predict_entropy(X),
        lambda: regressor(dropout=0, max_iter=2).predict(TABLE, return_std=True),
    ],
)
def test_without_dropout(call):
    with pytest.raises(ValueError, match="uncertainty comes from dropout"):
        call()


@pytest.mark.parametrize(
    ("samples", "error", "match"),
    [
        (0, ValueError, "mc_samples == 0, must be >= 1"),
        (2.5, TypeError, "mc_samples must be an instance of int"),
        ("ten", TypeError, "mc_samples must be an instance of int"),
    ],
)
def test_samples_that_are_none(samples, error, match):
    net = classifier(max_iter=2)
    for method in (net.predict_proba, net.predict_entropy):
        with pytest.raises(error, match=match):
            method(X, mc_samples=samples)


def test_what_is_refused():
    with pytest.raises(NotFittedError):
        MLPRegressor().predict(TABLE, return_std=True)
    with pytest.raises(NotFittedError):
        MLPClassifier().predict_entropy(X)
    with pytest.raises(ValueError, match="NaN"):
        classifier(max_iter=2).predict_entropy(np.where(X > 0.9, np.nan, X))
    with pytest.raises(ValueError, match="features"):
        regressor(max_iter=2).predict(TABLE[:, :3], return_std=True)
