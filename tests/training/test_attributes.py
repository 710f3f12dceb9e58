"""What is assigned to objects or defined in classes works, or raises: nothing is ignored."""

import copy
import inspect
import pickle

import numpy as np
import pytest

from fastdrop import (
    alpha_dropout,
    callbacks,
    initializers,
    layers,
    learning_rates,
    losses,
    metrics,
    optimizers,
)
from fastdrop._attributes import Declared
from fastdrop.models import Sequential, load_model

RNG = np.random.default_rng(0)
ROWS = 16
SAMPLES = {1: (6,), 2: (4, 6), 3: (4, 6, 6)}
REQUIRED = {
    **{"units": 6, "activation": "relu", "stddev": 0.1, "layers": (), "loss": "mse", "k": 2},
    **{"filepath": "a", "filename": "a", "schedule": print, "name": "a", "monitor": "loss"},
    **{"mode": "min", "learning_rate": 0.1, "shape": (3,), "function": print, "value": 1.0},
    **{"p": 0.5, "block_size": 2},
}


def classes():
    """Every public class of ours whose objects take declared attributes only."""
    modules = (callbacks, initializers, layers, losses, metrics, optimizers)
    found = [getattr(module, name) for module in modules for name in module.__all__]
    return sorted(
        {c for c in (*found, Sequential) if isinstance(c, type) and issubclass(c, Declared)},
        key=lambda c: c.__name__,
    )


def make(cls, **given):
    if issubclass(cls, layers.Residual):
        return cls([layers.ReLU()])
    arguments = inspect.signature(cls).parameters
    required = {
        name: REQUIRED[name]
        for name, each in arguments.items()
        if each.default is each.empty and each.kind not in (each.VAR_KEYWORD, each.VAR_POSITIONAL)
    }
    if "block_size" in arguments:
        required["block_size"] = 2
    return cls(**required | given)


# Names of Keras's that nothing here has, and misspelt ones.
NAMES = [
    *("activity_regularizer", "amsgrad", "autocast", "axis"),
    *("beta_initializer", "bias_initializer", "bias_regularizer", "built"),
    *("compute_dtype", "cooldown_counter", "curve", "dtype_policy"),
    *("ema_momentum", "from_sorted_ids", "fn", "ignore_class"),
    *("jit_compile", "kernel", "kernel_constraint", "kernel_regularizer"),
    *("loss_scale_factor", "losses", "lr", "max_value"),
    *("metrics_names", "monitor_op", "multi_label", "negative_slope"),
    *("noise_shape", "num_thresholds", "output_names", "rate"),
    *("reduction", "renorm", "run_eagerly", "save_freq"),
    *("seed_generator", "sep", "steps_per_execution", "supports_masking"),
    *("threshold", "trainable_variables", "trainable_weights", "use_ema"),
    *("variable_dtype", "variables", "weights"),
    *("trainabel", "stop_traning", "learning_rat", "activatoin", "shared_axis", "namee"),
]


@pytest.mark.parametrize("cls", classes(), ids=lambda c: c.__name__)
def test_objects_of_ours_take_no_other_names(cls):
    thing = make(cls)
    before = dict(vars(thing))
    for name in NAMES:
        with pytest.raises(AttributeError, match=f"^{name}: expected an attribute that") as raised:
            setattr(thing, name, 0.0)
        assert len(str(raised.value)) <= 200
        assert vars(thing) == before
    derived = type("Derived", (cls,), {})
    other = make(derived) if cls is layers.Residual else copy.copy(thing)
    other.__class__ = derived
    other.rate, other.trainabel = 0.5, 7  # a class of one's own reads what it likes
    assert (other.rate, other.trainabel) == (0.5, 7)


@pytest.mark.parametrize("cls", classes(), ids=lambda c: c.__name__)
def test_objects_of_ours_are_copied_and_pickled(cls):
    thing = make(cls)
    for other in (copy.copy(thing), copy.deepcopy(thing), pickle.loads(pickle.dumps(thing))):
        assert type(other) is cls
        with pytest.raises(AttributeError):
            other.rate = 3


def test_the_message_names_what_it_is_called_here():
    with pytest.raises(AttributeError, match=r"^rate: .* that Dropout has, .* p;"):
        layers.Dropout(0.5).rate = 0.0
    with pytest.raises(AttributeError, match=r"input_dim: .* such as input_shape;"):
        layers.Dense(3).input_dim = 3
    schedule = learning_rates.ExponentialDecay(0.1, 2, 0.5)
    with pytest.raises(AttributeError):
        schedule.name = "decay"


