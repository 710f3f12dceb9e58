"""fastdrop.jax: numbers, keys, arguments."""

import math
import subprocess
import sys

import numpy as np
import pytest

jax = pytest.importorskip("jax", reason="needs JAX")

import jax.numpy as jnp
from dtypes import assert_same
from jax_family import DTYPES, FAMILY, KEY, key_of, numbers, x64

import fastdrop
import fastdrop.jax as fjax
from fastdrop import Key

key = jax.random.key(42)

# ---- the numbers of the functions of NumPy's arrays ----------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", FAMILY)
def test_the_family(name, dtype, isa):
    function = FAMILY[name]
    x = numbers((6, 5, 130), dtype)
    with x64(dtype == "float64"):
        for p in (0.5, 0.1):
            assert_same(np.asarray(function.jax(key, x, p)), function.numpy(x, p, key=KEY))


@pytest.mark.parametrize("p", [0.0, 2.0**-32, 0.3, 1 - 2.0**-32, 1.0])
@pytest.mark.parametrize("name", [name for name in FAMILY if name not in ("gaussian", "noise")])
def test_p_at_its_ends(name, p):
    function = FAMILY[name]
    x = numbers((6, 5, 130))
    assert_same(np.asarray(function.jax(key, x, p)), function.numpy(x, p, key=KEY))


@pytest.mark.parametrize(
    "shape", [(), (1,), (0,), (3, 0, 2), (2047,), (2049,), (1, 1), (3, 1, 700), (5000,)]
)
@pytest.mark.parametrize("axes", [(), (0,), (-1,)])
def test_shapes(shape, axes):
    if axes and not shape:
        return
    x = numbers(shape)
    expected = fastdrop.dropout(x, 0.3, key=KEY, shared_axes=axes)
    assert_same(np.asarray(fjax.dropout(key, x, 0.3, shared_axes=axes)), expected)


@pytest.mark.parametrize("axes", [(0,), (1,), (2,), (3,), (0, 2), (1, 3), (0, 1), (2, 3), (0, 3)])
@pytest.mark.parametrize("shape", [(3, 5, 7, 9), (4, 64, 2, 32), (2, 1, 3000, 2)])
def test_shared_axes(shape, axes):
    x = numbers(shape)
    expected = fastdrop.dropout(x, 0.3, key=KEY, shared_axes=axes)
    assert_same(np.asarray(fjax.dropout(key, x, 0.3, shared_axes=axes)), expected)
    expected = fastdrop.alpha_dropout(x, 0.3, key=KEY, shared_axes=axes)
    assert_same(np.asarray(fjax.alpha_dropout(key, x, 0.3, shared_axes=axes)), expected)


@pytest.mark.parametrize("name", ["dropout", "channels", "locked", "gaussian", "bias relu", "add"])
def test_large_arrays(name, isa):
    """On several threads; stores go around the cache."""
    function = FAMILY[name]
    x = numbers((64, 128, 513))
    before = fastdrop.compiled._core.cache_bytes()
    for cache in (before, 1 << 20):
        fastdrop.compiled._core.set_cache_bytes(cache)
        try:
            y = np.asarray(jax.jit(function.jax, static_argnums=2)(key, x, 0.1))
        finally:
            fastdrop.compiled._core.set_cache_bytes(before)
        assert_same(y, function.numpy(x, 0.1, key=KEY))


@pytest.mark.parametrize("caches", [0.9, 1.5, 3])  # as large as x and y
@pytest.mark.parametrize("axes", [(), 1])
def test_both_kinds_of_stores_in_turn(caches, axes):
    """As in NumPy: around the cache if both do not fit, and tried where they may not fit."""
    x = numbers((100, 700), "float32")
    expected = fastdrop.dropout(x, 0.3, key=KEY, shared_axes=axes)
    before = fastdrop.compiled._core.cache_bytes()
    fastdrop.compiled._core.set_cache_bytes(int(2 * caches * x.nbytes))
    try:
        for _ in range(20):  # until it is known, and after
            y = fjax.dropout(key, x, 0.3, shared_axes=axes)
            assert_same(np.asarray(y), expected)
    finally:
        fastdrop.compiled._core.set_cache_bytes(before)


