"""Batches that somebody else makes: iterables, what has Keras's interface, loaders that reuse."""

import itertools

import numpy as np
import pytest

from fastdrop.callbacks import Callback, LambdaCallback
from fastdrop.layers import BatchNormalization, Dense, Dropout
from fastdrop.models import Sequential
from fastdrop.random import Key, permutation

RNG = np.random.default_rng(0)
BATCHES = [
    (RNG.normal(size=(8, 3)).astype(np.float32), RNG.integers(0, 2, (8, 1)), RNG.uniform(0, 2, 8))
    for _ in range(5)
]
X, Y, WEIGHTS = (np.concatenate(parts) for parts in zip(*BATCHES, strict=True))


def mlp(optimizer="adam"):
    model = Sequential(
        [
            Dense(4, "relu", input_shape=(3,)),
            Dropout(0.5),
            BatchNormalization(),
            Dense(1, "sigmoid"),
        ],
        seed=1,
    )
    model.compile(optimizer, "binary_crossentropy", ["accuracy"], ["auc"])
    return model


def trained(x, model=None, epochs=3, **arguments):
    """Weights and figures after `fit`."""
    model = model or mlp()
    history = model.fit(x, epochs=epochs, verbose=0, **arguments).history
    return [weight.tolist() for weight in model.get_weights()], history


class Again:
    """Batches that can be iterated again."""

    def __init__(self, batches):
        self.batches = batches

    def __iter__(self):
        return iter(self.batches)


class Numbered:
    """Keras's interface; keeps what was asked of it."""

    def __init__(self, batches=BATCHES):
        self.batches, self.asked = batches, []

    def __len__(self):
        return len(self.batches)

    def __getitem__(self, index):
        self.asked.append(index)
        return self.batches[index]

    def on_epoch_end(self):
        self.asked.append("end")


class Iterated(Numbered):
    """With the `__iter__` of Keras 2."""

    def __iter__(self):
        return (self[index] for index in range(len(self)))


class Begun(Numbered):
    """With the hook of Keras 3.8; `shape` is no array's here."""

    shape = (3,)

    def on_epoch_begin(self):
        self.asked.append("begin")


class Bare:
    """Without any hook: nothing else it can be."""

    def __init__(self, batches=BATCHES):
        self.batches, self.asked = batches, []

    __len__, __getitem__ = Numbered.__len__, Numbered.__getitem__


NUMBERED = [Numbered, Iterated, Begun, Bare]


# The same validation in every epoch


@pytest.mark.parametrize("make", [list, Again, Numbered, Iterated, Bare])
@pytest.mark.parametrize("steps", [1, 2, 5, 7])
def test_every_epoch_is_validated_on_the_same_batches(make, steps):
    model = mlp("sgd")
    model.optimizer.learning_rate = 0.0
    model.layers[2].trainable = False
    history = model.fit(
        X, Y, epochs=4, verbose=0, validation_data=make(BATCHES), validation_steps=steps
    ).history
    taken = list(itertools.islice(itertools.cycle(BATCHES), steps))
    expected = model.evaluate(taken, verbose=0, return_dict=True)
    for name, value in expected.items():
        assert history[f"val_{name}"] == [value] * 4


def test_an_iterators_validation_goes_on():
    model = mlp("sgd")
    model.optimizer.learning_rate = 0.0
    model.layers[2].trainable = False
    history = model.fit(
        X, Y, epochs=2, verbose=0, validation_data=iter(BATCHES), validation_steps=2
    ).history
    expected = [model.evaluate(BATCHES[i : i + 2], verbose=0)[0] for i in (0, 2)]
    assert history["val_loss"] == expected


# Batches by number


@pytest.mark.parametrize("make", NUMBERED)
def test_numbered_batches_train_as_those_of_a_list(make):
    assert trained(make(), shuffle=False) == trained(BATCHES)
    validated = trained(BATCHES, validation_data=BATCHES)
    assert trained(BATCHES, validation_data=make()) == validated
    assert mlp().evaluate(make(), verbose=0) == mlp().evaluate(BATCHES, verbose=0)
    np.testing.assert_array_equal(
        mlp().predict(make(), verbose=0), mlp().predict(BATCHES, verbose=0)
    )


