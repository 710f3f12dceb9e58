"""What a file says of how far a model is: going on from it is as if nothing had happened."""

import math

import numpy as np
import pytest
from safetensors.numpy import load_file

from fastdrop import callbacks, layers, optimizers
from fastdrop.callbacks import LambdaCallback, ModelCheckpoint
from fastdrop.models import Sequential, load_model

RNG = np.random.default_rng(0)
X = RNG.normal(size=(40, 4)).astype(np.float32)
Y = RNG.normal(size=(40, 1)).astype(np.float32)
STEPS = 5  # batches of 8 in an epoch
SLICES = [slice(start, start + 8) for start in range(0, 40, 8)]


def model():
    made = Sequential(
        [
            layers.Dense(8, "relu"),
            layers.Dropout(0.5),
            layers.BatchNormalization(),
            layers.Dense(1),
        ],
        seed=0,
    )
    made.compile("adam", "mse")
    return made


class WithoutLength:
    def __iter__(self):
        return ((X[rows], Y[rows]) for rows in SLICES)


def endless():
    while True:
        yield from WithoutLength()


DATA = {
    "arrays": lambda: {"x": X, "y": Y, "batch_size": 8},
    "list": lambda: {"x": list(WithoutLength())},
    "iterable": lambda: {"x": WithoutLength()},
    "generator": lambda: {"x": endless(), "steps_per_epoch": STEPS},
}


def fit(made, data="arrays", epochs=3, **given):
    initial = {"initial_epoch": made.epoch, "validation_data": (X, Y), "verbose": 0}
    return made.fit(**DATA[data](), epochs=epochs, **initial | given)


def stop_at(step, error=None):
    """A callback that ends training behind this step, in all, or raises an error there."""

    class Stop(callbacks.Callback):
        def on_train_batch_end(self, batch, logs):
            if self.model.step == step:
                if error is not None:
                    raise error
                self.model.stop_training = True

    return Stop()


def state(made):
    """All that going on depends on."""
    parts = {(name, part): a for name, of in made.optimizer.state.items() for part, a in of.items()}
    arrays = [*made.get_weights(), *(parts[place] for place in sorted(parts))]
    numbers = made.epoch, made.step, made.optimizer.iterations
    return numbers, [array.tobytes() for array in arrays]


@pytest.fixture(scope="module")
def whole():
    """The states of a training that nothing interrupts, for each kind of data."""
    states = {}
    for data in DATA:
        made = model()
        fit(made, data)
        states[data] = state(made)
    return states


@pytest.mark.parametrize("data", DATA)
@pytest.mark.parametrize("weights_only", [False, True])
def test_an_epoch_that_is_stopped_is_not_saved(tmp_path, capsys, whole, data, weights_only):
    path, made = tmp_path / "file", model()
    save = ModelCheckpoint(path, save_weights_only=weights_only)
    history = fit(made, data, callbacks=[stop_at(STEPS + 2), save])
    assert "Epoch 2: stopped in the middle, not saved" in capsys.readouterr().out
    assert history.epoch == [0, 1]
    assert (made.epoch, made.step) == (1, STEPS + 2)
    if weights_only:
        first = model()
        fit(first, data, epochs=1)
        second = model()
        second.predict(X, verbose=0)
        second.load_weights(path)
        for a, b in zip(first.get_weights(), second.get_weights(), strict=True):
            assert a.tobytes() == b.tobytes()
        return
    loaded = load_model(path)
    assert (loaded.epoch, loaded.step) == (1, STEPS)
    fit(loaded, data)
    assert state(loaded) == whole[data]


@pytest.mark.parametrize("data", DATA)
def test_an_epoch_that_is_stopped_at_its_end_is_whole(tmp_path, capsys, whole, data):
    path, made = tmp_path / "file", model()
    fit(made, data, callbacks=[stop_at(2 * STEPS), ModelCheckpoint(path)])
    # Of an iterable without a length nobody knows that it was the last batch.
    epochs = 1 if data == "iterable" else 2
    assert made.epoch == epochs
    assert ("not saved" in capsys.readouterr().out) == (data == "iterable")
    loaded = load_model(path)
    assert (loaded.epoch, loaded.step) == (epochs, epochs * STEPS)
    fit(loaded, data)
    assert state(loaded) == whole[data]


def test_the_best_epoch_is_a_whole_one(tmp_path):
    made, better = model(), iter((3.0, 1.0))

    def measure(epoch, logs):
        logs["figure"] = next(better)

    save = ModelCheckpoint(tmp_path / "file", "figure", mode="min", save_best_only=True)
    fit(made, callbacks=[stop_at(7), LambdaCallback(on_epoch_end=measure), save])
    assert save.best == 3
    assert load_model(tmp_path / "file").epoch == 1


@pytest.mark.parametrize("error", [KeyboardInterrupt, ZeroDivisionError])
def test_an_epoch_in_which_something_is_raised_is_not_counted(tmp_path, error):
    made = model()
    with pytest.raises(error):
        fit(made, callbacks=[stop_at(STEPS + 2, error())])
    assert (made.epoch, made.step) == (1, STEPS + 2)


@pytest.mark.parametrize("hook", ["on_epoch_end", "validation"])
def test_an_epoch_is_whole_before_it_is_measured(tmp_path, whole, hook):
    made = model()

    def interrupt(*arguments):
        if made.step == 2 * STEPS:
            raise KeyboardInterrupt

    class Validation:
        def __iter__(self):
            interrupt()
            return iter([(X, Y)])

    given = (
        {"callbacks": [LambdaCallback(on_epoch_end=interrupt)]}
        if hook == "on_epoch_end"
        else {"validation_data": Validation()}
    )
    with pytest.raises(KeyboardInterrupt):
        fit(made, **given)
    assert (made.epoch, made.step) == (2, 2 * STEPS)
    made.save(tmp_path / "file")
    loaded = load_model(tmp_path / "file")
    fit(loaded)
    assert state(loaded) == whole["arrays"]


