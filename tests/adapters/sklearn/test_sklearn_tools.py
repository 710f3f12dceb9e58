"""scikit-learn's tools on the estimators: searches, pipelines, ensembles, pickles, routing."""

import _thread
import copy
import io
import pickle
import threading

import numpy as np
import pytest

sklearn = pytest.importorskip("sklearn")
import joblib
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.datasets import load_diabetes, load_digits
from sklearn.ensemble import BaggingRegressor, VotingClassifier
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.inspection import permutation_importance
from sklearn.model_selection import GridSearchCV, HalvingGridSearchCV, cross_val_score
from sklearn.multioutput import MultiOutputClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sleeping_blas import assert_they_sleep

from fastdrop.sklearn import MLPClassifier, MLPRegressor

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

VERSION = tuple(map(int, sklearn.__version__.split(".")[:2]))
X, Y = load_digits(return_X_y=True)
X, Y = X[:500], Y[:500]
TABLE, TARGET = load_diabetes(return_X_y=True)
SMALL = {
    "hidden_layer_sizes": (16,),
    "max_iter": 15,
    "learning_rate_init": 0.01,
    "random_state": 0,
}


def piped(**settings):
    return make_pipeline(StandardScaler(), MLPClassifier(**SMALL | settings))


def test_a_search_in_two_processes():
    grid = {"mlpclassifier__dropout": [0.0, 0.2], "mlpclassifier__hidden_layer_sizes": [8, (16, 8)]}
    alone, together = (GridSearchCV(piped(), grid, cv=3, n_jobs=n).fit(X, Y) for n in (1, 2))
    np.testing.assert_array_equal(
        alone.cv_results_["mean_test_score"], together.cv_results_["mean_test_score"]
    )
    assert together.best_score_ > 0.7


def test_a_search_that_halves():
    search = HalvingGridSearchCV(
        piped(),
        {"mlpclassifier__dropout": [0.0, 0.1, 0.5]},
        resource="mlpclassifier__max_iter",
        max_resources=18,
        min_resources=2,
        cv=3,
        random_state=0,
    )
    assert search.fit(X, Y).best_estimator_[-1].n_iter_ > 2


def test_threads_of_a_pool_train_alike():
    expected = cross_val_score(piped(dropout=0.2), X, Y, cv=4)
    with joblib.parallel_backend("threading", n_jobs=4):
        got = cross_val_score(piped(dropout=0.2), X, Y, cv=4, n_jobs=4)
    np.testing.assert_array_equal(got, expected)


def test_calibration():
    calibrated = CalibratedClassifierCV(piped(dropout=0.2), cv=3).fit(X, Y)
    np.testing.assert_allclose(calibrated.predict_proba(X).sum(axis=1), 1)
    assert calibrated.score(X, Y) > 0.8


def test_bagging():
    net = MLPRegressor(**SMALL, dropout=0.1)
    bag = BaggingRegressor(net, n_estimators=3, random_state=0).fit(TABLE, TARGET)
    assert bag.predict(TABLE).shape == TARGET.shape
    first, second, _ = bag.estimators_
    assert not np.array_equal(first.coefs_[0], second.coefs_[0])


def test_importance_of_features():
    x = X.copy()
    x[:, 0] = Y * 10
    importance = permutation_importance(piped().fit(x, Y), x, Y, n_repeats=2, random_state=0)
    assert importance.importances_mean.argmax() == 0


def test_several_outputs_and_votes():
    both = MultiOutputClassifier(MLPClassifier(**SMALL)).fit(X, np.stack([Y, Y % 3], axis=1))
    assert both.predict(X).shape == (len(X), 2)
    votes = VotingClassifier([("a", MLPClassifier(**SMALL)), ("b", piped())], voting="soft")
    assert votes.fit(X, Y).score(X, Y) > 0.7


def test_a_pipeline_of_frames():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(X, columns=[f"pixel {i}" for i in range(64)])
    pipe = piped().set_output(transform="pandas").fit(frame, Y)
    assert pipe[-1].feature_names_in_[3] == "pixel 3"
    np.testing.assert_array_equal(pipe.predict(frame), piped().fit(X, Y).predict(X))


def test_weights_are_routed():
    weights = np.where(Y < 5, 1.0, 0.0)
    with sklearn.config_context(enable_metadata_routing=True):
        net = MLPClassifier(**SMALL).set_fit_request(sample_weight=True)
        net.set_score_request(sample_weight=True)
        scaler = StandardScaler().set_fit_request(sample_weight=False)
        pipe = make_pipeline(scaler, net)
        if VERSION < (1, 8):  # a pipeline then counts as asking for weights itself
            pipe.set_score_request(sample_weight=True)
        search = GridSearchCV(pipe, {"mlpclassifier__dropout": [0.0]}, cv=3)
        search.fit(X, Y, sample_weight=weights)
        assert set(search.predict(X)) <= set(range(5))


