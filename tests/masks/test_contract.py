"""The mask contract: every instruction set against the NumPy reference, bit for bit."""

import hashlib
import itertools
from pathlib import Path

import numpy as np
import pytest
import reference
from hypothesis import given
from hypothesis import strategies as st

import fastdrop
from fastdrop import Key
from fastdrop.compiled import _core
from fastdrop.functional import masked_scale

SEED, CALL = 0x0123456789ABCDEF, 0xFEDCBA9876543210
PROBABILITIES = [0.5, 0.25, 0.75, 0.1, 0.9, 1 / 3, 1e-6, 1 - 1e-6, 1e-10, 2.0**-32, 0.0, 1.0]


def known_answers():
    lines = Path(__file__).with_name("known_answers.txt").read_text().splitlines()
    rows = [[int(word, 16) for word in line.split()[2:]] for line in lines if line[0] != "#"]
    return [(row[:4], row[4] | row[5] << 32, row[6:]) for row in rows]


@pytest.mark.parametrize(("counter", "seed", "expected"), known_answers())
def test_philox_gives_the_published_answers(counter, seed, expected):
    assert list(_core.philox(counter, seed)) == expected
    assert [int(word) for word in reference.philox(counter, seed)] == expected


def test_every_length_from_0_to_4100(isa):
    p, offset = 0.3, 12345
    expected = reference.mask(4100, p, SEED, CALL, offset)
    key = Key(SEED, CALL)
    x = np.ones(4100, np.float32)
    for n in range(4101):
        kept = fastdrop.dropout(x[:n], p, key=key, offset=offset) != 0
        assert np.array_equal(kept, expected[:n]), n


@pytest.mark.parametrize("p", PROBABILITIES)
def test_probabilities(isa, p):
    expected = reference.mask(5000, p, SEED, CALL, 777)
    assert np.array_equal(fastdrop.dropout_mask(5000, p, key=Key(SEED, CALL), offset=777), expected)


@pytest.mark.parametrize(
    "offset",
    [
        0,
        1,
        7,
        31,
        32,
        33,
        2047,
        2048,
        2049,
        4095,
        10**6 + 3,
        2**32 - 5,
        2**36 - 1000,
        2**36 + 64,
        2**43 + 17,
        2**55 - 3000,
    ],
)
def test_offsets(isa, offset):
    expected = reference.mask(3000, 0.2, 7, 3, offset)
    assert np.array_equal(fastdrop.dropout_mask(3000, 0.2, key=Key(7, 3), offset=offset), expected)


@given(
    n=st.integers(0, 6000),
    p=st.floats(0, 1),
    seed=st.integers(0, 2**64 - 1),
    call=st.integers(0, 2**64 - 1),
    offset=st.integers(0, 2**55 - 6000),
    threads=st.integers(1, 5),
)
def test_any_mask(n, p, seed, call, offset, threads):
    expected = reference.mask(n, p, seed, call, offset)
    x = np.ones(n)
    for isa in fastdrop.available_isas():
        with fastdrop.use_isa(isa):
            y, packed = masked_scale(
                x, p, 1.0, key=Key(seed, call), offset=offset, return_mask=True, num_threads=threads
            )
        assert np.array_equal(y != 0, expected)
        assert np.array_equal(packed, np.packbits(expected, bitorder="little"))


@given(n=st.integers(0, 300), offset=st.integers(0, 2**54), seed=st.integers(0, 2**64 - 1))
def test_random_words(n, offset, seed):
    expected = reference.random_words(n, seed, CALL, offset)
    for isa in fastdrop.available_isas():
        with fastdrop.use_isa(isa):
            assert np.array_equal(_core.random_words(n, seed, CALL, offset), expected)


@given(seed=st.integers(0, 2**64 - 1), call=st.integers(0, 2**64 - 1), n=st.integers(0, 2**48 - 1))
def test_fold_in(seed, call, n):
    assert Key(seed, call).fold_in(n) == Key(reference.fold_in(seed, call, n), 0)


def test_masks_of_one_key_are_nested():
    key = Key(5)
    masks = [fastdrop.dropout_mask(10_000, p, key=key) for p in (0.0, 0.1, 0.3, 0.5, 0.9, 1.0)]
    for more, less in itertools.pairwise(masks):
        assert np.all(more | ~less)
        assert more.sum() > less.sum()


def test_masks_are_those_of_the_first_release():
    """A change of any mask is a change of the major version."""
    digest = hashlib.sha256()
    for p in (0.5, 0.1, 0.3):
        for offset in (0, 12345):
            mask = fastdrop.dropout_mask(
                20_000, p, key=Key(42, 7).fold_in(3), offset=offset, packed=True
            )
            digest.update(mask.tobytes())
    assert digest.hexdigest() == (
        "e395f872c17e01c575717f67afccdc201886710ca6811053ec9d387c27a7c461"
    )
