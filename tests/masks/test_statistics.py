"""Are the masks random? Fixed seeds; a bad generator, or bad use of a good one, fails.

Each statistic is compared with its distribution for independent bits; five standard deviations, or
the tail probability of five, are allowed, so that a true generator fails about once in 10**6 tests.
"""

import math

import numpy as np
import pytest

import fastdrop
from fastdrop import Key

pytestmark = pytest.mark.slow

SIGMAS = 5.0
RATES = [1e-6, 1e-4, 0.01, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99, 1 - 1e-4, 1 - 1e-6]


def kept(n, p, key, offset=0):
    return fastdrop.dropout_mask(n, p, key=key, offset=offset)


def z_of_correlation(a, b, p):
    """Correlation of two bool arrays of keep probability 1 - p, in standard deviations."""
    a, b = a.ravel() - (1 - p), b.ravel() - (1 - p)
    return float(a @ b) / (p * (1 - p) * math.sqrt(a.size))


def z_of_chi_square(observed, expected):
    """Wilson and Hilferty's normal deviate of a chi-square statistic."""
    observed, expected = np.ravel(observed), np.ravel(expected)
    freedom = observed.size - 1
    statistic = float(np.sum((observed - expected) ** 2 / expected))
    spread = 2 / (9 * freedom)
    return ((statistic / freedom) ** (1 / 3) - (1 - spread)) / math.sqrt(spread)


@pytest.mark.parametrize("p", RATES)
def test_keep_rate(p):
    n = 1 << 24
    count = sum(int(kept(n, p, Key(1, call), offset=17 * call).sum()) for call in range(4))
    sigma = math.sqrt(4 * n * p * (1 - p))
    assert abs(count - 4 * n * (1 - p)) < SIGMAS * sigma


@pytest.mark.parametrize("p", [0.5, 0.1, 0.3])
@pytest.mark.parametrize("lag", [1, 2, 31, 32, 33, 64, 512, 1024, 2047, 2048, 2049, 32768, 65536])
def test_neighbours_rows_and_tiles_are_independent(p, lag):
    mask = kept(1 << 21, p, Key(2))
    assert abs(z_of_correlation(mask[:-lag], mask[lag:], p)) < SIGMAS


BASE = Key(3, 1 << 32)
RELATIVES = {
    "the next call": Key(3, (1 << 32) + 1),
    "a call with another high word": Key(3, 0),
    "the next seed": Key(4, 1 << 32),
    "a seed with another high word": Key(3 | 1 << 32, 1 << 32),
    "a folded key": BASE.fold_in(0),
    "another folded key": BASE.fold_in(1),
    "a key folded twice": BASE.fold_in(0).fold_in(0),
    "seed and call exchanged": Key(1 << 32, 3),
}


@pytest.mark.parametrize("p", [0.5, 0.1])
@pytest.mark.parametrize("relative", RELATIVES)
def test_keys_are_independent(p, relative):
    n = 1 << 21
    assert abs(z_of_correlation(kept(n, p, BASE), kept(n, p, RELATIVES[relative]), p)) < SIGMAS


@pytest.mark.parametrize("p", [0.5, 0.25, 0.1])
def test_counts_in_words_are_binomial(p):
    """Chi-square of how many of 32 neighbours, and of 64 elements a tile apart, are kept."""
    mask = kept(1 << 24, p, Key(5)).reshape(-1, 64, 2048)
    for bits, groups in ((32, mask.reshape(-1, 32)), (64, mask.transpose(0, 2, 1).reshape(-1, 64))):
        k = np.arange(bits + 1)
        chance = np.array([math.comb(bits, i) * (1 - p) ** i * p ** (bits - i) for i in k])
        common = chance * len(groups) > 20
        observed = np.bincount(groups.sum(axis=1), minlength=bits + 1)
        observed = np.append(observed[common], observed[~common].sum())
        expected = np.append(chance[common], chance[~common].sum()) * len(groups)
        assert abs(z_of_chi_square(observed, expected)) < SIGMAS


@pytest.mark.parametrize("p", [0.5, 0.1])
def test_runs_of_kept_elements_are_geometric(p):
    mask = kept(1 << 22, p, Key(6))
    ends = np.flatnonzero(np.diff(mask.astype(np.int8)))
    lengths = np.diff(ends)[int(mask[ends[0] + 1] == 0) :: 2]  # of kept runs only
    k = np.arange(1, 400)
    chance = (1 - p) ** (k - 1) * p
    common = chance * len(lengths) > 20
    observed = np.bincount(np.minimum(lengths, 399), minlength=400)[1:]
    observed = np.append(observed[common], observed[~common].sum())
    expected = np.append(chance[common], 1 - chance[common].sum()) * len(lengths)
    assert abs(z_of_chi_square(observed, expected)) < SIGMAS


def test_bit_positions_are_independent():
    """Chi-square of the pairs (kept at 0.5, kept at 0.25): planes of one element."""
    half, quarter = kept(1 << 22, 0.5, Key(7)), kept(1 << 22, 0.75, Key(7))
    assert not np.any(quarter & ~half)  # masks of one key are nested
    n = int(half.sum())
    assert abs(int(quarter.sum()) - n / 2) < SIGMAS * math.sqrt(n / 4)


def test_a_million_calls_give_a_million_masks():
    """Of 128 bits each: a repeat would have probability 10**-27."""
    generator, seen = fastdrop.Generator(8), set()
    for _ in range(1_000_000):
        seen.add(fastdrop.dropout_mask(128, 0.5, key=generator.next_key(), packed=True).tobytes())
    assert len(seen) == 1_000_000


def test_these_tests_can_fail():
    """A mask that is its neighbour's copy, and one of the wrong rate."""
    mask = np.repeat(kept(1 << 20, 0.5, Key(9)), 2)
    assert abs(z_of_correlation(mask[:-1], mask[1:], 0.5)) > SIGMAS
    wrong = kept(1 << 20, 0.51, Key(9)).reshape(-1, 32).sum(axis=1)
    chance = np.array([math.comb(32, i) / 2**32 for i in range(33)])
    common = chance * len(wrong) > 20
    observed = np.bincount(wrong, minlength=33)[common]
    assert abs(z_of_chi_square(observed, chance[common] * len(wrong))) > SIGMAS
