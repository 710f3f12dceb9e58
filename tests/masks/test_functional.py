"""dropout, dropout_mask and apply_mask: values, memory layouts, and what is refused."""

import tracemalloc

import numpy as np
import pytest
import reference
from dtypes import ALL as DTYPES
from dtypes import arithmetic, assert_same, normal
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import fastdrop
from fastdrop import Key
from fastdrop.compiled import _core
from fastdrop.functional import masked_scale

KEY = Key(3, 4)


def expected_dropout(x, p, **mask):
    wide = x.astype(arithmetic(x.dtype))
    return reference.dropout(wide, p, *KEY, **mask).astype(x.dtype)


# ---- values ------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("p", [0.5, 0.1, 0.3, 0.999, 1.0])
@pytest.mark.parametrize("n", [0, 1, 31, 32, 33, 2048, 2049, 70_000])
def test_values(isa, dtype, p, n):
    x = normal(n, dtype)
    assert_same(fastdrop.dropout(x, p, key=KEY), expected_dropout(x, p))


@pytest.fixture
def streaming():
    """Let every array count as larger than the cache."""
    before = _core.cache_bytes()
    _core.set_cache_bytes(0)
    yield
    _core.set_cache_bytes(before)


@pytest.mark.parametrize("caches", [1.5, 3])  # as large as x and y
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("in_place", [False, True])
def test_both_kinds_of_stores_in_turn(threads, in_place, caches):
    """In a cache of which it is not known how much is ours, they are tried one after the other."""
    x = normal(70_000, np.float32)
    before = _core.cache_bytes()
    _core.set_cache_bytes(int((1 if in_place else 2) * caches * x.nbytes))
    try:
        for _ in range(20):  # until it is known, and after
            y = x.copy()
            options = {"key": KEY, "num_threads": threads, "out": y}
            assert_same(
                fastdrop.dropout(y if in_place else x, 0.3, **options), expected_dropout(x, 0.3)
            )
    finally:
        _core.set_cache_bytes(before)


@pytest.mark.usefixtures("streaming")
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_streaming_stores(isa, dtype, threads):
    options = {"key": KEY, "offset": 77, "num_threads": threads}
    buffer, n = normal(50_100, dtype), 50_000
    for start in range(3):  # at another place of a cache line each
        x = buffer[start : start + n]
        expected = expected_dropout(x, 0.3, offset=77)
        assert_same(fastdrop.dropout(x, 0.3, **options), expected)
        y, mask = fastdrop.dropout(x, 0.3, return_mask=True, **options)
        assert_same(y, expected)
        assert_same(mask, fastdrop.dropout_mask(n, 0.3, key=KEY, offset=77, packed=True))
        out = np.empty_like(buffer)[start : start + n]
        assert_same(fastdrop.dropout(x, 0.3, out=out, **options), expected)
        copied = x.copy()
        assert_same(fastdrop.dropout(copied, 0.3, out=copied, **options), expected)
        assert_same(_core.stream_copy(x, out, threads), x)


@pytest.mark.parametrize("dtype", DTYPES[:-2], ids=str)
def test_every_half_value(isa, dtype):
    """All 65536 of them, with scales that make results round, overflow and vanish."""
    x = np.arange(1 << 16, dtype=np.uint16).view(dtype)
    keep = np.ones(x.size, bool)
    kept = fastdrop.dropout_mask(x.size, 0.1, key=KEY)
    with np.errstate(all="ignore"):
        for p in (0.0, 0.1, 0.5, 0.9, 0.9999):
            expected = (x.astype(np.float32) * np.float32(1 / (1 - p))).astype(dtype)
            assert_same(fastdrop.apply_mask(x, keep, p), expected)
        for scale in (1e-3, 1e-7, 3.3e4):
            expected = np.where(kept, x.astype(np.float32) * np.float32(scale), np.float32(0))
            assert_same(masked_scale(x, 0.1, scale, key=KEY), expected.astype(dtype))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_dropped_infinities_and_nans_are_positive_zeros(isa, dtype):
    x = np.tile(np.array([np.inf, -np.inf, np.nan, -1, -0.0], dtype), 1000)
    y = fastdrop.dropout(x, 0.5, key=KEY)
    kept = fastdrop.dropout_mask(x.shape, 0.5, key=KEY)
    assert not np.any(np.signbit(y[~kept]))
    assert np.all(y[~kept] == 0)
    assert_same(y[kept], x[kept] * x.dtype.type(2))