@pytest.mark.parametrize("name", ["forward", "forward_logits", "output_shape", "weight_rules"])
def test_methods_of_layers_belong_to_classes(name):
    for layer in (layers.Dense(3), layers.Dropout(0.5)):
        with pytest.raises(AttributeError, match=f"{name}: .* of its own, not of its class"):
            setattr(layer, name, lambda *given: given)


# Assigned to a layer that has been used: as if it had been made so


CHANGES = {
    layers.Dense: {"activation": "tanh", "l1": 0.1, "l2": 0.1, "max_norm": 0.1},
    layers.DropConnect: {"p": 0.9, "activation": "tanh", "l2": 0.1, "max_norm": 0.1},
    layers.ConcreteDropout: {
        **{"activation": "tanh", "max_norm": 0.1, "temperature": 0.9},
        **{"weight_regularizer": 0.5, "dropout_regularizer": 0.5},
    },
    layers.Dropout: {"p": 0.9, "shared_axes": (0,), "mode": "vanilla"},
    layers.Dropout1d: {"p": 0.9, "data_format": "channels_last"},
    layers.Dropout2d: {"p": 0.9, "data_format": "channels_last"},
    layers.AlphaDropout: {"p": 0.9, "shared_axes": (0,)},
    layers.FeatureAlphaDropout: {"p": 0.9},
    layers.GaussianDropout: {"p": 0.9},
    layers.GaussianNoise: {"stddev": 0.9},
    layers.DropPath: {"p": 0.9, "mode": "batch"},
    layers.DropBlock2d: {"p": 0.9, "block_size": 3},
    layers.LockedDropout: {"p": 0.9},
    layers.Zoneout: {"p": 0.9},
    layers.BatchNormalization: {"momentum": 0.5, "epsilon": 0.5},
    layers.LayerNormalization: {"epsilon": 0.5},
    layers.Activation: {"activation": "tanh"},
}
AXES = {
    **dict.fromkeys((layers.Dropout1d, layers.FeatureAlphaDropout, layers.LockedDropout), 2),
    **dict.fromkeys((layers.Dropout2d, layers.DropBlock2d), 3),
}


def in_a_model(layer, axes):
    model = Sequential(
        [layers.Input(SAMPLES[axes]), layer, layers.Flatten(), layers.Dense(2)], seed=4
    )
    model.compile("sgd", "mse")
    return model


@pytest.mark.parametrize(
    ("cls", "name"), [(cls, name) for cls, changes in CHANGES.items() for name in changes]
)
def test_what_is_assigned_to_a_layer_works(cls, name):
    axes, value = AXES.get(cls, 1), CHANGES[cls][name]
    x = RNG.normal(size=(ROWS, *SAMPLES[axes])).astype(np.float32)
    y = RNG.normal(size=(ROWS, 2)).astype(np.float32)

    def results(model):
        return [
            model.predict(x, verbose=0),
            [model.train_on_batch(x, y) for _ in range(2)],
            model.predict(x, verbose=0),
        ]

    changed, made = in_a_model(make(cls), axes), in_a_model(make(cls, **{name: value}), axes)
    changed.predict(x, verbose=0)
    setattr(changed.layers[0], name, value)
    plain, got, expected = map(results, (in_a_model(make(cls), axes), changed, made))
    assert all(map(np.array_equal, got, expected))
    assert not all(map(np.array_equal, got, plain))


@pytest.mark.parametrize(
    ("layer", "name"),
    [
        *((layers.Dense(3), name) for name in ("units", "use_bias", "kernel_initializer")),
        *((layers.DropConnect(3), name) for name in ("units", "use_bias")),
        *((layers.ConcreteDropout(3), name) for name in ("units", "p")),
        *((layers.BatchNormalization(), name) for name in ("center", "scale")),
    ],
)
def test_what_parameters_are_made_from_is_assigned_before_they_are_made(layer, name):
    layer = copy.deepcopy(layer)
    value = getattr(layer, name)
    setattr(layer, name, value)
    layer.build((4,), layer.key_of(layers.Batch()))
    with pytest.raises(AttributeError, match=f"^{name}: expected an assignment before the layer"):
        setattr(layer, name, value)


def test_a_seed_counts_from_where_it_is_assigned():
    layer, x = layers.Dropout(0.5, seed=1), np.ones((4, 50), np.float32)
    first = layer(x, training=True)
    assert (layer(x, training=True) != first).any()
    layer.seed = 1
    np.testing.assert_array_equal(layer(x, training=True), first)
    with pytest.raises((TypeError, ValueError), match="seed: expected"):
        layer.seed = -1


