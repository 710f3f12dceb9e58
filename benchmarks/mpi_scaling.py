"""How much faster two ranks train than one, and up to how many nodes it should therefore pay.

    mpiexec -n 2 python benchmarks/mpi_scaling.py --out docs/bench

In one run, one rank alone (while the other sleeps) and both together take turns, each with one
thread. This writes mpi.md and mpi.json.
"""

import os

os.environ["OPENBLAS_NUM_THREADS"] = os.environ["FASTDROP_NUM_THREADS"] = "1"

import argparse
import json
import signal
import statistics
import time
from pathlib import Path

import numpy as np
from mpi4py import MPI

from fastdrop import layers, models
from fastdrop.callbacks import Callback
from fastdrop.commands.bench.keep import ENDS, keep
from fastdrop.commands.bench.machine import machine, results_folder
from fastdrop.random import Key, uniform

TABLE, RESULTS = "mpi.md", "mpi.json"
HIDDEN, INPUTS, CLASSES, BATCH, P = 1024, 784, 10, 512, 0.5
COMM = MPI.COMM_WORLD

# bytes per second in each direction, seconds
NETWORKS = {"10 Gbit/s Ethernet": (1.1e9, 30e-6), "100 Gbit/s InfiniBand": (11e9, 2e-6)}
NODES = [2**k for k in range(8)]
# how fast a node is, compared with one thread of this machine, and the global batch
POINTS = [(1, 512), (16, 512), (16, 8192)]
EFFICIENT = 0.5  # n nodes pay if they are at least n / 2 times as fast as one


class Clock(Callback):
    """The times between the ends of batches."""

    def on_epoch_begin(self, epoch, logs=None):
        self.ends = [time.perf_counter()]

    def on_train_batch_end(self, batch, logs):
        self.ends.append(time.perf_counter())

    def step(self):
        """Return the seconds of a step, without the first two steps."""
        return statistics.median(np.diff(self.ends)[2:])


def make_model():
    model = models.Sequential(
        [
            layers.Dense(HIDDEN, "relu", input_shape=(INPUTS,)),
            layers.Dropout(P),
            layers.Dense(HIDDEN, "relu"),
            layers.Dropout(P),
            layers.Dense(CLASSES, "softmax"),
        ],
        seed=0,
    )
    model.compile("adam", "sparse_categorical_crossentropy", ["accuracy"])
    return model


def seconds(batch, steps, comm):
    """Return the seconds of a step of training."""
    model = make_model()
    samples = batch * (steps + 2)
    x = uniform(Key(1), (samples, INPUTS)).astype(np.float32)
    y = (uniform(Key(2), (samples,)) * CLASSES).astype(int)
    clock = Clock()
    model.fit(x, y, batch, verbose=0, callbacks=[clock], comm=comm)
    return clock.step() if comm is None or comm.rank == 0 else None


def alone(function):
    """Return what rank 0 computes while the other sleeps; a barrier would keep it busy."""
    result = function() if COMM.rank == 0 else None
    done = COMM.Ibarrier()
    while not done.Test():
        time.sleep(0.002)
    return result


