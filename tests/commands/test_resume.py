"""fastdrop train --resume: nothing is lost, whenever the process ends."""

import contextlib
import os
import random
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from safetensors.numpy import load_file

from fastdrop.commands.main import main
from fastdrop.commands.runs.results import MODELS, RESULTS, Results
from fastdrop.commands.train import recording
from fastdrop.commands.train.progress import CHECKPOINT, Progress
from fastdrop.commands.train.recording import Record
from fastdrop.training import files

SETTINGS = ["--hidden", "16,8", "--batch-size", "32", "--epochs", "3"]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "data.npz"
    rng = np.random.default_rng(0)
    np.savez(path, x=rng.normal(size=(200, 10)), y=rng.integers(0, 3, 200))
    return path


@pytest.fixture(autouse=True)
def _without_pictures(monkeypatch):
    monkeypatch.setattr(recording, "CHECKPOINTS", 0)  # after each epoch
    monkeypatch.setitem(sys.modules, "fastdrop.commands.train.pictures", None)


def run(data, out, *options):
    return main(["train", "--data", str(data), "--out", str(out), *SETTINGS, *options])


def results(out):
    """What training ends with: results without time and command, weights and optimiser states."""
    found = Results.read(out)
    runs = [run._replace(seconds={}) for run in found.runs]
    facts = found._replace(command=[], runs=runs).facts()
    return facts, [load_file(out / name) for name in MODELS]


def assert_same(one, other):
    assert one[0] == other[0]
    for a, b in zip(one[1], other[1], strict=True):
        assert a.keys() == b.keys()
        for name in a:
            np.testing.assert_array_equal(a[name], b[name])


@pytest.fixture(scope="module")
def expected(data, tmp_path_factory):
    out = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setitem(sys.modules, "fastdrop.commands.train.pictures", None)
        assert run(data, out) == 0
    return results(out)


class Killed(BaseException):
    """The end of a process, as far as that can be had within one."""


@pytest.mark.parametrize("writes", range(11))
def test_every_file_may_be_the_last(data, expected, tmp_path, monkeypatch, writes):
    """Training writes a checkpoint at the start of a run and after each epoch, then the model."""
    files = []
    replace = os.replace

    def count(source, target):
        if len(files) == writes:
            raise Killed
        files.append(target.name)
        replace(source, target)

    monkeypatch.setattr(os, "replace", count)
    with pytest.raises(Killed):
        run(data, tmp_path)
    monkeypatch.setattr(os, "replace", replace)
    one_run = 4 * [CHECKPOINT]
    order = [*one_run, MODELS[0], *one_run, MODELS[1], RESULTS]
    assert files == order[:writes]
    assert run(data, tmp_path, "--resume") == 0
    assert_same(results(tmp_path), expected)


def test_an_interruption_says_how_to_go_on(data, expected, tmp_path, monkeypatch, capsys):
    heard = Record.on_train_batch_end

    def interrupt(self, batch, logs):
        heard(self, batch, logs)
        if self.model.step == 7:  # within the second epoch
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Record, "on_train_batch_end", interrupt)
        assert run(data, tmp_path) == 130
    checkpoint = tmp_path / CHECKPOINT
    error = capsys.readouterr().err.splitlines()[-1]
    assert error == f"fastdrop train: interrupted; go on with --resume, from {checkpoint}"
    assert run(data, tmp_path, "--resume") == 0
    going_on = f"{checkpoint}: going on with run 1 of 2 (without dropout), after epoch 1"
    assert going_on in capsys.readouterr().err
    assert_same(results(tmp_path), expected)


def test_resume_without_a_checkpoint_starts_anew(data, expected, tmp_path, capsys):
    assert run(data, tmp_path, "--resume") == 0
    assert "starting anew" in capsys.readouterr().err
    assert_same(results(tmp_path), expected)


def test_resume_of_a_finished_training(data, expected, tmp_path, capsys):
    assert run(data, tmp_path) == 0
    (tmp_path / RESULTS).unlink()
    capsys.readouterr()
    assert run(data, tmp_path, "--resume") == 0
    assert "training has finished" in capsys.readouterr().err
    assert_same(results(tmp_path), expected)
    for name in MODELS:
        (tmp_path / name).unlink()
    assert run(data, tmp_path, "--resume") == 0
    assert f"{tmp_path / MODELS[0]} is gone" in capsys.readouterr().err
    assert (tmp_path / MODELS[1]).exists()  # whose weights the checkpoint has


@pytest.mark.parametrize("left", [None, CHECKPOINT, RESULTS, MODELS[0]])
def test_another_run_is_replaced_with_force_only(data, expected, tmp_path, capsys, left):
    """Whatever is left of it."""
    assert run(data, tmp_path, "--seed", "1") == 0
    for path in tmp_path.iterdir():
        if left not in (None, path.name):
            path.unlink()
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    for options in ([], ["--resume"]):
        assert run(data, tmp_path, *options) == 2
        error = capsys.readouterr().err.splitlines()[-1]
        assert "--out: expected a folder without" in error or "--seed: expected 1" in error
        assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    assert run(data, tmp_path, "--force") == 0
    assert_same(results(tmp_path), expected)


