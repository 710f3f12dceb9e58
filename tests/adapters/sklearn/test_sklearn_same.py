"""Without dropout the estimators compute what scikit-learn's compute, to rounding."""

import copy
import pickle
import weakref

import numpy as np
import pytest

sklearn = pytest.importorskip("sklearn")
from scipy.sparse import csr_array
from sklearn import neural_network
from sklearn.datasets import load_digits

from fastdrop import sklearn as ours

pytestmark = [
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
    # of scikit-learn 1.6 with a newer SciPy
    pytest.mark.filterwarnings("ignore:scipy.optimize. The `disp` and `iprint`:DeprecationWarning"),
]
VERSION = tuple(map(int, sklearn.__version__.split(".")[:2]))

X, Y = load_digits(return_X_y=True)
X, Y = X[:600] / 16, Y[:600]
WEIGHTS = np.random.default_rng(0).integers(1, 4, len(X)).astype(float)
TARGETS = {
    "classes": ("MLPClassifier", Y),
    "two classes": ("MLPClassifier", Y > 4),
    "words": ("MLPClassifier", np.array(list("jihgfedcba"))[Y]),
    "objects": ("MLPClassifier", np.array(list("jihgfedcba"), dtype=object)[Y]),
    "one class": ("MLPClassifier", np.full(len(Y), 7)),
    "labels": ("MLPClassifier", np.stack([Y > 3, Y % 2, Y < 7], axis=1).astype(int)),
    "number": ("MLPRegressor", Y / 3),
    "numbers": ("MLPRegressor", np.stack([Y, Y**2 / 9], axis=1)),
}
SETTINGS = {
    "defaults": {},
    "linear": {"hidden_layer_sizes": ()},
    "tanh": {"hidden_layer_sizes": [30, 20], "activation": "tanh", "alpha": 1.0},
    "logistic": {"activation": "logistic", "batch_size": 128, "shuffle": False},
    "identity": {"activation": "identity", "batch_size": 7, "alpha": 0},
    "adam": {"beta_1": 0.8, "beta_2": 0.9, "epsilon": 1e-3, "learning_rate_init": 0.01},
    "sgd": {"solver": "sgd", "learning_rate_init": 0.01},
    "plain sgd": {"solver": "sgd", "momentum": 0, "learning_rate": "invscaling", "power_t": 0.25},
    "momentum": {"solver": "sgd", "nesterovs_momentum": False, "momentum": 1.0},
    "adaptive": {"solver": "sgd", "learning_rate": "adaptive", "tol": 1, "n_iter_no_change": 1},
    "stops": {"tol": 0.5, "n_iter_no_change": 2, "max_iter": 30},
    "validates": {"early_stopping": True, "validation_fraction": 0.3, "n_iter_no_change": 2},
    "lbfgs": {"solver": "lbfgs", "hidden_layer_sizes": 10},
    "lbfgs, few": {"solver": "lbfgs", "max_fun": 5, "alpha": 0.1, "activation": "logistic"},
}
# scikit-learn's L-BFGS is given the loss averaged over outputs with the gradient of their sum.
LINE_SEARCH = "scikit-learn's L-BFGS with several outputs has a value that its gradient is not of"
CURVES = ("n_iter_", "t_", "loss_curve_", "validation_scores_", "best_loss_", "loss_")
SAME = ("n_layers_", "n_outputs_", "out_activation_", "n_features_in_")


def unless_theirs_is_wrong(setting, target):
    if target == "numbers" and "lbfgs" in setting:
        pytest.skip(f"{LINE_SEARCH}: see test_lbfgs_with_several_outputs")


def pair(name, **settings):
    settings = {"max_iter": 6, "random_state": 3, "hidden_layer_sizes": 20} | settings
    return getattr(neural_network, name)(**settings), getattr(ours, name)(**settings)