@pytest.mark.parametrize("dtype", DTYPES)
def test_numbers_that_are_none(dtype):
    """Denormal numbers too are as elsewhere, though XLA's threads flush them."""
    with x64(dtype == "float64"):
        x = numbers(4096, dtype)
        tiny = jnp.finfo(x.dtype).smallest_subnormal
        x[::5], x[1::5], x[2::5] = np.inf, np.nan, tiny * x.dtype.type(3)
        for p in (0.5, 0.3):
            expected = fastdrop.dropout(x, p, key=KEY)
            assert (expected[2::5] != 0).any()
            assert_same(np.asarray(jax.jit(fjax.dropout, static_argnums=2)(key, x, p)), expected)


@pytest.mark.parametrize("start", [0, 1, 31, 2048, 12345, 2**32 - 7, 2**40 + 3, 2**55 - 3000])
def test_offset(start):
    x = numbers((3, 1000))
    expected = fastdrop.dropout(x, 0.3, key=KEY, offset=start)
    for offset in (start, np.int64(start)):
        assert_same(np.asarray(fjax.dropout(key, x, 0.3, offset=offset)), expected)
    traced = jax.jit(lambda offset: fjax.dropout(key, x, 0.3, offset=offset))
    if start < 2**31:
        assert_same(np.asarray(traced(np.int32(start))), expected)
    if start < 2**32:
        assert_same(np.asarray(traced(np.uint32(start))), expected)
    with x64():
        assert_same(np.asarray(traced(np.int64(start))), expected)
        assert_same(np.asarray(traced(np.uint64(start))), expected)


@pytest.mark.parametrize("name", ["gaussian", "noise"])
def test_offset_of_normal_variates(name):
    x = numbers(700)
    function = {"gaussian": "gaussian_dropout", "noise": "gaussian_noise"}[name]
    whole = getattr(fjax, function)(key, x, 0.3)
    part = getattr(fjax, function)(key, x[131:], 0.3, offset=131)
    assert_same(np.asarray(part), np.asarray(whole[131:]))


RATES = [0.0, 1e-12, 2.0**-33, 2.0**-33 * (1 + 2.0**-23), 1.5 * 2.0**-32, 2.5 * 2.0**-32, 1e-7]
RATES += [0.1, 0.25, 0.3, 0.5, 0.9, 1 - 2.0**-24, 1.0]


@pytest.mark.parametrize("p", RATES)
def test_traced_p(p):
    x = numbers((5, 1000))
    step = jax.jit(lambda p, x: fjax.dropout(key, x, p))
    for kind in (np.float32, np.float16, jnp.bfloat16):
        rate = kind(p)
        assert_same(
            np.asarray(step(rate, x)), fastdrop.dropout(x, float(rate), key=KEY, training=True)
        )
    with x64():
        assert_same(np.asarray(step(np.float64(p), x)), fastdrop.dropout(x, p, key=KEY))


def test_a_traced_p_that_is_no_probability():
    x = numbers(100)
    step = jax.jit(lambda p: fjax.dropout(key, x, p))
    assert_same(np.asarray(step(np.float32(-0.5))), x)
    assert_same(np.asarray(step(np.float32(np.nan))), x)
    assert not np.asarray(step(np.float32(1.5))).any()


def test_not_in_training():
    x = numbers(50)
    for call in (
        lambda **more: fjax.dropout(key, x, 0.5, **more),
        lambda **more: fjax.alpha_dropout(key, x, 0.5, **more),
        lambda **more: fjax.gaussian_dropout(key, x, 0.5, **more),
        lambda **more: fjax.gaussian_noise(key, x, 0.5, **more),
        lambda **more: fjax.drop_path(key, x, 0.5, **more),
        lambda **more: fjax.dropout(None, x, 0.5, **more),
    ):
        assert_same(np.asarray(call(training=False)), x)
    ones = np.ones(50, np.float32)
    y = fjax.dropout_add(key, x, ones, 0.5, training=False)
    assert_same(np.asarray(y), x + ones)
    y = fjax.bias_act_dropout(key, x, ones, "relu", 0.5, training=False)
    assert_same(np.asarray(y), np.maximum(x + ones, 0))


# ---- keys ----------------------------------------------------------------------------------------

WORDS = {"threefry2x32": 2, "rbg": 4, "unsafe_rbg": 4}


@pytest.mark.parametrize("raw", [False, True])
@pytest.mark.parametrize("name", WORDS)
def test_keys_of_every_implementation(name, raw):
    x = numbers(1000)
    own = jax.random.fold_in(jax.random.key(7, impl=name), 3)
    words = [int(word) for word in np.asarray(jax.random.key_data(own))]
    assert len(words) == WORDS[name]
    high, low, *call = words
    expected = Key(high << 32 | low, call[0] << 32 | call[1] if call else 0)
    given = jax.random.key_data(own) if raw else own
    y = jax.jit(fjax.dropout)(given, x)
    assert_same(np.asarray(y), fastdrop.dropout(x, key=expected))


