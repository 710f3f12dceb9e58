"""fastdrop predict, from train's model to files of predictions."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from table_files import Standard, columns, text, written

pytest.importorskip("pyarrow", reason="pyarrow is not installed: the extra tables")

import pyarrow as pa
from pyarrow import csv, parquet

from fastdrop import TableModel
from fastdrop.commands.main import main

TABLE = columns(60)
QUICK = ["--epochs", "2", "--hidden", "8"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """What train left of a regression and of a classification."""
    folder = tmp_path_factory.mktemp("trained")
    written(folder / "t.csv", TABLE)
    for target, other in (("price", "verdict"), ("verdict", "price")):
        arguments = [str(folder / "t.csv"), "--target", target, "--ignore", other]
        assert main(["train", *arguments, *QUICK, "--out", str(folder / target)]) == 0
    return folder


def predict(model, table, *arguments):
    try:
        return main(["predict", str(model), str(table), *map(str, arguments)])
    except SystemExit as exit:
        return exit.code


def model_in(folder, target="price"):
    return folder / target / "model-with-dropout.safetensors"


@pytest.mark.parametrize("target", ["price", "verdict"])
@pytest.mark.parametrize("suffix", ["csv", "tsv", "parquet"])
def test_files(tmp_path, folder, capsys, target, suffix):
    out = tmp_path / f"p.{suffix}"
    assert predict(model_in(folder, target), folder / "t.csv", "--out", out) == 0
    captured = capsys.readouterr()
    assert captured.out == f"{out}: 60 rows predicted\n"
    assert "left aside, as the model does not use them" in captured.err
    options = csv.ParseOptions(delimiter="\t" if suffix == "tsv" else ",")
    found = (
        parquet.read_table(out) if suffix == "parquet" else csv.read_csv(out, parse_options=options)
    )
    expected = TableModel.load(model_in(folder, target)).predict_table(TABLE)
    assert found.column_names == expected.column_names
    for one, other in zip(found.columns, expected.columns):
        if target == "verdict" and one.type == pa.string():
            assert one.to_pylist() == other.to_pylist()
        else:
            np.testing.assert_allclose(one.to_numpy(), other.to_numpy(), rtol=1e-6)


def test_both_of_trains_models_are_usable(folder, capsys):
    for name in ("model-without-dropout", "model-with-dropout"):
        assert predict(folder / "price" / f"{name}.safetensors", folder / "t.csv", "--quiet") == 0
        captured = capsys.readouterr()
        assert len(captured.out.splitlines()) == 61
        assert captured.err == ""


def test_train_says_what_it_does_to_each_column(tmp_path, folder, capsys):
    arguments = [
        str(folder / "t.csv"),
        "--target",
        "price",
        "--time",
        "sold",
        "--ignore",
        "verdict",
    ]
    assert main(["train", *arguments, *QUICK, "--out", str(tmp_path)]) == 0
    err = capsys.readouterr().err
    for line in (
        "target 'price': regression, by its kind",
        "the latest by 'sold'",
        "  size: number, standardised",
        "  town: words, one-hot, 3 words",
        "  sold: left out, as the time",
        "  verdict: left out, as told",
    ):
        assert line in err
    data = json.loads((tmp_path / "training.json").read_text())["data"]
    assert data["label"] == "price"
    assert data["roles"]["time"] == "sold"


def test_training_goes_on(tmp_path, folder, capsys):
    def run(*arguments, out):
        given = [str(folder / "t.csv"), "--target", "verdict", "--weight", "size"]
        return main(["train", *given, "--hidden", "8", *arguments, "--out", str(out)])

    assert run("--epochs", "3", out=tmp_path / "a") == 0
    assert run("--epochs", "3", "--resume", out=tmp_path / "a") == 0
    assert "training has finished" in capsys.readouterr().err
    assert run("--epochs", "3", "--resume", "--group", "town", out=tmp_path / "a") == 2


@pytest.mark.parametrize("how", [["--mc", "5"], ["--moments"]])
def test_uncertainty(folder, capsys, how):
    assert predict(model_in(folder), folder / "t.csv", *how) == 0
    first = capsys.readouterr().out
    assert first.splitlines()[0].replace('"', "") == "prediction,std,low,high"
    assert predict(model_in(folder), folder / "t.csv", *how) == 0
    assert capsys.readouterr().out == first
    assert predict(model_in(folder, "verdict"), folder / "t.csv", *how) == 0
    assert "mutual_information" in capsys.readouterr().out


def test_standard_input_and_output(folder, capsys, monkeypatch):
    assert predict(model_in(folder), folder / "t.csv") == 0
    expected = capsys.readouterr().out
    monkeypatch.setattr(sys, "stdin", Standard(text(TABLE).encode()))
    assert predict(model_in(folder), "-", "--out", "-") == 0
    assert capsys.readouterr().out == expected


def test_json(tmp_path, folder, capsys):
    out = tmp_path / "p.csv"
    assert predict(model_in(folder), folder / "t.csv", "--json", "--out", out) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts == {"out": str(out), "rows": 60, "columns": ["prediction"]}


BAD = {
    "no model": (
        lambda f, t: [f / "none", f / "t.csv", "--out", t / "p.csv"],
        "none: expected an existing file",
    ),
    "a network": (
        lambda f, t: [f / "t.csv", f / "t.csv", "--out", t / "p.csv"],
        "t.csv: expected a file that fastdrop has saved, got one of",
    ),
    "a checkpoint": (
        lambda f, t: [f / "price" / "checkpoint.safetensors", f / "t.csv"],
        "expected a file of kind table, got one of training",
    ),
    "no table": (
        lambda f, t: [model_in(f), f / "none.csv", "--out", t / "p.csv"],
        "none.csv: expected an existing file",
    ),
    "a folder": (lambda f, t: [model_in(f), f, "--out", t / "p.csv"], "expected an existing file"),
    "no folder": (
        lambda f, t: [model_in(f), f / "t.csv", "--out", t / "none" / "p.csv"],
        "--out: expected a file in an existing folder",
    ),
    "out is a folder": (lambda f, t: [model_in(f), f / "t.csv", "--out", t], "--out: expected"),
    "another suffix": (
        lambda f, t: [model_in(f), f / "t.csv", "--out", t / "p.xlsx"],
        "--out: expected a name that ends with one of",
    ),
    "json": (lambda f, t: [model_in(f), f / "t.csv", "--json"], "--json: expected it with --out"),
    "both": (lambda f, t: [model_in(f), f / "t.csv", "--mc", 2, "--moments"], "not allowed with"),
    "mc": (lambda f, t: [model_in(f), f / "t.csv", "--mc", 0], "--mc: expected a whole number"),
    "force": (
        lambda f, t: [model_in(f), f / "t.csv", "--force"],
        "--force: expected it with --out",
    ),
    "seed": (lambda f, t: [model_in(f), f / "t.csv", "--seed", 1], "--seed: expected it with --mc"),
    "no dropout": (
        lambda f, t: [f / "price" / "model-without-dropout.safetensors", f / "t.csv", "--moments"],
        "dropout family",
    ),
    "full disk": (
        lambda f, t: [model_in(f), f / "t.csv", "--out", "/dev/full"],
        "No space left on device: '/dev/full'",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input(tmp_path, folder, capsys, case):
    arguments, message = BAD[case]
    if case == "full disk" and not os.path.exists("/dev/full"):
        pytest.skip("no /dev/full here")
    assert predict(*arguments(folder, tmp_path)) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert message in captured.err.splitlines()[-1]
    assert len(captured.err.splitlines()[-1]) <= 200
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_exists_is_left_alone(tmp_path, folder, capsys):
    out = tmp_path / "p.csv"
    out.write_text("mine")
    assert predict(model_in(folder), folder / "t.csv", "--out", out) == 2
    assert "--force" in capsys.readouterr().err
    assert out.read_text() == "mine"
    bad = tmp_path / "bad.csv"
    bad.write_text(text(TABLE) + "1,2\n")
    assert predict(model_in(folder), bad, "--out", out, "--force") == 2
    assert out.read_text() == "mine"
    assert predict(model_in(folder), folder / "t.csv", "--out", out, "--force") == 0
    assert out.read_text().startswith('"prediction"')
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.csv", "p.csv"]


def command(*arguments, **more):
    return subprocess.Popen(
        [sys.executable, "-m", "fastdrop", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        **more,
    )


def test_a_pipe_that_is_closed_early(tmp_path, folder):
    long = written(tmp_path / "long.csv", columns(50_000))
    process = command("predict", model_in(folder), long, "--quiet")
    assert process.stdout.readline().strip() == b'"prediction"'
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait() == 0


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
def test_standard_output_on_a_full_disk(folder):
    with open("/dev/full", "wb") as full:
        result = subprocess.run(
            [sys.executable, "-m", "fastdrop", "predict", model_in(folder), folder / "t.csv"],
            stdout=full,
            stderr=subprocess.PIPE,
        )
    assert result.returncode == 2
    assert b"No space left on device" in result.stderr
    assert b"Traceback" not in result.stderr


FORMULAS = ["=1+1", "+cmd|' /C calc'!A0", "-2+3", "@SUM(A1)", "\t=1", "plain", "-5", "a=b"]


def test_formulas_are_written_so_that_no_spreadsheet_runs_them(tmp_path, capsys):
    rows = 30 * len(FORMULAS)
    rng = np.random.default_rng(0)
    table = {"x": rng.normal(size=rows), "what": FORMULAS * 30}
    model = TableModel(hidden=(4,), epochs=1).fit(table, "what", verbose=0)
    model.save(tmp_path / "m")
    written(tmp_path / "t.csv", {"x": table["x"]})
    for out in (tmp_path / "p.csv", tmp_path / "p.tsv"):
        assert predict(tmp_path / "m", tmp_path / "t.csv", "--out", out) == 0
        delimiter = "\t" if out.suffix == ".tsv" else ","
        found = csv.read_csv(out, parse_options=csv.ParseOptions(delimiter=delimiter))
        cells = [*found.column("prediction").unique().to_pylist(), *found.column_names]
        assert not [c for c in map(str, cells) if c.strip()[:1] in "=+@" or c.strip()[:2] == "-2"]
    from fastdrop.tables.writing import safe

    expected = [f"'{word}" for word in FORMULAS[:5]] + FORMULAS[5:]
    assert safe(pa.array(FORMULAS)).to_pylist() == expected


@pytest.mark.slow
def test_long_tables_take_no_more_memory(tmp_path, folder):
    peaks = []
    for rows in (20_000, 400_000):
        table = columns(20_000)
        path = tmp_path / f"{rows}.csv"
        body = text(table).splitlines(keepends=True)
        path.write_text(body[0] + "".join(body[1:]) * (rows // 20_000))
        out = tmp_path / f"{rows}-out.csv"
        code = (
            "import resource, sys; from fastdrop.commands.main import main; "
            "assert main(sys.argv[1:]) == 0; "
            "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
        )
        given = [model_in(folder), path, "--out", out, "--quiet"]
        result = subprocess.run(
            [sys.executable, "-c", code, "predict", *map(str, given)],
            stdout=subprocess.PIPE,
            check=True,
        )
        peaks.append(int(result.stdout.split()[-1]))
    assert peaks[1] < peaks[0] + 60_000  # KiB; the file is 16 MB longer, its columns as much
