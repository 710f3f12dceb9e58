"""Where the microseconds of a small tensor go: fastdrop.torch's dropout, built up piece by piece.

    python benchmarks/torch_calls.py --out docs/bench

Each row is a forward and a backward pass with everything that the row above has, and one thing
more. The rows take turns in one process, and the figures are medians. This writes torch_calls.md.
"""

import argparse
import statistics
import sys
from functools import partial
from pathlib import Path

import torch
from torch.autograd import Function

import fastdrop.torch as fnn
from fastdrop.commands.bench.keep import keep
from fastdrop.commands.bench.machine import results_folder
from fastdrop.commands.bench.turns import take_turns
from fastdrop.torch.keys import draw_seed
from fastdrop.torch.rules import scale_elements

TABLE = "torch_calls.md"


class Empty(Function):
    @staticmethod
    def forward(ctx, x, how):
        return torch.empty_like(x)

    @staticmethod
    def backward(ctx, dy):
        return torch.empty_like(dy), None


class Kernels(Function):
    @staticmethod
    def forward(ctx, x, how):
        ctx.how = how
        return scale_elements(x, *how)

    @staticmethod
    def backward(ctx, dy):
        return scale_elements(dy, *ctx.how), None


def rows(p):
    """Return functions of a tensor by what they consist of."""
    # called as by fastdrop.torch, without the checks for torch.func
    empty, kernels = (super(Function, f).apply for f in (Empty, Kernels))
    return {
        "PyTorch's engine: `x.view_as(x)`": lambda x: x.view_as(x),
        "+ an autograd.Function, which returns empty tensors": lambda x: empty(x, None),
        "+ kernels": lambda x: kernels(x, (p, 0)),
        "+ a seed from PyTorch's generator": lambda x: kernels(x, (p, draw_seed(None, p))),
        "+ checks of tensors and modes: `functional.dropout`": partial(fnn.functional.dropout, p=p),
        "+ a module: `fastdrop.torch.Dropout`": fnn.Dropout(p),
        "`torch.nn.Dropout`": torch.nn.Dropout(p),
    }


def measure(elements, p, times):
    """Give every row its turn; `times` gets the seconds of calls."""
    x = torch.rand(elements).requires_grad_()
    dy = torch.ones_like(x)

    def step(function):
        x.grad = None
        function(x).backward(dy)

    take_turns({name: partial(step, function) for name, function in rows(p).items()}, times)


def table(columns):
    lines = [
        f"PyTorch {torch.__version__}, {torch.get_num_threads()} threads, float32. "
        "Forward + backward, microseconds.",
        "",
        f"| | {' | '.join(columns)} |",
        "|---|" + "---:|" * len(columns),
    ]
    for name in rows(0.5):
        cells = [f"{statistics.median(times[name]) * 1e6:.1f}" for times in columns.values()]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[1 << 10, 1 << 14])
    parser.add_argument("--p", type=float, nargs="+", default=[0.5, 0.1])
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--out", type=Path, required=True, help="folder of the table")
    options = parser.parse_args()
    out = results_folder(options.out, (TABLE,))
    columns = {
        (f"{elements} elements, p = {p:g}"): (elements, p)
        for p in options.p
        for elements in options.sizes
    }
    found = {}

    def turn(column, number):
        times = {name: list(seconds) for name, seconds in found.get(column, {}).items()}
        measure(*columns[column], times)
        found[column] = times  # of all rows, or of none

    return keep(
        [(column, column) for column in columns],
        options.rounds,
        turn,
        lambda missing: {TABLE: table(found)} if found else {},
        out,
    )


if __name__ == "__main__":
    sys.exit(main())
