"""The op of fastdrop.keras on the backend tensorflow: `test_keras_backends.py` runs this."""

import importlib
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import keras
import ml_dtypes
import numpy as np
import pytest
import tensorflow as tf
from dtypes import assert_same
from places import ROOT

import fastdrop
import fastdrop.keras as fkeras
from fastdrop import Key
from fastdrop.compiled import _core
from fastdrop.keras import on_tensorflow
from fastdrop.keras.rules import Rule, key_of, run

pytestmark = pytest.mark.filterwarnings("default")  # Keras's and TensorFlow's own

DTYPES = [np.float16, ml_dtypes.bfloat16, np.float32, np.float64]
SHAPES = [(), (0,), (3, 0), (1,), (7,), (2, 3), (40, 70), (3, 5, 7), (300, 1001)]
RULES = [
    Rule("dropout", 0.5),
    Rule("dropout", 0.1),
    Rule("dropout", 1.0),
    Rule("alpha", 0.3),
    Rule("alpha", 1.0),
    Rule("gaussian", 0.3),
    Rule("noise", 0.3),
]
HEADER = ROOT / "fastdrop" / "compiled" / "tensorflow.h"
SHARING = [(None, 1, 7), (1, None), (1,), (3, 1, 1), (1, 1, 1), (None, None, None)]


def made(shape, dtype=np.float32):
    return np.random.default_rng(0).normal(size=shape).astype(dtype)


def by_op(x, rule, key=(7, 3)):
    return on_tensorflow.apply(tf.convert_to_tensor(x), rule, tf.constant(key, tf.int64))


def in_function(x, rule, key=(7, 3), known=True):
    signature = [tf.TensorSpec(x.shape if known else None, x.dtype)]
    return tf.function(lambda x: by_op(x, rule, key), input_signature=signature)(x)


def unknown_lengths(x, rule, key=(7, 3)):
    signature = [tf.TensorSpec([None] * x.ndim, x.dtype)]
    return tf.function(lambda x: by_op(x, rule, key), input_signature=signature)(x)


def unknown_rank(x, rule, key=(7, 3)):
    return in_function(x, rule, key, known=False)


WAYS = [by_op, in_function, unknown_lengths, unknown_rank]


def test_there_is_an_op():
    """TensorFlow 2.21 has the interface. A later one may not, and the tests below pass without."""
    assert on_tensorflow._HAS_OP
    function = tf.function(lambda x: by_op(x, RULES[0])).get_concrete_function(made((3, 5)))
    assert str(function.graph.as_graph_def()).count(f'op: "{on_tensorflow.OP}"') == 1


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rule", RULES, ids=lambda rule: f"{rule.kind} {rule.p}")
def test_bits(rule, dtype, way):
    for shape in SHAPES:
        x = made(shape, dtype)
        y = way(x, rule)
        assert y.shape == x.shape
        assert_same(y.numpy(), run(x, rule, Key(7, 3)))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("noise_shape", SHARING)
def test_shared_axes(noise_shape, way):
    x = made((3, 5, 7))
    for kind in ("dropout", "alpha"):
        rule = Rule(kind, 0.3, noise_shape)
        assert_same(way(x, rule).numpy(), run(x, rule, Key(7, 3)))


@pytest.mark.parametrize("way", WAYS)
def test_a_noise_shape_that_does_not_fit(way):
    with pytest.raises(Exception, match="noise_shape: expected one that broadcasts to"):
        way(made((3, 5, 7)), Rule("dropout", 0.3, (None, 1, 6)))


