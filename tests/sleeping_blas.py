"""Whether the threads of NumPy's OpenBLAS sleep while we compute."""

import sys

import pytest
from processes import run

# OpenBLAS starts its threads when NumPy is imported, and they are all that there are then.
PROGRAM = """
import os
import time

import numpy as np

main = os.getpid()
threads = [t for t in os.listdir("/proc/self/task") if int(t) != main]


def worked():
    return sum(int(open(f"/proc/self/task/{{t}}/schedstat").read().split()[0]) for t in threads)


{code}
time.sleep(0.2)  # they spin when they are started
before = worked()
train()
ours = worked() - before
np.ones((400, 400)) @ np.ones((400, 400))  # wakes them
time.sleep(0.3)
print(len(threads), ours / 1e6, (worked() - before) / 1e6 - ours / 1e6)
"""


def assert_they_sleep(code):
    """Run code that defines a function `train`, and look at what OpenBLAS's threads did in it."""
    if not sys.platform.startswith("linux"):
        pytest.skip("needs Linux's statistics of threads")
    result = run(PROGRAM.format(code=code), OPENBLAS_NUM_THREADS="2", FASTDROP_NUM_THREADS="2")
    assert not result.stderr, result.stderr
    threads, ours, numpys = map(float, result.stdout.split())
    if not threads or not numpys:
        pytest.skip("NumPy's BLAS has no threads here, or Linux does not count their time")
    assert ours < 2, f"the BLAS's threads ran {ours} ms in training, {numpys} ms in a product"
