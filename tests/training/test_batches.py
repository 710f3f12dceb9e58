"""Where batches come from: arrays in memory and on disk, iterables; weights of samples."""

import tracemalloc
from fractions import Fraction

import numpy as np
import pytest

from fastdrop.layers import Dense, Dropout, Layer
from fastdrop.models import Sequential

RNG = np.random.default_rng(0)
X = RNG.normal(size=(50, 6)).astype(np.float32)
Y = RNG.integers(0, 3, 50)
ONE_HOT = np.eye(3, dtype=np.float32)[Y]
WEIGHTS = RNG.uniform(0, 2, 50)


def mlp(loss="sparse_categorical_crossentropy", metrics=("accuracy",), **given):
    model = Sequential([Dense(8, "relu"), Dropout(0.5), Dense(3, "softmax")], seed=0, **given)
    model.compile("adam", loss, list(metrics))
    return model


def trained(x, y=None, *, model=None, **arguments):
    """Return a model's weights after `fit`, and the figures."""
    model = model or mlp()
    history = model.fit(x, y, **{"batch_size": 16, "epochs": 3, "verbose": 0} | arguments)
    return model.get_weights(), history.history


def assert_same(one, other):
    for a, b in zip(one[0], other[0], strict=True):
        np.testing.assert_array_equal(a, b)
    assert one[1] == other[1]


class Stored:
    """Like a data set in an HDF5 file: slices, ascending indices, and nothing else."""

    def __init__(self, array):
        self._array = array
        self.shape, self.dtype = array.shape, array.dtype
        self.most = 0

    def __len__(self):
        return len(self._array)

    def __getitem__(self, rows):
        if not isinstance(rows, slice):
            assert (np.diff(rows) > 0).all()
        part = self._array[rows].copy()
        self.most = max(self.most, len(part))
        return part


class Again:
    """Batches that can be iterated again, of unknown number."""

    def __init__(self, *batches):
        self.batches = batches

    def __iter__(self):
        return iter(self.batches)


def batches(*arrays, size=16):
    return [tuple(a[i : i + size] for a in arrays) for i in range(0, len(arrays[0]), size)]


def memory_map(tmp_path, array):
    path = tmp_path / f"{len(list(tmp_path.iterdir()))}.npy"
    np.save(path, array)
    return np.load(path, mmap_mode="r")


# One data set, many ways to give it

KINDS = {
    "lists": lambda folder, a: a.tolist(),
    "Fortran order": lambda folder, a: np.asfortranarray(a),
    "not contiguous": lambda folder, a: np.repeat(a, 2, axis=0)[::2],
    "other byte order": lambda folder, a: a.astype(a.dtype.newbyteorder()),
    "memory map": memory_map,
    "stored": lambda folder, a: Stored(a),
}


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("kind", KINDS.values(), ids=list(KINDS))
def test_every_kind_of_array_trains_alike(tmp_path, kind, shuffle):
    x, y = kind(tmp_path, X), kind(tmp_path, Y)
    expected = trained(X, Y, shuffle=shuffle, validation_data=(X, Y))
    assert_same(trained(x, y, shuffle=shuffle, validation_data=(x, y)), expected)
    np.testing.assert_array_equal(mlp().predict(x, verbose=0), mlp().predict(X, verbose=0))


def test_one_hot_labels_are_cast_batch_by_batch(tmp_path):
    expected = trained(X, ONE_HOT, model=mlp("categorical_crossentropy"))
    for y in (ONE_HOT.astype(np.int8), memory_map(tmp_path, ONE_HOT), ONE_HOT.tolist()):
        assert_same(trained(X, y, model=mlp("categorical_crossentropy")), expected)


ITERABLES = {
    "list": batches(X, Y),
    "tuple": tuple(batches(X, Y)),
    "iterable": Again(*batches(X, Y)),
    "lists in it": Again(*([x.tolist(), y.tolist()] for x, y in batches(X, Y))),
}


@pytest.mark.parametrize("given", ITERABLES.values(), ids=list(ITERABLES))
def test_an_iterable_is_iterated_every_epoch(given):
    expected = trained(X, Y, shuffle=False, validation_data=(X, Y))
    assert_same(trained(given, validation_data=Again(*batches(X, Y, size=50))), expected)
    assert mlp().evaluate(given, verbose=0) == pytest.approx(mlp().evaluate(X, Y, verbose=0))
    np.testing.assert_allclose(
        mlp().predict(given, verbose=0), mlp().predict(X, verbose=0), rtol=1e-6
    )