def assert_same(theirs, mine, x, rtol=1e-7):
    for attribute in ("coefs_", "intercepts_"):
        for a, b in zip(getattr(theirs, attribute), getattr(mine, attribute), strict=True):
            assert a.dtype == b.dtype
            np.testing.assert_allclose(b, a, rtol=rtol, atol=rtol)
    for name in CURVES:
        a, b = getattr(theirs, name, None), getattr(mine, name, None)
        if a is not None:
            np.testing.assert_allclose(b, a, rtol=rtol, err_msg=name)
        assert (a is None) == (b is None), name
    for name in SAME:
        assert getattr(theirs, name) == getattr(mine, name), name
    expected, got = theirs.predict(x), mine.predict(x)
    assert expected.dtype == got.dtype
    if expected.dtype.kind == "f":
        np.testing.assert_allclose(got, expected, rtol=rtol, atol=rtol)
    else:
        np.testing.assert_array_equal(got, expected)
    if hasattr(theirs, "classes_"):
        np.testing.assert_array_equal(mine.classes_, theirs.classes_)
        if len(mine.classes_) > 1:  # of one class, theirs has two columns
            np.testing.assert_allclose(
                mine.predict_proba(x), theirs.predict_proba(x), rtol=100 * rtol, atol=rtol
            )


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("setting", SETTINGS)
def test_the_same_numbers(setting, target):
    unless_theirs_is_wrong(setting, target)
    if setting == "validates" and target in ("words", "objects") and VERSION < (1, 7):
        pytest.skip("scikit-learn 1.6 cannot validate on words")
    name, y = TARGETS[target]
    theirs, mine = (estimator.fit(X, y) for estimator in pair(name, **SETTINGS[setting]))
    assert_same(theirs, mine, X, 1e-4 if "lbfgs" in setting else 1e-7)


@pytest.mark.parametrize("shuffle", [True, False])
def test_large_batches(shuffle):
    x = np.random.default_rng(1).normal(size=(len(X), 500))
    theirs, mine = (estimator.fit(x, Y) for estimator in pair("MLPClassifier", shuffle=shuffle))
    assert_same(theirs, mine, x)


@pytest.mark.parametrize("target", ["classes", "two classes", "labels", "number", "numbers"])
@pytest.mark.parametrize("setting", ["defaults", "validates", "lbfgs", "sgd"])
@pytest.mark.skipif(VERSION < (1, 7), reason="scikit-learn's MLPs had no weights before 1.7")
def test_weights_of_samples(setting, target):
    unless_theirs_is_wrong(setting, target)
    name, y = TARGETS[target]
    estimators = pair(name, **SETTINGS[setting])
    theirs, mine = (estimator.fit(X, y, sample_weight=WEIGHTS) for estimator in estimators)
    assert_same(theirs, mine, X, 1e-4 if "lbfgs" in setting else 1e-7)


@pytest.mark.skipif(VERSION < (1, 7), reason="scikit-learn had no Poisson loss before 1.7")
@pytest.mark.parametrize("y", [Y, np.stack([Y, Y % 3], axis=1)])
@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
def test_poisson(solver, y):
    theirs, mine = (
        estimator.fit(X, y) for estimator in pair("MLPRegressor", loss="poisson", solver=solver)
    )
    assert_same(theirs, mine, X, 1e-4 if solver == "lbfgs" else 1e-7)


def test_lbfgs_with_several_outputs():
    """What both gradients belong to is smaller here."""
    _, y = TARGETS["numbers"]
    objectives = []
    for net in pair("MLPRegressor", solver="lbfgs", alpha=0.1, max_iter=40):
        squares = ((net.fit(X, y).predict(X) - y) ** 2).sum() / 2
        penalty = 0.1 / 2 * sum((coef**2).sum() for coef in net.coefs_)
        objectives.append((squares + penalty) / len(X))
        assert net.loss_ == pytest.approx((squares / 2 + penalty) / len(X))
    assert objectives[1] < objectives[0] * 1.01


@pytest.mark.parametrize("target", TARGETS)
def test_float32(target):
    name, y = TARGETS[target]
    x = X.astype(np.float32)
    theirs, mine = (estimator.fit(x, y) for estimator in pair(name))
    assert_same(theirs, mine, x, 1e-4)


