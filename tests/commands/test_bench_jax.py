"""`fastdrop bench --jax` and `--keras`: short runs of the real thing."""

import json
import os
from importlib.util import find_spec

import pytest

from fastdrop.commands.bench import jax as bench_jax
from fastdrop.commands.bench import keras as bench_keras
from fastdrop.commands.main import main

QUICK = ["--p", "0.5", "--rounds", "1", "--threads", "2"]


@pytest.fixture
def same_cpus():
    before = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None
    yield
    if before is not None:
        os.sched_setaffinity(0, before)


def test_jax(tmp_path, capsys, monkeypatch, same_cpus):
    pytest.importorskip("jax", reason="needs JAX")
    monkeypatch.setattr("fastdrop.commands.bench.turns.SECONDS", 1e-4)
    monkeypatch.setattr(bench_jax, "WIDTHS", (8, 8, 8, 4))
    options = ["bench", "--jax", "--sizes", "1024,3000", *QUICK, "--dtypes", "float32,bfloat16"]
    assert main([*options, "--out", str(tmp_path)]) == 0
    found = json.loads((tmp_path / bench_jax.RESULTS).read_text())
    assert {
        (row["dtype"], row["elements"], row["backward"], row["side"]) for row in found["arrays"]
    } == {
        (dtype, elements, backward, side)
        for dtype in ("float32", "bfloat16")
        for elements in (1024, 3000)
        for backward in (False, True)
        for side in bench_jax.SIDES
    }
    assert [row["side"] for row in found["networks"]] == ["none", *bench_jax.SIDES]
    assert all(row["ns"] > 0 for row in found["arrays"])
    assert all(row["ms"] > 0 for row in found["networks"])
    assert (tmp_path / bench_jax.TABLE).read_text() in capsys.readouterr().out


@pytest.mark.slow
def test_keras(tmp_path, capsys, monkeypatch):
    backends = [name for name in bench_keras.BACKENDS if find_spec(name)]
    if not find_spec("keras") or not backends:
        pytest.skip("needs Keras and a backend")
    monkeypatch.setattr(bench_keras, "BACKENDS", backends[:1])
    assert main(["bench", "--keras", *QUICK, "--out", str(tmp_path)]) == 0
    found = json.loads((tmp_path / bench_keras.RESULTS).read_text())
    assert [(row["backend"], row["side"]) for row in found["fits"]] == [
        (backends[0], side) for side in bench_keras.SIDES
    ]
    assert all(row["ms"] > 0 for row in found["fits"])
    assert (tmp_path / bench_keras.TABLE).read_text() in capsys.readouterr().out