def test_predict_takes_batches_of_x_alone():
    expected = mlp().predict(X, 16, verbose=0)
    for given in (Again(*(x for x, _ in batches(X, Y))), batches(X), iter(batches(X))):
        np.testing.assert_array_equal(mlp().predict(given, verbose=0), expected)


def test_a_generator_with_steps():
    once = batches(X, Y)  # 4 batches
    for given in (Again(*once), once, iter(once * 2)):
        expected = trained(iter(once * 2), epochs=2, steps_per_epoch=3)
        assert_same(trained(given, epochs=2, steps_per_epoch=3), expected)
    model = mlp()
    model.fit(once, steps_per_epoch=3, epochs=2, verbose=0)
    assert (model.step, model.epoch) == (6, 2)
    forever = (batch for _ in iter(int, 1) for batch in once)
    history = mlp().fit(X, Y, validation_data=forever, validation_steps=2, epochs=3, verbose=0)
    assert len(history.history["val_loss"]) == 3
    assert mlp().evaluate(forever, steps=4, verbose=0) == pytest.approx(
        mlp().evaluate(X, Y, 16, verbose=0)
    )


def test_a_generator_for_one_epoch():
    expected = trained(X, Y, shuffle=False, epochs=1)
    assert_same(trained(iter(batches(X, Y)), epochs=1), expected)


def test_the_order_depends_on_seed_and_epoch_alone():
    class Recorder(Layer):
        def forward(self, x, batch):
            seen.extend(x[:, 0])
            return super().forward(x, batch)

    def order(batch_size, epochs, **given):
        seen.clear()
        model = Sequential([Recorder(), Dense(1, "tanh")], seed=7)
        model.compile("sgd", "mse")
        x = np.arange(50)[:, np.newaxis]
        model.fit(x, x, batch_size, epochs, verbose=0, **given)
        return list(seen)

    seen = []
    expected = order(16, 2)
    assert sorted(expected[:50]) == sorted(expected[50:]) == list(range(50))
    assert expected[:50] != expected[50:]
    assert order(7, 3, sample_weight=np.ones(50), initial_epoch=1) == expected


# Memory


@pytest.mark.parametrize(
    ("order", "shuffle", "copies"), [("C", True, 0), ("F", False, 0), ("F", True, 2)]
)
def test_data_in_memory_are_not_copied(order, shuffle, copies):
    """But those by columns are, once, where samples are gathered in another order."""
    x = np.zeros((20000, 250), np.float32, order)  # 20 MB
    y = np.zeros((20000, 250), np.float32, order)
    model = Sequential([Dense(250, input_dim=250)], seed=0)
    model.compile("sgd", "mse")
    model.train_on_batch(x[:32], y[:32])
    tracemalloc.start()
    try:
        model.fit(x, y, 256, 2, verbose=0, shuffle=shuffle)
        model.evaluate(x, y, 256, verbose=0)
        model.predict(x[:256], verbose=0)
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert copies * x.nbytes <= most < copies * x.nbytes + 8e6


def test_data_on_disk_are_read_batch_by_batch():
    x, y = Stored(X), Stored(ONE_HOT)
    trained(x, y, model=mlp("categorical_crossentropy"))
    assert x.most == y.most == 16
    with pytest.raises(ValueError, match=r"validation_split: .*got Stored"):
        trained(x, y, validation_split=0.5)


# Bad values


def spoilt(array, value=np.nan):
    array = array.copy()
    array[20] = value
    return array


def test_bad_values_in_memory_are_refused_before_training():
    for x, y in ((spoilt(X), ONE_HOT), (X, spoilt(ONE_HOT)), (X, spoilt(ONE_HOT, 2))):
        model = mlp("categorical_crossentropy")
        with pytest.raises(ValueError, match=r"^[xy]: expected"):
            model.fit(x, y, verbose=0)
        assert model.step == 0
        assert not model.params
    with pytest.raises(ValueError, match=r"validation_data\[0\]: expected finite"):
        trained(X, Y, validation_data=(spoilt(X), Y))


