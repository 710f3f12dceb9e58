"""Whole trainings with the figures and weights of Keras 3, where it is installed."""

import warnings

import numpy as np
import pytest

from fastdrop import callbacks, layers, models, optimizers

with warnings.catch_warnings():  # TensorFlow's own
    warnings.simplefilter("ignore")
    keras = pytest.importorskip("keras")

pytestmark = pytest.mark.filterwarnings("default")

RNG = np.random.default_rng(0)
X = RNG.normal(size=(100, 6)).astype(np.float32)
Y = RNG.integers(0, 3, 100)
ONE_HOT = np.eye(3)[Y]
WEIGHTS = RNG.uniform(0, 2, 100)

# arguments of fit, and what makes callbacks of a library's module
FITS = {
    "plain": ({}, lambda c: []),
    "validation split": ({"validation_split": 0.3}, lambda c: []),
    "sample weights": (
        {"sample_weight": WEIGHTS, "validation_data": (X[:40], Y[:40], WEIGHTS[:40])},
        lambda c: [],
    ),
    "class weights": ({"class_weight": {0: 0.5, 2: 3.0}}, lambda c: []),
    "class weights, one-hot": ({"y": ONE_HOT, "class_weight": {0: 0.5, 2: 3.0}}, lambda c: []),
    "initial epoch": (
        {"epochs": 6, "initial_epoch": 2},
        lambda c: [c.LearningRateScheduler(lambda epoch, rate: rate * (1 - epoch / 10))],
    ),
    "stops early": (
        {"epochs": 40, "validation_data": (X[:40], Y[:40])},
        lambda c: [c.EarlyStopping(patience=2, restore_best_weights=True)],
    ),
    "stops by accuracy": (
        {"epochs": 30},
        lambda c: [c.EarlyStopping("accuracy", 0.005, 3, start_from_epoch=4)],
    ),
    "smaller steps": (
        {"epochs": 20},
        lambda c: [c.ReduceLROnPlateau("loss", 0.5, 1, min_delta=0.02, cooldown=1, min_lr=0.01)],
    ),
}