@pytest.mark.parametrize("way", ["in the middle", "stopped", "interrupted"])
def test_a_file_of_the_middle_goes_on_as_the_model_does(tmp_path, way):
    path, made = tmp_path / "file", model()
    if way == "in the middle":

        def save(batch, logs):
            if made.step == 7:
                made.save(path)
                kept.append(state(made))

        kept = []
        fit(made, callbacks=[LambdaCallback(on_train_batch_end=save)])
        loaded = load_model(path)
        assert state(loaded) == kept[0]
        assert (loaded.epoch, loaded.step) == (1, 7)
        return
    if way == "stopped":
        fit(made, callbacks=[stop_at(7)])
    else:
        with pytest.raises(KeyboardInterrupt):
            fit(made, callbacks=[stop_at(7, KeyboardInterrupt())])
    made.save(path)
    loaded = load_model(path)
    assert state(loaded) == state(made)
    for each in (made, loaded):
        fit(each)
        assert (each.epoch, each.step) == (3, 7 + 2 * STEPS)  # the second epoch from its start
    assert state(loaded) == state(made)


# Numbers of steps and updates


def keys_of(made):
    """The keys that a model's dropout gets, from now on."""
    keys, layer = [], made.layers[1]

    class Recorded(layers.Dropout):
        def forward(self, x, batch):
            if batch.training:
                keys.append(batch.key.call)
            return super().forward(x, batch)

    layer.__class__ = Recorded
    return keys


def test_an_interrupt_behind_an_update_repeats_no_mask(monkeypatch):
    """Where Ctrl-C comes while compiled code updates, Python raises it right behind that."""
    made = model()
    fit(made, epochs=1)
    keys, update = keys_of(made), optimizers.update

    def interrupted(*arguments, **keywords):
        update(*arguments, **keywords)
        if made.step == STEPS + 3:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(optimizers, "update", interrupted)
        with pytest.raises(KeyboardInterrupt):
            fit(made)
    assert (made.step, made.optimizer.iterations) == (STEPS + 3, STEPS + 3)
    fit(made)
    assert keys == list(range(STEPS, made.step))
    assert made.step == made.optimizer.iterations == STEPS + 3 + 2 * STEPS


def test_an_update_that_is_refused_is_not_counted():
    made = model()
    fit(made, epochs=1)
    with pytest.raises(ValueError, match="grads: expected one for each"):
        made.optimizer.update(made.params, {})
    assert made.optimizer.iterations == STEPS
    made.train_on_batch(X, Y)
    assert (made.step, made.optimizer.iterations) == (STEPS + 1, STEPS + 1)


# Weights that are not finite


def test_a_checkpoint_keeps_finite_weights(tmp_path, capsys):
    path, made = tmp_path / "file", model()

    def spoil(epoch, logs):
        if epoch == 1:
            made.params["0.weight"][...] = math.nan

    fit(
        made,
        callbacks=[
            LambdaCallback(on_epoch_end=spoil),
            callbacks.TerminateOnNaN(),
            ModelCheckpoint(path),
        ],
    )
    said = capsys.readouterr().out
    assert f"Epoch 2: not saved: {path}: expected finite numbers" in said
    assert "Epoch 3: stopped in the middle, not saved" in said
    assert load_model(path).epoch == 1
    assert all(np.isfinite(weights).all() for weights in load_model(path).get_weights())


def test_the_best_of_weights_that_are_not_finite_is_not_remembered(tmp_path):
    made, better = model(), iter((3.0, 1.0, 2.0))

    def measure(epoch, logs):
        logs["figure"] = next(better)
        weights = made.params["0.weight"]
        weights[0, 0] = math.inf if epoch == 1 else 1

    save = ModelCheckpoint(tmp_path / "file", "figure", mode="min", save_best_only=True)
    fit(made, callbacks=[LambdaCallback(on_epoch_end=measure), save], epochs=2)
    assert save.best == 3
    assert load_model(tmp_path / "file").epoch == 1


def not_finite(value=np.nan):
    made = Sequential([layers.Dense(3, input_dim=4), layers.BatchNormalization()], seed=0)
    made.params["0.weight"][0, 0] = value
    return made


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_finite_weights_are_not_replaced_by_others(tmp_path, value):
    path, made, good = tmp_path / "file", not_finite(value), not_finite(1.0)
    for save in (good.save, good.save_weights):
        save(path)
        before = path.read_bytes()
        for replace in (made.save, made.save_weights):
            with pytest.raises(ValueError, match=f"^{path}: expected finite .* in '0.weight'$"):
                replace(path)
        assert path.read_bytes() == before
    path.unlink()
    made.save(path)
    made.save_weights(path)  # nothing is lost
    assert not np.isfinite(load_file(path)["0.weight"]).all()
    good.save(path)
    assert np.isfinite(load_model(path).get_weights()[0]).all()


def test_an_optimisers_infinity_is_no_weight(tmp_path):
    made = Sequential([layers.Dense(2, input_dim=4)], seed=0)
    made.compile("adam", "mse")
    made.fit(X, X[:, :2], verbose=0)
    made.save(tmp_path / "file")
    made.optimizer.state["0.weight"]["v"][0, 0] = np.inf
    made.save(tmp_path / "file")
    assert load_model(tmp_path / "file").optimizer.state["0.weight"]["v"][0, 0] == np.inf
