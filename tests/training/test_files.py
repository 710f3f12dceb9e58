"""Files of models: everything comes back, and nothing bad gets through."""

import copy
import errno
import json
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import fastdrop
from fastdrop import initializers, layers, learning_rates, losses, metrics, optimizers
from fastdrop.models import Sequential, load_model
from fastdrop.training import files

RNG = np.random.default_rng(0)
X = RNG.normal(size=(50, 6)).astype(np.float32)
Y = RNG.integers(0, 3, 50)


def mlp(optimizer="adam", **given):
    stack = [
        layers.Dense(8, "relu"),
        layers.BatchNormalization(),
        layers.Residual([layers.Dense(8), layers.Dropout(0.2)]),
        layers.Dropout(layers.schedules.Linear(0.0, 0.5, 10)),
        layers.DropConnect(8, 0.5, "tanh"),
        layers.ConcreteDropout(3, activation="softmax"),
    ]
    model = Sequential(stack, **{"seed": 5} | given)
    model.compile(
        optimizer,
        losses.SparseCategoricalCrossentropy(),
        ["accuracy"],
        [metrics.SparseTopKCategoricalAccuracy(2, name="top2")],
    )
    return model


def fit(model, epochs=2, **given):
    given = {"epochs": epochs, "verbose": 0, "validation_data": (X, Y)} | given
    return model.fit(X, Y, **given).history


OPTIMIZERS = {
    "sgd": lambda: optimizers.SGD(learning_rates.ExponentialDecay(0.1, 3, 0.5)),
    "momentum": lambda: optimizers.SGD(0.1, momentum=0.9, nesterov=True),
    "adam": lambda: optimizers.Adam(clipnorm=1.0),
    "adamw": optimizers.AdamW,
    "rmsprop": lambda: optimizers.RMSprop(momentum=0.5, centered=True),
}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS.values(), ids=list(OPTIMIZERS))
def test_training_goes_on_bit_for_bit(tmp_path, optimizer, dtype):
    whole, first = mlp(optimizer(), dtype=dtype), mlp(optimizer(), dtype=dtype)
    expected = fit(whole, 4)
    history = fit(first)
    first.save(tmp_path / "model")
    second = load_model(tmp_path / "model")
    assert (second.seed, second.epoch, second.step) == (5, 2, 4)
    assert second.get_config() == first.get_config()
    rest = fit(second, 4, initial_epoch=second.epoch)
    assert {name: figures + rest[name] for name, figures in history.items()} == expected
    assert second.optimizer.iterations == whole.optimizer.iterations
    for a, b in zip(second.get_weights(), whole.get_weights(), strict=True):
        assert a.dtype == dtype
        np.testing.assert_array_equal(a, b)


def test_a_changed_learning_rate_is_kept(tmp_path):
    model = mlp()
    model.optimizer.learning_rate = 0.25
    model.save(tmp_path / "model")
    assert load_model(tmp_path / "model").optimizer.learning_rate == 0.25


@pytest.mark.parametrize("axes", [np.int8(0), (np.int8(0),), [np.int64(0)]])
@pytest.mark.parametrize("kind", [layers.Dropout, layers.AlphaDropout])
def test_numpys_integers_as_axes(tmp_path, kind, axes):
    model = Sequential([layers.Input((4,)), kind(0.5, shared_axes=axes), layers.Dense(1)], seed=1)
    model.save(tmp_path / "model")
    layer = load_model(tmp_path / "model").layers[0]
    assert layer.shared_axes in (0, (0,))
    assert kind(0.5, shared_axes=layer.shared_axes).shared_axes == layer.shared_axes


