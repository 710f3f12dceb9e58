"""`fastdrop.torch.predict_mc` compared with the loop that everybody writes.

    python benchmarks/torch_predict_mc.py --out docs/bench

The loop calls eval(), then train() on each dropout layer, then makes pass after pass. It stacks the
softmax of the passes for mean and standard deviation. Both sides take turns in one process. The
figures are medians, and the median of the ratios within a round. This writes torch_predict_mc.md.
"""

import argparse
import statistics
import sys
from functools import partial
from itertools import pairwise
from pathlib import Path

import torch
from torch import nn

import fastdrop.torch as fnn
from fastdrop.commands.bench.keep import keep
from fastdrop.commands.bench.machine import results_folder
from fastdrop.commands.bench.turns import take_turns

TABLE = "torch_predict_mc.md"
LOOP, OURS = "loop", "predict_mc"


def mlp(*widths, p=0.5):
    layers = []
    for inputs, outputs in pairwise(widths[:-1]):
        layers += [nn.Linear(inputs, outputs), nn.ReLU(), nn.Dropout(p)]
    return nn.Sequential(*layers, nn.Linear(*widths[-2:]))


def cnn():
    return nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Dropout(0.25),
        nn.Linear(64 * 7 * 7, 128),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Linear(128, 10),
    )


class Residual(nn.Module):
    """Blocks with skips, which PyTorch users write as modules of their own."""

    def __init__(self, width=256, blocks=4):
        super().__init__()
        self.first = nn.Linear(64, width)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Dropout(0.1))
            for _ in range(blocks)
        )
        self.last = nn.Linear(width, 10)

    def forward(self, x):
        x = self.first(x)
        for block in self.blocks:
            x = x + block(x)
        return self.last(x)


class Encoder(nn.Module):
    def __init__(self, width=64):
        super().__init__()
        layer = nn.TransformerEncoderLayer(width, 4, 4 * width, 0.1, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2)
        self.last = nn.Linear(width, 10)

    def forward(self, x):
        return self.last(self.encoder(x).mean(1))


# how the network is built, the shape of x, samples
CASES = {
    "64-64-10, 1 row": (partial(mlp, 64, 64, 10), (1, 64), 100),
    "64-256-256-10, 1 row": (partial(mlp, 64, 256, 256, 10), (1, 64), 100),
    "64-256-256-10, 64 rows": (partial(mlp, 64, 256, 256, 10), (64, 64), 100),
    "784-1024-1024-10, 64 rows": (partial(mlp, 784, 1024, 1024, 10), (64, 784), 20),
    "784-1024-1024-10, 1024 rows": (partial(mlp, 784, 1024, 1024, 10), (1024, 784), 10),
    "CNN of 28 x 28, 32 images": (cnn, (32, 1, 28, 28), 50),
    "4 residual blocks of 256, p = 0.1, 64 rows": (Residual, (64, 64), 100),
    "transformer 2 x 64, p = 0.1, 8 x 32": (Encoder, (8, 32, 64), 20),
}


def loop(module, x, samples):
    module.eval()
    for inner in module.modules():
        if isinstance(inner, nn.Dropout | nn.TransformerEncoderLayer | nn.MultiheadAttention):
            inner.train()  # the latter two, or PyTorch's fast path would omit dropout
    with torch.no_grad():
        stacked = torch.stack([torch.softmax(module(x), -1) for _ in range(samples)])
    module.eval()
    return stacked.mean(0), stacked.std(0)


class Case:
    """Return the seconds of both sides, by rounds."""

    def __init__(self, build, shape, samples):
        torch.manual_seed(0)
        self.module, x = build(), torch.rand(shape)
        self.samples = samples
        self.steps = {
            LOOP: partial(loop, self.module, x, samples),
            OURS: partial(fnn.predict_mc, self.module, x, samples, activation="softmax"),
        }
        self.rounds = []

    def turn(self):
        times = {}
        take_turns(self.steps, times)
        self.rounds.append({side: statistics.median(times[side]) for side in self.steps})


def table(cases):
    lines = [
        f"PyTorch {torch.__version__}, {torch.get_num_threads()} threads, float32, softmax of the "
        "outputs. Medians; ratios within a round, median (least - most).",
        "",
        "| network | samples | loop, ms | predict_mc, ms | loop / predict_mc |",
        "|---|---:|---:|---:|---:|",
    ]
    for name, case in cases.items():
        ms = [1e3 * statistics.median(r[side] for r in case.rounds) for side in (LOOP, OURS)]
        ratios = [times[LOOP] / times[OURS] for times in case.rounds]
        lines.append(
            f"| {name} | {case.samples} | {ms[0]:.2f} | {ms[1]:.2f} "
            f"| {statistics.median(ratios):.2f} ({min(ratios):.2f} - {max(ratios):.2f}) |"
        )
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, nargs="+", default=list(range(len(CASES))))
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, help="folder of the table; none by default")
    options = parser.parse_args()
    out = options.out and results_folder(options.out, (TABLE,))
    torch.set_num_threads(options.threads)
    chosen = [name for i, name in enumerate(CASES) if i in options.cases]
    cases = {}

    def turn(name, number):
        if name not in cases:
            cases[name] = Case(*CASES[name])
        cases[name].turn()

    return keep(
        [(name, name) for name in chosen],
        options.rounds,
        turn,
        lambda missing: {TABLE: table(cases)} if cases else {},
        out,
    )


if __name__ == "__main__":
    sys.exit(main())
