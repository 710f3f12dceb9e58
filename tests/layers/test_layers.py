"""One table of cases drives what every layer must do; Dropout's own rules follow."""

import json
import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pytest
from gradients import central_differences
from hypothesis import given
from hypothesis import strategies as st

import fastdrop.models
from fastdrop import initializers, layers
from fastdrop.functional import dropout_mask
from fastdrop.layers import (
    Activation,
    Batch,
    Dense,
    Dropout,
    Flatten,
    Input,
    Layer,
    ReLU,
    Residual,
    Softmax,
)
from fastdrop.layers.base import WeightRule
from fastdrop.layers.schedules import Constant, Cosine, Early, Late, Linear
from fastdrop.random import Generator, Key

KEY = Key(7, 3)


class Case(NamedTuple):
    make: Callable[[], Layer]
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    params: int = 0
    batch: bool = True  # False: x is no batch but weights
    whole: bool = False  # True: a row's output depends on the other rows


CASES = {
    "identity": Case(Layer, (3,), (3,)),
    "dense": Case(lambda: Dense(4), (3,), (4,), 16),
    "dense on 2 axes": Case(lambda: Dense(4, "tanh"), (5, 3), (5, 4), 16),
    "dense relu": Case(lambda: Dense(4, "relu"), (3,), (4,), 16),
    "dense sigmoid": Case(lambda: Dense(1, "sigmoid"), (3,), (1,), 4),
    "dense softmax": Case(lambda: Dense(4, "softmax"), (3,), (4,), 16),
    "flatten": Case(Flatten, (2, 3), (6,)),
    "linear": Case(lambda: Activation("linear"), (3,), (3,)),
    "tanh": Case(lambda: Activation("tanh"), (2, 3), (2, 3)),
    "sigmoid": Case(lambda: Activation("sigmoid"), (3,), (3,)),
    "relu": Case(ReLU, (3,), (3,)),
    "softmax": Case(Softmax, (2, 3), (2, 3)),
    "dropout": Case(Dropout, (5,), (5,)),
    "dropout p=0": Case(lambda: Dropout(0), (5,), (5,)),
    "dropout p=1": Case(lambda: Dropout(1), (5,), (5,)),
    "dropout shared": Case(lambda: Dropout(0.3, shared_axes=(1,)), (4, 3), (4, 3)),
    "dropout shared rows": Case(lambda: Dropout(0.3, shared_axes=0), (5,), (5,)),
    "dropout groups": Case(lambda: Dropout(0.3, shared_axes=(0,), groups=4), (5,), (5,)),
    "dropout groups 2 axes": Case(
        lambda: Dropout(0.3, shared_axes=(0, 1), groups=3), (4, 3), (4, 3)
    ),
    "dropout vanilla": Case(lambda: Dropout(0.3, mode="vanilla"), (5,), (5,)),
    "dropout linear": Case(lambda: Dropout(Linear(0.1, 0.7, 6)), (5,), (5,)),
    "dropout early": Case(lambda: Dropout(Early(0.4, 9)), (5,), (5,)),
    "dropout late": Case(lambda: Dropout(Late(0.4, 9)), (5,), (5,)),
    "dropout 1d": Case(lambda: layers.Dropout1d(0.4), (3, 4), (3, 4)),
    "dropout 2d": Case(lambda: layers.Dropout2d(0.4), (3, 2, 2), (3, 2, 2)),
    "dropout 3d": Case(lambda: layers.Dropout3d(0.4), (3, 2, 1, 2), (3, 2, 1, 2)),
    "dropout 2d last": Case(lambda: layers.Dropout2d(0.4, "channels_last"), (2, 2, 3), (2, 2, 3)),
    "alpha": Case(lambda: layers.AlphaDropout(0.4), (5,), (5,)),
    "alpha p=0": Case(lambda: layers.AlphaDropout(0), (5,), (5,)),
    "alpha p=1": Case(lambda: layers.AlphaDropout(1), (5,), (5,)),
    "feature alpha": Case(lambda: layers.FeatureAlphaDropout(0.4), (3, 2, 2), (3, 2, 2)),
    "feature alpha 2d": Case(layers.FeatureAlphaDropout, (3,), (3,)),
    "gaussian dropout": Case(lambda: layers.GaussianDropout(0.4), (5,), (5,)),
    "gaussian dropout cosine": Case(
        lambda: layers.GaussianDropout(Cosine(0.1, 0.7, 6)), (5,), (5,)
    ),
    "gaussian noise": Case(lambda: layers.GaussianNoise(0.4), (5,), (5,)),
    "drop path": Case(lambda: layers.DropPath(0.4), (2, 3), (2, 3)),
    "drop path batch": Case(lambda: layers.DropPath(Constant(0.4), "batch"), (2, 3), (2, 3)),
    "drop block": Case(lambda: layers.DropBlock2d(0.3, 2), (2, 3, 4), (2, 3, 4)),
    "locked": Case(lambda: layers.LockedDropout(0.4), (4, 3), (4, 3)),
    "weight": Case(lambda: layers.WeightDropout(0.4), (4,), (4,), batch=False),
    "embedding": Case(lambda: layers.EmbeddingDropout(0.4), (4,), (4,), batch=False),
    "zoneout": Case(lambda: layers.Zoneout(0.4), (4,), (4,)),
    **{
        f"dense {name}": Case(lambda name=name: Dense(4, name), (3,), (4,), 16)
        for name in ("elu", "gelu", "leaky_relu", "selu", "silu", "softplus", "swish")
    },
    "gelu": Case(lambda: Activation("gelu"), (2, 3), (2, 3)),
    "dense without bias": Case(lambda: Dense(4, use_bias=False), (3,), (4,), 12),
    "dense penalised": Case(lambda: Dense(4, l1=0.2, l2=0.3, max_norm=2.0), (3,), (4,), 16),
    "dense he": Case(lambda: Dense(4, kernel_initializer="he_normal"), (3,), (4,), 16),
    "dense constant": Case(
        lambda: Dense(4, kernel_initializer=initializers.Constant(0.3)), (3,), (4,), 16
    ),
    "layer norm": Case(layers.LayerNormalization, (5,), (5,), 10),
    "layer norm on 2 axes": Case(lambda: layers.LayerNormalization(0.1), (2, 5), (2, 5), 10),
    "batch norm": Case(layers.BatchNormalization, (5,), (5,), 10, whole=True),
    "batch norm on 2 axes": Case(
        lambda: layers.BatchNormalization(0.9, 0.1), (2, 5), (2, 5), 10, whole=True
    ),
    "batch norm, center": Case(
        lambda: layers.BatchNormalization(scale=False), (5,), (5,), 5, whole=True
    ),
    "batch norm, scale": Case(
        lambda: layers.BatchNormalization(center=False), (5,), (5,), 5, whole=True
    ),
    "batch norm, neither": Case(
        lambda: layers.BatchNormalization(center=False, scale=False), (5,), (5,), whole=True
    ),
    "residual": Case(
        lambda: Residual([layers.LayerNormalization(), Dense(4, "gelu"), Dropout(0.4), Dense(3)]),
        (3,),
        (3,),
        6 + 16 + 15,
    ),
    "residual, penalised": Case(lambda: Residual([Dense(3, l1=0.1, l2=0.2)]), (3,), (3,), 12),
    "residual, random": Case(
        lambda: Residual([Dropout(Linear(0.1, 0.7, 6)), layers.GaussianNoise(0.1)]), (3,), (3,)
    ),
    "residual, nested": Case(
        lambda: Residual(
            [layers.DropConnect(4), layers.BatchNormalization(), Residual([Dense(4)]), Dense(3)]
        ),
        (2, 3),
        (2, 3),
        16 + 8 + 20 + 15,
        whole=True,
    ),
    "drop connect penalised": Case(
        lambda: layers.DropConnect(4, use_bias=False, l1=0.1, l2=0.2), (3,), (4,), 12
    ),
    "concrete without bias": Case(
        lambda: layers.ConcreteDropout(4, use_bias=False, max_norm=1.0), (3,), (4,), 13
    ),
    "drop connect": Case(lambda: layers.DropConnect(4, 0.4), (3,), (4,), 16),
    "drop connect linear": Case(
        lambda: layers.DropConnect(4, Linear(0, 0.5, 9), "tanh"), (2, 3), (2, 4), 16
    ),
    "concrete": Case(
        lambda: layers.ConcreteDropout(
            4, 0.3, "tanh", weight_regularizer=0.1, dropout_regularizer=0.2, temperature=0.5
        ),
        (3,),
        (4,),
        17,
    ),
}


