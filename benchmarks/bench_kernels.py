"""Latency and bandwidth of kernels, compared with a copy and with the NumPy idiom.

pytest benchmarks/                    everything
pytest benchmarks/ -k "64Ki"          one size
"""

import numpy as np
import pytest

import fastdrop
from fastdrop import Key

KEY = Key(1)
LATENCY = {"64": 64, "256": 256, "1Ki": 1 << 10, "4Ki": 1 << 12}
BANDWIDTH = {"64Ki": 1 << 16, "1Mi": 1 << 20, "16Mi": 1 << 24, "64Mi": 1 << 26}


def copy(x, out):
    return lambda: np.copyto(out, x)


def numpy_idiom(x, out, p=0.5):
    rng, scale = np.random.Generator(np.random.SFC64(1)), np.float32(1 / (1 - p))

    def run():
        keep = rng.random(x.shape, np.float32) >= p
        np.multiply(x, keep, out=out)
        np.multiply(out, scale, out=out)

    return run


def dropout(p, threads):
    return lambda x, out: lambda: fastdrop.dropout(x, p, key=KEY, out=out, num_threads=threads)


SIDES = {
    "copy": copy,
    "numpy": numpy_idiom,
    "fastdrop p=.5": dropout(0.5, 1),
    "fastdrop p=.1": dropout(0.1, 1),
    "fastdrop p=.5, default threads": dropout(0.5, None),
}


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("size", LATENCY | BANDWIDTH)
def bench(benchmark, side, size):
    n = (LATENCY | BANDWIDTH)[size]
    benchmark.group = f"{'latency' if size in LATENCY else 'bandwidth'} {size}"
    benchmark.extra_info["elements"] = n
    x = np.random.default_rng(0).standard_normal(n, np.float32)
    benchmark(SIDES[side](x, np.empty_like(x)))
