"""The examples in docstrings and in the README run, and give what they say."""

import doctest
import importlib
import os
import re
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from places import ROOT

import fastdrop
from fastdrop import Key
from fastdrop.layers import Batch, Dense

PACKAGE = Path(fastdrop.__file__).parent
MODULES = sorted(
    "fastdrop." + ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
    for path in PACKAGE.rglob("*.py")
    if path.name not in ("__init__.py", "__main__.py")
)
KERAS_BACKEND = os.environ.get("KERAS_BACKEND", "tensorflow")
NEEDED = {  # by packages and modules, what they import
    "fastdrop.diagrams": ["matplotlib"],
    "fastdrop.torch": ["torch"],
    "fastdrop.jax": ["jax"],
    "fastdrop.jax.nnx": ["flax"],
    "fastdrop.jax.linen": ["flax"],
    "fastdrop.jax.equinox": ["equinox"],
    "fastdrop.sklearn": ["sklearn"],
    "fastdrop.keras": [KERAS_BACKEND, "keras"],
    "fastdrop.keras.on_torch": ["torch"],
    "fastdrop.keras.on_jax": ["jax"],
    "fastdrop.keras.on_tensorflow": ["tensorflow"],
}
README = ROOT / "README.md"
OWN_LAYER = ROOT / "docs" / "how-to" / "own_layer.md"


@pytest.mark.parametrize("name", MODULES)
def test_docstrings(name):
    if name.endswith("pictures"):
        pytest.importorskip("matplotlib")
    for package, needed in NEEDED.items():
        if f"{name}.".startswith(f"{package}."):
            for library in needed:
                pytest.importorskip(library)
    result = doctest.testmod(importlib.import_module(name))
    assert result.failed == 0


def code_of(page):
    return re.findall(r"```python\n(.*?)```", page.read_text(), flags=re.DOTALL)


@pytest.mark.skipif(not OWN_LAYER.exists(), reason="not in a checkout")
def test_a_layer_of_ones_own(tmp_path):
    names = {"__name__": "__main__"}
    for block in code_of(OWN_LAYER):
        exec(block, names)
    model, flip = names["model"], names["Flip"](0.5)
    model.compile("sgd", "mse")
    x = np.random.default_rng(0).normal(size=(40, 5)).astype(np.float32)
    model.fit(x, x[:, :1], epochs=2, verbose=0)
    model.save(tmp_path / "model")
    loaded = fastdrop.load_model(tmp_path / "model")
    np.testing.assert_array_equal(loaded.predict(x, verbose=0), model.predict(x, verbose=0))
    whole, backward = flip.forward(x, Batch(key=Key(1)))
    part, _ = flip.forward(x[30:], Batch(key=Key(1), row=30, rows=40))
    assert 0.4 < (whole == x).mean() < 0.6
    np.testing.assert_array_equal(part, whole[30:])
    np.testing.assert_array_equal(backward(x), whole)  # linear in x
    model = fastdrop.Sequential([names["Scale"](), Dense(1)], seed=1)  # trained as the first layer
    model.compile("sgd", "mse")
    model.fit(x, x[:, :1], epochs=2, verbose=0)
    assert (model.get_weights()[0] != 1).all()
    y, backward = names["Square"]().forward(x, Batch())
    np.testing.assert_array_equal(backward(np.ones_like(y)), 2 * x)


@pytest.mark.skipif(not README.exists(), reason="not in a checkout")
def test_readme(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    blocks = code_of(README)
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
        needed = re.findall(r"^import (torch|jax|keras|sklearn)", block, flags=re.MULTILINE)
        if "keras" in needed:
            needed.append(KERAS_BACKEND)
        if all(map(find_spec, needed)):
            exec(block, names)
    fastdrop.set_num_threads(threads)
    if "fastdrop.torch" in sys.modules:
        sys.modules["fastdrop.torch"].disable()


PAGES = [README, *sorted((ROOT / "docs").rglob("*.md"))]


@pytest.mark.skipif(not README.exists(), reason="not in a checkout")
@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    links = re.findall(
        r"\]\(([^)#\s]+)", re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    )
    for link in links:
        assert "://" in link or (page.parent / link).exists(), link


@pytest.mark.skipif(not README.exists(), reason="not in a checkout")
def test_tables_of_machines_are_what_their_folders_say(tmp_path, monkeypatch):
    import readme_table

    pages = [README, ROOT / readme_table.FOLDER / "README.md"]
    before = [page.read_text() for page in pages]
    copies = [tmp_path / page.relative_to(ROOT) for page in pages]
    shutil.copytree(ROOT / readme_table.FOLDER, tmp_path / readme_table.FOLDER)
    shutil.copy(README, tmp_path)
    monkeypatch.setattr(readme_table, "ROOT", tmp_path)
    readme_table.main()
    assert [page.read_text() for page in copies] == before
    for folder in (ROOT / readme_table.FOLDER).iterdir():
        assert not folder.is_dir() or f"| {folder.name} |" in before[1]
        assert not (folder / "bench.json").exists() or f"[{folder.name}]" in before[0]
