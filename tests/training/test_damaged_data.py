"""Damaged data files of each kind, the same at each run; tools/fuzz-data-files tries many more."""

from random import Random

import pytest
from damaged_files import KINDS, check


@pytest.mark.parametrize("kind", KINDS)
def test_damaged_files_are_refused_in_a_line(tmp_path, kind):
    refused = [check(tmp_path, kind, Random(f"{kind} {seed}")) for seed in range(60)]
    assert any(refused)