@pytest.fixture(params=CASES.values(), ids=list(CASES))
def case(request):
    return request.param


def batch(case, rows=6, dtype=np.float64):
    x = np.random.default_rng(0).normal(size=(rows, *case.input_shape))
    return x.astype(dtype)


def built(case, dtype=np.float64):
    layer = case.make()
    layer.build(case.input_shape, Key(1))
    layer.params = {name: param.astype(dtype) for name, param in layer.params.items()}
    return layer


def test_shapes_and_parameters(case):
    layer = built(case)
    y, backward = layer.forward(batch(case), Batch(key=KEY))
    assert layer.output_shape(case.input_shape) == case.output_shape
    assert y.shape == (6, *case.output_shape)
    assert backward(np.ones_like(y)).shape == (6, *case.input_shape)
    assert sum(param.size for param in layer.params.values()) == case.params
    assert {k: v.shape for k, v in layer.grads.items()} == {
        k: v.shape for k, v in layer.params.items()
    }


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("method", ["forward", "forward_logits"])
def test_gradients_are_those_of_central_differences(case, training, method):
    layer, x = built(case), batch(case)

    def forward():
        return getattr(layer, method)(x, Batch(training, KEY))

    y, backward = forward()
    dy = np.random.default_rng(1).normal(size=y.shape)

    def value():
        return (forward()[0] * dy).sum() + (layer.penalty() if training else 0)

    dx = backward(dy)
    grads = layer.grads
    for name, rule in layer.weight_rules().items() if training else ():
        weight = layer.params[name]  # an optimiser adds this
        grads[name] = grads[name] + rule.l1 * np.sign(weight) + 2 * rule.l2 * weight
    np.testing.assert_allclose(dx, central_differences(value, x), rtol=1e-6, atol=1e-8)
    for name, param in layer.params.items():
        expected = central_differences(value, param)
        np.testing.assert_allclose(grads[name], expected, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.params])
