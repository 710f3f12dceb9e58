"""softmax_dropout and its gradient: against the slow twin, bit for bit, and against exact sums."""

import math

import numpy as np
import pytest
import reference
from dtypes import ALL as DTYPES
from dtypes import arithmetic, assert_same, normal
from gradients import central_differences
from hypothesis import given
from hypothesis import strategies as st
from incomplete import INCOMPLETE

import fastdrop
from fastdrop import Key

KEY = Key(3, 4)
SHAPES = [(1,), (40,), (3, 5), (2, 3, 32), (4, 33), (2, 2, 7, 65), (3, 2100), (600, 5)]


def added(scores, mask=None, causal=False):
    """What a mask adds to scores, in the type that is computed in; as NumPy would say it."""
    number = arithmetic(scores.dtype)
    total = np.zeros(scores.shape, number)
    if mask is not None and mask.dtype == bool:
        total = np.where(mask, total, number.type(-np.inf))
    elif mask is not None:
        total = total + mask.astype(number)
    if causal:
        lower = np.tri(*scores.shape[-2:], dtype=bool)
        total = np.where(lower, total, number.type(-np.inf))
    return total


def expected(scores, p, mask=None, causal=False, offset=0):
    wide = scores.astype(arithmetic(scores.dtype))
    y = reference.softmax_dropout(wide, added(scores, mask, causal), p, *KEY, offset)
    with np.errstate(all="ignore"):
        return y.astype(scores.dtype)


def expected_backward(dy, scores, p, mask=None, causal=False, offset=0):
    wide, wide_dy = (a.astype(arithmetic(a.dtype)) for a in (scores, dy))
    total = added(scores, mask, causal)
    dx = reference.softmax_dropout_backward(wide_dy, wide, total, p, *KEY, offset)
    with np.errstate(all="ignore"):
        return dx.astype(scores.dtype)


def check(scores, dy, p, **options):
    """Forward and backward are the twin's."""
    call = {key: value for key, value in options.items() if key != "num_threads"}
    y = fastdrop.softmax_dropout(scores, p, key=KEY, **options)
    assert_same(y, expected(scores, p, **call))
    dx = fastdrop.softmax_dropout_backward(dy, scores, p, key=KEY, **options)
    assert_same(dx, expected_backward(dy, scores, p, **call))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("p", [0.0, 0.1, 0.5, 1.0])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_against_the_twin(isa, dtype, p, shape):
    scores, dy = 5 * normal(shape), normal(shape, dtype, 1)
    check(scores.astype(dtype), dy, p)


MASKS = {
    "keys": lambda shape: (shape[-1],),
    "queries and keys": lambda shape: shape[-2:],
    "a sample's keys": lambda shape: (shape[0], 1, 1, shape[-1]),
    "heads": lambda shape: (1, shape[1], 1, 1),
    "queries": lambda shape: (shape[-2], 1),
    "all": lambda shape: shape,
    "nothing of its own": lambda shape: (),
}


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("kind", MASKS)
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("shape", [(2, 3, 5, 70), (2, 3, 70, 5)], ids=str)
def test_masks(isa, dtype, kind, causal, shape):
    scores, dy = normal(shape, dtype), normal(shape, dtype, 1)
    of_mask = MASKS[kind](shape)
    for mask in (normal(of_mask, np.float32, 2) < 0.7, normal(of_mask, np.float32, 3)):
        check(scores, dy, 0.3, mask=mask, causal=causal)
    mask = np.where(normal(of_mask, np.float64, 4) < 0.5, 0, -np.inf)
    check(scores, dy, 0.3, mask=mask, causal=causal)
    check(scores, dy, 0.3, mask=np.asfortranarray(mask).astype(dtype), causal=causal)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(
    "shape", [(7, 7), (2, 9, 5), (3, 5, 9), (2, 3, 64, 64), (5, 1), (1, 5)], ids=str
)
def test_causal(isa, dtype, shape):
    scores, dy = normal(shape, dtype), normal(shape, dtype, 1)
    check(scores, dy, 0.4, causal=True)
    y = fastdrop.softmax_dropout(scores, 0, key=KEY, causal=True)
    assert not np.triu(y, 1).any()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_rows_without_keys_are_zero(isa, dtype):
    scores, dy = normal((4, 40), dtype), np.full((4, 40), np.nan, dtype)
    for mask in (np.zeros((4, 1), bool), np.full(40, -np.inf)):
        y = fastdrop.softmax_dropout(scores, 0.2, key=KEY, mask=mask)
        dx = fastdrop.softmax_dropout_backward(dy, scores, 0.2, key=KEY, mask=mask)
        assert_same(y, np.zeros_like(y))
        assert_same(dx, np.zeros_like(dx))
    y = fastdrop.softmax_dropout(np.full_like(scores, -np.inf), 0.2, key=KEY)
    assert_same(y, np.zeros_like(y))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("place", [0, 13, 39, 40])
