"""What the PyTorch examples share: training with torch.nn's dropout and with fastdrop's."""

import argparse
import statistics
import sys
import time
from pathlib import Path

import torch

import fastdrop.torch as fnn
from fastdrop.commands.bench.keep import keep
from fastdrop.commands.bench.machine import results_folder

SIDES = ("torch.nn", "fastdrop.torch")
BATCH = 128


def train(models, x, y, steps):
    """Train each model a step in turn on the same batches; return the seconds of their steps.

    Targets are classes, on the last axis but one.
    """
    optimizers = {side: torch.optim.Adam(m.parameters(), 1e-3) for side, m in models.items()}
    order = torch.Generator().manual_seed(0)
    times = {side: [] for side in models}
    for _ in range(steps):
        rows = torch.randint(len(x), (BATCH,), generator=order)
        inputs, targets = x[rows], y[rows].flatten()
        for side, model in models.items():
            start = time.perf_counter()
            optimizers[side].zero_grad()
            logits = model(inputs).flatten(0, -2)
            torch.nn.functional.cross_entropy(logits, targets).backward()
            optimizers[side].step()
            times[side].append(time.perf_counter() - start)
    return times


def accuracy(model, x, y):
    model.eval()
    with torch.inference_mode():
        return (model(x).argmax(-1) == y).float().mean().item()


def compare(build, data, description):
    """Train what `build` returns with each dropout, from the same weights, and print a table."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--steps", type=int, default=300, help="training steps (%(default)s)")
    parser.add_argument("--seeds", type=int, default=1, help="trainings of each (%(default)s)")
    parser.add_argument("--out", type=Path, help="folder for the table; none by default")
    options = parser.parse_args()
    table = f"{Path(sys.argv[0]).stem}.md"
    out = options.out and results_folder(options.out, (table,))
    x_train, y_train, x_test, y_test = data
    times = {side: [] for side in SIDES}
    shares = {side: [] for side in SIDES}

    def train_both(_, number):
        models = {}
        for side in SIDES:
            torch.manual_seed(number - 1)
            models[side] = build()
        fnn.convert(models["fastdrop.torch"])
        for side, seconds in train(models, x_train, y_train, options.steps).items():
            times[side] += seconds
            shares[side].append(accuracy(models[side], x_test, y_test))

    def files(missing):
        if not shares[SIDES[-1]]:
            return {}
        lines = [
            f"{description.splitlines()[0]}. PyTorch {torch.__version__}, "
            f"{torch.get_num_threads()} threads; {options.steps} steps of {BATCH}, "
            f"{len(shares[SIDES[-1]])} trainings of each.",
            "",
            "| dropout | ms per step, median | times | test accuracy, mean (least - most) |",
            "|---|---:|---:|---:|",
        ]
        ms = {side: statistics.median(times[side]) * 1e3 for side in SIDES}
        for side in SIDES:
            mean, least, most = statistics.mean(shares[side]), min(shares[side]), max(shares[side])
            lines.append(
                f"| {side} | {ms[side]:.2f} | {ms[SIDES[0]] / ms[side]:.2f} "
                f"| {mean:.4f} ({least:.4f} - {most:.4f}) |"
            )
        return {table: "\n".join(lines)}

    keep([("trainings", None)], options.seeds, train_both, files, out)


def digits():
    """Return images (n, 8, 8) in [0, 1] and their classes; the last 400 are for testing."""
    from fastdrop.datasets import load_digits

    images, labels = map(torch.from_numpy, load_digits())
    x, y = images.float() / 16, labels.long()
    return x[:-400], y[:-400], x[-400:], y[-400:]
