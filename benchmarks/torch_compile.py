"""For how many elements are fastdrop's operators quicker than what Inductor makes of dropout?

    python benchmarks/torch_compile.py --out docs/bench

A compiled step, forward and backward, is one of two pieces of a transformer: gelu, dropout and a
sum with a residual; or attention, of one sequence by four heads of width 64. Inductor fuses
PyTorch's dropout with what is around it into one loop, whereas fastdrop has operators of their own.
They take turns in one process, and the figures are medians. The rule is PAYS in
fastdrop/torch/compilers.py, which counts attention's scores. This writes torch_compile.md.
"""

import argparse
import math
import statistics
import sys
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import torch
from torch._inductor.compile_fx import compile_fx
from torch.nn import functional

import fastdrop.torch as fnn
from fastdrop.commands.bench.keep import keep
from fastdrop.commands.bench.machine import results_folder
from fastdrop.commands.bench.turns import take_turns
from fastdrop.torch import compilers

TABLE = "torch_compile.md"
OWN, OURS = "Inductor's", "fastdrop's"
POWERS = [11, 12, 13, 14, 15, 16, 18, 20]
HEADS, WIDTH = 4, 64


def block(p, x, residual):
    return functional.dropout(functional.gelu(x), p) + residual


def attention(p, *qkv):
    return functional.scaled_dot_product_attention(*qkv, dropout_p=p)


def step(function, inputs):
    inputs[0].grad = None
    function(*inputs).sum().backward()


def tensors(piece, elements):
    """Return the inputs of a piece; of attention, the scores have so many elements."""
    if piece == "block":
        return torch.rand(elements).requires_grad_(), torch.rand(elements)
    length = math.isqrt(elements // HEADS)
    return [torch.rand(1, HEADS, length, WIDTH).requires_grad_() for _ in "qkv"]


PIECES = {"block": block, "attention": attention}


class Row:
    """A size, with each side's compiled function and the seconds of its calls."""

    def __init__(self, piece, power, p):
        inputs = tensors(piece, 1 << power)
        self.sides, self.times = {}, {}
        compilers.PAYS = 1
        for side, context in {OWN: nullcontext, OURS: fnn.enable}.items():
            # by a backend of its own, or a side would run what was compiled for the other
            backend = partial(compile_fx)
            function = torch.compile(PIECES[piece], backend=backend, dynamic=False)
            self.sides[side] = partial(step, partial(function, p), inputs)
            with context():
                self.sides[side]()

    def turn(self):
        take_turns(self.sides, self.times)


def table(rows):
    lines = [
        f"PyTorch {torch.__version__}, {torch.get_num_threads()} threads, float32. "
        "Forward + backward, microseconds. A block is dropout(gelu(x)) + residual; "
        "attention's elements are those of its scores.",
        "",
        f"| piece | p | elements | {OWN} dropout | {OURS} | ratio |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for (piece, power, p), row in rows.items():
        us = {side: statistics.median(times) * 1e6 for side, times in row.times.items()}
        cells = f"{us[OWN]:.1f} | {us[OURS]:.1f} | {us[OURS] / us[OWN]:.2f}"
        lines.append(f"| {piece} | {p:g} | 2^{power} | {cells} |")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--powers", type=int, nargs="+", default=POWERS, help="of two: elements")
    parser.add_argument("--p", type=float, nargs="+", default=[0.1])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, help="folder of the table; none by default")
    options = parser.parse_args()
    out = options.out and results_folder(options.out, (TABLE,))
    # each row and side is compiled anew; beyond this limit PyTorch would compile no more
    torch._dynamo.config.recompile_limit = 2 * len(options.powers) * len(options.p) + 1
    rows = {}

    def turn(which, number):
        row = rows.get(which) or Row(*which)
        row.turn()
        rows[which] = row  # measured, or not there

    return keep(
        [
            (f"{piece}, 2^{power}, p = {p:g}", (piece, power, p))
            for piece in PIECES
            for p in options.p
            for power in options.powers
            if piece == "block" or power % 2 == 0  # as many keys as queries
        ],
        options.rounds,
        turn,
        lambda missing: {TABLE: table(rows)} if rows else {},
        out,
    )


if __name__ == "__main__":
    sys.exit(main())
