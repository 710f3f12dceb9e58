"""Calibration against slow twins, sums over all orders, and closed forms."""

import io
import itertools
import math
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastdrop.calibration import (
    apply_temperature,
    expected_calibration_error,
    fit_temperature,
    interval_coverage,
    reliability_diagram,
    risk_coverage,
)

RNG = np.random.default_rng(0)


def softmax(z):
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def drawn(probabilities, seed=0):
    """A class for each row, by its probabilities."""
    u = np.random.default_rng(seed).random((len(probabilities), 1))
    return np.minimum((u > probabilities.cumsum(axis=1)).sum(axis=1), probabilities.shape[1] - 1)


def slow_reliability(probabilities, y, bins):
    """Guo et al. 2017, section 2, sample by sample."""
    edges = [i / bins for i in range(bins + 1)]
    found = [[] for _ in range(bins)]
    for row, label in zip(probabilities, y):
        best = max(range(len(row)), key=lambda k: row[k])
        for i in range(bins):
            if edges[i] < row[best] <= edges[i + 1] or (i == 0 and row[best] == 0):
                found[i].append((row[best], best == label))
    confidence = [np.mean([c for c, _ in samples]) if samples else math.nan for samples in found]
    accuracy = [np.mean([a for _, a in samples]) if samples else math.nan for samples in found]
    count = [len(samples) for samples in found]
    error = sum(n * abs(a - c) for n, a, c in zip(count, accuracy, confidence) if n) / len(y)
    return confidence, accuracy, count, error


@given(st.integers(1, 40), st.integers(2, 5), st.integers(1, 20), st.integers(0, 10**6))
def test_reliability_is_the_slow_twins(samples, classes, bins, seed):
    rng = np.random.default_rng(seed)
    probabilities = softmax(3 * rng.normal(size=(samples, classes)))
    y = rng.integers(0, classes, samples)
    confidence, accuracy, count, error = slow_reliability(probabilities, y, bins)
    diagram = reliability_diagram(probabilities, y, bins)
    np.testing.assert_allclose(diagram.edges, np.arange(bins + 1) / bins)
    np.testing.assert_allclose(diagram.confidence, confidence, rtol=1e-12)
    np.testing.assert_allclose(diagram.accuracy, accuracy, rtol=1e-12)
    np.testing.assert_array_equal(diagram.counts, count)
    assert expected_calibration_error(probabilities, y, bins) == pytest.approx(error, abs=1e-12)
    assert diagram.error == expected_calibration_error(probabilities, y, bins)


@pytest.mark.parametrize(
    ("probabilities", "y", "error"),
    [
        (np.eye(3), [0, 1, 2], 0),  # sure and right
        (np.eye(3), [1, 2, 0], 1),  # sure and wrong
        (np.full((4, 4), 0.25), [0, 1, 2, 3], 0),
        ([0.8] * 5, [1, 1, 1, 1, 0], 0),  # a sigmoid's
        ([0.2] * 5, [0, 0, 0, 0, 1], 0),  # as sure of class 0
        ([[0.9]] * 2, [1, 0], 0.4),
        ([0.5, 0.5], [0, 1], 0),
        (np.float16([[0.3333, 0.3333, 0.3333]]), [0], 1 - float(np.float16(0.3333))),
        ([[1 + 1e-7, 0]], [0], 0),  # a mean that was rounded
    ],
)
def test_known_calibration_errors(probabilities, y, error):
    assert expected_calibration_error(probabilities, y) == pytest.approx(error, abs=1e-6)


def test_what_a_model_draws_from_is_calibrated():
    probabilities = softmax(2 * RNG.normal(size=(40_000, 5)))
    y = drawn(probabilities)
    assert expected_calibration_error(probabilities, y) < 0.01
    assert expected_calibration_error(softmax(3 * np.log(probabilities)), y) > 0.1


def mean_loss(z, y, temperature):
    return -np.log(softmax(z / temperature)[np.arange(len(z)), y]).mean()