def test_only_parameter_gradients_on_request(name):
    layer, x = built(CASES[name]), batch(CASES[name])
    y, backward = layer.forward(x)
    backward(y)
    expected = layer.grads
    layer.grads = {}
    assert backward(y, need_dx=False) is None
    for name in expected:
        np.testing.assert_array_equal(layer.grads[name], expected[name])


def test_config_makes_an_equal_layer(case):
    layer = built(case)
    config = json.dumps(layer.get_config())
    other = layers.deserialize(json.loads(json.dumps(layers.serialize(layer))))
    assert type(other) is type(layer)
    assert json.dumps(other.get_config()) == config
    other.build(case.input_shape, Key(1))
    other.params = layer.params
    x = batch(case)
    for training in (True, False):
        y, _ = layer.forward(x, Batch(training, KEY))
        np.testing.assert_array_equal(other.forward(x, Batch(training, KEY))[0], y)


def test_config_has_the_constructors_arguments():
    layer = Dense(3, "relu", input_shape=(4,), name="first")
    assert layer.get_config() == {
        "units": 3,
        "activation": "relu",
        "use_bias": True,
        "kernel_initializer": {"class_name": "GlorotUniform", "config": {}},
        "l1": 0.0,
        "l2": 0.0,
        "max_norm": None,
        "input_shape": (4,),
        "name": "first",
    }
    assert Dropout(rate=0.2, seed=3).get_config() == {
        "p": 0.2,
        "seed": 3,
        "shared_axes": (),
        "groups": 1,
        "mode": "inverted",
        "input_shape": None,
        "name": "dropout",
    }


def test_layers_in_a_model_train():
    """All that take (samples, features), in one stack; the loss has their penalties."""
    for name, case in CASES.items():
        if not case.batch or len(case.input_shape) > 1:
            continue
        model = fastdrop.models.Sequential([Dense(case.input_shape[0], "tanh"), case.make()])
        model.add(Dense(1))
        model.compile("adam", "mse")
        x = batch(case, 40)
        history = model.fit(x, x[:, :1], batch_size=8, epochs=2, verbose=0)
        assert np.isfinite(history.history["loss"]).all(), name
        outputs = model.predict(x, verbose=0)
        expected = np.mean((outputs - x[:, :1]) ** 2) + model.layers[1].penalty()
        assert model.evaluate(x, x[:, :1], verbose=0) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_dtype_is_the_parameters_else_the_inputs(case, dtype):
    layer = built(case, np.float32)
    y, backward = layer.forward(batch(case, dtype=dtype), Batch(key=KEY))
    expected = np.float32 if layer.params else dtype
    assert y.dtype == expected
    assert backward(y).dtype == expected


