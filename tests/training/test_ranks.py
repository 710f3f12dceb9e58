"""Training over MPI: the same masks, and the same curve to rounding, for any number of ranks."""

import contextlib
import itertools
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import mpi_runs
import numpy as np
import pytest
from launching import ENVIRONMENT, finish, mpiexec, needs_mpi
from mpi_runs import FEATURES, SAMPLES, X, Y

from fastdrop.commands.runs.results import Results
from fastdrop.commands.train.progress import CHECKPOINT
from fastdrop.layers import Dense
from fastdrop.metrics import Metric
from fastdrop.models import Sequential
from fastdrop.training import loop, ranks
from fastdrop.training.batches import ArrayBatches, Share

PROGRAM = Path(mpi_runs.__file__)

# The same with any number of ranks


@pytest.fixture(scope="module")
def alone():
    with np.errstate(all="raise", under="ignore"):
        return mpi_runs.results(None)


def over_ranks(folder, ranks):
    status, _, error = finish(mpiexec(ranks, PROGRAM, folder, "results"))
    assert status == 0, error
    loaded = [np.load(folder / f"{rank}.npz") for rank in range(ranks)]
    return [{name: file[name] for name in file.files} for file in loaded]


def case_of(name):
    return name.partition("/")[0]


@pytest.mark.slow
@needs_mpi
@pytest.mark.parametrize("ranks", [1, 2, 3, 4])
def test_ranks_train_as_one_process_does(alone, tmp_path, ranks):
    found = over_ranks(tmp_path, ranks)
    masks = {}
    for arrays in found:
        for name, array in arrays.items():
            if "/mask " in name:
                case, _, rest = name.partition("/mask ")
                batch, row, rows = map(int, rest.split())
                masks.setdefault((case, batch, rows), []).append((row, array))
            else:  # all ranks end with the same bits
                np.testing.assert_array_equal(array, found[0][name], err_msg=name)
    expected = {name: array for name, array in alone.items() if "/mask " not in name}
    assert {name for name in found[0] if "/mask " not in name} == set(expected)
    if ranks == 1:
        for name, array in alone.items():
            np.testing.assert_array_equal(found[0][name], array, err_msg=name)
        return
    assert len(masks) == sum("/mask " in name for name in alone)
    for (case, batch, rows), parts in masks.items():
        mask = np.concatenate([part for _, part in sorted(parts, key=lambda part: part[0])])
        np.testing.assert_array_equal(mask, alone[f"{case}/mask {batch} 0 {rows}"])
    for case in {case_of(name) for name in expected}:
        weights = [name for name in expected if re.fullmatch(rf"{re.escape(case)}/\d+", name)]
        one, many = (
            np.concatenate([arrays[name].ravel() for name in weights])
            for arrays in (expected, found[0])
        )
        limit = 1e-10 if one.dtype == np.float64 else 1e-4
        assert np.linalg.norm(one - many) <= limit * np.linalg.norm(one), case
    for name, array in expected.items():
        if "/history " in name or "/rate" in name:
            np.testing.assert_allclose(found[0][name], array, rtol=1e-3, atol=0.02, err_msg=name)


@pytest.mark.parametrize("ranks", [1, 2, 3, 7])
def test_a_rank_reads_its_rows_only(ranks):
    class Stored:
        """Rows on a disk."""

        dtype, shape = X.dtype, X.shape

        def __init__(self):
            self.read = []

        def __len__(self):
            return SAMPLES

        def __getitem__(self, rows):
            self.read += list(np.arange(SAMPLES)[rows])
            return X[rows]

    read = []
    for rank in range(ranks):
        x = Stored()
        batches = ArrayBatches(x, None, None, ("x", "y", "sample_weight"), 50)
        model = Sequential([Dense(2, input_shape=(FEATURES,))])
        loop.prepare(model.network, batches, y_needed=False)
        for batch in batches.epoch("test", share=Share(rank, ranks)):
            np.testing.assert_array_equal(batch.x, X[x.read][-len(batch.x) or SAMPLES :])
            assert batch.rows in (50, 1)
        read.append(x.read)
        assert len(x.read) <= -(-SAMPLES // ranks) + 5
    assert sorted(itertools.chain(*read)) == list(range(SAMPLES))


# What cannot go on


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    folder = tmp_path_factory.mktemp("told")
    status, _, error = finish(mpiexec(3, PROGRAM, folder, "differences"))
    assert status == 0, error
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(3)]


