import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from idx_files import idx, idx_arrays

from fastdrop._output import claimed
from fastdrop.commands.main import main
from fastdrop.commands.runs.results import MODELS, PICTURE, RESULTS, Results
from fastdrop.commands.train.progress import CHECKPOINT
from fastdrop.datasets import IDX_STEMS
from fastdrop.models import load_model
from fastdrop.random import Key, permutation

QUICK = ["--epochs", "2", "--hidden", "8,4", "--batch-size", "4"]
PNG = b"\x89PNG\r\n\x1a\n"


def train(*arguments):
    """Run ``fastdrop train`` and return its exit status, also where argparse leaves."""
    try:
        return main(["train", *map(str, arguments)])
    except SystemExit as exit:
        return exit.code


@pytest.fixture
def csv(tmp_path):
    pytest.importorskip("pyarrow", reason="pyarrow is not installed: the extra tables")
    path = tmp_path / "data.csv"
    rows = [f"{i},{i % 5},7,{'even' if i % 2 == 0 else 'odd'}" for i in range(40)]
    path.write_text("\n".join(["a,b,constant,parity", *rows]))
    return path


@pytest.fixture
def idx_folder(tmp_path):
    folder = tmp_path / "idx"
    folder.mkdir()
    for stem, array in zip(IDX_STEMS, idx_arrays()):
        (folder / stem).write_bytes(idx(array))
    return folder


def npz(path, **changed):
    rng = np.random.default_rng(0)
    arrays = {"x": rng.normal(size=(30, 3)), "y": np.arange(30) % 3} | changed
    np.savez(path, **arrays)
    return path


def check_results(out, epochs):
    results = Results.read(out)
    assert results.settings["epochs"] == epochs
    assert [(run.dropout, run.seed) for run in results.runs] == [(0.0, 0), (0.5, 0)]
    for run in results.runs:
        assert set(run.figures) == {"loss", "accuracy", "val_loss", "val_accuracy"}
        assert set(run.seconds) == {"training", "evaluation", "checkpoint"}
        for lists in (run.figures, run.seconds):
            assert all(len(values) == epochs for values in lists.values())
    names = sorted([CHECKPOINT, *MODELS, RESULTS, PICTURE])
    assert sorted(path.name for path in out.iterdir()) == names
    assert (out / PICTURE).read_bytes().startswith(PNG)


def test_embedded_digits(tmp_path, capsys):
    out = tmp_path / "new" / "folder"
    assert train(*QUICK, "--out", out) == 0
    check_results(out, 2)
    captured = capsys.readouterr()
    for word in ("training loss", "validation loss", "training accuracy", "validation accuracy"):
        assert word in captured.out.splitlines()[1]
    assert "One seed cannot tell" in captured.out
    for line in (
        "embedded digits: 1400 training and 397 validation samples, 10 classes",
        "run 1 of 2: without dropout: validation loss ",
        "run 2 of 2: dropout p = 0.5: validation loss ",
        f"written: {out / RESULTS}",
        f"written: {out / PICTURE}",
    ):
        assert f"\n{line}" in f"\n{captured.err}"


def test_dropout_closes_the_gap(tmp_path):
    sizes = ["--hidden", "256,256", "--epochs", 40]
    assert train(*sizes, "--out", tmp_path) == 0
    without, with_dropout = (run.figures["val_loss"][-1] for run in Results.read(tmp_path).runs)
    assert with_dropout < 0.9 * without


@pytest.mark.parametrize("seed", [0, 1])
def test_same_seed_same_results(tmp_path, seed):
    for name in ("one", "two"):
        assert train(*QUICK, "--seed", seed, "--out", tmp_path / name) == 0
    one, two = (Results.read(tmp_path / name) for name in ("one", "two"))
    assert [run.figures for run in one.runs] == [run.figures for run in two.runs]
    assert one.data == two.data


