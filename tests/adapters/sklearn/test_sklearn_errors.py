"""What is refused, in scikit-learn's words and types."""

import copy
import pickle
import re
from functools import partial

import numpy as np
import pytest
from processes import run

sklearn = pytest.importorskip("sklearn")
from sklearn import neural_network
from sklearn.datasets import load_digits
from sklearn.exceptions import NotFittedError

from fastdrop import sklearn as ours

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

X, Y = load_digits(return_X_y=True)
X, Y = X[:60] / 16, Y[:60]
NAMES = ["MLPClassifier", "MLPRegressor"]
SMALL = {"hidden_layer_sizes": 4, "max_iter": 2}


def changed(value):
    copy = X.copy().astype(type(value) if isinstance(value, complex) else float)
    copy[3, 4] = value
    return copy


def fit(*arguments, **settings):
    return lambda net: net.set_params(**settings).fit(*arguments)


def then(action, *first):
    return lambda net: action(net.fit(*(first or (X, Y))))


def in_parts(net):
    """`partial_fit`, of a classifier with the classes."""
    is_classifier = hasattr(net, "predict_proba")
    return partial(net.partial_fit, **({"classes": np.unique(Y)} if is_classifier else {}))


THEIRS = {
    "not fitted": lambda net: net.predict(X),
    "features": then(lambda net: net.predict(X[:, :5])),
    "features of a part": then(lambda net: net.partial_fit(X[:, :5], Y)),
    "NaN": fit(changed(np.nan), Y),
    "infinity": fit(changed(np.inf), Y),
    "NaN later": then(lambda net: net.predict(changed(np.nan))),
    "complex later": then(lambda net: net.predict(changed(1j))),
    "text later": then(lambda net: net.predict(X.astype(str))),
    "no numbers later": then(lambda net: net.predict({"a": [1]})),
    "complex": fit(changed(1j), Y),
    "empty": fit(X[:0], Y[:0]),
    "no features": fit(X[:, :0], Y),
    "vector": fit(X[0], Y[:1]),
    "three axes": fit(X[np.newaxis], Y),
    "lengths": fit(X, Y[:5]),
    "no y": fit(X, None),
    "words": fit([["a", "b"]] * 4, [0, 1, 0, 1]),
    "NaN in y": fit(X, np.where(Y == 3, np.nan, Y)),
    "weights": fit(X, Y, np.ones(3)),
    "NaN weights": fit(X, Y, np.full(60, np.nan)),
    "hidden": fit(X, Y, hidden_layer_sizes=(4, 0)),
    "hidden, negative": fit(X, Y, hidden_layer_sizes=-1),
    "activation": fit(X, Y, activation="gelu"),
    "solver": fit(X, Y, solver="rmsprop"),
    "alpha": fit(X, Y, alpha=-1),
    "batch": fit(X, Y, batch_size=0),
    "rate": fit(X, Y, learning_rate_init=0),
    "schedule": fit(X, Y, learning_rate="fast"),
    "momentum": fit(X, Y, momentum=2),
    "beta": fit(X, Y, beta_1=1),
    "fraction": fit(X, Y, validation_fraction=1),
    "too few to validate": fit(X[:8], Y[:8] > 4, early_stopping=True),
    "shuffle": fit(X, Y, shuffle=2),
    "no progress": fit(X, Y, n_iter_no_change=0),
    "seed": fit(X, Y, random_state="one"),
    "validated parts": lambda net: in_parts(net.set_params(early_stopping=True))(X, Y),
    "huge": fit(X * 1e308, Y, activation="identity"),
    "NaN in validated parts": lambda net: in_parts(net.set_params(early_stopping=True))(
        changed(np.nan), Y
    ),
}


class Array(np.ndarray):
    """Some other package's kind of array."""