@pytest.mark.parametrize(("given", "make_callbacks"), FITS.values(), ids=list(FITS))
def test_fit(given, make_callbacks):
    arguments = {"y": Y, "batch_size": 32, "epochs": 4, "shuffle": False, "verbose": 0} | given
    kind = "sparse_categorical" if arguments["y"] is Y else "categorical"
    compiled = {"loss": f"{kind}_crossentropy", "metrics": ["accuracy"]}
    ours = models.Sequential(
        [layers.Dense(8, "relu", input_dim=6), layers.Dense(3, "softmax")], seed=0
    )
    theirs = keras.Sequential(
        [keras.Input((6,)), keras.layers.Dense(8, "relu"), keras.layers.Dense(3, "softmax")]
    )
    theirs.set_weights([array.T for array in ours.get_weights()])
    ours.compile(optimizers.SGD(0.5), weighted_metrics=["accuracy"], **compiled)
    theirs.compile(keras.optimizers.SGD(0.5), weighted_metrics=["accuracy"], **compiled)
    history = ours.fit(X, callbacks=make_callbacks(callbacks), **arguments)
    expected = theirs.fit(X, callbacks=make_callbacks(keras.callbacks), **arguments)
    assert history.epoch == expected.epoch
    assert history.history.keys() == expected.history.keys()
    for name, figures in history.history.items():
        np.testing.assert_allclose(figures, expected.history[name], rtol=1e-5, err_msg=name)
    for a, b in zip(ours.get_weights(), theirs.get_weights(), strict=True):
        np.testing.assert_allclose(a, b.T, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("frozen", [(0,), (1,), (0, 1), (2,)])
def test_frozen_layers(frozen):
    ours = models.Sequential(
        [
            layers.Dense(8, "relu", l2=0.1, input_dim=6),
            layers.BatchNormalization(),
            layers.Dense(3, "softmax", l2=0.2),
        ],
        seed=0,
    )
    l2 = keras.regularizers.L2
    theirs = keras.Sequential(
        [
            keras.Input((6,)),
            keras.layers.Dense(8, "relu", kernel_regularizer=l2(0.1)),
            keras.layers.BatchNormalization(),
            keras.layers.Dense(3, "softmax", kernel_regularizer=l2(0.2)),
        ]
    )
    theirs.set_weights([array.T for array in ours.get_weights()])
    for model in (ours, theirs):
        for number in frozen:
            model.layers[number].trainable = False
    ours.compile(optimizers.SGD(0.5), "sparse_categorical_crossentropy")
    theirs.compile(keras.optimizers.SGD(0.5), "sparse_categorical_crossentropy")
    arguments = {"batch_size": 32, "epochs": 3, "shuffle": False, "verbose": 0}
    history = ours.fit(X, Y, **arguments).history
    expected = theirs.fit(X, Y, **arguments).history
    np.testing.assert_allclose(history["loss"], expected["loss"], rtol=1e-5)
    for a, b in zip(ours.get_weights(), theirs.get_weights(), strict=True):
        np.testing.assert_allclose(a, b.T, rtol=1e-4, atol=1e-6)


class Recorder:
    """What a callback of either library hears: hook, number, and names of the figures."""

    def __init__(self):
        self.heard = []

    def hooks(self):
        def listen(hook):
            def heard(*given, logs=None):
                *numbers, figures = given if logs is None else (*given, logs)
                self.heard.append((hook, *numbers, sorted(figures or {})))

            return heard

        places = ("train", "test", "predict", "train_batch", "test_batch", "predict_batch", "epoch")
        return {
            f"on_{place}_{end}": listen(f"on_{place}_{end}")
            for place in places
            for end in ("begin", "end")
        }


def test_callbacks_hear_the_same():
    ours, theirs = small(models.Sequential, layers), small(keras.Sequential, keras.layers)
    heard = []
    for model, library in ((ours, callbacks), (theirs, keras.callbacks)):
        recorder = Recorder()
        callback = library.LambdaCallback(**recorder.hooks())
        arguments = {"batch_size": 32, "verbose": 0, "callbacks": [callback]}
        validation = {"validation_data": (X[:40], Y[:40]), "validation_batch_size": 32}
        model.fit(X, Y, epochs=2, **validation, **arguments)
        model.evaluate(X, Y, **arguments)
        model.predict(X, **arguments)
        heard.append(recorder.heard)
    assert heard[0] == heard[1]


@pytest.mark.parametrize("steps", [1, 2, 3, 4])
def test_steps_per_epoch_of_arrays(steps):
    ours, theirs = small(models.Sequential, layers), small(keras.Sequential, keras.layers)
    theirs.set_weights([array.T for array in ours.get_weights()])
    arguments = {
        **{"batch_size": 32, "epochs": 5, "shuffle": False, "verbose": 0},
        **{"steps_per_epoch": steps, "validation_data": (X[:90], Y[:90]), "validation_steps": 2},
    }
    history, expected = (model.fit(X, Y, **arguments).history for model in (ours, theirs))
    for name in expected:
        np.testing.assert_allclose(history[name], expected[name], rtol=1e-5, err_msg=name)
    given = {"steps": steps, "verbose": 0}
    np.testing.assert_allclose(ours.evaluate(X, Y, **given), theirs.evaluate(X, Y, **given), 1e-5)
    np.testing.assert_allclose(
        ours.predict(X, **given), theirs.predict(X, **given), rtol=1e-4, atol=1e-6
    )


def brier(y, outputs):
    return (y - outputs) ** 2


def distance(y, outputs):
    return abs(y - outputs)[:, 0]


def test_metrics_that_are_functions():
    ours, theirs = small(models.Sequential, layers), small(keras.Sequential, keras.layers)
    theirs.set_weights([array.T for array in ours.get_weights()])
    for model in (ours, theirs):
        model.compile(
            "sgd", "categorical_crossentropy", metrics=[brier], weighted_metrics=[distance]
        )
    given = {"batch_size": 32, "sample_weight": WEIGHTS, "return_dict": True, "verbose": 0}
    figures, expected = (model.evaluate(X, ONE_HOT, **given) for model in (ours, theirs))
    assert figures.keys() == expected.keys() == {"loss", "brier", "distance"}
    for name in expected:
        assert figures[name] == pytest.approx(expected[name], rel=1e-5)


def small(sequential, library):
    model = sequential([library.Dense(8, "relu"), library.Dense(3, "softmax")])
    model.build((None, 6))
    assert model.name.startswith("sequential")
    optimizer = (optimizers if library is layers else keras.optimizers).SGD(0.5)
    model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def test_pop():
    ours, theirs = small(models.Sequential, layers), small(keras.Sequential, keras.layers)
    theirs.set_weights([array.T for array in ours.get_weights()])
    for model in (ours, theirs):
        top = model.layers[-1]
        model.pop()
        assert top not in model.layers
    assert (None, *ours.output_shape) == theirs.output_shape == (None, 8)
    np.testing.assert_allclose(
        ours.predict(X, verbose=0), theirs.predict(X, verbose=0), rtol=1e-4, atol=1e-6
    )
