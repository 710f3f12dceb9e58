"""The scripts behind docs/reference/results.md and docs/explanation/shared_masks.md run."""

import importlib.util
import json

import numpy as np
import pytest
from idx_files import idx
from places import ROOT

import fastdrop
from fastdrop.datasets import IDX_STEMS

EXPERIMENTS = {
    "srivastava": ROOT / "examples" / "srivastava_mnist.py",
    "uci": ROOT / "examples" / "uci_uncertainty.py",
    "shared masks": ROOT / "benchmarks" / "shared_masks.py",
    "fashion uncertainty": ROOT / "examples" / "fashion_uncertainty.py",
}
pytestmark = pytest.mark.skipif(
    not all(path.exists() for path in EXPERIMENTS.values()), reason="not in a checkout"
)


def run(name, *arguments):
    spec = importlib.util.spec_from_file_location("experiment", EXPERIMENTS[name])
    experiment = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(experiment)
    threads = fastdrop.get_num_threads()
    try:
        experiment.main([str(argument) for argument in arguments])
    finally:
        fastdrop.set_num_threads(threads)


@pytest.fixture
def folder(tmp_path):
    """Return a folder of images whose labels can be seen: which of ten columns is bright."""
    return write_images(tmp_path / "mnist")


def write_images(folder, mistakes=0.0):
    """Some labels may be mistakes."""
    rng = np.random.default_rng(0)
    folder.mkdir()
    arrays = []
    for n in (600, 100):
        labels = rng.integers(0, 10, n, dtype=np.uint8)
        images = rng.integers(0, 100, (n, 10, 10), dtype=np.uint8)
        images[np.arange(n), :, labels] += 150
        mistaken = rng.random(n) < mistakes
        labels[mistaken] = rng.integers(0, 10, mistaken.sum())
        arrays += [images, labels]
    for stem, array in zip(IDX_STEMS, arrays):
        (folder / stem).write_bytes(idx(array))
    return folder


@pytest.mark.parametrize(
    "options",
    [
        ["--dropout", "none", "--max-norm", 0],
        ["--dropout", "bernoulli", "--max-norm", 0],
        ["--dropout", "bernoulli", "--validate"],
        ["--dropout", "gaussian"],
    ],
    ids=["plain", "dropout", "max-norm, validation", "gaussian"],
)
def test_srivastava(folder, tmp_path, options):
    out = tmp_path / "result.json"
    run("srivastava", "--data", folder, "--epochs", 8, "--out", out, *options)
    result = json.loads(out.read_text())
    assert result["images"] == (500 if "--validate" in options else 600)
    assert result["updates"] == (32 if "--validate" in options else 40)
    assert result["error_percent"] == result["wrong"] < 50


def test_srivastava_goes_on(folder, tmp_path, capsys):
    whole, rest = tmp_path / "whole.json", tmp_path / "rest.json"
    options = ["--data", folder, "--epochs", 2, "--samples", 256]
    saving = ["--checkpoint", tmp_path / "model.safetensors"]
    run("srivastava", *options, *saving, "--out", whole)
    assert "Epoch 2/2" in capsys.readouterr().out
    run("srivastava", *options, *saving, "--out", rest)
    assert "Epoch" not in capsys.readouterr().out
    first, second = json.loads(whole.read_text()), json.loads(rest.read_text())
    assert first | {"minutes": 0} == second | {"minutes": 0}
    with pytest.raises(SystemExit, match="other options"):
        run("srivastava", *options, *saving, "--seed", 2)


def test_srivastava_table(folder, tmp_path):
    document, paths = tmp_path / "results.md", []
    document.write_text("before <!-- made by examples/srivastava_mnist.py -->\nold")
    document.write_text(document.read_text() + "\n<!-- /made --> after\n")
    for dropout in ("bernoulli", "none"):
        paths.append(tmp_path / f"{dropout}.json")
        options = ["--epochs", 1, "--samples", 130, "--max-norm", 0, "--out", paths[-1]]
        run("srivastava", "--data", folder, "--dropout", dropout, *options)
    for _ in range(2):  # again, over its own table
        run("srivastava", "--report", *paths, "--document", document)
        text = document.read_text()
        assert text.startswith("before <!-- made")
        assert text.endswith("<!-- /made --> after\n")
        assert "old" not in text
        _, _, first, second = (line for line in text.splitlines() if line.startswith("|"))
        assert first.startswith("| no dropout |")
        assert second.startswith("| dropout |")
        assert "| 1 | 2 | 1 |" in second  # epochs, updates, seed


