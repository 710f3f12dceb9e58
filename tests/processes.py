"""Other processes, for what one process can be asked only once."""

import os
import pickle
import signal
import subprocess
import sys
import time

import pytest

from fastdrop.compiled import _core

OPENMP = pytest.mark.skipif(not _core.openmp_version(), reason="this build has no OpenMP")


def run(code, **environment):
    """Standard output of a fresh interpreter with these environment variables."""
    names = ("OMP_NUM_THREADS", "OMP_WAIT_POLICY", "FASTDROP_NUM_THREADS", "FASTDROP_ISA")
    env = {name: value for name, value in os.environ.items() if name not in names} | environment
    return subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=60
    )


def forked(function):
    """What a function returns in a forked child."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(writing, pickle.dumps(function()))
        finally:
            os._exit(0)
    os.close(writing)
    with open(reading, "rb") as file:
        return pickle.loads(file.read())


def status_of(child):
    """Exit status of a child; one that hangs is killed."""
    for _ in range(1000):
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            return status
        time.sleep(0.03)
    os.kill(child, signal.SIGKILL)
    return os.waitpid(child, 0)[1]
