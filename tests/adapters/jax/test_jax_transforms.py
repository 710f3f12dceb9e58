"""fastdrop.jax under JAX's transforms: the mask stays what the key says."""

import warnings
from functools import partial

import numpy as np
import pytest

jax = pytest.importorskip("jax", reason="needs JAX")

import jax.numpy as jnp
from dtypes import assert_same
from jax_family import DTYPES, FAMILY, KEY, key_of, numbers, x64

import fastdrop
import fastdrop.jax as fjax

key = jax.random.key(42)
X = numbers((4, 6, 40))
LINEAR = ["dropout", "channels", "locked", "path", "gaussian"]


def dropped(x, p=0.3, key=KEY):
    return fastdrop.dropout(np.asarray(x), p, key=key)


# ---- derivatives ---------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", LINEAR)
def test_gradients_are_the_same_call_on_dy(name, dtype):
    function = FAMILY[name]
    x, dy = numbers((4, 6, 40), dtype), numbers((4, 6, 40), dtype, 1)
    with x64(dtype == "float64"):
        for wrap in (lambda f: f, jax.jit):
            y, pull = jax.vjp(wrap(lambda x: function.jax(key, x, 0.3)), x)
            (dx,) = pull(jnp.asarray(dy))
            assert_same(np.asarray(y), function.numpy(x, 0.3, key=KEY))
            assert_same(np.asarray(dx), function.numpy(dy, 0.3, key=KEY))
            _, tangent = jax.jvp(wrap(lambda x: function.jax(key, x, 0.3)), (x,), (dy,))
            assert_same(np.asarray(tangent), function.numpy(dy, 0.3, key=KEY))


@pytest.mark.parametrize("shared", [(), (1,)])
def test_gradient_of_alpha_dropout(shared):
    call = partial(fjax.alpha_dropout, shared_axes=shared)
    _, pull = jax.vjp(lambda x: call(key, x, 0.3), X)
    dy = numbers(X.shape, seed=1)
    expected = fastdrop.alpha_dropout_backward(dy, 0.3, key=KEY, shared_axes=shared)
    assert_same(np.asarray(pull(dy)[0]), expected)
    _, tangent = jax.jvp(lambda x: call(key, x, 0.3), (X,), (dy,))
    assert_same(np.asarray(tangent), expected)


def test_gradient_of_noise():
    _, pull = jax.vjp(lambda x: fjax.gaussian_noise(key, x, 0.3), X)
    assert_same(np.asarray(pull(X)[0]), X)


def test_gradients_of_a_residual_branch():
    residual, dy = numbers(X.shape, seed=1), numbers(X.shape, seed=2)
    _, pull = jax.vjp(lambda x, r: fjax.dropout_add(key, x, r, 0.3), X, residual)
    dx, dresidual = pull(dy)
    assert_same(np.asarray(dx), dropped(dy))
    assert_same(np.asarray(dresidual), dy)
    only = jax.grad(lambda r: (fjax.dropout_add(key, X, r, 0.3) * dy).sum())(residual)
    assert_same(np.asarray(only), dy)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("activation", [None, "relu"])
def test_gradients_behind_a_product(activation, dtype):
    x, bias, dy = (numbers(shape, dtype, i) for i, shape in enumerate([(9, 40), (40,), (9, 40)]))
    with x64(dtype == "float64"):
        y, pull = jax.vjp(lambda x, b: fjax.bias_act_dropout(key, x, b, activation, 0.3), x, bias)
        dx, dbias = pull(jnp.asarray(dy))
    expected, dbias_expected = fastdrop.bias_act_dropout_backward(
        dy, np.asarray(y), activation, 0.3, key=KEY
    )
    assert_same(np.asarray(dx), expected)
    wide = expected.astype(np.float64).sum(0)
    eps = float(jnp.finfo(x.dtype).eps)
    np.testing.assert_allclose(np.asarray(dbias, np.float64), wide, rtol=20 * eps, atol=20 * eps)
    assert dbias.dtype == dbias_expected.dtype


