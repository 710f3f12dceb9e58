"""Where the time of a training step goes, for the networks of training.py, trained by `fit`.

    python benchmarks/stages.py --out docs/bench

A clock around each kind of call measures wall time. The figures are means over the quickest of some
epochs. Time that no clock covers is Python's. The products alone take turns with it.
"""

import argparse
import contextlib
import os
import sys
import time
from collections import Counter
from unittest import mock

import numpy as np
from rows import add_out
from training_sides import CLASSES, EACH, INPUTS, ONE, Fastdrop, Point, name_of

from fastdrop import optimizers
from fastdrop.callbacks import Callback
from fastdrop.commands.bench.keep import keep
from fastdrop.commands.bench.machine import results_folder
from fastdrop.compiled import _train
from fastdrop.training import batches, chains, figures, step

TABLE = "stages.md"
LARGE, SMALL = (INPUTS, 1024, 1024, CLASSES), (INPUTS, 256, 256, CLASSES)
POINTS = [Point(LARGE, 128, EACH), Point(SMALL, 64, EACH), Point(LARGE, 128, ONE)]
STEPS, UNTIMED = 100, 10
PYTHON, ALL = "Python between them", "all"
UPDATE = "update, with the products that are weights' gradients"
FLOOR = "the products alone, of all units"


class Clocks(Callback):
    """Seconds spent in functions, by what they do, and in all, after some steps."""

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

    def clocked_chain(self, *arguments):
        """Return a chain with a clock around its two calls, which nobody can assign to a chain."""
        chain = Chain(*arguments)
        forward, backward = super(Chain, chain).forward, super(Chain, chain).backward
        chain.timed = self.around("forward", forward), self.around("backward", backward)
        return chain

    @contextlib.contextmanager
    def running(self):
        clocked = [
            (batches._Samples, "take", self.around("gathering a batch", batches._Samples.take)),
            (chains, "Chain", self.clocked_chain),
            (_train, "submatrix", self.around("gathering kept weights", _train.submatrix)),
            (step.Step, "_loss", self.around("loss", step.Step._loss)),
            (optimizers, "update", self.around(UPDATE, optimizers.update)),
            (figures.Figures, "add", self.around("metrics", figures.Figures.add)),
        ]
        with contextlib.ExitStack() as stack:
            for target, name, function in clocked:
                stack.enter_context(mock.patch.object(target, name, function))
            yield


class Chain(chains.Chain):
    """A chain whose calls are `timed`."""

    def forward(self, *arguments):
        return self.timed[0](*arguments)

    def backward(self, *arguments):
        return self.timed[1](*arguments)


class Quickest:
    """A network's quickest epoch so far: seconds of a step, of its stages, and of the products."""

    def __init__(self, point):
        random = np.random.default_rng(1)
        self.x = random.random((point.batch * STEPS, INPUTS), np.float32)
        self.y = random.integers(10, size=len(self.x))
        library = Fastdrop(os.cpu_count())
        self.model, self.batch = library.prepare("fastdrop", point).args
        self.products = library.prepare("floor", point)
        self.best, self.floor = None, np.inf

    def measure(self):
        clocks = Clocks()
        with clocks.running():
            self.model.fit(self.x, self.y, self.batch, callbacks=clocks, verbose=0)
        floor = self.products(self.x, self.y, UNTIMED).seconds
        if self.best is None or clocks.all < self.best.all:
            self.best = clocks
        self.floor = min(self.floor, floor)
        time.sleep(0.2)  # NumPy's threads spin for half of that

    def stages(self):
        """Return microseconds by what they are spent on."""
        seconds = self.best.seconds
        timed = (STEPS - UNTIMED) / 1e6
        stages = seconds | {PYTHON: self.best.all - seconds.total(), ALL: self.best.all}
        return {stage: total / timed for stage, total in stages.items()} | {FLOOR: self.floor * 1e6}


def table(columns):
    """Format microseconds of stages by network as Markdown."""
    lines = [f"| a step of | {' | '.join(columns)} |", "|---|" + "---:|" * len(columns)]
    found = dict.fromkeys(stage for stages in columns.values() for stage in stages)
    for stage in [*(stage for stage in found if stage not in (ALL, FLOOR)), ALL, FLOOR]:
        cells = [f"{us[stage]:.0f}" if stage in us else "" for us in columns.values()]
        lines.append(f"| {stage} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=15)
    add_out(parser)
    arguments = parser.parse_args()
    networks = {
        f"{name_of(point.widths)}, batch {point.batch}, {point.masks}, us": Quickest(point)
        for point in POINTS
    }

    def files(missing):
        columns = {name: network.stages() for name, network in networks.items() if network.best}
        return {TABLE: table(columns)} if columns else {}

    return keep(
        list(networks.items()),
        arguments.epochs,
        lambda network, _: network.measure(),
        files,
        arguments.out and results_folder(arguments.out, (TABLE,)),
    )


if __name__ == "__main__":
    sys.exit(main())