def test_rows_with_nan_or_infinity_are_nan(isa, dtype, bad, place):
    scores, dy = normal((3, 41), dtype), normal((3, 41), dtype, 1)
    scores[1, place] = bad
    check(scores, dy, 0.3)
    kept = fastdrop.dropout_mask(scores.shape, 0.3, key=KEY)
    y = fastdrop.softmax_dropout(scores, 0.3, key=KEY)
    np.testing.assert_array_equal(np.isnan(y), kept & (np.arange(3) == 1)[:, None])
    assert np.isnan(fastdrop.softmax_dropout_backward(dy, scores, 0.3, key=KEY)[1]).all()
    mask = np.arange(41) != place  # and what takes no part has no say
    for y in (
        fastdrop.softmax_dropout(scores, 0.3, key=KEY, mask=mask),
        fastdrop.softmax_dropout_backward(dy, scores, 0.3, key=KEY, mask=mask),
    ):
        assert np.isfinite(y).all()
        assert (y[:, place] == 0).all()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_minus_infinity_beside_nan_stays_nan(isa, dtype):
    scores = np.full((1, 40), -np.inf, dtype)
    scores[0, 3] = np.nan
    assert np.isnan(fastdrop.softmax_dropout(scores, 0, key=KEY)).all()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_gradients_that_are_not_there_for_masked_keys(isa, dtype):
    scores, dy = normal((3, 40), dtype), normal((3, 40), dtype, 1)
    mask = np.arange(40) < 30
    expected_dx = fastdrop.softmax_dropout_backward(dy, scores, 0.3, key=KEY, mask=mask)
    dy[:, 30:] = np.array([np.nan, np.inf] * 5, dtype)
    dx = fastdrop.softmax_dropout_backward(dy, scores, 0.3, key=KEY, mask=mask)
    assert_same(dx, expected_dx)
    assert_same(dx[:, 30:], np.zeros_like(dx[:, 30:]))


# ---- accuracy -----------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_exponential(isa, dtype):
    """Two keys: the second's weight is exp of their difference over that and 1."""
    rng = np.random.default_rng(0)
    least = -87 if dtype == np.float32 else -708
    a = np.concatenate([rng.uniform(least, 0, 20000), -(10 ** rng.uniform(-8, 1, 20000))])
    a = a.astype(dtype)
    scores = np.stack([np.zeros_like(a), a], axis=1)
    y = fastdrop.softmax_dropout(scores, 0, key=KEY).astype(np.longdouble)
    exact = np.exp(a.astype(np.longdouble))
    assert (np.abs(reference.exp(a) - exact) / np.spacing(exact.astype(dtype))).max() < 1
    wrong = np.abs(y[:, 1] - exact / (1 + exact)) / np.spacing((exact / (1 + exact)).astype(dtype))
    assert wrong.max() < 3  # with the rounding of the sum, the quotient and the product


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("spread", [0.1, 1, 10, 100])
def test_accuracy(isa, dtype, spread):
    scores, dy = (spread * normal((20, 3000))).astype(dtype), normal((20, 3000), dtype, 1)
    exact = scores.astype(np.longdouble)
    e = np.exp(exact - exact.max(axis=1, keepdims=True))
    w = e / e.sum(axis=1, keepdims=True)
    kept = reference.mask(scores.size, 0.1, *KEY).reshape(scores.shape)
    g = np.where(kept, dy.astype(np.longdouble) / 0.9, 0)
    dx = w * (g - (w * g).sum(axis=1, keepdims=True))
    epsilon = {"float16": 2**-11, "bfloat16": 2**-8, "float32": 4e-6, "float64": 1e-14}
    bound = epsilon[np.dtype(dtype).name]
    y = fastdrop.softmax_dropout(scores, 0.1, key=KEY).astype(np.longdouble)
    tiny = 6e-8 if dtype == np.float16 else 1e-37
    assert (np.abs(y - np.where(kept, w / 0.9, 0)) <= 1.01 * bound * w / 0.9 + tiny).all()
    found = fastdrop.softmax_dropout_backward(dy, scores, 0.1, key=KEY).astype(np.longdouble)
    assert (np.abs(found - dx) <= 1.01 * bound * (np.abs(dx) + 4 * w) + tiny).all()


