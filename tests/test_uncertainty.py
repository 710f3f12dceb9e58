"""Predictions and their accumulator: what is streamed is what NumPy says of all samples at once."""

import math
import tracemalloc

import numpy as np
import pytest

from fastdrop.uncertainty import Accumulator, Prediction, checked_quantiles, rows_at_once

SHAPES = [(1, (1,)), (1, (3,)), (7, (1,)), (5, (2, 4))]
GROUPS = [(40,), (1,) * 40, (3, 30, 7), (39, 1), (0, 40)]


def drawn(rows, shape, activation="linear", dtype=np.float32, seed=0):
    z = 3 * np.random.default_rng(seed).standard_normal((40, rows, *shape)) + 1
    if activation == "softmax":
        e = np.exp(z - z.max(axis=-1, keepdims=True))
        z = e / e.sum(axis=-1, keepdims=True)
    elif activation == "sigmoid":
        z = 1 / (1 + np.exp(-z))
    return z.astype(dtype)


def predicted(samples, groups=(40,), activation="linear", **options):
    accumulator = Accumulator(samples.shape[1], samples.shape[2:], activation, **options)
    start = 0
    for count in groups:
        group = samples[start : start + count].copy()
        accumulator.add(group)
        group[...] = np.nan  # which is the caller's again
        start += count
    return accumulator.prediction()


FIGURES = ("mean", "std", "entropy", "expected_entropy", "mutual_information", "variation_ratio")


def figures(prediction):
    names = FIGURES if prediction.activation != "linear" else FIGURES[:2]
    return {name: getattr(prediction, name) for name in names}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("rows", "shape"), SHAPES)
def test_streamed_is_what_numpy_says(rows, shape, dtype):
    samples = drawn(rows, shape, dtype=dtype)
    got = predicted(samples, (3, 30, 7), quantiles=np.array([0.1, 0.5]), return_samples=True)
    exact = samples.astype(np.float64)
    np.testing.assert_allclose(got.mean, exact.mean(axis=0), rtol=1e-13, atol=1e-14)
    np.testing.assert_allclose(got.std, exact.std(axis=0), rtol=1e-13)
    np.testing.assert_array_equal(got.quantiles, np.quantile(samples, [0.1, 0.5], axis=0))
    np.testing.assert_array_equal(got.samples, samples)
    assert got.samples.dtype == dtype
    assert {a.dtype for a in (got.mean, got.std, got.quantiles)} == {np.dtype(np.float64)}


def test_a_small_deviation_from_a_large_mean():
    samples = 1e6 + drawn(4, (2,), dtype=np.float64)
    np.testing.assert_allclose(predicted(samples).std, samples.std(axis=0), rtol=1e-9)
    constant = np.full((40, 3, 2), 0.1, np.float32)
    assert (predicted(constant).std == 0).all()
    assert (predicted(constant).mean == np.float32(0.1)).all()


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
@pytest.mark.parametrize(("rows", "shape"), SHAPES[1:])
def test_entropies(rows, shape, activation):
    samples = drawn(rows, shape, activation)
    got = predicted(samples, (3, 30, 7), activation)
    p = samples.astype(np.float64)

    def entropy(p):
        terms = -p * np.log(p)
        return terms.sum(axis=-1) if activation == "softmax" else terms - (1 - p) * np.log(1 - p)

    np.testing.assert_allclose(got.entropy, entropy(p.mean(axis=0)), rtol=1e-12)
    np.testing.assert_allclose(got.expected_entropy, entropy(p).mean(axis=0), rtol=1e-5, atol=1e-6)
    information = got.entropy - got.expected_entropy
    np.testing.assert_array_equal(got.mutual_information, np.maximum(information, 0))
    votes = p > 0.5
    if activation == "softmax":
        votes = p.argmax(axis=-1)[..., np.newaxis] == np.arange(shape[-1])
    share = votes.mean(axis=0)
    most = share.max(axis=-1) if activation == "softmax" else np.maximum(share, 1 - share)
    np.testing.assert_allclose(got.variation_ratio, 1 - most, atol=1e-12)


def test_other_floats_are_taken_as_float32():
    samples = drawn(3, (2,), dtype=np.float16)
    np.testing.assert_array_equal(
        predicted(samples).mean, predicted(samples.astype(np.float32)).mean
    )


def test_certain_classes_have_no_entropy():
    certain = predicted(np.tile(np.eye(3, dtype=np.float32), (40, 1, 1)), activation="softmax")
    for name in FIGURES[2:]:
        assert (getattr(certain, name) == 0).all(), name


@pytest.mark.parametrize("groups", GROUPS)
@pytest.mark.parametrize("activation", ["linear", "softmax", "sigmoid"])
@pytest.mark.parametrize(("rows", "shape"), SHAPES)
def test_neither_groups_nor_blocks_of_rows_change_a_bit(rows, shape, activation, groups):
    samples = drawn(rows, shape, activation)
    whole = predicted(samples, activation=activation)
    in_groups = predicted(samples, groups, activation)
    blocks = [predicted(samples[:, [row]], groups, activation) for row in range(rows)]
    for other in (in_groups, Prediction.concatenate(blocks)):
        for name, figure in figures(whole).items():
            np.testing.assert_array_equal(getattr(other, name), figure, name)