# What comes after a first part that was all right
LATER = {
    "NaN": (changed(np.nan), Y),
    "infinity": (changed(-np.inf), Y),
    "other features": (X[:, 1:], Y),
    "no features": (X[:, :0], Y),
    "no samples": (X[:0], Y[:0]),
    "a vector": (X[0], Y[:1]),
    "three axes": (X[np.newaxis], Y[:1]),
    "complex numbers": (changed(1j), Y),
    "text": (X.astype(str).astype(object) + "x", Y),
    "NaN in another kind of array": (changed(np.nan).view(Array), Y),
    "NaN in other bytes": (changed(np.nan).astype(">f8"), Y),
    "NaN in objects": (changed(np.nan).astype(object), Y),
    "NaN in Fortran's order": (np.asfortranarray(changed(np.nan)), Y),
    "NaN in float32": (changed(np.nan).astype(np.float32), Y),
    "no targets": (X, None),
    "other targets": (X, Y[:5]),
    "a number as targets": (X, np.array(1)),
    "NaN in targets": (X, np.where(Y == 3, np.nan, Y)),
    "infinity in targets": (X, np.where(Y == 3, np.inf, Y)),
    "targets of three axes": (X, Y[:, np.newaxis, np.newaxis]),
    "targets without columns": (X, np.zeros((60, 0))),
}
CLASSIFIERS = {
    "numbers": fit(X, Y + 0.5),
    "two outputs": fit(X, np.stack([Y, Y], axis=1)),
    "no classes": lambda net: net.partial_fit(X, Y),
    "other classes": lambda net: net.partial_fit(X, Y, classes=[0, 1]),
    "classes change": lambda net: net.partial_fit(X, Y, classes=np.unique(Y)).partial_fit(
        X, Y, classes=[0, 1]
    ),
    "an unknown label": lambda net: net.partial_fit(X, Y, classes=np.unique(Y)).partial_fit(
        X[:2], [3, 77]
    ),
    "warm start": then(lambda net: net.set_params(warm_start=True).fit(X, Y > 4)),
    "lbfgs in parts": lambda net: net.set_params(solver="lbfgs").partial_fit(X, Y),
    "no solver in parts": lambda net: net.set_params(solver=None).partial_fit(X, Y),
}
OF_1_7 = {"weights", "NaN weights", "too few to validate"}  # 1.6 takes no weights of samples
VERSION = tuple(map(int, sklearn.__version__.split(".")[:2]))


def raised(package, name, action):
    """The error of an action; which one it is, is what is compared."""
    try:
        action(getattr(package, name)(**SMALL))
    except Exception as error:
        return error
    return None


@pytest.mark.parametrize(
    ("name", "case", "action"),
    [(name, case, action) for name in NAMES for case, action in THEIRS.items()]
    + [("MLPClassifier", case, action) for case, action in CLASSIFIERS.items()],
)
@pytest.mark.filterwarnings("ignore:overflow|invalid:RuntimeWarning")
def test_as_scikit_learn(name, case, action):
    if case in OF_1_7 and VERSION < (1, 7):
        pytest.skip("scikit-learn refuses it since 1.7")
    expected, got = (raised(package, name, action) for package in (neural_network, ours))
    assert expected is not None
    assert type(got) is type(expected)
    assert in_order(got) == in_order(expected)


@pytest.mark.parametrize("method", ["partial_fit", "predict"])
@pytest.mark.parametrize("case", LATER)
@pytest.mark.parametrize("name", NAMES)
def test_later_as_scikit_learn(name, case, method):
    """What is asked of ordinary arrays, quickly, is all that scikit-learn asks."""
    x, y = LATER[case]
    if method == "predict" and "targets" in case:
        return

    def later(net):
        in_parts(net)(X, Y)
        net.predict(x) if method == "predict" else net.partial_fit(x, y)

    expected, got = (raised(package, name, later) for package in (neural_network, ours))
    assert expected is not None
    assert type(got) is type(expected)
    assert in_order(got) == in_order(expected)


@pytest.mark.parametrize("incremental", [False, True])
def test_numbers_too_large_for_the_dtype(incremental):
    net = ours.MLPRegressor(**SMALL, dtype="float32")
    with pytest.raises(ValueError, match="Input X contains infinity or a value too large"):
        (net.partial_fit if incremental else net.fit)(X * 1e300, Y)


def test_another_dtype_later():
    net = ours.MLPRegressor(**SMALL).partial_fit(X, Y).set_params(dtype="float32")
    with pytest.raises(ValueError, match="Input X contains infinity or a value too large"):
        net.partial_fit(X * 1e300, Y)