def test_numpys_numbers_are_as_good_as_pythons(tmp_path):
    f, i = np.float32(0.1), np.int64(2)
    rate = learning_rates.PiecewiseConstantDecay([i, 2 * i], [f, f / 2, f / 4])
    for optimizer in (
        optimizers.SGD(rate, np.float32(0.9), np.True_),
        optimizers.Adam(learning_rates.CosineDecay(f, i, f, f, i)),
    ):
        stack = [
            layers.Dense(8, l1=f, l2=f, max_norm=i, kernel_initializer=initializers.Constant(f)),
            layers.BatchNormalization(f, f),
            layers.Dropout(layers.schedules.Linear(f, np.float32(0.5), i)),
            layers.Dense(3, "softmax"),
        ]
        whole, first = Sequential(stack, seed=1), Sequential(copy.deepcopy(stack), seed=1)
        for model in (whole, first):
            top = metrics.SparseTopKCategoricalAccuracy(i)
            model.compile(copy.deepcopy(optimizer), "sparse_categorical_crossentropy", [top])
        fit(whole, 4)
        fit(first)
        first.save(tmp_path / "model")
        second = load_model(tmp_path / "model")
        fit(second, 4, initial_epoch=second.epoch)
        for a, b in zip(second.get_weights(), whole.get_weights(), strict=True):
            np.testing.assert_array_equal(a, b)


def test_models_that_are_not_compiled_or_built(tmp_path):
    for model in (Sequential([layers.Dense(3)]), Sequential([layers.Dense(3, input_dim=2)])):
        model.save(tmp_path / "model")
        loaded = fastdrop.load_model(tmp_path / "model")
        assert loaded.optimizer is None
        assert loaded.get_config() == model.get_config()
        for a, b in zip(loaded.get_weights(), model.get_weights(), strict=True):
            np.testing.assert_array_equal(a, b)