def test_the_models_are_those_of_the_results(tmp_path):
    path = npz(tmp_path / "data.npz", x_val=np.ones((7, 3)), y_val=np.ones(7))
    assert train(*QUICK, "--data", path, "--out", tmp_path) == 0
    for file, run in zip(MODELS, Results.read(tmp_path).runs, strict=True):
        model = load_model(tmp_path / file)
        assert model.epoch == 2
        assert model.evaluate(np.ones((7, 3)), np.ones(7), verbose=0) == [
            run.figures["val_loss"][-1],
            run.figures["val_accuracy"][-1],
        ]


def test_csv_file(tmp_path, csv, capsys):
    assert train(*QUICK, "--data", csv, "--label", "parity", "--out", tmp_path / "out") == 0
    check_results(tmp_path / "out", 2)
    assert "data.csv: 32 training and 8 validation samples, 2 classes" in capsys.readouterr().err


def test_idx_folder(tmp_path, idx_folder, capsys):
    assert train(*QUICK, "--data", idx_folder, "--out", tmp_path / "out") == 0
    check_results(tmp_path / "out", 2)
    assert "idx: 5 training and 2 validation samples, 3 classes" in capsys.readouterr().err


COLUMNS = {  # what stands in a column, of n numbers around 0 and of n that are 0 or 1 by chance
    "small": lambda a, rare: 1e-12 * a,
    "very small": lambda a, rare: 1e-300 * a,
    "large": lambda a, rare: 1e200 * a,
    "far from 0": lambda a, rare: 1e6 + 1e-3 * a,
    "with a constant": lambda a, rare: np.full(len(a), 14.62),
    "with a constant but for rounding": lambda a, rare: 14.62 * (1 + 2e-16 * rare),
    "with a large constant but for rounding": lambda a, rare: 1e300 * (1 + 2e-15 * rare),
    "with a small constant but for rounding": lambda a, rare: 1e-300 * (1 + 2e-15 * rare),
    "with zeros": lambda a, rare: 0 * a,
}


@pytest.mark.parametrize("column", COLUMNS.values(), ids=list(COLUMNS))
def test_columns_of_any_size_and_spread(tmp_path, column):
    """The label is the sign of a number that is in the file as such, or else in this column."""
    pytest.importorskip("pyarrow", reason="pyarrow is not installed: the extra tables")
    rng = np.random.default_rng(0)
    a, rare = rng.normal(size=400), rng.integers(0, 2, 400)
    c = column(a, rare)
    told = np.ptp(c / np.abs(c).max() if c.any() else c) > 1e-12
    lines = [
        f"{0.0 if told else float(a[i])!r},{float(c[i])!r},{'+' if a[i] > 0 else '-'}"
        for i in range(400)
    ]
    path = tmp_path / "data.csv"
    path.write_text("\n".join(["a,c,label", *lines]))
    options = ["--epochs", "8", "--hidden", "8", "--batch-size", "4", "--lr", "0.01"]
    assert train(*options, "--data", path, "--out", tmp_path) == 0
    for run in Results.read(tmp_path).runs:
        assert run.figures["val_accuracy"][-1] > 0.9
        assert run.figures["val_loss"][-1] < 0.4


def test_a_constant_column_that_has_another_value_in_the_validation_part(tmp_path):
    pytest.importorskip("pyarrow", reason="pyarrow is not installed: the extra tables")
    held_out = permutation(Key(0).fold_in(2**40), 100)[:20]
    c = np.full(100, 14.62)
    c[held_out[:5]] = 15.0
    path = tmp_path / "data.csv"
    lines = [f"{i % 2},{float(c[i])!r},{i % 2}" for i in range(100)]
    path.write_text("\n".join(["a,c,label", *lines]))
    assert train("--epochs", 4, "--hidden", 16, "--data", path, "--out", tmp_path) == 0
    for run in Results.read(tmp_path).runs:
        assert max(run.figures["val_loss"]) < 1