def test_shared_masks(folder, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    out = tmp_path / "runs.json"
    options = ["--data", folder, "--epochs", 1, "--samples", 256, "--seeds", 2, "--out", out]
    run("shared masks", *options)
    runs = json.loads(out.read_text())
    assert len({(r["variant"], r["seed"]) for r in runs}) == len(runs) == 10
    assert all(r["data"] == "mnist" and r["images"] == 256 and r["step_ms"] > 0 for r in runs)
    assert len({r["test_loss"] for r in runs}) == 10  # no variant is another one

    capsys.readouterr()
    run("shared masks", *options)
    assert capsys.readouterr().out == ""  # all were there
    assert json.loads(out.read_text()) == runs

    document = tmp_path / "explanation" / "shared_masks.md"
    document.parent.mkdir()
    document.write_text("<!-- made by benchmarks/shared_masks.py --><!-- /made -->\n")
    run("shared masks", "--report", out, "--docs", tmp_path)
    assert document.read_text().count("| 2 |") == 5
    assert (tmp_path / "figures" / "shared_masks.png").read_bytes().startswith(b"\x89PNG")


def test_fashion_uncertainty(tmp_path, capsys):
    """What differs from all that it was trained on, it is uncertain of, in every way."""
    pytest.importorskip("matplotlib")
    folder, others = write_images(tmp_path / "fashion", mistakes=0.2), tmp_path / "others"
    others.mkdir()
    rng = np.random.default_rng(1)
    for stem, n in zip(IDX_STEMS, (600, 600, 100, 100)):  # grey without a bright column
        shape = (n, 10, 10) if "images" in stem else (n,)
        (others / stem).write_bytes(idx(rng.integers(0, 10, shape, dtype=np.uint8)))
    out = tmp_path / "result.json"
    sizes = ["--units", 64, "--p", 0.3, "--epochs", 10, "--samples", 20, "--seeds", 2]
    run("fashion uncertainty", "--fashion", folder, "--mnist", others, "--out", out, *sizes)
    result = json.loads(out.read_text())
    assert result["images"] == 500
    assert len({(r["way"], r["seed"]) for r in result["runs"]}) == len(result["runs"]) == 8
    for found in result["runs"]:
        assert found["auroc_entropy"] > 0.8
        assert found["wrong"] < 50
        assert 0 <= found["ece"] < 1
        assert (found["auroc_mutual_information"] is None) == ("softmax" in found["way"])
    for name in ("images", "risk", "reliability"):
        picture = tmp_path / f"result_{name}.png"
        assert picture.read_bytes().startswith(b"\x89PNG")

    document = tmp_path / "results.md"
    start = "a <!-- made by examples/fashion_uncertainty.py -->"
    document.write_text(f"{start}\nold\n<!-- /made --> b\n")
    run("fashion uncertainty", "--report", out, "--document", document)
    text = document.read_text()
    assert text.startswith("a <!-- made")
    assert text.endswith("<!-- /made --> b\n")
    assert "old" not in text
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len(rows) == 2 + 4
    assert len({row.count("|") for row in rows}) == 1
    printed = capsys.readouterr().out
    assert all(row in printed for row in rows)


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_missing_data(tmp_path, name):
    data = "--fashion" if name == "fashion uncertainty" else "--data"
    with pytest.raises(SystemExit, match=r"^[^\n]*nowhere[^\n]*$"):
        run(name, data, tmp_path / "nowhere", "--out", tmp_path / "out.json")


def test_uci_goes_on_and_reports(tmp_path, capsys):
    folder = tmp_path / "yacht"
    folder.mkdir()
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 3))
    np.savetxt(folder / "data.txt", np.column_stack([x, x @ [1, 2, -1]]))
    np.savetxt(folder / "index_features.txt", [0, 1, 2])
    np.savetxt(folder / "index_target.txt", [3])
    for split in range(2):
        order = rng.permutation(60)
        np.savetxt(folder / f"index_train_{split}.txt", order[:54])
        np.savetxt(folder / f"index_test_{split}.txt", order[54:])
    document = tmp_path / "results.md"
    document.write_text("a\n<!-- made by examples/uci_uncertainty.py -->\n<!-- /made -->\nb\n")
    options = ["--data", tmp_path, "--out", tmp_path, "--sets", "yacht", "--epochs", 30]
    options += ["--samples", 40, "--processes", 1, "--document", document]
    run("uci", *options, "--splits", 1)
    assert capsys.readouterr().out.startswith("yacht 0")
    run("uci", *options, "--splits", 2)
    assert capsys.readouterr().out.startswith("yacht 1")  # the first was there
    results = json.loads((tmp_path / "uci_yacht.json").read_text())
    assert [r["split"] for r in results] == [0, 1]
    assert all(0 < r["mc"]["rmse"] < 3 and r["p"] in (0.005, 0.01, 0.05, 0.1) for r in results)
    run("uci", *options, "--report")
    text = document.read_text()
    assert text.startswith("a\n<!-- made")
    assert text.endswith("<!-- /made -->\nb\n")
    assert "| yacht | 2 |" in text
    assert "| yacht | moments |" in text
