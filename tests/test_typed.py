"""What `repr` shows can be typed in again, of every public class of a kind of thing."""

import inspect
import itertools
import math

import numpy as np
import pytest

from fastdrop import (
    callbacks,
    initializers,
    layers,
    learning_rates,
    losses,
    metrics,
    optimizers,
)
from fastdrop._attributes import Declared
from fastdrop._serialization import Configurable
from fastdrop.layers import Dense, Dropout, schedules
from fastdrop.models import Sequential

MODULES = (
    layers,
    schedules,
    losses,
    optimizers,
    metrics,
    callbacks,
    initializers,
    learning_rates,
)
CLASSES = [
    pytest.param(cls, module, id=f"{module.__name__.removeprefix('fastdrop.')}.{name}")
    for module in MODULES
    for name, cls in vars(module).items()
    if name in module.__all__ and isinstance(cls, type)
    if issubclass(cls, Declared | schedules.Schedule)
]


def figure(*arguments):
    """A function that users give: for a schedule, a metric, a hook."""
    return 0.25


# Values of arguments, by name; an argument that is not here has to be put here.
VALUES = {
    "activation": ["relu"],
    "alpha": [0.5],
    "append": [True],
    "baseline": [0.5, math.inf],
    "beta_1": [0.5],
    "beta_2": [0.5],
    "block_size": [3],
    "boundaries": [[10, 20]],
    "centered": [True],
    "center": [False],
    "clipnorm": [1.5],
    "clipvalue": [1.5],
    "cooldown": [2],
    "cycle": [True],
    "data_format": ["channels_last"],
    "decay_rate": [0.5],
    "decay_steps": [7],
    "delta": [2],
    "dropout_regularizer": [1e-3],
    "end": [0.25],
    "end_learning_rate": [0.25],
    "epsilon": [1e-3],
    "factor": [0.5],
    "filename": ["it's.csv"],
    "filepath": ["{epoch:02d}.safetensors"],
    "from_logits": [True],
    "function": [figure],
    "global_clipnorm": [1.5],
    "groups": [2],
    "initial_learning_rate": [0.5],
    "initial_value_threshold": [0.5, -math.inf],
    "input_dim": [3],
    "input_shape": [(3, 4, 5)],
    "k": [2],
    "kernel_initializer": [
        "he_normal",
        initializers.RandomUniform(-1, 0.5),
        initializers.Constant(math.nan),
    ],
    "l1": [0.5],
    "l2": [np.float32(0.1)],
    "label_smoothing": [0.1],
    "layers": [[Dense(3), Dropout(0.25, name="it's")]],
    "leave": [False],
    "learning_rate": [0.5, figure, learning_rates.PiecewiseConstantDecay([3], [0.5, 0.25])],
    "loss": ["mse", losses.Huber(3)],
    "max_norm": [2],
    "maxval": [0.5],
    "mean": [0.5],
    "min_delta": [0.5],
    "min_lr": [0.5],
    "minval": [-0.5],
    "mode": ["vanilla", "batch", "max"],
    "momentum": [0.5],
    "monitor": ["auc"],
    "name": ['a "name"', "it's\n<b>"],
    "nesterov": [True],
    "p": [0.25, np.float64(0.75), schedules.Cosine(0.5, 0.25, 9), figure],
    "patience": [3],
    "power": [2],
    "rate": [0.25],
    "restore_best_weights": [True],
    "rho": [0.5],
    "save_best_only": [True],
    "save_freq": [],
    "save_weights_only": [True],
    "scale": [False],
    "schedule": [figure],
    "seed": [2**64 - 1],
    "separator": [";"],
    "shape": [(3, 4)],
    "shared_axes": [0, (0, -1), [0]],
    "staircase": [True],
    "start": [0.5],
    "start_from_epoch": [2],
    "stddev": [0.5],
    "steps": [9],
    "temperature": [0.5],
    "title": ["it's"],
    "units": [3],
    "use_bias": [False],
    "value": [0.5, -math.inf],
    "values": [[0.5, 0.25, 0.125]],
    "verbose": [1],
    "warmup_steps": [3],
    "warmup_target": [0.5],
    "weight_decay": [0.5],
    "weight_regularizer": [1e-3],
    **{name: [] for name in ("kernel_constraint", "kernel_regularizer", "noise_shape")},
    **{name: [figure] for name in dir(callbacks.Callback) if name.startswith("on_")},
}


def arguments_of(cls):
    """Calls' arguments: as few as may be, one more each, and many at once."""
    parameters = inspect.signature(cls).parameters.values()
    named = [x for x in parameters if x.kind not in (x.VAR_KEYWORD, x.VAR_POSITIONAL)]
    needed = {x.name: VALUES[x.name][0] for x in named if x.default is x.empty}
    yield needed
    for each in named:
        for value in VALUES[each.name]:
            yield needed | {each.name: value}
    for first, second in itertools.combinations(named, 2):
        if VALUES[first.name] and VALUES[second.name]:
            yield needed | {x.name: VALUES[x.name][-1] for x in (first, second)}