@given(st.integers(5, 60), st.integers(2, 6), st.sampled_from([1e-6, 0.1, 3, 1e5]), st.integers(0))
def test_no_other_temperature_is_better(samples, classes, scale, seed):
    z = scale * np.random.default_rng(seed % 2**32).normal(size=(samples, classes))
    y = drawn(softmax(1.3 * z / scale), seed % 2**32)
    chosen = z[np.arange(samples), y]
    if (chosen == z.max(axis=1)).all():
        with pytest.raises(ValueError, match="best temperature would be 0"):
            fit_temperature(z, y)
    elif chosen.mean() <= z.mean():
        with pytest.raises(ValueError, match="best temperature would be infinite"):
            fit_temperature(z, y)
    else:
        best = fit_temperature(z, y)
        least = mean_loss(z, y, best)
        # the loss is convex in 1 / T: two neighbours tell
        for factor in (0.5, 0.99, 1.01, 2):
            assert mean_loss(z, y, factor * best) >= least
        assert fit_temperature(z * 7 + 5, y) == pytest.approx(7 * best, rel=1e-9)


@pytest.mark.parametrize("scale", [1e-3, 1, 50])
@pytest.mark.parametrize(("right", "samples"), [(6, 10), (9, 10), (999, 1000)])
def test_temperature_in_closed_form(scale, right, samples):
    """Logits of one size: the temperature that says `right / samples` of what is right."""
    y = np.arange(samples) >= samples - right
    q = right / samples
    expected = scale / math.log(q / (1 - q))
    z = np.full(samples, float(scale))  # of a sigmoid that always says 1
    for logits in (z, z[:, np.newaxis], np.stack([0 * z, z], axis=1)):
        assert fit_temperature(logits, y) == pytest.approx(expected, rel=1e-9)
    classes = 4  # one of them has the scale, three have 0
    of_others = np.where(y, 0, 1 + np.arange(samples) % (classes - 1))
    expected = scale / math.log(q * (classes - 1) / (1 - q))
    if expected > 0:
        z = scale * np.eye(classes)[np.zeros(samples, int)]
        assert fit_temperature(z, of_others) == pytest.approx(expected, rel=1e-9)


def test_temperature_calibrates():
    z = 5 * RNG.normal(size=(20_000, 10))
    y = drawn(softmax(z / 3))
    temperature = fit_temperature(z[:10_000], y[:10_000])
    assert temperature == pytest.approx(3, rel=0.05)
    before = expected_calibration_error(apply_temperature(z[10_000:], 1), y[10_000:])
    after = expected_calibration_error(apply_temperature(z[10_000:], temperature), y[10_000:])
    assert after < 0.02 < 0.2 < before


def test_ruled_out_classes():
    z = np.array([[0.0, 1, -math.inf]] * 4)
    y = [1, 1, 1, 0]
    assert fit_temperature(z, y) == pytest.approx(fit_temperature(z[:, :2], y))
    np.testing.assert_array_equal(apply_temperature(z, 2)[:, 2], 0)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_apply_temperature(dtype):
    z = RNG.normal(size=(7, 3)).astype(dtype)
    result = apply_temperature(z, 1.7)
    assert result.dtype == dtype
    np.testing.assert_allclose(result, softmax(z.astype(float) / 1.7), rtol=2 * np.finfo(dtype).eps)
    for column in (z[:, 0], z[:, :1]):
        result = apply_temperature(column, 1.7)
        assert result.shape == column.shape
        expected = 1 / (1 + np.exp(-column.astype(float) / 1.7))
        np.testing.assert_allclose(result, expected, rtol=2 * np.finfo(dtype).eps)
    assert apply_temperature([3, 4], 1).dtype == np.float64


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 5)), min_size=1, max_size=6),
)
def test_risk_is_the_mean_over_all_orders(samples):
    uncertainty, loss = map(np.array, zip(*samples))
    curves = []
    for order in itertools.permutations(range(len(samples))):
        if (np.diff(uncertainty[list(order)]) >= 0).all():
            costs = [loss[i] for i in order]
            curves.append([sum(costs[: n + 1]) / (n + 1) for n in range(len(costs))])
    curve = risk_coverage(uncertainty, loss)
    np.testing.assert_allclose(curve.risk, np.mean(curves, axis=0), atol=1e-12)
    np.testing.assert_allclose(curve.coverage * len(samples), np.arange(1, len(samples) + 1))
    assert curve.area == pytest.approx(np.mean(curves))