@pytest.mark.parametrize("make", NUMBERED)
def test_the_order_of_batches_is_a_function_of_seed_and_epoch(make):
    given = make()
    model = mlp()
    model.fit(given, epochs=3, verbose=0)
    orders = [permutation(Key(model.seed, epoch), 5).tolist() for epoch in range(3)]
    asked = [index for index in given.asked if isinstance(index, int)]
    assert asked == [0, *itertools.chain(*orders)]  # 0: to know its shape
    assert orders[0] != orders[1]
    again = make()
    model = mlp()
    model.fit(again, epochs=1, verbose=0)
    model.fit(again, epochs=3, initial_epoch=1, verbose=0)
    asked = [index for index in again.asked if isinstance(index, int)]
    assert asked == [0, *orders[0], 0, *orders[1], *orders[2]]


@pytest.mark.parametrize("steps", [1, 2, 5, 7, 11])
def test_numbered_batches_are_cut_into_epochs_of_steps(steps):
    whole = [permutation(Key(1, turn), 5).tolist() for turn in range(9)]
    expected = list(itertools.chain(*whole))[: 4 * steps]
    given, model = Numbered(), mlp()
    model.fit(given, epochs=3, steps_per_epoch=steps, verbose=0)
    model.fit(given, epochs=4, initial_epoch=3, steps_per_epoch=steps, verbose=0)
    assert [index for index in given.asked if index != "end"] == [
        0,
        *expected[: 3 * steps],
        0,
        *expected[3 * steps :],
    ]
    assert (model.epoch, model.step) == (4, 4 * steps)
    given = Numbered()
    mlp().fit(given, epochs=3, steps_per_epoch=steps, shuffle=False, verbose=0)
    in_order = list(itertools.islice(itertools.cycle(range(5)), 3 * steps))
    assert [index for index in given.asked if index != "end"] == [0, *in_order]


def test_numbered_batches_are_validated_in_order():
    given = Numbered()
    mlp().fit(X, Y, epochs=2, verbose=0, validation_data=given)
    assert given.asked == [0, *range(5), "end", *range(5), "end"]


@pytest.mark.parametrize("make", [Numbered, Iterated])
def test_the_end_of_each_epoch_is_told(make):
    given, said = make(), []
    model = mlp()
    model.fit(
        given,
        epochs=2,
        verbose=0,
        shuffle=False,
        callbacks=LambdaCallback(on_epoch_end=lambda *_: said.append(len(given.asked))),
    )
    assert given.asked == [0, *range(5), "end", *range(5), "end"]
    assert said == [7, 13]  # before the callbacks, as in Keras
    for call in (model.evaluate, model.predict):
        given.asked.clear()
        call(given, verbose=0)
        assert given.asked == [0, *range(5), "end"]
    given.asked.clear()
    model.evaluate(given, steps=2, verbose=0)
    assert given.asked == [0, 0, 1, "end"]


def test_the_beginning_of_each_epoch_is_told():
    given = Begun()
    mlp().fit(given, epochs=2, verbose=0, shuffle=False)
    assert given.asked == [0, *["begin", *range(5), "end"] * 2]


def test_hooks_of_an_iterable_are_called_too():
    class Hooked(Again):
        ended = 0

        def on_epoch_end(self):
            self.ended += 1

    given = Hooked(BATCHES)
    mlp().fit(given, epochs=3, verbose=0)
    assert given.ended == 3


def test_an_epoch_that_ends_in_the_middle_is_none():
    class Stop(Callback):
        def on_train_batch_end(self, batch, logs):
            self.model.stop_training = batch == 1

    given = Begun()
    mlp().fit(given, epochs=3, verbose=0, shuffle=False, callbacks=[Stop()])
    assert given.asked == [0, "begin", 0, 1]


def test_the_number_of_batches_may_change_between_epochs():
    class Growing(Numbered):
        def on_epoch_end(self):
            super().on_epoch_end()
            self.batches = [*self.batches, *BATCHES[:1]]

    given = Growing()
    mlp().fit(given, epochs=2, verbose=0, shuffle=False)
    assert given.asked == [0, *range(5), "end", *range(6), "end"]


def test_shuffling_between_epochs_is_seen():
    class Reversed(Numbered):
        def on_epoch_end(self):
            self.batches = self.batches[::-1]

    model = mlp()
    model.fit(BATCHES, epochs=1, verbose=0)
    expected = trained(BATCHES[::-1], model, epochs=1)
    assert trained(Reversed(), epochs=2, shuffle=False)[0] == expected[0]


BAD_SEQUENCES = {
    "no batches": (lambda: Numbered([]), "x: expected at least one batch, got none"),
    "labels beside": (lambda: Numbered(), "y: expected None beside an iterable"),
    "no arrays": (lambda: Numbered([("a", "b")]), "x, first batch: expected .*array"),
    "NaN": (
        lambda: Numbered([BATCHES[0], (X * np.nan, Y)]),
        "x, batch 2 of epoch 1: expected finite",
    ),
}