def made(cls, arguments):
    """An object, None where the arguments are not for each other or for this class."""
    try:
        return cls(**arguments)
    except (ValueError, TypeError):
        return None


def names_for(module):
    """What somebody knows who has imported the public names of these modules."""
    known = {"figure": figure}
    for each in (initializers, learning_rates, losses, module):
        known |= {name: getattr(each, name) for name in each.__all__}
    return known


def contents(thing):
    """All that there is in a thing, to be compared."""
    if isinstance(thing, Declared | schedules.Schedule):
        inside = {name: contents(value) for name, value in vars(thing).items()}
        return type(thing), inside
    if isinstance(thing, list | tuple):
        return [contents(item) for item in thing]
    thing = thing.item() if isinstance(thing, np.generic) else thing
    return repr(thing) if isinstance(thing, float) else thing


@pytest.mark.parametrize(("cls", "module"), CLASSES)
def test_typed_in_again(cls, module):
    tried = 0
    for arguments in arguments_of(cls):
        thing = made(cls, arguments)
        if thing is None:
            continue
        tried += 1
        text = repr(thing)
        assert text.isprintable()
        again = eval(text, names_for(module))
        assert repr(again) == text
        assert contents(again) == contents(thing), text
        if isinstance(thing, Configurable) and figure not in arguments.values():
            assert repr(again.get_config()) == repr(thing.get_config())
    assert tried


def test_arguments_change_what_is_typed():
    """Of each argument there is a value that shows; otherwise nothing above would be tested."""
    for cls, _ in (param.values for param in CLASSES):
        default, shown = None, set()
        for number, arguments in enumerate(arguments_of(cls)):
            thing = made(cls, arguments)
            default = repr(thing) if number == 0 else default
            if thing is not None and repr(thing) != default:
                shown |= arguments.keys()
        parameters = inspect.signature(cls).parameters.values()
        optional = {x.name for x in parameters if x.kind != x.VAR_KEYWORD and VALUES[x.name]}
        needed = {x.name for x in parameters if x.default is x.empty}
        assert optional - needed <= shown, cls


@pytest.mark.parametrize(
    "cls", [c.values[0] for c in CLASSES if issubclass(c.values[0], layers.Layer)]
)
def test_frozen_layers(cls):
    for arguments in itertools.islice(arguments_of(cls), 30):
        layer = made(cls, arguments)
        if layer is None:
            continue
        layer.trainable = False
        again = eval(repr(layer), names_for(layers))
        assert contents(again) == contents(layer)
        assert not again.trainable


def test_what_is_assigned_shows():
    layer = Dropout(0.5)
    layer.p, layer.seed = 0.25, 3
    assert repr(layer) == "Dropout(0.25, seed=3)"
    adam = optimizers.Adam()
    adam.learning_rate = 0.5
    assert repr(adam) == "Adam(0.5)"


class Mine(Dropout):
    def __init__(self, strength, *, twice=False, **others):
        super().__init__(strength / (2 if twice else 1), **others)
        self.strength, self.twice = strength, twice


def test_classes_of_users():
    layer = Mine(0.5, twice=True, shared_axes=(0,))
    assert repr(layer) == "Mine(0.5, twice=True, shared_axes=(0,))"
    assert contents(eval(repr(layer), {"Mine": Mine})) == contents(layer)


def test_functions_without_a_name():
    assert repr(Dropout(lambda step: 0.5)) == "Dropout(<lambda>)"


def test_objects_that_are_not_whole_can_be_shown():
    """As a debugger does in the middle of a constructor."""
    for cls, _ in (param.values for param in CLASSES):
        if issubclass(cls, Declared) and not hasattr(cls, "__dataclass_fields__"):
            assert cls.__name__ in repr(cls.__new__(cls))


MODELS = {
    "empty": lambda: Sequential(seed=1),
    "not built": lambda: Sequential([Dense(3)], seed=1),
    "Input": lambda: Sequential([layers.Input((4,)), Dense(3)], seed=1),
    "input_shape": lambda: Sequential([Dense(3, input_shape=(4,)), Dense(2)], seed=1),
    "frozen": lambda: frozen(Sequential([Dense(3, input_shape=(4,)), Dense(2)], seed=1)),
    "float64": lambda: Sequential([Dense(3)], seed=2**64 - 1, dtype="float64", name="it's"),
    "long": lambda: Sequential(
        [
            layers.Input((8,)),
            *(layers.Residual([Dense(16, "relu"), Dropout(0.1), Dense(8)]) for _ in range(5)),
            Dense(2, "softmax"),
        ],
        seed=7,
    ),
}


def frozen(model):
    model.layers[0].trainable = False
    return model


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
def test_models(make):
    model = make()
    again = eval(repr(model), names_for(layers) | {"Sequential": Sequential})
    assert again.get_config() == model.get_config()
    assert repr(again) == repr(model)
    for ours, theirs in zip(again.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_a_model_that_data_built():
    model = Sequential([Dense(3), Dropout(0.5), Dense(1)], seed=3)
    model(np.zeros((2, 4)))
    assert repr(model) == (
        "Sequential([Input((4,)), Dense(3), Dropout(0.5), Dense(1, name='dense_1')], seed=3)"
    )