@pytest.mark.parametrize("validation", [False, True])
def test_npz_file(tmp_path, validation, capsys):
    extra = {"x_val": np.ones((7, 3)), "y_val": np.ones((7, 1))} if validation else {}
    path = npz(tmp_path / "data.npz", **extra)
    assert train(*QUICK, "--data", path, "--out", tmp_path / "out", "--dropout", "0.5") == 0
    check_results(tmp_path / "out", 2)
    expected = "30 training and 7" if validation else "24 training and 6"
    assert f"{expected} validation samples, 3 classes" in capsys.readouterr().err


def test_settings_are_used_and_noted(tmp_path):
    options = ["--optimizer", "sgd", "--lr", "0.5", "--seed", "7", "--dropout", "0.25"]
    assert train(*QUICK, *options, "--out", tmp_path) == 0
    assert Results.read(tmp_path).settings == {
        "hidden": [8, 4],
        "dropout": [0.25],
        "epochs": 2,
        "batch_size": 4,
        "optimizer": "sgd",
        "lr": 0.5,
        "seed": 7,
        "seeds": 1,
    }


def test_without_matplotlib(tmp_path, monkeypatch, capsys):
    monkeypatch.delitem(sys.modules, "fastdrop.commands.train.pictures", raising=False)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert train(*QUICK, "--out", tmp_path) == 0
    assert (tmp_path / RESULTS).exists()
    assert not (tmp_path / PICTURE).exists()
    missing = "no picture: it needs matplotlib, pip install 'fastdrop-nn[plot]'"
    assert missing in capsys.readouterr().err


def test_one_training_at_a_time_in_a_folder(tmp_path, capsys):
    with claimed(tmp_path):
        assert train(*QUICK, "--out", tmp_path) == 2
    assert "where another fastdrop train is at work" in capsys.readouterr().err
    assert train(*QUICK, "--out", tmp_path) == 0


def test_files_of_others_stay(tmp_path):
    names = [f".{name}.{end}" for name in (CHECKPOINT, RESULTS) for end in ("12345678", "swp", "x")]
    for name in names:
        (tmp_path / name).write_text("of another")
    assert train(*QUICK, "--out", tmp_path) == 0
    assert all((tmp_path / name).read_text() == "of another" for name in names)


