"""Whatever is passed for an argument: a message is one line of at most 200 characters."""

import numpy as np
import pytest

import fastdrop
from fastdrop import callbacks, optimizers
from fastdrop._messages import shown
from fastdrop.layers import Dense, Dropout, Dropout2d, DropPath, Input
from fastdrop.models import Sequential

X = np.ones((4, 6), np.float32)
KEY = fastdrop.Key(1)


def model():
    made = Sequential([Dense(3), Dropout(0.5), Dense(1)], seed=1)
    made.compile("adam", "mse")
    return made


def fit(**arguments):
    return model().fit(**{"x": X, "y": np.ones(4), "verbose": 0, **arguments})


HOSTILE = {
    "a large array": np.zeros((50, 50)),
    "long text": "x" * 1000,
    "a long list": list(range(1000)),
    "a list of long texts": ["x" * 1000, "a\nb"],
    "a dict of long texts": {"x" * 1000: "a\nb"},
    "two lines": "a\nb",
    "an integer of 5000 digits": 10**5000,
}
LONG = "x" * 1000
MOMENTS = {"w": {"m": np.ones(1), "v": np.ones(1)}}
CONFIG = Sequential([Dense(1)], seed=1).get_config()
ARGUMENTS = {
    "dropout, p": lambda v: fastdrop.dropout(X, v, key=KEY),
    "dropout, shared_axes": lambda v: fastdrop.dropout(X, key=KEY, shared_axes=v),
    "dropout, offset": lambda v: fastdrop.dropout(X, key=KEY, offset=v),
    "dropout_mask, shape": lambda v: fastdrop.dropout_mask([v], 0.5, key=KEY),
    "drop_path, mode": lambda v: fastdrop.drop_path(X, 0.5, mode=v, key=KEY),
    "bias_act_dropout, activation": lambda v: fastdrop.bias_act_dropout(X, X[0], v, key=KEY),
    "Key": lambda v: fastdrop.Key(v),
    "fold_in": lambda v: KEY.fold_in(v),
    "Dense, units": lambda v: Dense([v]),
    "Dense, activation": lambda v: Dense(3, v),
    "Dense, l2": lambda v: Dense(3, l2=v),
    "Dense, max_norm": lambda v: Dense(3, max_norm=v),
    "Dense, kernel_initializer": lambda v: Dense(3, kernel_initializer=v),
    "Dropout, p": lambda v: Dropout(v),
    "Dropout, groups": lambda v: Dropout(0.5, shared_axes=(0,), groups=[v]),
    "Dropout, mode": lambda v: Dropout(0.5, mode=v),
    "DropPath, mode": lambda v: DropPath(0.5, mode=v),
    "Dropout2d, data_format": lambda v: Dropout2d(0.5, data_format=v),
    "Input": lambda v: Input([[v]]),
    "Sequential": lambda v: Sequential([v]),
    "Sequential, dtype": lambda v: Sequential([Dense(1)], dtype=v),
    "Adam, learning_rate": lambda v: optimizers.Adam([v]),
    "Adam, clipnorm": lambda v: optimizers.Adam(clipnorm=[v]),
    "Adam.update, params": lambda v: optimizers.Adam().update(v, {"w": np.ones(1)}),
    "Adam.update, grads": lambda v: optimizers.Adam().update({"w": np.ones(1)}, v),
    "Adam.update, rules": lambda v: optimizers.Adam().update({}, {}, v),
    "Adam.restore, iterations": lambda v: optimizers.Adam().restore({}, [v], {}),
    "Adam.restore, state": lambda v: optimizers.Adam().restore({}, 0, v),
    "Adam.restore, a state": lambda v: optimizers.Adam().restore({}, 0, {"w": v}),
    "Adam.restore, a parameter": lambda v: optimizers.Adam().restore({"w": v}, 0, MOMENTS),
    "Adam.restore, an array": lambda v: optimizers.Adam().restore(
        {"w": np.ones(1)}, 0, {"w": {"m": v, "v": v}}
    ),
    "Adam.restore, names": lambda v: optimizers.Adam().restore(
        {LONG: np.ones(1)}, 0, {LONG: {LONG: v}}
    ),
    "Adam.restore, shape": lambda v: optimizers.Adam().restore(
        {LONG: np.ones(2)}, 0, {LONG: MOMENTS["w"]}
    ),
    "Adam.from_config": lambda v: optimizers.Adam.from_config(v),
    "Dense.from_config": lambda v: Dense.from_config(v),
    "Sequential.from_config": lambda v: Sequential.from_config(v),
    "Sequential.from_config, layers": lambda v: Sequential.from_config(CONFIG | {"layers": v}),
    "Sequential.from_config, seed": lambda v: Sequential.from_config(CONFIG | {"seed": v}),
    "Sequential.from_config, input_shape": lambda v: Sequential.from_config(
        CONFIG | {"input_shape": v}
    ),
    "compile, optimizer": lambda v: model().compile(v, "mse"),
    "compile, loss": lambda v: model().compile("adam", v),
    "compile, metrics": lambda v: model().compile("adam", "mse", metrics=[v]),
    "fit, epochs": lambda v: fit(epochs=[v]),
    "fit, batch_size": lambda v: fit(batch_size=[v]),
    "fit, shuffle": lambda v: fit(shuffle=v),
    "fit, verbose": lambda v: fit(verbose=v),
    "fit, validation_split": lambda v: fit(validation_split=v),
    "fit, callbacks": lambda v: fit(callbacks=v),
    "fit, class_weight": lambda v: fit(class_weight=v),
    "fit, sample_weight": lambda v: fit(sample_weight=v),
    "predict_mc, samples": lambda v: model().predict_mc(X, [v]),
    "EarlyStopping, mode": lambda v: callbacks.EarlyStopping(mode=v),
    "EarlyStopping, patience": lambda v: callbacks.EarlyStopping(patience=[v]),
    "ModelCheckpoint, save_freq": lambda v: callbacks.ModelCheckpoint("x", save_freq=v),
    "CSVLogger, separator": lambda v: callbacks.CSVLogger("x", [v]),
}


@pytest.mark.parametrize("value", HOSTILE.values(), ids=HOSTILE)
@pytest.mark.parametrize("name", ARGUMENTS)
def test_a_message_has_one_line_and_is_fastdrops_own(name, value):
    with pytest.raises((TypeError, ValueError)) as raised:
        ARGUMENTS[name](value)
    message = str(raised.value)
    assert len(message.splitlines()) == 1
    assert len(message) <= 200
    assert "expected" in message


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("compile, loss", ("mean_square_error", "mean_squared_error")),
        ("compile, metrics", ("acuracy", "accuracy")),
        ("Dense, activation", ("rleu", "relu")),
    ],
)
def test_a_misspelt_name_is_answered_by_the_nearest(name, near):
    wrong, right = near
    with pytest.raises(ValueError, match=f"got '{wrong}'; did you mean {right}\\?$"):
        ARGUMENTS[name](wrong)


def test_a_value_is_shown_whole_if_it_is_short():
    assert shown(0.5) == "0.5"
    assert shown("a\nb") == r"'a\nb'"
    assert shown(10**5000) == "a value of type int"
    assert len(shown("x" * 1000)) == 60