DIFFERENCES = {
    "samples": r"training data\.x\.shape\.0: .* got 201 on rank 0 and 200 on rank 2",
    "shape of samples": r"model\.input_shape\.0: .* got 12 on rank 0 and 5 on rank 2",
    "contents": r"training data\.x\.checksum of some samples: .* on rank 2",
    "seed": r"model\.seed: .* got 3 on rank 0 and 4 on rank 2",
    "configuration": r"model\.layers\.0\.config\.units: .* got 9 on rank 0 and 8 on rank 2",
    "weights": r"weights' checksum: .* on rank 2",
    "learning rate": r"optimizer\.learning_rate: .* got 0\.2 on rank 0 and 0\.1 on rank 2",
    "batch size": r"training data\.batch_size: .* got 50 on rank 0 and 40 on rank 2",
    "too small a batch": r"batch_size: expected at least a row for each of the 3 ranks, got 2",
    "NaN": r"loss: expected a finite one, got (nan|inf) in epoch 1, step \d",
}


@needs_mpi
@pytest.mark.parametrize(("case", "message"), DIFFERENCES.items(), ids=list(DIFFERENCES))
def test_every_rank_is_told(told, case, message):
    for rank in told:
        assert re.match(f"ValueError: {message}", rank[case]), rank[case]


@needs_mpi
@pytest.mark.parametrize(
    ("case", "error", "message"),
    [
        (
            "one rank's mistake",
            "ValueError",
            "epochs: expected a whole number of at least 1, got 0",
        ),
        ("callback", "TypeError", "callbacks: expected fastdrop callbacks, got [None]"),
    ],
)
def test_one_ranks_error_is_raised_on_all(told, case, error, message):
    assert told[2][case] == f"{error}: {message}"
    assert told[0][case] == told[1][case] == f"RankError: rank 2: {message}"


FAILURES = {
    "its batches": (
        2,
        "def batches():\n    yield X, Y\n    if comm.rank == 2: 1 / 0\n    yield X, Y",
    ),
    "a callback": (0, "class Fails(Callback):\n    def on_epoch_end(self, epoch, logs): 1 / 0"),
}


@needs_mpi
@pytest.mark.parametrize(("rank", "what"), FAILURES.values(), ids=list(FAILURES))
def test_a_rank_that_fails_ends_all(tmp_path, rank, what):
    program = tmp_path / "program.py"
    program.write_text(
        "from mpi4py import MPI\nfrom mpi_runs import *\ncomm = MPI.COMM_WORLD\n"
        f"{what}\nmodel = classifier([Dense(9), head()])\n"
        + (
            "model.fit(batches(), epochs=1, verbose=0, comm=comm)"
            if rank
            else "model.fit(X, Y, 50, 2, 0, [Fails()], comm=comm)"
        )
    )
    status, _, error = finish(mpiexec(3, program), timeout=60)
    assert status != 0
    assert error.count("ZeroDivisionError") == 1
    assert f"rank {rank} has failed, and ends all ranks" in error


@needs_mpi
def test_all_that_a_failing_rank_says_is_read(tmp_path):
    """MPICH's launcher lost lines of every other run like this when they were not waited for."""
    program = tmp_path / "program.py"
    program.write_text(
        "import sys\nfrom mpi4py import MPI\nfrom fastdrop.training import loop, ranks\n"
        "def report(error, rank):\n"
        "    for line in range(500): print(f'{line:99}', file=sys.stderr)\n"
        "    return 3\n"
        "ranks.report = report\nranks = ranks.Ranks(MPI.COMM_WORLD)\n"
        "with ranks.ending_together():\n"
        "    if ranks.rank == 1: 1 / 0\n"
        "    MPI.COMM_WORLD.Barrier()"
    )
    for _ in range(16):
        _, _, error = finish(mpiexec(2, program), timeout=60)
        assert [f"{line:99}" for line in range(500)] == error.splitlines()[:500]


