"""What is changed, taken away or of one's own while a model is used."""

import copy
import math
import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from small_models import data, mlp

from fastdrop.callbacks import Callback, EarlyStopping
from fastdrop.layers import (
    BatchNormalization,
    Dense,
    Dropout,
    Input,
    Layer,
    Residual,
)
from fastdrop.losses import Loss, SparseCategoricalCrossentropy
from fastdrop.metrics import AUC, Metric
from fastdrop.models import Sequential
from fastdrop.optimizers import Adam
from fastdrop.random import Key, uniform

X, Y = data()


def test_single_batches_follow_changes_of_the_model():
    """What is kept between calls never outlives what it was made for."""
    x = uniform(Key(3), (4, 6))
    y = np.array([0, 1, 2, 0])
    model = Sequential([Dense(5, "relu", input_shape=(6,)), Dropout(0.5), Dense(3)], seed=1)
    model.compile("adam", "mse")
    before = model.predict(x, verbose=0)
    model.layers[0].params["weight"] = model.layers[0].params["weight"] * 2  # another array
    changed = model.predict(x, verbose=0)
    assert (changed != before).any()
    model.layers[0].params["weight"] /= 2
    np.testing.assert_array_equal(model.predict(x, verbose=0), before)
    model.add(Dense(3, "softmax"))
    assert np.allclose(model.predict(x, verbose=0).sum(axis=1), 1)
    model.compile("adam", "sparse_categorical_crossentropy")
    first = model.train_on_batch(x, y)
    assert model.train_on_batch(x, y) != first
    copied = copy.deepcopy(model)
    np.testing.assert_array_equal(copied.predict(x, verbose=0), model.predict(x, verbose=0))
    model.train_on_batch(x, y)
    assert (copied.predict(x, verbose=0) != model.predict(x, verbose=0)).any()


