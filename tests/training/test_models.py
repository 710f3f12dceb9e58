import copy
import math
import pickle
import runpy
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from idx_files import idx
from places import DATA, EXAMPLES

import fastdrop
from fastdrop.callbacks import Callback, EarlyStopping
from fastdrop.datasets import IDX_STEMS, load_digits, load_idx
from fastdrop.layers import (
    Activation,
    BatchNormalization,
    Dense,
    Dropout,
    Flatten,
    Input,
    Layer,
    ReLU,
    Residual,
    Softmax,
)
from fastdrop.losses import Loss, SparseCategoricalCrossentropy
from fastdrop.metrics import AUC, Accuracy, MeanSquaredError, Metric
from fastdrop.models import Sequential
from fastdrop.optimizers import SGD, Adam
from fastdrop.random import Key, permutation, uniform

FASHION = DATA / "fashion-mnist"


def data(n=50, inputs=6, classes=3):
    rng = np.random.default_rng(0)
    return rng.normal(size=(n, inputs)).astype(np.float32), rng.integers(0, classes, n)


def mlp(seed=0, **compiled):
    model = Sequential([Dense(8, "relu"), Dropout(0.5), Dense(3, "softmax")], seed=seed)
    model.compile(
        **{"optimizer": "adam", "loss": "sparse_categorical_crossentropy"}
        | {"metrics": ["accuracy"]}
        | compiled
    )
    return model


