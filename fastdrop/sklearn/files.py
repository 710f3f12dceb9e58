"""Files of estimators: parameters, weights and everything else that was learnt, without pickle.

The arrays are the network's weights ("1.weight"), and those of an optimiser under "optimizer/".
Everything else is JSON. What JSON cannot express is a dict of one item, such as {"tuple": [100]}.
"""

from __future__ import annotations

import dataclasses
import inspect
import math
from collections.abc import Callable, Mapping
from os import PathLike
from typing import Any

import numpy as np

from fastdrop._checks import is_count, lookup
from fastdrop._messages import one_line_about, shown
from fastdrop._serialization import is_ours
from fastdrop.layers import Array
from fastdrop.models import Sequential
from fastdrop.optimizers import Optimizer
from fastdrop.sklearn import solvers
from fastdrop.sklearn.networks import Design
from fastdrop.sklearn.targets import Labels
from fastdrop.training import files

__all__ = ["load", "save"]

KIND = "estimator"
KEYS = ("class", "parameters", "design", "seed", "step", "labels", "learnt", "optimizer")
LEARNT = (
    *("n_features_in_", "feature_names_in_", "n_iter_", "t_", "loss_", "best_loss_"),
    *("loss_curve_", "validation_scores_", "best_validation_score_", "_no_improvement_count"),
)
OPTIMIZERS: dict[str, Callable[..., Optimizer]] = {"Adam": solvers.adam, "SGD": solvers.sgd}
CANNOT_HOLD = "{}: expected numbers, text, lists or arrays of them, which a file can hold"
ARRAYS = {
    name: np.dtype(name)
    for name in (
        *("bool", "float16", "float32", "float64", "object", "str"),
        *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)),
    )
}


def save(estimator: Any, model: Sequential, path: str | PathLike[str]) -> None:
    """Write a fitted estimator, whose network is `model`; see `Perceptron.save`."""
    if not is_ours(type(estimator)):
        raise ValueError(
            f"estimator: expected MLPClassifier or MLPRegressor, got {type(estimator).__name__}, "
            "which only its own program knows"
        )
    labels = getattr(estimator, "_labels", None)
    optimizer = getattr(estimator, "_optimizer", None)
    learnt = {name: vars(estimator)[name] for name in LEARNT if name in vars(estimator)}
    config = {
        "class": type(estimator).__name__,
        "parameters": {
            name: packed(name, value) for name, value in estimator.get_params(deep=False).items()
        },
        "design": packed("design", dataclasses.asdict(estimator._design)),
        "seed": model.seed,
        "step": model.step,
        "labels": None if labels is None else packed("classes_", labels.facts()),
        "learnt": {name: packed(name, value) for name, value in learnt.items()},
        "optimizer": None,
    }
    arrays = dict(model.network.weights())
    if optimizer is not None:  # with its own constants: parameters may have changed since
        name = type(optimizer).__name__
        config["optimizer"] = {
            "class": name,
            "constants": {each: getattr(optimizer, each) for each in constants(OPTIMIZERS[name])},
            "iterations": optimizer.iterations,
        }
        for name, state in optimizer.state_of(model.params).items():
            for part, array in state.items():
                arrays[f"{files.OPTIMIZER}{name}/{part}"] = array
    files.write(path, KIND, config, arrays)


def load(path: str | PathLike[str], classes: Mapping[str, type]) -> Any:
    """Read an estimator of one of these classes; see `fastdrop.sklearn.load`."""
    config, arrays = files.read(path, (KIND,))
    with one_line_about(path):
        files.check_keys("config", config, KEYS)
        parameters = {name: unpacked(value) for name, value in config["parameters"].items()}
        estimator = lookup("class", config["class"], classes)(**parameters)
        estimator._validate_params()
        design = Design(**unpacked(config["design"]))
        _check_design(design, arrays)
        model = design.network(config["seed"])
        model.network.take_over(
            {name: a for name, a in arrays.items() if not name.startswith(files.OPTIMIZER)}
        )
        if not is_count(config["step"], least=0):
            raise ValueError(f"step: expected a whole number, got {shown(config['step'])}")
        model.network.step = config["step"]
        if config["labels"] is not None:
            estimator._labels = Labels.from_facts(**unpacked(config["labels"]))
            estimator.classes_ = estimator._labels.classes
        for name, value in config["learnt"].items():
            setattr(estimator, lookup("learnt", name, dict(zip(LEARNT, LEARNT))), unpacked(value))
        estimator._take(design, model)
        if config["optimizer"] is not None:
            estimator._optimizer = _optimizer(model, config["optimizer"], arrays)
    return estimator


