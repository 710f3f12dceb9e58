"""The scripts in benchmarks/ run: short runs of the real thing."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import core_fight
import numpy as np
import pytest
import stages
import streaming
import training
from training_sides import EACH, FOUR, LIBRARIES, NONE, ONE, Point

import fastdrop
from fastdrop.commands.bench import keep as keeping
from fastdrop.compiled import _core

FOLDER = Path(training.__file__).parent
NO_DATA = Path("nowhere")
SMALL, NUMBER = (784, 8, 8, 10), (5, 8, 1)
ROWS = [
    training.Row(NUMBER, 4, 1, EACH, EACH),
    training.Row(SMALL, 4, 0, EACH, EACH),
    training.Row(SMALL, 4, 0, ONE, ONE),
    training.Row(SMALL, 4, 0, FOUR, EACH),
]


def test_training(monkeypatch, tmp_path):
    monkeypatch.setattr(training, "ROWS", ROWS)
    monkeypatch.setattr(training, "LIBRARIES", ["fastdrop", "nowhere_to_be_found"])
    monkeypatch.setattr(sys, "argv", ["", "--data", str(NO_DATA), "--out", str(tmp_path)])
    sys.argv += ["--rounds", "2", "--steps", "2", "--untimed", "1"]
    assert not training.main()
    found = json.loads((tmp_path / training.RESULTS).read_text())
    assert {(len(row["widths"]), row["side"], row["masks"]) for row in found["results"]} == {
        *((4, "fastdrop", masks) for masks in (EACH, ONE, FOUR)),
        (4, "floor", EACH),
        (3, "fastdrop", EACH),
        (3, "floor", EACH),
    }
    for row in found["results"]:
        assert len(row["us"]) == 2
        assert min(row["us"]) > 0
        assert row["side"] == "floor" or 0 < row["loss"][1] < 10
    table = (tmp_path / training.TABLE).read_text()
    assert table.count(" | not installed" * len(training.FRAMEWORKS) + " |\n") == len(ROWS)
    assert "Missing" not in table


@pytest.mark.parametrize("module", LIBRARIES)
def test_sides_learn(module):
    """Labels that fifty pixels tell are learnt by whoever trains at all."""
    pytest.importorskip(module)
    x = np.random.default_rng(0).random((2048, 784), np.float32)
    y = np.arange(len(x)) % 2
    x[:, :50] = y[:, np.newaxis]
    library = LIBRARIES[module](1)
    for side, masks in library.sides.items():
        for mask in masks:
            train = library.prepare(side, Point((784, 64, 64, 10), 32, mask))
            for _ in range(2):
                figures = train(x, y, 3)
            assert figures.seconds > 0
            assert side == "floor" or figures.accuracy > 0.65


@pytest.mark.parametrize("module", LIBRARIES)
def test_sides_learn_a_number(module):
    pytest.importorskip(module)
    x = np.random.default_rng(0).random((4096, 5), np.float32)
    y = x[:, :2].sum(1, keepdims=True)
    library = LIBRARIES[module](1)
    for side, masks in library.sides.items():
        mask = masks[0]
        assert mask in (EACH, NONE)
        train = library.prepare(side, Point((5, 32, 1), 32, mask))
        losses = [train(x, y, 3).loss for _ in range(3)]
        assert side == "floor" or losses[-1] < 0.5 * losses[0]


def test_ratios_are_those_within_a_round():
    assert training.ratio([1, 2, 30], [1, 4, 10]) == "1.00 (0.75 - 2.00)"
    assert training.ratio([3], [2]) == "1.50 (1.50 - 1.50)"
    assert training.ratio([3], None) == "-"


def test_core_fight(monkeypatch, capsys):
    monkeypatch.setattr(core_fight, "SETTINGS", ["", "OPENBLAS_THREAD_TIMEOUT=4"])
    monkeypatch.setattr(core_fight, "NETWORKS", [Point(SMALL, 4, EACH)])
    assert not core_fight.measure(NO_DATA, rounds=1, steps=1, untimed=1)
    table = capsys.readouterr().out
    assert [line.split(" | ")[0] for line in table.splitlines()[4:]] == [
        "| as it is",
        "| `OPENBLAS_THREAD_TIMEOUT=4`",
    ]


@pytest.mark.parametrize(
    ("script", "arguments", "lines"),
    [("inference.py", ["--calls", "1"], 10), ("memory.py", ["--samples", "200"], 4)],
)
def test_tables(script, arguments, lines):
    if script == "memory.py" and not Path("/proc/self/clear_refs").exists():
        pytest.skip("no /proc/self/clear_refs")
    result = subprocess.run(
        [sys.executable, FOLDER / script, *arguments],
        cwd=Path(fastdrop.__file__).parents[1],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    rows = [line for line in result.stdout.splitlines() if line.startswith("|")]
    assert len(rows) == lines
    assert len({row.count("|") for row in rows}) == 1


def test_uncertainty(monkeypatch, capsys):
    import uncertainty

    monkeypatch.setattr(uncertainty, "POINTS", [((6, 8, 3), 4, 2)])
    monkeypatch.setattr(sys, "argv", ["uncertainty.py", "--rounds", "1", "--libraries"])
    assert not uncertainty.main()
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    assert rows[-1].startswith("| 6-8-3 | 4 |")
    assert len({row.count("|") for row in rows}) == 1
    assert rows[-1].endswith("| - | - |")  # no other library


def test_torch_calls(monkeypatch, tmp_path):
    pytest.importorskip("torch")
    import torch_calls

    monkeypatch.setattr("fastdrop.commands.bench.turns.SECONDS", 1e-3)
    monkeypatch.setattr(sys, "argv", ["", "--rounds", "1", "--out", str(tmp_path)])
    torch_calls.main()
    *_, pieces, ours, theirs = (tmp_path / torch_calls.TABLE).read_text().splitlines()
    assert all(float(us) > 0 for row in (pieces, ours, theirs) for us in row.split("|")[2:-1])


def test_attention(monkeypatch, tmp_path):
    pytest.importorskip("torch")
    import attention

    monkeypatch.setattr("fastdrop.commands.bench.turns.SECONDS", 1e-3)
    monkeypatch.setattr(attention, "SHAPES", [(1, 2, 64, 8), (1, 1, 5, 4)])
    monkeypatch.setattr(sys, "argv", ["", "--rounds", "1", "--out", str(tmp_path)])
    attention.main()
    *_, own, ours = (tmp_path / attention.TABLE).read_text().splitlines()
    assert all(float(ms) > 0 for row in (own, ours) for ms in row.split("|")[2:-1])


def test_streaming(monkeypatch, tmp_path):
    monkeypatch.setattr(streaming, "POWERS", [14, 15])  # so many that none takes 0 us
    monkeypatch.setattr(streaming, "MEBIBYTES", [1])
    monkeypatch.setattr(sys, "argv", ["", "--out", str(tmp_path)])
    known = _core.cache_bytes()
    assert not streaming.main()
    assert _core.cache_bytes() == known
    first, second = (tmp_path / streaming.TABLE).read_text().strip().split("\n\n")
    rows, others = first.splitlines()[2:], second.splitlines()[2:]
    threads = len({1, fastdrop.get_num_threads()})
    assert len(rows) == 4 * threads
    kinds = {row.split("|")[1].strip() for row in others}
    assert {"float64", "float16", "bias_act_dropout", "dropout_add"} <= kinds <= {*streaming.KINDS}
    assert len(others) == 2 * threads * len(kinds)
    assert all(float(us) > 0 for row in rows for us in row.split("|")[4:-1])
    assert all(float(us) > 0 for row in others for us in row.split("|")[5:-1])


def test_stages(monkeypatch, capsys):
    monkeypatch.setattr(stages, "POINTS", [Point(SMALL, 4, EACH), Point(SMALL, 4, ONE)])
    monkeypatch.setattr(sys, "argv", ["", "--epochs", "1"])
    stages.main()
    table = [line[1:-1].split("|") for line in capsys.readouterr().out.splitlines()]
    rows = {name.strip(): [cell.strip() for cell in cells] for name, *cells in table}
    assert {"forward", "backward", stages.UPDATE, "loss", "metrics", stages.PYTHON} < rows.keys()
    assert rows["gathering kept weights"][0] == ""  # none with a mask for each sample
    assert rows["gathering kept weights"][1]
    assert all(float(cell) > 0 for cell in rows["all"])


def test_torch_predict_mc(monkeypatch, tmp_path):
    torch = pytest.importorskip("torch")
    import torch_predict_mc

    monkeypatch.setattr("fastdrop.commands.bench.turns.SECONDS", 1e-3)
    arguments = ["--rounds", "2", "--cases", "0", "2", "7", "--threads", "1"]
    monkeypatch.setattr(sys, "argv", ["", "--out", str(tmp_path), *arguments])
    threads = torch.get_num_threads()
    assert not torch_predict_mc.main()
    torch.set_num_threads(threads)
    rows = (tmp_path / torch_predict_mc.TABLE).read_text().splitlines()[4:]
    assert len(rows) == 3
    assert all(float(ms) > 0 for row in rows for ms in row.split("|")[3:5])


@pytest.fixture
def stopped(monkeypatch, capsys):
    """Run a script that gets SIGTERM after its first round; return what it prints then."""
    update = keeping._Report.update

    def update_and_stop(report, show):
        update(report, show)
        signal.raise_signal(signal.SIGTERM)

    def run(main, *arguments):
        monkeypatch.setattr(keeping._Report, "update", update_and_stop)
        monkeypatch.setattr(sys, "argv", ["", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        assert ended.value.code == 143
        missing = "Missing: rounds 2 to 4 (stopped by SIGTERM).\n"
        said = capsys.readouterr()
        _, written = said.err.split("Missing: rounds 2 to 4 (still to come).\n")
        table, rest = said.out.split(missing)
        assert not rest
        return table, table + missing, written

    return run


def test_stopped_training(monkeypatch, tmp_path, stopped):
    monkeypatch.setattr(training, "ROWS", ROWS)
    monkeypatch.setattr(training, "LIBRARIES", ["fastdrop"])
    sizes = ["--rounds", 4, "--steps", 2, "--untimed", 1]
    _, text, written = stopped(training.main, "--data", NO_DATA, "--out", tmp_path, *sizes)
    assert (tmp_path / training.TABLE).read_text() == text
    assert written.count("written: ") == 2
    rows = json.loads((tmp_path / training.RESULTS).read_text())["results"]
    assert [len(row["us"]) for row in rows] == [1] * 6


def test_stopped_core_fight(monkeypatch, tmp_path, stopped):
    monkeypatch.setattr(core_fight, "SETTINGS", [""])
    monkeypatch.setattr(core_fight, "NETWORKS", [Point(SMALL, 4, EACH)])
    sizes = ["--rounds", 4, "--steps", 1, "--untimed", 1]
    table, text, _ = stopped(core_fight.main, "--data", NO_DATA, "--out", tmp_path, *sizes)
    assert table.count("at most") == len(core_fight.BUSY)
    assert (tmp_path / core_fight.TABLE).read_text() == text


def test_stopped_stages(monkeypatch, tmp_path, stopped):
    monkeypatch.setattr(stages, "POINTS", [Point(SMALL, 4, EACH)])
    _, text, _ = stopped(stages.main, "--epochs", 4, "--out", tmp_path)
    assert (tmp_path / stages.TABLE).read_text() == text


def test_stopped_torch_calls(monkeypatch, tmp_path, stopped):
    pytest.importorskip("torch")
    import torch_calls

    monkeypatch.setattr("fastdrop.commands.bench.turns.SECONDS", 1e-3)
    _, text, _ = stopped(torch_calls.main, "--rounds", 4, "--out", tmp_path)
    assert (tmp_path / torch_calls.TABLE).read_text() == text


def test_from_tables_to_predictions(monkeypatch, tmp_path):
    pytest.importorskip("pyarrow", reason="pyarrow is not installed: the extra tables")
    import table_speed as tables

    monkeypatch.setattr(sys, "argv", ["", "--scale", "0.002", "--out", str(tmp_path)])
    monkeypatch.setattr(tables, "PREDICT_ROWS", (100_000,))
    assert not tables.main()
    (path,) = tmp_path.rglob(tables.TABLE)
    rows = [line for line in path.read_text().splitlines() if line.startswith("| 200 ")]
    assert len(rows) == 4
    cells = [float(cell) for cell in rows[0].split("|")[1:-1]]
    assert cells[:2] == [200, 30]
    assert cells[-1] > 0  # sizes and times of so few rows may be rounded to 0
