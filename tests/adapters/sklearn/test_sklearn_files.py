"""Files of estimators, without pickle."""

import json
import re

import numpy as np
import pytest

pytest.importorskip("sklearn")
from sklearn.datasets import load_digits

from fastdrop.sklearn import MLPClassifier, MLPRegressor, load
from fastdrop.training import files

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

X, Y = load_digits(return_X_y=True)
X, Y = X[:200] / 16, Y[:200]
WORDS = np.array([f"class {i}" for i in range(10)])
CASES = {
    "classes": (MLPClassifier, Y, {}),
    "words": (MLPClassifier, WORDS[Y], {"dropout": [0.1, 0.2], "batch_norm": True}),
    "objects": (MLPClassifier, WORDS.astype(object)[Y], {"class_weight": "balanced"}),
    "flags": (MLPClassifier, Y > 4, {"class_weight": {True: 2.0, False: 1}}),
    "one class": (MLPClassifier, np.full(len(Y), 3.0), {}),
    "small numbers": (MLPClassifier, Y.astype(np.int8), {"hidden_layer_sizes": np.array([4, 3])}),
    "labels": (MLPClassifier, np.stack([Y > 3, Y % 2], axis=1).astype(int), {"max_norm": 2}),
    "validated": (MLPClassifier, Y, {"early_stopping": True, "n_iter_no_change": np.inf}),
    "generator": (MLPClassifier, Y, {"random_state": np.random.RandomState(3)}),
    "sgd": (MLPRegressor, Y / 3, {"solver": "sgd", "learning_rate": "adaptive", "dropout": 0.1}),
    "lbfgs": (MLPRegressor, np.stack([Y, Y**2], axis=1), {"solver": "lbfgs"}),
    "Poisson": (MLPRegressor, Y, {"loss": "poisson", "dtype": "float32"}),
    "shared": (MLPRegressor, Y, {"dropout": 0.3, "shared_dropout": True, "input_dropout": 0.1}),
}


def fitted(case):
    kind, y, settings = CASES[case]
    settings = {"hidden_layer_sizes": (4, 3), "max_iter": 3, "random_state": 1} | settings
    return kind(**settings).fit(X, y)


@pytest.mark.parametrize("case", CASES)
def test_a_file_is_the_estimator(case, tmp_path):
    net = fitted(case)
    net.save(tmp_path / "net")
    loaded = load(tmp_path / "net")
    assert type(loaded) is type(net)
    addresses = re.compile(r" at 0x\w+")  # of a generator
    assert addresses.sub("", repr(loaded)) == addresses.sub("", repr(net))
    np.testing.assert_array_equal(loaded.predict(X), net.predict(X))
    assert loaded.predict(X).dtype == net.predict(X).dtype
    for name in ("n_iter_", "t_", "loss_", "n_features_in_", "n_layers_", "out_activation_"):
        assert getattr(loaded, name) == getattr(net, name)
    for name in ("loss_curve_", "validation_scores_", "best_loss_", "best_validation_score_"):
        assert getattr(loaded, name, ()) == getattr(net, name, ())
    if hasattr(net, "classes_"):
        np.testing.assert_array_equal(loaded.classes_, net.classes_)
        assert loaded.classes_.dtype == net.classes_.dtype
        np.testing.assert_array_equal(loaded.predict_proba(X), net.predict_proba(X))


