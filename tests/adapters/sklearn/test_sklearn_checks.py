"""scikit-learn's own checks: of any estimator, and its tests of its perceptrons, on ours."""

import inspect

import pytest

sklearn = pytest.importorskip("sklearn")
from sklearn.utils.estimator_checks import estimator_checks_generator, parametrize_with_checks

from fastdrop.sklearn import MLPClassifier, MLPRegressor

# Checks that fail, and why: dropout draws a mask for each sample, so one that counts twice is not
# the same as two, whose masks differ.
WEIGHTS = "dropout drops the units of two equal samples differently, of one with weight 2 alike"
EXPECTED = {
    "check_sample_weight_equivalence_on_dense_data": WEIGHTS,
    "check_sample_weight_equivalence_on_sparse_data": WEIGHTS,
}
BALANCED = "partial_fit refuses class_weight='balanced', in the words of SGDClassifier's"
EXPECTED_OF_BALANCED = dict.fromkeys(
    (
        "check_fit_score_takes_y",
        "check_n_features_in_after_fitting",
        "check_estimators_partial_fit_n_features",
    ),
    BALANCED,
)
ESTIMATORS = [
    MLPClassifier(max_iter=100),
    MLPRegressor(max_iter=100),
    MLPClassifier(max_iter=100, class_weight="balanced"),
    MLPClassifier(max_iter=100, dropout=0.1, input_dropout=0.05),
    MLPRegressor(max_iter=100, dropout=0.1, input_dropout=0.05),
    MLPClassifier(max_iter=100, solver="lbfgs"),
    MLPRegressor(max_iter=100, solver="lbfgs"),
]


def expected(estimator):
    if getattr(estimator, "class_weight", None) == "balanced":
        return EXPECTED_OF_BALANCED
    return EXPECTED if estimator.dropout else {}


CHECKS = parametrize_with_checks(ESTIMATORS, expected_failed_checks=expected)


# scikit-learn 1.6 has a generator there, and pytest wants to know how many there are.
@pytest.mark.parametrize(CHECKS.args[0], list(CHECKS.args[1]), **CHECKS.kwargs)
@pytest.mark.filterwarnings("ignore")  # what scikit-learn tries warns of much
def test_check(estimator, check):
    check(estimator)


def test_there_are_many():
    """What is checked is not less than of scikit-learn's own."""
    for estimator, least in zip(ESTIMATORS, (60, 55)):
        assert len(list(estimator_checks_generator(estimator))) >= least


theirs = pytest.importorskip("sklearn.neural_network.tests.test_mlp")
IMPORT = "from sklearn.neural_network import MLPClassifier, MLPRegressor"
SOURCE = inspect.getsource(theirs)
assert SOURCE.count(IMPORT) == 1
# What of scikit-learn's tests cannot hold here, and why.
CANNOT = {
    "test_gradient": "calls _loss_grad_lbfgs, a private method that takes scikit-learn's lists of "
    "activations; tests/adapters/sklearn/test_sklearn_same.py compares what lbfgs finds",
}
collected = {}
OURS = SOURCE.replace(IMPORT, IMPORT.replace("sklearn.neural_network", "fastdrop.sklearn"))
exec(compile(OURS, theirs.__file__, "exec"), collected)


def their_tests():
    """Their tests by name, those that cannot hold marked."""
    for name, test in collected.items():
        if name.startswith("test_"):
            test = pytest.mark.filterwarnings("default")(test)
            if name in CANNOT:
                test = pytest.mark.xfail(reason=CANNOT[name], strict=True)(test)
            yield f"{name}_of_theirs", test


globals().update(their_tests())
