"""How much memory `fit` takes at its peak, compared with what it needs at least (Linux).

    python benchmarks/memory.py --out docs/bench

Each line is a process of its own. The peak is what the process takes beyond an interpreter that has
trained a tiny model, so that the code of its libraries and the buffers of threads are in memory.
What `fit` needs at least is the sum of the data, of four arrays of the parameters' sizes (the
parameters, their gradients, Adam's two means) and of one batch's activations. Beyond that sum `fit`
holds the gradients of these activations and the order of the samples. Of the parameters' gradients
it holds only the largest.
"""

import argparse
import re
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
from rows import add_out, keep_rows

from fastdrop import layers
from fastdrop.models import Sequential

HIDDEN, BATCH = (1024, 1024), 128
MIB = 2**20


def status(field):
    """Return a figure of this process, in bytes."""
    kib = re.search(rf"{field}:\s*(\d+) kB", Path("/proc/self/status").read_text())[1]
    return int(kib) * 1024


def network(hidden):
    stack = [layers.Input((784,))]
    for units in hidden:
        stack += [layers.Dense(units, activation="relu"), layers.Dropout(0.5)]
    model = Sequential([*stack, layers.Dense(10, activation="softmax")], seed=1)
    model.compile("adam", "sparse_categorical_crossentropy", ["accuracy"])
    return model


def samples_of(dtype, samples):
    random = np.random.default_rng(1)
    y = random.integers(10, size=samples)
    if dtype == "uint8":
        return random.integers(256, size=(samples, 784), dtype=np.uint8), y
    return random.random((samples, 784), dtype), y


def measure(dtype, samples):
    """Return a row: the peak, the least that is needed, and their ratio."""
    square = np.ones((1024, 1024), np.float32)
    np.matmul(square, square, out=np.empty_like(square))  # NumPy's threads and their buffers
    del square
    network((64, 64)).fit(*samples_of(dtype, 64), 32, verbose=0)  # and our threads and buffers
    idle = status("VmRSS")
    x, y = samples_of(dtype, samples)
    model = network(HIDDEN)
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts here
    model.fit(x, y, BATCH, verbose=0)
    taken = status("VmHWM") - idle
    parameters = sum(param.nbytes for param in model.params.values())
    activations = BATCH * (784 + sum(HIDDEN) + 10) * 4
    needed = x.nbytes + y.nbytes + 4 * parameters + activations
    also = BATCH * sum(HIDDEN) * 4 + samples * np.dtype(np.intp).itemsize
    return (
        f"| {samples} x 784 {dtype} | {taken / MIB:.1f} | {needed / MIB:.1f} "
        f"| {(x.nbytes + y.nbytes) / MIB:.1f} | {taken / needed:.2f} "
        f"| {also / MIB:.1f} | {taken / (needed + also):.3f} |"
    )


def in_a_process(dtype, samples):
    command = [sys.executable, __file__, "--samples", str(samples), "--dtype", dtype]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=60000)
    parser.add_argument("--dtype", help="measure this type alone, in this very process")
    add_out(parser)
    arguments = parser.parse_args()
    if arguments.dtype:
        print(measure(arguments.dtype, arguments.samples))
        return None
    head = "| data | taken, MiB | needed, MiB | of which data | ratio "
    head += "| gradients of activations, order of samples, MiB | ratio with these |"
    head += "\n|---|---:|---:|---:|---:|---:|---:|"
    rows = [
        (dtype, partial(in_a_process, dtype, arguments.samples)) for dtype in ("float32", "uint8")
    ]
    return keep_rows([(head, rows)], "memory.md", arguments.out)


if __name__ == "__main__":
    sys.exit(main())