def test_memory_does_not_grow_with_samples():
    def peak(samples):
        tracemalloc.start()
        accumulator = Accumulator(50, (10,), "softmax")
        batch = drawn(50, (10,), "softmax")
        for _ in range(samples // 40):
            accumulator.add(batch)
        accumulator.prediction()
        used = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return used

    few = peak(80)
    assert peak(4000) < 1.1 * few


def test_log_likelihood_of_the_mixture():
    samples, y, tau = drawn(6, (2,)), np.arange(12.0).reshape(6, 2), 0.7
    got = predicted(samples, return_samples=True).log_likelihood(y, tau)
    each = -tau * (y - samples.astype(np.float64)) ** 2 / 2 + math.log(tau / (2 * math.pi)) / 2
    expected = np.log(np.exp(each.sum(axis=-1)).mean(axis=0)).mean()
    assert got == pytest.approx(expected, rel=1e-12)
    assert isinstance(got, float)


def test_log_likelihood_without_samples_is_a_normal_distributions():
    samples, y, tau = drawn(6, (1,)), np.arange(6.0), 0.7
    got = predicted(samples)
    variance = got.std[:, 0] ** 2 + 1 / tau
    each = -((y - got.mean[:, 0]) ** 2) / variance / 2 - np.log(2 * math.pi * variance) / 2
    assert got.log_likelihood(y, tau) == pytest.approx(each.mean(), rel=1e-12)
    assert got.log_likelihood(y[:, np.newaxis], tau) == got.log_likelihood(list(y), tau)
    normal = np.random.default_rng(0).standard_normal((20000, 1, 1)) * 2  # where both are one
    both = [predicted(normal, (20000,), return_samples=kept) for kept in (True, False)]
    one, other = (prediction.log_likelihood([1.0], tau) for prediction in both)
    assert one == pytest.approx(other, abs=0.02)


def test_far_labels_have_a_finite_log_likelihood():
    got = predicted(drawn(1, (1,)), return_samples=True)
    assert np.isfinite(got.log_likelihood([1e6], 100.0))


@pytest.mark.parametrize("kept", [True, False])
@pytest.mark.parametrize(("y", "tau"), [(1e200, 1.0), (1e150, 1e300), (1.0, 5e-324)])
def test_labels_farther_than_numbers_reach_are_no_error(kept, y, tau):
    got = predicted(drawn(2, (1,)), return_samples=kept).log_likelihood([y, 0.0], tau)
    assert got < 0  # which may be -inf, and is not NaN


def test_tau_of_few_bits():
    got = predicted(drawn(1, (1,)))
    assert got.log_likelihood([1.0], np.float16(1e-4)) == got.log_likelihood(
        [1.0], float(np.float16(1e-4))
    )


@pytest.mark.parametrize(
    ("y", "tau", "error", "words"),
    [
        (np.zeros(5), 1.0, ValueError, "y: expected a number for each output"),
        (np.zeros((6, 1)), 1.0, ValueError, "y: expected a number for each output"),
        (np.full((6, 2), np.nan), 1.0, ValueError, "y: expected finite numbers"),
        (np.full((6, 2), "a"), 1.0, ValueError, "y: expected an array of numbers"),
        (np.zeros((6, 2)), 0, ValueError, "tau: expected a finite number above 0"),
        (np.zeros((6, 2)), np.nan, ValueError, "tau: expected a finite number above 0"),
        (np.zeros((6, 2)), "1", ValueError, "tau: expected a finite number above 0"),
    ],
)
def test_bad_labels(y, tau, error, words):
    with pytest.raises(error, match=words):
        predicted(drawn(6, (2,))).log_likelihood(y, tau)


def test_figures_that_outputs_do_not_have():
    regression = predicted(drawn(2, (3,)))
    for name in FIGURES[2:]:
        with pytest.raises(AttributeError, match=f"^{name}: expected outputs of softmax"):
            getattr(regression, name)
        assert not hasattr(regression, name)
    with pytest.raises(AttributeError, match="log_likelihood: expected outputs of a regression"):
        predicted(drawn(2, (3,), "softmax"), activation="softmax").log_likelihood([0, 1], 1)


@pytest.mark.parametrize("bad", [-0.1, 1.1, np.nan, [0.5, 2], [], "0.5", [[0.5]], float])
def test_bad_quantiles(bad):
    with pytest.raises(ValueError, match=r"^quantiles: expected"):
        checked_quantiles(bad)


def test_good_quantiles():
    assert checked_quantiles(None) is None
    np.testing.assert_array_equal(checked_quantiles(0.5), [0.5])
    np.testing.assert_array_equal(checked_quantiles((0, 1)), [0.0, 1.0])


def test_samples_of_another_shape():
    with pytest.raises(ValueError, match=r"outputs: expected shape \(samples, 2, 3\)"):
        Accumulator(2, (3,)).add(np.zeros((4, 2, 1)))


def test_rows_at_once():
    assert rows_at_once(100, 10, 4, 1024) == 1024
    assert 1 < rows_at_once(100_000, 10, 4, 1024) < 10
    assert rows_at_once(10**9, 10, 8, 1024) == 1
