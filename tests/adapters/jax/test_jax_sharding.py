"""fastdrop.jax on several devices: each has its block of the mask, and gathers nothing."""

from contextlib import nullcontext

import numpy as np
import pytest

jax = pytest.importorskip("jax", reason="needs JAX")

import jax.numpy as jnp
from dtypes import assert_same
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from jax_family import FAMILY, KEY, key_of, numbers

import fastdrop
import fastdrop.jax as fjax

P = PartitionSpec
key = jax.random.key(42)
X = numbers((16, 12, 64))

MESHES = {
    "2": ((2,), ("a",)),
    "4": ((4,), ("a",)),
    "2x2": ((2, 2), ("a", "b")),
    "1x4": ((1, 4), ("a", "b")),
}
SPECS = [
    ("2", P("a")),
    ("2", P(None, "a")),
    ("2", P(None, None, "a")),
    ("4", P("a")),
    ("4", P(None, "a")),
    ("4", P(None, None, "a")),
    ("4", P()),
    ("2x2", P("a")),
    ("2x2", P("a", "b")),
    ("2x2", P("b", None, "a")),
    ("2x2", P(None, "b", "a")),
    ("2x2", P(("a", "b"))),
    ("2x2", P(None, ("b", "a"))),
    ("2x2", P(None, None, ("b", "a"))),
    ("1x4", P("a", "b")),
]

FEW = [("4", P(None, "a")), ("2x2", P("b", None, "a")), ("2x2", P(None, ("b", "a")))]


def mesh_of(name, kind=AxisType.Auto):
    shape, axes = MESHES[name]
    devices = jax.devices()[: int(np.prod(shape))]
    return jax.make_mesh(shape, axes, axis_types=(kind,) * len(axes), devices=devices)


def compiled(function, *arguments):
    """The result, and the program that made it."""
    program = jax.jit(function).lower(*arguments).compile()
    return program(*arguments), program.as_text()


def check_gathers_nothing(text):
    for word in ("all-gather", "all-to-all", "collective-permute"):
        assert word not in text, text[max(0, text.index(word) - 500) : text.index(word) + 100]


@pytest.mark.parametrize(
    ("name", "mesh", "spec"),
    [("dropout", *split) for split in SPECS]
    + [(name, *split) for name in FAMILY if name != "dropout" for split in FEW],
    ids=lambda value: str(value),
)
def test_the_whole_arrays_mask(name, mesh, spec):
    function = FAMILY[name]
    x = jax.device_put(X, NamedSharding(mesh_of(mesh), spec))
    y, text = compiled(lambda key, x: function.jax(key, x, 0.3), key, x)
    assert_same(np.asarray(y), function.numpy(X, 0.3, key=KEY))
    assert y.sharding.is_equivalent_to(x.sharding, 3)
    check_gathers_nothing(text)


@pytest.mark.parametrize(("mesh", "spec"), SPECS, ids=lambda value: str(value))
def test_with_an_offset(mesh, spec):
    start = 2**54 + 2**32 - 100
    x = jax.device_put(X, NamedSharding(mesh_of(mesh), spec))
    y, _ = compiled(lambda x: fjax.dropout(key, x, 0.3, offset=start), x)
    assert_same(np.asarray(y), fastdrop.dropout(X, 0.3, key=KEY, offset=start))


@pytest.mark.parametrize(("mesh", "spec"), [("2", P("a")), *FEW], ids=lambda value: str(value))
@pytest.mark.parametrize("axes", [(0,), (1,), (0, 2), (1, 2)])
def test_shared_axes_that_are_split(axes, mesh, spec):
    x = jax.device_put(X, NamedSharding(mesh_of(mesh), spec))
    y, text = compiled(lambda x: fjax.dropout(key, x, 0.3, shared_axes=axes), x)
    assert_same(np.asarray(y), fastdrop.dropout(X, 0.3, key=KEY, shared_axes=axes))
    check_gathers_nothing(text)


@pytest.mark.parametrize(("mesh", "spec"), [("2", P("a")), *FEW], ids=lambda value: str(value))
def test_gradients(mesh, spec):
    x = jax.device_put(X, NamedSharding(mesh_of(mesh), spec))
    gradient = jax.grad(lambda x: (fjax.dropout(key, x, 0.3) ** 2).sum())
    dx, text = compiled(gradient, x)
    expected = fastdrop.dropout(2 * fastdrop.dropout(X, 0.3, key=KEY), 0.3, key=KEY)
    assert_same(np.asarray(dx), expected)
    check_gathers_nothing(text)
    hessian = jax.jit(lambda x: jax.jvp(gradient, (x,), (jnp.ones_like(x),))[1])(x)
    twice = fastdrop.dropout(np.ones_like(X), 0.3, key=KEY)
    assert_same(np.asarray(hessian), fastdrop.dropout(2 * twice, 0.3, key=KEY))


