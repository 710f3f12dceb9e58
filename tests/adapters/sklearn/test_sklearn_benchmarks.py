"""The benchmarks of estimators run: short runs of the real thing."""

import sys

import pytest

pytest.importorskip("sklearn")
import sklearn_calls
import sklearn_sparse
import sklearn_speed

ROWS = {sklearn_calls: 13, sklearn_sparse: 4, sklearn_speed: 3}
OPTIONS = {
    sklearn_calls: ["--rounds", "1"],
    sklearn_sparse: ["--rounds", "1"],
    sklearn_speed: ["--seeds", "1", "--only", "digits"],
}


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("script", ROWS)
def test_a_table_for_this_machine(script, monkeypatch, tmp_path):
    monkeypatch.setattr(script, "SPIN", 0)
    monkeypatch.setattr(sklearn_calls, "EPOCHS", 1)
    monkeypatch.setattr(sklearn_sparse, "SETS", [(30, 20, 10), (30, 20, 50)])
    monkeypatch.setattr(sklearn_speed, "epochs_for", lambda hidden, table: 1)
    options = [*OPTIONS[script], "--out", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", [script.__name__, *options])
    assert not script.main()
    (table,) = (path.read_text() for path in tmp_path.rglob("*.md"))
    rows = [line for line in table.splitlines() if "**" in line]
    assert len(rows) == ROWS[script]
    assert len({row.count("|") for row in rows}) == 1
