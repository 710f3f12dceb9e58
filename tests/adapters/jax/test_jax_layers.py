"""Layers of Flax and Equinox, switched by an import: their arguments, their streams of keys."""

import inspect
import warnings

import numpy as np
import pytest

jax = pytest.importorskip("jax", reason="needs JAX")

import jax.numpy as jnp
from dtypes import assert_same
from jax_family import key_of, numbers

import fastdrop
import fastdrop.jax as fjax

X = numbers((6, 5, 40))
ONES = np.ones((6, 5, 40), np.float32)


@pytest.fixture
def nnx():
    return pytest.importorskip("flax.nnx", reason="needs Flax")


@pytest.fixture
def linen():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("flax.linen", reason="needs Flax")


@pytest.fixture
def equinox():
    return pytest.importorskip("equinox", reason="needs Equinox")


def same_arguments(ours, theirs):
    def names(function):
        return [
            (p.name, p.default, p.kind) for p in inspect.signature(function).parameters.values()
        ]

    assert names(ours) == names(theirs)
    assert names(ours.__call__) == names(theirs.__call__)


# ---- flax.nnx ------------------------------------------------------------------------------------


def test_nnx_arguments(nnx):
    from fastdrop.jax.nnx import Dropout

    same_arguments(Dropout, nnx.Dropout)
    assert issubclass(Dropout, nnx.Dropout)


def test_nnx_stream_of_keys(nnx):
    from fastdrop.jax.nnx import Dropout

    layer = Dropout(0.3, rngs=nnx.Rngs(0))
    keys = nnx.Rngs(0)["dropout"].fork()
    for _ in range(3):
        own = key_of(keys())
        assert_same(np.asarray(layer(X)), fastdrop.dropout(X, 0.3, key=own))


@pytest.mark.parametrize("kind", ["rngs", "stream", "key"])
def test_nnx_keys_of_a_call(nnx, kind):
    from fastdrop.jax.nnx import Dropout

    layer = Dropout(0.3)
    given, expected = {
        "rngs": (nnx.Rngs(dropout=3), nnx.Rngs(dropout=3)["dropout"]()),
        "stream": (nnx.Rngs(dropout=3)["dropout"], nnx.Rngs(dropout=3)["dropout"]()),
        "key": (jax.random.key(9), jax.random.key(9)),
    }[kind]
    y = layer(X, rngs=given)
    assert_same(np.asarray(y), fastdrop.dropout(X, 0.3, key=key_of(expected)))


def test_nnx_manners(nnx):
    """What Flax's own tests of its layer assert."""
    from fastdrop.jax.nnx import Dropout

    layer = Dropout(0.5, rngs=nnx.Rngs(0))
    assert not np.array_equal(layer(X), layer(X))
    layer.eval()
    assert_same(np.asarray(layer(X)), X)
    assert not np.array_equal(layer(X, deterministic=False), X)
    layer.train()
    assert not np.array_equal(layer(X), X)
    shared = Dropout(0.5, broadcast_dims=(1,), rngs=nnx.Rngs(0))
    y = np.asarray(shared(ONES))
    assert (y == y[:, :1]).all()
    assert set(np.unique(y)) == {0, 2}
    assert not np.asarray(Dropout(1.0, rngs=nnx.Rngs(0))(X)).any()
    assert_same(np.asarray(Dropout(0.0)(X)), X)
    with pytest.raises(ValueError, match="no `rngs` argument"):
        Dropout(0.5)(X)
    with pytest.raises(ValueError, match="No `deterministic`"):
        Dropout(0.5, deterministic=None)(X)
    with pytest.raises(TypeError, match="rngs must be"):
        Dropout(0.5)(X, rngs=3)
    with pytest.raises(TypeError, match="x: expected"):
        Dropout(0.5, rngs=nnx.Rngs(0))(np.arange(3))


def test_nnx_in_training(nnx):
    from fastdrop.jax.nnx import Dropout

    class Model(nnx.Module):
        def __init__(self, rngs):
            self.linear = nnx.Linear(40, 3, rngs=rngs)
            self.dropout = Dropout(0.3, rngs=rngs)

        def __call__(self, x):
            return self.linear(self.dropout(x))

    model = Model(nnx.Rngs(0))

    @nnx.jit
    def step(model, x):
        return nnx.value_and_grad(lambda model: (model(x) ** 2).mean())(model)

    first, gradients = step(model, X)
    second, _ = step(model, X)
    assert first != second  # the stream goes on
    assert float(jnp.abs(gradients["linear"]["kernel"][...]).sum()) > 0
    again, _ = step(Model(nnx.Rngs(0)), X)
    assert again == first


# ---- flax.linen ----------------------------------------------------------------------------------


def test_linen_arguments(linen):
    from fastdrop.jax.linen import Dropout

    same_arguments(Dropout, linen.Dropout)
    assert issubclass(Dropout, linen.Dropout)


def test_linen_stream_of_keys(linen):
    from fastdrop.jax.linen import Dropout

    class Keys(linen.Module):
        """In the place of the layer: has its name, and so its keys."""

        @linen.compact
        def __call__(self, x):
            return self.make_rng("dropout")

    def model(layer):
        class Model(linen.Module):
            @linen.compact
            def __call__(self, x):
                return layer(name="Dropout_0")(x)

        return Model()

    rngs = {"dropout": jax.random.key(5)}
    y = model(lambda name: Dropout(0.3, deterministic=False, name=name)).apply({}, X, rngs=rngs)
    key = model(Keys).apply({}, X, rngs=rngs)
    assert_same(np.asarray(y), fastdrop.dropout(X, 0.3, key=key_of(key)))