BAD_BATCHES = {
    "memory map": (lambda f: (memory_map(f, spoilt(X)), Y), "x, batch 2 of epoch 1: .*finite"),
    "map of labels": (
        lambda f: (X, memory_map(f, spoilt(Y, 5))),
        r"y, batch 2 of epoch 1: .*got 5",
    ),
    "stored": (lambda f: (Stored(spoilt(X)), Y), "x, batch 2 of epoch 1: .*finite"),
    "NaN": (lambda f: (batches(spoilt(X), Y), None), "x, batch 2 of epoch 1: .*finite"),
    "labels": (lambda f: (batches(X, spoilt(Y, 5)), None), "x, batch 2 of epoch 1, y: .*got 5"),
    "weights": (
        lambda f: (batches(X, Y, spoilt(WEIGHTS, -1)), None),
        "x, batch 2 of epoch 1, sample_weight: .*at least 0",
    ),
    "width": (
        lambda f: ([(X[:5], Y[:5]), (X[:5, 1:], Y[:5])], None),
        r"x, batch 2 of epoch 1: expected shape \(samples, 6\), got \(5, 5\)",
    ),
    "counts": (
        lambda f: ([(X[:5], Y[:5]), (X[:5], Y[:4])], None),
        r"x, batch 2 of epoch 1: .*got x \(5, 6\) and y \(4,\)",
    ),
    "no y": (lambda f: ([(X[:5],)], None), "x, first batch: .*a label for each sample"),
    "no batches": (lambda f: ([], None), "x: expected a non-empty array"),
    "no batches, generator": (lambda f: (iter([]), None), "x: expected at least one batch"),
    "no array": (lambda f: (iter([("a", "b")]), None), "x, first batch: expected .*array"),
    "four items": (lambda f: ([(X, Y, Y, Y)], None), "x, first batch: .*got 4 items"),
    "None among them": (
        lambda f: (Again((X, Y), None), None),
        "x, batch 2 of epoch 1: .*got object",
    ),
    "rows of two lengths": (
        lambda f: ([[1, 2], [3]], [0, 1]),
        "x: expected an array, got sequences of different lengths",
    ),
    "labels of two lengths": (lambda f: (X[:2], [[1, 2], [3]]), "y: expected an array, got seq"),
    "rows of two lengths in a batch": (
        lambda f: ([(X[:2], [[1, 2], [3]])], None),
        "x, first batch, y: expected an array, got sequences",
    ),
    "array alone": (lambda f: (X, None), "y: expected labels"),
    "both": (lambda f: (Again(*batches(X, Y)), Y), "y: expected None beside an iterable"),
    "neither": (lambda f: (3, None), "x: expected an array or an iterable of batches, got 3"),
}


@pytest.mark.parametrize(("data", "message"), BAD_BATCHES.values(), ids=list(BAD_BATCHES))
def test_bad_data(tmp_path, data, message):
    x, y = data(tmp_path)
    with pytest.raises(ValueError, match=message):
        trained(x, y, shuffle=False)


BAD_ENDS = {
    "second epoch": ({}, "x: expected batches in epoch 2, got none: the generator has ended"),
    "within one": ({"steps_per_epoch": 3}, "x: expected 3 batches in epoch 2, got 1"),
}


@pytest.mark.parametrize(("given", "message"), BAD_ENDS.values(), ids=list(BAD_ENDS))
def test_a_generator_that_ends_early(given, message):
    with pytest.raises(ValueError, match=message):
        trained(iter(batches(X, Y)), **given)
    with pytest.raises(ValueError, match=r"validation_data: .*validation, epoch 2"):
        trained(X, Y, validation_data=iter(batches(X, Y)))


BAD_ARGUMENTS = {
    "steps": ({"steps_per_epoch": 5}, "steps_per_epoch: expected at most 4, .* of x, .* got 5"),
    "steps, 0": ({"steps_per_epoch": 0}, "steps_per_epoch: .*at least 1"),
    "validation steps": (
        {"validation_data": (X, Y), "validation_steps": 5},
        r"validation_steps: expected at most 4, the batches of validation_data\[0\], .* got 5",
    ),
    "width": (
        {"validation_data": (X[:, 1:], Y)},
        r"validation_data\[0\]: expected shape \(samples, 6\), got \(50, 5\)",
    ),
    "validation weights": (
        {"validation_data": (X, Y, WEIGHTS[1:])},
        r"validation_data\[2\]: expected one weight for each sample",
    ),
    "validation y": ({"validation_data": (X, None)}, r"validation_data\[1\]: expected labels"),
    "validation": ({"validation_data": (X,)}, r"validation_data: expected \(x, y\)"),
    "negative": ({"sample_weight": -WEIGHTS}, "sample_weight: expected weights of at least 0"),
    "NaN": ({"sample_weight": spoilt(WEIGHTS)}, "sample_weight: expected finite"),
    "length": (
        {"sample_weight": WEIGHTS[1:]},
        r"sample_weight: expected one weight for each sample, got float64 \(49,\)",
    ),
    "text": ({"sample_weight": ["a"] * 50}, "sample_weight: expected one weight"),
    "class": ({"class_weight": {3: 1.0}}, r"class_weight: .*classes in \[0, 3\).*got 3"),
    "class name": ({"class_weight": {"a": 1.0}}, "class_weight: .*got 'a'"),
    "class weight": ({"class_weight": {0: -1.0}}, "class_weight: .*at least 0"),
    "class of several labels": (
        {"x": X[:, np.newaxis], "y": Y[:, np.newaxis], "class_weight": {0: 2.0}},
        r"class_weight: .*one label per sample, got .* outputs of shape \(samples, 1, 3\)",
    ),
    "no mapping": ({"class_weight": [1, 2, 3]}, "class_weight: expected a mapping"),
}