def test_derivatives_of_every_order():
    x = numbers(20)

    def loss(x):
        return (fjax.dropout(key, x**3, 0.3) ** 2).sum()

    kept = dropped(np.ones(20, np.float32))
    scale = kept.max()
    square = np.where(kept > 0, scale**2, 0)  # loss = scale^2 x^6
    np.testing.assert_allclose(jax.grad(loss)(x), 6 * square * x**5, rtol=1e-5)
    hessian = jax.hessian(loss)(x)
    np.testing.assert_allclose(hessian, np.diag(30 * square * x**4), rtol=1e-5)
    third = jax.jacfwd(jax.hessian(loss))(x)
    np.testing.assert_allclose(third[(np.arange(20),) * 3], 120 * square * x**3, 1e-5)
    for jacobian in (jax.jacfwd, jax.jacrev):
        np.testing.assert_array_equal(
            jacobian(lambda x: fjax.dropout(key, x, 0.3))(x), np.diag(kept)
        )
    transposed = jax.linear_transpose(lambda x: fjax.dropout(key, x, 0.3), x)
    assert_same(np.asarray(transposed(x)[0]), dropped(x))


def test_no_gradient_flows_to_p():
    assert jax.grad(lambda p: fjax.dropout(key, X, p).sum())(0.3) == 0


@pytest.mark.parametrize("training", [True, False])
def test_gradients_outside_training(training):
    dx = jax.grad(lambda x: fjax.dropout(key, x, 0.0, training=training).sum())(X)
    assert_same(np.asarray(dx), np.ones_like(X))


def test_only_the_key_is_kept():
    def loss(x):
        return fjax.dropout(key, x, 0.3).sum()

    _, pull = jax.vjp(lambda x: fjax.dropout(key, x, 0.3), jnp.asarray(X))
    kept = [leaf for leaf in jax.tree.leaves(pull) if hasattr(leaf, "nbytes")]
    assert sum(leaf.nbytes for leaf in kept) <= 16
    x = jnp.ones(1 << 20)
    both = jax.jit(lambda x: jax.vjp(lambda x: fjax.dropout(key, x, 0.3), x)[1](x))
    assert both.lower(x).compile().memory_analysis().temp_size_in_bytes < 1 << 12


@pytest.mark.parametrize("name", FAMILY)
def test_no_mask_is_kept(name):
    """Behind a ReLU the output is, which the next layer keeps anyway."""
    _, pull = jax.vjp(lambda x: FAMILY[name].jax(key, x, 0.3), jnp.asarray(X))
    kept = [leaf for leaf in jax.tree.leaves(pull) if hasattr(leaf, "nbytes")]
    assert all(leaf.dtype != bool for leaf in kept)
    outputs = 1 if name == "bias relu" else 0
    assert sum(leaf.nbytes for leaf in kept) <= outputs * X.nbytes + 32


@pytest.mark.parametrize("name", FAMILY)
def test_keys_have_no_tangent(name):
    raw = jax.random.key_data(key)
    still = np.zeros(raw.shape, jax.dtypes.float0)
    x, dx = jnp.asarray(X), jnp.ones_like(X)
    y, tangent = jax.jvp(lambda k: FAMILY[name].jax(k, x, 0.3), (raw,), (still,))
    assert not np.asarray(tangent).any()
    assert_same(np.asarray(y), FAMILY[name].numpy(X, 0.3, key=KEY))
    _, both = jax.jvp(lambda k, x: FAMILY[name].jax(k, x, 0.3), (raw, x), (still, dx))
    _, alone = jax.jvp(lambda x: FAMILY[name].jax(raw, x, 0.3), (x,), (dx,))
    assert_same(np.asarray(both), np.asarray(alone))
    gradients = jax.grad(
        lambda k, x: FAMILY[name].jax(k, x, 0.3).sum(), argnums=(0, 1), allow_int=True
    )(raw, x)
    assert gradients[0].dtype == jax.dtypes.float0


# ---- batches -------------------------------------------------------------------------------------

KEYS = jax.random.split(jax.random.key(1), 4)
OWN = [key_of(one) for one in KEYS]


@pytest.mark.parametrize("name", FAMILY)
@pytest.mark.parametrize("axis", [0, 1, -1])
@pytest.mark.parametrize("out", [0, 2])
def test_vmap_of_keys_and_x(name, axis, out):
    function = FAMILY[name]
    x = np.moveaxis(X, 0, axis)
    call = jax.vmap(lambda key, x: function.jax(key, x, 0.3), (0, axis), out)
    expected = np.stack([function.numpy(X[i], 0.3, key=OWN[i]) for i in range(4)], out)
    for wrapped in (call, jax.jit(call)):
        assert_same(np.asarray(wrapped(KEYS, x)), expected)