@pytest.mark.parametrize("share", [1, 0.1])  # of a few stored numbers products take only these
@pytest.mark.parametrize("setting", ["defaults", "tanh", "validates", "lbfgs"])
@pytest.mark.parametrize("target", ["classes", "two classes", "numbers"])
def test_sparse(setting, target, share):
    unless_theirs_is_wrong(setting, target)
    name, y = TARGETS[target]
    x = csr_array(X * (np.random.default_rng(0).random(X.shape) < share))
    theirs, mine = (estimator.fit(x, y) for estimator in pair(name, **SETTINGS[setting]))
    assert_same(theirs, mine, x, 1e-4 if "lbfgs" in setting else 1e-7)


@pytest.mark.parametrize("solver", ["adam", "sgd"])
@pytest.mark.parametrize("target", ["classes", "labels", "numbers"])
def test_partial_fit(solver, target):
    name, y = TARGETS[target]
    theirs, mine = pair(name, solver=solver)
    first = {"classes": np.unique(y)} if name == "MLPClassifier" else {}
    if target == "labels":
        first = {"classes": [0, 1, 2]}
    for rows in (slice(0, 300), slice(300, 600), slice(100, 400)):
        for estimator in (theirs, mine):
            estimator.partial_fit(X[rows], y[rows], **first)
        first = {}
    assert_same(theirs, mine, X)


# Parts of a stream: which rows, and what is done with the estimator before
STREAMS = {
    "equal parts": [(slice(i, i + 50), None) for i in range(0, 300, 50)],
    "other parts": [(slice(0, 50), None), (slice(50, 90), None), (slice(90, 140), None)],
    "several batches": [(slice(0, 450), None), (slice(100, 550), None)],
    "single rows": [(slice(i, i + 1), None) for i in range(20)],
    "another alpha": [(slice(0, 50), None), (slice(50, 100), {"alpha": 10.0})],
    "another batch size": [(slice(0, 50), None), (slice(50, 100), {"batch_size": 20})],
    "another activation": [(slice(0, 50), None), (slice(50, 100), {"activation": "tanh"})],
    "a copy": [(slice(0, 50), None), (slice(50, 100), copy.deepcopy), (slice(0, 50), None)],
    "a pickle": [
        *[(slice(0, 50), None), (slice(50, 100), lambda net: pickle.loads(pickle.dumps(net)))],
        (slice(100, 150), None),
    ],
    "a fit": [
        *[(slice(0, 50), None), (slice(50, 100), lambda net: net.fit(X[:50], Y[:50] % 3))],
        (slice(100, 150), None),
    ],
}


@pytest.mark.parametrize("solver", ["adam", "sgd"])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("name", ["MLPClassifier", "MLPRegressor"])
@pytest.mark.parametrize("case", STREAMS)
def test_a_stream(case, name, weighted, solver):
    if weighted and VERSION < (1, 7):
        pytest.skip("scikit-learn's MLPs had no weights before 1.7")
    nets = []
    for net in pair(name, solver=solver):
        first = {"classes": [0, 1, 2]} if name == "MLPClassifier" else {}
        for rows, before in STREAMS[case]:
            if isinstance(before, dict):
                net.set_params(**before)
            elif before is not None:
                net = before(net)
            given = {"sample_weight": WEIGHTS[rows]} if weighted else {}
            net.partial_fit(X[rows], Y[rows] % 3, **first, **given)
            first = {}
        nets.append(net)
    assert_same(*nets, X)


@pytest.mark.parametrize("kind", [np.copy, lambda x: csr_array(x * (x > 0.95))])
@pytest.mark.parametrize("settings", [{}, {"shuffle": False}, {"batch_size": 30}])
def test_a_stream_leaves_no_part_in_memory(settings, kind):
    net = ours.MLPRegressor(hidden_layer_sizes=4, **settings).partial_fit(kind(X[:100]), Y[:100])
    part = kind(X[:100])
    seen = [weakref.ref(part), weakref.ref(getattr(part, "indices", part))]
    net.partial_fit(part, Y[:100])
    del part
    assert [each() for each in seen] == [None, None]


