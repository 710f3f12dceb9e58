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