@pytest.mark.parametrize("case", ["words", "labels", "sgd", "Poisson", "shared", "generator"])
def test_training_goes_on(case, tmp_path):
    net = fitted(case)
    net.save(tmp_path / "net")
    loaded = load(tmp_path / "net")
    for each in (net, loaded):
        each.partial_fit(X, CASES[case][1])
        each.partial_fit(X, CASES[case][1])
    for a, b in zip(net._model.get_weights(), loaded._model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert net.loss_curve_ == loaded.loss_curve_


@pytest.mark.parametrize(
    ("first", "then"),
    [
        ({"solver": "adam", "beta_1": 0.5}, {"solver": "sgd"}),
        ({"solver": "sgd", "momentum": 1.0}, {"solver": "adam"}),
        ({"solver": "adam"}, {"beta_1": 0.1, "beta_2": 0.1, "epsilon": 1.0}),
        ({"solver": "sgd"}, {"momentum": 0.1, "nesterovs_momentum": False}),
        ({"solver": "adam", "learning_rate_init": 0.01}, {"learning_rate_init": 0.1}),
        ({"solver": "lbfgs"}, {"solver": "adam"}),
        ({"dropout": 0.5}, {"dropout": 0.1, "alpha": 1.0}),
        ({"hidden_layer_sizes": 3}, {"hidden_layer_sizes": 4}),
        ({"early_stopping": True}, {"early_stopping": False, "dtype": "float32"}),
    ],
)
def test_parameters_that_have_changed_since(first, then, tmp_path):
    net = MLPRegressor(random_state=0, max_iter=3, **{"hidden_layer_sizes": 4} | first).fit(X, Y)
    net.set_params(**then)
    net.save(tmp_path / "net")
    loaded = load(tmp_path / "net")
    np.testing.assert_array_equal(net.predict(X), loaded.predict(X))
    if "hidden_layer_sizes" in then:
        for each in (net, loaded):
            each.set_params(**first)
    for each in (net, loaded):
        each.partial_fit(X, Y)
    for a, b in zip(net._model.get_weights(), loaded._model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    ("name", "value", "match"),
    [
        ("alpha", -1, "The 'alpha' parameter of MLPClassifier must be"),
        ("dropout", "half", "The 'dropout' parameter of MLPClassifier must be"),
        ("random_state", np.random.default_rng(0), "The 'random_state' parameter"),
        ("random_state", np.random.RandomState(np.random.PCG64(0)), "random_state: .* RandomState"),
        ("hidden_layer_sizes", range(1, 3), "hidden_layer_sizes: expected .*, got range"),
    ],
)
def test_what_could_not_be_loaded_is_not_saved(name, value, match, tmp_path):
    net = MLPClassifier(4, max_iter=2).fit(X, Y)
    net.set_params(**{name: value})
    with pytest.raises(ValueError, match=match):
        net.save(tmp_path / "net")
    assert not list(tmp_path.iterdir())


def test_classes_that_a_file_cannot_hold(tmp_path):
    net = MLPClassifier(4, max_iter=2).fit(X, Y.astype("M8[D]"))
    with pytest.raises(ValueError, match=r"classes_: .*, got an array of datetime64\[D\]"):
        net.save(tmp_path / "net")


def test_names_of_features(tmp_path):
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(X, columns=[f"pixel {i}" for i in range(64)])
    MLPClassifier(4, max_iter=2).fit(frame, Y).save(tmp_path / "net")
    loaded = load(tmp_path / "net")
    assert loaded.feature_names_in_[5] == "pixel 5"
    with pytest.raises(ValueError, match="feature names should match"):
        loaded.predict(frame[frame.columns[::-1]])


@pytest.mark.parametrize(
    ("net", "match"),
    [
        (type("Own", (MLPClassifier,), {})(4, max_iter=2), "expected MLPClassifier or MLPReg"),
        (MLPClassifier(4, max_iter=2, class_weight={0: 1 + 0j}), "class_weight: expected numbers"),
    ],
)
def test_what_a_file_cannot_hold(net, match, tmp_path):
    if net.class_weight:
        net.set_params(class_weight=None).fit(X, Y)
        net.set_params(class_weight={0: 1 + 0j})
    else:
        net.fit(X, Y)
    with pytest.raises(ValueError, match=match):
        net.save(tmp_path / "net")
    assert not list(tmp_path.iterdir())


def changes(config):
    """Configurations that are not of one piece."""
    yield {}
    for key in config:
        yield {k: v for k, v in config.items() if k != key}
        for other in (None, 7, "word", [], {}, {"dict": [[1, 2]]}, {"array": ["U9", []]}):
            if other != config[key] and not (key in ("labels", "optimizer") and other is None):
                yield config | {key: other}
    yield config | {"class": "Perceptron"}
    yield config | {"parameters": config["parameters"] | {"dropout": 1.5}}
    yield config | {"parameters": config["parameters"] | {"rate": 1.5}}
    design = dict(config["design"]["dict"])
    for name, value in {"units": {"tuple": [64, 10**12, 10]}, "dtype": "float16"}.items():
        yield config | {
            "design": {"dict": [list(pair) for pair in (design | {name: value}).items()]}
        }
    yield config | {"learnt": config["learnt"] | {"fit": 3}}


def test_a_file_of_other_things_is_refused(tmp_path):
    """Whatever the configuration says, there is an estimator that predicts, or one line."""
    path = tmp_path / "net"
    fitted("words").save(path)
    config, arrays = files.read(path, ("estimator",))
    refused = []
    for changed in changes(json.loads(json.dumps(config))):
        files.write(path, "estimator", changed, arrays)
        try:
            load(path)
        except ValueError as error:
            refused.append(str(error))
    assert len(refused) > 40
    assert not [text for text in refused if "\n" in text or len(text) > 200 or "net" not in text]


def test_arrays_of_another_network_are_refused(tmp_path):
    path = tmp_path / "net"
    fitted("words").save(path)
    config, arrays = files.read(path, ("estimator",))
    for name in arrays:
        for other in (arrays[name][..., :1].copy(), arrays[name].astype(np.int8)):
            if other.shape != arrays[name].shape or other.dtype != arrays[name].dtype:
                files.write(path, "estimator", config, arrays | {name: other})
                with pytest.raises(ValueError, match="net: "):
                    load(path)


def test_damaged_and_other_files(tmp_path):
    path = tmp_path / "net"
    fitted("classes").save(path)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match="damaged"):
        load(path)
    with pytest.raises(FileNotFoundError):
        load(tmp_path / "nothing")
    files.write(path, "weights", {}, {"1.weight": np.ones(3)})
    with pytest.raises(ValueError, match="expected a file of kind estimator, got one of weights"):
        load(path)
