"""Parts of one's own, derived from ours: what they define is what is computed, everywhere."""

import functools

import numpy as np
import pytest

from fastdrop import Sequential
from fastdrop.callbacks import LambdaCallback
from fastdrop.layers import Dense, Dropout
from fastdrop.losses import MeanSquaredError
from fastdrop.metrics import MeanAbsoluteError
from fastdrop.optimizers import Adam

X = np.random.default_rng(0).normal(size=(24, 5)).astype(np.float32)
Y = X.sum(axis=1, keepdims=True)

OURS = {
    "first": lambda: Dense(7, "relu"),
    "dropout": lambda: Dropout(0.3),
    "second": lambda: Dense(6, "relu"),
    "last": lambda: Dense(1),
    "loss": MeanSquaredError,
    "optimizer": Adam,
    "metric": lambda: MeanAbsoluteError(name="error"),
}


def derived(base, method, calls, change=lambda result: result):
    """A class that counts the calls of a method and passes on what the base's returns."""

    def own(self, *args, **named):
        calls.append(method)
        return change(getattr(super(cls, self), method)(*args, **named))

    cls = type("Own", (base,), {method: own})
    return cls


def trained(**parts):
    made = {name: parts.get(name, ours)() for name, ours in OURS.items()}
    layers = [made[name] for name in ("first", "dropout", "second", "last")]
    model = Sequential(layers, seed=3)
    model.compile(made["optimizer"], made["loss"], metrics=[made["metric"]])
    history = model.fit(X, Y, batch_size=8, epochs=2, verbose=0).history
    return model.get_weights(), history, model.evaluate(X, Y, verbose=0)


def double_forward(result):
    y, backward = result
    return 2 * y, lambda dy, *rest, **named: backward(2 * dy, *rest, **named)


PARTS = {
    "first dense": ("first", Dense, "forward", (7, "relu"), double_forward),
    "dropout": ("dropout", Dropout, "forward", (0.3,), double_forward),
    "dense inside": ("second", Dense, "forward", (6, "relu"), double_forward),
    "last dense": ("last", Dense, "forward", (1,), double_forward),
    "loss": ("loss", MeanSquaredError, "_losses", (), lambda r: (r[0], abs(r[1]))),
    "loss, whole": ("loss", MeanSquaredError, "__call__", (), lambda r: (r[0], abs(r[1]))),
    "step of the optimiser": (
        "optimizer",
        Adam,
        "_step",
        (),
        lambda r: (r[0], {**r[1], "rate": 3 * r[1]["rate"]}),
    ),
    "metric": ("metric", MeanAbsoluteError, "result", (), lambda r: 2 * r),
}


@pytest.mark.parametrize("part", PARTS)
def test_what_one_defines_is_what_is_computed(part):
    place, base, method, arguments, change = PARTS[part]
    named = {"name": "error"} if place == "metric" else {}
    weights, history, measured = trained()
    found = []
    for how in ({}, {"change": change}):
        calls = []
        cls = derived(base, method, calls, **how)
        found.append(trained(**{place: lambda cls=cls: cls(*arguments, **named)}))
        assert len(calls) >= (2 if place == "metric" else 6)  # in each epoch, or batch
    same, other = found
    for w, expected in zip(same[0], weights, strict=True):
        np.testing.assert_allclose(w, expected, 1e-4, 1e-6)
    np.testing.assert_allclose(same[1]["loss"], history["loss"], 1e-5)
    np.testing.assert_allclose(same[1]["error"], history["error"], 1e-5)
    np.testing.assert_allclose(same[2], measured, 1e-5)
    if place == "metric":
        np.testing.assert_allclose(other[1]["error"], 2 * np.array(history["error"]), 1e-5)
    else:
        assert not np.allclose(other[0][0], weights[0], 1e-4)


def test_an_update_of_ones_own_is_called():
    calls = []

    class Own(Adam):
        def update(self, params, grads, rules=None):
            calls.append(sorted(grads))
            for gradient in grads.values():
                assert isinstance(gradient, np.ndarray)
            super().update(params, grads, rules)

    weights, _, _ = trained(optimizer=Own)
    expected, _, _ = trained()
    assert len(calls) == 6
    for w, other in zip(weights, expected, strict=True):
        np.testing.assert_allclose(w, other, 1e-4, 1e-6)


def replaced(model):
    layer = model.layers[0]
    layer.params = {name: array * 0.5 for name, array in layer.params.items()}


CHANGES = {
    "nothing": lambda model: None,
    "p": lambda model: setattr(model.layers[1], "p", 0.8),
    "frozen": lambda model: setattr(model.layers[2], "trainable", False),
    "learning rate": lambda model: setattr(model.optimizer, "learning_rate", 0.1),
    "schedule": lambda model: setattr(model.optimizer, "learning_rate", lambda step: 0.1 / step),
    "beta": lambda model: setattr(model.optimizer, "beta_1", 0.1),
    "clipping": lambda model: setattr(model.optimizer, "clipnorm", 0.01),
    "clipped values": lambda model: setattr(model.optimizer, "clipvalue", 0.001),
    "activation": lambda model: setattr(model.layers[0], "activation", "tanh"),
    "penalty": lambda model: setattr(model.layers[0], "l2", 0.1),
    "norm": lambda model: setattr(model.layers[0], "max_norm", 0.5),
    "other arrays": replaced,
    "other values": lambda model: model.set_weights([w * 0.5 for w in model.get_weights()]),
    "loss": lambda model: setattr(model, "loss", "mae"),
    "seed": lambda model: setattr(model, "seed", 99),
    "mode": lambda model: setattr(model.layers[1], "mode", "vanilla"),
    "shared mask": lambda model: setattr(model.layers[1], "shared_axes", (0,)),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_changes_between_batches_is_followed(change):
    """An optimiser of one's own takes a step's general way, which looks at everything anew."""

    class Own(Adam):
        pass

    found = []
    for optimizer in (Adam, Own):
        layers = [OURS[name]() for name in ("first", "dropout", "second", "last")]
        model = Sequential(layers, seed=3)
        model.compile(optimizer(), "mse")
        hook = LambdaCallback(
            on_train_batch_end=lambda batch, logs, m=model: CHANGES[change](m) if batch == 1 else 0
        )
        losses = model.fit(X, Y, batch_size=4, epochs=1, verbose=0, callbacks=[hook]).history
        found.append([*model.get_weights(), np.array(losses["loss"])])
    for ours, general in zip(*found, strict=True):
        np.testing.assert_allclose(ours, general, 1e-5, 1e-7)
    if change != "nothing":
        weights = unchanged()
        assert not all(np.allclose(a, b, 1e-4, 1e-6) for a, b in zip(found[0], weights))


@functools.cache
def unchanged():
    layers = [OURS[name]() for name in ("first", "dropout", "second", "last")]
    model = Sequential(layers, seed=3)
    model.compile("adam", "mse")
    model.fit(X, Y, batch_size=4, epochs=1, verbose=0)
    return model.get_weights()


@pytest.mark.parametrize("shape", [(4,), (2, 3), (2, 3, 2)])
def test_a_model_may_be_one_dropout(shape):
    model = Sequential([Dropout(0.5, input_shape=shape)], seed=1)
    model.compile("adam", "mse")
    x = np.ones((6, *shape), np.float32)
    np.testing.assert_array_equal(model.predict(x, verbose=0), x)
    assert model.evaluate(x, x, verbose=0) == 0
    model.fit(x, x, verbose=0)
    assert 0 < model.train_on_batch(x, x) < 2  # what is dropped is 1 off, what is kept, too