@given(
    shape=hnp.array_shapes(min_dims=0, max_dims=5, max_side=7),
    p=st.floats(0, 1),
    dtype=st.sampled_from(DTYPES),
    data=st.data(),
)
def test_shared_axes(shape, p, dtype, data):
    axes = data.draw(
        st.lists(st.sampled_from(range(len(shape))), unique=True) if shape else st.just([])
    )
    offset = data.draw(st.integers(0, 10_000))
    x = normal(shape, dtype)
    expected = expected_dropout(x, p, offset=offset, shared_axes=axes) if p else x
    for isa in fastdrop.available_isas():
        with fastdrop.use_isa(isa):
            y, mask = fastdrop.dropout(
                x, p, key=KEY, shared_axes=axes, offset=offset, return_mask=True
            )
            assert_same(y, expected)
            bools = fastdrop.dropout_mask(x.shape, p, key=KEY, shared_axes=axes, offset=offset)
            assert_same(mask, np.packbits(bools, axis=None, bitorder="little"))
            assert_same(fastdrop.apply_mask(x, bools, p), expected)
            assert_same(fastdrop.apply_mask(x, mask, p, shared_axes=axes), expected)


@pytest.mark.parametrize(
    ("shape", "axes"),
    [
        ((8, 100, 64), 1),
        ((8, 100, 64), (0, 2)),
        ((16, 16, 30, 30), (2, 3)),
        ((5000,), 0),
        ((3, 3000, 5), (-1,)),
        ((3, 3000, 5), (0,)),
        ((2, 3, 4, 5, 6, 7), (1, 3, 5)),
    ],
)
@pytest.mark.parametrize("threads", [1, 2, 3, 7])
def test_shared_axes_of_large_arrays(isa, shape, axes, threads):
    x = normal(shape)
    axes_tuple = tuple(a % len(shape) for a in np.atleast_1d(axes))
    y = fastdrop.dropout(x, 0.4, key=KEY, shared_axes=axes, num_threads=threads)
    assert_same(y, reference.dropout(x, 0.4, *KEY, shared_axes=axes_tuple))


@pytest.mark.parametrize("threads", [1, 2, 3, 8])
def test_threads_change_nothing(isa, threads):
    x = normal(100_000)
    expected, expected_mask = fastdrop.dropout(x, 0.3, key=KEY, offset=11, return_mask=True)
    y, mask = fastdrop.dropout(x, 0.3, key=KEY, offset=11, return_mask=True, num_threads=threads)
    assert_same(y, expected)
    assert_same(mask, expected_mask)


@given(data=st.data(), n=st.integers(1, 9000), p=st.floats(0.01, 0.99))
def test_a_batch_may_be_split_anywhere(data, n, p):
    cut = data.draw(st.integers(0, n))
    x = normal(n)
    whole = fastdrop.dropout(x, p, key=KEY, offset=5)
    parts = [
        fastdrop.dropout(x[:cut], p, key=KEY, offset=5),
        fastdrop.dropout(x[cut:], p, key=KEY, offset=5 + cut),
    ]
    assert_same(np.concatenate(parts), whole)


def test_the_gradient_is_dropout_of_dy():
    x, dy = normal(1000, np.float64), normal(1000, np.float64, 1)
    dx = fastdrop.dropout(dy, 0.3, key=KEY)
    step = 1e-3

    def loss(x):
        return float(np.sum(dy * fastdrop.dropout(x, 0.3, key=KEY)))

    for i in range(0, 1000, 97):
        up, down = x.copy(), x.copy()
        up[i] += step
        down[i] -= step
        assert (loss(up) - loss(down)) / (2 * step) == pytest.approx(dx[i], abs=1e-9)


@pytest.mark.parametrize("x", [[1.0, 2.0, 3.0], 4.0, (), [[1.0], [2.0]]])
def test_anything_asarray_takes(x):
    y = fastdrop.dropout(x, 0.5, key=KEY)
    assert_same(y, reference.dropout(np.asarray(x), 0.5, *KEY))


def test_default_keys_come_from_the_default_generator():
    x = np.ones(1000, np.float32)
    fastdrop.seed(9)
    first, second = fastdrop.dropout(x), fastdrop.dropout(x)
    assert_same(first, fastdrop.dropout(x, key=Key(9, 0)))
    assert_same(second, fastdrop.dropout(x, key=Key(9, 1)))
    assert first.tobytes() != second.tobytes()


def test_tiny_p_keeps_everything():
    x = normal(10_000)
    assert np.all(fastdrop.dropout(x, 1e-10, key=KEY) == x)