def test_what_forward_returned_stays(case):
    layer = built(case)
    x, other = batch(case), -batch(case)
    y, backward = layer.forward(x, Batch(key=KEY))
    kept, dx = y.copy(), backward(y).copy()
    other_y, other_backward = layer.forward(other, Batch(key=Key(9)))
    other_backward(other_y)
    np.testing.assert_array_equal(y, kept)
    np.testing.assert_array_equal(backward(y), dx)


def test_empty_batch(case):
    y, backward = built(case).forward(batch(case, rows=0), Batch(key=KEY))
    assert y.shape == (0, *case.output_shape)
    assert backward(y).shape == (0, *case.input_shape)


@given(cut=st.integers(0, 6))
def test_a_split_batch_gets_the_masks_of_the_whole(cut):
    for case in CASES.values():
        if not case.batch:
            continue
        layer, x = built(case), batch(case)
        if case.whole:
            continue
        y, _ = layer.forward(x, Batch(key=KEY))
        top, _ = layer.forward(x[:cut], Batch(key=KEY, row=0, rows=6))
        bottom, _ = layer.forward(x[cut:], Batch(key=KEY, row=cut, rows=6))
        np.testing.assert_allclose(np.concatenate([top, bottom]), y, rtol=1e-12)


def test_call_is_inference_unless_told():
    x = np.ones((4, 100))
    np.testing.assert_array_equal(Dropout()(x), x)
    assert (Dropout()(x, training=True) == 0).any()


# Dense


def test_dense_weights():
    layer = Dense(300, input_shape=(200,))
    layer.build((200,), Key(5))
    weight, bias = layer.params["weight"], layer.params["bias"]
    limit = math.sqrt(6 / 500)
    assert weight.shape == (300, 200)
    assert weight.dtype == bias.dtype == np.float32
    assert abs(weight).max() <= limit
    assert abs(weight.var() / (limit**2 / 3) - 1) < 0.02
    assert not bias.any()


def test_dense_alone_builds_itself():
    layer = Dense(2)
    x = np.ones((3, 4), np.float32)
    y = layer(x)
    np.testing.assert_allclose(y, x @ layer.params["weight"].T, rtol=1e-6)


def test_build_keeps_parameters():
    layer = Dense(2)
    layer.build((4,), Key(1))
    weight = layer.params["weight"]
    layer.build((4,), Key(2))
    assert layer.params["weight"] is weight


def test_dense_initializer_is_a_function_of_the_key():
    layer = Dense(3, kernel_initializer="he_normal")
    layer.build((4,), Key(5))
    expected = initializers.HeNormal()((3, 4), Key(5).fold_in(0)).astype(np.float32)
    np.testing.assert_array_equal(layer.params["weight"], expected)


def test_dense_rules_and_penalty():
    layer = Dense(2, l1=0.5, l2=0.25, max_norm=3)
    assert layer.penalty() == 0
    layer.build((2,), KEY)
    layer.params["weight"][:] = [[1, -2], [0, 4]]
    assert layer.weight_rules() == {"weight": WeightRule(0.5, 0.25, 3)}
    assert layer.penalty() == 0.5 * 7 + 0.25 * 21
    assert Dense(2).weight_rules() == {}


# Activations


@pytest.mark.parametrize("z", [1e30, 1e4, -1e4, -1e30])
@pytest.mark.parametrize("name", layers.ACTIVATIONS)
def test_activations_do_not_overflow(name, z):
    y, backward = Activation(name).forward(np.array([[z, 0.0]], np.float32))
    assert np.isfinite(y).all()
    assert np.isfinite(backward(np.ones_like(y))).all()


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 1e-7), (np.float64, 3e-16)])
def test_gelu_is_exact(dtype, tolerance):
    z = np.linspace(-12, 12, 5001).astype(dtype)
    y = Activation("gelu")(z[:, np.newaxis])[:, 0]
    exact = [v * math.erfc(-v / math.sqrt(2)) / 2 for v in z.tolist()]
    assert y.dtype == dtype
    np.testing.assert_allclose(y, exact, rtol=tolerance * 2, atol=tolerance)