@pytest.mark.parametrize("name", FAMILY)
def test_vmap_of_x_alone(name):
    function = FAMILY[name]
    y = jax.vmap(lambda x: function.jax(key, x, 0.3))(X)
    assert_same(np.asarray(y), np.stack([function.numpy(x, 0.3, key=KEY) for x in X]))


@pytest.mark.parametrize("name", FAMILY)
def test_vmap_of_keys_alone(name):
    function = FAMILY[name]
    y = jax.vmap(lambda key: function.jax(key, X[0], 0.3))(KEYS)
    assert_same(np.asarray(y), np.stack([function.numpy(X[0], 0.3, key=own) for own in OWN]))


def test_vmap_of_p_and_of_offsets():
    rates = np.array([0.1, 0.5, 0.7, 0.0], np.float32)
    y = jax.vmap(lambda p, x: fjax.dropout(key, x, p))(rates, X)
    assert_same(np.asarray(y), np.stack([dropped(x, float(p)) for p, x in zip(rates, X)]))
    y = jax.vmap(lambda p: fjax.dropout(key, X, p))(rates)
    assert_same(np.asarray(y), np.stack([dropped(X, float(p)) for p in rates]))
    offsets = np.arange(4, dtype=np.uint32) * X[0].size
    y = jax.vmap(lambda offset, x: fjax.dropout(key, x, 0.3, offset=offset))(offsets, X)
    assert_same(np.asarray(y), dropped(X))


def test_vmap_of_what_is_added():
    residuals, biases = numbers((3, *X.shape)), numbers((3, 40))
    y = jax.vmap(lambda r: fjax.dropout_add(key, X, r, 0.3))(residuals)
    assert_same(
        np.asarray(y), np.stack([fastdrop.dropout_add(X, r, 0.3, key=KEY) for r in residuals])
    )
    y = jax.vmap(lambda b: fjax.bias_act_dropout(key, X, b, "relu", 0.3))(biases)
    expected = [fastdrop.bias_act_dropout(X, b, "relu", 0.3, key=KEY) for b in biases]
    assert_same(np.asarray(y), np.stack(expected))
    loss = jax.vmap(jax.grad(lambda b: fjax.bias_act_dropout(key, X, b, "relu", 0.3).sum()), 0)
    one = jax.grad(lambda b: fjax.bias_act_dropout(key, X, b, "relu", 0.3).sum())
    np.testing.assert_allclose(loss(biases), np.stack([one(b) for b in biases]), rtol=1e-5)


@pytest.mark.parametrize(
    ("inner", "outer"), [((None, 0), (0, 0)), ((0, None), (None, 0)), ((0, 0), (None, 1))]
)
def test_nested_vmap(inner, outer):
    keys = np.asarray(jax.random.key_data(KEYS))
    x = numbers((4, 4, 50))
    call = jax.vmap(jax.vmap(lambda k, x: fjax.dropout(k, x, 0.3), inner), outer)
    y = np.asarray(call(keys, x))
    for i in range(4):
        for j in range(4):
            k = keys if outer[0] is None else keys[i]
            a = np.take(x, i, outer[1])
            own = OWN[i] if inner[0] is None and outer[0] == 0 else OWN[j]
            part = a if inner[1] is None else a[j]
            del k
            assert_same(y[i, j], dropped(part, key=own))


def test_vmap_is_one_call():
    text = (
        jax.jit(jax.vmap(jax.vmap(lambda k, x: fjax.dropout(k, x, 0.3), (None, 0))))
        .lower(KEYS, X)
        .as_text()
    )
    assert text.count("@fastdrop") == 1


def test_gradients_and_batches_in_each_other():
    def loss(key, x):
        return (fjax.dropout(key, x, 0.3) ** 2).sum()

    expected = np.stack([2 * dropped(dropped(x, key=own), key=own) for x, own in zip(X, OWN)])
    assert_same(np.asarray(jax.jit(jax.vmap(jax.grad(loss, 1)))(KEYS, X)), expected)
    total = jax.grad(lambda x: jax.vmap(loss)(KEYS, x).sum())
    assert_same(np.asarray(total(X)), expected)
    # one x for all keys: its gradients add up
    shared = jax.grad(lambda x: jax.vmap(loss, (0, None))(KEYS, x).sum())(X[0])
    each = [2 * dropped(dropped(X[0], key=own), key=own) for own in OWN]
    np.testing.assert_allclose(shared, sum(each), rtol=1e-5)
    jacobians = jax.vmap(jax.jacfwd(lambda x: fjax.dropout(key, x, 0.3)))(X[0])
    assert_same(np.asarray(jacobians[0]), np.diag(dropped(np.ones(40, np.float32))))