def test_names_of_files_that_the_terminal_and_matplotlib_do_not_take(tmp_path):
    data, out = npz(tmp_path / "a$b_{x$.npz"), tmp_path / "\u00e4"
    done = subprocess.run(
        [sys.executable, "-m", "fastdrop", "train", *QUICK, "--data", data, "--out", out],
        env=os.environ | {"PYTHONIOENCODING": "ascii"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert (out / PICTURE).is_file()


def test_a_picture_that_fails_leaves_the_results(tmp_path, monkeypatch):
    def fail(*arguments):
        raise RuntimeError

    monkeypatch.setattr("fastdrop.commands.train.pictures.render", fail)
    assert train(*QUICK, "--out", tmp_path) == 1
    assert (tmp_path / RESULTS).is_file()


def test_without_standard_error(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.stderr", None)
    assert train(*QUICK, "--out", tmp_path) == 0
    assert (tmp_path / RESULTS).is_file()


def test_as_a_module(tmp_path):
    command = [sys.executable, "-m", "fastdrop", "train", *QUICK, "--out", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / RESULTS).is_file()
    done = subprocess.run(
        [*command, "--force", "--data", "none"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        "fastdrop train: error: none: expected an existing folder or file"
    ]


@pytest.fixture(params=["python -m", "script"])
def command(request):
    """The two ways to call the command line, each as a process of its own."""
    script = Path(sys.executable).with_name("fastdrop")
    if request.param == "script" and not script.exists():
        pytest.skip(f"{script} is not there")
    start = [script] if request.param == "script" else [sys.executable, "-m", "fastdrop"]

    def run(*arguments, **environment):
        return subprocess.run(
            [*map(str, start), *map(str, arguments)],
            env=os.environ | environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    return run


@pytest.mark.parametrize(
    ("name", "value"), [("FASTDROP_ISA", "sse9"), ("FASTDROP_NUM_THREADS", "many")]
)
def test_wrong_environment(command, name, value):
    done = command("train", **{name: value})
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert re.fullmatch(rf"fastdrop: error: {name}: expected .*, got '{value}'", line)


def bad_csv(folder):
    pytest.importorskip("pyarrow", reason="pyarrow is not installed: the extra tables")
    path = folder / "bad.csv"
    path.write_text("a,label\n1,0\n2,1,3\n")
    return path


def table(path, labels):
    pytest.importorskip("pyarrow", reason="pyarrow is not installed: the extra tables")
    path.write_text(
        "".join(f"{i},{label}\n" for i, label in zip(["a", *range(30)], ["label", *labels]))
    )
    return path


def bad_file(folder, name="other.txt"):
    path = folder / name
    path.write_text("?")
    return path


BAD = {
    "missing file": (lambda f: ["--data", f / "none.csv"], r"none\.csv: expected an existing"),
    "missing table": (
        lambda f: [f / "none.csv", "--target", "a"],
        r"error: (?!--data).*none\.csv: expected an existing",
    ),
    "no IDX files": (lambda f: ["--data", f], "train-images-idx3-ubyte"),
    "unknown kind": (lambda f: ["--data", bad_file(f)], "--data: expected a folder"),
    "no npz": (lambda f: ["--data", bad_file(f, "x.npz")], "x.npz: expected a NumPy .npz"),
    "cell": (lambda f: ["--data", bad_csv(f)], "line 3: expected 2 cells as in the header, got 3"),
    "label": (
        lambda f: ["--data", table(f / "a.csv", range(30)), "--label", "kind"],
        "target: expected one of its columns, a, label, got 'kind'",
    ),
    "two tables": (
        lambda f: [table(f / "a.csv", range(30)), "--data", f / "b.csv"],
        "--data: expected it or a table, got both",
    ),
    "label of npz": (
        lambda f: ["--data", npz(f / "a.npz"), "--label", "y"],
        "--target: expected it with a table only, got 'y'",
    ),
    "label of digits": (lambda f: ["--label", "y"], "--target: expected it with a table"),
    "counts": (lambda f: ["--data", npz(f / "a.npz", y=np.ones(29))], "a.npz: expected x"),
    "negative": (lambda f: ["--data", npz(f / "a.npz", y=-np.ones(30))], "y: .* got -1"),
    "ids": (
        lambda f: ["--data", npz(f / "a.npz", y=np.full(30, 2**40))],
        "y: .* got 1099511627776",
    ),
    "NaN": (lambda f: ["--data", npz(f / "a.npz", x=np.full((30, 2), np.nan))], "x: .*finite"),
    "text": (lambda f: ["--data", npz(f / "a.npz", x=np.full((30, 2), "a"))], "x: .*numbers"),
    "validation": (
        lambda f: ["--data", npz(f / "a.npz", x_val=np.ones((2, 5)), y_val=np.ones(2))],
        r"x_val: expected shape \(samples, 3\)",
    ),
    "validation counts": (
        lambda f: ["--data", npz(f / "a.npz", x_val=np.ones((2, 3)), y_val=np.ones(3))],
        r"/a\.npz: y_val: expected a label for each sample of x_val",
    ),
    "validation NaN": (
        lambda f: ["--data", npz(f / "a.npz", x_val=np.full((2, 3), np.nan), y_val=[0, 1])],
        r"/a\.npz: x_val: .*finite",
    ),
    "one NaN": (
        lambda f: ["--data", npz(f / "a.npz", x=np.where(np.eye(30), np.nan, 0))],
        r"/a\.npz: x: .*finite",
    ),
    "one class": (
        lambda f: ["--data", npz(f / "a.npz", y=np.ones(30))],
        r"/a\.npz: y: .* 2 classes",
    ),
    "a price": (
        lambda f: ["--data", npz(f / "a.npz", y=np.arange(30.0))],
        r"/a\.npz: y: expected classes of several samples each, got 30 distinct labels of 30",
    ),
    "a price with a fraction": (
        lambda f: ["--data", npz(f / "a.npz", y=np.arange(30) / 4)],
        r"/a\.npz: y: expected whole numbers",
    ),
    "missing labels": (
        lambda f: ["--data", npz(f / "a.npz", y=np.where(np.arange(30) % 3, 1, np.nan))],
        r"/a\.npz: y: expected whole numbers in .*, got nan",
    ),
    "a price in a table": (
        lambda f: ["--data", table(f / "a.csv", [f"{100 + i}" for i in range(30)])],
        r"/a\.csv: expected a column to learn from besides the target",
    ),
    "one class in a table": (
        lambda f: ["--data", table(f / "a.csv", ["cat"] * 30)],
        r"/a\.csv: target: expected at least 2 classes",
    ),
    "a missing label": (
        lambda f: [table(f / "a.csv", ["cat", "dog", ""] * 10), "--missing", "error"],
        r"/a\.csv: target: expected a value in every row of 'label', .* got 10 without",
    ),
    "too large for float32": (
        lambda f: ["--data", npz(f / "a.npz", x=np.full((30, 2), 1e300))],
        r"/a\.npz: x: .*finite",
    ),
    "one-hot": (
        lambda f: ["--data", npz(f / "a.npz", y=np.ones((30, 3)))],
        r"/a\.npz: y: expected shape \(samples,\), one class number each, got \(\d+, 3\)$",
    ),
    "empty": (lambda f: ["--data", npz(f / "a.npz", x=np.ones((0, 2)), y=[])], "at least 2"),
    "out is a file": (lambda f: ["--out", bad_file(f)], "--out: expected a folder"),
    "out below a file": (lambda f: ["--out", bad_file(f) / "x"], "--out: expected a folder"),
    "out with a folder in a file's place": (
        lambda f: ["--out", (f / CHECKPOINT).mkdir() or f],
        f"--out: expected a folder that .*{CHECKPOINT} in it is a folder",
    ),
    "p": (lambda f: ["--dropout", "1.5"], r"--dropout: expected .*\(0, 1\], got '1.5'"),
    "p of 0": (lambda f: ["--dropout", "0,0.5"], r"--dropout: expected .*, got '0' "),
    "p twice": (lambda f: ["--dropout", "0.5,0.50"], "--dropout: expected each rate once, got"),
    "seeds": (lambda f: ["--seeds", "0"], "--seeds: expected .*, got '0'"),
    "last seed": (
        lambda f: ["--seeds", "2", "--seed", f"{2**64 - 1}"],
        "--seeds: expected seeds below 2\\*\\*64, got 2 from 18446744073709551615 on",
    ),
    "p NaN": (lambda f: ["--dropout", "nan"], "--dropout: expected"),
    "epochs": (lambda f: ["--epochs", "0"], "--epochs: expected .*got '0'"),
    "batch size": (lambda f: ["--batch-size", "x"], "--batch-size: expected .*got 'x'"),
    "hidden": (lambda f: ["--hidden", "8,,8"], "--hidden: expected .*got ''"),
    "lr": (lambda f: ["--lr", "-1"], "--lr: expected"),
    "divergence": (lambda f: ["--optimizer", "sgd", "--lr", "1e30"], "--lr: expected a smaller"),
    "seed": (lambda f: ["--seed", "-1"], "--seed: expected"),
    "optimizer": (lambda f: ["--optimizer", "lbfgs"], "--optimizer.*adam"),
}


@pytest.mark.parametrize(("arguments", "message"), BAD.values(), ids=list(BAD))
def test_bad_input(tmp_path, capsys, arguments, message):
    out = tmp_path / "out"
    given = arguments(tmp_path)
    status = train(*QUICK, *([] if "--out" in given else ["--out", out]), *given)
    error = capsys.readouterr().err
    assert status == 2
    assert re.search(message, error.splitlines()[-1])
    assert "Traceback" not in error
    if not error.startswith("usage"):  # of argparse
        assert len(error.splitlines()[-1]) <= 200
    left = [path.name for path in out.iterdir()] if out.exists() else []
    assert left in ([], [CHECKPOINT])  # the latter if training had begun
