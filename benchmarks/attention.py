"""PyTorch's attention, forward and backward: its own with and without dropout, and fastdrop's.

    python benchmarks/attention.py --out docs/bench

The sides of a row take turns in one process, and the figures are medians. Without dropout PyTorch
has flash attention, which keeps no scores. With dropout it computes step by step. This writes
attention.md.
"""

import argparse
import statistics
import sys
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import torch
from torch.nn.functional import scaled_dot_product_attention

import fastdrop.torch as fnn
from fastdrop.commands.bench.keep import keep
from fastdrop.commands.bench.machine import results_folder
from fastdrop.commands.bench.turns import take_turns

TABLE = "attention.md"
P = 0.1
OWN, FLASH, OURS = "PyTorch", "PyTorch, p = 0", "fastdrop"
SHAPES = [
    (8, 4, 256, 64),
    (16, 4, 128, 64),
    (2, 4, 32, 64),
    (1, 8, 1024, 64),
    (1, 1, 2048, 64),
]


def step(tensors, p, is_causal):
    y = scaled_dot_product_attention(*tensors, dropout_p=p, is_causal=is_causal)
    torch.autograd.grad(y, tensors, torch.ones_like(y))


def measure(shape, is_causal, dtype, times):
    """Give each side its turn; `times` gets the seconds of calls."""
    tensors = [torch.randn(shape, dtype=dtype, requires_grad=True) for _ in "qkv"]
    sides = {OWN: (P, nullcontext), FLASH: (0.0, nullcontext), OURS: (P, fnn.enable)}
    for side, (p, context) in sides.items():
        with context():
            take_turns({side: partial(step, tensors, p, is_causal)}, times)


def table(found):
    lines = [
        f"PyTorch {torch.__version__}, {torch.get_num_threads()} threads, p = {P:g}. "
        "Forward + backward, milliseconds.",
        "",
        f"| (batch, heads, length, width) | {OWN} | {OURS} | {FLASH} | {OURS} / {FLASH} |",
        "|---|" + "---:|" * 4,
    ]
    for row, times in found.items():
        ms = {side: statistics.median(seconds) * 1e3 for side, seconds in times.items()}
        cells = [f"{ms[side]:.2f}" for side in (OWN, OURS, FLASH)]
        lines.append(f"| {row} | {' | '.join(cells)} | {ms[OURS] / ms[FLASH]:.2f} |")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--out", type=Path, required=True, help="folder of the table")
    options = parser.parse_args()
    out = results_folder(options.out, (TABLE,))
    rows = {
        f"{shape}, {'causal, ' if is_causal else ''}{str(dtype).removeprefix('torch.')}": (
            shape,
            is_causal,
            dtype,
        )
        for shape, is_causal, dtype in [
            *((SHAPES[0], True, dtype) for dtype in (torch.float32, torch.bfloat16)),
            *((shape, False, torch.float32) for shape in SHAPES),
        ]
    }
    found = {}

    def turn(row, number):
        times = {side: list(seconds) for side, seconds in found.get(row, {}).items()}
        measure(*rows[row], times)
        found[row] = times  # of all sides, or of none

    return keep(
        [(row, row) for row in rows],
        options.rounds,
        turn,
        lambda missing: {TABLE: table(found)} if found else {},
        out,
    )


if __name__ == "__main__":
    sys.exit(main())
