"""Every array that comes in is complete, or refused: the trainer."""

import numpy as np
import pytest
from incomplete import COMPLETE, INCOMPLETE, NO_NUMBERS, masked

from fastdrop import layers, losses, metrics, optimizers
from fastdrop.layers.base import PartialGradient
from fastdrop.models import Sequential

X = np.linspace(0, 1, 8, dtype=np.float32).reshape(4, 2)
Y = np.linspace(1, 0, 8, dtype=np.float32).reshape(4, 2)
WEIGHTS = np.array([1.0, 2.0, 0.5, 1.0], np.float32)


def mlp():
    model = Sequential([layers.Dense(2, input_shape=(2,))], seed=0)
    model.compile("sgd", "mse", ["mae"], ["mse"])
    return model


def fit(x=X, y=Y, **given):
    history = mlp().fit(x, y, verbose=0, shuffle=False, **given).history
    return [values for name, values in sorted(history.items())]


def weights_after(assign):
    """What a model's weights are once they have been set."""
    model = mlp()
    assign(model)
    return model.get_weights()[0]


def set_weights(model, weight):
    model.set_weights([weight, np.zeros(2)])


def set_layers_weights(model, weight):
    model.layers[0].set_weights([weight, np.zeros(2)])


def with_params(weight):
    model = mlp()
    model.layers[0].params["weight"] = weight
    return model.predict(X, verbose=0)


def metric(name, *arguments):
    figure = metrics.get(name)
    figure.update(*arguments)
    return figure.result()


def updated(gradient):
    params = {"a": np.ones((4, 2), np.float32)}
    optimizers.SGD().update(params, {"a": gradient})
    return params["a"]


def backward(dy):
    layer = layers.Dense(2, input_shape=(2,), kernel_initializer="ones")
    _, gradient = layer.forward(X)
    return gradient(dy)


def batches(x, y=Y, weights=WEIGHTS):
    yield X, Y, WEIGHTS
    yield x, y, weights


# what takes a 2-d array, and what it calls it
ENTRIES = {
    "fit, x": (lambda a: fit(a), "x"),
    "fit, y": (lambda a: fit(y=a), "y"),
    "fit, validation x": (lambda a: fit(validation_data=(a, Y)), r"validation_data\[0\]"),
    "fit, validation y": (lambda a: fit(validation_data=(X, a)), r"validation_data\[1\]"),
    "fit, batches of x": (lambda a: fit(batches(a), None), "x, batch 2 of epoch 1"),
    "fit, batches of y": (lambda a: fit(batches(X, a), None), "x, batch 2 of epoch 1, y"),
    "fit, validation batches": (
        lambda a: fit(validation_data=batches(a)),
        "validation_data, batch 2 of validation, epoch 1",
    ),
    "fit, first batch": (lambda a: fit(iter([(a, Y)]), None), "x, first batch"),
    "evaluate, x": (lambda a: mlp().evaluate(a, Y, verbose=0), "x"),
    "evaluate, y": (lambda a: mlp().evaluate(X, a, verbose=0), "y"),
    "predict": (lambda a: mlp().predict(a, verbose=0), "x"),
    "predict, batches": (lambda a: mlp().predict(batches(a), verbose=0), "x, batch 2 of this call"),
    "train_on_batch, x": (lambda a: mlp().train_on_batch(a, Y), "x"),
    "train_on_batch, y": (lambda a: mlp().train_on_batch(X, a), "y"),
    "test_on_batch, x": (lambda a: mlp().test_on_batch(a, Y), "x"),
    "test_on_batch, y": (lambda a: mlp().test_on_batch(X, a), "y"),
    "predict_on_batch": (lambda a: mlp().predict_on_batch(a), "x"),
    "call": (lambda a: mlp()(a), "x"),
    "call in training": (lambda a: mlp()(a, training=True), "x"),
    "set_weights": (lambda a: weights_after(lambda m: set_weights(m, a)), "weights"),
    "layer's set_weights": (lambda a: weights_after(lambda m: set_layers_weights(m, a)), "weights"),
    "loss, outputs": (lambda a: losses.get("mse")(a, Y)[1], "outputs"),
    "loss, y": (lambda a: losses.get("huber")(X, a)[1], "y"),
    "loss, targets": (lambda a: losses.get("mae").targets(a, (2,)), "y"),
    "metric, outputs": (lambda a: metric("categorical_accuracy", a, Y), "outputs"),
    "metric, y": (lambda a: metric("categorical_accuracy", X, a), "y"),
    "loss as a metric, outputs": (lambda a: metric("mse", a, Y), "outputs"),
    "loss as a metric, y": (lambda a: metric("mse", X, a), "y"),
    "AUC, outputs": (lambda a: metric("auc", a, Y.round()), "outputs"),
    "AUC, y": (lambda a: metric("auc", X, a), "y"),
    "Dense, backward": (backward, "dy"),
    **{
        f"{layer.name} alone": (lambda a, layer=layer: layer(a), "x")
        for layer in (
            layers.Dense(2, kernel_initializer="ones"),
            layers.ConcreteDropout(2, kernel_initializer="ones"),
            layers.BatchNormalization(),
            layers.LayerNormalization(),
            layers.Activation("relu"),
            layers.Dropout(0.5),
            layers.GaussianNoise(0.5),
            layers.Flatten(),
            layers.Residual([layers.Dense(2, kernel_initializer="ones")]),
        )
    },
}
QUADRATIC = {name: entry for name, entry in ENTRIES.items() if "weights" in name}
SQUARE = X[:2]