class Recorder(Layer):
    """Remember what comes in."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def forward(self, x, batch):
        self.seen.append((x.copy(), *batch))
        return x, lambda dy: dy


# As in Keras


def test_fit_returns_a_history():
    x, y = data()
    model = mlp()
    history = model.fit(x, y, epochs=3, verbose=0, validation_data=(x, y))
    assert history.epoch == [0, 1, 2]
    assert list(history.history) == ["loss", "accuracy", "val_loss", "val_accuracy"]
    assert all(len(figures) == 3 for figures in history.history.values())
    assert model.history is history
    assert [history.history["val_loss"][-1], history.history["val_accuracy"][-1]] == (
        pytest.approx(model.evaluate(x, y, verbose=0))
    )


def test_evaluate_returns_what_was_compiled():
    x, y = data()
    loss, accuracy = mlp().evaluate(x, y, verbose=0)
    assert mlp(metrics=None).evaluate(x, y, verbose=0) == loss
    assert mlp().evaluate(x, y, verbose=0, return_dict=True) == {
        "loss": loss,
        "accuracy": accuracy,
    }
    assert accuracy == np.mean(mlp().predict(x, verbose=0).argmax(axis=1) == y)


def test_inference_does_not_depend_on_the_batch_size():
    x, y = data()
    model = mlp()
    np.testing.assert_allclose(
        model.predict(x, batch_size=7, verbose=0), model.predict(x, verbose=0), rtol=1e-6
    )
    assert model.evaluate(x, y, 7, verbose=0) == pytest.approx(model.evaluate(x, y, verbose=0))


def test_the_loss_of_an_epoch_is_the_mean_over_samples():
    x, y = data(50)
    model = Sequential([Dense(3, "softmax")], seed=0)
    model.compile("sgd", "sparse_categorical_crossentropy")
    model.optimizer.learning_rate = 1e-30  # nothing changes between the batches
    history = model.fit(x, y, batch_size=32, verbose=0)
    assert history.history["loss"][0] == pytest.approx(model.evaluate(x, y, verbose=0), rel=1e-6)


def test_validation_split_is_the_end():
    x, y = data(50)
    one, other = mlp(), mlp()
    a = one.fit(x, y, verbose=0, validation_split=0.2)
    b = other.fit(x[:40], y[:40], verbose=0, validation_data=(x[40:], y[40:]))
    assert a.history == b.history


@pytest.mark.parametrize(("verbose", "lines"), [(0, 0), (1, 0), (2, 3), ("auto", 0)])
def test_verbose(capsys, verbose, lines):
    mlp().fit(*data(), epochs=3, verbose=verbose)
    captured = capsys.readouterr()
    assert len(captured.out.splitlines()) == lines
    assert ("epoch 3/3" in captured.err) == (verbose in (1, "auto"))


def test_one_batch_at_a_time():
    x, y = data()
    whole, by_hand = mlp(), mlp()
    history = whole.fit(x, y, batch_size=50, shuffle=False, verbose=0, epochs=2).history
    losses = [by_hand.train_on_batch(x, y, return_dict=True)["loss"] for _ in range(2)]
    assert losses == history["loss"]
    assert by_hand.step == 2
    for name, param in whole.params.items():
        np.testing.assert_array_equal(by_hand.params[name], param)
    weights = np.linspace(0, 2, 50)
    for given in ({}, {"sample_weight": weights}):
        expected = whole.evaluate(x, y, verbose=0, **given)
        assert whole.test_on_batch(x, y, **given) == expected
        assert by_hand.train_on_batch(x, y, class_weight={0: 1.0}, **given) != expected
    np.testing.assert_array_equal(whole.predict_on_batch(x), whole.predict(x, verbose=0))
    assert mlp(metrics=None).train_on_batch(x, y) == losses[0]


def test_a_model_is_a_function():
    x, _ = data()
    model = mlp()
    np.testing.assert_array_equal(model(x), model.predict(x, verbose=0))
    random = [model(x, training=True) for _ in range(2)]
    assert not np.array_equal(*random)
    assert not np.array_equal(random[0], model(x))
    np.testing.assert_array_equal(mlp()(x, training=True), random[0])
    assert model.step == 0


def test_the_mean_of_many_calls_in_training_is_that_of_dropout():
    model = Sequential([Dropout(0.5)], seed=0)
    x = np.ones((100, 100), np.float32)
    mean = np.mean([model(x, training=True) for _ in range(20)])
    assert mean == pytest.approx(1, abs=5 / np.sqrt(200_000))


def test_weights():
    stack = [Dense(8), BatchNormalization(), Dense(3)]
    model, other = Sequential(stack, seed=0), Sequential([Dense(8), BatchNormalization(), Dense(3)])
    x, _ = data()
    assert model.get_weights() == []
    outputs = model.predict(x, verbose=0)
    weights = model.get_weights()
    assert [array.shape for array in weights] == [(8, 6), (8,), *[(8,)] * 4, (3, 8), (3,)]
    weights[0][:] = 0  # a copy
    np.testing.assert_array_equal(model.predict(x, verbose=0), outputs)
    other.predict(x, verbose=0)
    other.set_weights(model.get_weights())
    np.testing.assert_array_equal(other.predict(x, verbose=0), outputs)


def test_layers_by_name_and_number():
    model = Sequential([Dense(8, input_dim=6), BatchNormalization(), Dense(3, name="last")])
    first, middle, last = model.layers
    assert model.get_layer("last") is model.get_layer(index=-1) is last
    assert model.get_layer("dense") is model.get_layer(index=0) is first
    assert [layer.count_params() for layer in model.layers] == [8 * 7, 4 * 8, 3 * 9]
    assert model.count_params() == 8 * 7 + 4 * 8 + 3 * 9
    weights = [array for layer in model.layers for array in layer.get_weights()]
    for ours, expected in zip(weights, model.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, expected)
    kept = middle.params["gamma"]
    middle.set_weights(np.arange(32).reshape(4, 8))
    np.testing.assert_array_equal(kept, np.arange(8))
    np.testing.assert_array_equal(middle.state["moving_variance"], np.arange(24, 32))
    last.get_weights()[0][:] = 0  # a copy
    assert last.params["weight"].all()


@pytest.mark.parametrize("given", [{"validation_split": 0.3}, {"validation_data": data(20)}])
def test_the_size_of_validation_batches_changes_nothing(given):
    seen = {}
    for size in (None, 7):
        recorder = Recorder()
        model = mlp()
        model.add(recorder)
        history = model.fit(*data(), verbose=0, validation_batch_size=size, **given)
        sizes = {len(x) for x, training, *_ in recorder.seen if not training}
        seen[size] = history.history["val_loss"], max(sizes)
    assert seen[7][0] == pytest.approx(seen[None][0], rel=1e-6)
    assert seen[7][1] == 7 < seen[None][1]


def test_float64():
    x, y = data()
    model = Sequential([Dense(8, "relu"), Dropout(0.5), Dense(3, "softmax")], dtype="float64")
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(x.astype(np.float32), y, verbose=0)
    arrays = [*model.params.values(), model.predict(x, verbose=0), model(x, training=True)]
    assert {array.dtype for array in arrays} == {np.dtype(np.float64)}
    model.predict(1e300 * x.astype(np.float64), verbose=0)


def test_what_is_compiled_may_be_objects():
    x, y = data()
    by_name = mlp(optimizer="SGD".lower())
    objects = mlp(
        optimizer=SGD(), loss=SparseCategoricalCrossentropy(), metrics=[Accuracy(name="right")]
    )
    expected, given = (model.fit(x, y, verbose=0).history for model in (by_name, objects))
    assert given == {"loss": expected["loss"], "right": expected["accuracy"]}


def test_summary(capsys):
    model = Sequential([Flatten(input_shape=(2, 3)), Dense(4), Dropout(0.5), Dense(2), Dense(2)])
    model.summary()
    text = capsys.readouterr().out
    for expected in ("flatten (Flatten)", "dense_2 (Dense)", "(samples, 4)", "Total params: 44"):
        assert expected in text
    Sequential([Dense(4)]).summary()
    assert "unknown yet" in capsys.readouterr().out


# Randomness


def test_one_seed_fixes_everything():
    x, y = data()
    one, same, other = mlp(1), mlp(1), mlp(2)
    histories = [model.fit(x, y, epochs=2, verbose=0).history for model in (one, same, other)]
    assert histories[0] == histories[1] != histories[2]
    for name in one.params:
        np.testing.assert_array_equal(one.params[name], same.params[name])


def test_without_seed_the_default_generator_decides():
    seeds = []
    for _ in range(2):
        fastdrop.seed(5)
        seeds.append([Sequential().seed, Sequential().seed])
    assert seeds[0] == seeds[1]
    assert seeds[0][0] != seeds[0][1]


def test_a_second_fit_goes_on():
    x, y = data()
    one, two = mlp(), mlp()
    one.fit(x, y, epochs=2, verbose=0)
    for _ in range(2):
        two.fit(x, y, verbose=0)
    assert (two.seed, two.epoch, two.step) == (0, 2, 4)
    for name in one.params:
        np.testing.assert_array_equal(one.params[name], two.params[name])


def test_initial_values():
    model = Sequential([Input((5,)), Flatten(), Dense(4)], seed=9)
    u = uniform(Key(9).fold_in(1).fold_in(0), (4, 5))
    expected = (2 * u - 1) * np.sqrt(6 / 9)
    np.testing.assert_allclose(model.params["1.weight"], expected, rtol=1e-6)
    assert not model.params["1.bias"].any()


def test_keys_and_order():
    x, y = data(10)
    recorder = Recorder()
    model = Sequential([Flatten(), recorder, Dense(3, "softmax")], seed=4)
    model.compile("sgd", "sparse_categorical_crossentropy")
    model.fit(x, y, batch_size=6, epochs=2, verbose=0)
    orders = [permutation(Key(4, epoch), 10) for epoch in range(2)]
    batches = [part for order in orders for part in (order[:6], order[6:])]
    assert len(recorder.seen) == 4
    for step, (got, training, key, row, rows) in enumerate(recorder.seen):
        np.testing.assert_array_equal(got, x[batches[step]])
        assert training
        assert key == Key(Key(4).fold_in(1).seed, step)
        assert (row, rows) == (0, len(batches[step]))


def test_without_shuffle_the_order_is_the_given_one():
    x, y = data(10)
    recorder = Recorder()
    model = Sequential([recorder, Dense(3, "softmax")])
    model.compile("sgd", "sparse_categorical_crossentropy")
    model.fit(x, y, epochs=1, verbose=0, shuffle=False)
    np.testing.assert_array_equal(recorder.seen[0][0], x)


# Training


LAST = {
    "folded in Dense": (Dense(3, "softmax"), "sparse_categorical_crossentropy"),
    "folded Softmax layer": (Softmax(), "sparse_categorical_crossentropy"),
    "folded Activation layer": (Activation("sigmoid"), "binary_crossentropy"),
    "probabilities": (Activation("sigmoid"), "categorical_crossentropy"),
    "linear": (Activation("linear"), "mse"),
}


@pytest.mark.parametrize(("last", "loss"), LAST.values(), ids=list(LAST))
def test_a_step_follows_the_gradient_of_the_loss(last, loss):
    # Without Dropout, so that evaluate measures the very loss that is trained.
    x, labels = data(12)
    y = labels if loss.startswith("sparse") else np.eye(3)[labels]
    model = Sequential([Dense(4, "tanh"), Dense(3), last], seed=0, dtype="float64")
    model.compile(SGD(learning_rate=1.0), loss)
    model.predict(x, verbose=0)
    start = {name: param.copy() for name, param in model.params.items()}

    expected = {}
    for name, param in model.params.items():
        expected[name] = np.empty_like(param)
        for i in np.ndindex(param.shape):
            values = []
            for change in (1e-5, -1e-5):
                param[i] = start[name][i] + change
                values.append(model.evaluate(x, y, verbose=0))
            param[i] = start[name][i]
            expected[name][i] = (values[0] - values[1]) / 2e-5
    model.fit(x, y, batch_size=12, verbose=0)
    for name, param in model.params.items():
        np.testing.assert_allclose(start[name] - param, expected[name], rtol=1e-4, atol=1e-7)


def test_a_folded_loss_is_exact_where_probabilities_are_clipped():
    model = Sequential([Dense(2, "softmax", input_shape=(1,))])
    model.compile("sgd", "sparse_categorical_crossentropy")
    model.params["0.bias"][:] = -1000, 1000
    loss = model.evaluate(np.zeros((1, 1)), [0], verbose=0)
    assert loss == 2000


@pytest.mark.parametrize("optimizer", [SGD(0.1, momentum=0.9, nesterov=True), Adam(), "adam"])
def test_it_learns(optimizer):
    x, y = load_digits()
    model = Sequential([Flatten(), Dense(64, "relu"), Dropout(0.2), Dense(10, "softmax")], seed=0)
    model.compile(optimizer, "sparse_categorical_crossentropy", ["accuracy"])
    model.fit(x / 16, y, epochs=10, verbose=0)
    assert model.evaluate(x / 16, y, verbose=0)[1] > 0.95


def test_binary_decisions():
    x, y = load_digits()
    model = Sequential([Flatten(), Dense(32, "relu"), Dense(1, "sigmoid")], seed=0)
    model.compile("adam", "binary_crossentropy", ["accuracy"])
    model.fit(x / 16, y % 2, epochs=10, verbose=0)
    _, accuracy = model.evaluate(x / 16, y % 2, verbose=0)
    assert accuracy > 0.9
    assert accuracy == np.mean((model.predict(x / 16, verbose=0)[:, 0] > 0.5) == y % 2)


def test_data_of_any_numeric_type_stay_as_they_are():
    x, y = data()
    x = (10 * x).astype(np.int16)
    kept = x.copy(), y.copy()
    histories = []
    for convert in (lambda a: a, lambda a: a.astype(np.float64), lambda a: a.tolist()):
        histories.append(mlp().fit(convert(x), convert(y), verbose=0).history)
    assert histories[0] == histories[1] == histories[2]
    np.testing.assert_array_equal(x, kept[0])
    np.testing.assert_array_equal(y, kept[1])


# Building


def test_ways_to_tell_the_input_shape():
    x, _ = data()
    models = [
        Sequential([Dense(3, input_shape=(6,))], seed=1),
        Sequential([Dense(3, input_dim=6)], seed=1),
        Sequential([Input(shape=(6,)), Dense(3)], seed=1),
        Sequential([Dense(3)], seed=1),
    ]
    outputs = [model.predict(x, verbose=0) for model in models]
    for output in outputs[1:]:
        np.testing.assert_array_equal(output, outputs[0])


def test_layers_of_another_model_keep_their_weights():
    x, y = data()
    first = mlp()
    first.fit(x, y, verbose=0)
    second = Sequential(first.layers[:2])
    second.add(Dense(5, name="new"))
    weight = first.params["0.weight"].copy()
    assert second.predict(x, verbose=0).shape == (50, 5)
    np.testing.assert_array_equal(second.params["0.weight"], weight)


def fit(x=None, y=None, model=None, **arguments):
    good = data()
    x, y = good[0] if x is None else x, good[1] if y is None else y
    return (model or mlp()).fit(x, y, **{"verbose": 0} | arguments)


def with_(x, value):
    x = x.copy()
    x[3, 2] = value
    return x


X, Y = data()
RELU = ReLU()
BAD = {
    "not compiled": (lambda: fit(model=Sequential([Dense(3)])), RuntimeError, "compile"),
    "evaluate": (lambda: Sequential([Dense(3)]).evaluate(X, Y), RuntimeError, "compile"),
    "optimizer": (lambda: mlp(optimizer="adm"), ValueError, "optimizer: .*adam, .*sgd, got 'adm'"),
    "loss": (lambda: mlp(loss="hinge"), ValueError, "loss: .*mse.*got 'hinge'"),
    "metric": (lambda: mlp(metrics=["f1"]), ValueError, "metrics: .*accuracy.*got 'f1'"),
    "metrics": (lambda: mlp(metrics="accuracy"), ValueError, "metrics: expected a list"),
    "counts": (lambda: fit(y=Y[:-1]), ValueError, r"y: .*got x \(50, 6\) and y \(49,\)"),
    "label": (lambda: fit(y=Y + 1), ValueError, r"y: expected .*\[0, 3\).*got 3"),
    "NaN": (lambda: fit(with_(X, np.nan)), ValueError, "x: expected finite"),
    "infinite": (lambda: fit(with_(X, np.inf)), ValueError, "x: expected finite"),
    "empty": (lambda: fit(X[:0], Y[:0]), ValueError, "x: expected a non-empty"),
    "one axis": (lambda: fit(X[:, 0]), ValueError, r"x: expected .*got float32 \(50,\)"),
    "text": (lambda: fit(np.full((50, 2), "a")), ValueError, "x: expected .*numbers"),
    "batch_size": (lambda: fit(batch_size=0), ValueError, "batch_size: expected .*got 0"),
    "epochs": (lambda: fit(epochs=0), ValueError, "epochs: expected .*got 0"),
    "epochs, float": (lambda: fit(epochs=1.5), ValueError, "epochs: expected .*got 1.5"),
    "verbose": (lambda: fit(verbose=3), ValueError, "verbose: expected"),
    "split of a list": (lambda: fit(validation_split=[0.1]), ValueError, "validation_split: exp"),
    "initial_epoch": (
        lambda: fit(initial_epoch=0.0),
        ValueError,
        "initial_epoch: expected a whole number of at least 0, got 0.0",
    ),
    "metric called loss": (
        lambda: mlp(metrics=[MeanSquaredError("loss")]),
        ValueError,
        "metrics: expected names of their own",
    ),
    "split": (lambda: fit(validation_split=1.0), ValueError, "validation_split: expected"),
    "split, empty": (lambda: fit(validation_split=0.99), ValueError, "validation_split: expected"),
    "validation": (
        lambda: fit(validation_data=X),
        ValueError,
        r"validation_data: expected \(x, y\)",
    ),
    "validation y": (
        lambda: fit(validation_data=(X, Y + 1)),
        ValueError,
        r"validation_data\[1\]: expected",
    ),
    "no layers": (lambda: fit(model=Sequential()), RuntimeError, "compile"),
    "predict": (lambda: Sequential().predict(X), ValueError, "layers: expected at least one"),
    "other shape": (
        lambda: Sequential([Dense(3, input_dim=4)]).predict(X),
        ValueError,
        r"x: expected shape \(samples, 4\), got \(50, 6\)",
    ),
    "between layers": (
        lambda: Sequential([Dense(4, input_dim=2), Dense(2, input_dim=5)]),
        ValueError,
        r"layer 'dense' expects x of shape \(samples, 5\), got \(samples, 4\)",
    ),
    "no list": (lambda: Sequential(Dense(3)), TypeError, "layers: expected a list .*got Dense"),
    "no layer": (lambda: Sequential(["dense"]), TypeError, "layer: expected .*got 'dense'"),
    "layer twice": (lambda: Sequential([RELU, RELU]), ValueError, "layer: .*each once, got 'relu'"),
    "layer inside another, too": (
        lambda: Sequential([RELU, Residual([RELU])]),
        ValueError,
        "layer: expected each once, got 'relu' twice",
    ),
    "Input": (lambda: Sequential([Dense(3), Input((2,))]), ValueError, "layer: expected an Input"),
    "seed": (lambda: Sequential(seed=-1), ValueError, "seed"),
    "dtype": (lambda: Sequential(dtype="float16"), ValueError, "dtype: .*float32, float64, got"),
    "metrics twice": (
        lambda: mlp(metrics=["accuracy", "accuracy"]),
        ValueError,
        "metrics: expected each name once",
    ),
    "weighted metric": (
        lambda: mlp(weighted_metrics=["f1"]),
        ValueError,
        "metrics: .*accuracy.*got 'f1'",
    ),
    "class_weight": (
        lambda: mlp().train_on_batch(X, Y, class_weight={7: 1}),
        ValueError,
        "class_weight: expected classes",
    ),
    "no labels": (lambda: mlp().train_on_batch(X, None), ValueError, "y: expected"),
    "NaN in a call": (lambda: mlp()(with_(X, np.nan)), ValueError, "x: expected finite"),
    "validation_batch_size": (
        lambda: fit(validation_batch_size=0),
        ValueError,
        "^validation_batch_size: expected .*got 0",
    ),
    "layer's name": (
        lambda: Sequential([Dense(3), Dense(3)]).get_layer("conv"),
        ValueError,
        "name: expected one of dense, dense_1, got 'conv'",
    ),
    "layer's index": (
        lambda: Sequential([Dense(3), Dense(3)]).get_layer(index=2),
        ValueError,
        "index: expected one of 2 layers, got 2",
    ),
    "no layer's name": (lambda: Sequential([Dense(3)]).get_layer(), TypeError, "name, index: exp"),
    "weights None": (lambda: mlp().set_weights(None), TypeError, "weights: expected a list"),
    "too many weights": (
        lambda: mlp().set_weights([np.ones(3)]),
        ValueError,
        "weights: expected 0 arrays .* got 1; the model's input shape is not known yet",
    ),
    "weights": (
        lambda: Sequential([Dense(3, input_dim=2)]).set_weights([np.ones((2, 3)), np.ones(3)]),
        ValueError,
        r"weights: expected .* \(3, 2\) as '0.weight', got float64 \(2, 3\)",
    ),
}


@pytest.mark.parametrize(("call", "error", "message"), BAD.values(), ids=list(BAD))
def test_bad_input(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_a_refused_layer_is_not_in_the_model():
    model = Sequential([Dense(4, input_dim=2)])
    layer = model.layers[0]
    for wrong in (layer, Dense(2, input_dim=5), Dropout(shared_axes=7)):
        with pytest.raises(ValueError, match="expect"):
            model.add(wrong)
    assert model.layers == [layer]


# The examples


def test_keras_mlp_example(capsys):
    result = runpy.run_path(str(EXAMPLES / "keras_mlp.py"))
    assert "validation loss" in capsys.readouterr().out
    assert result["accuracy"] > 0.8


@pytest.fixture
def small_fashion(tmp_path):
    if not FASHION.is_dir():
        pytest.skip(f"{FASHION} is not there")
    (x_train, y_train), (x_test, y_test) = load_idx(FASHION)
    parts = x_train[:1000], y_train[:1000], x_test[:500], y_test[:500]
    for stem, array in zip(IDX_STEMS, parts):
        (tmp_path / stem).write_bytes(idx(array))
    return tmp_path


def test_keras_fashion_example(small_fashion, monkeypatch, capsys):
    """On a sixtieth of the data; with all of it the same script comes to 87 %."""
    monkeypatch.setattr("sys.argv", ["keras_fashion.py", str(small_fashion)])
    result = runpy.run_path(str(EXAMPLES / "keras_fashion.py"))
    assert "Epoch 10/10" in capsys.readouterr().out
    assert result["accuracy"] > 0.7


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


@pytest.mark.parametrize("metric", [AUC(), "mse", "binary_accuracy"], ids=str)
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