def reduction(size):
    """Return the seconds that a sum of `size` bytes over both ranks takes."""
    array = np.zeros(size // 4, np.float32)
    times = []
    for _ in range(30):
        COMM.Barrier()
        start = time.perf_counter()
        COMM.Allreduce(MPI.IN_PLACE, array)
        times.append(time.perf_counter() - start)
    return statistics.median(times)


class Turns:
    """What both ranks measure together, and the results."""

    def __init__(self, steps):
        gradient = sum(param.nbytes for param in make_model().params.values())
        self.steps, self.turns = steps, []
        self.found = {
            "library": MPI.Get_library_version().partition("\n")[0].strip("\0 "),
            "gradient": gradient,
            "latency": reduction(8),
            "reduction": reduction(gradient),
            "turns": self.turns,
            "machine": machine(),
        }

    def measure(self, step=None, number=0):
        signal.pthread_sigmask(signal.SIG_BLOCK, ENDS)  # a rank that leaves fit ends both at once
        turn = {
            "one": alone(lambda: seconds(BATCH, self.steps, None)),
            "half": alone(lambda: seconds(BATCH // 2, self.steps, None)),
            "two": seconds(BATCH, self.steps, COMM),
        }
        self.turns.append(turn)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDS)

    def files(self, missing):
        if not self.turns:
            return {}
        found = {**self.found, "missing": missing}
        return {TABLE: report(found), RESULTS: json.dumps(found, indent=1)}


def predicted(nodes, speed, batch, row, fixed, gradient, bandwidth, latency):
    """Return the seconds of a step on several nodes.

    Each node computes its rows and the whole update. The sum over n nodes sends and receives
    2 (n - 1) / n of the gradient's bytes in 2 log2(n) messages. No part of it is hidden behind the
    backward pass.
    """
    compute = (batch / nodes * row + fixed) / speed
    if nodes == 1:
        return compute
    sent = 2 * (nodes - 1) / nodes * gradient / bandwidth
    return compute + sent + 2 * np.log2(nodes) * latency


def report(found):
    turns = found["turns"]
    one, half, two = (statistics.median(turn[k] for turn in turns) for k in ("one", "half", "two"))
    ratios = [turn["one"] / turn["two"] for turn in turns]
    row = (one - half) / (BATCH / 2)
    fixed = max(one - BATCH * row, 0)
    gradient = found["gradient"]
    lines = [
        f"{found['machine']['cpu']}, {found['machine']['isa']}; {found['library']}. "
        f"{INPUTS}-{HIDDEN}-{HIDDEN}-{CLASSES}, "
        f"p = {P:g}, Adam, float32, global batch {BATCH}, one thread a rank. Made by "
        "`mpiexec -n 2 python benchmarks/mpi_scaling.py`; medians.",
        "",
        "| | ms |",
        "|---|---:|",
        f"| a step, 1 rank | {1e3 * one:.1f} |",
        f"| a step, 2 ranks | {1e3 * two:.1f} |",
        f"| a step of {BATCH // 2} rows, 1 rank | {1e3 * half:.1f} |",
        f"| sum of the gradients ({gradient / 1e6:.1f} MB), 2 ranks | "
        f"{1e3 * found['reduction']:.2f} |",
        f"| sum of 8 bytes, 2 ranks | {1e3 * found['latency']:.4f} |",
        "",
        f"Two ranks are {statistics.median(ratios):.2f} times as fast as one "
        f"({min(ratios):.2f} to {max(ratios):.2f} in {len(ratios)} turns).",
        "",
        f"The model: a row takes {1e6 * row:.0f} us of one thread, the rest of a step "
        f"{1e3 * fixed:.1f} ms; a sum over n nodes moves 2 (n - 1) / n of {gradient / 1e6:.1f} MB "
        "and waits 2 log2(n) times for the network; nothing overlaps. Speed, times one node:",
        "",
        "| a node is | batch | network | "
        + " | ".join(f"{n} nodes" for n in NODES[1:])
        + " | pays up to |",
        "|---|---:|---|" + "---:|" * len(NODES),
    ]
    for speed, batch in POINTS:
        for network, (bandwidth, latency) in NETWORKS.items():
            known = speed, batch, row, fixed, gradient, bandwidth, latency
            times = [predicted(n, *known) for n in NODES]
            faster = [times[0] / t for t in times]
            most = max(n for n, f in zip(NODES, faster) if f >= EFFICIENT * n)
            node = "1 thread of these" if speed == 1 else f"{speed} times as fast"
            label = f"{network} ({bandwidth / 1e9:g} GB/s, {1e6 * latency:g} us)"
            cells = " | ".join(f"{f:.1f}" for f in faster[1:])
            lines.append(f"| {node} | {batch} | {label} | {cells} | {most} |")
    lines += ["", f"It pays where n nodes are at least {EFFICIENT:g} n times as fast as one."]
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, default=Path())
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=12)
    arguments = parser.parse_args()
    if COMM.size != 2:
        parser.error(f"expected mpiexec -n 2, got {COMM.size} processes")
    if COMM.rank == 0:
        out = results_folder(arguments.out, (TABLE, RESULTS))
        turns = Turns(arguments.steps)
        try:
            keep([("turns", None)], arguments.rounds, turns.measure, turns.files, out)
        except SystemExit as stopped:
            COMM.Abort(stopped.code)
    else:
        for number in ENDS:
            signal.signal(number, signal.SIG_IGN)  # rank 0 ends both after its files are written
        turns = Turns(arguments.steps)
        for _ in range(arguments.rounds):
            turns.measure()


if __name__ == "__main__":
    main()
