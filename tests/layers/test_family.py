"""What the family promises: means and variances, schedules, shapes, and PyTorch's results."""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pytest
import reference
from dtypes import ALL as DTYPES
from dtypes import normal

import fastdrop
from fastdrop import Key, layers, models, optimizers
from fastdrop.layers import Batch, schedules

KEY = Key(7, 3)


# ---- means and variances ------------------------------------------------------------------------


class Claim(NamedTuple):
    """With x = 1 (or normal, for alpha): independent elements of y, their mean and variance."""

    make: Callable[[], layers.Layer]
    shape: tuple[int, ...]
    mean: float
    variance: float
    independent: tuple[slice | int, ...] = ()
    normal: bool = False


P = 0.3
DROPOUT = P / (1 - P)
CLAIMS = {
    "dropout": Claim(lambda: layers.Dropout(P), (500, 400), 1, DROPOUT),
    "vanilla": Claim(lambda: layers.Dropout(P, mode="vanilla"), (500, 400), 1 - P, P * (1 - P)),
    "1d": Claim(lambda: layers.Dropout1d(P), (400, 500, 3), 1, DROPOUT, (..., 0)),
    "2d": Claim(lambda: layers.Dropout2d(P), (400, 500, 2, 2), 1, DROPOUT, (..., 1, 0)),
    "3d": Claim(
        lambda: layers.Dropout3d(P, "channels_last"),
        (400, 2, 1, 2, 500),
        1,
        DROPOUT,
        (..., 1, 0, 1, slice(None)),
    ),
    "alpha": Claim(lambda: layers.AlphaDropout(P), (500, 400), 0, 1, normal=True),
    "feature alpha": Claim(
        lambda: layers.FeatureAlphaDropout(P), (400, 500, 2), 0, 1, (..., 0), normal=True
    ),
    "gaussian dropout": Claim(lambda: layers.GaussianDropout(P), (500, 400), 1, DROPOUT),
    "gaussian noise": Claim(lambda: layers.GaussianNoise(0.7), (500, 400), 1, 0.49),
    "drop path": Claim(lambda: layers.DropPath(P), (50_000, 2), 1, DROPOUT, (slice(None), 0)),
    "locked": Claim(lambda: layers.LockedDropout(P), (400, 3, 500), 1, DROPOUT, (slice(None), 2)),
    "weight": Claim(lambda: layers.WeightDropout(P), (400, 500), 1, DROPOUT),
    "embedding": Claim(
        lambda: layers.EmbeddingDropout(P), (50_000, 2), 1, DROPOUT, (slice(None), 0)
    ),
    "zoneout": Claim(lambda: layers.Zoneout(P), (500, 400), 1 - P, P * (1 - P)),
}


@pytest.mark.parametrize("name", CLAIMS)
def test_mean_and_variance(name):
    """Within five standard deviations of the mean's and of the variance's own."""
    claim = CLAIMS[name]
    x = normal(claim.shape, np.float64) if claim.normal else np.ones(claim.shape)
    y, _ = claim.make().forward(x, Batch(key=KEY))
    values = y[claim.independent].ravel()
    squares = (values - claim.mean) ** 2
    assert abs(values.mean() - claim.mean) < 5 * math.sqrt(claim.variance / values.size)
    assert abs(squares.mean() - claim.variance) < 5 * squares.std() / math.sqrt(values.size)


def test_drop_connect_mean_and_variance():
    layer = layers.DropConnect(50_000, P)
    layer.params = {"weight": np.ones((50_000, 4)), "bias": np.zeros(50_000)}
    y, _ = layer.forward(np.ones((2, 4)), Batch(key=KEY))
    np.testing.assert_array_equal(y[0], y[1])  # one mask for the batch
    assert abs(y[0].mean() - 4) < 5 * math.sqrt(4 * DROPOUT / 50_000)
    assert y[0].var() == pytest.approx(4 * DROPOUT, rel=0.03)
    np.testing.assert_array_equal(layer(np.ones((1, 4))), np.full((1, 50_000), 4.0))


