"""Where the time of a training step goes: the same networks as in training.py, trained by `fit`.

    python benchmarks/stages.py > docs/bench/stages.md

Wall time by a clock around each kind of call: means over the quickest of some epochs. What no clock
covers is Python's. The products alone take turns with it.
"""

import argparse
import contextlib
import os
import time
from collections import Counter
from types import SimpleNamespace
from unittest import mock

import numpy as np
from training_sides import EACH, INPUTS, ONE, Fastdrop, Point

from fastdrop import optimizers
from fastdrop.callbacks import Callback
from fastdrop.compiled import _core
from fastdrop.training import batches, blocks, figures, loop, step

POINTS = [Point(1024, 128, EACH), Point(256, 64, EACH), Point(1024, 128, ONE)]
STEPS, UNTIMED = 100, 10
PYTHON = "Python between them"


class Clocks(Callback):
    """Seconds spent in functions, by the name of what they do, and in all, after some steps."""

    def __init__(self):
        self.seconds = Counter()
        self._inside = 0.0  # seconds of calls within the one that is being timed

    def on_train_batch_end(self, batch, logs):
        if batch == UNTIMED - 1:
            self.seconds.clear()
            self._start = time.perf_counter()

    def on_epoch_end(self, epoch, logs):
        self.all = time.perf_counter() - self._start

    def around(self, stage, function):
        def timed(*arguments, **named):
            before, self._inside = self._inside, 0.0
            start = time.perf_counter()
            result = function(*arguments, **named)
            seconds = time.perf_counter() - start
            self.seconds[stage] += seconds - self._inside
            self._inside = before + seconds
            return result

        return timed

    @contextlib.contextmanager
    def running(self):
        core = SimpleNamespace(**vars(_core))
        core.masked_bias = self.around("bias, ReLU, dropout: forward", _core.masked_bias)
        core.bias_backward = self.around("bias, ReLU, dropout: backward", _core.bias_backward)
        clocked = [
            (blocks, "_core", core),
            (loop, "matmul", self.around("products", loop.matmul)),
            (blocks, "submatrix", self.around("gathering kept weights", blocks.submatrix)),
            (optimizers, "update", self.around("optimiser", optimizers.update)),
            (step.Step, "_loss", self.around("loss", step.Step._loss)),
            (figures.Figures, "add", self.around("metrics", figures.Figures.add)),
            (batches._Samples, "take", self.around("gathering a batch", batches._Samples.take)),
        ]
        with contextlib.ExitStack() as stack:
            for target, name, function in clocked:
                stack.enter_context(mock.patch.object(target, name, function))
            yield


def measure(point, epochs):
    """Return (seconds of a step, of its stages, of the floor), of the quickest epoch each."""
    random = np.random.default_rng(1)
    x = random.random((point.batch * STEPS, INPUTS), np.float32)
    y = random.integers(10, size=len(x))
    library = Fastdrop(os.cpu_count())
    model, batch = library.prepare("fastdrop", point).args
    products = library.prepare("floor", point)
    best, floor = None, np.inf
    for _ in range(epochs):
        clocks = Clocks()
        with clocks.running():
            model.fit(x, y, batch, callbacks=clocks, verbose=0)
        best = clocks if best is None or clocks.all < best.all else best
        floor = min(floor, products(x, y, UNTIMED).seconds)
        time.sleep(0.2)  # NumPy's threads spin for half of that
    stages = best.seconds | {PYTHON: best.all - best.seconds.total()}
    timed = STEPS - UNTIMED
    return best.all / timed, {stage: total / timed for stage, total in stages.items()}, floor


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=15)
    epochs = parser.parse_args().epochs
    found = [measure(point, epochs) for point in POINTS]
    names = [f"784-{p.hidden}-{p.hidden}-10, batch {p.batch}, {p.masks}, us" for p in POINTS]
    print(f"| a step of | {' | '.join(names)} |")
    print("|---|" + "---:|" * len(names))
    for stage in dict.fromkeys(stage for _, stages, _ in found for stage in stages):
        cells = [f"{stages[stage] * 1e6:.0f}" if stage in stages else "" for _, stages, _ in found]
        print(f"| {stage} | {' | '.join(cells)} |")
    for name, times in (
        ("all", [seconds for seconds, _, _ in found]),
        ("the products alone, of all units", [floor for _, _, floor in found]),
    ):
        print(f"| {name} | " + " | ".join(f"{seconds * 1e6:.0f}" for seconds in times) + " |")


if __name__ == "__main__":
    main()
