"""What is random in forked children: their own where nobody gave a seed, the parent's otherwise."""

import copy
import multiprocessing
import pickle

import numpy as np
import pytest
from processes import forked

import fastdrop
from fastdrop import Generator, Key
from fastdrop.layers import ConcreteDropout, Dense, Dropout
from fastdrop.models import Sequential, load_model
from fastdrop.random import default_generator

pytestmark = pytest.mark.filterwarnings(
    "ignore:This process .* is multi-threaded:DeprecationWarning"
)
X = np.ones((8, 64), np.float32)
SHAPE = X.shape[1:]


@pytest.fixture(autouse=True)
def _default_generator():
    """One that nobody has seeded, unless the test does."""
    before = default_generator.__getstate__()
    default_generator.__setstate__(Generator().__getstate__())
    yield
    default_generator.__setstate__(before)


def compiled(model):
    model.compile("sgd", "mse")
    return model


def mlp(seed=None):
    return compiled(Sequential([Dense(64, "relu", input_shape=SHAPE), Dropout(0.5)], seed=seed))


def used(model):
    """It has computed before the fork."""
    model.train_on_batch(X, X)
    model(X, training=True)
    return model


def key_of(generator):
    return lambda: generator.next_key()


def mask_of(layer):
    return lambda: layer(X, training=True).tobytes()


def call_of(model):
    return lambda: model(X, training=True).tobytes()


def step_of(model):
    return lambda: (model.train_on_batch(X, X), model.get_weights()[0].tobytes())[1]


def fit_of(model):
    return lambda: (model.fit(X, X, 4, verbose=0), model.get_weights()[0].tobytes())[1]


def after_one(layer):
    layer(X, training=True)
    return layer


# what is made before the fork, with a seed or without, and returns what draws from it
MADE = {
    "generator": lambda seed: key_of(Generator(seed)),
    "spawned generator": lambda seed: key_of(Generator(seed).spawn(2)[1]),
    "spawned twice": lambda seed: key_of(Generator(seed).spawn(1)[0].spawn(1)[0]),
    "copied generator": lambda seed: key_of(copy.deepcopy(Generator(seed))),
    "pickled generator": lambda seed: key_of(pickle.loads(pickle.dumps(Generator(seed)))),
    "layer": lambda seed: mask_of(Dropout(0.5, seed=seed)),
    "layer after a call": lambda seed: mask_of(after_one(Dropout(0.5, seed=seed))),
    "another layer": lambda seed: mask_of(after_one(ConcreteDropout(64, seed=seed))),
    "copied layer": lambda seed: mask_of(copy.deepcopy(after_one(Dropout(0.5, seed=seed)))),
    "model's calls": lambda seed: call_of(mlp(seed)),
    "model's steps": lambda seed: step_of(mlp(seed)),
    "model's epochs": lambda seed: fit_of(mlp(seed)),
    "used model's calls": lambda seed: call_of(used(mlp(seed))),
    "used model's steps": lambda seed: step_of(used(mlp(seed))),
    "copied model": lambda seed: step_of(copy.deepcopy(mlp(seed))),
    "model without input": lambda seed: step_of(compiled(Sequential([Dense(64)], seed=seed))),
}
# what is made in the child, of the default generator
MADE_THERE = {
    "dropout": lambda: fastdrop.dropout(X).tobytes(),
    "dropout_add": lambda: fastdrop.dropout_add(X, X).tobytes(),
    "bias_act_dropout": lambda: fastdrop.bias_act_dropout(X, X[0], None).tobytes(),
    "softmax_dropout": lambda: fastdrop.softmax_dropout(X).tobytes(),
    "layer": lambda: Dropout(0.5)(X, training=True).tobytes(),
    "model": lambda: Sequential().seed,
    "model's weights": lambda: mlp().get_weights()[0].tobytes(),
    "layer's weights": lambda: Dense(64)(X).tobytes(),
    "spawned": lambda: default_generator.spawn(1)[0].next_key(),
}


def in_processes(draw):
    """What two children, a grandchild and this process draw."""
    return [
        forked(draw),
        forked(draw),
        forked(lambda: forked(draw)),
        draw(),
    ]


@pytest.mark.parametrize("made", MADE)
def test_what_has_no_seed_is_another_in_every_process(made):
    assert len(set(in_processes(MADE[made](None)))) == 4


@pytest.mark.parametrize("made", MADE)
def test_what_has_a_seed_is_the_same_in_every_process(made):
    assert len(set(in_processes(MADE[made](5)))) == 1


@pytest.mark.parametrize("made", MADE_THERE)
def test_the_default_generator_is_another_in_every_process(made):
    assert len(set(in_processes(MADE_THERE[made]))) == 4


@pytest.mark.parametrize("made", MADE_THERE)
def test_a_seeded_default_generator_is_the_same_in_every_process(made):
    fastdrop.seed(3)
    expected = MADE_THERE[made]()
    fastdrop.seed(3)
    assert in_processes(MADE_THERE[made]) == [expected] * 4


@pytest.mark.parametrize("made", [name for name in MADE if "model" in name or "layer" in name])
def test_what_is_made_of_a_seeded_default_generator_is_the_same(made):
    fastdrop.seed(3)
    assert len(set(in_processes(MADE[made](None)))) == 1


def test_a_child_that_is_seeded_repeats_what_the_parent_does():
    def seeded():
        fastdrop.seed(3)
        return Sequential().seed

    assert forked(seeded) == seeded()


def test_a_seed_that_is_assigned_is_a_seed():
    generator, model = Generator(), used(mlp())
    generator.state, model.seed = (7, 2), 7
    assert forked(generator.next_key) == Key(7, 2)
    assert forked(lambda: model.seed) == model.seed == 7


def test_a_loaded_model_has_its_files_seed(tmp_path):
    model = mlp()
    model.save(tmp_path / "model")
    loaded = load_model(tmp_path / "model")
    assert forked(lambda: loaded.seed) == model.seed
    again = Sequential.from_config(model.get_config())
    assert forked(lambda: again.seed) == model.seed


def test_the_parent_goes_on_as_if_there_had_been_no_fork():
    generator, model = Generator(), mlp()
    before = generator.state, model.seed, default_generator.state
    forked(generator.next_key)
    assert (generator.state, model.seed, default_generator.state) == before


def test_the_workers_number_folded_in():
    def work(number):
        fastdrop.seed(Key(3).fold_in(number).seed)
        return Sequential().seed

    first = [forked(lambda number=number: work(number)) for number in range(3)]
    assert len(set(first)) == 3
    assert first == [work(number) for number in range(3)]


def _seed_of_a_model(_):
    return Sequential().seed


@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
def test_pools_of_multiprocessing(method):
    if method != "fork" and method not in multiprocessing.get_all_start_methods():
        pytest.skip("not on this system")
    seeds = set()
    for _ in range(2):
        with multiprocessing.get_context(method).Pool(1) as pool:
            seeds.update(pool.map(_seed_of_a_model, [0]))
    assert len(seeds) == 2


def test_a_seed_assigned_between_steps_counts():
    model, other = mlp(0), mlp(5)
    model.train_on_batch(X, X)
    model.seed, model.step = 5, 0
    model.set_weights(other.get_weights())
    model.optimizer.iterations = 0
    assert step_of(model)() == step_of(other)()
    assert call_of(model)() == call_of(other)()
