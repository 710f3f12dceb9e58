"""Products of the shapes that small networks have: ours beside NumPy's BLAS, on one thread.

python benchmarks/products.py --out docs/bench

The notes above the table say what is measured.
"""

import argparse
import sys
from functools import partial

import numpy as np
from rows import add_out, keep_rows
from threadpoolctl import threadpool_limits
from threads import medians

import fastdrop
from fastdrop.compiled._products import matmul

NOTES = """\
The three products of a layer in a training step, on one thread: outputs x w^T, the gradient of x,
dz w, and the gradient of w, dz^T x. Time per product in us: NumPy's BLAS, ours, and how many times
as long NumPy takes. Both sides take turns; medians.
"""
# samples of a batch, inputs, units
SHAPES = [
    (1, 1024, 1024),
    (200, 8, 64),
    (200, 13, 50),
    (200, 50, 10),
    (200, 64, 1),
    (200, 64, 64),
    (200, 784, 50),
    (200, 784, 64),
    (200, 512, 512),
    (32, 256, 256),
    (128, 1024, 1024),
]
ENOUGH = 3e7  # multiplications and additions of what is timed at once: some ms


def factors(samples, inputs, units, dtype):
    """Return the factors of the three products."""
    rng = np.random.default_rng(0)
    x, w, dz = (
        rng.normal(size=shape).astype(dtype)
        for shape in ((samples, inputs), (units, inputs), (samples, units))
    )
    return (x, w.T), (dz, w), (dz.T, x)


def repeated(multiply, a, b, out, times):
    for _ in range(times):
        multiply(a, b, out)


def row_of(shape, dtype, rounds):
    """Return a row of the table."""
    times, cells = max(1, round(ENOUGH / np.prod(shape))), []
    for a, b in factors(*shape, dtype):
        out = np.empty((len(a), b.shape[1]), dtype)
        timed = medians(
            {
                side: partial(repeated, multiply, a, b, out, times)
                for side, multiply in (("numpy", np.matmul), ("ours", matmul))
            },
            rounds,
        )
        numpys, ours = (timed[side] / times for side in ("numpy", "ours"))
        cells += [f"{numpys:.1f}", f"{ours:.1f}", f"**{numpys / ours:.2f}**"]
    return f"| {dtype} | {' x '.join(map(str, shape))} | {' | '.join(cells)} |"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    add_out(parser)
    given = parser.parse_args()
    fastdrop.set_num_threads(1)
    products = ("x w^T", "dz w", "dz^T x")
    columns = " | ".join(f"{name}: NumPy, us | ours | ratio" for name in products)
    head = f"{NOTES}\n| dtype | samples x inputs x units | {columns} |\n|---|---|{'---:|' * 9}"
    rows = [
        (f"{dtype} {shape}", partial(row_of, shape, dtype, given.rounds))
        for dtype in ("float64", "float32")
        for shape in SHAPES
    ]
    with threadpool_limits(1):
        return keep_rows([(head, rows)], "products.md", given.out)


if __name__ == "__main__":
    sys.exit(main())