@pytest.mark.parametrize("kind", BAD_SEQUENCES)
def test_bad_sequences(kind):
    make, message = BAD_SEQUENCES[kind]
    with pytest.raises(ValueError, match=message):
        mlp().fit(make(), Y if kind == "labels beside" else None, verbose=0, shuffle=False)


def test_keras_own_objects():
    keras = pytest.importorskip("keras")

    class Data(keras.utils.PyDataset):
        def __init__(self):
            super().__init__()
            self.asked = []

        __len__, __getitem__ = Numbered.__len__, Numbered.__getitem__
        batches, on_epoch_end = BATCHES, Numbered.on_epoch_end

    given = Data()
    assert trained(given, shuffle=False) == trained(BATCHES)
    assert given.asked.count("end") == 3


# Iterables without a length, or with a wrong one


def with_length(length):
    class Sized(Again):
        __len__ = length

    return Sized(BATCHES)


def raising(error):
    def length(self):
        raise error

    return length


LENGTHS = {
    "TypeError": raising(TypeError("object of type 'Stream' has no len()")),
    "NotImplementedError": raising(NotImplementedError()),
    "RuntimeError": raising(RuntimeError("not yet")),
    "negative": lambda self: -1,
    "no number": lambda self: None,
    "beyond all": lambda self: 1 << 70,
    "0": lambda self: 0,
    "too few": lambda self: 2,
    "too many": lambda self: 900,
    "right": lambda self: 5,
}


@pytest.mark.parametrize("verbose", [0, 1])
@pytest.mark.parametrize("kind", LENGTHS)
def test_a_length_is_for_the_progress_bar_alone(kind, verbose):
    expected = trained(BATCHES, validation_data=BATCHES)
    given = with_length(LENGTHS[kind])
    model = mlp()
    history = model.fit(given, epochs=3, verbose=verbose, validation_data=given).history
    assert ([weight.tolist() for weight in model.get_weights()], history) == expected
    np.testing.assert_array_equal(
        model.predict(given, verbose=verbose), model.predict(BATCHES, verbose=0)
    )
    assert model.evaluate(given, verbose=0) == model.evaluate(BATCHES, verbose=0)


def test_hooks_beside_a_length_that_raises():
    class Unsized(Iterated):
        __len__ = LENGTHS["TypeError"]

        def __iter__(self):
            return iter(self.batches)

    given = Unsized()
    assert trained(given) == trained(BATCHES)
    assert given.asked == ["end"] * 3


# Loaders that fill the same arrays again and again


class Refilled:
    """Gives each batch in the same arrays, and spoils them in between."""

    def __init__(self, batches=BATCHES, buffer=None):
        self.batches = batches
        self.buffer = buffer or tuple(np.empty_like(part) for part in batches[0])

    def filled(self, batch):
        for part, values in zip(self.buffer, batch, strict=True):
            part[...] = values
        return self.buffer

    def __iter__(self):
        for batch in self.batches:
            yield self.filled(batch)
            for part in self.buffer:
                part[...] = 1


class NumberedRefilled(Refilled):
    def __len__(self):
        return len(self.batches)

    def __getitem__(self, index):
        return self.filled(self.batches[index])

    def on_epoch_end(self):
        for part in self.buffer:
            part[...] = 1


@pytest.mark.parametrize("steps", [None, 3])
@pytest.mark.parametrize("make", [Refilled, NumberedRefilled])
def test_a_loader_may_fill_the_same_arrays(make, steps):
    plain = Numbered if make is NumberedRefilled else Again
    other = [(x + 1, 1 - y, weights) for x, y, weights in BATCHES]
    arguments = {"steps_per_epoch": steps, "validation_steps": steps}
    expected = trained(plain(BATCHES), validation_data=plain(other), **arguments)
    training = make()
    validation = make(other, training.buffer)  # both in the same memory
    assert trained(training, validation_data=validation, **arguments) == expected
    assert mlp().evaluate(make(), verbose=0) == mlp().evaluate(BATCHES, verbose=0)
    np.testing.assert_array_equal(
        mlp().predict(make(), verbose=0), mlp().predict(BATCHES, verbose=0)
    )


def test_an_iterator_that_fills_the_same_arrays():
    expected = trained(iter(BATCHES), epochs=2, steps_per_epoch=2)
    assert trained(iter(Refilled()), epochs=2, steps_per_epoch=2) == expected
    x_alone = (x for x, _, _ in Refilled())
    np.testing.assert_array_equal(
        mlp().predict(x_alone, verbose=0), mlp().predict(BATCHES, verbose=0)
    )
