"""Starting programs on several ranks."""

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

MPIEXEC = shutil.which("mpiexec", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
needs_mpi = pytest.mark.skipif(
    MPIEXEC is None or importlib.util.find_spec("mpi4py") is None,
    reason="needs mpi4py and mpiexec: pip install '.[test-mpi]'",
)
LAUNCHED = ("OMPI_", "PMI_", "PMIX_", "SLURM_", "HYDRA_")
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith(LAUNCHED)}
ENVIRONMENT |= {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MPLBACKEND": "agg"}
FOLDERS = [str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])]


def mpiexec(ranks, *command, **options):
    """Run a Python program on so many ranks."""
    oversubscribe = []
    if "Open MPI" in subprocess.check_output([MPIEXEC, "--version"], text=True):
        oversubscribe = ["--allow-run-as-root", "--oversubscribe"]
    return subprocess.Popen(
        [MPIEXEC, *oversubscribe, "-n", str(ranks), sys.executable, *map(str, command)],
        env=ENVIRONMENT | {"PYTHONPATH": os.pathsep.join(FOLDERS)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def finish(process, timeout=300):
    out, error = process.communicate(timeout=timeout)
    return process.returncode, out, error