def test_settings_of_layers_are_followed():
    x, y = data()
    model, plain, ruled = mlp(), mlp(), mlp()
    plain.layers[-1].activation = "linear"
    ruled.layers[0].l2, ruled.layers[0].max_norm = 1.0, 0.5
    for other in (plain, ruled):
        model.predict(x, verbose=0)
        for name in ("activation", "l2", "max_norm"):
            for own, its in zip(model.layers, other.layers, strict=True):
                if hasattr(its, name):
                    setattr(own, name, getattr(its, name))
        np.testing.assert_array_equal(model.predict(x, verbose=0), other.predict(x, verbose=0))
        np.testing.assert_array_equal(model(x), other(x))
    assert model.train_on_batch(x, y) == ruled.train_on_batch(x, y)
    for one, other in zip(model.get_weights(), ruled.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("metric", [AUC(), "mse", "binary_accuracy"])
def test_metrics_that_do_not_fit_are_refused_before_anything_is_trained(metric):
    x, y = data()
    model = mlp(metrics=[metric])
    model.predict(x, verbose=0)
    before = [array.copy() for array in model.get_weights()]
    calls = [
        lambda: model.fit(x, y, verbose=0),
        lambda: model.fit([(x, y)], verbose=0),
        lambda: model.train_on_batch(x, y),
    ]
    for call in calls:
        with pytest.raises(ValueError, match="expected"):
            call()
    assert (model.step, model.optimizer.iterations) == (0, 0)
    for one, other in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_metric_of_ones_own_sees_only_what_there_is():
    class Rows(Metric):
        def update(self, outputs, y, from_logits=None, sample_weight=None):
            assert sample_weight is not None
            seen.append(len(outputs))

        def result(self):
            return 0.0

    seen = []
    model = mlp(metrics=None, weighted_metrics=[Rows("rows")])
    model.fit(X, Y, 25, verbose=0, sample_weight=np.ones(50), validation_split=None)
    assert seen == [25, 25]


def test_a_layer_of_ones_own_may_call_its_attributes_as_it_likes():
    class Counts(Layer):
        def forward(self, x, batch):
            self.mode = np.full(3, batch.training)
            return x, lambda dy: dy

        @property
        def l2(self):
            raise RuntimeError

    model = Sequential([Counts(), Dense(3)], seed=1)
    model.compile("sgd", "mse")
    model.fit(X, np.zeros((50, 3)), 25, 2, verbose=0)
    assert model.step == 4


def test_class_weights_that_do_not_fit_are_refused_before_anything_is_trained():
    x, _ = data()
    model = Sequential([Dense(1, input_shape=(6,))], seed=1)
    model.compile("sgd", "mse")
    y = np.where(np.arange(50) < 45, 1, 5)
    with pytest.raises(ValueError, match=r"class_weight: expected .* got 5"):
        model.fit(x, y, 10, shuffle=False, verbose=0, class_weight={0: 1.0, 1: 2.0})
    assert model.step == 0


def test_weights_may_be_set_to_each_other():
    model = Sequential([Dense(6, use_bias=False), Dense(6, use_bias=False)], seed=1)
    model.predict(X, verbose=0)
    first, second = model.get_weights()
    model.set_weights([model.params["1.weight"], model.params["0.weight"]])
    for one, other in zip(model.get_weights(), [second, first], strict=True):
        np.testing.assert_array_equal(one, other)


def test_fit_follows_changes_of_the_model():
    x, y = data()
    model = mlp()
    model.fit(x, y, verbose=0)
    frozen = np.asfortranarray(model.layers[0].params["weight"])  # nor of the order it needs

    class Replace(Callback):
        def on_train_batch_end(self, batch, logs):
            if batch == 1:
                self.model.layers[0].params["weight"] = frozen

    copied = copy.deepcopy(model)
    model.fit(x, y, 20, verbose=0, shuffle=False, callbacks=[Replace()])
    copied.fit(x[:40], y[:40], 20, verbose=0, shuffle=False)
    copied.layers[0].params["weight"] = frozen.copy()
    copied.fit(x[40:], y[40:], 20, verbose=0, shuffle=False)
    assert (frozen != model.layers[0].params["weight"]).any()
    for one, other in zip(model.get_weights(), copied.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_gathered_columns_come_from_arrays_of_any_order():
    x, y = data()
    results = []
    for order in "CF":
        drop = {"p": 0.5, "shared_axes": 0}
        stack = [Dropout(**drop), Dense(8, "relu"), Dropout(**drop), Dense(3, "softmax")]
        model = Sequential(stack, seed=1)
        model.compile("adam", "sparse_categorical_crossentropy")
        model.predict(x, verbose=0)
        for layer in (stack[1], stack[3]):
            layer.params["weight"] = np.array(layer.params["weight"], order=order)
        model.fit(x, y, verbose=0)
        results.append(model.get_weights())
    for one, other in zip(*results, strict=True):
        np.testing.assert_array_equal(one, other)


def test_threads_may_share_a_model():
    model = Sequential([Dense(256, "relu", input_shape=(64,)), Dense(256, "relu"), Dense(10)])
    batches = [uniform(Key(n), (200, 64)).astype(np.float32) for n in range(4)]
    expected = [model(x) for x in batches]

    def predict(n):
        return all(np.array_equal(model(batches[n]), expected[n]) for _ in range(100))

    with ThreadPoolExecutor(len(batches)) as pool:
        assert all(pool.map(predict, range(len(batches))))


def test_a_model_can_be_pickled():
    x, y = data()
    model = mlp()
    model.fit(x, y, verbose=0)
    copied = pickle.loads(pickle.dumps(model))
    for each in (model, copied):
        each.fit(x, y, verbose=0)
    np.testing.assert_array_equal(model(x), copied(x))


def test_overflow_shows_in_the_figures_alone():
    x, y = data()
    model = Sequential([Dense(3, "relu", input_shape=(6,))])
    model.compile("sgd", "mse")
    model.set_weights([np.full((3, 6), 3e38), np.zeros(3)])
    assert not math.isfinite(model.test_on_batch(np.abs(x), np.eye(3)[y]))
    assert not math.isfinite(model.train_on_batch(np.abs(x), np.eye(3)[y]))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_quick_predictions_refuse_what_slow_ones_do(value):
    model = Sequential([Dense(3, input_shape=(2,))], seed=1)
    x = np.ones((1, 2), np.float32)
    expected = model.predict(x, verbose=0)
    np.testing.assert_array_equal(model.predict(x, verbose=0), expected)
    np.testing.assert_array_equal(model(x.astype(np.float64)), expected)
    with pytest.raises(ValueError, match="x: expected finite"):
        model.predict(np.array([[1, value]], np.float32), verbose=0)
    with pytest.raises(ValueError, match=r"x: expected shape \(samples, 2\)"):
        model.predict(np.ones((1, 3), np.float32), verbose=0)
    for empty in (np.ones((0, 2), np.float32), np.array(1.0)):
        with pytest.raises(ValueError, match="x: expected a non-empty array"):
            model.predict(empty, verbose=0)


FROZEN = {
    "the first": lambda layers: [layers[0]],
    "one above others": lambda layers: [layers[4]],
    "one of a residual": lambda layers: [layers[3].layers[0]],
    "a residual": lambda layers: [layers[3]],
    "all": lambda layers: layers,
}


def deep():
    model = Sequential(
        [
            Dense(8, "relu", l2=0.1, max_norm=0.1, input_dim=6),
            BatchNormalization(),
            Dropout(0.2),
            Residual([Dense(8, "tanh", l1=0.1), Dense(8)]),
            Dense(5, "relu", l1=0.1),
            Dense(3, "softmax"),
        ],
        seed=0,
    )
    model.compile(Adam(), "sparse_categorical_crossentropy")
    return model


@pytest.mark.parametrize("frozen", FROZEN.values(), ids=list(FROZEN))
def test_frozen_layers_stay_as_they_are(frozen):
    model = deep()
    x, y = data()
    model.fit(x, y, verbose=0)  # what is frozen later has a state in the optimiser by now
    for layer in frozen(model.layers):
        layer.trainable = False
    again = pickle.loads(pickle.dumps(model))
    before = [
        {name: array.copy() for name, array in (layer.params | layer.state).items()}
        for layer in model.layers
    ]
    model.fit(x, y, verbose=0)
    still = {
        id(array)
        for layer in frozen(model.layers)
        for inner in layer.flattened()
        for array in (inner.params | inner.state).values()
    }
    for layer, old in zip(model.layers, before, strict=True):
        for name, array in (layer.params | layer.state).items():
            assert np.array_equal(array, old[name]) == (id(array) in still), name
    assert model.trainable == (len(still) < len(model.get_weights()))
    again.trainable = True
    again.fit(x, y, verbose=0)
    for old, new in zip(before, again.layers, strict=True):
        assert not any(np.array_equal(new.params[name], old[name]) for name in new.params)


def test_a_frozen_layer_adds_no_penalty():
    x, y = data()
    model = Sequential([Dense(4, l2=1.0), Residual([Dense(4, l1=1.0)]), Dense(3)], seed=0)
    model.compile(loss=SparseCategoricalCrossentropy(from_logits=True))
    whole = model.evaluate(x, y, verbose=0)
    penalties = [layer.penalty() for layer in model.layers[:2]]
    assert min(penalties) > 0
    model.layers[0].trainable = model.layers[1].layers[0].trainable = False
    assert whole - model.evaluate(x, y, verbose=0) == pytest.approx(sum(penalties), rel=1e-6)


def test_what_is_frozen_is_counted_and_part_of_the_config(capsys):
    model = deep()
    model.layers[0].trainable = False
    model.layers[3].layers[1].trainable = False
    again = Sequential.from_config(model.get_config())
    for a, b in zip(model.layers, again.layers, strict=True):
        assert [x.trainable for x in a.flattened()] == [x.trainable for x in b.flattened()]
    again.summary()
    assert capsys.readouterr().out.endswith(
        f"Total params: {56 + 16 + 72 + 72 + 45 + 18}\nTrainable params: {16 + 72 + 45 + 18}\n"
    )


class GivesBack(Loss):
    """A loss whose gradient is one of its arguments, or nothing that can be written to."""

    def __init__(self, which):
        self.which = which

    def __call__(self, outputs, y, from_logits=False, sample_weight=None):
        gradient = {"y": y, "outputs": outputs, "other dtype": y.astype(np.float64)}.get(self.which)
        if self.which == "read-only":
            gradient = np.broadcast_to(outputs.dtype.type(1), outputs.shape)
        if self.which == "other shape":
            gradient = outputs[:, 0]
        return float((outputs * y).sum()), gradient


@pytest.mark.parametrize("which", ["y", "outputs", "other dtype", "read-only"])
def test_a_loss_may_give_any_array_as_its_gradient(which):
    x, y = np.ones((4, 3), np.float32), np.ones((4, 2), np.float32)
    model = Sequential([Input((3,)), Dense(5, "relu"), Dense(2, "relu")], seed=2)
    model.compile("sgd", GivesBack(which), ["mse"])
    outputs = model.predict(x, verbose=0)
    before = model.get_weights()
    _, mse = model.train_on_batch(x, y)
    assert (y == 1).all()
    assert mse == pytest.approx(((outputs - 1) ** 2).mean(), rel=1e-5)
    assert any((old != new).any() for old, new in zip(before, model.get_weights()))


def test_a_gradient_of_another_shape_is_refused():
    model = Sequential([Input((3,)), Dense(2)], seed=1)
    model.compile("sgd", GivesBack("other shape"))
    with pytest.raises(ValueError, match=r"loss: expected a gradient of the outputs' shape \(4, 2"):
        model.train_on_batch(np.ones((4, 3)), np.ones((4, 2)))


def test_callbacks_that_are_none():
    model = Sequential([Input((3,)), Dense(2)], seed=1)
    model.compile("sgd", "mse")
    for wrong in (EarlyStopping, [EarlyStopping], 3):
        with pytest.raises(TypeError, match="callbacks: expected fastdrop callbacks, got"):
            model.fit(np.ones((4, 3)), np.ones((4, 2)), callbacks=wrong)


def test_class_weight_wants_classes():
    model = Sequential([Input((3,)), Dense(1)], seed=1)
    model.compile("sgd", "mse")
    with pytest.raises(ValueError, match=r"class_weight: .* labels that are classes, got 0.2"):
        model.fit(np.ones((2, 3)), np.array([1, 0.2]), class_weight={0: 1, 1: 5}, verbose=0)


class OneByOne(Dense):
    """A Dense that no chain computes, because others might derive it with a meaning of its own."""


BETWEEN_BATCHES = {
    "p": lambda model, n: setattr(model.layers[1], "p", [0.1, 0.7, 0.0, 1.0][n % 4]),
    "trainable": lambda model, n: setattr(model.layers[0], "trainable", n % 2 == 0),
    "weights": lambda model, n: model.layers[0].params.update(
        weight=model.layers[0].params["weight"] * 0.9
    ),
    "shared_axes": lambda model, n: setattr(model.layers[1], "shared_axes", [(0,), ()][n % 2]),
    "groups": lambda model, n: setattr(model.layers[1], "groups", n % 3 + 1),
    "seed": lambda model, n: setattr(model, "seed", n),
    "learning rate": lambda model, n: setattr(model.optimizer, "learning_rate", 0.01 / (n + 1)),
    "use": lambda model, n: model.evaluate(X[:5], Y[:5], verbose=0),
}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("change", BETWEEN_BATCHES)
def test_changes_between_batches_are_followed_by_a_chain_with_shared_masks(change, dtype):
    class Changes(Callback):
        def on_train_batch_end(self, batch, logs):
            BETWEEN_BATCHES[change](self.model, self.model.step)

    trained = []
    for dense in (Dense, OneByOne):
        stack = [dense(9, "relu"), Dropout(0.5, shared_axes=(0,)), dense(8, "tanh")]
        stack += [Dropout(0.3, shared_axes=(0,)), dense(3, "softmax")]
        model = Sequential([Input(X.shape[1:]), *stack], seed=1, dtype=dtype)
        model.compile(Adam(0.01), "sparse_categorical_crossentropy")
        model.fit(X, Y, 16, 2, verbose=0, callbacks=[Changes()])
        trained.append(model)
    # Adam divides by roots of squares, which makes much of the order of sums where they are small
    rounding = 1e-9 if dtype == "float64" else 2e-4
    for one, other in zip(trained[0].get_weights(), trained[1].get_weights(), strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=rounding)
