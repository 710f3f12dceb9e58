"""Each rule against the formulas of Keras's documentation, written out in float64."""

import math

import numpy as np
import pytest

from fastdrop.optimizers import SGD, Adam

RNG = np.random.default_rng(0)
START = RNG.normal(size=(3, 2))
GRADS = RNG.normal(size=(5, 3, 2))


def sgd(momentum=0.0, nesterov=False, rate=0.01):
    w, velocity = START.copy(), 0
    for g in GRADS:
        velocity = momentum * velocity - rate * g
        w = w + (momentum * velocity - rate * g if nesterov else velocity)
    return w


def adam(rate=0.001, beta_1=0.9, beta_2=0.999, epsilon=1e-7):
    w, m, v = START.copy(), 0, 0
    for t, g in enumerate(GRADS, start=1):
        m = beta_1 * m + (1 - beta_1) * g
        v = beta_2 * v + (1 - beta_2) * g**2
        alpha = rate * math.sqrt(1 - beta_2**t) / (1 - beta_1**t)
        w = w - alpha * m / (np.sqrt(v) + epsilon)
    return w


CASES = {
    "sgd": (SGD, {}, sgd()),
    "sgd, rate": (SGD, {"learning_rate": 0.5}, sgd(rate=0.5)),
    "momentum": (SGD, {"momentum": 0.9}, sgd(0.9)),
    "nesterov": (SGD, {"momentum": 0.9, "nesterov": True}, sgd(0.9, nesterov=True)),
    "adam": (Adam, {}, adam()),
    "adam, all": (
        Adam,
        {"learning_rate": 0.1, "beta_1": 0.5, "beta_2": 0.6, "epsilon": 1e-3},
        adam(0.1, 0.5, 0.6, 1e-3),
    ),
}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", CASES)
def test_updates_follow_the_formula_in_place(name, dtype):
    kind, arguments, expected = CASES[name]
    optimizer = kind(**arguments)
    w = START.astype(dtype)
    for g in GRADS.astype(dtype):
        kept = g.copy()
        optimizer.update({"w": w}, {"w": g})
        np.testing.assert_array_equal(g, kept)
    assert w.dtype == dtype
    assert optimizer.iterations == len(GRADS)
    np.testing.assert_allclose(w, expected, rtol=1e-12 if dtype == np.float64 else 1e-5)


def test_parameters_have_states_of_their_own():
    together, apart = Adam(), Adam()
    a, b, c = START.copy(), START.copy(), START.copy()
    for g in GRADS:
        together.update({"a": a, "b": b}, {"a": g, "b": -g})
        apart.update({"c": c}, {"c": g})
    np.testing.assert_array_equal(a, c)
    assert (a != b).all()


BAD_ARGUMENTS = {
    "rate 0": (lambda: SGD(0), "learning_rate: expected .* got 0"),
    "rate NaN": (lambda: Adam(math.nan), "learning_rate: expected .* got nan"),
    "rate text": (lambda: Adam("fast"), "learning_rate: expected .* got 'fast'"),
    "momentum": (lambda: SGD(momentum=1), "momentum: expected"),
    "beta_1": (lambda: Adam(beta_1=-0.1), "beta_1: expected"),
    "beta_2": (lambda: Adam(beta_2=1.0), "beta_2: expected"),
    "epsilon": (lambda: Adam(epsilon=0), "epsilon: expected"),
}


@pytest.mark.parametrize(("call", "message"), BAD_ARGUMENTS.values(), ids=list(BAD_ARGUMENTS))
def test_bad_arguments(call, message):
    with pytest.raises(ValueError, match=message):
        call()