def test_vmap_with_axis_names_and_sizes():
    call = jax.vmap(
        lambda x: fjax.dropout(jax.random.fold_in(key, jax.lax.axis_index("i")), x, 0.3),
        axis_name="i",
    )
    owns = [key_of(jax.random.fold_in(key, i)) for i in range(4)]
    assert_same(np.asarray(call(X)), np.stack([dropped(x, key=k) for x, k in zip(X, owns)]))


# ---- control flow --------------------------------------------------------------------------------


def test_scan_and_its_gradient():
    def run(x):
        def step(carry, key):
            carry = fjax.dropout(key, carry, 0.1)
            return carry, carry

        return jax.lax.scan(step, x, KEYS)

    x, steps = X[0], []
    for own in OWN:
        x = dropped(x, 0.1, own)
        steps.append(x)
    y, all_of_them = jax.jit(run)(X[0])
    assert_same(np.asarray(y), x)
    assert_same(np.asarray(all_of_them), np.stack(steps))
    dx = np.ones_like(X[0])
    for own in reversed(OWN):
        dx = dropped(dx, 0.1, own)
    for function in (run, jax.checkpoint(run)):
        gradient = jax.grad(lambda x, function=function: function(x)[0].sum())
        assert_same(np.asarray(gradient(X[0])), dx)


def test_loops_and_branches():
    expected = X[0]
    for i in range(3):
        expected = dropped(expected, 0.1, key_of(jax.random.fold_in(key, i)))

    def step(i, x):
        return fjax.dropout(jax.random.fold_in(key, i), x, 0.1)

    assert_same(np.asarray(jax.lax.fori_loop(0, 3, step, jnp.asarray(X[0]))), expected)
    _, y = jax.lax.while_loop(
        lambda s: s[0] < 3, lambda s: (s[0] + 1, step(*s)), (0, jnp.asarray(X[0]))
    )
    assert_same(np.asarray(y), expected)
    either = jax.jit(lambda on, x: jax.lax.cond(on, lambda x: step(0, x), lambda x: x, x))
    own = key_of(jax.random.fold_in(key, 0))
    assert_same(np.asarray(either(True, X)), dropped(X, 0.1, own))
    assert_same(np.asarray(either(False, X)), X)
    both = jax.vmap(lambda on, x: jax.lax.cond(on, lambda x: step(0, x), lambda x: x, x))
    y = np.asarray(both(np.array([True, False, True, False]), X))
    assert_same(y[0], dropped(X[0], 0.1, own))
    assert_same(y[1], X[1])


@pytest.mark.parametrize("policy", [None, "everything_saveable", "nothing_saveable"])
def test_remat(policy):
    def layer(w, x):
        return fjax.dropout(key, jnp.tanh(x @ w), 0.3)

    w = numbers((40, 40), seed=5)
    policy = policy and getattr(jax.checkpoint_policies, policy)
    plain = jax.grad(lambda w: layer(w, layer(w, X)).sum())(w)
    kept = jax.checkpoint(layer, policy=policy)
    again = jax.jit(jax.grad(lambda w: kept(w, kept(w, X)).sum()))(w)
    np.testing.assert_allclose(again, plain, rtol=1e-4, atol=1e-5)


def test_inside_custom_derivatives():
    @jax.custom_vjp
    def layer(x):
        return fjax.dropout(key, x, 0.3)

    layer.defvjp(lambda x: (layer(x), None), lambda _, dy: (fjax.dropout(key, dy, 0.3),))
    assert_same(np.asarray(jax.grad(lambda x: layer(x).sum())(X)), dropped(np.ones_like(X)))

    @jax.custom_jvp
    def other(x):
        return fjax.dropout(key, x, 0.3)

    other.defjvp(lambda x, dx: (other(*x), fjax.dropout(key, *dx, 0.3)))
    assert_same(np.asarray(jax.grad(lambda x: other(x).sum())(X)), dropped(np.ones_like(X)))


