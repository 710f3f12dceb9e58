"""`fastdrop bench --torch`: short runs of the real thing."""

import json
import sys

import pytest

from fastdrop.commands.bench import torch as bench_torch
from fastdrop.commands.main import main

QUICK = ["bench", "--torch", "--sizes", "1024,3000", "--p", "0.5", "--rounds", "1"]


def test_results(tmp_path, capsys, monkeypatch):
    torch = pytest.importorskip("torch")
    monkeypatch.setattr("fastdrop.commands.bench.turns.SECONDS", 1e-4)
    monkeypatch.setattr(bench_torch, "TRANSFORMER", bench_torch.Transformer(1, 16, 2, 4, 0.1))
    before = torch.get_num_threads()
    try:
        assert (
            main([*QUICK, "--dtypes", "float32,bfloat16", "--threads", "2", "--out", str(tmp_path)])
            == 0
        )
    finally:
        torch.set_num_threads(before)
    found = json.loads((tmp_path / bench_torch.RESULTS).read_text())
    assert {(row["dtype"], row["elements"], row["side"]) for row in found["layers"]} == {
        (dtype, elements, side)
        for dtype in ("float32", "bfloat16")
        for elements in (1024, 3000)
        for side in ("torch.nn", "fastdrop.torch")
    }
    assert [row["side"] for row in found["transformer"]] == list(bench_torch.SIDES)
    assert all(row["ns"] > 0 for row in found["layers"])
    assert all(row["ms"] > 0 and row["MiB"] > 50 for row in found["transformer"])
    assert (tmp_path / bench_torch.TABLE).read_text() in capsys.readouterr().out


def test_without_pytorch(tmp_path, capsys, monkeypatch):
    for name in [name for name in sys.modules if name.startswith("fastdrop.torch")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "torch", None)
    assert main([*QUICK, "--out", str(tmp_path)]) == 2
    assert "fastdrop.torch needs PyTorch: pip install" in capsys.readouterr().err
