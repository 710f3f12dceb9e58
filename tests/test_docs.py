"""The examples in docstrings and in the README run, and give what they say."""

import doctest
import importlib
import re
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from places import ROOT

import fastdrop

PACKAGE = Path(fastdrop.__file__).parent
MODULES = sorted(
    "fastdrop." + ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
    for path in PACKAGE.rglob("*.py")
    if path.name not in ("__init__.py", "__main__.py")
)
README = ROOT / "README.md"


@pytest.mark.parametrize("name", MODULES)
def test_docstrings(name):
    if name.endswith("pictures"):
        pytest.importorskip("matplotlib")
    if name.startswith("fastdrop.torch"):
        pytest.importorskip("torch")
    result = doctest.testmod(importlib.import_module(name))
    assert result.failed == 0


@pytest.mark.skipif(not README.exists(), reason="not in a checkout")
def test_readme(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(), flags=re.DOTALL)
    assert len(blocks) >= 3
    rng = np.random.default_rng(0)
    names = {
        "x_train": rng.random((96, 28, 28)),
        "y_train": np.arange(96) % 10,
        "x_val": rng.random((32, 28, 28)),
        "y_val": np.arange(32) % 10,
    }
    threads = fastdrop.get_num_threads()
    for block in blocks:
        if "import torch" not in block or find_spec("torch"):
            exec(block, names)
    fastdrop.set_num_threads(threads)
