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


@pytest.mark.slow
@pytest.mark.skipif(not EXAMPLES.exists(), reason="not in a checkout")
@pytest.mark.parametrize("script", ["examples/torch_transformers.py", "benchmarks/torch_enable.py"])
def test_models_of_transformers(script, tmp_path):
    pytest.importorskip("transformers", reason="needs transformers: the extra examples")
    options = {
        "examples/torch_transformers.py": ["--steps", "3", "--seeds", "2"],
        "benchmarks/torch_enable.py": ["--rounds", "1", "--models", "0", "2", "--threads", "1"],
    }[script]
    found = subprocess.run(
        [sys.executable, str(EXAMPLES.parent / script), *options, "--out", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert found.returncode == 0, found.stderr
    table = (tmp_path / f"{script.split('/')[1].removesuffix('.py')}.md").read_text()
    assert table in found.stdout
    if "examples" in script:
        rows = re.findall(r"^\| (\S+) \| ([\d.]+) \| [\d.]+ \| ([\d.]+)", table, re.MULTILINE)
        assert [row[0] for row in rows] == ["torch.nn", "enable"]
        assert all(0 < float(loss) < 4 for _, _, loss in rows)
    else:
        assert len(re.findall(r"^\| (?:BERT|GPT-2).* \| -?[\d-]+%? \|$", table, re.MULTILINE)) == 2
        assert len(re.findall(r"^\| Drop.* elements \| .* \| [\d.]+ \|$", table, re.MULTILINE)) == 5
