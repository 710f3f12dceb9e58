"""Moments against many samples, and against what is known exactly."""

import numpy as np
import pytest

import fastdrop
from fastdrop import Sequential
from fastdrop.layers import (
    Activation,
    AlphaDropout,
    BatchNormalization,
    ConcreteDropout,
    Dense,
    DropBlock2d,
    DropConnect,
    Dropout,
    Dropout2d,
    DropPath,
    FeatureAlphaDropout,
    Flatten,
    GaussianDropout,
    GaussianNoise,
    Input,
    Layer,
    LayerNormalization,
    LockedDropout,
    ReLU,
    Residual,
    Zoneout,
)
from fastdrop.layers.schedules import Linear
from fastdrop.training.moment_rules import RULES, steps_of
from fastdrop.training.moments import _roots, normal_points

INPUTS = 40


def vector(*layers, outputs=3, activation=None):
    return [Input((INPUTS,)), *layers, Dense(outputs, activation)]


MODELS = {  # by name: layers, and how far the median of the ratio of std may be from 1
    "relu": (
        lambda: vector(Dense(60, "relu"), Dropout(0.3), Dense(50, "relu"), Dropout(0.3)), 0.05),
    "input": (lambda: vector(Dropout(0.2), Dense(60, "relu"), Dropout(0.5)), 0.05),
    "few inputs": (
        lambda: [Input((8,)), Dropout(0.05), Dense(50, "relu"), Dropout(0.05), Dense(1)], 0.05),
    "alone": (lambda: [Input((INPUTS,)), Dropout(0.5)], 0.05),
    "no bias": (lambda: vector(Dropout(0.2), Dense(60, "relu", use_bias=False)), 0.05),
    "ReLU apart": (lambda: vector(Dropout(0.2), Dense(60), ReLU(), Dropout(0.5)), 0.05),
    "leaky": (lambda: vector(Dropout(0.3), Dense(60, "leaky_relu"), Dropout(0.3)), 0.05),
    "tanh": (lambda: vector(Dropout(0.3), Dense(60, "tanh"), Dropout(0.3)), 0.05),
    "gelu, silu": (lambda: vector(Dropout(0.3), Dense(60, "gelu"), Dense(60, "silu")), 0.08),
    "selu": (lambda: vector(Dense(60, "selu"), AlphaDropout(0.2)), 0.05),
    "elu, softplus": (lambda: vector(Dropout(0.3), Dense(60, "elu"), Dense(9, "softplus")), 0.08),
    "vanilla": (lambda: vector(Dense(60, "relu"), Dropout(0.4, mode="vanilla")), 0.05),
    "schedule": (lambda: vector(Dense(60), Dropout(Linear(0.1, 0.5, 10))), 0.05),
    "gaussian": (
        lambda: vector(GaussianNoise(0.3), Dense(60, "relu"), GaussianDropout(0.3)), 0.05),
    "normalised": (
        lambda: vector(
            Dense(60), Dropout(0.3), BatchNormalization(), Activation("relu"), Dropout(0.3)), 0.05),
    "layer normalisation": (
        lambda: vector(Dense(60), Dropout(0.3), LayerNormalization(), Dense(60, "relu")), 0.1),
    "residual": (
        lambda: vector(
            Dense(30), Dropout(0.2), Residual([Dense(60, "relu"), Dropout(0.3), Dense(30)])), 0.1),
    "drop path": (lambda: vector(Dense(30), Residual([Dense(30, "relu"), DropPath(0.3)])), 0.05),
    "weights": (lambda: vector(DropConnect(60, 0.5, "relu"), Dense(30, "relu")), 0.08),
    "concrete": (lambda: vector(ConcreteDropout(60, 0.3, "relu"), Dense(30)), 0.05),
    "shared by rows": (lambda: vector(Dense(60, "relu"), Dropout(0.5, shared_axes=0)), 0.05),
    "channels": (
        lambda: [Input((6, 4, 4)), Dropout2d(0.3), Flatten(), Dense(40, "relu"), Dense(3)], 0.08),
    "sequences": (
        lambda: [Input((4, 30)), LockedDropout(0.3), Dense(20, "relu"), Flatten(), Dense(3)], 0.08),
}  # fmt: skip


