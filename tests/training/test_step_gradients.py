"""`Step.gradients`: what an update is made of, for callers that make it themselves."""

import numpy as np
import pytest

from fastdrop import Sequential
from fastdrop.layers import BatchNormalization, Dense, Dropout, Input
from fastdrop.optimizers import SGD
from fastdrop.training.step import Step

X = np.random.default_rng(0).normal(size=(30, 6)).astype(np.float32)
Y = np.random.default_rng(1).normal(size=(30, 2)).astype(np.float32)
WEIGHTS = np.random.default_rng(2).random(30).astype(np.float32)
NETWORKS = {
    "a chain": [Dense(8, "relu"), Dropout(0.3), Dense(2)],
    "other layers": [Dense(8), BatchNormalization(), Dropout(0.3), Dense(2)],
    "functions": [Dropout(0.1), Dense(8, "tanh"), Dense(2)],
    "a shared mask": [Dense(8, "relu"), Dropout(0.3, shared_axes=0), Dense(2)],
}


def model_of(name):
    layers = [type(layer).from_config(layer.get_config()) for layer in NETWORKS[name]]
    model = Sequential([Input((6,)), *layers], seed=3)
    model.compile(SGD(0.5), "mse")
    return model


@pytest.mark.parametrize("weights", [None, WEIGHTS])
@pytest.mark.parametrize("name", NETWORKS)
def test_an_update_by_them_is_a_step(name, weights):
    trained, updated = model_of(name), model_of(name)
    step, other = Step(trained.network), Step(updated.network)
    for _ in range(3):
        step.follow()
        expected, _, _ = step.train(X, Y, weights)
        other.follow()
        loss, gradients = other.gradients(X, Y, weights)
        updated.network.step += 1
        updated.optimizer.update(updated.params, gradients)
        assert loss == expected
    for a, b in zip(trained.get_weights(), updated.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("name", ["a chain", "other layers", "functions"])
def test_without_an_optimiser_they_are_arrays(name):
    model = model_of(name)
    model.network.optimizer = None
    before = model.get_weights()
    step = Step(model.network)
    step.follow()
    loss, gradients = step.gradients(X, Y)
    assert np.isfinite(loss)
    for param, gradient in gradients.items():
        assert type(gradient) is np.ndarray
        assert gradient.shape == model.params[param].shape
    moving = name == "other layers"  # means and variances
    assert moving or all(map(np.array_equal, before, model.get_weights()))