# ---- nothing to drop ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options", [{"p": 0.0}, {"training": False}, {"p": 1.0, "training": False}]
)
def test_identity(options):
    x, out = normal((3, 5)), np.zeros((3, 5), np.float32)
    assert fastdrop.dropout(x, **options) is x
    assert fastdrop.dropout(x, **options, out=out) is out
    assert_same(out, x)
    y, mask = fastdrop.dropout(x, **options, shared_axes=0, return_mask=True)
    assert y is x
    assert mask.tolist() == [0b11111]


# ---- memory layouts ----------------------------------------------------------------------------


def unaligned(x):
    buffer = np.empty(x.nbytes + 1, np.uint8)[1:]
    view = buffer.view(x.dtype).reshape(x.shape)
    view[...] = x
    assert x.size < 2 or not view.flags.aligned
    return view


LAYOUTS = {
    "contiguous": lambda x: x.copy(),
    "fortran": np.asfortranarray,
    "every second": lambda x: np.repeat(x, 2, axis=-1)[..., ::2],
    "reversed": lambda x: x[::-1].copy()[::-1],
    "byte-swapped": lambda x: x.astype(x.dtype.newbyteorder()),
    "unaligned": unaligned,
}


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("of_x", LAYOUTS)
@pytest.mark.parametrize("of_out", LAYOUTS)
def test_layouts(dtype, of_x, of_out):
    x = normal((40, 70), dtype)
    expected = fastdrop.dropout(x, 0.3, key=KEY)
    source, out = LAYOUTS[of_x](x), LAYOUTS[of_out](np.zeros_like(x))
    assert_same(fastdrop.dropout(source, 0.3, key=KEY), expected)
    np.testing.assert_array_equal(source, x)
    assert fastdrop.dropout(source, 0.3, key=KEY, out=out) is out
    np.testing.assert_array_equal(out, expected)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_in_place(isa, layout):
    x = normal((40, 70))
    expected = fastdrop.dropout(x, 0.3, key=KEY)
    for view in (lambda a: a, lambda a: a[...]):
        a = LAYOUTS[layout](x)
        fastdrop.dropout(a, 0.3, key=KEY, out=view(a))
        np.testing.assert_array_equal(a, expected)


def test_broadcast_input():
    x = np.broadcast_to(normal(70), (40, 70))
    assert_same(fastdrop.dropout(x, 0.3, key=KEY), fastdrop.dropout(x.copy(), 0.3, key=KEY))


@pytest.mark.parametrize("shape", [(), (0,), (3, 0, 2), (1, 1, 1)])
@pytest.mark.parametrize("axes", [(), "all"])
def test_empty_and_0d(isa, shape, axes):
    x = np.ones(shape, np.float32)
    axes = tuple(range(len(shape))) if axes == "all" else axes
    y, mask = fastdrop.dropout(x, 0.5, key=KEY, shared_axes=axes, return_mask=True)
    assert_same(y, reference.dropout(x, 0.5, *KEY, shared_axes=axes))
    bools = fastdrop.dropout_mask(shape, 0.5, key=KEY, shared_axes=axes)
    assert bools.shape == tuple(1 if a in axes else n for a, n in enumerate(shape))
    assert_same(mask, np.packbits(bools, axis=None, bitorder="little"))
    assert_same(fastdrop.apply_mask(x, bools, 0.5), y)


def test_separate_interleaved_views_do_not_overlap():
    both = normal(2000)
    x, out = both[::2], both[1::2]
    expected = fastdrop.dropout(x.copy(), 0.5, key=KEY)
    np.testing.assert_array_equal(fastdrop.dropout(x, 0.5, key=KEY, out=out), expected)


# ---- memory ----------------------------------------------------------------------------------


def peak_memory(call):
    """Bytes that a call takes at most, beyond what is there before; its result stays alive."""
    tracemalloc.start()
    try:
        result = call()
        return tracemalloc.get_traced_memory()[1], result
    finally:
        tracemalloc.stop()


N = 1 << 20
SMALL = 40_000  # Python's own objects, and a bias with a tile's length of repetitions