def test_a_model_of_its_config_is_a_new_one():
    model = mlp()
    fit(model)
    again = Sequential.from_config(json.loads(json.dumps(model.get_config())))
    fresh = mlp()
    fresh.predict(X, verbose=0)
    assert again.epoch == 0
    for a, b in zip(again.get_weights(), fresh.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_layers_of_ones_own(tmp_path):
    class Halve(layers.Layer):
        def __init__(self, factor=0.5, *, input_shape=None, name=None):
            super().__init__(input_shape=input_shape, name=name)
            self.factor = factor

        def forward(self, x, batch):
            return x * self.factor, lambda dy: dy * self.factor

    model = Sequential([Halve(0.25), layers.Dense(3)], seed=0)
    expected = model.predict(X, verbose=0)
    model.save(tmp_path / "model")
    np.testing.assert_array_equal(load_model(tmp_path / "model").predict(X, verbose=0), expected)


def test_weights_alone(tmp_path):
    model, other = mlp(), mlp(seed=6)
    fit(model)
    other.predict(X, verbose=0)
    for save in (model.save_weights, model.save):
        save(tmp_path / "file")
        other.set_weights([np.zeros_like(array) for array in other.get_weights()])
        other.load_weights(tmp_path / "file")
        for a, b in zip(other.get_weights(), model.get_weights(), strict=True):
            np.testing.assert_array_equal(a, b)
    assert other.epoch == 0
    assert other.optimizer.iterations == 0


def test_any_array_comes_back(tmp_path):
    arrays = {
        "transposed": np.arange(6.0).reshape(2, 3).T,
        "strided": np.arange(10)[::3],
        "empty": np.zeros((0, 3), np.float32),
        "number": np.array(3, np.int8),
        "flags": np.array([True, False]),
    }
    files.write(tmp_path / "file", "test", {"a": [1, 0.1, None, "ä"]}, arrays)
    config, loaded = files.read(tmp_path / "file", ["test"])
    assert config == {"a": [1, 0.1, None, "ä"]}
    assert set(loaded) == set(arrays)
    for name, array in arrays.items():
        assert loaded[name].dtype == array.dtype
        np.testing.assert_array_equal(loaded[name], array)


# Files that cannot be written


def test_functions_are_refused_before_the_file_is_touched(tmp_path):
    path = tmp_path / "model"
    path.write_bytes(b"before")
    function = lambda step: 0.5  # noqa: E731
    for model, message in (
        (Sequential([layers.Dense(3), layers.Dropout(function)]), r"model\.model\.layers\[1\]"),
        (mlp(optimizers.SGD(lambda step: 0.1)), "learning_rate"),
    ):
        with pytest.raises(ValueError, match=message):
            model.save(path)
    assert path.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [path]


NOT_WRITTEN = {
    "NaN": ({"a": [1, float("nan")]}, {}, r"^test\.a\[1\]: expected finite numbers, got nan$"),
    "infinity": ({"a": {"b": float("inf")}}, {}, r"^test\.a\.b: expected finite numbers, got inf$"),
    "large": ({"a": 2**64}, {}, r"^test\.a: expected whole numbers of at most 64 bits"),
    "keys": ({"a": {1: 2}}, {}, r"^test\.a: expected names that are text, got 1$"),
    "array": ({"a": np.ones(1)}, {}, r"^test\.a: expected numbers, text and lists"),
    "type": ({}, {"a": np.ones(1, complex)}, "^a: expected an array of one of .*, got complex128"),
    "object": ({}, {"a": np.array([None])}, "^a: expected an array of one of .*, got object"),
    "long": ({"a": "x" * files.HEADER}, {}, "^test: expected a configuration and names of arrays"),
}


@pytest.mark.parametrize(
    ("config", "arrays", "message"), NOT_WRITTEN.values(), ids=list(NOT_WRITTEN)
)
def test_what_could_not_be_read_is_not_written(tmp_path, config, arrays, message):
    with pytest.raises(ValueError, match=message):
        files.write(tmp_path / "file", "test", config, arrays)
    assert list(tmp_path.iterdir()) == []


def test_models_that_could_not_be_read_are_not_written(tmp_path):
    inner = layers.ReLU()
    for _ in range(40):
        inner = layers.Residual([inner])
    with pytest.raises(ValueError, match="expected JSON of at most 100 levels, got more"):
        Sequential([inner]).save(tmp_path / "model")
    with pytest.raises(ValueError, match="name: expected text or None, got 5"):
        Sequential([layers.ReLU(name=5)]).save(tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_file_is_whole_or_as_before(tmp_path, monkeypatch, step):
    path = tmp_path / "model"
    model = mlp()
    model.save(path)
    before = path.read_bytes()
    fit(model)

    def fail(*arguments):
        raise OSError(errno.ENOSPC, "no space left")

    monkeypatch.setattr(os, step, fail)
    with pytest.raises(OSError, match="no space"):
        model.save(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_is_not_there(tmp_path):
    path = tmp_path / "none" / "model"
    with pytest.raises(FileNotFoundError, match=f"in an existing folder, got {path}$"):
        mlp().save(path)


def test_a_folder_in_the_place_of_the_file(tmp_path):
    path = tmp_path / "model"
    path.mkdir()
    with pytest.raises(IsADirectoryError, match=f"expected a file, got the folder {path}$"):
        mlp().save(path)
    assert list(tmp_path.iterdir()) == [path]


# Files that cannot be read


def damaged(content, at):
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


def with_header(path, **changed):
    from safetensors import safe_open

    with safe_open(path, "np") as file:
        header = json.loads(file.metadata()["fastdrop"])
    save_file(load_file(path), path, {"fastdrop": json.dumps(header | changed)})


BAD_FILES = {
    "empty": lambda p: p.write_bytes(b""),
    "text": lambda p: p.write_text("no model\n" * 100),
    "truncated": lambda p: p.write_bytes(p.read_bytes()[:-1]),
    "half": lambda p: p.write_bytes(p.read_bytes()[: p.stat().st_size // 2]),
    "longer": lambda p: p.write_bytes(p.read_bytes() + b"\0"),
    "bit of an array": lambda p: p.write_bytes(damaged(p.read_bytes(), p.stat().st_size - 9)),
    "bit of the seed": lambda p: p.write_bytes(p.read_bytes().replace(b'd\\": 5', b'd\\": 4')),
    "foreign": lambda p: save_file({"a": np.ones(3)}, p),
    "foreign metadata": lambda p: save_file({"a": np.ones(3)}, p, {"fastdrop": "[1]"}),
    "weights": lambda p: mlp().save_weights(p),
    "format": lambda p: with_header(p, format=99),
    "kind": lambda p: with_header(p, kind="recipe"),
}


@pytest.mark.parametrize("spoil", BAD_FILES.values(), ids=list(BAD_FILES))
def test_bad_files(tmp_path, spoil):
    path = tmp_path / "model"
    model = mlp()
    model.predict(X, verbose=0)
    model.save(path)
    before = path.read_bytes()
    spoil(path)
    assert path.read_bytes() != before
    with pytest.raises(ValueError, match=str(path)) as error:
        load_model(path)
    assert "\n" not in str(error.value)


def test_files_of_types_that_numpy_lacks(tmp_path):
    path = tmp_path / "model"
    header = b'{"a":{"dtype":"BF16","shape":[1],"data_offsets":[0,2]}}'
    path.write_bytes(len(header).to_bytes(8, "little") + header + b"\0\0")
    with pytest.raises(ValueError, match="expected a file that fastdrop has saved"):
        load_model(path)


def test_threads_may_save_under_one_name(tmp_path):
    model, path, stop = mlp(), tmp_path / "model", threading.Event()
    model.predict(X, verbose=0)
    model.save(path)

    def save():
        while not stop.is_set():
            model.save(path)

    with ThreadPoolExecutor(2) as pool:
        saved = [pool.submit(save) for _ in range(2)]
        try:
            for _ in range(200):
                load_model(path)
        finally:
            stop.set()
        for each in saved:
            each.result()
    assert [file.name for file in tmp_path.iterdir()] == ["model"]


def test_links_stay(tmp_path):
    link, target = tmp_path / "link", tmp_path / "target"
    link.symlink_to(target)
    mlp().save(link)
    assert link.is_symlink()
    assert load_model(target).get_config() == mlp().get_config()


def test_missing_files(tmp_path):
    with pytest.raises(FileNotFoundError, match="none: expected an existing file"):
        load_model(tmp_path / "none")
    with pytest.raises(IsADirectoryError, match="expected a file, got a folder"):
        load_model(tmp_path)


class HandsOn(layers.Dense):
    """A class of one's own as Keras's users write it."""

    def __init__(self, units, **kwargs):
        super().__init__(units, activation="relu", **kwargs)


class HandsOnAgain(HandsOn):
    def __init__(self, **kwargs):
        super().__init__(4, **kwargs)


class HandsRate(layers.Dropout):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)


class HandsMomentum(optimizers.SGD):
    def __init__(self, learning_rate=0.5, **kwargs):
        super().__init__(learning_rate, **kwargs)


class HandsLogits(losses.CategoricalCrossentropy):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)


@dataclass(frozen=True)
class Half(learning_rates.LearningRateSchedule):
    rate: float

    def __call__(self, step):
        return self.rate / 2


def test_keywords_that_a_class_hands_on_to_its_base(tmp_path):
    model = Sequential(
        [
            HandsOn(5, l2=0.1, input_dim=6, name="first"),
            HandsOnAgain(l1=0.2),
            HandsRate(rate=0.25, seed=3),
            layers.Dense(3),
        ],
        seed=2,
    )
    optimizer = HandsMomentum(Half(0.1), momentum=0.9, clipvalue=0.5)
    model.compile(optimizer, HandsLogits(from_logits=True, label_smoothing=0.1))
    y = np.eye(3)[np.arange(len(X)) % 3]
    model.fit(X, y, epochs=1, verbose=0)
    model.save(tmp_path / "model")
    loaded = load_model(tmp_path / "model")
    assert [layer.name for layer in loaded.layers] == [layer.name for layer in model.layers]
    for either in (model, loaded):
        either.fit(X, y, epochs=2, initial_epoch=1, verbose=0)
    for a, b in zip(model.get_weights(), loaded.get_weights(), strict=True):
        assert a.tobytes() == b.tobytes()


def test_an_argument_that_is_not_kept_is_named_before_saving(tmp_path):
    class Forgets(layers.Layer):
        def __init__(self, factor=1.0, **kwargs):
            super().__init__(**kwargs)

    message = "factor: expected Forgets to keep this argument in an attribute of that name"
    with pytest.raises(ValueError, match=message):
        Sequential([Forgets(5.0)]).save(tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


def test_positions_that_a_class_hands_on_are_refused(tmp_path):
    class Passes(layers.Dense):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)

    Sequential([Passes(units=5)]).save(tmp_path / "model")
    assert load_model(tmp_path / "model").layers[0].units == 5
    with pytest.raises(ValueError, match=r"\*: expected Passes to keep"):
        Sequential([Passes(5)]).save(tmp_path / "model")


def test_a_synonym_that_is_handed_on_has_the_present_value(tmp_path):
    model = Sequential([HandsRate(rate=0.25)])
    model.layers[0].p = 0.5
    model.save(tmp_path / "model")
    assert load_model(tmp_path / "model").layers[0].p == 0.5


class Describes(layers.Layer):
    """Keeps its argument in its own way, and says so."""

    def __init__(self, factor=2.0, name=None, **others):
        super().__init__(name=name)
        self._factor, self.lock = factor, others.pop("lock", None) and 1

    def get_config(self):
        return {"factor": self._factor}


def test_a_class_that_describes_itself(tmp_path):
    model = Sequential([Describes(3.0, lock=threading.Lock())])
    assert copy.deepcopy(model).layers[0]._factor == 3
    model.save(tmp_path / "model")
    assert load_model(tmp_path / "model").layers[0]._factor == 3


def test_a_schedule_in_another(tmp_path):
    @dataclass(frozen=True)
    class Warm(learning_rates.LearningRateSchedule):
        after: learning_rates.LearningRateSchedule
        steps: int

        def __call__(self, step):
            return 0.01 if step < self.steps else self.after(step - self.steps)

    model, schedule = mlp(), Warm(learning_rates.CosineDecay(0.1, 10), 2)
    model.compile(optimizers.SGD(schedule), "mse")
    model.save(tmp_path / "model")
    loaded = load_model(tmp_path / "model").optimizer.learning_rate
    assert loaded == schedule
    assert loaded(5) == learning_rates.CosineDecay(0.1, 10)(3)


def test_classes_that_were_renamed(tmp_path):
    def make(name):
        class Made(layers.Layer):
            pass

        Made.__name__ = Made.__qualname__ = name
        return Made()

    Sequential([make("One"), make("Two")]).save(tmp_path / "model")
    names = [type(layer).__name__ for layer in load_model(tmp_path / "model").layers]
    assert names == ["One", "Two"]


def define(value):
    class Constant(layers.Layer):
        def forward(self, x, batch):
            return np.full_like(x, value), np.zeros_like

    return Constant


def test_of_a_programs_own_classes_the_latest_counts(tmp_path):
    define(1)
    model = Sequential([define(2)()])
    model.save(tmp_path / "model")
    assert (load_model(tmp_path / "model").predict(X, verbose=0) == 2).all()
    define(3)  # as when a cell of a notebook is run again
    model.save(tmp_path / "model")
    assert (load_model(tmp_path / "model").predict(X, verbose=0) == 3).all()


def test_a_class_of_the_name_of_ours_cannot_be_saved(tmp_path):
    class Softmax(layers.Layer):
        pass

    with pytest.raises(ValueError, match=r"Softmax: expected a name .*that of fastdrop\.layers"):
        Sequential([Softmax()]).save(tmp_path / "model")
    Sequential([layers.Softmax(input_shape=(6,))]).save(tmp_path / "model")
    assert type(load_model(tmp_path / "model").layers[0]) is layers.Softmax


def test_unknown_layers(tmp_path):
    class Passing(layers.Layer):
        pass

    Sequential([Passing()]).save(tmp_path / "model")
    layers.Layer._family.remove(Passing)  # as in a program that does not define it
    with pytest.raises(ValueError, match=r"expected one of .*got 'Passing'"):
        load_model(tmp_path / "model")


OTHERS = {
    "fewer": ([layers.Dense(8)], "a file that has '1.bias'"),
    "more": ([layers.Dense(8), layers.Dense(3), layers.Dense(3)], "a file that lacks '2.bias'"),
    "unknown": (None, "'0.bias'.* shape is not known yet"),
    "wider": ([layers.Dense(9), layers.Dense(3)], r"shape \(9, 6\) as '0.weight', got .*\(8, 6\)"),
}


@pytest.mark.parametrize(("stack", "message"), OTHERS.values(), ids=list(OTHERS))
def test_weights_of_another_architecture(tmp_path, stack, message):
    Sequential([layers.Dense(8, input_dim=6), layers.Dense(3)], seed=0).save(tmp_path / "model")
    other = Sequential([layers.Dense(8)] if stack is None else [layers.Input((6,)), *stack], seed=0)
    before = other.get_weights()
    with pytest.raises(ValueError, match=message):
        other.load_weights(tmp_path / "model")
    for a, b in zip(other.get_weights(), before, strict=True):
        np.testing.assert_array_equal(a, b)