def given(entry):
    return SQUARE if entry in QUADRATIC else X


def same(one, other):
    for a, b in zip(one, other, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("kind", INCOMPLETE)
@pytest.mark.parametrize("entry", ENTRIES)
def test_what_is_incomplete_is_refused(entry, kind):
    function, argument = ENTRIES[entry]
    make, message = INCOMPLETE[kind]
    with pytest.raises(ValueError, match=f"^{argument}: .*{message}") as error:
        function(make(given(entry)))
    assert len(str(error.value)) <= 200
    assert str(error.value).isprintable()


@pytest.mark.parametrize("kind", COMPLETE)
@pytest.mark.parametrize("entry", ENTRIES)
def test_what_is_complete_is_taken(entry, kind):
    function, _ = ENTRIES[entry]
    array = given(entry)
    same(np.atleast_1d(function(COMPLETE[kind](array))), np.atleast_1d(function(array)))


@pytest.mark.parametrize("kind", NO_NUMBERS)
@pytest.mark.parametrize("entry", ENTRIES)
def test_what_are_no_numbers_is_refused(entry, kind):
    function, _ = ENTRIES[entry]
    with pytest.raises((TypeError, ValueError)) as error:
        function(NO_NUMBERS[kind](given(entry)))
    assert len(str(error.value)) <= 200


# Weights of samples have one axis

WEIGHTED = {
    "fit": (lambda w: fit(sample_weight=w), "sample_weight"),
    "fit, validation": (lambda w: fit(validation_data=(X, Y, w)), r"validation_data\[2\]"),
    "fit, batches": (
        lambda w: fit(batches(X, Y, w), None),
        "x, batch 2 of epoch 1, sample_weight",
    ),
    "evaluate": (lambda w: mlp().evaluate(X, Y, sample_weight=w, verbose=0), "sample_weight"),
    "train_on_batch": (lambda w: mlp().train_on_batch(X, Y, w), "sample_weight"),
    "test_on_batch": (lambda w: mlp().test_on_batch(X, Y, w), "sample_weight"),
    "loss": (lambda w: losses.get("mse")(X, Y, sample_weight=w)[1], "sample_weight"),
    "metric": (lambda w: metric("categorical_accuracy", X, Y, None, w), "sample_weight"),
    "loss as a metric": (lambda w: metric("mse", X, Y, None, w), "sample_weight"),
    "AUC": (lambda w: metric("auc", X, Y.round(), None, w), "sample_weight"),
}


@pytest.mark.parametrize("entry", WEIGHTED)
def test_masked_weights_of_samples(entry):
    function, argument = WEIGHTED[entry]
    with pytest.raises(ValueError, match=f"^{argument}: .*no masked values, got 1 of 4; .filled"):
        function(masked(WEIGHTS))
    same(np.atleast_1d(function(np.ma.array(WEIGHTS))), np.atleast_1d(function(WEIGHTS)))


def test_masked_weights_of_classes():
    with pytest.raises(ValueError, match=r"^class_weight: expected no masked values"):
        fit(class_weight={0: np.ma.masked})


# Arrays alone


def test_masked_gradients_and_parameters():
    params = {"a": np.ones((4, 2), np.float32)}
    for arguments, message in (
        ((params, {"a": masked(X)}), r"grads\['a'\]"),
        (({"a": masked(X)}, params), r"params\['a'\]"),
        (
            (params, {"a": PartialGradient((4, 2), [(np.arange(4), np.arange(2), masked(X))])}),
            r"grads\['a'\]",
        ),
    ):
        with pytest.raises(ValueError, match=f"^{message}: .*no masked values.*filled"):
            optimizers.Adam().update(*arguments)
    np.testing.assert_array_equal(params["a"], 1)
    np.testing.assert_array_equal(updated(np.ma.array(X)), updated(X))
    optimizer = optimizers.SGD(momentum=0.5)
    optimizer.update(params, {"a": X})
    optimizer.state["a"]["velocity"] = masked(X)
    with pytest.raises(ValueError, match=r"^velocity\['a'\]: .*no masked values.*filled"):
        optimizer.update(params, {"a": X})


def test_masked_parameters_of_a_layer():
    with pytest.raises(ValueError, match=r"^weight of 'dense': .*no masked values.*filled"):
        with_params(masked(SQUARE))
    np.testing.assert_array_equal(with_params(np.ma.array(SQUARE)), with_params(SQUARE))


def test_masked_states_of_zoneout():
    for training in (True, False):
        zoneout = layers.Zoneout(0.5, seed=1)
        batch = layers.Batch(training)
        with pytest.raises(ValueError, match=r"^previous: .*no masked values.*filled"):
            zoneout.forward(X, batch, previous=masked(X))


class Masking:
    """As a variable of netCDF4: what is read of it is masked where it is missing."""

    def __init__(self, array):
        self._array = array
        self.shape, self.dtype = array.shape, array.dtype

    def __len__(self):
        return len(self._array)

    def __getitem__(self, rows):
        return self._array[rows]


@pytest.mark.parametrize("shuffle", [True, False])
def test_what_is_read_from_a_file_may_be_masked(shuffle):
    for x, y, argument in ((Masking(masked(X)), Y, "x"), (X, Masking(masked(Y)), "y")):
        with pytest.raises(ValueError, match=f"^{argument}.*: expected no masked values, got 1 of"):
            mlp().fit(x, y, verbose=0, shuffle=shuffle)
    complete = mlp().fit(Masking(np.ma.array(X)), Y, verbose=0, shuffle=shuffle)
    assert complete.history == mlp().fit(X, Y, verbose=0, shuffle=shuffle).history


# No arrays at all


@pytest.mark.parametrize(
    ("x", "got"),
    [({"x": X}, "dict"), ({1.0, 2.0}, "set"), ("digits", "str"), (b"digits", "bytes")],
)
def test_collections_that_are_no_batches(x, got):
    for call in (
        lambda: mlp().fit(x, verbose=0),
        lambda: mlp().evaluate(x, verbose=0),
        lambda: mlp().predict(x, verbose=0),
    ):
        with pytest.raises(ValueError, match=f"^x: expected an array or an iterable.*, got {got}"):
            call()
    with pytest.raises(ValueError, match=r"^validation_data: expected .*an iterable of batches"):
        mlp().fit(X, Y, verbose=0, validation_data=x)
    with pytest.raises(TypeError, match=f"^weights: expected a list of arrays, got {got}"):
        mlp().set_weights(x)
