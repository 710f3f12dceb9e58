import json
import math
from typing import NamedTuple

import numpy as np
import pytest
from gradients import central_differences

import fastdrop
from fastdrop import losses
from fastdrop.layers import Activation
from fastdrop.losses import LOSSES, Huber

RNG = np.random.default_rng(0)
ONE_HOT = np.eye(3)[[2, 0, 1, 1, 0]]


class Case(NamedTuple):
    loss: str | losses.Loss
    y: np.ndarray
    outputs: np.ndarray  # as an activation gives them


def probabilities(*shape):
    p = RNG.uniform(0.05, 0.9, shape)
    return p / p.sum(axis=-1, keepdims=True)


CASES = {
    "mse": Case("mse", RNG.normal(size=(5, 2)), RNG.normal(size=(5, 2))),
    "mse, column": Case("mse", RNG.normal(size=5), RNG.normal(size=(5, 1))),
    "mae": Case("mae", RNG.normal(size=(5, 2)), RNG.normal(size=(5, 2))),
    "huber": Case("huber", RNG.normal(size=(5, 2)), 2 * RNG.normal(size=(5, 2))),
    "huber, delta": Case(Huber(0.3), RNG.normal(size=5), RNG.normal(size=(5, 1))),
    "kl": Case("kl_divergence", probabilities(5, 3), probabilities(5, 3)),
    "kl, one-hot": Case("kl_divergence", ONE_HOT, probabilities(5, 3)),
    "categorical": Case("categorical_crossentropy", ONE_HOT, probabilities(5, 3)),
    "categorical, smooth": Case(
        losses.CategoricalCrossentropy(label_smoothing=0.2), ONE_HOT, probabilities(5, 3)
    ),
    "categorical logits": Case(
        losses.CategoricalCrossentropy(from_logits=True), ONE_HOT, RNG.normal(size=(5, 3))
    ),
    "sequences, one-hot": Case(
        "categorical_crossentropy", np.eye(3)[[[0, 1], [2, 2]]], probabilities(2, 2, 3)
    ),
    "soft labels": Case("categorical_crossentropy", probabilities(5, 3), probabilities(5, 3)),
    "sums not 1": Case("categorical_crossentropy", ONE_HOT, RNG.uniform(0.1, 2, (5, 3))),
    "sparse": Case("sparse_categorical_crossentropy", np.arange(5) % 3, probabilities(5, 3)),
    "sparse floats": Case("sparse_categorical_crossentropy", np.ones((5, 1)), probabilities(5, 3)),
    "sequences": Case(
        "sparse_categorical_crossentropy", np.array([[0, 1], [2, 2]]), probabilities(2, 2, 3)
    ),
    "binary": Case("binary_crossentropy", np.array([0, 1, 1, 0]), RNG.uniform(0.1, 0.9, (4, 1))),
    "binary, smooth": Case(
        losses.BinaryCrossentropy(label_smoothing=0.2),
        np.array([0, 1, 1, 0]),
        RNG.uniform(0.1, 0.9, (4, 1)),
    ),
    "binary logits": Case(losses.BinaryCrossentropy(True), ONE_HOT, RNG.normal(size=(5, 3))),
    "sparse logits": Case(
        losses.SparseCategoricalCrossentropy(True), np.arange(5) % 3, RNG.normal(size=(5, 3))
    ),
    "multi-label": Case("binary_crossentropy", ONE_HOT, RNG.uniform(0.1, 0.9, (5, 3))),
}


@pytest.fixture(params=CASES.values(), ids=list(CASES))
def case(request):
    return request.param


def prepared(case):
    loss = losses.get(case.loss)
    return loss, loss.targets(case.y, case.outputs.shape[1:], dtype=np.float64)


@pytest.mark.parametrize("weighted", [False, True])
def test_gradient_is_that_of_central_differences(case, weighted):
    (loss, y), outputs = prepared(case), case.outputs.copy()
    weight = RNG.uniform(size=len(y)) if weighted else None
    value, gradient = loss(outputs, y, sample_weight=weight)
    expected = central_differences(lambda: loss(outputs, y, sample_weight=weight)[0], outputs)
    assert isinstance(value, float)
    np.testing.assert_allclose(gradient, expected, rtol=1e-5, atol=1e-8)


def test_weights_are_factors_of_the_samples_losses(case):
    """As in Keras, what is divided by is the number of samples, not the sum of weights."""
    loss, y = prepared(case)
    weight = np.arange(len(y)) / 2
    each = [loss(case.outputs[i : i + 1], y[i : i + 1])[0] for i in range(len(y))]
    value, _ = loss(case.outputs, y, sample_weight=weight)
    assert value == pytest.approx(np.dot(weight, each) / len(y))


