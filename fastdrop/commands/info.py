"""`fastdrop info`: what an administrator asks first, about this build, machine and process."""

from __future__ import annotations

import argparse
import os
import platform
import re
import sys
import sysconfig
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from fastdrop import __version__, get_num_threads
from fastdrop._config import listed, loaded_libraries, show_config
from fastdrop.commands.arguments import Commands, add_command
from fastdrop.commands.bench.machine import machine
from fastdrop.compiled import _core

__all__ = ["Version", "add", "collect", "run"]

_BLAS = r"(?:scipy_)?openblas\w*|mkl_rt|mkl_core|blis\w*|flexiblas|blas|atlas|armpl\w*"
_VARIABLES = r"FASTDROP_|OMP_|GOMP_|KMP_|OPENBLAS_|MKL_|BLIS_|SLURM_(NTASKS|CPUS_PER_TASK)$"


class Version(argparse.Action):
    """``--version``: at a glance, what a report of a fault needs."""

    def __init__(self, option_strings: Sequence[str], dest: str, **more: Any) -> None:
        super().__init__(option_strings, argparse.SUPPRESS, nargs=0, **more)

    def __call__(self, parser: argparse.ArgumentParser, *given: object) -> None:
        threads, isa = get_num_threads(), _core.active_isa()
        print(f"fastdrop {__version__}")
        print(f"{platform.python_implementation()} {platform.python_version()}", end=", ")
        print(f"NumPy {np.__version__}, {platform.platform()}")
        print(f"{machine()['cpu']}, {os.cpu_count()} CPUs; {isa}, {threads} threads")
        parser.exit()


def add(commands: Commands) -> None:
    """Add the command."""
    add_command(
        commands,
        "info",
        run,
        "tell what fastdrop uses on this machine",
        "Tell what fastdrop uses on this machine and why: instruction set, threads, "
        "OpenMP, BLAS and MPI libraries, environment variables.",
        ("", "--json"),
    )


def run(arguments: argparse.Namespace) -> None:
    """Print what `collect` returns as a table.

    Parameters
    ----------
    arguments : argparse.Namespace
        Of the command line.
    """
    facts = collect()
    width = max(map(len, facts))
    table = "\n".join(f"{name:{width}}  {value}" for name, value in facts.items())
    arguments.console.result(table, facts)


def collect() -> dict[str, object]:
    """Return `fastdrop.show_config`'s facts, and those about the process around it.

    MPI is found, but not initialised.

    Returns
    -------
    dict
        Name of a fact to what there is to print.
    """
    config = show_config("dicts")
    assert config is not None
    given = [f"{name}={value}" for name, value in os.environ.items() if re.match(_VARIABLES, name)]
    return {
        **config,
        "BLAS libraries in this process": listed(loaded_libraries(_BLAS)),
        "MPI": _mpi(),
        "PyTorch": _version("torch"),
        "NumPy": np.__version__,
        "Python": _python(),
        "system": f"{platform.platform()}, {os.cpu_count()} CPUs",
        "environment": ", ".join(sorted(given)) or "nothing set",
        "installed in": str(Path(__file__).parents[1]),
    }


def _python() -> str:
    text = f"{platform.python_version()}, {sys.executable}"
    if not sysconfig.get_config_var("Py_GIL_DISABLED"):
        return text
    gil = getattr(sys, "_is_gil_enabled", lambda: True)()
    return f"{text}, free-threaded, the GIL is {'on' if gil else 'off'}"


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _mpi() -> str:
    """mpi4py's version and the MPI library that it finds."""
    try:
        import mpi4py
    except ImportError:
        return "not found: mpi4py is not installed"
    found = f"mpi4py {mpi4py.__version__}"
    mpi4py.rc.initialize = False
    try:
        from mpi4py import MPI
    except (ImportError, RuntimeError) as error:
        return f"not found: {found} has no MPI library ({str(error).splitlines()[0]})"
    library = re.split(r"[,\n]", MPI.Get_library_version())[0]
    return f"{' '.join(library.split())}, through {found}"
