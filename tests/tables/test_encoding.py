"""What a network gets of a table, beside the same in plain Python."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("pyarrow", reason="pyarrow is not installed: the extra tables")

from fastdrop._splits import by_chance, by_groups, by_time
from fastdrop.tables.preparation import Roles, prepare

NUMBERS = st.one_of(  # none so small that the others, and they standardised, are out of range
    st.none(), st.integers(-5, 5).map(float), st.floats(-1e6, 1e6).map(lambda n: round(n, 6))
)
WORDS = st.one_of(st.none(), st.sampled_from(["a", "b", "c", "a b", "ä", "=1+1"]))


def slowly(values, training):
    """The inputs that a column makes, row by row, or None where it tells nothing."""
    seen = [values[row] for row in training]
    present = [value for value in seen if value is not None]
    if all(value is None or isinstance(value, float) for value in values):
        largest = max(map(abs, present), default=0)
        if not present or max(present) - min(present) <= 1e-12 * largest:
            return None
        mean = math.fsum(present) / len(present)
        deviation = math.sqrt(math.fsum((value - mean) ** 2 for value in present) / len(present))
        flag = len(present) < len(seen)
        numbers = [[0.0 if v is None else (v - mean) / deviation] for v in values]
        flags = [[float(v is None)] if flag else [] for v in values]
        return numbers, flags, [[] for _ in values]
    missing = len(present) < len(seen)
    if len(set(present)) + missing < 2:
        return None
    kept = sorted(word for word in set(present) if present.count(word) >= 2)
    places = []
    for value in values:
        row = [float(value == word) for word in kept]
        known = value in kept or (value is None and missing)
        row += [float(not known)] + ([float(value is None)] if missing else [])
        places.append(row)
    return [[] for _ in values], [[] for _ in values], places


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_rows_are_what_they_are_in_plain_python(data):
    rows = data.draw(st.integers(2, 19))
    lists = {
        name: data.draw(st.lists(kind, min_size=rows, max_size=rows))
        for name, kind in (("n", NUMBERS), ("m", NUMBERS), ("w", WORDS), ("v", WORDS))
    }
    for name in ("w", "v"):
        lists[name][0] = "a"
    target = [float(i) + 0.5 for i in range(rows)]
    training, validation = by_chance(rows, 0)
    parts = {name: slowly(values, training) for name, values in lists.items()}
    for name, values in lists.items():
        present = [value for value in values if value is not None]
        if len(set(present)) < 2 or _spread(present) <= 1e-12:
            parts[name] = None  # of all rows, not of those to train on only
    used = {name: part for name, part in parts.items() if part is not None}
    table = {"y": target, **lists}
    if len(training) < 2:
        return
    if not used:
        with pytest.raises(ValueError, match="expected a column to learn from"):
            prepare(table, Roles("y"))
        return
    prepared = prepare(table, Roles("y"))
    expected = [
        [number for kind in range(3) for part in used.values() for number in part[kind][row]]
        for row in range(rows)
    ]
    assert list(prepared.encoding.types) == list(used)
    assert prepared.encoding.width == len(expected[0])
    for part, own in ((prepared.x, training), (prepared.x_val, validation)):
        assert part.shape == (len(own), len(expected[0]))
        np.testing.assert_allclose(part[:], np.array(expected)[own], rtol=1e-4, atol=1e-5)
        order = np.arange(len(own))[::-1]
        np.testing.assert_array_equal(part[order], part[:][order])


def _spread(values):
    if not all(isinstance(value, float) for value in values):
        return 1
    largest = max(map(abs, values))
    return (max(values) - min(values)) / largest if largest else 0


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(-1, 8), min_size=2, max_size=60), st.integers(0, 3))
def test_groups_are_never_split(groups, seed):
    codes = np.array(groups)
    if len(set(groups)) == 1:
        with pytest.raises(ValueError, match="expected at least 2 groups"):
            by_groups(codes, seed)
        return
    training, validation = by_groups(codes, seed)
    assert sorted([*training, *validation]) == list(range(len(groups)))
    assert len(training)
    assert len(validation)
    assert not set(codes[training]) & set(codes[validation])


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 8), min_size=2, max_size=60))
def test_no_time_is_split(times):
    values = np.array(times, float)
    if len(set(times)) == 1:
        with pytest.raises(ValueError, match="expected different times"):
            by_time(values)
        return
    training, validation = by_time(values)
    assert sorted([*training, *validation]) == list(range(len(times)))
    assert len(training)
    assert values[training].max() < values[validation].min()
    later = values[validation] > values[validation].min()
    assert later.sum() < 0.2 * len(times) or len(set(values[training])) == 1


@settings(max_examples=20, deadline=None)
@given(st.integers(2, 200), st.integers(0, 5))
def test_a_fifth_by_chance(rows, seed):
    training, validation = by_chance(rows, seed)
    assert sorted([*training, *validation]) == list(range(rows))
    assert len(validation) == math.ceil(rows / 5)
    np.testing.assert_array_equal(by_chance(rows, seed)[0], training)
