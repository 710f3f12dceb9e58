"""What scikit-learn's perceptrons lack: dropout, and what goes with it."""

import copy

import numpy as np
import pytest

pytest.importorskip("sklearn")
from sklearn.datasets import load_digits

from fastdrop import Sequential
from fastdrop.layers import BatchNormalization, Dense, Dropout, Input
from fastdrop.sklearn import MLPClassifier, MLPRegressor, load

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

X, Y = load_digits(return_X_y=True)
X, Y = X[:400] / 16, Y[:400]


def net(kind=MLPClassifier, **settings):
    return kind(**{"hidden_layer_sizes": (20, 10), "max_iter": 3, "random_state": 1} | settings)


def rates(fitted):
    return [layer.p for layer in fitted._model.layers if isinstance(layer, Dropout)]


def test_it_trains_as_a_sequential_does():
    """Masks, losses and updates are those of the trainer: the weights are the same, bit for bit."""
    mine = net(dropout=[0.3, 0.1], input_dropout=0.2, alpha=0, shuffle=False, batch_size=100)
    mine.set_params(dtype="float32", max_iter=1).partial_fit(X, Y, classes=np.unique(Y))
    model = Sequential(
        [
            Input((64,)),
            Dropout(0.2),
            Dense(20, "relu"),
            Dropout(0.3),
            Dense(10, "relu"),
            Dropout(0.1),
            Dense(10, "softmax"),
        ],
        seed=mine._model.seed,
    )
    model.compile(mine._new_optimizer(), "sparse_categorical_crossentropy")
    first = net(dropout=0.5, max_iter=1, learning_rate_init=1e-300, dtype="float32").fit(X, Y)
    model.set_weights(first._model.get_weights())
    model.fit(X.astype(np.float32), Y, 100, verbose=0, shuffle=False)
    for a, b in zip(model.get_weights(), mine._model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_each_layer_has_its_own():
    assert rates(net(dropout=[0.3, 0.1], input_dropout=0.2).fit(X, Y)) == [0.2, 0.3, 0.1]
    assert rates(net(dropout=0.3).fit(X, Y)) == [0.3, 0.3]
    assert rates(net(dropout=np.float64(0.3)).fit(X, Y)) == [0.3, 0.3]  # as searches draw it
    assert rates(net(dropout=np.array([0.3, 0.1])).fit(X, Y)) == [0.3, 0.1]


@pytest.mark.parametrize("kind", [MLPClassifier, MLPRegressor])
@pytest.mark.parametrize("name", ["dropout", "input_dropout"])
def test_it_is_harder_to_learn_with_it(kind, name):
    losses = [net(kind, max_iter=20, **{name: p}).fit(X, Y).loss_ for p in (0, 0.3, 0.7)]
    assert losses == sorted(losses)


def test_prediction_drops_nothing():
    fitted = net(dropout=0.5).fit(X, Y)
    np.testing.assert_array_equal(fitted.predict_proba(X), fitted.predict_proba(X))
    hidden = X
    for coef, intercept in zip(fitted.coefs_, fitted.intercepts_):
        hidden = np.maximum(hidden, 0) @ coef + intercept
    e = np.exp(hidden - hidden.max(axis=1, keepdims=True))
    expected = e / e.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(fitted.predict_proba(X), expected, rtol=1e-9)


def test_dropout_changes_neither_initial_weights_nor_the_order_of_samples():
    """Searches over dropout compare like with like."""
    results = [net(dropout=p, learning_rate_init=1e-300).fit(X, Y) for p in (0, 0.5)]
    np.testing.assert_array_equal(results[0].coefs_[0], results[1].coefs_[0])
    generators = [np.random.RandomState(0) for _ in results]
    for p, generator in zip((0, 0.5), generators):
        net(dropout=p, random_state=generator).fit(X, Y)
    assert generators[0].random_sample() == generators[1].random_sample()


@pytest.mark.parametrize("input_dropout", [0.0, 0.2])
@pytest.mark.parametrize("patience", [1, 4])
def test_when_training_ends(input_dropout, patience):
    fitted = net(input_dropout=input_dropout, n_iter_no_change=patience, tol=0.02, max_iter=300)
    fitted.fit(X, Y)
    window = patience if input_dropout else 1  # scikit-learn's rule without dropout
    best, waiting = np.inf, 0
    for epoch in range(1, fitted.n_iter_ + 1):
        assert waiting <= patience, "it should have ended"
        loss = np.mean(fitted.loss_curve_[max(0, epoch - window) : epoch])
        waiting = waiting + 1 if loss > best - 0.02 else 0
        best = min(best, loss)
    assert waiting == patience + 1
    assert fitted.best_loss_ == min(fitted.loss_curve_)


@pytest.mark.parametrize("patience", [np.inf, 2**64, 10**30])
def test_training_that_never_ends_early(patience):
    fitted = net(n_iter_no_change=patience, tol=1e9, max_iter=4, dropout=0.1).fit(X, Y)
    assert fitted.n_iter_ == 4


def test_no_mask_comes_twice():
    trained = net(dropout=0.5)
    for _ in range(3):
        trained.partial_fit(X, Y, classes=np.unique(Y))
    assert trained._model.step == 3 * 2
    changed = trained.set_params(dropout=[0.1, 0.2]).partial_fit(X, Y)
    assert changed._model.step == 4 * 2
    assert rates(changed) == [0.1, 0.2]
    momenta = changed._optimizer.state
    for settings in ({"dropout": [0, 0.2]}, {"input_dropout": 0.3}, {"dropout": 0}):
        other = copy.deepcopy(changed).set_params(**settings, learning_rate_init=1e-300)
        other._optimizer.learning_rate = 1e-300
        other.partial_fit(X[:1], Y[:1])
        for a, b in zip(changed.coefs_, other.coefs_, strict=True):
            np.testing.assert_array_equal(a, b)
        shapes = [{part.shape for part in state.values()} for state in momenta.values()]
        assert shapes == [{p.shape for p in s.values()} for s in other._optimizer.state.values()]


@pytest.mark.parametrize("p", [0.0, 0.3])
def test_shared_dropout(p):
    plain, shared = (
        net(dropout=p, shared_dropout=s, activation="tanh").fit(X, Y) for s in (False, True)
    )
    assert np.array_equal(plain.coefs_[0], shared.coefs_[0]) == (p == 0)
    before = shared.coefs_[1].copy()
    shared.set_params(solver="sgd", momentum=0, alpha=0, batch_size=400)
    del shared._optimizer
    shared.partial_fit(X, Y)
    still = (shared.coefs_[1] == before).all(axis=1)  # units that the only batch dropped
    assert still.any() == (p > 0)


def test_max_norm():
    bound = 0.5
    norms = [np.linalg.norm(c, axis=0) for c in net(max_norm=bound, dropout=0.2).fit(X, Y).coefs_]
    assert all((of_layer <= bound * 1.001).all() for of_layer in norms[:-1])
    assert norms[0].max() > bound * 0.99
    assert norms[-1].max() > bound  # of the outputs: no hidden unit's


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_batch_norm(dtype):
    fitted = net(batch_norm=True, dropout=0.1, max_iter=60, dtype=dtype).fit(X * 100 + 50, Y)
    assert sum(isinstance(layer, BatchNormalization) for layer in fitted._model.layers) == 2
    assert fitted.score(X * 100 + 50, Y) > 0.8


@pytest.mark.parametrize("y", [Y, Y > 6])
def test_class_weight(y):
    labels = np.unique(y)
    factors = {label.item(): 1.0 + i for i, label in enumerate(labels)}
    weighted = net(class_weight=factors).fit(X, y)
    sample_weight = np.array([factors[label] for label in y.tolist()])
    expected = net().fit(X, y, sample_weight=sample_weight)
    np.testing.assert_array_equal(weighted.coefs_[0], expected.coefs_[0])
    both = net(class_weight=factors).fit(X, y, sample_weight=sample_weight)
    expected = net().fit(X, y, sample_weight=sample_weight**2)
    np.testing.assert_allclose(both.coefs_[0], expected.coefs_[0], rtol=1e-12)


def test_class_weight_in_a_part_without_all_classes():
    weighted, expected = net(class_weight={0: 5.0, 1: 2.0}), net()
    for label, weight in ((3, 1.0), (0, 5.0)):
        x, y = X[label == Y], Y[label == Y]
        weighted.partial_fit(x, y, classes=np.unique(Y))
        expected.partial_fit(x, y, classes=np.unique(Y), sample_weight=np.full(len(y), weight))
    np.testing.assert_array_equal(weighted.coefs_[0], expected.coefs_[0])


def test_balanced_classes_count_alike():
    y = Y == 3
    plain, balanced = (
        net(class_weight=weight, max_iter=60).fit(X, y).predict_proba(X)[:, 1].mean()
        for weight in (None, "balanced")
    )
    assert plain < balanced
    repeated = np.repeat(np.arange(len(X)), 1 + 2 * y)
    whole = net(class_weight="balanced", batch_size=10_000)
    with pytest.warns(UserWarning, match="clipped"):
        once = whole.fit(X, y, sample_weight=1.0 + 2 * y).coefs_[0].copy()
    with pytest.warns(UserWarning, match="clipped"):
        again = whole.fit(X[repeated], y[repeated]).coefs_[0]
    np.testing.assert_allclose(once, again, rtol=1e-6)


def test_class_weight_of_several_labels():
    y = np.stack([Y > 4, Y % 2], axis=1).astype(int)
    heavy = [{0: 1, 1: 1}, {0: 1, 1: 50}]
    shares = [
        net(class_weight=weight, max_iter=60).fit(X, y).predict(X)[:, 1].mean()
        for weight in (None, heavy)
    ]
    assert shares[1] > shares[0]


def test_another_dtype_goes_on():
    fitted = net(dropout=0.2).fit(X, Y)
    fitted.set_params(dtype="float32").partial_fit(X, Y)
    assert fitted.coefs_[0].dtype == fitted.predict_proba(X).dtype == np.float32


def test_weights_may_be_written_and_replaced():
    fitted = net(dropout=0.2, solver="sgd", momentum=0).fit(X, Y)
    before = fitted.predict_proba(X)
    fitted.coefs_[0][:] = 0
    changed = fitted.predict_proba(X)
    assert not np.array_equal(changed, before)
    fitted.coefs_ = [coef * 0 for coef in fitted.coefs_]
    fitted.intercepts_ = [0 * intercept for intercept in fitted.intercepts_]
    fitted.intercepts_[-1] = np.arange(10.0)
    np.testing.assert_array_equal(fitted.predict(X), 9)
    fitted.partial_fit(X, Y)
    assert (fitted.coefs_[-1] == 0).all()  # hidden units are all off
    fitted.coefs_[0] = np.zeros((3, 3))
    with pytest.raises(ValueError, match="coefs_, intercepts_: expected shapes"):
        fitted.predict(X)


def test_dropout_that_comes_later_has_masks_of_the_random_state(tmp_path):
    outputs = []
    for seed in (0, 0, 1):
        net = MLPClassifier(8, max_iter=2, random_state=seed).fit(X, Y)
        if not outputs:  # a file knows as much
            net.save(tmp_path / "net")
            net = load(tmp_path / "net")
        net.set_params(dropout=0.5).partial_fit(X, Y)
        for coef in net.coefs_:
            coef[...] = 1 / len(coef)
        outputs.append(net.predict_proba(X, mc_samples=2))
    np.testing.assert_array_equal(outputs[0], outputs[1])
    assert not np.array_equal(outputs[0], outputs[2])
