"""The examples for PyTorch run; how well they learn, a few steps do not tell."""

import os
import re
import subprocess
import sys

import pytest
from places import EXAMPLES

pytest.importorskip("torch", reason="needs PyTorch")


@pytest.mark.slow
@pytest.mark.skipif(not EXAMPLES.exists(), reason="not in a checkout")
@pytest.mark.parametrize("name", ["transformer", "cnn", "lstm"])
def test_example(name, tmp_path):
    script = str(EXAMPLES / f"torch_{name}.py")
    options = ["--steps", "3", "--seeds", "2", "--out", str(tmp_path)]
    found = subprocess.run(
        [sys.executable, "-W", "error", script, *options],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert found.returncode == 0, found.stderr
    table = (tmp_path / f"torch_{name}.md").read_text()
    assert table in found.stdout
    rows = re.findall(r"^\| (\S+) \| ([\d.]+) \| ([\d.]+) \| ([\d.]+)", table, flags=re.MULTILINE)
    assert [row[0] for row in rows] == ["torch.nn", "fastdrop.torch"]
    assert all(float(ms) > 0 and 0 <= float(share) <= 1 for _, ms, _, share in rows)