def test_linen_manners(linen):
    from fastdrop.jax.linen import Dropout

    rngs = {"dropout": jax.random.key(0)}
    layer = Dropout(0.5)
    y = np.asarray(layer.apply({}, ONES, deterministic=False, rngs=rngs))
    assert set(np.unique(y)) == {0, 2}
    assert_same(np.asarray(layer.apply({}, X, deterministic=True)), X)
    given = layer.apply({}, X, deterministic=False, rng=jax.random.key(9))
    assert_same(np.asarray(given), fastdrop.dropout(X, 0.5, key=fastdrop.Key(9)))
    shared = Dropout(0.5, broadcast_dims=(1,), deterministic=False)
    y = np.asarray(shared.apply({}, ONES, rngs=rngs))
    assert (y == y[:, :1]).all()
    other = Dropout(0.5, rng_collection="noise", deterministic=False)
    assert (np.asarray(other.apply({}, ONES, rngs={"noise": jax.random.key(0)})) == 0).any()
    assert not np.asarray(Dropout(1.0, deterministic=False).apply({}, X)).any()
    assert_same(np.asarray(Dropout(0.0, deterministic=False).apply({}, X)), X)
    with pytest.raises(Exception, match="dropout"):
        layer.apply({}, X, deterministic=False)  # no stream
    with pytest.raises(ValueError, match="deterministic"):
        layer.apply({}, X, rngs=rngs)


def test_linen_under_lifted_transforms(linen):
    from fastdrop.jax.linen import Dropout

    scanned = linen.scan(
        type(
            "Step",
            (linen.Module,),
            {
                "__call__": linen.compact(
                    lambda self, x, _: (Dropout(0.3, deterministic=False)(x), None)
                )
            },
        ),
        variable_broadcast="params",
        split_rngs={"dropout": True},
        length=3,
    )
    y, _ = scanned().apply({}, ONES, None, rngs={"dropout": jax.random.key(0)})
    kept = (np.asarray(y) != 0).mean()
    assert abs(kept - 0.7**3) < 0.06  # three independent masks


# ---- equinox -------------------------------------------------------------------------------------


def test_equinox_arguments(equinox):
    from fastdrop.jax.equinox import Dropout

    same_arguments(Dropout, equinox.nn.Dropout)
    assert issubclass(Dropout, equinox.nn.Dropout)


def test_equinox_manners(equinox):
    from fastdrop.jax.equinox import Dropout

    key = jax.random.key(3)
    layer = Dropout(0.3)
    expected = fastdrop.dropout(X, 0.3, key=fastdrop.Key(3))
    assert_same(np.asarray(layer(X, key=key)), expected)
    assert_same(np.asarray(equinox.filter_jit(layer)(X, key=key)), expected)
    off = equinox.nn.inference_mode(layer)
    assert off(X) is X
    assert off.inference
    assert layer(X, inference=True) is X
    assert_same(np.asarray(off(X, key=key, inference=False)), expected)
    assert Dropout(0)(X) is X
    with pytest.raises(RuntimeError, match="requires a key"):
        layer(X)
    with pytest.warns(UserWarning, match="deterministic"):
        assert layer(X, deterministic=True) is X
    with pytest.warns(UserWarning, match="deterministic"):
        assert_same(np.asarray(layer(X, key=key, deterministic=False)), expected)
    with pytest.warns(UserWarning, match="deterministic"):
        assert Dropout(0.3, deterministic=True).inference


def test_equinox_with_p_as_an_array(equinox):
    from fastdrop.jax.equinox import Dropout

    layer = equinox.tree_at(lambda layer: layer.p, Dropout(0.5), jnp.float32(0.1))
    key = jax.random.key(3)
    expected = fastdrop.dropout(X, float(np.float32(0.1)), key=fastdrop.Key(3))
    assert_same(np.asarray(layer(X, key=key)), expected)
    assert_same(np.asarray(equinox.filter_jit(layer)(X, key=key)), expected)
    gradient = equinox.filter_grad(lambda layer: layer(X, key=key).sum())(layer)
    assert gradient.p == 0
    keys = jax.random.split(key, 6)
    y = jax.vmap(lambda k, x: layer(x, key=k))(keys, X)
    assert_same(
        np.asarray(y[2]), fastdrop.dropout(X[2], float(np.float32(0.1)), key=key_of(keys[2]))
    )


@pytest.mark.parametrize(
    ("module", "package"), [("nnx", "flax"), ("linen", "flax"), ("equinox", "equinox")]
)
def test_without_the_library(module, package, monkeypatch):
    import importlib
    import sys

    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.delitem(sys.modules, f"fastdrop.jax.{module}", raising=False)
    with pytest.raises(ImportError, match=f"fastdrop.jax.{module} needs .*pip install {package}"):
        importlib.import_module(f"fastdrop.jax.{module}")


def test_layers_are_imported_only_when_asked_for():
    assert not hasattr(fjax, "Dropout")