def test_concrete_dropout_is_dropout_at_a_low_temperature():
    n = 500
    layer = layers.ConcreteDropout(n, P, temperature=1e-3)
    layer.params = {
        "weight": np.eye(n),
        "bias": np.zeros(n),
        "logit": np.full(1, math.log(P / (1 - P))),
    }
    y, _ = layer.forward(np.ones((400, n)), Batch(key=KEY))
    assert abs(y.mean() - 1) < 5 * math.sqrt(DROPOUT / y.size)
    assert y.var() == pytest.approx(DROPOUT, rel=0.02)
    assert ((y < 1e-9) | (abs(y - 1 / (1 - P)) < 1e-9)).mean() > 0.99


def test_concrete_dropout_learns_p():
    """An input without meaning has to be dropped; a meaningful one is worth its noise."""
    x = normal((600, 4), np.float32)
    rates = []
    for y in (x[:, :1] * 3, normal((600, 1), np.float32, 1) * 0.01):
        model = models.Sequential([layers.ConcreteDropout(1, 0.3, dropout_regularizer=0.1)], seed=1)
        model.compile(optimizers.Adam(0.02), "mse")
        model.fit(x, y, batch_size=50, epochs=25, verbose=0)
        rates.append(float(layers.sigmoid(model.layers[0].params["logit"])[0]))
    assert rates[0] < 0.1
    assert rates[1] > 0.4


def test_concrete_dropout_drops_infinities():
    layer = layers.ConcreteDropout(1, 0.999, temperature=1e-6)
    layer.build((1,), KEY)
    y, _ = layer.forward(np.full((50, 1), np.inf, np.float32), Batch(key=KEY))
    assert (y == 0).any()
    assert not np.isnan(y).any()


# ---- schedules ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("schedule", "values"),
    [
        (schedules.Constant(0.3), [0.3, 0.3, 0.3, 0.3, 0.3]),
        (schedules.Linear(0.2, 0.6, 4), [0.2, 0.3, 0.4, 0.6, 0.6]),
        (schedules.Cosine(0.2, 0.6, 4), [0.2, 0.4 - 0.2 / math.sqrt(2), 0.4, 0.6, 0.6]),
        (schedules.Early(0.3, 2), [0.3, 0.3, 0, 0, 0]),
        (schedules.Late(0.3, 2), [0, 0, 0.3, 0.3, 0.3]),
    ],
)
def test_schedules(schedule, values):
    assert [schedule(step) for step in (0, 1, 2, 4, 100)] == pytest.approx(values, abs=1e-15)


@pytest.mark.parametrize("make", [layers.Dropout, layers.AlphaDropout, layers.GaussianDropout])
def test_p_is_the_schedules_at_the_keys_call(make):
    x = normal((20, 30), np.float64)
    for call in (0, 2, 5):
        y, _ = make(schedules.Linear(0.1, 0.5, 4)).forward(x, Batch(key=Key(1, call)))
        p = 0.1 + 0.1 * min(call, 4)
        np.testing.assert_allclose(y, make(p).forward(x, Batch(key=Key(1, call)))[0], rtol=1e-12)


def test_alone_a_layer_counts_its_own_calls():
    x, layer = np.ones((4, 50)), layers.Dropout(schedules.Late(1.0, 2), seed=1)
    assert [bool(layer(x, training=True).any()) for _ in range(4)] == [True, True, False, False]


def test_in_a_model_the_step_counts():
    seen = []

    def schedule(step):
        seen.append(step)
        return 0.1

    model = models.Sequential([layers.Dropout(schedule), layers.Dense(1)])
    model.compile("sgd", "mse")
    model.fit(np.ones((10, 3)), np.ones((10, 1)), batch_size=5, epochs=2, verbose=0)
    assert seen == [0, 1, 2, 3]


# ---- PyTorch's modules, with PyTorch's masks ----------------------------------------------------