@pytest.mark.parametrize(
    ("call", "allowed"),
    [
        (lambda x, y: fastdrop.dropout(x, key=KEY), 4 * N),
        (lambda x, y: fastdrop.dropout(x, key=KEY, out=y), 0),
        (lambda x, y: fastdrop.dropout(x, key=KEY, out=x), 0),
        (lambda x, y: fastdrop.dropout(x[:, ::-1], key=KEY), 4 * N),
        (lambda x, y: fastdrop.dropout(x, key=KEY, num_threads=4), 4 * N),
        (lambda x, y: fastdrop.dropout(x, key=KEY, return_mask=True), 4 * N + N // 8),
        (lambda x, y: fastdrop.dropout(x, key=KEY, shared_axes=1), 4 * N + N // 1024 // 8),
        (lambda x, y: fastdrop.dropout(x, key=KEY, shared_axes=0, out=y), 1024 // 8),
        (lambda x, y: fastdrop.dropout_mask(N, key=KEY, packed=True), N // 8),
        (lambda x, y: fastdrop.dropout_add(x, y, key=KEY), 4 * N),
        (lambda x, y: fastdrop.bias_act_dropout(x, y[0], "relu", key=KEY), 4 * N),
        (lambda x, y: fastdrop.bias_act_dropout_backward(x, y, "relu", out=x), 16 * 4 * 1024),
        (lambda x, y: fastdrop.softmax_dropout(x, key=KEY, mask=y[:1] > 0, causal=True), 4 * N),
        (lambda x, y: fastdrop.softmax_dropout_backward(x, y, key=KEY, out=x), 0),
    ],
)
def test_no_memory_beyond_the_result(call, allowed):
    x, y = np.ones((1024, N // 1024), np.float32), np.ones((1024, N // 1024), np.float32)
    peak, _ = peak_memory(lambda: call(x, y))
    assert allowed <= peak + SMALL
    assert peak <= allowed + SMALL


# ---- masks -------------------------------------------------------------------------------------


def test_dropout_mask_shapes():
    assert fastdrop.dropout_mask(5, key=KEY).shape == (5,)
    assert fastdrop.dropout_mask((5, 3), key=KEY, shared_axes=-1).shape == (5, 1)
    assert fastdrop.dropout_mask((5, 3), key=KEY).dtype == np.bool_
    assert fastdrop.dropout_mask((5, 3), key=KEY, packed=True).shape == (2,)


def test_apply_mask_takes_any_bool_mask():
    x, mask = normal((50, 70)), normal((50, 1), seed=2) > 0
    assert_same(
        fastdrop.apply_mask(x, mask, 0.75), np.where(mask, x * np.float32(4), np.float32(0))
    )
    assert np.all(fastdrop.apply_mask(x, np.ones((50, 70), bool), 1.0) == 0)
    fastdrop.apply_mask(x, mask.copy(order="F"), 0.75, out=x)
    assert np.all(x[~mask[:, 0]] == 0)


@pytest.mark.parametrize(
    "axes", [0, np.int64(0), np.uint8(0), (0,), [0], np.array([0]), np.array(0), range(1), {-2}]
)
def test_axes_may_be_any_integers(axes):
    x = normal((300, 20))
    expected = fastdrop.dropout(x, 0.5, key=KEY, shared_axes=(0,))
    assert_same(fastdrop.dropout(x, 0.5, key=KEY, shared_axes=axes), expected)
    assert_same(fastdrop.dropout_add(x, x, 0.5, key=KEY, shared_axes=axes), expected + x)
    assert fastdrop.dropout_mask(x.shape, 0.5, key=KEY, shared_axes=axes).shape == (1, 20)


def test_apply_mask_over_the_masks_own_memory():
    n = 1 << 16
    memory = np.empty(4 * n, np.uint8)
    mask = fastdrop.dropout_mask(n, 0.5, key=KEY, packed=True)
    expected = fastdrop.apply_mask(np.ones(n, np.float32), mask, 0.5)
    memory[: mask.size] = mask
    out = memory.view(np.float32)
    fastdrop.apply_mask(np.ones(n, np.float32), memory[: mask.size], 0.5, out=out)
    assert_same(out, expected)


def test_masked_scale_scales_as_told():
    x = normal(1000)
    kept = fastdrop.dropout_mask(1000, 0.3, key=KEY)
    assert_same(masked_scale(x, 0.3, 1.0, key=KEY), np.where(kept, x, np.float32(0)))


# ---- what is refused ---------------------------------------------------------------------------

X = np.ones((4, 6), np.float32)
READ_ONLY = np.ones((4, 6), np.float32)
READ_ONLY.flags.writeable = False
BASE = np.ones((5, 6), np.float32)

REFUSED = [
    ({"p": -0.1}, ValueError, "p: expected .* got -0.1"),
    ({"p": 1.1}, ValueError, "p: expected .* got 1.1"),
    ({"p": float("nan")}, ValueError, "p: expected .* got nan"),
    ({"p": "half"}, TypeError, "p: expected a number, got str"),
    ({"p": None}, TypeError, "p: expected a number, got NoneType"),
    ({"x": X.astype(np.int32)}, TypeError, "x: expected .* got int32"),
    ({"x": X.astype(np.complex64)}, TypeError, "x: expected .* got complex64"),
    ({"x": X.astype(bool)}, TypeError, "x: expected .* got bool"),
    ({"x": X.astype(np.longdouble)}, TypeError, "x: expected .* got float128|longdouble"),
    ({"x": [1, 2]}, TypeError, "x: expected .* got int64"),
    ({"x": ["a"]}, TypeError, "x: expected .* got <U1"),
    ({"x": np.array([1.0], object)}, TypeError, "x: expected .* got object"),
    ({"key": 5}, TypeError, "key: expected a fastdrop.Key, got int"),
    ({"key": (1, 2)}, TypeError, "key: expected a fastdrop.Key, got tuple"),
    ({"shared_axes": 2}, ValueError, "shared_axes: expected axes of a 2-d array, got 2"),
    ({"shared_axes": (0, -2)}, ValueError, "shared_axes: expected each axis once"),
    ({"shared_axes": 0.5}, TypeError, "shared_axes: expected integers, got float"),
    ({"offset": -1}, ValueError, "offset: expected .* got -1"),
    ({"offset": 2**55}, ValueError, "offset: expected .*"),
    ({"offset": 1.5}, TypeError, "offset: expected an integer, got float"),
    ({"offset": 0.0}, TypeError, "offset: expected an integer, got float"),
    ({"offset": np.array([0])}, TypeError, "offset: expected an integer, got ndarray"),
    ({"shared_axes": "a"}, TypeError, "shared_axes: expected integers, got str"),
    ({"shared_axes": None}, TypeError, "shared_axes: expected integers, got NoneType"),
    ({"num_threads": np.array([2, 3])}, TypeError, "num_threads: expected an integer, got ndarray"),
    ({"training": False, "offset": -1}, ValueError, "offset: expected"),
    ({"training": False, "shared_axes": 5}, ValueError, "shared_axes: expected"),
    ({"p": 0, "key": "no"}, TypeError, "key: expected"),
    ({"num_threads": 0}, ValueError, "num_threads: expected at least 1, got 0"),
    ({"num_threads": -3}, ValueError, "num_threads: expected at least 1, got -3"),
    ({"num_threads": 1.5}, TypeError, "num_threads: expected an integer, got float"),
    (
        {"out": np.ones((6, 4), np.float32)},
        ValueError,
        r"out: expected shape \(4, 6\), got \(6, 4\)",
    ),
    ({"out": np.ones((4, 6))}, TypeError, "out: expected dtype float32, got float64"),
    ({"out": READ_ONLY}, ValueError, "out: expected a writeable array"),
    ({"out": [1.0]}, TypeError, "out: expected a NumPy array, got list"),
    ({"x": BASE[1:], "out": BASE[:-1]}, ValueError, "out: expected x itself or memory apart"),
]


@pytest.mark.parametrize(("options", "error", "message"), REFUSED)
def test_refused_before_anything_is_written(options, error, message):
    arguments = {"x": X, "p": 0.5, "key": KEY} | options
    out = arguments.get("out")
    before = out.copy() if isinstance(out, np.ndarray) else None
    with pytest.raises(error, match=f"^{message}") as caught:
        fastdrop.dropout(**arguments)
    assert "\n" not in str(caught.value)
    if before is not None:
        assert_same(out, before)


@pytest.mark.parametrize(
    ("mask", "options", "error", "message"),
    [
        (np.ones((4, 5), bool), {}, ValueError, r"mask: expected shape \(4, 6\), got \(4, 5\)"),
        (np.ones(24, bool), {}, ValueError, r"mask: expected shape \(4, 6\), got \(24,\)"),
        (np.ones(4, np.uint8), {}, ValueError, r"mask: expected shape \(3,\) for 24 packed bits"),
        (np.ones(3, np.uint8), {"shared_axes": 0}, ValueError, r"mask: .* \(1,\) for 6"),
        (np.ones((4, 6)), {}, TypeError, "mask: expected an array of bool, .* got float64"),
        ([True], {}, TypeError, "mask: expected an array of bool, .* got list"),
        (np.ones((4, 6), bool), {"p": 2}, ValueError, "p: expected"),
    ],
)
def test_apply_mask_refuses(mask, options, error, message):
    with pytest.raises(error, match=message):
        fastdrop.apply_mask(**({"x": X, "mask": mask, "p": 0.5} | options))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shape": -1}, "shape: expected lengths"),
        ({"shape": (2**40, 2**40)}, "shape: expected lengths"),
        ({"p": 3}, "p: expected"),
        ({"offset": -1}, "offset: expected"),
        ({"shared_axes": 1}, "shared_axes: expected"),
    ],
)
def test_dropout_mask_refuses(options, message):
    with pytest.raises(ValueError, match=message):
        fastdrop.dropout_mask(**({"shape": 5, "key": KEY} | options))
