"""Masks, weights and figures stay as an earlier version computed them, and its files load."""

import json
from pathlib import Path

import numpy as np
import recorded

EARLIER = json.loads(Path(__file__).with_name("recorded.json").read_text())


def same(found, earlier):
    """Refuse numbers that differ by more than the order of sums."""
    assert type(found) is type(earlier)
    if isinstance(found, dict):
        assert found.keys() == earlier.keys()
        for name in found:
            same(found[name], earlier[name])
    else:
        np.testing.assert_allclose(found, earlier, rtol=1e-8, atol=1e-8)


def test_bits():
    assert recorded.bits() == EARLIER["bits"]


def test_numbers():
    same(recorded.numbers(), EARLIER["numbers"])