@pytest.mark.parametrize("p", [0.0, 0.3])
@pytest.mark.parametrize("options", [{}, {"causal": True}, {"mask": np.arange(7) % 3 > 0}], ids=str)
def test_gradients(p, options):
    scores, dy = normal((2, 5, 7), np.float64), normal((2, 5, 7), np.float64, 1)

    def loss():
        return float(np.sum(dy * fastdrop.softmax_dropout(scores, p, key=KEY, **options)))

    dx = fastdrop.softmax_dropout_backward(dy, scores, p, key=KEY, **options)
    np.testing.assert_allclose(dx, central_differences(loss, scores), rtol=1e-6, atol=1e-8)


# ---- how it is computed changes nothing ---------------------------------------------------------


@pytest.mark.parametrize("threads", [2, 3, 16])
@pytest.mark.parametrize("causal", [False, True])
def test_threads_change_nothing(threads, causal):
    scores, dy = normal((7, 90, 130)), normal((7, 90, 130), seed=1)
    check(scores, dy, 0.3, causal=causal, num_threads=threads)


@given(
    batch=st.integers(0, 4),
    queries=st.integers(1, 9),
    keys=st.integers(1, 100),
    cut=st.integers(0, 4),
    offset=st.integers(0, 5000),
    causal=st.booleans(),
    p=st.floats(0, 1),
)
def test_parts_of_a_batch(batch, queries, keys, cut, offset, causal, p):
    scores, dy = normal((batch, queries, keys)), normal((batch, queries, keys), seed=1)
    cut = min(cut, batch)
    y = expected(scores, p, None, causal, offset)
    dx = expected_backward(dy, scores, p, None, causal, offset)
    for isa in fastdrop.available_isas():
        with fastdrop.use_isa(isa):
            for part, start in ((slice(cut), 0), (slice(cut, None), cut * queries * keys)):
                options = {"key": KEY, "causal": causal, "offset": offset + start}
                assert_same(fastdrop.softmax_dropout(scores[part], p, **options), y[part])
                found = fastdrop.softmax_dropout_backward(dy[part], scores[part], p, **options)
                assert_same(found, dx[part])


def test_the_mask_is_dropouts():
    scores = np.zeros((5, 6, 300), np.float32)
    y = fastdrop.softmax_dropout(scores, 0.3, key=KEY, offset=77)
    np.testing.assert_array_equal(
        y != 0, fastdrop.dropout_mask(scores.shape, 0.3, key=KEY, offset=77)
    )


LAYOUTS = {
    "plain": np.ascontiguousarray,
    "fortran": np.asfortranarray,
    "swapped": lambda a: a.astype(a.dtype.newbyteorder()),
    "reversed": lambda a: a[::-1, ::-1].copy()[::-1, ::-1],
}


@pytest.mark.parametrize("of_scores", LAYOUTS)
@pytest.mark.parametrize("of_other", LAYOUTS)
def test_layouts_and_in_place(of_scores, of_other):
    scores, dy = normal((60, 70)), normal((60, 70), seed=1)
    y, dx = expected(scores, 0.3, None, True), expected_backward(dy, scores, 0.3, None, True)
    options = {"key": KEY, "causal": True}

    def arrays():
        return LAYOUTS[of_scores](scores).copy("K"), LAYOUTS[of_other](dy).copy("K")

    a, b = arrays()
    for out in (None, a, b):
        a, b = arrays() if out is None else (a, b)
        found = fastdrop.softmax_dropout(LAYOUTS[of_scores](scores), 0.3, out=out, **options)
        assert out is None or found is out
        np.testing.assert_array_equal(found, y)
    for over in ("none", "dy", "scores"):
        a, b = arrays()
        out = {"none": None, "dy": b, "scores": a}[over]
        found = fastdrop.softmax_dropout_backward(b, a, 0.3, out=out, **options)
        assert out is None or found is out
        np.testing.assert_array_equal(found, dx)


@pytest.mark.parametrize("place", [-4, 0, 1000])
@pytest.mark.parametrize("kind", ["row", "rows", "bool"])
def test_out_over_the_mask(kind, place):
    memory = np.zeros(5000, np.float32)
    out = memory[1000:3400].reshape(60, 40)
    shape = (40,) if kind == "row" else (60, 40)
    if kind == "bool":
        mask = memory[1000 + place :].view(bool)[: 60 * 40].reshape(shape)
        mask[...] = normal(shape) > 0
    else:
        mask = memory[1000 + place :][: math.prod(shape)].reshape(shape)
        mask[...] = normal(shape)
    scores, options = normal((60, 40), seed=1), {"key": KEY, "causal": True}
    for function in (
        lambda **more: fastdrop.softmax_dropout(scores, 0.3, **options, **more),
        lambda **more: fastdrop.softmax_dropout_backward(scores, scores, 0.3, **options, **more),
    ):
        kept = memory.copy()
        y = function(mask=mask)
        assert function(mask=mask, out=out) is out
        np.testing.assert_array_equal(out, y)
        memory[:] = kept