def made(layers, dtype="float32"):
    model = Sequential(layers, seed=3, dtype=dtype)
    rng = np.random.default_rng(0)
    for name, w in model.network.weights().items():
        if name.endswith("variance"):
            w[...] = rng.uniform(0.5, 2, w.shape)
        elif w.ndim == 1 and "logit" not in name:
            w += 0.3 * rng.standard_normal(w.shape)
    model.network.step = 4
    return model


def rows_for(model, rows=30):
    return np.random.default_rng(1).standard_normal((rows, *model.input_shape), np.float32)


def sampled(model, x, samples=3000):
    return model.predict_mc(x, samples, seed=5, verbose=0)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", MODELS)
def test_moments_are_those_of_many_samples(name, dtype):
    layers, away = MODELS[name]
    model = made(layers(), dtype)
    x = rows_for(model)
    before = [w.copy() for w in model.get_weights()]
    got = model.predict_moments(x)
    if dtype == "float64":  # where no rounding hides a mistake
        other = made(layers(), "float32").predict_moments(x)
        np.testing.assert_allclose(got.std, other.std, rtol=2e-3, atol=1e-5)
        np.testing.assert_allclose(got.mean, other.mean, rtol=2e-3, atol=1e-4)
        return
    many = sampled(model, x)
    ratio = got.std / np.maximum(many.std, 1e-30)
    assert abs(np.median(ratio[many.std > 0]) - 1) < away
    error = np.abs(got.mean - many.mean)[many.std > 0] / many.std[many.std > 0]
    assert np.median(error) < (0.12 if name == "channels" else 0.06)  # few, so far from normal
    assert got.samples is got.quantiles is None
    assert got.mean.dtype == got.std.dtype == np.float64
    for w, old in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(w, old)