@pytest.mark.parametrize(("mesh", "spec"), [("4", P("a")), *FEW], ids=lambda value: str(value))
@pytest.mark.parametrize("keys", ["one", "each"])
def test_vmap(mesh, spec, keys):
    mesh = mesh_of(mesh)
    x = jax.device_put(X, NamedSharding(mesh, spec))
    if keys == "one":
        y, text = compiled(jax.vmap(lambda x: fjax.dropout(key, x, 0.3)), x)
        expected = [fastdrop.dropout(row, 0.3, key=KEY) for row in X]
    else:
        own = jax.random.split(key, 16)
        split = jax.device_put(own, NamedSharding(mesh, P(*spec[:1])))
        y, text = compiled(jax.vmap(lambda k, x: fjax.dropout(k, x, 0.3)), split, x)
        expected = [fastdrop.dropout(row, 0.3, key=key_of(k)) for row, k in zip(X, own)]
    assert_same(np.asarray(y), np.stack(expected))
    check_gathers_nothing(text)


@pytest.mark.parametrize(("mesh", "spec"), [("2", P("a")), *FEW], ids=lambda value: str(value))
def test_explicit_meshes(mesh, spec):
    mesh = mesh_of(mesh, AxisType.Explicit)
    with jax.sharding.set_mesh(mesh) if hasattr(jax.sharding, "set_mesh") else jax.set_mesh(mesh):
        x = jax.device_put(X, NamedSharding(mesh, spec))
        y, text = compiled(lambda x: fjax.dropout(key, x, 0.3), x)
        assert_same(np.asarray(y), fastdrop.dropout(X, 0.3, key=KEY))
        assert y.sharding.is_equivalent_to(x.sharding, 3)
        check_gathers_nothing(text)
        dx = jax.jit(jax.grad(lambda x: fjax.dropout(key, x, 0.3).sum()))(x)
        assert_same(np.asarray(dx), fastdrop.dropout(np.ones_like(X), 0.3, key=KEY))
        eager = fjax.dropout(key, x, 0.3)
        assert_same(np.asarray(eager), np.asarray(y))
        y = jax.jit(jax.vmap(lambda x: fjax.dropout(key, x, 0.3), 1, 1))(x)
        rows = [fastdrop.dropout(X[:, i], 0.3, key=KEY) for i in range(12)]
        assert_same(np.asarray(y), np.stack(rows, 1))


def test_a_traced_p_and_offset():
    x = jax.device_put(X, NamedSharding(mesh_of("2x2"), P("a", None, "b")))
    y, _ = compiled(
        lambda p, start, x: fjax.dropout(key, x, p, offset=start),
        np.float32(0.1),
        np.uint32(77),
        x,
    )
    p = float(np.float32(0.1))
    assert_same(np.asarray(y), fastdrop.dropout(X, p, key=KEY, offset=77))


@pytest.mark.parametrize("lengths", [(7, 12, 64), (16, 5, 64), (16, 12, 3), (3, 3, 3)])
@pytest.mark.parametrize(
    "spec", [P("a"), P("a", "b"), P(None, "b", "a"), P(None, None, ("a", "b"))]
)
def test_lengths_that_do_not_divide(lengths, spec):
    mesh = mesh_of("2x2")
    x = numbers(lengths)

    def step(x):
        x = jax.lax.with_sharding_constraint(x, NamedSharding(mesh, spec))
        return fjax.dropout(key, x * 1, 0.3) * 1

    assert_same(np.asarray(jax.jit(step)(x)), fastdrop.dropout(x, 0.3, key=KEY))


@pytest.mark.filterwarnings("ignore:.with mesh")  # an older way, which is still in use
@pytest.mark.parametrize("context", [False, True])
@pytest.mark.parametrize("spec", [P("a"), P(None, "b", "a"), P(("a", "b")), P(("b", "a"))], ids=str)
def test_devices_in_another_order(spec, context):
    devices = np.array(jax.devices())[[2, 0, 3, 1]].reshape(2, 2)
    mesh = jax.sharding.Mesh(devices, ("a", "b"))
    x = jax.device_put(X, NamedSharding(mesh, spec))
    with mesh if context else nullcontext():
        y, text = compiled(lambda x: fjax.dropout(key, x, 0.3), x)
    assert_same(np.asarray(y), fastdrop.dropout(X, 0.3, key=KEY))
    check_gathers_nothing(text)


@pytest.mark.parametrize("spec", [P("a"), P(None, "b", "a"), P(("b", "a")), P(None, "b")], ids=str)
def test_arrays_that_are_split_inside(spec):
    """No argument tells a mesh."""
    split = NamedSharding(mesh_of("2x2"), spec)

    def step(seed):
        x = jax.lax.with_sharding_constraint(jnp.full(X.shape, seed), split)
        return jax.lax.with_sharding_constraint(fjax.dropout(key, x, 0.3), split)

    y, text = compiled(step, np.float32(1))
    assert_same(np.asarray(y), fastdrop.dropout(np.ones_like(X), 0.3, key=KEY))
    check_gathers_nothing(text)