FOLDING = [name for name, case in CASES.items() if losses.get(case.loss).folds]


@pytest.mark.parametrize("name", FOLDING)
def test_logits_agree_with_probabilities(name):
    case = CASES[name]
    loss, y = prepared(case)
    logits = RNG.normal(size=case.outputs.shape)
    value, gradient = loss(logits, y, from_logits=True)
    config = {**loss.get_config(), "from_logits": False}
    plain = type(loss).from_config(config)
    assert value == pytest.approx(plain(Activation(loss.folds)(logits), y)[0], rel=1e-6)
    expected = central_differences(lambda: loss(logits, y, from_logits=True)[0], logits)
    np.testing.assert_allclose(gradient, expected, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("name", FOLDING)
def test_a_loss_of_logits_takes_them_in_every_call(name):
    """So a last layer whose activation is folded is not applied twice."""
    case = CASES[name]
    loss, y = prepared(case)
    of_logits = type(loss).from_config({**loss.get_config(), "from_logits": True})
    expected, expected_gradient = loss(case.outputs, y, from_logits=True)
    for from_logits in (False, True):
        value, gradient = of_logits(case.outputs, y, from_logits)
        assert value == expected
        np.testing.assert_array_equal(gradient, expected_gradient)


# fewer rows than are taken together, more, and rows that are longer than these together
@pytest.mark.parametrize("shape", [(3, 2), (300, 7), (2, 3001)])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_cross_entropy_of_logits_has_the_same_bits_on_every_instruction_set(isa, dtype, shape):
    logits = (20 * RNG.normal(size=shape)).astype(dtype)
    labels = RNG.integers(shape[1], size=shape[0])
    one_hot = np.eye(shape[1], dtype=dtype)[labels]

    def found():
        return [
            *losses.SparseCategoricalCrossentropy()(logits, labels, from_logits=True),
            *losses.CategoricalCrossentropy()(logits, one_hot, from_logits=True),
            Activation("softmax")(logits),
        ]

    with fastdrop.use_isa("generic"):
        expected = found()
    for a, b in zip(found(), expected):
        np.testing.assert_array_equal(a, b)
    e = np.exp(logits - logits.max(axis=1, keepdims=True).astype(np.float64))
    p = e / e.sum(axis=1, keepdims=True)
    epsilon = float(np.finfo(dtype).eps)
    value, gradient, _, _, softmax = expected
    assert value == pytest.approx(-np.log(p[one_hot > 0]).mean(), rel=10 * epsilon)
    bound = {"rtol": 100 * epsilon, "atol": 2 * epsilon}
    np.testing.assert_allclose(gradient * len(p), p - one_hot, **bound)
    np.testing.assert_allclose(softmax, p, **bound)


@pytest.mark.parametrize("place", [0, 1, 6])
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_row_that_is_not_finite_spoils_no_other_row(isa, bad, place):
    logits = RNG.normal(size=(40, 7))
    expected = Activation("softmax")(logits)
    logits[20, place] = bad
    found = Activation("softmax")(logits)
    assert np.isnan(found[20]).any()
    others = np.arange(40) != 20
    np.testing.assert_array_equal(found[others], expected[others])


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_shows_in_the_loss_without_a_warning(case, bad):
    loss, y = prepared(case)
    for from_logits in {False, loss.folds is not None}:
        value, _ = loss(np.full_like(case.outputs, bad), y, from_logits)
        assert not math.isfinite(value) or (math.isinf(bad) and not from_logits)  # may be clipped


def test_config_makes_an_equal_loss(case):
    loss, y = prepared(case)
    data = json.loads(json.dumps(losses.serialize(loss)))
    other = losses.get(data)
    assert type(other) is type(loss)
    assert other(case.outputs, y)[0] == loss(case.outputs, y)[0]


def test_names():
    assert isinstance(losses.get("MSE"), losses.MeanSquaredError)
    assert isinstance(losses.get("Kullback_Leibler_Divergence"), losses.KLDivergence)
    loss = Huber()
    assert losses.get(loss) is loss


def test_gradient_keeps_the_outputs_dtype(case):
    loss = losses.get(case.loss)
    y = loss.targets(case.y, case.outputs.shape[1:])
    for from_logits in {False, loss.folds is not None}:
        for weight in (None, np.ones(len(y))):
            _, gradient = loss(case.outputs.astype(np.float32), y, from_logits, weight)
            assert gradient.dtype == np.float32


KNOWN_VALUES = {
    "mse": ("mse", [[1.0, 2.0]], [[3.0, 3.0]], False, 2.5),
    "categorical": ("categorical_crossentropy", [[0, 1]], [[0.5, 0.5]], False, math.log(2)),
    "sparse": ("sparse_categorical_crossentropy", [1], [[1.0, 3.0]], False, math.log(4 / 3)),
    "binary": ("binary_crossentropy", [1], [[0.25]], False, math.log(4)),
    "clipped": ("binary_crossentropy", [1], [[0.0]], False, -math.log(1e-7)),
    "clipped class": ("sparse_categorical_crossentropy", [0], [[0.0, 1.0]], False, -math.log(1e-7)),
    "huber": ("huber", [[0.0, 0.0]], [[0.5, 3.0]], False, (0.125 + 2.5) / 2),
    "kl": ("kld", [[0.5, 0.5]], [[0.25, 0.75]], False, math.log(2) - math.log(3) / 2),
    "large logits": ("sparse_categorical_crossentropy", [0], [[-1e4, 1e4]], True, 2e4),
    "large logit": ("binary_crossentropy", [1], [[-1e4]], True, 1e4),
}


@pytest.mark.parametrize(
    ("name", "y", "outputs", "from_logits", "expected"),
    KNOWN_VALUES.values(),
    ids=list(KNOWN_VALUES),
)
def test_known_values(name, y, outputs, from_logits, expected):
    loss = LOSSES[name]()
    outputs = np.array(outputs)
    value, gradient = loss(outputs, loss.targets(y, outputs.shape[1:]), from_logits)
    assert value == pytest.approx(expected, rel=1e-6)
    assert np.isfinite(gradient).all()


BAD_LABELS = {
    "too large": ("sparse_categorical_crossentropy", [0, 3], (3,), r"\[0, 3\).* got 3"),
    "negative": ("sparse_categorical_crossentropy", [0, -1], (3,), "got -1"),
    "fraction": ("sparse_categorical_crossentropy", [0.5], (3,), "whole numbers"),
    "NaN": ("sparse_categorical_crossentropy", [math.nan], (3,), "got nan"),
    "one-hot": ("sparse_categorical_crossentropy", np.eye(3), (3,), "categorical_crossentropy"),
    "class numbers": ("categorical_crossentropy", [0, 1], (3,), "sparse_categorical_crossentropy"),
    "not one-hot": ("categorical_crossentropy", [[0, 2]], (2,), r"\[0, 1\]"),
    "no probability": ("binary_crossentropy", [[-1.0]], (1,), r"\[0, 1\].* got -1.0"),
    "NaN in binary": ("binary_crossentropy", [[math.nan]], (1,), r"\[0, 1\]"),
    "infinite": ("mse", [[math.inf]], (1,), "finite"),
    "mse shape": ("mse", np.ones((2, 3)), (2,), r"\(samples, 2\).* got \(2, 3\)"),
    "text": ("mse", ["a"], (1,), "numbers"),
    "scalar": ("sparse_categorical_crossentropy", 1, (3,), "array of numbers"),
}


def test_labels_are_as_large_as_the_outputs_dtype_holds():
    loss, y = losses.get("mse"), np.array([1e300])
    np.testing.assert_array_equal(loss.targets(y, (1,), dtype=np.float64), [[1e300]])
    with pytest.raises(ValueError, match="y: expected finite numbers that float32 holds"):
        loss.targets(y, (1,))


@pytest.mark.parametrize(
    ("name", "y", "output_shape", "message"), BAD_LABELS.values(), ids=list(BAD_LABELS)
)
def test_bad_labels(name, y, output_shape, message):
    with pytest.raises(ValueError, match="y_val: .*" + message):
        LOSSES[name]().targets(y, output_shape, "y_val")


BAD_ARGUMENTS = {
    "name": (lambda: losses.get("hinge"), "loss: .*mse.*got 'hinge'"),
    "type": (lambda: losses.get(None), "loss: .*mse.*got None"),
    "class": (lambda: losses.get({"class_name": "H", "config": {}}), "loss: .*Huber.*got 'H'"),
    "dict": (lambda: losses.get({"name": "mse"}), "loss: expected a dict of class_name"),
    "delta": (lambda: Huber(0), "delta: expected"),
    "smoothing text": (
        lambda: losses.CategoricalCrossentropy(label_smoothing="a"),
        "label_smoothing: .* got 'a'",
    ),
    "smoothing": (lambda: losses.BinaryCrossentropy(label_smoothing=1), "label_smoothing:"),
}


@pytest.mark.parametrize(("call", "message"), BAD_ARGUMENTS.values(), ids=list(BAD_ARGUMENTS))
def test_bad_arguments(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, ">f4", ">f8"])
def test_sparse_crossentropy_from_logits_takes_any_floats(dtype):
    logits = np.random.default_rng(0).normal(size=(5, 4)).astype(dtype)
    y = np.array([0, 3, 1, 1, 2], np.int8)
    value, gradient = losses.SparseCategoricalCrossentropy(True)(logits[:, ::-1], y)
    expected, slope = losses.CategoricalCrossentropy(True)(
        logits[:, ::-1].astype(np.float64), np.eye(4)[y]
    )
    accuracy = 1e-3 if dtype is np.float16 else 1e-6
    np.testing.assert_allclose(value, expected, rtol=accuracy)
    np.testing.assert_allclose(gradient.astype(np.float64), slope, atol=accuracy)
    assert gradient.dtype == dtype


