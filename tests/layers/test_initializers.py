import json
import math

import numpy as np
import pytest

from fastdrop import initializers
from fastdrop.initializers import INITIALIZERS
from fastdrop.random import Key

SHAPE = (200, 300)  # units, inputs
SCALES = {"glorot": 1 / 250, "he": 2 / 300, "lecun": 1 / 300}  # of the variance


@pytest.mark.parametrize("name", INITIALIZERS)
def test_pure_functions_of_shape_and_key(name):
    initializer = initializers.get(name)
    values = initializer(SHAPE, Key(1))
    assert values.shape == SHAPE
    assert values.dtype == np.float64
    np.testing.assert_array_equal(initializer(SHAPE, Key(1)), values)
    random = name not in ("ones", "zeros")
    assert (initializer(SHAPE, Key(2)) != values).any() == random
    assert len(np.unique(values)) > 50_000 * random


@pytest.mark.parametrize("kind", SCALES)
def test_scaled(kind):
    stddev = math.sqrt(SCALES[kind])
    uniform = initializers.get(f"{kind}_uniform")(SHAPE, Key(3))
    normal = initializers.get(f"{kind}_normal")(SHAPE, Key(3))
    for values in (uniform, normal):
        assert abs(values.mean()) < 5 * stddev / math.sqrt(values.size)
        assert values.std() == pytest.approx(stddev, rel=0.01)
    assert 0.999 < abs(uniform).max() / (math.sqrt(3) * stddev) <= 1
    assert 0.999 < abs(normal).max() / (2 * stddev / 0.87962566103423978) <= 1


def test_truncated_normal_has_the_distribution_of_what_is_left():
    values = np.sort(initializers.TruncatedNormal(1.0, 0.5)(SHAPE, Key(4)).ravel())

    def cdf(z):
        return (1 + math.erf(z / math.sqrt(2))) / 2

    low, high = cdf(-2), cdf(2)
    expected = [(cdf(z) - low) / (high - low) for z in (values - 1) / 0.5]
    distance = np.abs(expected - (np.arange(values.size) + 0.5) / values.size).max()
    assert distance < 1.95 / math.sqrt(values.size)  # Kolmogorov and Smirnov's, 0.1 %


def test_known_parameters():
    normal = initializers.RandomNormal(2.0, 0.5)(SHAPE, Key(5))
    assert normal.mean() == pytest.approx(2, abs=0.01)
    assert normal.std() == pytest.approx(0.5, rel=0.01)
    uniform = initializers.RandomUniform(1, 3)(SHAPE, Key(5))
    assert 1 < uniform.min() < 1.001 < 2.999 < uniform.max() < 3
    np.testing.assert_array_equal(initializers.Constant(0.5)((2, 3), Key(1)), np.full((2, 3), 0.5))
    np.testing.assert_array_equal(initializers.Ones()((2, 3), Key(1)), np.ones((2, 3)))


@pytest.mark.parametrize(
    "initializer",
    [initializers.RandomNormal(0.1, 0.2), initializers.HeNormal(), initializers.Constant(3)],
)
def test_config_makes_an_equal_initializer(initializer):
    data = json.loads(json.dumps(initializers.serialize(initializer)))
    np.testing.assert_array_equal(initializers.get(data)(SHAPE, Key(1)), initializer(SHAPE, Key(1)))


BAD = {
    "name": (lambda: initializers.get("he"), "kernel_initializer: .*he_normal.*got 'he'"),
    "class": (lambda: initializers.get({"class_name": "He", "config": {}}), "HeNormal.*got 'He'"),
    "stddev": (lambda: initializers.RandomNormal(stddev=-1), "stddev: expected .* got -1"),
    "range": (lambda: initializers.RandomUniform(1, 0), "minval: expected .* got 1"),
}


@pytest.mark.parametrize(("call", "message"), BAD.values(), ids=list(BAD))
def test_bad_arguments(call, message):
    with pytest.raises(ValueError, match=message):
        call()
