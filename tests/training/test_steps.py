"""Arrays of which an epoch takes so many batches, as Keras 3 cuts them."""

import numpy as np
import pytest

from fastdrop.callbacks import LambdaCallback, ModelCheckpoint
from fastdrop.layers import Dense
from fastdrop.models import Sequential, load_model

X = np.arange(100.0).reshape(50, 2)
Y = X[:, :1]


def mlp():
    model = Sequential([Dense(3, "tanh"), Dense(1)], seed=3)
    model.compile("sgd", "mse", metrics=["mae"])
    return model


@pytest.mark.parametrize(
    ("batch_size", "steps", "expected"),
    [
        (10, 5, [5, 5, 5, 5]),
        (10, 3, [3, 2, 3, 2]),
        (10, 2, [2, 2, 1, 2]),
        (10, 1, [1, 1, 1, 1]),
        (16, 3, [3, 1, 3, 1]),
        (None, 2, [2, 2, 2, 2]),  # batches of 25
        (None, 3, [3, 3, 3, 3]),  # of 17
        (None, None, [2, 2, 2, 2]),  # of 32
    ],
)
@pytest.mark.parametrize("shuffle", [True, False])
def test_batches_of_each_epoch(batch_size, steps, expected, shuffle):
    heard = []
    model = mlp()
    model.fit(
        *(X, Y, batch_size, 4),
        verbose=0,
        shuffle=shuffle,
        steps_per_epoch=steps,
        callbacks=LambdaCallback(on_train_batch_begin=lambda batch, _: heard.append(batch)),
    )
    assert heard == [batch for batches in expected for batch in range(batches)]
    assert model.step == sum(expected)


class Rows(Dense):
    """Remembers which samples it has seen."""

    def forward(self, x, batch):
        if batch.training:
            seen.extend(x[:, 0].tolist())
        return super().forward(x, batch)


seen: list[float] = []


@pytest.mark.parametrize("shuffle", [True, False])
def test_a_pass_takes_each_sample_once(shuffle):
    seen.clear()
    model = Sequential([Rows(1)], seed=1)
    model.compile("sgd", "mse")
    for _ in range(2):  # calls of fit go on where the last one ended
        model.fit(X / 100, Y, 10, 3, steps_per_epoch=2, shuffle=shuffle, verbose=0)
    first, second = np.float32(seen[:50]), np.float32(seen[50:])
    for rows in (first, second):
        np.testing.assert_array_equal(np.sort(rows), np.float32(X[:, 0] / 100))
    assert (first != second).any() == shuffle
    assert (first == np.sort(first)).all() != shuffle


def test_goes_on_from_within_a_pass(tmp_path):
    given = {"batch_size": 10, "steps_per_epoch": 2, "verbose": 0}
    whole, cut = mlp(), mlp()
    whole.fit(X, Y, epochs=5, **given)
    cut.fit(X, Y, epochs=2, callbacks=ModelCheckpoint(tmp_path / "model"), **given)
    again = load_model(tmp_path / "model")
    again.fit(X, Y, epochs=5, initial_epoch=again.epoch, **given)
    for one, other in zip(whole.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_inference_takes_the_first_batches():
    model = mlp()
    given = {"batch_size": 8, "verbose": 0}
    assert model.evaluate(X, Y, steps=3, **given) == model.evaluate(X[:24], Y[:24], **given)
    np.testing.assert_array_equal(
        model.predict(X, steps=3, **given), model.predict(X[:24], **given)
    )
    validated = {"validation_data": (X, Y), "validation_steps": 2, "validation_batch_size": 9}
    history = model.fit(X, Y, epochs=2, verbose=0, **validated).history
    expected = model.evaluate(X[:18], Y[:18], batch_size=9, verbose=0)
    assert [history["val_loss"][-1], history["val_mae"][-1]] == expected
    split = mlp().fit(X, Y, verbose=0, validation_split=0.5, validation_steps=5, batch_size=5)
    assert np.isfinite(split.history["val_loss"]).all()


@pytest.mark.parametrize("call", ["evaluate", "predict"])
def test_more_steps_than_batches_are_refused(call):
    model = mlp()
    given = (X, Y) if call == "evaluate" else (X,)
    with pytest.raises(ValueError, match=r"^steps: expected at most 5, the batches of x, .* got 6"):
        getattr(model, call)(*given, batch_size=10, steps=6)


def test_a_short_epoch_is_whole_at_its_last_batch():
    model = mlp()

    def stop(batch, logs):
        model.stop_training = model.epoch == 1 and batch == 1  # of 2, behind an epoch of 3

    model.fit(
        *(X, Y, 10, 5),
        steps_per_epoch=3,
        verbose=0,
        callbacks=LambdaCallback(on_train_batch_end=stop),
    )
    assert (model.step, model.epoch) == (5, 2)
