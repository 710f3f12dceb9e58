"""The examples of docs/how-to/sklearn.md run, with others' tools on top, and give what it says."""

import json
import re
import sys
from importlib.util import find_spec

import numpy as np
import pages
import pytest
from places import EXAMPLES, ROOT

pytest.importorskip("sklearn")

PAGE = ROOT / "docs" / "how-to" / "sklearn.md"
pytestmark = [
    pytest.mark.skipif(not PAGE.exists(), reason="not in a checkout"),
    pytest.mark.filterwarnings("default"),  # of tools that warn of each other
]
SLOW = {"dask", "shap"}  # they take 15 s to start


def test_examples(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names, _ = pages.run(PAGE, SLOW)
    assert names["calibrated"].score(names["X_test"], names["y_test"]) > 0.9
    importance = names["importance"].importances_mean
    assert importance[:5].min() > importance[5:].max()
    assert (names["std"] > 0).all()
    if find_spec("mapie"):
        assert names["covered"] > 0.95 - 0.03  # of 450 samples
        assert names["within"] > 0.9 - 0.04  # of 500
    if find_spec("optuna"):
        assert names["study"].best_value > 0.7


@pytest.mark.slow
@pytest.mark.parametrize("package", sorted(SLOW))
def test_examples_of_slow_tools(package, tmp_path, monkeypatch, capsys):
    pytest.importorskip(package)
    monkeypatch.chdir(tmp_path)
    names, _ = pages.run(PAGE, {"mapie", "optuna", *SLOW} - {package})
    assert package != "dask" or names["search"].best_score_ > 0.7


def run(name, *arguments):
    sys.path.insert(0, str(EXAMPLES))
    try:
        module = __import__(name)
    finally:
        sys.path.remove(str(EXAMPLES))
    return module.main([str(argument) for argument in arguments])


def test_the_search(tmp_path, capsys):
    pytest.importorskip("matplotlib")
    picture = tmp_path / "search.png"
    run("sklearn_search", "--candidates", 3, "--epochs", 5, "--jobs", 1, "--out", picture)
    assert "cross-validation: 0." in capsys.readouterr().out
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_the_table_of_dropout_against_alpha(capsys):
    results = ROOT / "docs" / "results"
    run("sklearn_dropout", "--out", results, "--table")
    page = (ROOT / "docs" / "reference" / "results.md").read_text()
    made = page.split("<!-- made by examples/sklearn_dropout.py -->\n")[1]
    assert made.split("<!-- /made -->")[0] == capsys.readouterr().out
    runs = json.loads((results / "sklearn_dropout_fashion-500.json").read_text())
    better = [r["fastdrop"] for r in runs if r["fastdrop"]["error"] < r["scikit-learn"]["error"]]
    without = [r for r in better if not r["chosen"]["dropout"] + r["chosen"]["input_dropout"]]
    assert (len(better), len(runs), len(without)) == (7, 8, 3)  # as the page's sentences say


def test_dropout_against_alpha(tmp_path, capsys):
    folder = tmp_path / "uci" / "yacht"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    table = rng.normal(size=(60, 4))
    np.savetxt(folder / "data.txt", np.c_[table, table @ [1, -1, 2, 0]])
    np.savetxt(folder / "index_features.txt", np.arange(4), fmt="%d")
    np.savetxt(folder / "index_target.txt", [4], fmt="%d")
    for seed in range(2):
        order = rng.permutation(60)
        np.savetxt(folder / f"index_train_{seed}.txt", order[:50], fmt="%d")
        np.savetxt(folder / f"index_test_{seed}.txt", order[50:], fmt="%d")
    options = ("--data", tmp_path, "--out", tmp_path, "--seeds", 2, "--epochs", 5, "--table")
    run("sklearn_dropout", "yacht", *options)
    assert re.search(r"\| yacht \| test RMSE \| 2 \|.*of 2 \|", capsys.readouterr().out)
