import runpy

import numpy as np
import pytest
from idx_files import idx
from places import DATA, EXAMPLES
from small_models import data, mlp

import fastdrop
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
from fastdrop.losses import SparseCategoricalCrossentropy
from fastdrop.metrics import Accuracy, MeanSquaredError
from fastdrop.models import Sequential
from fastdrop.optimizers import SGD, Adam
from fastdrop.random import Key, permutation, uniform

FASHION = DATA / "fashion-mnist"


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
    "layer twice": (lambda: Sequential([RELU, RELU]), ValueError, "layer: .*once, got 'relu'"),
    "layer inside another, too": (
        lambda: Sequential([RELU, Residual([RELU])]),
        ValueError,
        "layer: expected each layer once, got 'relu' twice",
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