@pytest.mark.parametrize(
    ("y", "other"),
    [
        (Y % 2, 2),
        (Y % 3, -1),
        (Y % 2 == 1, 2),
        (Y % 2 * 2.0, 1.0),
        (Y.astype(np.uint8) % 3, np.uint8(9)),
        (np.array(["a", "b", "c"])[Y % 3], "d"),
        (np.array(["a", "b", "c"])[Y % 3], "bb"),
        (np.array(["a", "b"], object)[Y % 2], "c"),
    ],
)
def test_a_label_that_is_no_class(y, other):
    later = np.append(y, other)[1:]
    errors = []
    for package in (neural_network, ours):
        net = package.MLPClassifier(**SMALL).partial_fit(X, y, classes=np.unique(y))
        with pytest.raises(ValueError, match="has classes not in") as error:
            net.partial_fit(X, later)
        net.partial_fit(X, y)
        errors.append(str(error.value))
    assert errors[0] == errors[1]


def in_order(error):
    """The words of a message, with sets in the alphabet's order: theirs varies."""

    def sort(found):
        return "{" + ", ".join(sorted(found[1].split(", "))) + "}"

    return re.sub(r"\{([^{}]*)\}", sort, str(error))


OURS = {
    "above": (ValueError, r"'dropout' parameter of MLP.* \[0.0, 1.0\)", {"dropout": 1.0}),
    "below": (ValueError, r"'dropout' parameter of MLP.* \[0.0, 1.0\)", {"dropout": -0.1}),
    "NaN": (ValueError, "'dropout' parameter", {"dropout": np.nan}),
    "words": (ValueError, "'dropout' parameter", {"dropout": "half"}),
    "none": (ValueError, "'dropout' parameter", {"dropout": None}),
    "no number": (ValueError, "'dropout' parameter", {"dropout": False}),
    "no number in a list": (ValueError, "got True", {"dropout": [0.1, True]}),
    "a dict": (ValueError, "a number or a list of numbers, got {", {"dropout": {0: 0.1, 1: 0.2}}),
    "a set": (ValueError, "a number or a list of numbers, got {", {"dropout": {0.1, 0.2}}),
    "no axis": (ValueError, r"list of numbers, got array\(0.1\)", {"dropout": np.array(0.1)}),
    "two axes": (ValueError, "list of numbers, got array", {"dropout": np.full((2, 2), 0.1)}),
    "no number for the input": (ValueError, "'input_dropout' parameter", {"input_dropout": False}),
    "no number as norm": (ValueError, "'max_norm' parameter", {"max_norm": True}),
    "infinite norm": (ValueError, "'max_norm' parameter", {"max_norm": np.inf}),
    "input": (ValueError, "'input_dropout' parameter", {"input_dropout": 1}),
    "a list for the input": (ValueError, "'input_dropout' parameter", {"input_dropout": [0.1]}),
    "shorter": (ValueError, "dropout must .* 2 hidden layers, got 1", {"dropout": [0.1]}),
    "longer": (ValueError, "dropout must .* 2 hidden layers, got 3", {"dropout": [0.1] * 3}),
    "above in a list": (ValueError, r"\[0.0, 1.0\), got 1.5", {"dropout": [0.1, 1.5]}),
    "NaN in a list": (ValueError, r"\[0.0, 1.0\), got nan", {"dropout": [0.1, np.nan]}),
    "words in a list": (ValueError, r"\[0.0, 1.0\), got 'x'", {"dropout": [0.1, "x"]}),
    "norm": (ValueError, "'max_norm' parameter", {"max_norm": 0}),
    "shared": (ValueError, "'shared_dropout' parameter", {"shared_dropout": "yes"}),
    "batch norm": (ValueError, "'batch_norm' parameter", {"batch_norm": 3}),
    "dtype": (ValueError, "'dtype' parameter", {"dtype": "float16"}),
    "hidden": (ValueError, "must be integers", {"hidden_layer_sizes": (4.5, 2)}),
    "hidden, no numbers": (ValueError, "must be integers", {"hidden_layer_sizes": (True, 2)}),
    "lbfgs, dropout": (ValueError, "same function .* with dropout", {"dropout": 0.1}),
    "lbfgs, input": (ValueError, "same function .* with dropout", {"input_dropout": 0.1}),
    "lbfgs, norm": (ValueError, "same function .* with max_norm", {"max_norm": 1.0}),
    "lbfgs, batch norm": (ValueError, "same function .* with batch_norm", {"batch_norm": True}),
}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("case", OURS)
def test_of_our_own(case, name):
    error, match, settings = OURS[case]
    if case.startswith("lbfgs"):
        settings = settings | {"solver": "lbfgs"}
    net = getattr(ours, name)(**{"hidden_layer_sizes": (4, 3), "max_iter": 2} | settings)
    with pytest.raises(error, match=match):
        net.fit(X, Y)
    assert not hasattr(net, "coefs_")