def test_large_arrays():
    """They take several threads, units and pages."""
    x = made((1 << 21) + 3)
    for rule in (Rule("dropout", 0.1), Rule("gaussian", 0.1)):
        assert_same(by_op(x, rule).numpy(), run(x, rule, Key(7, 3)))
    x = x[: 3 * (x.size // 3)].reshape(3, -1)
    rule = Rule("dropout", 0.1, (1, None))
    assert_same(by_op(x, rule).numpy(), run(x, rule, Key(7, 3)))


@pytest.mark.parametrize(
    "key", [(0, 0), (2**32 - 1, 5), (2**40 + 3, 2**33), (-5, -1), (3, 2**63 - 1)]
)
def test_keys(key):
    x = made((40, 70))
    assert_same(by_op(x, RULES[0], key).numpy(), run(x, RULES[0], key_of(*key)))


def gradients(x, v, rule):
    """Return the gradient, for v of the result, and the gradient of that with respect to v."""
    with tf.GradientTape() as outer:
        outer.watch(v)
        with tf.GradientTape() as inner:
            inner.watch(x)
            y = by_op(x, rule)
        dx = inner.gradient(y, x, output_gradients=v)
    return dx, outer.gradient(dx, v)


def gradients_through_a_function(x, v, rule):
    call = tf.function(lambda x: by_op(x, rule))
    with tf.GradientTape() as outer:
        outer.watch(v)
        with tf.GradientTape() as inner:
            inner.watch(x)
            y = call(x)
        dx = inner.gradient(y, x, output_gradients=v)
    return dx, outer.gradient(dx, v)


def gradients_in_a_function(x, v, rule):
    return tf.function(lambda x, v: gradients(x, v, rule))(x, v)


def gradients_of_a_graph(x, v, rule):
    """As in programs for TensorFlow 1."""

    @tf.function
    def both(x, v):
        (dx,) = tf.gradients(by_op(x, rule), x, v)
        return dx, tf.gradients(dx, v)[0]

    return both(x, v)


@pytest.mark.parametrize(
    "way",
    [gradients, gradients_through_a_function, gradients_in_a_function, gradients_of_a_graph],
)
@pytest.mark.parametrize("rule", RULES, ids=lambda rule: f"{rule.kind} {rule.p}")
def test_gradients(rule, way):
    x, v = made((40, 70)), made((40, 70))[::-1].copy()
    dx, again = way(tf.constant(x), tf.constant(v), rule)
    linear = rule.gradient
    assert_same(dx.numpy(), v if linear is None else run(v, linear, Key(7, 3)))
    ones = np.ones_like(v)
    assert_same(again.numpy(), ones if linear is None else run(ones, linear, Key(7, 3)))


# ---- x's memory ----------------------------------------------------------------------------------


def test_x_stays_as_it_is():
    """What anybody still has is never written to: constants, variables, results used twice."""
    x = made((300, 1001))
    expected = run(x, RULES[0], Key(7, 3))
    constant, variable = tf.constant(x), tf.Variable(x)
    view = constant.numpy()
    state = tf.constant([7, 3], tf.int64)
    for given in (constant, variable, variable.read_value(), tf.identity(constant), view):
        assert_same(
            on_tensorflow.apply(tf.convert_to_tensor(given), RULES[0], state).numpy(), expected
        )

    @tf.function
    def used_twice(x):
        doubled = x + x
        y = on_tensorflow.apply(doubled, RULES[0], state)
        return y, doubled, on_tensorflow.apply(variable, RULES[0], state), variable + 0.0

    for _ in range(3):
        y, doubled, of_variable, read = used_twice(constant)
        assert_same(doubled.numpy(), x + x)
        assert_same(y.numpy(), run(x + x, RULES[0], Key(7, 3)))
        assert_same(of_variable.numpy(), expected)
        assert_same(read.numpy(), x)
    for each in (constant.numpy(), variable.numpy(), view):
        assert_same(each, x)


def test_dropout_after_dropout():
    """The second one may have the first one's result as its own memory."""
    state = tf.constant([7, 3], tf.int64)

    @tf.function
    def twice(x):
        return on_tensorflow.apply(on_tensorflow.apply(x, RULES[0], state), RULES[1], state)

    x = made((300, 1001))
    expected = run(run(x, RULES[0], Key(7, 3)), RULES[1], Key(7, 3))
    for _ in range(3):
        assert_same(twice(x).numpy(), expected)


def test_many_threads_at_once():
    inputs = [made(n) for n in (5, 3000, 1 << 18, 1 << 21)]
    expected = [run(x, RULES[1], Key(7, 3)) for x in inputs]
    call = tf.function(by_op, reduce_retracing=True)

    def check(i):
        x = inputs[i % 4]
        y = call(x, RULES[1]) if i % 3 else by_op(x, RULES[1])
        return np.array_equal(y.numpy(), expected[i % 4])

    with ThreadPoolExecutor(4) as threads:
        assert all(threads.map(check, range(48)))


# ---- with and without the op ---------------------------------------------------------------------


def fitted():
    model = keras.Sequential(
        [
            keras.layers.Input((8,)),
            keras.layers.Dense(16, "relu", kernel_initializer=keras.initializers.GlorotUniform(1)),
            fkeras.Dropout(0.5, seed=1),
            fkeras.AlphaDropout(0.1, seed=1),
            fkeras.GaussianDropout(0.1, seed=1),
            fkeras.GaussianNoise(0.1, seed=1),
        ]
    )
    model.compile("sgd", "mse")
    x = made((50, 8))
    return model.fit(x, x[:, :1], batch_size=16, epochs=2, shuffle=False, verbose=0).history["loss"]


def test_without_the_op_everything_is_the_same(monkeypatch):
    losses = fitted()
    monkeypatch.setattr(on_tensorflow, "_HAS_OP", False)
    np.testing.assert_allclose(fitted(), losses, rtol=1e-6)
    for shape in SHAPES:
        for rule in RULES:
            assert_same(by_op(made(shape), rule).numpy(), run(made(shape), rule, Key(7, 3)))


def test_another_tensorflow(monkeypatch, tmp_path):
    """Nothing is registered where there is no such library, or one without the interface."""
    for path in (b"/nowhere/libtensorflow_framework.so.2", bytes(tmp_path)):
        with pytest.raises(ImportError, match="no op in TensorFlow's library: it is not loaded"):
            _core.register_tensorflow_op(path)
    monkeypatch.setattr(tf.sysconfig, "get_lib", lambda: str(tmp_path))
    assert not on_tensorflow._has_op()
    code = "import sys; from fastdrop.compiled import _core\n"
    code += "_core.register_tensorflow_op(_core.__file__.encode())"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert result.stderr.endswith("no op in TensorFlow's library: no TF_NewStatus\n")


def test_registering_again_is_fine():
    assert on_tensorflow._has_op()
    again = importlib.reload(on_tensorflow)
    assert again._HAS_OP
    assert_same(by_op(made(9), RULES[0]).numpy(), run(made(9), RULES[0], Key(7, 3)))


def test_saved_models(tmp_path):
    """What training calls is saved, and runs in a process that has the op."""
    layer = fkeras.Dropout(0.5, seed=3)
    module = tf.Module()
    module.state = layer.seed_generator.state.value
    module.call = tf.function(
        lambda x: layer(x, training=True), input_signature=[tf.TensorSpec([None, 8], tf.float32)]
    )
    tf.saved_model.save(module, str(tmp_path / "saved"))
    code = "import sys, numpy as np, fastdrop.keras, tensorflow as tf\n"
    code += "module = tf.saved_model.load(sys.argv[1])\n"
    code += "np.save(sys.argv[1] + '.npy', module.call(np.ones((5, 8), np.float32)))"
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "saved")], check=True)
    expected = fastdrop.dropout(np.ones((5, 8), np.float32), 0.5, key=Key(3))
    assert_same(np.load(tmp_path / "saved.npy"), expected)