@pytest.mark.parametrize("number", range(2, 7))
def test_resume_of_several_rates_and_seeds(data, tmp_path, monkeypatch, number):
    """Killed in any run: the results are those of a training that went through."""
    options = ["--dropout", "0.25,0.5", "--seeds", "2", "--hidden", "8", "--epochs", "2"]
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert run(data, whole, *options) == 0
    next_run = Progress.next_run

    def kill(self, *arguments):
        if len(self.runs) + 1 == number:
            raise Killed
        return next_run(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(Progress, "next_run", kill)
        with pytest.raises(Killed):
            run(data, parts, *options)
    assert run(data, parts, *options, "--resume") == 0
    assert_same(results(parts), results(whole))
    assert [(run.dropout, run.seed) for run in Results.read(parts).runs] == [
        (p, seed) for seed in (0, 1) for p in (0.0, 0.25, 0.5)
    ]


CHANGED = {
    "hidden": (["--hidden", "16"], r"--hidden: expected \[16, 8\], as in .*, got \[16\]"),
    "dropout": (["--dropout", "0.1"], r"--dropout: expected \[0\.5\], .* got \[0\.1\]"),
    "seeds": (["--seeds", "2"], "--seeds: expected 1, .* got 2"),
    "epochs": (["--epochs", "4"], "--epochs: expected 3, .* got 4"),
    "batch": (["--batch-size", "8"], "--batch-size: expected 32, .* got 8"),
    "optimizer": (["--optimizer", "sgd"], "--optimizer: expected adam, .* got sgd"),
    "lr": (["--lr", "0.1"], r"--lr: expected 0\.001, .* got 0\.1"),
    "seed": (["--seed", "1"], "--seed: expected 0, .* got 1"),
}


@pytest.fixture(scope="module")
def finished(data, tmp_path_factory):
    out = tmp_path_factory.mktemp("finished")
    assert run(data, out) == 0
    return out


@pytest.mark.parametrize(("options", "message"), CHANGED.values(), ids=list(CHANGED))
def test_other_settings_are_refused(data, finished, capsys, options, message):
    before = results(finished)
    assert run(data, finished, "--resume", *options) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert re.search(message, error)
    assert "--resume" in error
    assert_same(results(finished), before)


def test_other_data_are_refused(finished, tmp_path, capsys):
    path = tmp_path / "data.npz"
    rng = np.random.default_rng(1)
    np.savez(path, x=rng.normal(size=(200, 10)), y=rng.integers(0, 3, 200))
    assert run(path, finished, "--resume") == 2
    assert "--data: expected the same data" in capsys.readouterr().err


BAD_CHECKPOINTS = {
    "damaged": (lambda path: path.write_bytes(path.read_bytes()[:-7]), "whole safetensors file"),
    "other file": (
        lambda path: files.write(path, "model", {}, {}),
        "expected a file of kind training",
    ),
    "other structure": (
        lambda path: files.write(path, "training", {"run": 7}, {}),
        "checkpoint: expected a dict of facts, runs, model",
    ),
}


@pytest.mark.parametrize(("spoil", "message"), BAD_CHECKPOINTS.values(), ids=list(BAD_CHECKPOINTS))
def test_bad_checkpoints(data, tmp_path, capsys, spoil, message):
    assert run(data, tmp_path) == 0
    spoil(tmp_path / CHECKPOINT)
    assert run(data, tmp_path, "--resume") == 2
    assert message in capsys.readouterr().err


# As processes


def start(data, out):
    """Start a process, and return when it has read the data and begins to train."""
    command = [sys.executable, "-u", "-c", PROGRAM, "train", "--data", data, "--out", out]
    process = subprocess.Popen(
        [*map(str, command), *SETTINGS, "--resume"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr.readline().startswith("data.npz")
    return process


# no picture; and slow enough to be caught at work
PROGRAM = """
import sys, time
sys.modules["fastdrop.commands.train.pictures"] = None
from fastdrop.commands.main import main
from fastdrop.commands.train import recording
from fastdrop.commands.train.recording import Record
recording.CHECKPOINTS = 0
update = Record.on_train_batch_end
def slowly(self, batch, logs):
    time.sleep(0.02)
    update(self, batch, logs)
Record.on_train_batch_end = slowly
sys.exit(main())
"""


@pytest.mark.slow
def test_a_process_may_be_killed_at_any_moment(data, expected, tmp_path):
    draw = random.Random(0)
    kills = 0
    for _ in range(100):
        process = start(data, tmp_path)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.communicate(timeout=draw.random() * 0.3)
            break
        process.kill()
        process.communicate()
        kills += 1
    assert process.returncode == 0
    assert kills >= 3
    assert_same(results(tmp_path), expected)
    names = [CHECKPOINT, *MODELS, RESULTS]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(names)


@pytest.mark.slow
def test_an_interrupted_process(data, expected, tmp_path):
    process = start(data, tmp_path)
    checkpoint = tmp_path / CHECKPOINT
    while not checkpoint.exists():
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130, error
    assert error.splitlines()[-1].endswith(f"go on with --resume, from {checkpoint}")
    assert "Traceback" not in error
    process = start(data, tmp_path)
    process.communicate(timeout=60)
    assert process.returncode == 0
    assert_same(results(tmp_path), expected)