@pytest.mark.parametrize("setting", ["defaults", "sgd", "stops", "validates"])
def test_warm_start(setting):
    estimators = pair("MLPClassifier", warm_start=True, **SETTINGS[setting])
    for rows in (slice(0, 300), slice(300, 600)):
        theirs, mine = (estimator.fit(X[rows], Y[rows]) for estimator in estimators)
    assert_same(theirs, mine, X)


@pytest.mark.parametrize("random_state", [None, np.random.RandomState(5)])
def test_random_states(random_state):
    """A generator is left where scikit-learn's estimator would leave it."""
    results = []
    for estimator in pair("MLPClassifier"):
        np.random.seed(1)
        if random_state is not None:
            random_state.seed(1)
        estimator.set_params(random_state=random_state).fit(X, Y)
        drawn = (random_state or np.random).random_sample()
        results.append((estimator.loss_, drawn))
    np.testing.assert_allclose(*results, rtol=1e-9)


SCHEDULE = {"solver": "sgd", "learning_rate": "invscaling"}


@pytest.mark.parametrize(
    ("settings", "name", "value"),
    [
        ({}, "batch_size", np.int8(100)),
        ({}, "batch_size", np.uint8(200)),
        ({}, "tol", np.float16(0.1)),
        ({"early_stopping": True}, "tol", np.float16(0.001)),
        ({"dropout": 0.1}, "n_iter_no_change", np.int8(2)),
        ({"dropout": 0.1}, "tol", np.float16(0.1)),
        ({}, "hidden_layer_sizes", np.array([100, 200], np.uint8)),
        ({}, "alpha", np.float16(0.1)),
        ({}, "beta_2", np.float16(0.99)),
        ({}, "epsilon", np.float16(1e-4)),
        ({"solver": "sgd"}, "momentum", np.float16(0.9)),
        (SCHEDULE, "learning_rate_init", np.float16(1e-3)),
        (SCHEDULE, "power_t", np.int8(2)),
        ({"solver": "lbfgs"}, "alpha", np.float16(0.1)),
        ({"solver": "lbfgs"}, "max_fun", np.int8(10)),
        ({}, "input_dropout", np.float16(0.1)),
        ({}, "dropout", np.float16(0.1)),
        ({}, "max_norm", np.float16(1.5)),
    ],
)
def test_numbers_of_numpy_are_as_exact_as_others(settings, name, value):
    """A sum with one of 8 or 16 bits has no more bits, and a loss of 1e5 is infinite in float16."""
    given = {"hidden_layer_sizes": 4, "max_iter": 10, "n_iter_no_change": 1, "random_state": 0}
    y = 1e3 * Y
    expected, got = (
        ours.MLPRegressor(**given | settings | {name: each}).fit(X, y)
        for each in (value.tolist(), value)
    )
    assert got.n_iter_ == expected.n_iter_
    for a, b in zip(got.coefs_, expected.coefs_):
        np.testing.assert_array_equal(a, b)
    assert type(got.loss_) is float


def test_what_is_printed(capsys):
    printed = []
    for estimator in pair("MLPClassifier", verbose=True, early_stopping=True, tol=1, max_iter=20):
        estimator.fit(X, Y)
        printed.append(capsys.readouterr().out)
    assert printed[0] == printed[1]
    assert "Validation score" in printed[0]
    assert "Stopping" in printed[0]


def test_parameters_are_theirs_and_more():
    for name in ("MLPClassifier", "MLPRegressor"):
        theirs, mine = (getattr(package, name)().get_params() for package in (neural_network, ours))
        assert theirs.items() <= mine.items()
        own = {"dropout", "input_dropout", "shared_dropout", "max_norm", "batch_norm", "dtype"}
        own |= {"class_weight"} if name == "MLPClassifier" else set()
        if name == "MLPRegressor" and VERSION < (1, 7):
            own |= {"loss"}
        assert mine.keys() - theirs.keys() == own