def test_known_risks():
    wrong = np.arange(1000) >= 900
    best = risk_coverage(np.arange(1000), wrong)
    assert best.risk[899] == 0
    assert best.risk[-1] == 0.1
    # sum over n > 900 of (n - 900) / n, by harmonic numbers
    n = np.arange(901, 1001)
    assert best.area == pytest.approx((1 - 900 / n).sum() / 1000)
    blind = risk_coverage(np.zeros(1000), wrong)
    np.testing.assert_allclose(blind.risk, 0.1)
    assert risk_coverage(-np.arange(1000), wrong).area > blind.area


@given(st.lists(st.tuples(*[st.integers(-3, 3)] * 3), min_size=1))
def test_interval_coverage_counts(rows):
    rows = [(min(a, b), max(a, b), y) for a, b, y in rows]
    lower, upper, y = map(np.array, zip(*rows))
    expected = sum(a <= v <= b for a, b, v in rows) / len(rows)
    assert interval_coverage(lower, upper, y) == expected
    assert interval_coverage(lower[:, np.newaxis], upper, y) == expected


def test_normal_intervals():
    y = RNG.normal(size=100_000)
    for width, share in ((1, 0.682689), (1.959964, 0.95)):
        assert interval_coverage(0 * y - width, 0 * y + width, y) == pytest.approx(share, abs=0.005)
    assert interval_coverage(y * 0 - math.inf, y * 0, y) == pytest.approx(0.5, abs=0.005)


OK = np.array([[0.7, 0.3], [0.4, 0.6]])
NAN, INF = math.nan, math.inf