@needs_mpi
@pytest.mark.parametrize("name", ranks.LAUNCHERS)
def test_a_world_of_another_size_than_the_launchers(name, monkeypatch):
    program = f"import runpy; runpy.run_path({str(PROGRAM)!r}); from mpi4py import MPI; "
    program += "from fastdrop.training.ranks import Ranks; Ranks(MPI.COMM_WORLD)"
    found = subprocess.run(
        [sys.executable, "-c", program],
        env=ENVIRONMENT | {name: "2", "PMI_RANK": "0"},
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
    )
    message = f"comm: expected a world of 2 processes, as {name} says, got one of 1"
    assert message in found.stderr.splitlines()[-1]


def test_the_nearest_launcher_counts(monkeypatch):
    for name in ranks.LAUNCHERS:
        monkeypatch.delenv(name, raising=False)
    ranks._check_world_size(1)
    monkeypatch.setenv("SLURM_NTASKS", "8")
    with pytest.raises(ValueError, match="SLURM_NTASKS"):
        ranks._check_world_size(4)
    monkeypatch.setenv("PMI_SIZE", "4")
    ranks._check_world_size(4)


def test_what_cannot_be_saved_can_be_trained_by_ranks():
    class Forgets(Metric):
        def __init__(self, forgotten):
            super().__init__("forgets")

    model = Sequential([Dense(3, input_shape=(4,))])
    model.compile("sgd", "mse", [Forgets(3)])
    assert ranks.facts_of(model.network)["metrics"][0]["class_name"] == "Forgets"


@pytest.mark.parametrize("comm", [3, object(), "world"])
def test_a_communicator_of_another_library(comm):
    model = mpi_runs.classifier([Dense(9), mpi_runs.head()])
    with pytest.raises(TypeError, match="comm: expected a communicator of mpi4py"):
        model.fit(X, Y, verbose=0, comm=comm)
    with pytest.raises(TypeError, match="comm: expected a communicator of mpi4py"):
        model.evaluate(X, Y, verbose=0, comm=comm)


class WithoutLibrary:
    """An mpi4py that finds no MPI."""

    @property
    def MPI(self):  # noqa: N802
        raise RuntimeError("cannot load MPI library\nlibmpi.so: cannot open")


@pytest.mark.parametrize("module", [lambda: None, WithoutLibrary])
def test_without_mpi(monkeypatch, module):
    monkeypatch.setitem(sys.modules, "mpi4py", module())
    with pytest.raises(ImportError, match=r"pip install 'fastdrop-nn\[mpi\]' mpich"):
        ranks.world()


def test_mpi_is_not_loaded_before_it_is_used():
    program = "import sys, fastdrop.models, fastdrop.commands.main\n"
    program += "print({'mpi4py', 'threadpoolctl'} & set(sys.modules))"
    assert subprocess.check_output([sys.executable, "-c", program], text=True) == "set()\n"


def test_a_metric_that_cannot_be_merged():
    class Largest(Metric):
        def reset(self):
            self._largest = 0.0

    with pytest.raises(NotImplementedError, match="merge"):
        Largest("largest").merge(Largest("largest"))


@pytest.mark.parametrize(
    ("own", "users", "quota", "threads"),
    [
        ({0, 1, 2, 3}, [{0, 1, 2, 3}], np.inf, 4),
        ({0, 1, 2, 3}, [{0, 1, 2, 3}] * 2, np.inf, 2),
        ({0, 1, 2, 3}, [{0, 1, 2, 3}] * 3, np.inf, 1),
        ({0, 1}, [{0, 1}] * 4, np.inf, 1),
        ({2, 3}, [{0, 1}, {2, 3}], np.inf, 2),  # bound by the launcher
        ({0, 1, 2}, [{0, 1, 2}, {2, 3}], np.inf, 2),
        (set(range(16)), [set(range(16))] * 2, 4.0, 2),
    ],
)
def test_cpus_are_divided_fairly(own, users, quota, threads):
    assert ranks.fair_share(own, users, quota) == threads


