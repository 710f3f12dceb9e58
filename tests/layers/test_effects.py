"""What is drawn of a layer is what the layer does."""

import numpy as np
import pytest
from dtypes import normal

from fastdrop import Key, layers
from fastdrop.layers import Batch
from fastdrop.layers.effects import effect_of

KEY = Key(42, 3)
P = 0.3
MASKS = {
    "Dropout": (layers.Dropout(P), (5, 40)),
    "Dropout, vanilla": (layers.Dropout(P, mode="vanilla"), (5, 40)),
    "Dropout, shared": (layers.Dropout(P, shared_axes=(0, 2)), (5, 40, 3)),
    "Dropout, groups": (layers.Dropout(P, shared_axes=0, groups=2), (5, 40)),
    "Dropout, schedule": (layers.Dropout(lambda step: step / 10), (5, 40)),
    "Dropout, p = 0": (layers.Dropout(0), (5, 40)),
    "Dropout, p = 1": (layers.Dropout(1), (5, 40)),
    "Dropout1d": (layers.Dropout1d(P), (5, 40, 3)),
    "Dropout2d": (layers.Dropout2d(P), (5, 40, 3, 2)),
    "Dropout2d, channels last": (layers.Dropout2d(P, "channels_last"), (5, 3, 2, 40)),
    "Dropout3d": (layers.Dropout3d(P), (5, 40, 3, 2, 2)),
    "AlphaDropout": (layers.AlphaDropout(P), (5, 40)),
    "AlphaDropout, shared": (layers.AlphaDropout(P, shared_axes=1), (50, 4)),
    "FeatureAlphaDropout": (layers.FeatureAlphaDropout(P), (5, 40, 3)),
    "DropPath": (layers.DropPath(P), (50, 4)),
    "DropPath, batch": (layers.DropPath(P, "batch"), (5, 4)),
    "DropBlock2d": (layers.DropBlock2d(P, 3), (2, 3, 12, 14)),
    "LockedDropout": (layers.LockedDropout(P), (5, 3, 40)),
    "WeightDropout": (layers.WeightDropout(P), (5, 40)),
    "EmbeddingDropout": (layers.EmbeddingDropout(P), (50, 4)),
}
# and those that have tests of their own
FAMILY = {name for name in layers.__all__ if getattr(getattr(layers, name), "is_random", False)}
OWN = {"GaussianDropout", "GaussianNoise", "Zoneout", "DropConnect", "ConcreteDropout"}


def test_the_whole_family_is_tested():
    assert {name.partition(",")[0] for name in MASKS} | OWN == FAMILY


@pytest.mark.parametrize("name", MASKS)
def test_mask(name):
    layer, shape = MASKS[name]
    x = normal(shape, np.float32)
    y, backward = layer.forward(x, Batch(key=KEY))
    effect = effect_of(layer, shape, KEY)
    assert effect.values.shape == shape
    np.testing.assert_array_equal(effect.values * x, backward(x))
    if "Alpha" not in name:
        np.testing.assert_array_equal(effect.kept, y != 0)
        np.testing.assert_array_equal(effect.values * x, y)
    else:  # what is dropped is the same everywhere, what is kept a line of x
        dropped = y[~effect.kept]
        assert dropped.size
        assert np.ptp(dropped) == 0
        assert not (y[effect.kept] == dropped[0]).any()
    assert layer.params == {}


@pytest.mark.parametrize("layer", [layers.GaussianDropout(P), layers.GaussianNoise(0.5)], ids=repr)
def test_noise(layer):
    x = normal((5, 40), np.float32)
    effect = effect_of(layer, x.shape, KEY)
    assert effect.kept is None
    y, _ = layer.forward(x, Batch(key=KEY))
    expected = x + effect.values if isinstance(layer, layers.GaussianNoise) else x * effect.values
    np.testing.assert_allclose(y, expected, rtol=1e-6, atol=1e-6)


def test_zoneout():
    x = normal((5, 40), np.float32)
    layer = layers.Zoneout(P)
    y, _ = layer.forward(x, Batch(key=KEY), previous=np.full_like(x, 9))
    np.testing.assert_array_equal(effect_of(layer, x.shape, KEY).kept, y == x)


def test_drop_connect():
    layer = layers.DropConnect(7, P)
    layer.build((5,), Key(1))
    before = layer.params["weight"].copy()
    y, _ = layer.forward(np.eye(5, dtype=np.float32), Batch(key=KEY))
    effect = effect_of(layer, (7, 5), KEY)
    np.testing.assert_array_equal(effect.kept, y.T != 0)
    np.testing.assert_allclose(effect.values * before, y.T, rtol=1e-6)
    np.testing.assert_array_equal(layer.params["weight"], before)
    with pytest.raises(ValueError, match=r"shape: expected that of weights, \(7, inputs\)"):
        effect_of(layer, (5, 7), KEY)


@pytest.mark.parametrize("logit", [None, 1.5])
def test_concrete_dropout(logit):
    layer = layers.ConcreteDropout(3, P)
    layer.build((6,), Key(1))
    if logit is not None:  # learnt meanwhile
        layer.params["logit"][:] = logit
    x = normal((5, 6), np.float32)
    y, _ = layer.forward(x, Batch(key=KEY))
    values = effect_of(layer, x.shape, KEY).values
    np.testing.assert_allclose(y, (x * values) @ layer.params["weight"].T, rtol=1e-5, atol=1e-6)


def test_others_are_refused():
    with pytest.raises(TypeError, match=r"expected one of the dropout family, got Dense\(3\)"):
        effect_of(layers.Dense(3), (2, 3), KEY)
    with pytest.raises(ValueError, match="expects x of shape"):
        effect_of(layers.Dropout2d(), (2, 3), KEY)


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (layers.Dropout2d(0.5), (3, 8, 4, 5)),
        (layers.Dropout2d(0.5, "channels_last"), (3, 4, 5, 8)),
        (layers.Dropout3d(0.5), (3, 8, 2, 4, 5)),
        (layers.Dropout3d(0.5, "channels_last"), (3, 2, 4, 5, 8)),
        (layers.Dropout1d(0.5), (3, 8, 5)),
    ],
    ids=str,
)
def test_maps_are_where_they_say(layer, shape):
    """Each map is the part of the mask that its place names."""
    effect = effect_of(layer, shape, KEY)
    maps = effect.maps()
    images = maps.reshape(-1, *maps.shape[2:])
    places = effect.places()
    assert len(places) == len(images) > 1
    for image, place in zip(images, places):
        index = eval(f"np.index_exp{place}")
        np.testing.assert_array_equal(effect.kept[index], image)


def test_a_single_row_is_broken_into_lines():
    effect = effect_of(layers.Dropout(0.5), (1, 200), KEY)
    flat = effect.maps().ravel()
    np.testing.assert_array_equal(flat[:200], effect.kept[0])
    assert np.isnan(flat[200:]).all()
    assert effect.maps().shape == (1, 1, 4, 64)