SHAPES = {
    "Dropout": (6, 50),
    "Dropout1d": (6, 50, 4),
    "Dropout2d": (6, 50, 4, 3),
    "Dropout3d": (6, 50, 4, 3, 2),
    "AlphaDropout": (6, 50),
    "FeatureAlphaDropout": (6, 50, 4, 3),
}


def ours(name, x, kept, p):
    if "Alpha" in name:
        return reference.alpha_dropout(x, kept, p) if p else x
    return fastdrop.apply_mask(x, kept, p)


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("p", [0.0, 0.1, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_pytorch_with_its_mask(name, p, dtype):
    """PyTorch's mask shows in what it makes of ones; the slow twin equals our layers elsewhere."""
    torch = pytest.importorskip("torch")
    module = getattr(torch.nn, name)(p)
    x = normal(SHAPES[name], dtype)
    tensor = torch.from_numpy(x.astype(np.float64)).to(getattr(torch, str(dtype)))
    results = []
    for given in (torch.ones_like(tensor), tensor.requires_grad_()):
        torch.manual_seed(0)
        results.append(module(given))
    kept = (results[0] > 0).numpy() if p < 1 else np.zeros(x.shape, bool)
    results[1].backward(torch.ones_like(tensor))
    expected = ours(name, x.astype(np.float64), kept, p)
    slope = ours(name, np.ones(x.shape), kept, p) - ours(name, np.zeros(x.shape), kept, p)
    tolerance = {2: 2e-2, 4: 1e-5, 8: 1e-12}[x.itemsize]
    for theirs, wanted in ((results[1].detach(), expected), (tensor.grad, slope)):
        np.testing.assert_allclose(theirs.double().numpy(), wanted, tolerance, tolerance)
    layer = getattr(layers, name)(p)
    values = layer.forward(np.ones(x.shape), Batch(key=KEY))[0]
    for value in np.unique(values):  # ours has PyTorch's values, where its own mask says
        assert np.isclose(results[0].detach().double().numpy(), value, 1e-2, 1e-2).any()
    module.eval()
    np.testing.assert_array_equal(layer(x).astype(float), module(tensor).detach().double().numpy())


@pytest.mark.filterwarnings("ignore:dropout")
@pytest.mark.parametrize("name", SHAPES)
def test_shapes_that_pytorch_refuses_are_refused(name):
    """And PyTorch's deprecated ones; a layer's first axis is the batch, so x has to have one."""
    torch = pytest.importorskip("torch")
    for ndim in range(1, 7):
        layer, x = getattr(layers, name)(), np.ones((2,) * ndim)
        if name in ("Dropout", "AlphaDropout"):
            accepted = True
        elif name == "FeatureAlphaDropout":
            accepted = ndim >= 2
        else:
            accepted = ndim == len(SHAPES[name])
        if accepted:
            layer(x, training=True)
            getattr(torch.nn, name)()(torch.from_numpy(x))
        else:
            with pytest.raises(ValueError, match=r"expects x of shape \(samples, channels"):
                layer(x, training=True)


# ---- what is refused ----------------------------------------------------------------------------

X = np.ones((2, 3, 4, 5), np.float32)


def trained(layer, x=X):
    return layer.forward(x, Batch(key=KEY))


REFUSED = {
    "p": (lambda: layers.Dropout2d(1.1), "p: expected .* got 1.1"),
    "data_format": (lambda: layers.Dropout2d(0.1, "first"), "data_format: expected .* got 'first'"),
    "rank": (
        lambda: trained(layers.Dropout2d(), X[0]),
        r"layer 'dropout2d' expects x of shape \(samples, channels, height, width\), "
        r"got \(samples, 4, 5\)",
    ),
    "rank at inference": (lambda: layers.Dropout1d()(X), "layer 'dropout1d' expects"),
    "locked rank": (lambda: trained(layers.LockedDropout()), r"\(samples, time, features\)"),
    "embedding rank": (lambda: trained(layers.EmbeddingDropout()), "expects x of shape"),
    "feature alpha rank": (
        lambda: trained(layers.FeatureAlphaDropout(), X[0, 0, 0]),
        "expects x of shape",
    ),
    "block rank": (lambda: trained(layers.DropBlock2d(), X[0]), "expects x of shape"),
    "block": (
        lambda: trained(layers.DropBlock2d(0.1, 5)),
        "block_size: expected at most 4 on maps of 4 x 5, got 5",
    ),
    "block in a model": (
        lambda: models.Sequential([layers.Input((3, 4, 5)), layers.DropBlock2d(0.1)]),
        "block_size: expected at most 4 on maps of 4 x 5, got 7",
    ),
    "block 0": (lambda: layers.DropBlock2d(0.1, 0), "block_size: expected"),
    "path": (lambda: layers.DropPath(0.1, "sample"), "mode: expected .* got 'sample'"),
    "gaussian": (lambda: layers.GaussianDropout(1), "p: expected 0 <= p < 1"),
    "gaussian schedule": (
        lambda: trained(layers.GaussianDropout(schedules.Constant(1))),
        "p: expected 0 <= p < 1",
    ),
    "stddev": (lambda: layers.GaussianNoise(-1), "stddev: expected"),
    "concrete p": (lambda: layers.ConcreteDropout(1, 0), "p: expected 0 < p < 1"),
    "temperature": (lambda: layers.ConcreteDropout(1, temperature=0), "temperature: expected"),
    "regularizer": (
        lambda: layers.ConcreteDropout(1, weight_regularizer=-1),
        "weight_regularizer: expected",
    ),
    "schedule": (
        lambda: trained(layers.Dropout(lambda step: 0.5 + step)),
        "p: expected a schedule within .* got 3.5 at step 3",
    ),
    "schedule NaN": (lambda: trained(layers.DropConnect(2, lambda step: math.nan)), "p: expected"),
    "schedule's p": (lambda: schedules.Early(1.2, 5), "p: expected"),
    "schedule's steps": (lambda: schedules.Linear(0, 1, 0), "steps: expected"),
    "vanilla schedule": (
        lambda: layers.Dropout(schedules.Constant(0.1), mode="vanilla"),
        "mode: expected 'inverted'",
    ),
    "config": (
        lambda: layers.Dropout.from_config({"p": {"schedule": "Odd"}}),
        "schedule: expected",
    ),
}


@pytest.mark.parametrize(("call", "message"), REFUSED.values(), ids=list(REFUSED))
def test_refused(call, message):
    with pytest.raises(ValueError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)


# ---- recurrent helpers --------------------------------------------------------------------------


def test_locked_dropout_has_one_mask_for_all_steps():
    y, _ = layers.LockedDropout(0.5).forward(np.ones((5, 7, 40)), Batch(key=KEY))
    np.testing.assert_array_equal(y, np.broadcast_to(y[:, :1], y.shape))
    assert (y[0, 0] != y[1, 0]).any()


def test_zoneout_in_a_recurrence():
    layer, x = layers.Zoneout(0.4), normal((3, 20), np.float64)
    h = normal((3, 20), np.float64, 1)
    y, backward = layer.forward(x, Batch(key=KEY), previous=h)
    assert set(np.where(y == x, 1, np.where(y == h, 2, 3)).ravel()) == {1, 2}
    dx, dh = backward(np.ones_like(y))
    np.testing.assert_array_equal(dx + dh, np.ones_like(y))
    np.testing.assert_array_equal(dx == 1, y == x)
    y, backward = layer.forward(x, Batch(training=False), previous=h)
    np.testing.assert_allclose(y, 0.6 * x + 0.4 * h)
    np.testing.assert_allclose(backward(y), (0.6 * y, 0.4 * y))
    bottom, _ = layer.forward(x[2:], Batch(key=KEY, row=2), previous=h[2:])
    np.testing.assert_array_equal(bottom, layer.forward(x, Batch(key=KEY), previous=h)[0][2:])