# ---- the interface -------------------------------------------------------------------------------

WRONG = {
    "key": ({"key": [1, 2, 3]}, "unexpected key"),
    "shared axes": ({"shared_axes": [1]}, "unexpected shared_axes"),
    "shared axes below": ({"shared_axes": [-1]}, "unexpected shared_axes"),
    "shared normal variates": (
        {"op": _core.OPS["gaussian"], "shared_axes": [0]},
        "unexpected strides",
    ),
    "rule": ({"rule": [0.5, 2.0]}, "unexpected rule"),
    "p": ({"rule": [1.5, 2.0, 0.0, 0.0]}, "unexpected p"),
    "p below": ({"rule": [-0.5, 2.0, 0.0, 0.0]}, "unexpected p"),
    "no p": ({"rule": [np.nan, 2.0, 0.0, 0.0]}, "unexpected p"),
    "op": ({"op": 99}, "unexpected op"),
    "op below": ({"op": -1}, "unexpected op"),
    "second operand": ({"op": _core.OPS["add"]}, "unexpected number of arguments"),
}


@pytest.mark.parametrize("name", WRONG)
def test_the_op_refuses(name):
    change, message = WRONG[name]
    given = {"op": 0, "key": [1, 2], "shared_axes": [], "rule": [0.5, 2.0, 0.0, 0.0]} | change
    inputs = (
        tf.constant(np.ones(8, np.float32)),
        tf.constant(given["key"], tf.int64),
        tf.constant(given["shared_axes"], tf.int64, (len(given["shared_axes"]),)),
        tf.constant(given["rule"], tf.float64),
    )
    with pytest.raises(tf.errors.InvalidArgumentError, match=f"fastdrop: {message}"):
        tf.function(lambda: on_tensorflow._node(given["op"], *inputs))()


SAME = """
#include <type_traits>
#include <tensorflow/c/tf_status.h>
#include <tensorflow/c/tf_tensor.h>
#include <tensorflow/c/ops.h>
#include <tensorflow/c/kernels.h>
#include "tensorflow.h"
#define SAME(result, name, arguments) \\
    static_assert(std::is_same<decltype(&TF_##name), result(*) arguments>::value, #name);
FD_TF_FUNCTIONS(SAME)
"""


@pytest.mark.skipif(not shutil.which("c++"), reason="no C++ compiler")
@pytest.mark.skipif(not HEADER.exists(), reason="not in a checkout")
def test_our_declarations_are_tensorflows(tmp_path):
    numbers = re.findall(r"(TF_\w+) = (\d+)", HEADER.read_text())
    assert len(numbers) == 8
    checks = [f'static_assert((int){name} == {value}, "{name}");' for name, value in numbers]
    source = tmp_path / "same.cc"
    source.write_text("\n".join([SAME, *checks]))
    folders = [f"-I{tf.sysconfig.get_include()}", f"-I{HEADER.parent}"]
    subprocess.run(["c++", "-std=c++17", "-fsyntax-only", *folders, str(source)], check=True)
