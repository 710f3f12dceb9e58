"""fastdrop.keras on the backend of KERAS_BACKEND: `test_keras_backends.py` runs this on each."""

import subprocess
import sys
import warnings

import keras
import numpy as np
import pytest
from dtypes import assert_same

import fastdrop
import fastdrop.keras as fkeras
from fastdrop import Key

BACKEND = keras.backend.backend()
X = np.random.default_rng(0).normal(size=(6, 4, 10)).astype(np.float32)
IMAGES = np.random.default_rng(0).normal(size=(3, 4, 5, 6)).astype(np.float32)
VOLUMES = np.random.default_rng(0).normal(size=(2, 3, 4, 5, 6)).astype(np.float32)

pytestmark = pytest.mark.filterwarnings("default")  # Keras's and the backends' own


def array(tensor):
    return keras.ops.convert_to_numpy(tensor)


def dropped(x, rate, key, shared=()):
    return fastdrop.dropout(np.asarray(x), rate, key=key, shared_axes=shared)


# layer, input, what NumPy's function gives for a key
CASES = {
    "dropout": (lambda: fkeras.Dropout(0.3, seed=7), X, lambda x, key: dropped(x, 0.3, key)),
    "noise shape": (
        lambda: fkeras.Dropout(0.3, noise_shape=(None, 1, 10), seed=7),
        X,
        lambda x, key: dropped(x, 0.3, key, 1),
    ),
    "short noise shape": (
        lambda: fkeras.Dropout(0.3, noise_shape=[1, 10], seed=7),
        X,
        lambda x, key: dropped(x, 0.3, key, (0, 1)),
    ),
    "spatial 1d": (
        lambda: fkeras.SpatialDropout1D(0.3, seed=7),
        X,
        lambda x, key: dropped(x, 0.3, key, 1),
    ),
    "spatial 2d": (
        lambda: fkeras.SpatialDropout2D(0.3, seed=7),
        IMAGES,
        lambda x, key: dropped(x, 0.3, key, (1, 2)),
    ),
    "spatial 2d, channels first": (
        lambda: fkeras.SpatialDropout2D(0.3, data_format="channels_first", seed=7),
        IMAGES,
        lambda x, key: dropped(x, 0.3, key, (2, 3)),
    ),
    "spatial 3d": (
        lambda: fkeras.SpatialDropout3D(0.3, seed=7),
        VOLUMES,
        lambda x, key: dropped(x, 0.3, key, (1, 2, 3)),
    ),
    "spatial 3d, channels first": (
        lambda: fkeras.SpatialDropout3D(0.3, "channels_first", seed=7),
        VOLUMES,
        lambda x, key: dropped(x, 0.3, key, (2, 3, 4)),
    ),
    "alpha": (
        lambda: fkeras.AlphaDropout(0.3, seed=7),
        X,
        lambda x, key: fastdrop.alpha_dropout(x, 0.3, key=key),
    ),
    "alpha, noise shape": (
        lambda: fkeras.AlphaDropout(0.3, noise_shape=(None, 1, None), seed=7),
        X,
        lambda x, key: fastdrop.alpha_dropout(x, 0.3, key=key, shared_axes=1),
    ),
    "gaussian": (
        lambda: fkeras.GaussianDropout(0.3, seed=7),
        X,
        lambda x, key: fastdrop.gaussian_dropout(x, 0.3, key=key),
    ),
    "noise": (
        lambda: fkeras.GaussianNoise(0.3, seed=7),
        X,
        lambda x, key: fastdrop.gaussian_noise(x, 0.3, key=key),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_the_nth_call_has_the_mask_of_seed_and_n(name):
    make, x, expected = CASES[name]
    layer = make()
    for n in range(3):
        assert_same(array(layer(x, training=True)), expected(x, Key(7, n)))
        assert_same(array(layer(x, training=False)), x)
        assert_same(array(layer(x)), x)
        assert_same(array(layer(x, training=None)), x)
    assert list(array(layer.seed_generator.state)) == [7, 3]


@pytest.mark.parametrize("name", CASES)
def test_keras_makes_it_again(name):
    layer = CASES[name][0]()
    config = layer.get_config()
    assert config == type(layer).from_config(config).get_config()
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer))
    assert type(again) is type(layer)
    assert type(layer).__mro__[1].__name__ in ("_Masked", "_Spatial")
    assert isinstance(layer, getattr(keras.layers, type(layer).__name__))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_dtypes(dtype):
    layer = fkeras.Dropout(0.3, seed=7, dtype=dtype)
    y = layer(X, training=True)
    if BACKEND == "jax" and dtype == "float64":
        return  # JAX has none unless asked for
    assert keras.backend.standardize_dtype(y.dtype) == dtype
    x = keras.ops.cast(X, dtype)
    wide = np.asarray(array(keras.ops.cast(x, "float32" if dtype != "float64" else dtype)))
    kept = dropped(np.ones_like(X), 0.3, Key(7)) > 0
    got = array(keras.ops.cast(y, "float32" if dtype != "float64" else dtype))
    np.testing.assert_array_equal(got != 0, kept & (wide != 0))
    np.testing.assert_allclose(got[kept], wide[kept] / 0.7, rtol=1e-2 if "16" in dtype else 1e-6)


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
@pytest.mark.parametrize("name", CASES)
def test_mixed_precision(name, policy):
    """Activations of 16 bits: NumPy's numbers of them, for the same keys."""
    make, x, expected = CASES[name]
    before = keras.mixed_precision.dtype_policy()
    keras.mixed_precision.set_dtype_policy(policy)
    try:
        layer = make()
    finally:
        keras.mixed_precision.set_dtype_policy(before)
    assert (layer.compute_dtype, layer.variable_dtype) == (policy[6:], "float32")
    halves = keras.ops.cast(x, layer.compute_dtype)
    for n in range(2):
        y = layer(x, training=True)
        assert keras.backend.standardize_dtype(y.dtype) == layer.compute_dtype
        right = expected(numpy_halves(halves), Key(7, n)).astype(np.float32)
        assert_same(array(keras.ops.cast(y, "float32")), right)


