"""fastdrop bench: a short run of the real thing, and what it makes of its results."""

import json
import os
import re
import signal
import subprocess
import sys
import time

import pytest

from fastdrop.commands.bench import kernels as bench
from fastdrop.commands.bench.sides import GROUPS, LIBRARIES, _Measuring
from fastdrop.commands.main import main

QUICK = ["--sizes", "1Ki,3000", "--p", "0.5", "--threads", "1", "--rounds", "1"]


@pytest.fixture(autouse=True)
def only_fastdrop(monkeypatch):
    """The frameworks, where installed, take too long to start for a test."""
    monkeypatch.setattr(bench, "LIBRARIES", {"fastdrop": bench.LIBRARIES["fastdrop"]})


@pytest.mark.parametrize("dtypes", ["float32", "float64,float16,bfloat16"])
def test_bench(tmp_path, capsys, dtypes):
    if "bfloat16" in dtypes:
        pytest.importorskip("ml_dtypes")
    assert main(["bench", *QUICK, "--dtypes", dtypes, "--out", str(tmp_path)]) == 0
    found = json.loads((tmp_path / bench.RESULTS).read_text())
    sides = {"copy", "streaming copy", "NumPy", "fastdrop", "fastdrop, new output"}
    points = {
        (dtype, backward, elements)
        for dtype in dtypes.split(",")
        for backward in (False, True)
        for elements in (1024, 3000)
    }
    rows = found["results"]
    assert {(r["dtype"], r["backward"], r["elements"], r["side"]) for r in rows} == {
        (*point, side) for point in points for side in sides
    }
    assert all(row["ns"] > 0 for row in rows)
    printed = capsys.readouterr().out
    assert (tmp_path / bench.TABLE).read_text() in printed
    assert printed.count("| 1 Ki |") == len(dtypes.split(",")) * 2
    assert (tmp_path / bench.PICTURE).read_bytes().startswith(b"\x89PNG")


def test_a_wrong_result_ends_the_run(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (tmp_path / "sitecustomize.py").write_text(
        "import numpy\nnumpy.copyto = lambda out, x: numpy.multiply(x, 2, out=out)\n"
    )
    assert main(["bench", *QUICK, "--out", str(tmp_path)]) == 2
    assert "copy: kept elements are not x / (1 - p)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--sizes", "0"], "argument --sizes: expected a whole number in [1, 2**31), got '0'"),
        (["--sizes", "1Gi"], "argument --sizes: expected a whole number in [1, 2**31)"),
        (["--p", "1"], "argument --p: expected a probability between 0 and 1, got '1'"),
        (
            ["--dtypes", "int8"],
            "argument --dtypes: expected one of float16, bfloat16, float32, float64",
        ),
        (["--threads", "0"], "argument --threads: expected a whole number in [1, 2**31)"),
        (["--rounds", "x"], "argument --rounds: expected a whole number in [1, 2**31)"),
        (["--out", "/proc/nowhere"], "--out: expected a folder that can be written"),
    ],
)
def test_bad_input(capsys, arguments, message):
    try:
        status = main(["bench", *QUICK, *arguments])
    except SystemExit as exit:
        status = exit.code
    assert status == 2
    assert message in capsys.readouterr().err


def test_bfloat16_without_ml_dtypes(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "ml_dtypes", None)
    assert main(["bench", *QUICK, "--dtypes", "bfloat16", "--out", str(tmp_path)]) == 2
    assert (
        "bfloat16 needs ml_dtypes: pip install 'fastdrop-nn[bfloat16]'" in capsys.readouterr().err
    )


@pytest.mark.parametrize("group", GROUPS)
@pytest.mark.parametrize("module", ["fastdrop", "torch"])
@pytest.mark.parametrize("backward", [False, True])
def test_sides_pass_their_checks(group, module, backward):
    pytest.importorskip(module)
    library = LIBRARIES[module](1)
    point = bench.Point(group, 1, "float32", 0.1, backward, 1 << 20)._asdict()
    for side in library.sides[group]:
        request = {"side": side, "point": point, "seconds": 1e-3}
        assert _Measuring(library).answer(request) > 0