@pytest.mark.parametrize("p", [0.05, 0.2, 0.5])
def test_what_is_linear_is_exact(p):
    model = made(vector(Dropout(p), Dense(20), Dropout(p)), "float64")
    x = rows_for(model, 4).astype(np.float64)
    (w1, b1), (w2, _) = (layer.get_weights() for layer in (model.layers[1], model.layers[3]))
    k = p / (1 - p)
    mean = x @ w1.T + b1
    second = mean**2 + k * (x**2) @ (w1**2).T
    variance = k * (x**2) @ ((w2 @ w1) ** 2).T + k * second @ (w2**2).T
    got = model.predict_moments(x)
    np.testing.assert_allclose(got.mean, model.predict(x, verbose=0), rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(got.std, np.sqrt(variance), rtol=1e-10)


@pytest.mark.parametrize("name", ["relu", "leaky_relu", "tanh", "gelu", "elu", "softplus"])
def test_moments_of_an_activation_are_its_integrals(name):
    mean, std = np.array([[-3.0, -0.5, 0.0, 0.2, 4.0]]), np.array([[0.5, 1.0, 2.0, 0.1, 1.0]])
    (step,) = steps_of(Activation(name), 0)
    got = step(mean, std**2)
    z = np.linspace(-9, 9, 200_001)[:, np.newaxis]
    weight = np.exp(-(z**2) / 2)
    weight /= weight.sum()
    y = Activation(name).forward(mean + std * z)[0]
    expected = (weight * y).sum(axis=0)
    variance = (weight * (y - expected) ** 2).sum(axis=0)
    gain = (weight * z * y).sum(axis=0) / std
    near = {"rtol": 1e-5, "atol": 1e-6} if "relu" in name else {"rtol": 0.015, "atol": 1e-3}
    np.testing.assert_allclose(got.mean[0], expected, **near)
    np.testing.assert_allclose(got.variance[0], variance, **near)
    np.testing.assert_allclose(got.back(np.ones((1, 1, 5)), None)[0, 0], gain[0], **near)
    unexplained = variance - gain[0] ** 2 * std[0] ** 2
    np.testing.assert_allclose(got.noise.variance[0], unexplained, rtol=0.05, atol=5e-3)


@pytest.mark.parametrize("name", ["relu", "leaky_relu", "tanh", "gelu"])
def test_what_is_certain_passes_as_at_inference(name):
    mean = np.array([[-3.0, -0.5, 0.2, 4.0]], np.float32)
    (step,) = steps_of(Activation(name), 0)
    with np.errstate(over="ignore"):  # as in `predict_moments`
        got = step(mean, np.zeros_like(mean))
    y, backward = Activation(name).forward(mean)
    np.testing.assert_allclose(got.mean, y, rtol=1e-6, atol=1e-6)
    assert (got.variance == 0).all()
    gain = got.back(np.ones((1, 1, 4), np.float32), None)[:, 0]
    np.testing.assert_allclose(gain, backward(np.ones_like(mean)), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_probabilities(activation):
    layers = vector(Dense(60, "relu"), Dropout(0.5), outputs=4, activation=activation)
    model = made(layers)
    apart = made([*vector(Dense(60, "relu"), Dropout(0.5), outputs=4), Activation(activation)])
    for model_ in (model, apart):
        x = 3 * rows_for(model_)
        many, few, got = sampled(model_, x), sampled(model_, x, 100), model_.predict_moments(x)
        for name in ("mean", "std", "entropy", "expected_entropy", "mutual_information"):
            exact = getattr(many, name)
            error = np.abs(getattr(got, name) - exact).mean()
            assert error < 0.8 * np.abs(getattr(few, name) - exact).mean(), name
        assert np.abs(got.variation_ratio - many.variation_ratio).mean() < 0.05
        if activation == "softmax":
            np.testing.assert_allclose(got.mean.sum(axis=-1), 1, rtol=1e-5)


@pytest.mark.parametrize("name", ["few inputs", "relu", "input"])
def test_moments_are_nearer_than_a_hundred_samples(name):
    model = made(MODELS[name][0]())
    x = rows_for(model)
    many, few, got = sampled(model, x, 10_000), sampled(model, x, 100), model.predict_moments(x)

    def distance(prediction):
        return (
            np.abs(np.log(prediction.std / many.std)).mean(),
            (np.abs(prediction.mean - many.mean) / many.std).mean(),
        )

    assert all(a < 0.7 * b for a, b in zip(distance(got), distance(few), strict=True))


@pytest.mark.parametrize("dimensions", [1, 2, 10, 300])
def test_points_lie_as_normal_variates_do(dimensions):
    points = normal_points(dimensions)
    np.testing.assert_allclose(points.mean(axis=0), 0, atol=1e-12)
    np.testing.assert_allclose(np.square(points).mean(axis=0), 1)
    if dimensions <= 10:
        correlations = points.T @ points / len(points) - np.eye(dimensions)
        assert np.abs(correlations).max() < 1e-9
        assert np.abs((np.abs(points) < 0.6745).mean(axis=0) - 0.5).max() < 0.1


def test_rows_are_computed_in_parts():
    model = made(MODELS["relu"][0]())
    x = rows_for(model, 300)
    whole, parts = model.predict_moments(x), model.predict_moments([(x[:7],), (x[7:],)])
    for name in ("mean", "std"):
        np.testing.assert_allclose(getattr(parts, name), getattr(whole, name), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(whole.std[299], model.predict_moments(x[299:]).std[0], rtol=1e-4)
    got = model.predict_moments(x[:30])
    y = np.zeros((30, 3))
    assert np.isfinite(got.log_likelihood(y, 2.0))


@pytest.mark.parametrize("activation", ["softmax", "sigmoid", None])
def test_threads_change_no_bit(activation):
    model = made([Input((6,)), *MODELS["normalised"][0]()[1:-1], Dense(3, activation)])
    x, threads = rows_for(model, 700), fastdrop.get_num_threads()
    try:
        found = []
        for number in (1, 2, 5):
            fastdrop.set_num_threads(number)
            found.append(model.predict_moments(x))
    finally:
        fastdrop.set_num_threads(threads)
    for got in found[1:]:
        np.testing.assert_array_equal(got.mean, found[0].mean)
        np.testing.assert_array_equal(got.std, found[0].std)


@pytest.mark.parametrize("scale", [1e-8, 1.0, 1e8])
def test_roots_of_covariances_that_have_no_inverse(scale):
    factors = np.random.default_rng(0).standard_normal((50, 7, 3)) * scale
    factors[0], factors[1, 2:5], factors[2, :, 1:] = 0, 0, 0
    covariances = factors @ np.swapaxes(factors, 1, 2)
    roots = _roots(covariances, 1e-12)
    np.testing.assert_allclose(
        roots @ np.swapaxes(roots, 1, 2), covariances, atol=1e-9 * scale * scale
    )


def test_all_and_nothing_dropped():
    for p, mode in ((0.0, "inverted"), (1.0, "inverted"), (1.0, "vanilla")):
        model = made(vector(Dense(20, "relu"), Dropout(p, mode=mode)))
        got, many = model.predict_moments(rows_for(model)), sampled(model, rows_for(model), 2)
        assert (got.std == 0).all()
        np.testing.assert_allclose(got.mean, many.mean, rtol=1e-4, atol=1e-5)


class Ruleless(Layer):
    """Of a user's own."""


@pytest.mark.parametrize(
    ("layers", "words"),
    [
        ([Input((6, 4, 4)), DropBlock2d(0.3, 2), Flatten(), Dense(2)], "a DropBlock2d"),
        (vector(FeatureAlphaDropout(0.3)), "a FeatureAlphaDropout"),
        (vector(Zoneout(0.3)), "a Zoneout"),
        (vector(Dropout(0.3), Ruleless()), "layer 'ruleless'.* an? Ruleless"),
        (vector(Dropout(0.3), Dense(5, "softmax")), "softmax only at the end"),
        (vector(Residual([Dropout(0.3), Ruleless()])), "layer 'ruleless'"),
        (vector(Dense(4)), "expected a layer of the dropout family"),
        ([Dense(3), Dropout(0.5)], "expected a built one"),
    ],
)  # fmt: skip
def test_models_that_moments_do_not_go_through(layers, words):
    model = Sequential(layers, seed=1)
    with pytest.raises(ValueError, match=words) as raised:
        model.predict_moments(np.zeros((2, INPUTS), np.float32))
    assert len(str(raised.value)) <= 200


def test_arguments_of_layers_that_moments_do_not_go_through():
    for layers, words in (
        ([Input((4, 6)), AlphaDropout(0.3, shared_axes=1), Flatten(), Dense(2)], "AlphaDropout of"),
        ([Input((4, 6)), DropConnect(5), Flatten(), Dense(2)], "DropConnect of samples"),
    ):
        model = made(layers)
        with pytest.raises(ValueError, match=words):
            model.predict_moments(rows_for(model))


def test_bad_rows():
    model = made(MODELS["relu"][0]())
    x = rows_for(model)
    x[3, 2] = np.inf
    with pytest.raises(ValueError, match="x: expected finite numbers"):
        model.predict_moments(x)
    with pytest.raises(ValueError, match="x: expected shape"):
        model.predict_moments(x[:, :4])


def test_every_layer_of_ours_has_a_rule_or_none_by_decision():
    from fastdrop import layers

    ours = {c for c in vars(layers).values() if isinstance(c, type) and issubclass(c, Layer)}
    without = {"Layer", "DropBlock2d", "EmbeddingDropout", "FeatureAlphaDropout", "Softmax"}
    without |= {"WeightDropout", "Zoneout"}
    assert {c.__name__ for c in ours - RULES.keys()} == without