def numpy_halves(tensor):
    import ml_dtypes

    dtype = keras.backend.standardize_dtype(tensor.dtype)
    wide = array(keras.ops.cast(tensor, "float32"))
    return wide.astype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_fit_in_mixed_precision(policy):
    """Losses are about those of float32 with the same masks; weights stay float32."""
    before = keras.mixed_precision.dtype_policy()
    keras.mixed_precision.set_dtype_policy(policy)
    try:
        model = small_model()
        losses = fit(model)
    finally:
        keras.mixed_precision.set_dtype_policy(before)
    y = model.layers[1](np.ones((4, 16), np.float32), training=True)
    assert keras.backend.standardize_dtype(y.dtype) == policy[6:]
    wide = fit(small_model())
    np.testing.assert_allclose(losses, wide, rtol=0.2)  # 0.05 apart after two epochs in float16
    assert all(
        keras.backend.standardize_dtype(weight.dtype) == "float32"
        and np.isfinite(array(weight)).all()
        for weight in model.weights
    )
    assert list(array(model.layers[1].seed_generator.state)) == [1, 9]


def test_rates_at_their_ends():
    assert_same(array(fkeras.Dropout(0.0)(X, training=True)), X)
    assert not array(fkeras.Dropout(1.0)(X, training=True)).any()
    assert not array(fkeras.AlphaDropout(1.0)(X, training=True)).any()
    assert_same(array(fkeras.GaussianNoise(0.0)(X, training=True)), X)
    for rate in (-0.1, 1.1):
        with pytest.raises(ValueError, match="rate"):
            fkeras.Dropout(rate)
    with pytest.raises(ValueError, match="p: expected 0 <= p < 1"):
        fkeras.GaussianDropout(1.0)(X, training=True)