KNOWN_ACTIVATIONS = {
    "elu": [math.expm1(-2), 3],
    "leaky_relu": [-0.4, 3],
    "relu": [0, 3],
    "selu": [1.05070098 * 1.67326324 * math.expm1(-2), 1.05070098 * 3],
    "silu": [-2 / (1 + math.exp(2)), 3 / (1 + math.exp(-3))],
    "softplus": [math.log1p(math.exp(-2)), math.log1p(math.exp(3))],
}


@pytest.mark.parametrize(("name", "expected"), KNOWN_ACTIVATIONS.items())
def test_known_activations(name, expected):
    np.testing.assert_allclose(Activation(name)(np.array([-2.0, 3.0])), expected, rtol=1e-8)


# Normalisation


def test_batch_normalization_follows_the_batches():
    layer = layers.BatchNormalization(momentum=0.75, epsilon=1e-6)
    x = np.random.default_rng(0).normal(3, 2, (50, 4, 2))
    layer.build((4, 2), KEY)
    mean, variance = layer.state["moving_mean"], layer.state["moving_variance"]
    y, _ = layer.forward(x)
    np.testing.assert_allclose(y.mean(axis=(0, 1)), 0, atol=1e-6)
    np.testing.assert_allclose(y.var(axis=(0, 1)), 1, rtol=1e-5)
    np.testing.assert_allclose(mean, x.mean(axis=(0, 1)) / 4, rtol=1e-6)
    np.testing.assert_allclose(variance, 0.75 + x.var(axis=(0, 1)) / 4, rtol=1e-6)
    np.testing.assert_allclose(layer(x), (x - mean) / np.sqrt(variance + 1e-6), rtol=1e-5)
    assert layer.state["moving_mean"] is mean  # rewritten in place
    before = mean.copy()
    layer.forward(x[:0])
    layer(x)
    np.testing.assert_array_equal(mean, before)


def test_layer_normalization_is_of_each_sample():
    x = np.random.default_rng(0).normal(3, 2, (6, 50))
    y = layers.LayerNormalization(1e-6)(x)
    np.testing.assert_allclose(y.mean(axis=1), 0, atol=1e-6)
    np.testing.assert_allclose(y.var(axis=1), 1, rtol=1e-5)


# Residual


def test_residual_refuses_layers_that_do_not_fit():
    layer = Residual([Dense(4, input_shape=(5,), name="inner")])
    with pytest.raises(ValueError, match=r"'inner' expects x of shape \(samples, 5\), got \(sam"):
        layer.build((4,), Key(0))


def test_residual_adds_what_its_layers_make():
    inner = [Dense(3, "tanh"), Dropout(0.5)]
    layer, x = Residual(inner), np.ones((6, 3), np.float32)
    layer.build((3,), Key(1))
    y, _ = layer.forward(x, Batch(key=KEY))
    h, _ = inner[0].forward(x)
    h, _ = inner[1].forward(h, Batch(key=Key(KEY.fold_in(1).seed, KEY.call)))
    np.testing.assert_array_equal(y, x + h)
    alone = Dense(3)
    alone.build((3,), Key(1).fold_in(0))
    np.testing.assert_array_equal(layer.params["0.weight"], alone.params["weight"])


def test_residual_shares_everything_with_its_layers():
    dense, norm = Dense(3, l2=0.5), layers.BatchNormalization()
    dense.build((3,), KEY)
    weight = dense.params["weight"]
    layer = Residual([dense, norm])
    layer.build((3,), Key(1))
    assert layer.params["0.weight"] is weight  # what was built stays
    assert set(layer.params) == {"0.weight", "0.bias", "1.gamma", "1.beta"}
    assert layer.state["1.moving_mean"] is norm.state["moving_mean"]
    assert layer.weight_rules() == {"0.weight": WeightRule(l2=0.5)}
    assert layer.penalty() == dense.penalty() > 0
    layer.params = {name: 2 * param for name, param in layer.params.items()}
    np.testing.assert_array_equal(dense.params["weight"], 2 * weight)


