"""Alpha dropout, DropBlock, stochastic depth and zoneout as functions, against their slow twins."""

import math

import numpy as np
import pytest
import reference
from dtypes import ALL as DTYPES
from dtypes import arithmetic, assert_same, normal
from hypothesis import given
from hypothesis import strategies as st

import fastdrop
from fastdrop import Key

KEY = Key(3, 4)


def shared(x, axes):
    return tuple(1 if a in axes else n for a, n in enumerate(x.shape))


def kept(x, p, axes=(), offset=0):
    shape = shared(x, axes)
    mask = reference.mask(math.prod(shape), p, *KEY, offset).reshape(shape)
    return np.broadcast_to(mask, x.shape)


def alpha(x, p, axes=(), **options):
    return fastdrop.alpha_dropout(x, p, key=KEY, shared_axes=axes, **options)


# ---- alpha dropout ------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("p", [0.0, 0.1, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("axes", [(), (0,), (2,), (1, 2)])
def test_alpha_dropout(isa, dtype, p, axes):
    x = normal((5, 7, 90), dtype)
    wide = x.astype(arithmetic(dtype))
    expected = reference.alpha_dropout(wide, kept(x, p, axes), p) if p else wide
    y = alpha(x, p, axes)
    tolerance = {2: 1e-2, 4: 1e-6, 8: 1e-14}[x.itemsize]
    assert y.dtype == dtype
    np.testing.assert_allclose(y.astype(float), expected.astype(float), tolerance, tolerance)
    dy = normal(x.shape, dtype, 1)
    dx = fastdrop.alpha_dropout_backward(dy, p, key=KEY, shared_axes=axes)
    zero = np.zeros((), wide.dtype)
    slope = reference.alpha_dropout(zero + 1, True, p) - reference.alpha_dropout(zero, True, p)
    slope = slope if p else 1
    gradient = np.where(kept(x, p, axes), dy.astype(wide.dtype) * slope, 0)
    np.testing.assert_allclose(dx.astype(float), gradient.astype(float), tolerance, tolerance)


def test_alpha_of_dropped_infinities_and_nans(isa):
    x = np.tile(np.array([np.inf, -np.inf, np.nan], np.float32), 1000)
    y, keep = alpha(x, 0.5), kept(x, 0.5)
    assert len(np.unique(y[~keep])) == 1
    assert not np.isfinite(y[keep]).any()
    assert (alpha(x, 1.0) == 0).all()
    assert (fastdrop.alpha_dropout_backward(x, 0.5, key=KEY)[~keep] == 0).all()


def test_feature_alpha_shares_all_but_two_axes():
    x = normal((5, 7, 4, 3))
    assert_same(
        fastdrop.feature_alpha_dropout(x, 0.4, key=KEY, offset=3), alpha(x, 0.4, (2, 3), offset=3)
    )
    assert_same(fastdrop.feature_alpha_dropout(x[0, 0], 0.4, key=KEY), alpha(x[0, 0], 0.4))


# ---- stochastic depth ---------------------------------------------------------------------------


def test_drop_path():
    x = normal((6, 4, 3))
    options = {"key": KEY, "offset": 5}
    assert_same(
        fastdrop.drop_path(x, 0.4, **options),
        fastdrop.dropout(x, 0.4, shared_axes=(1, 2), **options),
    )
    y = fastdrop.drop_path(x, 0.4, mode="batch", key=KEY)
    assert_same(y, fastdrop.dropout(x, 0.4, shared_axes=(0, 1, 2), key=KEY))
    assert fastdrop.drop_path(x, 0.4, key=KEY, training=False) is x


# ---- DropBlock ----------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize(
    ("shape", "block"),
    [
        ((3, 2, 8, 8), 3),
        ((2, 3, 7, 5), 1),
        ((4, 2, 7, 9), 7),
        ((1, 1, 5, 5), 5),
        ((2, 2, 40, 70), 6),
        ((2, 1, 70, 150), 66),
        ((2, 1, 130, 201), 130),
        ((3, 2, 64, 64), 2),
        ((0, 2, 8, 8), 3),
        ((2, 0, 8, 8), 3),
    ],
)
def test_drop_block(isa, dtype, threads, shape, block):
    x = normal(shape, dtype)
    y = fastdrop.drop_block2d(x, 0.4, block, key=KEY, offset=77, num_threads=threads)
    wide = x.astype(arithmetic(dtype))
    assert_same(y, reference.drop_block2d(wide, 0.4, block, *KEY, 77).astype(dtype))


@given(
    shape=st.tuples(*(st.integers(1, n) for n in (4, 3, 20, 20))),
    block=st.integers(1, 20),
    p=st.floats(0.001, 1),
    cut=st.integers(0, 4),
)
def test_drop_block_of_a_split_batch(shape, block, p, cut):
    block, cut = min(block, *shape[2:]), min(cut, shape[0])
    x = normal(shape)
    expected = reference.drop_block2d(x, p, block, *KEY)
    places = shape[1] * (shape[2] - block + 1) * (shape[3] - block + 1)
    for isa in fastdrop.available_isas():
        with fastdrop.use_isa(isa):
            top = fastdrop.drop_block2d(x[:cut], p, block, key=KEY)
            bottom = fastdrop.drop_block2d(x[cut:], p, block, key=KEY, offset=cut * places)
            assert_same(np.concatenate([top, bottom]), expected)