@pytest.mark.parametrize(
    ("sizes", "groups", "message"),
    [
        ([1 << 10], ["blocks"], "sizes: expected multiples of 65536 elements, got 1024"),
        ([1 << 20], ["odd"], "groups: expected one of"),
    ],
)
def test_refused_before_anything_is_measured(sizes, groups, message):
    with pytest.raises(ValueError, match=message):
        bench.measure(sizes, [0.5], ["float32"], [1], 1, groups)


def fake_library(folder, monkeypatch, code):
    """Have "jax" run this code when it is imported."""
    (folder / "jax.py").write_text(f"__version__ = '1'\nimport os, time, threading\n{code}\n")
    monkeypatch.syspath_prepend(folder)
    path = os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])
    monkeypatch.setenv("PYTHONPATH", path)
    monkeypatch.setitem(bench.LIBRARIES, "jax", LIBRARIES["jax"])


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("raise OSError('broken')", "jax: it ended: OSError: broken"),
        ("os._exit(3)", "jax: it ended: status 3, no message"),
        ("os.abort()", "jax: it ended: "),
        pytest.param("time.sleep(1000)", "jax: no answer in 8 s", marks=pytest.mark.slow),
        ("pass", "jax: it ended: AttributeError: module 'jax' has no attribute 'numpy'"),
    ],
    ids=["raises", "ends", "crashes", "hangs", "fails when it measures"],
)
def test_a_library_that_fails(tmp_path, capsys, monkeypatch, code, message):
    fake_library(tmp_path, monkeypatch, code)
    if "sleep" in code:
        monkeypatch.setattr("fastdrop.commands.bench.process.LIMIT", 8.0)
    out = tmp_path / "out"
    begin = time.monotonic()
    arguments = ["--sizes", "1Ki", "--rounds", "2", "--threads", "1", "--out", str(out)]
    assert main(["bench", *arguments]) == 2
    printed = capsys.readouterr()
    error = printed.err.splitlines()[-1]
    assert error.startswith(f"fastdrop bench: error: {message}")
    assert len(error) <= 200
    found = json.loads((out / bench.RESULTS).read_text())
    assert found["missing"].startswith(message)
    assert f"Missing: {message}" in (out / bench.TABLE).read_text()
    rows = [row for row in found["results"] if row["side"] == "fastdrop"]
    assert len(rows) == 4
    assert not any("JAX" in row["side"] for row in found["results"])
    assert time.monotonic() - begin < 60


BENCH = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # where it is ignored in the background
from fastdrop.commands.bench import kernels
from fastdrop.commands.main import main
kernels.LIBRARIES = {"fastdrop": kernels.LIBRARIES["fastdrop"]}
sys.exit(main(["bench", *sys.argv[1:]]))
"""


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_process_that_is_stopped(tmp_path, number, status):
    """Whole process groups get Ctrl-C, and often SIGTERM."""
    arguments = ["--sizes", "1Ki,2Ki", "--threads", "1", "--rounds", "1000"]
    process = subprocess.Popen(
        [sys.executable, "-c", BENCH, *arguments, "--out", str(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        while process.poll() is None and not (tmp_path / bench.PICTURE).exists():
            time.sleep(0.05)  # until the first round is over
        time.sleep(0.3)
        os.killpg(process.pid, number)
        printed, error = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == status, error
    assert "Traceback" not in error
    missing = re.search(rf"rounds \d+ to 1000 \(stopped by {number.name}\)", printed)[0]
    found = json.loads((tmp_path / bench.RESULTS).read_text())
    assert found["missing"] == missing
    assert len(found["results"]) == 2 * 2 * 2 * 5  # elements, p, directions, sides
    assert (tmp_path / bench.TABLE).read_text() in printed
    assert {path.name for path in tmp_path.iterdir()} == {bench.TABLE, bench.RESULTS, bench.PICTURE}
