"""Keys and generators."""

import copy
import os
import pickle
import threading

import numpy as np
import pytest
import reference

import fastdrop
from fastdrop import Generator, Key
from fastdrop.compiled import _core
from fastdrop.random import permutation, uniform


def test_keys_are_immutable_hashable_values():
    key = Key(3, call=4)
    assert (key.seed, key.call) == (3, 4)
    assert key == Key(3, 4)
    assert hash(key) == hash(Key(3, 4))
    assert Key(np.uint64(3)) == Key(3, 0)
    for copied in (copy.deepcopy(key), pickle.loads(pickle.dumps(key)), eval(repr(key))):
        assert copied == key
        assert type(copied) is Key
    with pytest.raises(AttributeError):
        key.seed = 5


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: Key(-1), ValueError, r"seed: expected 0 <= seed < 2\*\*64, got -1"),
        (lambda: Key(2**64), ValueError, "seed: expected"),
        (lambda: Key(1, -1), ValueError, "call: expected"),
        (lambda: Key(1.5), TypeError, "seed: expected an integer, got float"),
        (lambda: Key(1).fold_in(2**48), ValueError, r"n: expected 0 <= n < 2\*\*48"),
        (lambda: Key(1).fold_in(-1), ValueError, "n: expected"),
        (lambda: Key(1)._replace(seed=-5), ValueError, "seed: expected"),
        (lambda: Key._make((1.5, 0)), TypeError, "seed: expected an integer"),
        (lambda: Generator(-1), ValueError, "seed: expected"),
        (lambda: Generator(1).spawn(-1), ValueError, "n: expected"),
        (lambda: fastdrop.seed("a"), TypeError, "seed: expected an integer, got str"),
        (lambda: setattr(Generator(1), "state", 5), ValueError, "state: expected"),
        (lambda: setattr(Generator(1), "state", (1, -2)), ValueError, "call: expected"),
    ],
)
def test_refused(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_generator_counts_calls():
    generator = Generator(7)
    assert [generator.next_key() for _ in range(3)] == [Key(7, 0), Key(7, 1), Key(7, 2)]
    assert generator.state == (7, 3)
    generator.state = (8, 2**64 - 1)
    assert generator.next_key() == Key(8, 2**64 - 1)
    assert generator.next_key() == Key(8, 0)


def test_generators_without_a_seed_differ():
    assert Generator().state != Generator().state


def test_spawn_costs_one_key():
    generator = Generator(7)
    generator.next_key()
    children = generator.spawn(3)
    assert generator.state == (7, 2)
    expected = [reference.fold_in(7, 1, i) for i in range(3)]
    assert [child.state for child in children] == [(seed, 0) for seed in expected]


def test_threads_share_a_generator():
    generator, keys = Generator(1), []
    threads = [
        threading.Thread(target=lambda: keys.extend(generator.next_key() for _ in range(5000)))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {key.call for key in keys} == set(range(20_000))


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_child_forked_while_another_thread_draws_keys_does_not_wait():
    generator, stop = Generator(1), threading.Event()

    def draw():
        while not stop.is_set():
            generator.next_key()

    thread = threading.Thread(target=draw)
    thread.start()
    try:
        for _ in range(20):
            child = os.fork()
            if child == 0:
                generator.next_key()
                os._exit(0)
            assert os.waitpid(child, 0)[1] == 0
    finally:
        stop.set()
        thread.join()


def test_uniform_is_the_contracts_words():
    u = uniform(Key(5, 6), (40, 30))
    assert u.shape == (40, 30)
    expected = (reference.random_words(1200, 5, 6) + 0.5) / 2**32
    assert np.array_equal(u.ravel(), expected)
    assert abs(uniform(Key(1), (100_000,)).mean() - 0.5) < 5 / (12 * 100_000) ** 0.5


@pytest.mark.parametrize("n", [0, 1, 2, 1000])
def test_permutation(n):
    order = permutation(Key(5), n)
    assert sorted(order.tolist()) == list(range(n))
    assert np.array_equal(order, permutation(Key(5), n))
    assert n < 1000 or not np.array_equal(order, permutation(Key(5, 1), n))


@pytest.mark.parametrize("n", [0, 1, 2, 3, 100, 4096, 60_000])
def test_a_permutation_is_the_order_of_the_words(n):
    words = _core.random_words(2 * n, 5, 6, 0).view(np.uint64)
    expected = np.argsort(words, kind="stable")
    found = permutation(Key(5, 6), n)
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("words", [[7, 3, 7, 3], [6, 5, 4, 7, 2, 3], [0, 0, 0]])
def test_words_that_differ_in_their_last_bits_only_are_told_apart(words, monkeypatch):
    words = np.array(words, np.uint64)
    monkeypatch.setattr("fastdrop.random._core.random_words", lambda *_: words.view(np.uint32))
    expected = np.argsort(words, kind="stable")
    np.testing.assert_array_equal(permutation(Key(0), len(words)), expected)