# The command line


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "data.npz"
    np.savez(path, x=X, y=Y)
    return path


# no picture; and slow enough to be caught at work
COMMAND = """
import sys, time
sys.modules["fastdrop.commands.train.pictures"] = None
from fastdrop.commands.main import main
from fastdrop.commands.train import recording
from fastdrop.commands.train.recording import Record
recording.CHECKPOINTS = 0
update = Record.on_train_batch_end
def slowly(self, batch, logs):
    time.sleep({seconds})
    update(self, batch, logs)
Record.on_train_batch_end = slowly
sys.exit(main())
"""
SETTINGS = ["--hidden", "16,8", "--batch-size", "32", "--epochs", "4"]


def start(ranks, data, out, *options, seconds=0.0):
    command = ["-u", "-c", COMMAND.format(seconds=seconds), "train", "--data", data, "--out", out]
    return mpiexec(ranks, *command, *SETTINGS, *options)


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory):
    out = tmp_path_factory.mktemp("trained")
    status, _, error = finish(start(1, data, out))
    assert status == 0, error
    return runs(out)


def runs(out):
    """Each run's figures, by its rate."""
    return {run.dropout: run.figures for run in Results.read(out).runs}


def assert_same_curves(one, other):
    for run, figures in one.items():
        for name, values in figures.items():
            np.testing.assert_allclose(other[run][name], values, rtol=1e-4, err_msg=name)


@needs_mpi
def test_the_command_line(data, trained, tmp_path):
    status, out, error = finish(start(3, data, tmp_path))
    assert status == 0, error
    assert out.count("After 4 epochs:\n") == 1  # by rank 0 only
    assert "; 3 ranks" in error
    assert_same_curves(trained, runs(tmp_path))


def pid_of_a_rank(out):
    for folder in Path("/proc").glob("[1-9]*"):
        with contextlib.suppress(OSError):
            command = (folder / "cmdline").read_text().split("\0")
            if os.path.samefile(command[0], sys.executable) and str(out) in command:
                return int(folder.name)
    raise AssertionError("no rank runs")


@pytest.mark.slow
@needs_mpi
@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="needs Linux's /proc")
def test_a_killed_rank_and_a_restart_with_others(data, trained, tmp_path):
    checkpoint = tmp_path / CHECKPOINT
    process = start(3, data, tmp_path, "--resume", seconds=0.05)
    while not checkpoint.exists():
        time.sleep(0.01)
    written = checkpoint.stat().st_mtime_ns
    while checkpoint.stat().st_mtime_ns == written:  # within the second epoch
        time.sleep(0.01)
    os.kill(pid_of_a_rank(tmp_path), signal.SIGKILL)
    status, _, _ = finish(process, timeout=60)
    assert status != 0
    status, _, error = finish(start(2, data, tmp_path, "--resume"))
    assert status == 0, error
    assert f"{checkpoint}: going on with run 1 of 2 (without dropout), after epoch" in error
    assert_same_curves(trained, runs(tmp_path))

    status, _, error = finish(start(2, data, tmp_path, "--resume", "--hidden", "9"))
    assert status == 2
    assert error.count("--hidden: expected [16, 8]") == 1  # rank 0 says it


@pytest.mark.slow
@needs_mpi
@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="needs Linux's /proc")
def test_an_interrupted_rank_says_how_to_go_on(data, tmp_path):
    process = start(2, data, tmp_path, seconds=0.05)
    while not (tmp_path / CHECKPOINT).exists():
        time.sleep(0.01)
    os.kill(pid_of_a_rank(tmp_path), signal.SIGINT)
    status, _, error = finish(process, timeout=60)
    assert status == 130
    checkpoint = tmp_path / CHECKPOINT
    advice = f"fastdrop train: interrupted; go on with --resume, from {checkpoint}"
    assert advice in error.splitlines()
    assert "Traceback" not in error


@needs_mpi
def test_mistakes_on_the_command_line_are_said_once(tmp_path):
    status, _, error = finish(start(3, tmp_path / "missing", tmp_path))
    assert status == 2
    assert error.count(": expected an existing folder or file") == 1
    assert "Traceback" not in error