def test_messages_are_short():
    many = dict.fromkeys(range(500), -1)
    for net in (ours.MLPClassifier(dropout=[0.1] * 500), ours.MLPClassifier(class_weight=many)):
        with pytest.raises(ValueError, match=r"dropout|class_weight") as raised:
            net.fit(np.ones((500, 2)), np.arange(500))
        assert len(str(raised.value)) <= 200


@pytest.mark.parametrize(
    ("samples", "error"), [(True, TypeError), (2.0, TypeError), (0, ValueError)]
)
def test_samples_of_masks(samples, error):
    net = ours.MLPClassifier(dropout=0.1, **SMALL).fit(X, Y)
    for method in (net.predict_proba, net.predict_entropy):
        with pytest.raises(error, match="mc_samples"):
            method(X, mc_samples=samples)


LABELS = np.stack([Y % 3, Y % 3], axis=1).clip(0, 1)  # several labels a sample
KINDS = {"classes": Y % 3, "two classes": Y % 2, "labels": LABELS, "numbers": Y + 0.5}


@pytest.mark.parametrize("later", KINDS)
@pytest.mark.parametrize("first", ["classes", "two classes", "labels"])
def test_targets_of_another_kind_go_on_with_nothing(first, later):
    classes = [0, 1] if first != "classes" else [0, 1, 2]
    if first == later:
        return
    net = ours.MLPClassifier(**SMALL).partial_fit(X, KINDS[first], classes=classes)
    theirs = neural_network.MLPClassifier(**SMALL).partial_fit(X, KINDS[first], classes=classes)
    before = net.coefs_[0].copy()
    try:
        theirs.partial_fit(X, KINDS[later])
    except ValueError as error:
        with pytest.raises(ValueError, match=re.escape(str(error)[:40])):
            net.partial_fit(X, KINDS[later])
        np.testing.assert_array_equal(net.coefs_[0], before)
    else:
        net.partial_fit(X, KINDS[later])  # 0 and 1 are among the classes


@pytest.mark.parametrize(
    ("settings", "y", "match"),
    [
        ({"class_weight": "even"}, Y, "'class_weight' parameter"),
        ({"class_weight": {99: 2}}, Y, "The classes, .* are not in class_weight"),
        ({"class_weight": {0: 1}}, np.stack([Y > 2, Y > 4], axis=1), "list of dicts"),
        ({"class_weight": [0, 1, 2]}, Y % 3, r"several labels, got \[0, 1, 2\]"),
        ({"class_weight": []}, Y, r"several labels, got \[\]"),
        ({"class_weight": [{0: 1}]}, Y > 4, r"several labels, got \[{0: 1}\]"),
        ({"class_weight": {0: -1}}, Y, "finite numbers of at least 0, got {0: -1}"),
        ({"class_weight": {0: np.nan}}, Y, "finite numbers of at least 0, got {0: nan}"),
        ({"class_weight": {0: np.inf}}, Y, "finite numbers of at least 0, got {0: inf}"),
        ({"class_weight": dict.fromkeys(range(10), 0)}, Y, "must leave one that is not 0"),
        ({"class_weight": {0: 0, 1: -1}}, Y > 4, "at least 0, got {0: 0, 1: -1}"),
    ],
)
def test_class_weights(settings, y, match):
    net = ours.MLPClassifier(**SMALL, **settings)
    with pytest.raises(ValueError, match=match):
        net.fit(X, y)
    assert not hasattr(net, "coefs_")


def test_balanced_parts():
    with pytest.raises(ValueError, match="'balanced' is not supported for partial_fit"):
        ours.MLPClassifier(class_weight="balanced").partial_fit(X, Y, classes=np.unique(Y))


@pytest.mark.parametrize(
    ("weights", "match"),
    [(-np.ones(60), "Negative values"), (np.zeros(60), "at least one non-zero number")],
)
def test_weights(weights, match):
    with pytest.raises(ValueError, match=match):
        ours.MLPRegressor(**SMALL).fit(X, Y, sample_weight=weights)


def test_negative_counts():
    with pytest.raises(ValueError, match=r"out of the valid range of the loss 'poisson'.*got -2"):
        ours.MLPRegressor(loss="poisson", **SMALL).fit(X, Y - 2.0)