# ---- programs ------------------------------------------------------------------------------------


def test_donated_arrays():
    x = jnp.asarray(X)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # where it is of no use
        y = jax.jit(fjax.dropout, static_argnums=2, donate_argnums=1)(key, x, 0.3)
    assert_same(np.asarray(y), dropped(X))


def test_live_arrays_stay_as_they_are():
    x = jnp.asarray(X)
    step = jax.jit(lambda x: (fjax.dropout(key, x, 0.3), x + 1, fjax.dropout(key, x, 0.3)))
    y, more, again = step(x)
    assert_same(np.asarray(x), X)
    assert_same(np.asarray(more), X + 1)
    assert_same(np.asarray(y), np.asarray(again))


def test_other_layouts_in_memory():
    y = jax.jit(lambda x: fjax.dropout(key, x.transpose(2, 0, 1), 0.3).transpose(1, 2, 0))(X)
    assert_same(np.asarray(y), dropped(X.transpose(2, 0, 1)).transpose(1, 2, 0))


def test_shapes_without_values():
    y = jax.eval_shape(lambda x: fjax.dropout(key, x, 0.3), jnp.ones((3, 4), jnp.bfloat16))
    assert (y.shape, y.dtype) == ((3, 4), jnp.bfloat16)


def test_without_jit():
    with jax.disable_jit():
        assert_same(np.asarray(fjax.dropout(key, X, 0.3)), dropped(X))
        dx = jax.grad(lambda x: fjax.dropout(key, x, 0.3).sum())(X)
    assert_same(np.asarray(dx), dropped(np.ones_like(X)))


def test_checks_for_nan_and_leaks():
    with jax.checking_leaks(), jax.debug_nans(True):
        assert_same(np.asarray(jax.jit(lambda x: fjax.dropout(key, x, 0.3))(X)), dropped(X))


def test_equal_results_in_many_threads():
    from concurrent.futures import ThreadPoolExecutor

    step = jax.jit(fjax.dropout, static_argnums=2)
    x = numbers((1 << 10, 1 << 10))
    expected = dropped(x, 0.1)
    with ThreadPoolExecutor(8) as pool:
        for y in pool.map(lambda _: np.asarray(step(key, x, 0.1)), range(32)):
            assert_same(y, expected)


def test_pmap():
    n = jax.local_device_count()
    assert n == 4
    y = jax.pmap(lambda k, x: fjax.dropout(k, x, 0.3))(KEYS, X)
    assert_same(np.asarray(y), np.stack([dropped(x, key=own) for x, own in zip(X, OWN)]))


EXPORTED = """
import sys, numpy as np, jax, fastdrop, fastdrop.jax
from jax import export
fastdrop.jax.register()
program = export.deserialize(bytearray(open(sys.argv[1], "rb").read()))
x = np.ones((5, 7), np.float32)
y = np.asarray(program.call(jax.random.key_data(jax.random.key(42)), x))
assert np.array_equal(y, fastdrop.dropout(x, 0.3, key=fastdrop.Key(42)))
"""


def test_exported_programs(tmp_path):
    import subprocess
    import sys

    from jax import export

    pytest.importorskip("flatbuffers", reason="needs flatbuffers, as jax.export does")

    check = export.DisabledSafetyCheck.custom_call("fastdrop")
    program = export.export(
        jax.jit(lambda key, x: fjax.dropout(key, x, 0.3)), disabled_checks=[check]
    )(jax.ShapeDtypeStruct((2,), jnp.uint32), jax.ShapeDtypeStruct((5, 7), jnp.float32))
    path = tmp_path / "program"
    path.write_bytes(program.serialize())
    subprocess.run([sys.executable, "-c", EXPORTED, str(path)], check=True)


def test_exported_shapes_may_be_symbols():
    from jax import export

    (b,) = export.symbolic_shape("b")
    check = export.DisabledSafetyCheck.custom_call("fastdrop")
    make = export.export(jax.jit(lambda x: fjax.dropout(key, x, 0.3)), disabled_checks=[check])
    program = make(jax.ShapeDtypeStruct((b, 7), jnp.float32))
    x = numbers((5, 7))
    assert_same(np.asarray(program.call(x)), dropped(x))