def test_a_key_of_one_word():
    x = numbers(1000)
    given = jnp.array([2**32 - 5], jnp.uint32)
    assert_same(np.asarray(fjax.dropout(given, x)), fastdrop.dropout(x, key=Key(2**32 - 5)))


def test_keys_of_one_and_four_words_are_the_same_ones():
    x = numbers(1000)
    y = fjax.dropout(np.array([5, 6, 0, 0], np.uint32), x)
    assert_same(np.asarray(y), np.asarray(fjax.dropout(np.array([5, 6], np.uint32), x)))
    y = fjax.dropout(np.array([0, 6, 0, 9], np.uint32), x)
    assert_same(np.asarray(y), fastdrop.dropout(x, key=Key(6, 9)))


# ---- what is refused -----------------------------------------------------------------------------

X = np.ones((4, 3), np.float32)
WRONG = {
    "p above": (lambda: fjax.dropout(key, X, 1.5), ValueError, "p: expected a probability"),
    "p below": (lambda: fjax.dropout(key, X, -0.1), ValueError, "p: expected a probability"),
    "p nan": (lambda: fjax.dropout(key, X, math.nan), ValueError, "p: expected a probability"),
    "p text": (lambda: fjax.dropout(key, X, "a half"), TypeError, "p: expected a number"),
    "p array": (lambda: fjax.dropout(key, X, jnp.ones(3)), TypeError, "p: expected a number"),
    "p array of one": (
        lambda: fjax.dropout(key, X, jnp.ones(1)),
        TypeError,
        "p: expected a number",
    ),
    "traced training": (
        lambda: jax.jit(lambda on: fjax.dropout(key, X, training=on))(True),
        TypeError,
        "training: expected True or False, static in jit, got a traced one",
    ),
    "traced training, traced p": (
        lambda: jax.jit(lambda p, on: fjax.dropout(key, X, p, training=on))(0.5, True),
        TypeError,
        "training: expected True or False",
    ),
    "traced training of noise": (
        lambda: jax.jit(lambda on: fjax.gaussian_noise(key, X, 1.0, training=on))(True),
        TypeError,
        "training: expected True or False",
    ),
    "training for each": (
        lambda: fjax.dropout_add(key, X, X, training=jnp.ones(40, bool)),
        TypeError,
        "training: expected True or False",
    ),
    "p in jit": (lambda: jax.jit(lambda: fjax.dropout(key, X, 2))(), ValueError, "p: expected"),
    "traced p of alpha": (
        lambda: jax.jit(lambda p: fjax.alpha_dropout(key, X, p))(0.5),
        TypeError,
        "p: expected a number, got a traced",
    ),
    "traced p, integer": (
        lambda: jax.jit(lambda p: fjax.dropout(key, X, p))(1),
        TypeError,
        "p: expected a number, got int32",
    ),
    "traced p, array": (
        lambda: jax.jit(lambda p: fjax.dropout(key, X, p))(jnp.ones(2)),
        TypeError,
        "p: expected a number",
    ),
    "gaussian at 1": (lambda: fjax.gaussian_dropout(key, X, 1), ValueError, "p: expected 0 <= p <"),
    "stddev": (lambda: fjax.gaussian_noise(key, X, -1), ValueError, "stddev: expected"),
    "keys": (
        lambda: fjax.dropout(jax.random.split(key), X),
        ValueError,
        "key: expected one key, got an array of shape",
    ),
    "raw keys": (
        lambda: fjax.dropout(jax.random.key_data(jax.random.split(key)), X),
        ValueError,
        "key: expected 1, 2 or 4 words",
    ),
    "three words": (
        lambda: fjax.dropout(np.zeros(3, np.uint32), X),
        ValueError,
        "key: expected 1, 2 or 4 words",
    ),
    "signed words": (
        lambda: fjax.dropout(np.zeros(2, np.int32), X),
        TypeError,
        "key: expected a key of jax.random or its uint32 words, got int32",
    ),
    "a seed": (
        lambda: fjax.dropout(42, X),
        TypeError,
        "key: expected a key of jax.random, got int",
    ),
    "no key": (lambda: fjax.dropout(None, X), TypeError, "key: expected a key of jax.random"),
    "integers": (lambda: fjax.dropout(key, np.arange(3)), TypeError, "x: expected an array of fl"),
    "complex": (lambda: fjax.dropout(key, X + 1j), TypeError, "x: expected an array of float16"),
    "none": (lambda: fjax.dropout(key, None), TypeError, "x: expected an array of float16"),
    "text": (lambda: fjax.dropout(key, "abc"), TypeError, "x: expected an array of float16"),
    "ragged": (lambda: fjax.dropout(key, [[1.0], [1.0, 2.0]]), TypeError, "x: expected an array"),
    "a key": (lambda: fjax.dropout(key, key), TypeError, "x: expected an array of float16"),
    "a shape": (
        lambda: fjax.dropout(key, jax.ShapeDtypeStruct((2,), np.float32)),
        TypeError,
        "x: expected an array of float16",
    ),
    "no residual": (
        lambda: fjax.dropout_add(key, X, None),
        TypeError,
        "residual: expected an array of float16",
    ),
    "no bias": (
        lambda: fjax.bias_act_dropout(key, X, None, None),
        TypeError,
        "bias: expected an array of float16",
    ),
    "traced stddev": (
        lambda: jax.jit(lambda stddev: fjax.gaussian_noise(key, X, stddev))(0.5),
        TypeError,
        "stddev: expected a number, got a traced",
    ),
    "axis": (lambda: fjax.dropout(key, X, shared_axes=2), ValueError, "shared_axes: expected axes"),
    "axis twice": (
        lambda: fjax.dropout(key, X, shared_axes=(1, -1)),
        ValueError,
        "shared_axes: expected each axis once",
    ),
    "axis, eval": (
        lambda: fjax.dropout(key, X, shared_axes=2, training=False),
        ValueError,
        "shared_axes: expected axes",
    ),
    "offset": (lambda: fjax.dropout(key, X, offset=-1), ValueError, "offset: expected 0 <= offset"),
    "offset above": (lambda: fjax.dropout(key, X, offset=2**55), ValueError, "offset: expected 0"),
    "offset, gaussian": (
        lambda: fjax.gaussian_dropout(key, X, offset=2**50),
        ValueError,
        "offset: expected 0",
    ),
    "offset real": (
        lambda: jax.jit(lambda offset: fjax.dropout(key, X, offset=offset))(0.5),
        TypeError,
        "offset: expected an integer",
    ),
    "mode": (lambda: fjax.drop_path(key, X, mode="col"), ValueError, "mode: expected 'row'"),
    "0-d path": (lambda: fjax.drop_path(key, 1.0), ValueError, "x: expected shape"),
    "activation": (
        lambda: fjax.bias_act_dropout(key, X, X[0], "tanh"),
        ValueError,
        "activation: expected None or 'relu'",
    ),
    "bias": (lambda: fjax.bias_act_dropout(key, X, X, None), ValueError, "bias: expected shape"),
    "bias dtype": (
        lambda: fjax.bias_act_dropout(key, X, X[0].astype(np.float16), None),
        TypeError,
        "bias: expected dtype float32",
    ),
    "residual": (lambda: fjax.dropout_add(key, X, X[0]), ValueError, "residual: expected shape"),
}