def as_pickled(estimator):
    return pickle.loads(pickle.dumps(estimator))


def as_dumped(estimator):
    file = io.BytesIO()
    joblib.dump(estimator, file)
    file.seek(0)
    return joblib.load(file)


@pytest.mark.parametrize("way", [as_pickled, as_dumped, copy.deepcopy])
@pytest.mark.parametrize(
    "estimator",
    [
        MLPClassifier(**SMALL, dropout=0.2, batch_norm=True),
        MLPClassifier(**SMALL, early_stopping=True),
        MLPRegressor(**SMALL, dropout=[0.1], solver="sgd", learning_rate="adaptive"),
        MLPRegressor(**SMALL, solver="lbfgs"),
    ],
)
def test_copies(estimator, way):
    x = (X / 16).astype(np.float32)
    original = clone(estimator).fit(x, Y / 10 if isinstance(estimator, MLPRegressor) else Y)
    other = way(original)
    np.testing.assert_array_equal(original.predict(x), other.predict(x))
    if estimator.solver != "lbfgs" and not estimator.early_stopping:
        for each in (original, other):
            each.partial_fit(x, Y / 10 if isinstance(estimator, MLPRegressor) else Y)
        np.testing.assert_array_equal(original.coefs_[0], other.coefs_[0])
    elif not estimator.early_stopping:
        other.coefs_[0][:] = 0
        assert original.coefs_[0].any()


def test_subclasses_have_their_own_parameters():
    class Narrow(MLPClassifier):
        def __init__(self, units=4, *, max_iter=2):
            super().__init__(units, max_iter=max_iter)
            self.units = units

    class Same(Narrow):
        pass

    assert list(MLPClassifier().get_params()) == sorted(MLPClassifier().get_params())
    assert Narrow().get_params() == Same().get_params() == {"max_iter": 2, "units": 4}
    assert clone(Same(5)).fit(X, Y).predict(X).shape == Y.shape
    with pytest.raises(ValueError, match=r"Valid parameters are: \['max_iter', 'units'\]"):
        Narrow().set_params(dropout=0.1)
    names = Narrow._get_param_names()
    names.clear()
    assert Narrow().get_params() == {"max_iter": 2, "units": 4}


def test_a_pickle_has_each_weight_once():
    net = MLPRegressor(hidden_layer_sizes=200, max_iter=1, solver="lbfgs").fit(X, Y)
    assert len(pickle.dumps(net)) < 1.2 * 8 * 200 * 66


def test_a_memory_mapped_pickle(tmp_path):
    net = MLPClassifier(**SMALL, dropout=0.2).fit(X, Y)
    joblib.dump(net, tmp_path / "net")
    mapped = joblib.load(tmp_path / "net", mmap_mode="r")
    np.testing.assert_array_equal(mapped.predict_proba(X), net.predict_proba(X))
    mapped.coefs_[0][0] = net.coefs_[0][0] = 0.5
    np.testing.assert_array_equal(mapped.predict_proba(X), net.predict_proba(X))
    for each in (mapped, net):
        each.partial_fit(X, Y)
    np.testing.assert_array_equal(mapped.coefs_[0], net.coefs_[0])
    again = joblib.load(tmp_path / "net", mmap_mode="r")
    again.set_params(warm_start=True).fit(X, Y)
    again.save(tmp_path / "saved")


@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
@pytest.mark.parametrize("early_stopping", [False, True])
def test_ctrl_c(solver, early_stopping):
    net = MLPClassifier(
        (300,),
        solver=solver,
        max_iter=1_000_000,
        tol=0,
        n_iter_no_change=10_000_000,
        max_fun=1_000_000,
        early_stopping=early_stopping,
        random_state=0,
    )
    noise = np.random.default_rng(0).normal(size=(3000, 100))
    y = np.random.default_rng(1).integers(0, 2, 3000)
    timer = threading.Timer(0.6, _thread.interrupt_main)
    timer.start()
    with pytest.warns(UserWarning, match="Training interrupted by user"):
        net.fit(noise, y)
    timer.join()
    assert net.n_iter_ > 0
    assert np.isfinite(net.predict_proba(noise)).all()
    assert clone(net).set_params(max_iter=1).fit(noise, y).n_iter_ == 1


@pytest.mark.parametrize("settings", ["", "early_stopping=True", "solver='sgd', dropout=0.5"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_numpys_threads_sleep_during_fit(dtype, settings):
    assert_they_sleep(f"""
import warnings

from fastdrop.sklearn import MLPRegressor

warnings.simplefilter("ignore")  # it does not converge
X, y = np.ones((1000, 200), {dtype!r}), np.zeros(1000)
net = MLPRegressor(hidden_layer_sizes=(300, 100), max_iter=2, random_state=0, {settings})


def train():
    net.fit(X, y)
""")