@pytest.mark.parametrize("label", [-1, 4, 1 << 40])
def test_sparse_crossentropy_refuses_labels_that_no_output_has(label):
    with pytest.raises(ValueError, match=r"y: expected class numbers in \[0, 4\)"):
        losses.SparseCategoricalCrossentropy(True)(
            np.ones((2, 4), np.float32), np.array([0, label])
        )


@pytest.mark.parametrize("labels", [np.zeros(2, int), np.ones((2, 3)), np.ones((9, 2))])
def test_labels_of_other_samples_are_refused(labels):
    """The compiled loss reads as many labels as there are outputs."""
    kind = "sparse_categorical_crossentropy" if labels.ndim == 1 else "categorical_crossentropy"
    with pytest.raises(ValueError, match=r"y: expected labels or .* \(6, 3\), got shape"):
        losses.get(kind)(np.zeros((6, 3)), labels, True)


OUTPUTS = {
    "plain": lambda n: np.linspace(-3, 3, 5 * n).reshape(n, 5),
    "large": lambda n: np.linspace(-1e4, 1e4, 5 * n).reshape(n, 5),
    "not finite": lambda n: np.resize([np.nan, np.inf, -np.inf, 0.0, 1.0, 2.0, 3.0], (n, 5)),
}
COMPILED = {
    "mse": losses.MeanSquaredError(),
    "mae": losses.MeanAbsoluteError(),
    "huber": losses.Huber(0.7),
    "bce": losses.BinaryCrossentropy(True),
    "bce, smoothed": losses.BinaryCrossentropy(True, label_smoothing=0.1),
    "crossentropy": losses.CategoricalCrossentropy(True),
    "crossentropy, smoothed": losses.CategoricalCrossentropy(True, label_smoothing=0.1),
    "sparse crossentropy": losses.SparseCategoricalCrossentropy(True),
}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("outputs", OUTPUTS)
@pytest.mark.parametrize("name", COMPILED)
def test_compiled_losses_are_those_of_numpy(name, outputs, weighted, dtype):
    """A class of one's own computes with NumPy: what is compiled is for ours only."""
    loss = COMPILED[name]
    own = type("Own", (type(loss),), {})(**loss.get_config())
    for n in (1, 3, 70):
        given = OUTPUTS[outputs](n).astype(dtype)
        y = (np.arange(5 * n) % 3 / 2).reshape(n, 5).astype(dtype)
        if "sparse" in name:
            y = np.arange(n) % 5
        weights = {"sample_weight": np.linspace(0, 2, n).astype(dtype)} if weighted else {}
        value, gradient = loss(given, y, **weights)
        expected, expected_gradient = own(given, y, **weights)
        rtol = 1e-5 if dtype == np.float32 else 1e-12
        np.testing.assert_allclose(value, expected, rtol)
        np.testing.assert_allclose(gradient, expected_gradient, rtol, rtol / 10)
        assert gradient.dtype == dtype


@pytest.mark.parametrize("name", COMPILED)
def test_a_loss_derived_from_ours_computes_what_it_says(name):
    loss = COMPILED[name]

    def own_losses(self, outputs, y, from_logits):
        return np.full(len(outputs), 7.0), np.full_like(outputs, 3)

    own = type("Own", (type(loss),), {"_losses": own_losses})(**loss.get_config())
    y = np.zeros(4, int) if "sparse" in name else np.zeros((4, 5), np.float32)
    value, gradient = own(np.ones((4, 5), np.float32), y)
    assert value == 7
    np.testing.assert_array_equal(gradient, 3 / np.float32(4))