@pytest.mark.parametrize("name", WRONG)
def test_bad_input(name):
    call, kind, message = WRONG[name]
    with pytest.raises(kind) as error:
        call()
    assert str(error.value).startswith(message)
    assert len(str(error.value)) <= 200
    assert "\n" not in str(error.value)


# ---- imports -------------------------------------------------------------------------------------


def run(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


def test_importing_does_not_touch_the_backend():
    code = """
import jax, fastdrop.jax
from jax.extend import backend
from jax._src import xla_bridge
assert not xla_bridge.backends_are_initialized()
"""
    assert run(code).returncode == 0


def test_the_library_imports_no_jax():
    code = "import sys, fastdrop; assert not {'jax', 'keras', 'flax'} & set(sys.modules)"
    assert run(code).returncode == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("sys.modules['jax'] = None", "fastdrop.jax needs JAX: pip install 'fastdrop-nn[jax]'"),
        (
            "import jax; jax.__version_info__ = (0, 8, 0); jax.__version__ = '0.8.0'",
            "fastdrop.jax needs JAX 0.8.1 or later, got 0.8.0",
        ),
    ],
)
def test_no_jax_or_an_old_one(change, message):
    result = run(f"import sys; {change}; import fastdrop.jax")
    last = result.stderr.strip().splitlines()[-1]
    assert last.startswith(f"ImportError: {message}")


def test_key_of():
    assert key_of(jax.random.key(42)) == KEY