# What a later call may be given. Classifiers have labels from 0 to 2, regressors the same numbers.
MORE = np.where(np.arange(60) < 57, Y % 3, 7)
ONE = (np.arange(60) == 17).astype(float)
REFUSED = {
    "weights of another length": {"sample_weight": np.ones(3)},
    "weights below 0": {"sample_weight": -np.ones(60)},
    "weights of 0": {"sample_weight": np.zeros(60)},
    "weights whose sum is infinite": {"sample_weight": np.full(60, 1e308)},
    "other features": {"X": X[:, :5], "sample_weight": np.ones(3)},
    "too few to validate": {"X": X[:8], "y": Y[:8] % 2, "early_stopping": True},
    "one of a class": {"y": np.arange(60) == 3, "early_stopping": True, "of": "MLPClassifier"},
    "nothing to train on": {"early_stopping": True, "validation_fraction": 0.999},
    **{
        f"no weight in the other {share:.0%}": {
            **{"sample_weight": ONE, "early_stopping": True, "validation_fraction": share}
        }
        for share in (0.1, 0.9)
    },
    "another kind of layers": {"solver": "lbfgs", "batch_norm": True},
    "another number of rates": {"dropout": [0.1, 0.2]},
    "other layers": {"hidden_layer_sizes": (5,), "warm_start": True},
    "other normalisation": {"batch_norm": True, "warm_start": True},
    "dates": {"y": np.full(60, np.datetime64("2020", "Y")), "of": "MLPRegressor"},
    "targets too large": {"y": np.full(60, 1e300), "dtype": "float32", "of": "MLPRegressor"},
    "counts below 0": {"y": -Y, "loss": "poisson"},
    "a class without weight": {"y": Y % 3 + 1, "class_weight": {9: 1}},
    "a list of weights": {"y": Y % 3 + 1, "class_weight": [1, 2, 3]},
    "labels with numbers": {"y": np.where(Y > 4, "x", "y"), "sample_weight": np.ones(3)},
    "other classes": {"y": MORE, "warm_start": True, "of": "MLPClassifier"},
    "another dtype, too few": {
        **{"X": X[:8].astype(np.float32), "y": Y[:8] % 3, "early_stopping": True},
        **{"warm_start": True, "dropout": 0.1, "dtype": "float32"},
    },
}
STATES = {
    "new": lambda net: net,
    "fitted": lambda net: net.fit(X, Y % 3),
    "partly fitted": lambda net: net.partial_fit(
        X, Y % 3, **({"classes": [0, 1, 2]} if hasattr(net, "predict_proba") else {})
    ),
}


def seen(net):
    """Everything that an estimator holds, as it is now."""
    kept = {name: value for name, value in vars(net).items() if name != "_last_batches"}
    held = {name: copy.deepcopy(value) for name, value in kept.items()}
    return {name: pickle.dumps(value) for name, value in held.items() if name != "_model"}


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("case", REFUSED)
@pytest.mark.parametrize("name", NAMES)
def test_what_is_refused_changes_nothing(name, case, state):
    given = {"X": X, "y": Y % 3, "sample_weight": None, "of": name} | REFUSED[case]
    x, y, weights, of = (given.pop(key) for key in ("X", "y", "sample_weight", "of"))
    net = STATES[state](getattr(ours, name)(random_state=0, **SMALL))
    if of != name or not set(given) <= set(net.get_params()):
        return
    if given.get("warm_start") and state == "new":
        return
    net.set_params(**given)
    before = seen(net)
    with pytest.raises(ValueError):  # noqa: PT011, each case's message has a test of its own
        net.fit(x, y, sample_weight=weights)
    assert seen(net) == before


FIRST_PARTS = {
    "a label that is no class": {"y": Y},
    "weights of another length": {"sample_weight": np.ones(3)},
    "NaN": {"X": changed(np.nan)},
    "parts that validate": {"early_stopping": True},
    "balanced parts": {"class_weight": "balanced"},
    "balanced parts of labels": {"class_weight": ["balanced"] * 2, "y": np.eye(2)[Y % 2]},
}