def test_drop_block_drops_infinities_and_everything():
    x = np.full((2, 3, 9, 9), np.nan, np.float32)
    y = fastdrop.drop_block2d(x, 0.4, 3, key=KEY)
    assert 0 < np.isnan(y).mean() < 1
    assert not np.signbit(y[~np.isnan(y)]).any()
    assert (y[~np.isnan(y)] == 0).all()
    assert (fastdrop.drop_block2d(x, 1.0, 1, key=KEY) == 0).all()
    assert (fastdrop.drop_block2d(x, 1.0, 9, key=KEY) == 0).all()
    assert fastdrop.drop_block2d(x, 0, 3, key=KEY) is x
    assert fastdrop.drop_block2d(x, 0.5, 3, key=KEY, training=False) is x


def test_drop_block_of_large_arrays_in_place_and_streamed(isa):
    x = normal((9, 4, 32, 32))
    expected = reference.drop_block2d(x, 0.2, 5, *KEY)
    before = fastdrop.compiled._core.cache_bytes()
    fastdrop.compiled._core.set_cache_bytes(0)
    try:
        y = x.copy()
        assert fastdrop.drop_block2d(y, 0.2, 5, key=KEY, out=y) is y
        assert_same(y, expected)
        assert_same(fastdrop.drop_block2d(np.asfortranarray(x), 0.2, 5, key=KEY), expected)
    finally:
        fastdrop.compiled._core.set_cache_bytes(before)


def test_drop_block_drops_each_place_as_often_as_its_corners_say():
    """1 - (1 - gamma)^corners: an element is covered by up to block^2 squares."""
    samples, size, block, p = 20_000, 6, 3, 0.3
    y = fastdrop.drop_block2d(np.ones((samples, 1, size, size), np.float32), p, block, key=KEY)
    gamma = p * size**2 / (block**2 * (size - block + 1) ** 2)
    ways = np.convolve(np.ones(block), np.ones(size - block + 1))
    chance = 1 - (1 - gamma) ** np.outer(ways, ways)
    dropped = (y == 0).mean(axis=(0, 1))
    assert (abs(dropped - chance) < 5 * np.sqrt(chance * (1 - chance) / samples)).all()
    kept_somewhere = y.any(axis=(1, 2, 3))
    np.testing.assert_allclose(y.mean(axis=(1, 2, 3))[kept_somewhere], 1, rtol=1e-5)


# ---- zoneout ------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("p", [0.0, 0.3, 1.0])
def test_zoneout(isa, dtype, p):
    x, previous = normal(5000, dtype), normal(5000, dtype, 1)
    x[::7], previous[::5] = np.nan, -np.inf
    y = fastdrop.zoneout(x, previous, p, key=KEY, offset=9)
    keep = kept(x, p, offset=9)
    assert_same(y, np.where(keep, x, previous))
    dx, dprevious = fastdrop.zoneout_backward(previous, p, key=KEY, offset=9)
    zero = dtype.type(0)
    assert_same(dx, np.where(keep, previous, zero))
    assert_same(dprevious, np.where(keep, zero, previous))
    out = previous.copy()
    assert fastdrop.zoneout(x, out, p, key=KEY, offset=9, out=out) is out
    assert_same(out, y)


# ---- what is refused ----------------------------------------------------------------------------

X = np.ones((2, 3, 4, 5), np.float32)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: alpha(X, 1.5), ValueError, "p: expected .* got 1.5"),
        (lambda: alpha(X, 0.5, (7,)), ValueError, "shared_axes: expected"),
        (lambda: alpha([1], 0.5), TypeError, "x: expected"),
        (lambda: fastdrop.alpha_dropout(X, key=3), TypeError, "key: expected"),
        (lambda: fastdrop.feature_alpha_dropout(X[0, 0, 0], key=KEY), ValueError, "x: expected"),
        (lambda: fastdrop.drop_path(X, mode="all", key=KEY), ValueError, "mode: expected .*'all'"),
        (lambda: fastdrop.drop_path(np.float32(1), key=KEY), ValueError, "x: expected"),
        (
            lambda: fastdrop.drop_block2d(X, 0.1, 5, key=KEY),
            ValueError,
            "block_size: expected at most 4 on maps of 4 x 5, got 5",
        ),
        (lambda: fastdrop.drop_block2d(X, 0.1, 0, key=KEY), ValueError, "block_size: expected"),
        (lambda: fastdrop.drop_block2d(X, 0.1, 1.5, key=KEY), ValueError, "block_size: expected"),
        (lambda: fastdrop.drop_block2d(X[0], 0.1, 2, key=KEY), ValueError, "x: expected shape"),
        (lambda: fastdrop.drop_block2d(X, 2, 2, key=KEY), ValueError, "p: expected"),
        (lambda: fastdrop.drop_block2d(X, 0.1, 2, key=KEY, out=X[0]), ValueError, "out: expected"),
        (lambda: fastdrop.zoneout(X, X[0], key=KEY), ValueError, "previous: expected shape"),
        (lambda: fastdrop.zoneout(X, X.astype(float), key=KEY), TypeError, "previous: expected"),
    ],
)
def test_refused(call, error, message):
    with pytest.raises(error, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)