def _check_design(design: Design, arrays: Mapping[str, Array]) -> None:
    """Refuse a design whose sizes are not those of the weights, before memory is allocated."""
    weights = {name: a.shape for name, a in arrays.items() if name.endswith(".weight")}
    own = {name: shape for name, shape in weights.items() if not name.startswith(files.OPTIMIZER)}
    shapes = [own[name] for name in sorted(own, key=lambda name: int(name.partition(".")[0]))]
    expected = [(after, before) for before, after in zip(design.units, design.units[1:])]
    if shapes != expected:
        raise ValueError(f"design: expected weights of shapes {expected}, got {shapes}")


def constants(make: Callable[..., Optimizer]) -> list[str]:
    """Return the names of an optimiser's constants, which are the arguments of what makes it."""
    return list(inspect.signature(make).parameters)


def _optimizer(model: Sequential, given: Any, arrays: Mapping[str, Array]) -> Optimizer:
    files.check_keys("optimizer", given, ("class", "constants", "iterations"))
    make = lookup("optimizer", given["class"], OPTIMIZERS)
    files.check_keys("optimizer", given["constants"], constants(make))
    optimizer = make(**given["constants"])
    state: dict[str, dict[str, Array]] = {}
    for name, array in arrays.items():
        if name.startswith(files.OPTIMIZER):
            param, _, part = name.removeprefix(files.OPTIMIZER).rpartition("/")
            state.setdefault(param, {})[part] = array
    optimizer.restore(model.params, given["iterations"], state)
    return optimizer


def packed(name: str, value: Any) -> Any:
    """Return a parameter or attribute of this name in a form that JSON can hold.

    Raises
    ------
    ValueError
        When JSON cannot hold it.
    """
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return {"float": str(value)}
    if isinstance(value, bool | int | float | str | None):
        return value
    if isinstance(value, list | tuple):
        items = [packed(name, item) for item in value]
        return items if isinstance(value, list) else {"tuple": items}
    if isinstance(value, Mapping):
        pairs = [[packed(name, key), packed(name, item)] for key, item in value.items()]
        return {"dict": pairs}
    if isinstance(value, np.ndarray):
        kind = "str" if value.dtype.kind == "U" else value.dtype.name
        if kind in ARRAYS:
            return {"array": [kind, packed(name, value.tolist())]}
        raise ValueError(f"{CANNOT_HOLD.format(name)}, got an array of {value.dtype}")
    if (
        isinstance(value, np.random.RandomState)
        and value.get_state(legacy=False)["bit_generator"] == "MT19937"
    ):
        return {"random": packed(name, value.get_state())}
    raise ValueError(f"{CANNOT_HOLD.format(name)}, got {type(value).__name__}")


def unpacked(value: Any) -> Any:
    """Return the value that `packed` was given."""
    if isinstance(value, list):
        return [unpacked(item) for item in value]
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind == "float":
        return float(content)
    if kind == "tuple":
        return tuple(unpacked(item) for item in content)
    if kind == "dict":
        return {unpacked(key): unpacked(item) for key, item in content}
    if kind == "array":
        dtype, items = content
        return np.array(unpacked(items), lookup("array", dtype, ARRAYS))
    if kind == "random":
        random = np.random.RandomState()
        random.set_state(unpacked(content))
        return random
    raise ValueError(f"expected float, tuple, dict, array or random, got {shown(kind)}")
