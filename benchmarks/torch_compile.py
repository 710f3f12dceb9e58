"""For how many elements is fastdrop's operator quicker than what Inductor makes of dropout?

    python benchmarks/torch_compile.py --out docs/bench

A compiled step, forward and backward, is gelu, dropout and a sum with a residual, as in a
transformer. Inductor fuses PyTorch's dropout with what is around it into one loop, whereas
fastdrop's dropout is an operator of its own. They take turns in one process, and the figures are
medians. The rule is PAYS in fastdrop/torch/compilers.py. This writes torch_compile.md.
"""

import argparse
import statistics
import sys
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import torch
from torch.nn import functional

import fastdrop.torch as fnn
from fastdrop.commands.bench.keep import keep
from fastdrop.commands.bench.machine import results_folder
from fastdrop.commands.bench.turns import take_turns
from fastdrop.torch import compilers

TABLE = "torch_compile.md"
OWN, OURS = "Inductor's", "fastdrop's"
POWERS = [11, 12, 13, 14, 15, 16, 18, 20]


def step(function, x, residual):
    x.grad = None
    function(x, residual).sum().backward()


class Row:
    """A size, with each side's compiled function and the seconds of its calls."""

    def __init__(self, power, p):
        def block(x, residual):
            return functional.dropout(functional.gelu(x), p) + residual

        x = torch.rand(1 << power).requires_grad_()
        residual = torch.rand(1 << power)
        self.sides, self.times = {}, {}
        compilers.PAYS = 1
        for side, context in {OWN: nullcontext, OURS: fnn.enable}.items():
            torch._dynamo.reset()  # or one side would run what was compiled for the other
            function = torch.compile(block, dynamic=False)
            self.sides[side] = partial(step, function, x, residual)
            with context():
                self.sides[side]()

    def turn(self):
        take_turns(self.sides, self.times)


def table(rows):
    lines = [
        f"PyTorch {torch.__version__}, {torch.get_num_threads()} threads, float32. "
        "dropout(gelu(x)) + residual, forward + backward, microseconds.",
        "",
        f"| p | elements | {OWN} dropout | {OURS} | ratio |",
        "|---:|---:|---:|---:|---:|",
    ]
    for (power, p), row in rows.items():
        us = {side: statistics.median(times) * 1e6 for side, times in row.times.items()}
        cells = f"{us[OWN]:.1f} | {us[OURS]:.1f} | {us[OURS] / us[OWN]:.2f}"
        lines.append(f"| {p:g} | 2^{power} | {cells} |")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--powers", type=int, nargs="+", default=POWERS, help="of two: elements")
    parser.add_argument("--p", type=float, nargs="+", default=[0.1])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, help="folder of the table; none by default")
    options = parser.parse_args()
    out = options.out and results_folder(options.out, (TABLE,))
    rows = {}

    def turn(which, number):
        row = rows.get(which) or Row(*which)
        row.turn()
        rows[which] = row  # measured, or not there

    return keep(
        [(f"2^{power}, p = {p:g}", (power, p)) for p in options.p for power in options.powers],
        options.rounds,
        turn,
        lambda missing: {TABLE: table(rows)} if rows else {},
        out,
    )


if __name__ == "__main__":
    sys.exit(main())
