"""Benchmarks that are stopped keep what they have measured."""

import itertools
import json
import signal

import pytest

from fastdrop.commands.bench import keep as keeping
from fastdrop.commands.bench.keep import keep

STEPS = [("small", 1), ("small", 2), ("large", 3)]
LEFT = {  # what is missing when one is stopped in its n-th step
    1: "small, large, rounds 2 to 3",
    2: "small, large, rounds 2 to 3",
    3: "large, rounds 2 to 3",
    4: "rounds 2 to 3",
    6: "rounds 2 to 3",
    7: "round 3",
    9: "round 3",
}
STATUS = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129}


class Measuring:
    """Three rounds of steps, of which one does something else."""

    def __init__(self, out=None, stop=None, do=None):
        self.done, self.out, self.stop, self.do, self.failures = [], out, stop, do, {}

    def measure(self, step, number):
        if len(self.done) + 1 == self.stop:
            self.do()
        self.done.append((number, step))

    def files(self, missing):
        if not self.done:
            return {}
        figures = json.dumps({"missing": missing, "done": self.done})
        return {"table.md": f"{len(self.done)} steps", "figures.json": figures, "picture": b"PNG"}

    def run(self):
        return keep(STEPS, 3, self.measure, self.files, self.out, self.failures)


def test_to_the_end(tmp_path, capsys):
    measuring = Measuring(tmp_path)
    assert measuring.run() is None
    assert measuring.done == [(n, step) for n in (1, 2, 3) for step in (1, 2, 3)]
    first, last = "3 steps\n\nMissing: rounds 2 to 3 (still to come).\n", "9 steps\n"
    written = [f"written: {tmp_path / name}\n" for name in ("table.md", "figures.json", "picture")]
    printed = capsys.readouterr()
    assert printed.out == last
    assert printed.err == "".join([first, *written])
    assert (tmp_path / "table.md").read_text() == last
    assert json.loads((tmp_path / "figures.json").read_text())["missing"] == ""
    assert (tmp_path / "picture").read_bytes() == b"PNG"


@pytest.mark.parametrize("number", STATUS)
@pytest.mark.parametrize("stop", LEFT)
def test_stopped(tmp_path, capsys, number, stop):
    before = signal.getsignal(number)
    with pytest.raises(SystemExit) as ended:
        Measuring(tmp_path, stop, lambda: signal.raise_signal(number)).run()
    assert ended.value.code == STATUS[number]
    assert signal.getsignal(number) is before
    printed = capsys.readouterr()
    if stop == 1:
        assert printed.out == ""
        assert f"nothing was measured: stopped by {number.name}" in printed.err
        assert not list(tmp_path.iterdir())
        return
    missing = f"{LEFT[stop]} (stopped by {number.name})"
    table = f"{stop - 1} steps\n\nMissing: {missing}.\n"
    assert printed.out == table
    assert "written: " in printed.err
    assert (tmp_path / "table.md").read_text() == table
    assert json.loads((tmp_path / "figures.json").read_text())["missing"] == missing


def test_an_error_passes_and_nothing_is_lost(tmp_path, capsys):
    def fail():
        raise RuntimeError("no such luck")

    with pytest.raises(RuntimeError, match="no such luck"):
        Measuring(tmp_path, 5, fail).run()
    missing = "Missing: rounds 2 to 3 (RuntimeError no such luck).\n"
    assert (tmp_path / "table.md").read_text() == f"4 steps\n\n{missing}"
    assert missing in capsys.readouterr().out


def test_a_signal_while_files_are_written(tmp_path):
    """Its sender may send it twice."""
    measuring = Measuring(tmp_path, 5, lambda: signal.raise_signal(signal.SIGTERM))
    files = measuring.files

    def files_with_signals(missing):
        if "SIGTERM" in missing:
            signal.raise_signal(signal.SIGTERM)
            signal.raise_signal(signal.SIGINT)
        return files(missing)

    measuring.files = files_with_signals
    with pytest.raises(SystemExit) as ended:
        measuring.run()
    assert ended.value.code == 143
    assert (tmp_path / "table.md").read_text().startswith("4 steps")


def test_a_signal_that_is_ignored_is_ignored(tmp_path):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert Measuring(tmp_path, 5, lambda: signal.raise_signal(signal.SIGHUP)).run() is None
    finally:
        signal.signal(signal.SIGHUP, before)


def test_failures_are_told_and_do_not_end_the_run(tmp_path):
    measuring = Measuring(tmp_path, 5, lambda: measuring.failures.update(jax="no answer in 60 s"))
    assert measuring.run() == "jax: no answer in 60 s"
    assert (tmp_path / "table.md").read_text() == "9 steps\n\nMissing: jax: no answer in 60 s.\n"


def test_a_long_first_round_shows_what_it_has(monkeypatch, capsys):
    clock = itertools.count(0, 50)
    monkeypatch.setattr(keeping.time, "monotonic", lambda: next(clock))
    Measuring().run()
    printed = capsys.readouterr()
    assert printed.err.splitlines()[0] == "2 steps"
    assert printed.err.count("still to come") == 2
    assert printed.out == "9 steps\n"