def test_next_to_a_product():
    """Batch over one axis, units over the other: as in a tensor-parallel network."""
    mesh = mesh_of("2x2")
    w = numbers((64, 32), seed=1)
    x = jax.device_put(X, NamedSharding(mesh, P("a")))
    split = jax.device_put(w, NamedSharding(mesh, P(None, "b")))
    y, text = compiled(lambda x, w: fjax.dropout(key, x @ w, 0.3), x, split)
    kept = fastdrop.dropout(np.ones((16, 12, 32), np.float32), 0.3, key=KEY)
    np.testing.assert_allclose(np.asarray(y), (X @ w) * kept, rtol=1e-4, atol=1e-4)
    check_gathers_nothing(text)


def test_a_layer_of_a_scan():
    mesh = mesh_of("4")
    x = jax.device_put(X, NamedSharding(mesh, P("a")))
    keys = jax.random.split(key, 3)

    def run(x):
        return jax.lax.scan(lambda x, k: (fjax.dropout(k, x, 0.1), None), x, keys)[0]

    y, text = compiled(run, x)
    expected = X
    for k in keys:
        expected = fastdrop.dropout(expected, 0.1, key=key_of(k))
    assert_same(np.asarray(y), expected)
    check_gathers_nothing(text)


# ---- shard_map: the user sees a block ------------------------------------------------------------


@pytest.mark.parametrize("check", [True, False])
def test_shard_map_with_an_offset(check):
    mesh = mesh_of("4")

    def block(x):
        start = jax.lax.axis_index("a").astype(jnp.uint32) * x.size
        return fjax.dropout(key, x, 0.3, offset=start)

    step = jax.shard_map(block, mesh=mesh, in_specs=P("a"), out_specs=P("a"), check_vma=check)
    assert_same(np.asarray(jax.jit(step)(X)), fastdrop.dropout(X, 0.3, key=KEY))
    dx = jax.jit(jax.grad(lambda x: step(x).sum()))(X)
    assert_same(np.asarray(dx), fastdrop.dropout(np.ones_like(X), 0.3, key=KEY))


@pytest.mark.parametrize("check", [True, False])
def test_shard_map_with_a_key_of_each_device(check):
    mesh = mesh_of("4")

    def block(x):
        own = jax.random.fold_in(key, jax.lax.axis_index("a"))
        return fjax.dropout(own, x, 0.3)

    owns = [key_of(jax.random.fold_in(key, i)) for i in range(4)]
    step = jax.shard_map(block, mesh=mesh, in_specs=P("a"), out_specs=P("a"), check_vma=check)
    expected = [fastdrop.dropout(X[4 * i : 4 * i + 4], 0.3, key=own) for i, own in enumerate(owns)]
    assert_same(np.asarray(jax.jit(step)(X)), np.concatenate(expected))
    # x is the same everywhere, keys are not: so are results, and gradients add up
    step = jax.shard_map(
        lambda x: block(x)[None], mesh=mesh, in_specs=P(), out_specs=P("a"), check_vma=check
    )
    y = np.asarray(jax.jit(step)(X))
    assert_same(y, np.stack([fastdrop.dropout(X, 0.3, key=own) for own in owns]))
    dx = jax.jit(jax.grad(lambda x: step(x).sum()))(X)
    ones = np.ones_like(X)
    expected = sum(fastdrop.dropout(ones, 0.3, key=own) for own in owns)
    np.testing.assert_allclose(dx, expected, rtol=1e-6)


@pytest.mark.parametrize("name", FAMILY)
def test_shard_map_of_the_family(name):
    function, mesh = FAMILY[name], mesh_of("4")

    def block(x):
        own = jax.random.fold_in(key, jax.lax.axis_index("a"))
        return function.jax(own, x, 0.3)

    step = jax.shard_map(block, mesh=mesh, in_specs=P("a"), out_specs=P("a"))
    owns = [key_of(jax.random.fold_in(key, i)) for i in range(4)]
    expected = [function.numpy(X[4 * i : 4 * i + 4], 0.3, key=own) for i, own in enumerate(owns)]
    assert_same(np.asarray(jax.jit(step)(X)), np.concatenate(expected))


def test_shard_map_over_some_axes():
    """One axis is the user's, the other XLA's."""
    mesh = mesh_of("2x2")
    x = jax.device_put(X, NamedSharding(mesh, P("a", None, "b")))
    step = jax.shard_map(
        lambda x: fjax.dropout(jax.random.fold_in(key, jax.lax.axis_index("a")), x, 0.3),
        mesh=mesh,
        in_specs=P("a"),
        out_specs=P("a"),
        axis_names={"a"},
    )
    owns = [key_of(jax.random.fold_in(key, i)) for i in range(2)]
    expected = [fastdrop.dropout(X[8 * i : 8 * i + 8], 0.3, key=own) for i, own in enumerate(owns)]
    assert_same(np.asarray(jax.jit(step)(x)), np.concatenate(expected))
