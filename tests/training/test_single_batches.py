"""Calls on one batch after others: nothing that is not checked again is missed."""

import numpy as np
import pytest

from fastdrop import Sequential, callbacks, losses, metrics
from fastdrop.layers import Dense, Dropout, Input

X = np.linspace(-1, 1, 24, dtype=np.float32).reshape(6, 4)
Y = np.arange(6) % 3


def made(used):
    layers = [Dense(5, "relu", input_shape=(4,)), Dropout(0.5), Dense(3, "softmax")]
    model = Sequential(layers, seed=1)
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    for _ in range(2 * used):
        model.train_on_batch(X, Y)
        model.test_on_batch(X, Y)
    return model


def not_finite():
    x = X.copy()
    x[2, 1] = np.nan
    return x


BAD = {
    "x not finite": lambda: (not_finite(), Y),
    "x of another shape": lambda: (X[:, :3], Y),
    "no x": lambda: (X[:0], Y[:0]),
    "other samples": lambda: (X, Y[:4]),
    "y of another shape": lambda: (X, np.stack([Y, Y, Y], axis=1)),
    "no class": lambda: (X, Y + 1),
    "no number of a class": lambda: (X, Y + 0.5),
    "y not finite": lambda: (X, np.where(Y == 1, np.nan, Y)),
    "y is text": lambda: (X, Y.astype(str)),
    "y is missing": lambda: (X, None),
    "y is masked": lambda: (X, np.ma.masked_equal(Y, 1)),
    "weights of other samples": lambda: (X, Y, np.ones(3)),
}


def call(model, method, x, y, sample_weight=None):
    return getattr(model, method)(x, y, sample_weight=sample_weight)


@pytest.mark.parametrize("method", ["train_on_batch", "test_on_batch", "evaluate"])
@pytest.mark.parametrize("bad", BAD)
def test_what_is_refused_first_is_refused_later(bad, method):
    messages = []
    for used in (False, True):
        model = made(used)
        before = [w.copy() for w in model.get_weights()]
        step = model.step
        with pytest.raises((ValueError, TypeError)) as raised:
            call(model, method, *BAD[bad]())
        messages.append(str(raised.value))
        assert model.step == step
        for w, old in zip(model.get_weights(), before, strict=True):
            np.testing.assert_array_equal(w, old)
    assert messages[0] == messages[1]


def compiled_anew(model):
    model.compile("sgd", losses.CategoricalCrossentropy())
    return np.eye(3, dtype=np.float32)[Y]


def other_metrics(model):
    model.metrics = [metrics.get("sparse_top_k_categorical_accuracy")]
    return Y


def other_loss(model):
    model.loss = "mse"
    model.metrics = []
    return np.eye(3, dtype=np.float32)[Y]


@pytest.mark.parametrize("change", [compiled_anew, other_loss])
def test_changes_between_batches_count(change):
    first, later = made(False), made(True)
    later.set_weights(first.get_weights())
    y, _ = (change(model) for model in (first, later))
    np.testing.assert_allclose(first.test_on_batch(X, y), later.test_on_batch(X, y))
    with pytest.raises(ValueError, match="y: expected"):
        later.train_on_batch(X, Y)


def test_other_metrics_refuse_what_means_nothing_to_them():
    model = made(True)
    with pytest.raises(ValueError, match="metrics"):
        model.train_on_batch(X, other_metrics(model))


def test_a_metric_that_joins_the_list_is_reported():
    model = made(True)
    model.metrics.append(metrics.get("sparse_categorical_crossentropy"))
    assert len(model.test_on_batch(X, Y)) == 3
    model.metrics.clear()
    assert isinstance(model.train_on_batch(X, Y), float)
    assert model.train_on_batch(X, Y, return_dict=True).keys() == {"loss"}


@pytest.mark.parametrize("method", ["train_on_batch", "test_on_batch"])
@pytest.mark.parametrize("rows", range(1, 7))
def test_the_loss_without_metrics_has_the_same_bits(method, rows):
    plain, model = made(True), made(True)
    plain.metrics = []
    for _ in range(3):  # the first call still meets other metrics
        loss, _ = getattr(model, method)(X[:rows], Y[:rows])
        assert getattr(plain, method)(X[:rows], Y[:rows]) == loss


def test_without_metrics_labels_are_needed_as_well():
    model = made(True)
    model.metrics = []
    model.train_on_batch(X, Y)
    with pytest.raises(ValueError, match="y: expected labels"):
        model.train_on_batch(X, None)


def test_figures_are_those_of_fit():
    one, other = made(False), made(False)
    loss, accuracy = one.train_on_batch(X, Y)
    figures = other.fit(X, Y, batch_size=6, epochs=1, verbose=0, shuffle=False).history
    np.testing.assert_allclose([loss, accuracy], [figures["loss"][0], figures["accuracy"][0]], 1e-6)
    for w, same in zip(one.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_allclose(w, same, 1e-5, 1e-7)


@pytest.mark.parametrize("weights", [None, np.arange(6.0)])
def test_a_batch_is_evaluated_as_it_is_tested(weights, capsys):
    model = made(True)
    tested = model.test_on_batch(X, Y, weights)
    for size in (6, 1024):
        assert model.evaluate(X, Y, size, sample_weight=weights, verbose=0) == tested
    named = model.evaluate(X, Y, sample_weight=weights, return_dict=True)
    assert list(named.values()) == tested
    assert "loss" in capsys.readouterr().out
    in_parts = model.evaluate(X, Y, 4, sample_weight=weights, verbose=0)
    if weights is None:
        np.testing.assert_allclose(in_parts, tested, rtol=1e-6)


def test_evaluate_tells_its_callbacks_of_a_single_batch():
    seen = []
    listener = callbacks.LambdaCallback(on_test_batch_end=lambda batch, logs: seen.append(batch))
    model = made(True)
    model.evaluate(X, Y, callbacks=[listener], verbose=0)
    assert seen == [0]


class Own(Sequential):
    """A model with a method of its own."""

    def test_on_batch(self, *arguments, **named):
        raise AssertionError("nothing calls it")


def test_evaluate_calls_no_method_of_ones_own():
    model = Own([Dense(3, "softmax", input_shape=(4,))], seed=1)
    model.compile("adam", "sparse_categorical_crossentropy")
    assert np.isfinite(model.evaluate(X, Y, verbose=0))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_number_that_is_not_finite_is_found_wherever_it_is(value, dtype):
    for size in range(1, 20):
        model = Sequential([Input((size,)), Dense(1)], dtype=dtype)
        row = np.full((1, size), np.finfo(dtype).max / 100, dtype)
        model(row)
        for place in range(size):
            x = row.copy()
            x[0, place] = value
            with pytest.raises(ValueError, match="x: expected finite"):
                model(x)