OPTIMIZERS = {
    optimizers.SGD: {"momentum": 0.9, "clipnorm": 0.01, "weight_decay": 0.5, "clipvalue": 0.01},
    optimizers.Adam: {"beta_1": 0.5, "beta_2": 0.5, "epsilon": 0.1, "global_clipnorm": 0.01},
    optimizers.RMSprop: {"rho": 0.5, "centered": True, "momentum": 0.9, "learning_rate": 0.3},
}


@pytest.mark.parametrize(
    ("cls", "name"), [(cls, name) for cls, changes in OPTIMIZERS.items() for name in changes]
)
def test_what_is_assigned_to_an_optimiser_works(cls, name):
    x = RNG.normal(size=(ROWS, 6)).astype(np.float32)
    value, weights = OPTIMIZERS[cls][name], []
    for optimizer in (cls(), cls(), cls(**{name: value})):
        model = in_a_model(layers.Dense(4), 1)
        model.compile(optimizer, "mse")
        if weights and optimizer.get_config() == cls().get_config():
            setattr(optimizer, name, value)
        for _ in range(3):
            model.train_on_batch(x, x[:, :2])
        weights.append(np.concatenate([array.ravel() for array in model.get_weights()]))
    np.testing.assert_array_equal(weights[1], weights[2])
    assert (weights[0] != weights[1]).any()


# Models


def trained(model):
    x = np.linspace(-1, 1, 60, dtype=np.float32).reshape(10, 6)
    return [model.train_on_batch(x, x[:, :2]), *model.get_weights()]


@pytest.mark.parametrize(
    ("name", "value", "compiled"),
    [
        ("optimizer", "adam", ("adam", "mse")),
        ("loss", "mae", ("sgd", "mae")),
        ("metrics", ["mae"], ("sgd", "mse", ["mae"])),
    ],
)
def test_what_is_assigned_to_a_model_works(name, value, compiled):
    changed, made = in_a_model(layers.Dense(4), 1), in_a_model(layers.Dense(4), 1)
    setattr(changed, name, value)
    made.compile(*compiled)
    assert np.shape(trained(changed)[0]) == np.shape(trained(made)[0])
    assert all(map(np.array_equal, trained(changed), trained(made)))


def test_a_models_seed_is_followed():
    changed = in_a_model(layers.Dropout(0.5), 1)
    trained(changed)
    made = in_a_model(layers.Dropout(0.5), 1)
    made.seed = changed.seed = 9
    made.step = changed.step
    made.set_weights(changed.get_weights())
    assert all(map(np.array_equal, trained(changed), trained(made)))


def test_a_models_dtype_stays():
    with pytest.raises(AttributeError, match="dtype"):
        in_a_model(layers.Dense(4), 1).dtype = "float64"


# Methods that Keras would call


@pytest.mark.parametrize(
    ("base", "name", "here"),
    [
        (layers.Layer, "call", "to define forward instead"),
        (layers.Dense, "compute_output_shape", "to define output_shape instead"),
        (layers.Dropout, "compute_mask", "not to define it"),
        (layers.Layer, "trainable_weights", "not to define it"),
        (losses.Loss, "call", "to define __call__ instead"),
        (metrics.Metric, "update_state", "to define update instead"),
        (metrics.Accuracy, "reset_state", "to define reset instead"),
        (optimizers.Adam, "update_step", "to define update instead"),
        (optimizers.Optimizer, "apply_gradients", "to define update instead"),
        (Sequential, "train_step", "not to define it"),
        (Sequential, "call", "not to define it"),
        (Sequential, "compute_loss", "not to define it"),
        (Sequential, "metrics", "to leave it as it is"),
        (Sequential, "get_config", "to leave it as it is"),
    ],
)
def test_classes_define_no_methods_that_nobody_calls(base, name, here):
    with pytest.raises(TypeError, match=f"^{name}: expected Own {here}"):
        type("Own", (base,), {name: lambda self, *given: None})
    mixin = type("Mixin", (), {name: lambda self, *given: None})
    if "leave" not in here:
        with pytest.raises(TypeError, match=f"^{name}: expected Own {here}"):
            type("Own", (mixin, base), {})


# Keras's words


def layers_with_p():
    found = (getattr(layers, name) for name in layers.__all__)
    return [
        c
        for c in found
        if isinstance(c, type)
        and issubclass(c, layers.Layer)
        and "p" in inspect.signature(c).parameters
    ]


@pytest.mark.parametrize("cls", layers_with_p(), ids=lambda c: c.__name__)
def test_rate_is_another_word_for_p(cls):
    layer = make(cls, rate=0.25)
    assert layer.p == 0.25
    assert layer.get_config() == make(cls, p=0.25).get_config()
    assert cls.from_config(layer.get_config()).p == 0.25
    with pytest.raises(TypeError, match="rate: expected either rate or p, got both"):
        make(cls, p=0.25, rate=0.25)
    with pytest.raises(ValueError, match="p: expected"):
        make(cls, rate=1.5)