def test_users_own_layers_are_known():
    class Doubling(Layer):
        def forward(self, x, batch):
            return 2 * x, lambda dy: 2 * dy

    layer = layers.deserialize(layers.serialize(Residual([Doubling(name="twice")])))
    assert layer.layers[0].name == "twice"
    assert layer(np.ones((1, 1))) == 3


# Dropout


@pytest.mark.parametrize("shared_axes", [(), (0,), (1,), (0, 2), (-1,)])
def test_dropout_is_the_mask_of_its_key(shared_axes):
    x = np.ones((6, 5, 4), np.float32)
    y, backward = Dropout(0.25, shared_axes=shared_axes).forward(x, Batch(key=KEY))
    mask = dropout_mask(x.shape, 0.25, key=KEY, shared_axes=shared_axes)
    expected = np.broadcast_to(mask, x.shape) * np.float32(4 / 3)
    np.testing.assert_array_equal(y, expected)
    np.testing.assert_array_equal(backward(x), expected)


def test_vanilla_rule():
    x = np.full((3, 50), 2.0)
    layer = Dropout(0.25, mode="vanilla")
    mask = dropout_mask(x.shape, 0.25, key=KEY)
    np.testing.assert_array_equal(layer.forward(x, Batch(key=KEY))[0], 2 * mask)
    np.testing.assert_array_equal(layer(x), np.full_like(x, 1.5))


def test_dropped_is_zero_whatever_was_there():
    x = np.full((1, 100), np.nan)
    y = Dropout(0.5)(x, training=True)
    assert set(np.isnan(y).ravel()) == {True, False}
    assert not np.signbit(y[y == 0]).any()


def test_alone_a_layer_has_its_own_generator():
    x = np.ones((2, 100))
    first, second = Dropout(seed=3), Dropout(seed=3)
    for _ in range(2):
        np.testing.assert_array_equal(first(x, training=True), second(x, training=True))
    key = Generator(3).next_key()
    expected, _ = Dropout().forward(x, Batch(key=key))
    np.testing.assert_array_equal(Dropout(seed=3)(x, training=True), expected)


def test_without_seed_the_default_generator_decides():
    x = np.ones((2, 100))
    results = []
    for _ in range(2):
        fastdrop.seed(11)
        layers = Dropout(), Dropout()
        results.append([layer(x, training=True) for layer in layers])
    np.testing.assert_array_equal(results[0], results[1])
    assert (results[0][0] != results[0][1]).any()


def test_keras_names():
    assert Dropout(rate=0.2).p == 0.2
    assert Dense(2, input_dim=3).input_shape == (3,)