@pytest.mark.parametrize("case", FIRST_PARTS)
def test_a_first_part_that_is_refused_leaves_no_classes(case):
    given = {"X": X, "y": Y % 3, "sample_weight": None} | FIRST_PARTS[case]
    x, y, weights = (given.pop(key) for key in ("X", "y", "sample_weight"))
    net = ours.MLPClassifier(**SMALL, **given)
    with pytest.raises(ValueError):  # noqa: PT011
        net.partial_fit(x, y, weights, classes=[0, 1, 2])
    assert not hasattr(net, "classes_")
    net.set_params(early_stopping=False, class_weight=None)
    net.partial_fit(X, Y > 4, classes=[False, True])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    ("class_weight", "weights"),
    [
        (None, np.full(60, 1e308)),
        (None, np.r_[np.full(30, 1e308), np.zeros(30)]),
        ({0: 1e308}, None),
        ({0: 1e200}, np.full(60, 1e200)),
    ],
)
def test_weights_that_are_too_large(class_weight, weights, dtype):
    net = ours.MLPClassifier(dtype=dtype, class_weight=class_weight, **SMALL)
    with pytest.raises(ValueError, match=f"are too large for {dtype}"):
        net.fit(X, Y, sample_weight=weights)


NO_NUMBERS = {kind: Y.astype(kind) for kind in ("U", "S", "M8[D]", "m8[D]")}


@pytest.mark.parametrize("settings", [{}, {"loss": "poisson"}, {"solver": "lbfgs"}])
@pytest.mark.parametrize("kind", NO_NUMBERS)
def test_targets_that_are_no_numbers(kind, settings):
    with pytest.raises(ValueError, match="y must be numbers, got an array of"):
        ours.MLPRegressor(**SMALL, **settings).fit(X, NO_NUMBERS[kind])


@pytest.mark.parametrize("kind", ["M8[D]", "m8[s]"])
def test_dates_later(kind):
    """scikit-learn's `fit` takes them for numbers, and its `predict` fails."""
    net = ours.MLPRegressor(**SMALL).fit(X, Y)
    with pytest.raises(ValueError, match="X must be numbers, got an array of "):
        net.predict((16 * X).astype(kind))


@pytest.mark.parametrize("name", ["partial_fit", "fit"])
def test_other_sizes_go_on_with_nothing(name):
    net = ours.MLPRegressor(warm_start=True, **SMALL).fit(X, Y)
    before = net.coefs_[0].copy()
    net.set_params(hidden_layer_sizes=(5,))
    with pytest.raises(ValueError, match="layers of the same sizes"):
        getattr(net, name)(X, Y)
    np.testing.assert_array_equal(net.coefs_[0], before)


@pytest.mark.parametrize("name", ["partial_fit", "fit"])
def test_normalisation_does_not_come_later(name):
    net = ours.MLPRegressor(warm_start=True, **SMALL).fit(X, Y).set_params(batch_norm=True)
    with pytest.raises(ValueError, match=r"same batch_norm .* Previously got False, now True"):
        getattr(net, name)(X, Y)


def test_too_large_for_float32():
    with pytest.raises(ValueError, match=r"Input y contains .* too large for dtype\('float32'\)"):
        ours.MLPRegressor(dtype="float32", **SMALL).fit(X, Y * 1e300)
    with pytest.raises(ValueError, match="too large for dtype"), np.errstate(over="ignore"):
        ours.MLPRegressor(dtype="float32", **SMALL).fit(X * 1e300, Y)
    net = ours.MLPRegressor(dtype="float32", **SMALL).fit(X, Y)
    with pytest.raises(ValueError, match=r"Input X contains .* too large for dtype\('float32'\)"):
        net.predict(X * 1e300)


def test_weights_alone_predict_nothing():
    net = ours.MLPRegressor()
    net.coefs_, net.intercepts_, net.n_features_in_ = [np.ones((64, 1))], [np.ones(1)], 64
    with pytest.raises(NotFittedError, match="was given weights"):
        net.predict(X)


def test_saving_what_is_not_fitted(tmp_path):
    with pytest.raises(NotFittedError):
        ours.MLPClassifier().save(tmp_path / "file")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("replacement", "message"),
    [
        ("None", "fastdrop.sklearn needs scikit-learn: pip install 'fastdrop-nn[sklearn]'"),
        ("old", "fastdrop.sklearn needs scikit-learn 1.6 or later, got 1.5.2"),
    ],
)
def test_without_scikit_learn(replacement, message):
    code = f"""
import sys, types
old = types.ModuleType("sklearn")
old.__version__ = "1.5.2"
sys.modules["sklearn"] = {replacement}
try:
    import fastdrop.sklearn
except ImportError as error:
    print(error)
"""
    assert message in run(code).stdout