def test_alpha_dropout_shares_axes():
    x = RNG.normal(size=(8, 5, 30)).astype(np.float32)
    y = layers.AlphaDropout(0.5, shared_axes=1, seed=1)(x, training=True)
    key = layers.AlphaDropout(0.5, shared_axes=1, seed=1).key_of(layers.Batch())
    np.testing.assert_array_equal(y, alpha_dropout(x, 0.5, key=key, shared_axes=(1,)))
    shared = layers.AlphaDropout(0.5, shared_axes=[0, 1])
    assert shared.from_config(shared.get_config()).shared_axes == (0, 1)
    with pytest.raises(TypeError, match="noise_shape: expected shared_axes"):
        layers.AlphaDropout(0.5, noise_shape=(1, 5))
    with pytest.raises(ValueError, match="shared_axes: expected axes of a 2-d array, got 2"):
        Sequential([layers.AlphaDropout(0.5, shared_axes=2, input_shape=(3,))])


@pytest.mark.parametrize("axes", [(), 0, 1, (0, 1)])
def test_alpha_dropout_of_parts_of_a_batch(axes):
    x, layer = np.ones((9, 4), np.float32), layers.AlphaDropout(0.5, shared_axes=axes)
    key = layer.key_of(layers.Batch())
    whole, _ = layer.forward(x, layers.Batch(True, key))
    parts = [layer.forward(x[r : r + 3], layers.Batch(True, key, r, 9))[0] for r in (0, 3, 6)]
    np.testing.assert_array_equal(np.concatenate(parts), whole)


def test_pop_build_output_shape_and_name(tmp_path):
    model = Sequential([layers.Dense(4), layers.Dense(2)], seed=1, name="mine")
    assert (model.name, model.output_shape, Sequential().output_shape) == ("mine", None, None)
    with pytest.raises(ValueError, match="input_shape: expected"):
        model.build()
    model.build((None, 6))
    model.build()
    model.build((6,))
    assert (model.input_shape, model.output_shape) == ((6,), (2,))
    for wrong in ((None, 5), (6, 6), (None,), (0,), (None, None, 6)):
        with pytest.raises(ValueError, match="shape"):
            model.build(wrong)
    model.compile("adam", "mse")
    x = np.ones((3, 6), np.float32)
    model.train_on_batch(x, np.ones((3, 2)))
    top = model.layers[-1]
    assert model.pop() is top
    assert model.output_shape == (4,)
    assert not any(name.startswith("1.") for name in model.optimizer.state)
    model.add(layers.Dense(2))  # with nothing left of what was there
    model.train_on_batch(x, np.ones((3, 2)))
    assert (model.optimizer.state["1.weight"].keys()) == model.optimizer.state["0.weight"].keys()
    model.save(tmp_path / "model")
    assert load_model(tmp_path / "model").name == "mine"
    assert Sequential.from_config(model.get_config()).name == "mine"
    for _ in range(2):
        model.pop()
    with pytest.raises(ValueError, match="layers: expected at least one"):
        model.pop()
    with pytest.raises(ValueError, match="name: expected text, got 3"):
        Sequential(name=3)
    with pytest.raises(ValueError, match="input_shape: expected"):
        Sequential().build((None, 3))


def test_pop_forgets_the_shape_that_a_layer_brought():
    model = Sequential([layers.Dense(4, input_shape=(3,))])
    model.pop()
    model.add(layers.Dense(4, input_shape=(5,)))
    assert model.input_shape == (5,)
    kept = Sequential([layers.Input((3,)), layers.Dense(4)])
    kept.pop()
    assert kept.input_shape == (3,)


# Arguments of fit


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"shuffle": "batch"}, "shuffle: expected True or False, got 'batch'"),
        ({"validation_steps": 2}, "validation_steps: expected it with data to validate on"),
        ({"validation_batch_size": 2}, "validation_batch_size: expected it with data"),
        ({"steps_per_epoch": 5}, "steps_per_epoch: expected at most 4, the batches of x"),
        (
            {"steps_per_epoch": 4, "validation_split": 0.5},
            "steps_per_epoch: expected at most 2, the batches of x",
        ),
    ],
)
def test_arguments_without_effect_are_refused(given, message):
    model = in_a_model(layers.Dense(4), 1)
    with pytest.raises(ValueError, match=message):
        model.fit(np.ones((16, 6)), np.ones((16, 2)), 4, verbose=0, **given)
    assert model.step == 0
