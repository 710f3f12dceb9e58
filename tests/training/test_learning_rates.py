"""Learning rates: schedules, and what else may say how fast."""

import math

import numpy as np
import pytest
from dtypes import assert_same

from fastdrop import learning_rates
from fastdrop.optimizers import SGD, Adam

# ---- learning rates -----------------------------------------------------------------------------

KNOWN_RATES = {
    "exponential": (learning_rates.ExponentialDecay(0.8, 2, 0.5), [0.8, 0.8 * 0.5**0.5, 0.4]),
    "staircase": (learning_rates.ExponentialDecay(0.8, 2, 0.5, True), [0.8, 0.8, 0.4, 0.4, 0.2]),
    "inverse": (learning_rates.InverseTimeDecay(0.6, 1, 0.5), [0.6, 0.4, 0.3]),
    "inverse stairs": (learning_rates.InverseTimeDecay(0.6, 2, 1, True), [0.6, 0.6, 0.3]),
    "pieces": (learning_rates.PiecewiseConstantDecay([1, 3], [0.3, 0.2, 0.1]), [0.3] * 2 + [0.2]),
    "cosine": (learning_rates.CosineDecay(0.8, 2), [0.8, 0.4, 0, 0]),
    "cosine, alpha": (learning_rates.CosineDecay(0.8, 2, 0.5), [0.8, 0.6, 0.4, 0.4]),
    "warm-up": (
        learning_rates.CosineDecay(0.0, 2, warmup_target=0.8, warmup_steps=2),
        [0, 0.4, 0.8, 0.4, 0, 0],
    ),
    "polynomial": (learning_rates.PolynomialDecay(0.5, 2, 0.1, 2), [0.5, 0.2, 0.1, 0.1]),
    "cycle": (learning_rates.PolynomialDecay(0.8, 2, 0.0, 1, True), [0.8, 0.4, 0, 0.2, 0]),
}


@pytest.mark.parametrize(("schedule", "rates"), KNOWN_RATES.values(), ids=list(KNOWN_RATES))
def test_schedules(schedule, rates):
    assert [schedule(step) for step in range(len(rates))] == pytest.approx(rates)


def test_the_rate_may_be_any_callable_of_the_update_and_may_be_assigned():
    w, seen = np.zeros(1), []
    optimizer = SGD(lambda step: seen.append(step) or 0.5**step)
    for _ in range(3):
        optimizer.update({"w": w}, {"w": np.ones(1)})
    assert seen == [0, 1, 2]
    assert w == -1.75
    assert optimizer.current_learning_rate == 0.125
    optimizer.learning_rate = 0.25
    optimizer.update({"w": w}, {"w": np.ones(1)})
    assert w == -2
    assert optimizer.current_learning_rate == 0.25


@pytest.mark.parametrize("value", [-0.1, math.nan, math.inf, "fast", None])
def test_a_bad_rate_names_the_step_and_changes_nothing(value):
    w = np.ones(3)
    optimizer = Adam(lambda step: 0.1 if step < 2 else value)
    for _ in range(2):
        optimizer.update({"w": w}, {"w": np.ones(3)})
    before = w.copy()
    with pytest.raises(ValueError, match=r"learning_rate: expected .* at step 2"):
        optimizer.update({"w": w}, {"w": np.ones(3)})
    assert_same(w, before)
    assert optimizer.iterations == 2