@pytest.mark.parametrize("shape", [(6, 3, 10), (1, 1, 1, 1), (5, None, None)])
def test_a_noise_shape_that_does_not_fit(shape):
    with pytest.raises(ValueError, match="noise_shape: expected one that broadcasts to"):
        fkeras.Dropout(0.5, noise_shape=shape)(X, training=True)


def test_a_noise_shape_that_is_none():
    """At once where Keras looks at it, else when the layer is called."""
    with pytest.raises((TypeError, ValueError), match="noise_shape"):
        fkeras.Dropout(0.5, noise_shape=3)(X, training=True)
    with pytest.raises((TypeError, ValueError), match="noise_shape"):
        fkeras.AlphaDropout(0.5, noise_shape=3)(X, training=True)


def test_numbers_that_are_none():
    x = np.full(1000, np.inf, np.float32)
    x[::2] = np.nan
    y = array(fkeras.Dropout(0.5, seed=1)(x, training=True))
    assert (y[dropped(np.ones_like(x), 0.5, Key(1)) == 0] == 0).all()


def test_seeds():
    """Keras's seed of the process; large seeds; layers whose seeds are neighbours."""
    keras.utils.set_random_seed(3)
    one = array(fkeras.Dropout(0.5)(X, training=True))
    other = array(fkeras.Dropout(0.5)(X, training=True))
    keras.utils.set_random_seed(3)
    assert_same(array(fkeras.Dropout(0.5)(X, training=True)), one)
    assert not np.array_equal(one, other)
    first, second = fkeras.Dropout(0.5, seed=1), fkeras.Dropout(0.5, seed=2)
    first(X, training=True)
    assert not np.array_equal(array(first(X, training=True)), array(second(X, training=True)))
    large = 2**31 - 5 if BACKEND == "torch" else 2**32 - 5  # Keras can no more on torch
    y = array(fkeras.Dropout(0.5, seed=large)(X, training=True))
    assert_same(y, dropped(X, 0.5, Key(large)))


@pytest.mark.skipif(BACKEND != "tensorflow", reason="the others' seed generators have 32 bits")
def test_seeds_of_more_than_32_bits(tmp_path):
    seed = 2**40 + 3
    model = keras.Sequential([keras.layers.Input((8,)), fkeras.Dropout(0.5, seed=seed)])
    assert_same(array(model(ROWS, training=True)), dropped(ROWS, 0.5, Key(seed)))
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert_same(array(loaded(ROWS, training=True)), dropped(ROWS, 0.5, Key(seed, 1)))


# ---- gradients -----------------------------------------------------------------------------------


def gradient(function, x):
    """The gradient of the sum of a function of one tensor."""
    if BACKEND == "jax":
        import jax

        return np.asarray(jax.grad(lambda x: function(x).sum())(x))
    tensor = keras.ops.convert_to_tensor(x)
    if BACKEND == "torch":
        tensor.requires_grad_()
        function(tensor).sum().backward()
        return tensor.grad.numpy()
    import tensorflow as tf

    with tf.GradientTape() as tape:
        tape.watch(tensor)
        y = tf.reduce_sum(function(tensor))
    return tape.gradient(y, tensor).numpy()


def stateless(layer):
    """The layer as a function: its seed generator stays where it is."""
    state = array(layer.seed_generator.state)

    def call(x):
        layer.seed_generator.state.assign(state)
        return layer(x, training=True)

    if BACKEND != "jax":
        return call
    return lambda x: layer.stateless_call([], layer.non_trainable_variables, x, training=True)[0]


@pytest.mark.parametrize("name", CASES)
def test_gradients(name):
    make, x, expected = CASES[name]
    dx = gradient(stateless(make()), x)
    ones = np.ones_like(x)
    if "alpha" in name:
        shared = 1 if "shape" in name else ()
        right = fastdrop.alpha_dropout_backward(ones, 0.3, key=Key(7), shared_axes=shared)
    else:
        right = ones if name == "noise" else expected(ones, Key(7))
    assert_same(dx, right)


