"""`fastdrop info`, and what it says about threads and MPI."""

import os
import re
import sys
from types import ModuleType, SimpleNamespace

import pytest
from processes import OPENMP, run

import fastdrop
from fastdrop import _config
from fastdrop.commands import info
from fastdrop.commands.main import main


def test_a_table_of_what_is_used(capsys):
    assert main(["info"]) == 0
    lines = capsys.readouterr().out.splitlines()
    facts = dict(re.split(r"  +", line, maxsplit=1) for line in lines)
    assert facts["version"] == fastdrop.__version__
    assert re.match(r"gcc \d+\.|.*(clang|LLVM)", facts["compiler"], re.IGNORECASE)
    assert facts["isa"] in fastdrop.available_isas()
    assert facts["available isas"].split(", ") == list(fastdrop.available_isas())
    starts = {line.index(value) for line, value in zip(lines, facts.values(), strict=True)}
    assert len(starts) == 1  # of the second column


@pytest.mark.skipif(not os.path.exists("/proc/self/maps"), reason="no /proc")
def test_libraries_of_this_process():
    facts = info.collect()
    assert "blas" in facts["BLAS libraries in this process"].lower()
    if fastdrop.compiled._core.openmp_version():
        assert re.search(r"/lib(gomp|omp|iomp5)", facts["OpenMP libraries in this process"])


def test_variables_that_matter(monkeypatch):
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "3")
    monkeypatch.setenv("MKL_NUM_THREADS", "2")
    given = info.collect()["environment"].split(", ")
    assert {"MKL_NUM_THREADS=2", "SLURM_CPUS_PER_TASK=3"} < {*given, ""}


THREADS = """
import fastdrop; config = fastdrop.show_config("dicts")
print(config["threads"], config["threads from"])
"""


@OPENMP
@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"OMP_NUM_THREADS": "3"}, "3 OMP_NUM_THREADS=3"),
        ({"FASTDROP_NUM_THREADS": "2", "OMP_NUM_THREADS": "3"}, "2 FASTDROP_NUM_THREADS=2"),
        (
            {"FASTDROP_NUM_THREADS": "3", "OMP_NUM_THREADS": "2"},
            "2 OpenMP allows no more (omp_get_max_threads), out of 3",
        ),
    ],
)
def test_the_environment_decides_on_threads(environment, expected):
    assert run(THREADS, **environment).stdout.strip() == expected


@OPENMP
@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no affinity here")
@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="one CPU")
def test_affinity_decides_on_threads():
    one = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})"
    expected = f"1 this process's affinity: 1 of {os.cpu_count()} CPUs"
    assert run(one + THREADS).stdout.strip() == expected


def test_a_quota_decides_on_threads(monkeypatch):
    for name in ("FASTDROP_NUM_THREADS", "OMP_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(_config, "cgroup_cpus", lambda: 0.5)
    assert _config._default_threads() == (1, "the control group's quota of 0.5 CPUs")


@OPENMP
def test_set_num_threads_decides_on_threads():
    code = "import fastdrop; fastdrop.set_num_threads(2)" + THREADS
    assert run(code, OMP_NUM_THREADS="5").stdout.strip() == "2 set_num_threads"


def fake_mpi4py(monkeypatch, mpi):
    package = ModuleType("mpi4py")
    package.__version__, package.rc = "4.1", SimpleNamespace(initialize=True)

    def attribute(name):
        if name == "MPI":
            return mpi(package.rc)
        raise AttributeError(name)

    package.__getattr__ = attribute
    monkeypatch.setitem(sys.modules, "mpi4py", package)


def test_mpi_is_found_and_not_initialised(monkeypatch):
    def mpi(rc):
        assert not rc.initialize
        return SimpleNamespace(Get_library_version=lambda: "MPICH Version:\t5.0\nMPICH ABI: 1\n")

    fake_mpi4py(monkeypatch, mpi)
    assert info.collect()["MPI"] == "MPICH Version: 5.0, through mpi4py 4.1"


def test_mpi4py_without_a_library(monkeypatch):
    def mpi(rc):
        raise RuntimeError("cannot load MPI library\nlibmpi.so: no such file")

    fake_mpi4py(monkeypatch, mpi)
    assert info.collect()["MPI"] == (
        "not found: mpi4py 4.1 has no MPI library (cannot load MPI library)"
    )


def test_no_mpi4py(monkeypatch):
    monkeypatch.setitem(sys.modules, "mpi4py", None)
    assert info.collect()["MPI"] == "not found: mpi4py is not installed"