BAD_ARGUMENTS = {
    "p above 1": (lambda: Dropout(1.5), ValueError, "p: expected .* got 1.5"),
    "p below 0": (lambda: Dropout(-0.1), ValueError, "p: expected"),
    "p NaN": (lambda: Dropout(math.nan), ValueError, "p: expected .* got nan"),
    "p text": (lambda: Dropout("half"), TypeError, "p: expected"),
    "rate": (lambda: Dropout(rate=2), ValueError, "p: expected .* got 2"),
    "p and rate": (lambda: Dropout(0.3, rate=0.3), TypeError, "rate: expected"),
    "noise_shape": (lambda: Dropout(noise_shape=(None, 1)), TypeError, "shared_axes"),
    "mode": (lambda: Dropout(mode="other"), ValueError, "mode: expected .* got 'other'"),
    "activation": (lambda: Dense(2, "rely"), ValueError, "activation: .*relu.*got 'rely'"),
    "activation layer": (lambda: Activation(None), ValueError, "activation: expected"),
    "units 0": (lambda: Dense(0), ValueError, "units: expected .* got 0"),
    "units float": (lambda: Dense(2.5), ValueError, "units: expected .* got 2.5"),
    "input_dim": (lambda: Dense(2, input_dim=-1), ValueError, "input_dim: expected"),
    "both": (lambda: Dense(2, input_dim=1, input_shape=(1,)), ValueError, "input_dim: expected"),
    "input_shape": (lambda: Flatten(input_shape=3), ValueError, "input_shape: expected .* got 3"),
    "Input": (lambda: Input((None, 3)), ValueError, "shape: expected .* got"),
    "features": (
        lambda: built(CASES["dense"])(np.ones((2, 5))),
        ValueError,
        r"layer 'dense' expects x of shape \(samples, ..., 3\), got \(samples, 5\)",
    ),
    "no features": (lambda: Dense(2)(np.ones(5)), ValueError, "layer 'dense' expects"),
    "no batch": (lambda: Dense(2)(1.0), ValueError, "layer 'dense' expects"),
    "l1": (lambda: Dense(2, l1=-1), ValueError, "l1: expected .* got -1"),
    "l2": (lambda: Dense(2, l2=math.inf), ValueError, "l2: expected .* got inf"),
    "max_norm": (lambda: Dense(2, max_norm=0), ValueError, "max_norm: expected .* got 0"),
    "kernel_regularizer": (
        lambda: Dense(2, kernel_regularizer="l2"),
        TypeError,
        "kernel_regularizer: expected l1 and l2 instead: l2=0.01 for 'l2'.*; got 'l2'",
    ),
    "kernel_constraint": (
        lambda: Dense(2, kernel_constraint="max_norm"),
        TypeError,
        "kernel_constraint: expected max_norm instead, .*; got 'max_norm'",
    ),
    "weights None": (lambda: Dense(2).set_weights(None), TypeError, "weights: expected a list"),
    "weights too soon": (
        lambda: Dense(2).set_weights([np.ones((2, 3)), np.ones(2)]),
        ValueError,
        "weights: expected 0 arrays for this layer, got 2; .*its input is unknown",
    ),
    "initializer": (
        lambda: Dense(2, kernel_initializer="he"),
        ValueError,
        "kernel_initializer: .*he_normal.*got 'he'",
    ),
    "epsilon": (lambda: layers.LayerNormalization(0), ValueError, "epsilon: expected .* got 0"),
    "momentum text": (
        lambda: layers.BatchNormalization("a"),
        ValueError,
        r"momentum: expected a number in \[0, 1\), got 'a'",
    ),
    "momentum": (lambda: layers.BatchNormalization(1), ValueError, "momentum: .* got 1"),
    "normalised features": (
        lambda: built(CASES["batch norm"])(np.ones((2, 4))),
        ValueError,
        r"layer 'batchnormalization' expects x of shape \(samples, ..., 5\), got \(samples, 4\)",
    ),
    "residual": (
        lambda: Residual([Dense(4)])(np.ones((2, 3))),
        ValueError,
        r"layer 'residual' expects .* \(samples, 3\), got \(samples, 4\)",
    ),
    "residual, empty": (lambda: Residual([]), ValueError, "layers: expected at least one"),
    "residual of no list": (lambda: Residual(Dense(3)), TypeError, "layers: .* a list .*got Dense"),
    "residual of names": (lambda: Residual(["dense"]), TypeError, "layers: .* got 'dense'"),
    "residual of one layer twice": (
        lambda: Residual([dense := Dense(4), Residual([dense])]),
        ValueError,
        "layers: expected each layer once, got 'dense' twice",
    ),
    "class": (
        lambda: layers.deserialize({"class_name": "Conv", "config": {}}),
        ValueError,
        "layer: expected one of .*Dense.* got 'Conv'",
    ),
    "axis": (
        lambda: Dropout(shared_axes=(2,)).output_shape((3,)),
        ValueError,
        "shared_axes: expected",
    ),
}


@pytest.mark.parametrize(
    ("call", "error", "message"), BAD_ARGUMENTS.values(), ids=list(BAD_ARGUMENTS)
)
def test_bad_arguments(call, error, message):
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize("rows", [1, 3, 4, 10])
@pytest.mark.parametrize("groups", [1, 2, 4, 5])
def test_groups_of_rows_share_masks_of_their_own(rows, groups):
    x = np.ones((rows, 7), np.float32)
    y, _ = Dropout(0.5, shared_axes=(0,), groups=groups).forward(x, Batch(key=KEY))
    masks = dropout_mask((groups, 7), key=KEY)
    for r in range(rows):
        np.testing.assert_array_equal(y[r], 2 * masks[r * groups // rows])


def test_groups_need_a_shared_batch_axis():
    with pytest.raises(ValueError, match="groups: expected 0 in shared_axes of a layer with"):
        Dropout(0.5, shared_axes=(1,), groups=2).forward(np.ones((2, 3), np.float32))
    with pytest.raises(ValueError, match="groups: expected a whole number"):
        Dropout(0.5, shared_axes=(0,), groups=0)