@pytest.mark.parametrize("name", ["dropout", "alpha", "gaussian", "noise"])
def test_second_derivatives(name):
    """f = (sum of y^2) / 2: its second derivative along v is the layer's own, twice, on v."""
    make, x, _ = CASES[name]
    call = stateless(make())
    v = np.random.default_rng(1).normal(size=x.shape).astype(np.float32)
    if BACKEND == "jax":
        import jax

        first = jax.grad(lambda x: (call(x) ** 2).sum() / 2)
        second = np.asarray(jax.grad(lambda x: (first(x) * v).sum())(x))
    elif BACKEND == "torch":
        import torch

        tensor = torch.from_numpy(x.copy()).requires_grad_()
        (dx,) = torch.autograd.grad((call(tensor) ** 2).sum() / 2, tensor, create_graph=True)
        second = torch.autograd.grad((dx * torch.from_numpy(v)).sum(), tensor)[0].numpy()
    else:
        import tensorflow as tf

        tensor = tf.constant(x)
        with tf.GradientTape() as outer:
            outer.watch(tensor)
            with tf.GradientTape() as inner:
                inner.watch(tensor)
                y = tf.reduce_sum(call(tensor) ** 2) / 2
            dx = inner.gradient(y, tensor)
            total = tf.reduce_sum(dx * v)
        second = outer.gradient(total, tensor).numpy()
    factor = gradient(call, x)  # of each element
    np.testing.assert_allclose(second, factor * factor * v, rtol=1e-5, atol=1e-6)


# ---- models --------------------------------------------------------------------------------------

ROWS = np.random.default_rng(1).normal(size=(50, 8)).astype(np.float32)


def small_model(layers=fkeras, **more):
    return keras.Sequential(
        [
            keras.layers.Input((8,)),
            keras.layers.Dense(16, "relu", kernel_initializer=keras.initializers.GlorotUniform(1)),
            layers.Dropout(0.5, seed=1),
            keras.layers.Dense(1, kernel_initializer=keras.initializers.GlorotUniform(2)),
        ],
        **more,
    )


def fit(model, epochs=2, **more):
    if not model.compiled:
        model.compile(keras.optimizers.SGD(0.01), "mse")
    more = {"batch_size": 16, "shuffle": False, "verbose": 0} | more  # the last batch is smaller
    return model.fit(ROWS, ROWS[:, :1], epochs=epochs, **more).history["loss"]


def test_fit_is_repeatable():
    assert fit(small_model()) == fit(small_model())


def test_fit_counts_its_calls():
    model = small_model()
    fit(model)
    assert list(array(model.layers[1].seed_generator.state)) == [1, 8]


def test_fit_has_the_masks_of_the_key():
    """A network that is its dropout layer: the losses tell the masks."""
    model = keras.Sequential([keras.layers.Input((8,)), fkeras.Dropout(0.5, seed=3)])
    model.compile("sgd", lambda y, out: keras.ops.mean(out, axis=-1))
    losses = model.fit(ROWS, ROWS, batch_size=50, epochs=3, shuffle=False, verbose=0).history
    expected = [dropped(ROWS, 0.5, Key(3, n)).mean() for n in range(3)]
    np.testing.assert_allclose(losses["loss"], expected, rtol=1e-4, atol=1e-6)


