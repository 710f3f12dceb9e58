"""The contract in jax.numpy, which runs on GPUs and TPUs: here on the CPU, beside the kernels."""

import numpy as np
import pytest

jax = pytest.importorskip("jax", reason="needs JAX")

import jax.numpy as jnp
from dtypes import assert_same
from jax.interpreters import mlir
from jax_family import DTYPES, FAMILY, KEY, numbers, x64

import fastdrop
import fastdrop.jax as fjax
from fastdrop.jax import handler, reference

key = jax.random.key(42)


@pytest.fixture
def no_kernels():
    """Let the CPU run what other platforms run."""

    def lower(ctx, *operands, **params):
        traced.append(params)
        rule = mlir.lower_fun(reference.masked, multiple_results=False)
        return rule(ctx, *operands, **params)

    traced = []
    jax.clear_caches()
    mlir.register_lowering(handler.block, lower, platform="cpu")
    yield traced
    mlir.register_lowering(handler.block, handler._lower_on_cpu, platform="cpu")
    jax.clear_caches()


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        *((name, "float32") for name in FAMILY),
        *(("alpha", dtype) for dtype in DTYPES),
        ("gaussian", "float64"),
        ("gaussian", "bfloat16"),
        ("bias relu", "float16"),
    ],
)
def test_the_family(name, dtype, no_kernels):
    function = FAMILY[name]
    x = numbers((6, 5, 130), dtype)
    with x64(dtype == "float64"):
        y = np.asarray(jax.jit(function.jax, static_argnums=2)(key, x, 0.3))
    expected = function.numpy(x, 0.3, key=KEY)
    wide = [np.asarray(a, np.float64) for a in (y, expected)]
    # XLA may compute a multiplication and an addition in one
    eps = 4 * float(jnp.finfo(x.dtype).eps) * (1 if function.exact else 4)
    np.testing.assert_allclose(*wide, rtol=eps, atol=eps)
    if function.exact:
        np.testing.assert_array_equal(y == 0, expected == 0)
    assert no_kernels


@pytest.mark.parametrize("axes", [(), (1,), (0, 2)])
def test_masks(axes, no_kernels):
    x = np.ones((4, 7, 99), np.float32)
    with x64():
        for p in (0.3, 2.0**-30):
            step = jax.jit(lambda n, p=p: fjax.dropout(key, x, p, offset=n, shared_axes=axes))
            for start in (0, 1, 31, 32, 2047, 2**32 - 9, 2**43 + 5, 2**55 - 4000):
                expected = fastdrop.dropout(x, p, key=KEY, offset=start, shared_axes=axes)
                assert_same(np.asarray(step(np.int64(start))), expected)
    assert no_kernels


RATES = [0.0, 1e-12, 2.0**-33, 2.0**-33 * (1 + 2.0**-23), 1.5 * 2.0**-32, 2.5 * 2.0**-32, 1e-7]
RATES += [0.1, 0.25, 0.3, 0.5, 0.9, 1 - 2.0**-24, 1.0, -1.0, 2.0, np.nan]


@pytest.mark.parametrize("p", RATES)
def test_thresholds_of_traced_p(p):
    """T is what float64 gives, without float64."""
    t, every = jax.jit(reference._threshold)(np.float32(p))
    rate = min(max(float(np.float32(p)), 0.0), 1.0) if p == p else 0.0
    assert int(t) + (int(every) << 32) == round((1 - rate) * 2**32)


def test_random_thresholds_of_traced_p():
    rng = np.random.default_rng(0)
    rates = (rng.random(4000) * 2.0 ** -rng.integers(0, 40, 4000)).astype(np.float32)
    t, every = jax.vmap(reference._threshold)(rates)
    expected = [round((1 - float(rate)) * 2**32) for rate in rates]
    assert [int(a) + (int(b) << 32) for a, b in zip(t, every)] == expected


def test_traced_p(no_kernels):
    x = np.ones(3000, np.float32)
    y = jax.jit(lambda p: fjax.dropout(key, x, p))(np.float32(0.3))
    expected = fastdrop.dropout(x, float(np.float32(0.3)), key=KEY)
    np.testing.assert_array_equal(np.asarray(y) == 0, expected == 0)
    np.testing.assert_allclose(y, expected, rtol=3e-7)
    assert no_kernels


def test_batches_and_gradients(no_kernels):
    x = numbers((4, 300))
    keys = jax.random.split(key, 4)
    y = jax.vmap(lambda k, x: fjax.dropout(k, x, 0.3))(keys, x)
    words = np.asarray(jax.random.key_data(keys))
    owns = [fastdrop.Key(int(high) << 32 | int(low)) for high, low in words]
    expected = [fastdrop.dropout(row, 0.3, key=own) for row, own in zip(x, owns)]
    assert_same(np.asarray(y), np.stack(expected))
    dx = jax.grad(lambda x: fjax.dropout(key, x, 0.3).sum())(x)
    assert_same(np.asarray(dx), fastdrop.dropout(np.ones_like(x), 0.3, key=KEY))
    assert no_kernels


def test_shardings(no_kernels):
    from jax.sharding import NamedSharding, PartitionSpec

    mesh = jax.make_mesh((2, 2), ("a", "b"), axis_types=(jax.sharding.AxisType.Auto,) * 2)
    x = numbers((16, 12, 64))
    for spec, axes in [
        (PartitionSpec("a", None, "b"), ()),
        (PartitionSpec(None, ("a", "b")), (2,)),
    ]:
        split = jax.device_put(x, NamedSharding(mesh, spec))
        call = jax.jit(lambda x, axes=axes: fjax.dropout(key, x, 0.5, shared_axes=axes))
        program = call.lower(split).compile()
        expected = fastdrop.dropout(x, 0.5, key=KEY, shared_axes=axes)
        assert_same(np.asarray(program(split)), expected)
        assert "all-gather" not in program.as_text()
    assert no_kernels


@pytest.mark.parametrize("platform", ["cuda", "rocm", "tpu"])
@pytest.mark.parametrize("name", ["locked", "gaussian", "bias relu"])
def test_programs_for_other_platforms(name, platform):
    """Nothing here can run them; but they are made, and have no foreign function in them."""
    from jax import export

    step = jax.jit(jax.grad(lambda x: FAMILY[name].jax(key, x, 0.3).sum()))
    program = export.export(step, platforms=[platform])(
        jax.ShapeDtypeStruct((6, 5, 130), jnp.bfloat16)
    )
    assert "custom_call" not in program.mlir_module()