def test_default_key():
    scores = normal((10, 100))
    fastdrop.seed(9)
    assert_same(fastdrop.softmax_dropout(scores), fastdrop.softmax_dropout(scores, key=Key(9, 0)))


def test_array_likes():
    y = fastdrop.softmax_dropout([[0.0, 1.0]], 0, key=KEY, mask=[[True, False]])
    assert_same(y, np.array([[1.0, 0.0]]))


@pytest.mark.parametrize("kind", INCOMPLETE)
def test_incomplete_masks_are_refused(kind):
    make, message = INCOMPLETE[kind]
    with pytest.raises(ValueError, match=f"^mask: .*{message}"):
        fastdrop.softmax_dropout(
            np.ones((4, 2), np.float32), mask=make(np.ones((4, 2), np.float32))
        )


X = np.ones((4, 6), np.float32)
BASE = np.ones((5, 6), np.float32)
softmax, backward = fastdrop.softmax_dropout, fastdrop.softmax_dropout_backward


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: softmax(X.astype(int)), TypeError, "scores: expected an array of float16"),
        (
            lambda: softmax(np.float32(1)),
            ValueError,
            "scores: expected at least one axis, got a 0-d",
        ),
        (lambda: softmax(X[0], causal=True), ValueError, "scores: expected at least two axes"),
        (lambda: softmax(X, 1.5), ValueError, "p: expected"),
        (lambda: softmax(X, key=3), TypeError, "key: expected a fastdrop.Key, got int"),
        (lambda: softmax(X, offset=-1), ValueError, "offset: expected"),
        (lambda: softmax(X, num_threads=0), ValueError, "num_threads: expected"),
        (lambda: softmax(X, out=X[:2].copy()), ValueError, r"out: expected shape \(4, 6\)"),
        (lambda: softmax(X, out=X.astype(float)), TypeError, "out: expected dtype float32"),
        (lambda: softmax(BASE[1:], out=BASE[:-1]), ValueError, "out: expected scores itself or"),
        (
            lambda: softmax(X, mask=np.ones(6, int)),
            TypeError,
            "mask: expected an array of bool or of floats, got int",
        ),
        (
            lambda: softmax(X, mask=np.ones(5, bool)),
            ValueError,
            r"mask: expected one that broadcasts to \(4, 6\), got shape \(5,\)",
        ),
        (lambda: softmax(X, mask=np.ones((1, 4, 6), bool)), ValueError, "mask: expected one that"),
        (lambda: softmax(X[:1], mask=np.ones((4, 6), bool)), ValueError, "mask: expected one that"),
        (lambda: backward(X, X[:2], key=KEY), ValueError, r"scores: expected shape \(4, 6\)"),
        (
            lambda: backward(X, X.astype(float), key=KEY),
            TypeError,
            "scores: expected dtype float32",
        ),
        (lambda: backward(X, None, key=KEY), TypeError, "scores: expected a NumPy array, got None"),
        (lambda: backward(X, X, key=None), TypeError, "key: expected a fastdrop.Key, got NoneType"),
        (lambda: backward(X.astype(int), X, key=KEY), TypeError, "dy: expected an array of"),
        (
            lambda: backward(X, BASE[1:], key=KEY, out=BASE[:-1]),
            ValueError,
            "out: expected scores itself or memory apart",
        ),
    ],
)
def test_refused(call, error, message):
    before = BASE.copy()
    with pytest.raises(error, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) <= 200
    assert_same(BASE, before)


@pytest.mark.parametrize("shape", [(0,), (0, 4), (4, 0), (2, 0, 3), (0, 0)], ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_empty(isa, dtype, shape):
    scores = np.empty(shape, dtype)
    for mask in (None, np.ones(shape, bool), np.ones(shape[-1:])):
        for out in (None, np.empty_like(scores), scores):
            for causal in {False, len(shape) > 1}:
                options = {"key": KEY, "mask": mask, "causal": causal, "out": out}
                for y in (softmax(scores, **options), backward(scores, scores, **options)):
                    assert (y.shape, y.dtype) == (shape, dtype)


def test_a_row_longer_than_any_tile():
    scores = normal((2, 100_003))
    check(scores, normal(scores.shape, seed=1), 0.1)
    assert math.isclose(softmax(scores, 0, key=KEY)[0].sum(dtype=float), 1, rel_tol=1e-5)