def test_subclassed_models():
    class Model(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense, self.dropout = keras.layers.Dense(1), fkeras.Dropout(0.5, seed=1)

        def call(self, x, training=None):
            return self.dense(self.dropout(x, training=training))

    model = Model()
    fit(model)
    assert list(array(model.dropout.seed_generator.state)) == [1, 8]
    quiet = array(model(ROWS))
    assert_same(array(model(ROWS, training=False)), quiet)


def test_functional_models_with_unknown_lengths():
    inputs = keras.Input((None, 6))
    x = fkeras.Dropout(0.3, noise_shape=(None, 1, None), seed=2)(inputs)
    outputs = keras.layers.GlobalAveragePooling1D()(fkeras.SpatialDropout1D(0.2)(x))
    model = keras.Model(inputs, outputs)
    model.compile("sgd", "mse")
    for length in (3, 5):
        x = np.ones((4, length, 6), np.float32)
        model.fit(x, np.ones((4, 6)), verbose=0)
        assert array(model(x, training=True)).shape == (4, 6)


@pytest.mark.parametrize("jit", ["auto", True, False])
def test_compilers(jit):
    if BACKEND == "torch" and jit is True:
        pytest.skip("PyTorch's compiler takes minutes")
    model = small_model()
    model.compile(keras.optimizers.SGD(0.01), "mse", jit_compile=jit)
    losses = fit(model)
    eager = small_model()
    eager.compile(keras.optimizers.SGD(0.01), "mse", run_eagerly=True)
    np.testing.assert_allclose(losses, fit(eager), rtol=1e-4)


def test_clones():
    model = small_model()
    clone = keras.models.clone_model(model)
    assert type(clone.layers[1]) is fkeras.Dropout
    assert list(array(clone.layers[1].seed_generator.state)) == [1, 0]


# ---- files ---------------------------------------------------------------------------------------


def test_a_loaded_model_goes_on(tmp_path):
    model = small_model()
    fit(model)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert list(array(loaded.layers[1].seed_generator.state)) == [1, 8]
    assert fit(loaded) == fit(model)


def test_loaded_weights_go_on(tmp_path):
    model, other = small_model(), small_model()
    fit(model)
    model.save_weights(tmp_path / "model.weights.h5")
    other.load_weights(tmp_path / "model.weights.h5")
    assert list(array(other.layers[1].seed_generator.state)) == [1, 8]


def test_files_of_large_seeds(tmp_path):
    seed = 2**31 - 3 if BACKEND == "torch" else 2**32 - 3  # Keras can no more on torch
    model = keras.Sequential([keras.layers.Input((8,)), fkeras.Dropout(0.5, seed=seed)])
    model(ROWS, training=True)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    y = array(loaded(ROWS, training=True))
    assert_same(y, dropped(ROWS, 0.5, Key(seed, 1)))


def test_files_of_kerass_own_layers(tmp_path):
    own = small_model(keras.layers)
    own.save_weights(tmp_path / "own.weights.h5")
    ours = small_model()
    ours.load_weights(tmp_path / "own.weights.h5")
    np.testing.assert_array_equal(array(ours(ROWS)), array(own(ROWS)))


def test_a_process_without_fastdrop(tmp_path):
    model = small_model()
    model.save(tmp_path / "ours.keras")
    fkeras.revert(model)
    model.save(tmp_path / "theirs.keras")
    code = "import sys, keras; keras.models.load_model(sys.argv[1])"

    def load(name):
        command = [sys.executable, "-c", code, str(tmp_path / name)]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    assert load("theirs.keras").returncode == 0
    result = load("ours.keras")
    assert result.returncode != 0
    assert "fastdrop" in result.stderr


# ---- convert -------------------------------------------------------------------------------------


@pytest.mark.parametrize("when", ["before compile", "before fit", "after fit"])
def test_convert(when):
    model = small_model(keras.layers)
    if when != "before compile":
        model.compile(keras.optimizers.SGD(0.01), "mse")
    if when == "after fit":
        fit(model)
    state = list(array(model.layers[1].seed_generator.state))
    names = fkeras.convert(model)
    assert [name.split("/")[-1] for name in names] == [model.layers[1].name]
    assert type(model.layers[1]) is fkeras.Dropout
    assert list(array(model.layers[1].seed_generator.state)) == state
    y = array(model.layers[1](X, training=True))
    assert_same(y, dropped(X, 0.5, Key(1, state[1])))
    fit(model)
    assert fkeras.convert(model) == []
    assert len(fkeras.revert(model)) == 1
    assert type(model.layers[1]) is keras.layers.Dropout
    fit(model)


def test_after_convert_fit_is_that_of_our_layers():
    theirs = small_model(keras.layers)
    fkeras.convert(theirs)
    assert fit(theirs) == fit(small_model())


def test_convert_reaches_all_kinds_and_depths():
    own = keras.layers
    inner = keras.Sequential([own.Input((4, 8)), own.SpatialDropout1D(0.1), own.GaussianNoise(0.1)])
    inputs = own.Input((4, 8))
    x = inner(inputs)
    x = own.AlphaDropout(0.1)(own.GaussianDropout(0.1)(x))
    x = own.MultiHeadAttention(2, 4, dropout=0.1)(x, x)
    model = keras.Model(inputs, own.TimeDistributed(own.Dropout(0.1))(x))
    names = fkeras.convert(model)
    assert len(names) == 6
    kinds = {type(layer) for layer in model._flatten_layers()}
    assert not kinds & {getattr(own, name) for name in fkeras.__all__ if name[0].isupper()}
    model.compile("sgd", "mse")
    x = np.ones((6, 4, 8), np.float32)
    model.fit(x, x, verbose=0)


@pytest.mark.parametrize("kind", ["MultiHeadAttention", "GroupQueryAttention"])
def test_convert_reaches_attention(kind):
    """Its weights are dropped by our masks, and by Keras's again after `revert`."""
    sizes = (8, 4, 2) if kind == "GroupQueryAttention" else (4, 8)
    layer = getattr(keras.layers, kind)(*sizes, dropout=0.5, seed=3)
    x = np.ones((2, 5, 8), np.float32)
    layer(x, x)
    assert len(fkeras.convert(layer)) == 1
    assert type(layer._dropout_layer) is fkeras.Dropout
    for n in range(2):
        assert list(array(layer._dropout_layer.seed_generator.state)) == [3, n]
        layer(x, x, training=True)
    weights = np.ones((2, 4, 5, 5), np.float32)
    y = array(layer._dropout_layer(weights, training=True))
    assert_same(y, dropped(weights, 0.5, Key(3, 2)))
    assert len(fkeras.revert(layer)) == 1
    assert type(layer._dropout_layer) is keras.layers.Dropout


def test_a_run_that_is_resumed_goes_on(tmp_path):
    """By Keras's callback, and by a file: the losses are those of a run that never stopped."""
    whole = fit(small_model(), epochs=4)
    first = small_model()
    backup = keras.callbacks.BackupAndRestore(tmp_path / "backup", delete_checkpoint=False)
    fit(first, epochs=2, callbacks=[backup])
    again = keras.callbacks.BackupAndRestore(tmp_path / "backup")
    assert fit(small_model(), epochs=4, callbacks=[again])[-2:] == whole[2:]
    first.save(tmp_path / "model.keras")
    assert fit(keras.models.load_model(tmp_path / "model.keras")) == whole[2:]


def test_convert_tells_what_it_does_not_reach():
    class Mine(keras.layers.Dropout):
        pass

    model = keras.Sequential(
        [
            keras.layers.Input((4, 8)),
            Mine(0.5, name="mine"),
            keras.layers.LSTM(3, dropout=0.2, return_sequences=True, name="recurrent"),
            keras.layers.GRU(3, recurrent_dropout=0.2, name="gated"),
            keras.layers.Dropout(0.1),
        ]
    )
    with pytest.warns(UserWarning, match="Keras's own dropout stays in") as found:
        names = fkeras.convert(model)
    assert len(names) == 1
    message = str(found[0].message)
    assert all(name in message for name in ("mine", "recurrent", "gated"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fkeras.convert(small_model(keras.layers))


LEGACY = type("Sequential", (), {"__module__": "tf_keras.src.engine.sequential"})()


@pytest.mark.parametrize("wrong", [None, 3, keras.losses.MeanSquaredError(), LEGACY])
def test_convert_takes_models_of_keras_3(wrong):
    with pytest.raises(TypeError, match="model: expected a model or layer of Keras 3, got"):
        fkeras.convert(wrong)