@pytest.mark.parametrize(("given", "message"), BAD_ARGUMENTS.values(), ids=list(BAD_ARGUMENTS))
def test_bad_arguments(given, message):
    model = mlp()
    with pytest.raises(ValueError, match=message):
        trained(**{"x": X, "y": Y, "model": model} | given)
    assert model.step == 0


# Weights


@pytest.mark.parametrize("loss", ["sparse_categorical_crossentropy", "categorical_crossentropy"])
def test_whole_weights_are_repetitions(loss):
    """A sample of weight 2 counts as two, except that means divide by the number of samples."""
    y = Y if loss.startswith("sparse") else ONE_HOT
    weights = RNG.integers(0, 3, 50)
    model = mlp(loss, metrics=[])
    given = model.evaluate(X, y, sample_weight=weights, verbose=0)
    repeated = model.evaluate(X.repeat(weights, axis=0), y.repeat(weights, axis=0), verbose=0)
    assert given * 50 == pytest.approx(repeated * weights.sum(), rel=1e-5)


def test_weights_of_classes_are_weights_of_samples():
    by_class = {0: 0.5, 2: 3.0}  # and 1 for class 1
    weights = np.array([0.5, 1.0, 3.0])[Y]
    expected = trained(X, Y, sample_weight=weights)
    assert_same(trained(X, Y, class_weight=by_class), expected)
    assert_same(trained(X, Y, class_weight=by_class, sample_weight=np.ones(50)), expected)
    weighted = trained(X, Y, shuffle=False, sample_weight=weights)
    assert_same(trained(batches(X, Y), class_weight=by_class), weighted)
    assert_same(trained(batches(X, Y, weights)), weighted)
    one_hot = trained(X, ONE_HOT, model=mlp("categorical_crossentropy"), class_weight=by_class)
    assert_same(
        trained(X, ONE_HOT, model=mlp("categorical_crossentropy"), sample_weight=weights), one_hot
    )
    plain = trained(X, Y)
    assert plain[1] != expected[1]


def test_weights_of_the_classes_of_one_output():
    def model():
        model = Sequential([Dense(1, "sigmoid")], seed=0)
        model.compile("sgd", "binary_crossentropy")
        return model

    y = Y > 0
    expected = trained(X, y, model=model(), sample_weight=np.where(y, 4.0, 1.0))
    assert_same(trained(X, y, model=model(), class_weight={1: 4.0}), expected)


def test_validation_weights():
    model = mlp()
    history = model.fit(X, Y, verbose=0, validation_data=(X, Y, WEIGHTS)).history
    loss, _ = model.evaluate(X, Y, sample_weight=WEIGHTS, verbose=0)
    assert history["val_loss"] == [loss]
    split = mlp().fit(X, Y, verbose=0, validation_split=0.2, sample_weight=WEIGHTS).history
    parts = mlp().fit(
        X[:40],
        Y[:40],
        verbose=0,
        sample_weight=WEIGHTS[:40],
        validation_data=(X[40:], Y[40:], WEIGHTS[40:]),
    )
    assert split == parts.history


def test_weighted_metrics():
    model = Sequential([Dense(3, "softmax")], seed=0)
    model.compile("sgd", "sparse_categorical_crossentropy", ["accuracy"], ["accuracy"])
    weights = np.where(Y == 0, 3, 1)
    figures = model.evaluate(X, Y, sample_weight=weights, verbose=0, return_dict=True)
    right = model.predict(X, verbose=0).argmax(axis=1) == Y
    assert list(figures) == ["loss", "accuracy", "weighted_accuracy"]
    assert figures["accuracy"] == pytest.approx(float(Fraction(int(right.sum()), 50)))
    assert figures["weighted_accuracy"] == pytest.approx(np.average(right, weights=weights))