@pytest.mark.parametrize(
    ("function", "arguments", "message"),
    [
        (expected_calibration_error, (OK, [0, 2]), "y: expected class numbers from 0 to 1, got 2"),
        (expected_calibration_error, (OK, [0, -1]), "from 0 to 1, got -1"),
        (expected_calibration_error, (OK, [0, 0.5]), "from 0 to 1, got 0.5"),
        (expected_calibration_error, (OK, [0, NAN]), "from 0 to 1, got nan"),
        (expected_calibration_error, (OK, [0]), r"y: expected class numbers of shape \(2,\)"),
        (expected_calibration_error, (OK, np.eye(2)), r"one-hot labels need \.argmax\(axis=1\)"),
        (expected_calibration_error, (OK, ["a", "b"]), "y: expected an array of numbers"),
        (expected_calibration_error, (OK[:0], []), "probabilities: expected some samples"),
        (expected_calibration_error, (np.empty((2, 0)), [0, 0]), "probabilities: expected some"),
        (expected_calibration_error, (0.5, [0]), "probabilities: expected some samples"),
        (expected_calibration_error, (OK[np.newaxis], [0]), "probabilities: expected some samples"),
        (expected_calibration_error, (OK + 0.1, [0, 1]), "rows that add up to 1, got a sum of 1.2"),
        (expected_calibration_error, (10 * OK, [0, 1]), r"numbers in \[0, 1\], got 7; apply_temp"),
        (expected_calibration_error, (OK * NAN, [0, 1]), r"numbers in \[0, 1\], got nan"),
        (expected_calibration_error, ([-0.5, 0.5], [0, 1]), r"numbers in \[0, 1\], got"),
        (expected_calibration_error, (OK, [0, 1], 0), "bins: expected a whole number of at least"),
        (reliability_diagram, (OK, [0, 1], 2.5), "bins: expected a whole number"),
        (reliability_diagram, (OK, [0, 3]), "from 0 to 1, got 3"),
        (fit_temperature, (OK[:0], []), "logits: expected some samples"),
        (fit_temperature, (OK * NAN, [0, 1]), "logits: expected finite numbers or -inf, got NaN"),
        (fit_temperature, ([[INF, 0]], [0]), "logits: expected finite numbers or -inf"),
        (fit_temperature, ([[-INF, -INF]], [0]), "logits: expected finite numbers or -inf"),
        (fit_temperature, ([[-INF, 0]], [0]), "logits: expected finite numbers for the classes"),
        (fit_temperature, (OK, [0, 1]), "best temperature would be 0"),
        (fit_temperature, (OK, [1, 0]), "best temperature would be infinite"),
        (fit_temperature, (OK, [0, 5]), "from 0 to 1, got 5"),
        (apply_temperature, (OK, 0), "temperature: expected a finite number above 0, got 0"),
        (apply_temperature, (OK, NAN), "temperature: expected a finite number above 0"),
        (apply_temperature, (OK * NAN, 1), "logits: expected finite"),
        (apply_temperature, ([], 1), "logits: expected some samples"),
        (risk_coverage, ([], []), "uncertainty: expected some samples"),
        (risk_coverage, ([1, 2], [1]), "loss: expected 2 samples as in uncertainty, got 1"),
        (risk_coverage, ([1, NAN], [1, 0]), "uncertainty: expected finite numbers, got NaN"),
        (risk_coverage, ([1, 2], [1, INF]), "loss: expected finite numbers, got NaN or infinity"),
        (risk_coverage, (OK, [0, 1]), r"uncertainty: expected shape \(samples,\), got \(2, 2\)"),
        (interval_coverage, ([], [], []), "lower: expected some samples"),
        (interval_coverage, ([0, 0], [1], [0, 0]), r"upper: expected shape \(2,\) as lower's"),
        (interval_coverage, ([0, 0], [1, 1], OK), r"y: expected shape \(2,\) as lower's"),
        (interval_coverage, ([0], [NAN], [0]), "upper: expected numbers, got NaN"),
        (interval_coverage, ([0], [1], [NAN]), "y: expected numbers, got NaN"),
        (interval_coverage, ([2], [1], [0]), "lower: expected at most upper, got 2 and 1"),
    ],
)
def test_bad_input(function, arguments, message):
    with pytest.raises(ValueError, match=message) as raised:
        function(*arguments)
    assert len(str(raised.value)) <= 200
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("function", ["render_reliability", "render_risk_coverage"])
def test_pictures(function):
    """They are PNG files, which show what they are given: other numbers, another picture."""
    pytest.importorskip("matplotlib", reason="needs matplotlib: the extra plot")
    from matplotlib.image import imread

    from fastdrop import diagrams

    render = getattr(diagrams, function)
    more = () if function == "render_reliability" else ("errors",)
    results = []
    for seed in range(2):
        probabilities = softmax(np.random.default_rng(seed).normal(size=(50, 3)))
        if function == "render_reliability":
            results.append(reliability_diagram(probabilities, drawn(probabilities)))
        else:
            results.append(risk_coverage(-probabilities.max(axis=1), probabilities[:, 0]))
    # a $ is no formula
    pictures = [render({"a $ b": result, "c": results[0]}, "$ of $", *more) for result in results]
    first, second = (imread(io.BytesIO(picture)) for picture in pictures)
    assert first.shape == second.shape
    assert (first != second).any()
    assert render({"a $ b": results[0], "c": results[0]}, "$ of $", *more) == pictures[0]
    with pytest.raises(ValueError, match="expected at least one, got none"):
        render({}, "title", *more)


def test_pictures_without_matplotlib(monkeypatch):
    monkeypatch.delitem(sys.modules, "fastdrop.diagrams", raising=False)
    monkeypatch.setitem(sys.modules, "matplotlib.axes", None)
    with pytest.raises(ImportError, match=r"pip install 'fastdrop-nn\[plot\]'"):
        import fastdrop.diagrams  # noqa: F401


def test_underflow_is_no_mistake():
    z = 300 * RNG.normal(size=(200, 5)).astype(np.float32)
    y = drawn(softmax(z / 200))
    with np.errstate(all="raise"):
        temperature = fit_temperature(z, y)
        probabilities = apply_temperature(z, 0.5)
        reliability_diagram(probabilities, y)
        risk_coverage(-probabilities.max(axis=1), probabilities.argmax(axis=1) != y)
        interval_coverage(y - 1e-300, y + 1e-300, y)
    assert (probabilities == 0).any()
    assert temperature == fit_temperature(z, y)
