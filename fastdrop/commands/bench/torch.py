"""`fastdrop bench --torch`: fastdrop.torch beside torch.nn, forward and backward, in one process.

The sides take turns, so that a ratio is a result also where a machine is not quiet. Peak memory is
of processes of their own, a side each.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from fastdrop._output import make_writable, write

if TYPE_CHECKING:
    import torch

__all__ = ["RESULTS", "TABLE", "in_turn", "measure_layers", "measure_transformer", "run", "table"]

RESULTS, TABLE = "bench_torch.json", "bench_torch.md"

SECONDS = 0.1  # of measuring, for each side in each round


class Transformer(NamedTuple):
    """A transformer encoder and its batch."""

    layers: int = 4
    width: int = 512
    batch: int = 32
    length: int = 128
    p: float = 0.1


SIDES = ("torch.nn", "convert", "convert and patch")
TRANSFORMER = Transformer()


def run(arguments: argparse.Namespace) -> None:
    """Measure; print a table, write it with all figures.

    Parameters
    ----------
    arguments : argparse.Namespace
        What the command line's parser for ``bench`` gave.

    Raises
    ------
    ValueError, OSError, ImportError
        For arguments or a folder that do not serve, or without PyTorch.
    """
    import fastdrop.torch  # tells how to install PyTorch where it is missing

    import torch  # isort: skip

    make_writable(arguments.out, (TABLE, RESULTS))
    found: dict[str, Any] = {
        "libraries": [f"fastdrop {fastdrop.__version__}", f"PyTorch {torch.__version__}"],
        "layers": [],
        "transformer": [],
    }
    for threads in arguments.threads:
        torch.set_num_threads(threads)
        found["layers"] += measure_layers(
            arguments.sizes, arguments.p, arguments.dtypes, threads, arguments.rounds
        )
        found["transformer"] += measure_transformer(TRANSFORMER, threads, arguments.rounds)
    text = table(found)
    print(text)
    write(arguments.out / TABLE, f"{text}\n".encode())
    write(arguments.out / RESULTS, json.dumps(found, indent=1).encode())


def in_turn(steps: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Take turns with steps.

    Parameters
    ----------
    steps : dict
        Functions by name.
    rounds : int
        How often each has its turn, of SECONDS.

    Returns
    -------
    dict
        Median seconds of a call by name.
    """
    times: dict[str, list[float]] = {side: [] for side in steps}
    for step in steps.values():
        step()
    for _ in range(rounds):
        for side, step in steps.items():
            end = time.perf_counter() + SECONDS
            while True:
                start = time.perf_counter()
                step()
                now = time.perf_counter()
                times[side].append(now - start)
                if now >= end:
                    break
    return {side: statistics.median(seconds) for side, seconds in times.items()}


def measure_layers(
    sizes: Sequence[int],
    rates: Sequence[float],
    dtypes: Sequence[str],
    threads: int,
    rounds: int,
) -> list[dict[str, Any]]:
    """Measure a Dropout layer, forward and backward.

    Parameters
    ----------
    sizes : sequence of int
        Elements.
    rates : sequence of float
        Probabilities of dropping.
    dtypes : sequence of str
    threads : int
        PyTorch's number, only written down.
    rounds : int
        How often the sides take turns.

    Returns
    -------
    list of dict
        "threads", "dtype", "p", "elements", "side" and "ns" (per element).
    """
    import torch

    import fastdrop.torch as fnn

    rows = []
    for dtype, p, elements in product(dtypes, rates, sizes):
        x = torch.rand(elements).to(getattr(torch, dtype)).requires_grad_()
        dy = torch.ones_like(x)

        def step(layer: torch.nn.Module, x: Any = x, dy: Any = dy) -> None:
            x.grad = None
            layer(x).backward(dy)

        layers = {"torch.nn": torch.nn.Dropout(p), "fastdrop.torch": fnn.Dropout(p)}
        seconds = in_turn({side: partial(step, layer) for side, layer in layers.items()}, rounds)
        point = {"threads": threads, "dtype": dtype, "p": p, "elements": elements}
        rows += [{**point, "side": s, "ns": t / elements * 1e9} for s, t in seconds.items()]
    return rows


def _training_step(side: str, model: Transformer) -> Callable[[], object]:
    """A training step of a transformer encoder with dropout as the side has it."""
    import torch

    import fastdrop.torch as fnn

    torch.manual_seed(0)
    layers, width, batch, length, p = model
    layer = torch.nn.TransformerEncoderLayer(width, 8, 4 * width, p, batch_first=True)
    encoder = torch.nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
    if side != "torch.nn":
        fnn.convert(encoder)
    optimizer = torch.optim.SGD(encoder.parameters(), 0.01)
    x = torch.randn(batch, length, width)

    def step() -> None:
        with fnn.patch() if side == "convert and patch" else nullcontext():
            optimizer.zero_grad()
            encoder(x).square().mean().backward()
            optimizer.step()

    return step


def _peak_memory(side: str, model: Transformer, threads: int) -> float:
    """MiB that a process takes for two training steps; NaN where the system does not tell."""
    if not Path("/proc/self/status").exists():
        return math.nan
    fields = json.dumps([side, threads, *model])
    command = [sys.executable, "-m", "fastdrop.commands.bench.torch", fields]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def measure_transformer(model: Transformer, threads: int, rounds: int) -> list[dict[str, Any]]:
    """Measure a training step of a transformer encoder.

    Parameters
    ----------
    model : Transformer
    threads : int
    rounds : int
        How often the sides take turns.

    Returns
    -------
    list of dict
        "threads", "side", "ms" (a step) and "MiB" (peak memory of the process).
    """
    seconds = in_turn({side: _training_step(side, model) for side in SIDES}, rounds)
    return [
        {
            "threads": threads,
            "side": side,
            "ms": seconds[side] * 1e3,
            "MiB": _peak_memory(side, model, threads),
        }
        for side in SIDES
    ]


def table(found: Mapping[str, Any]) -> str:
    """Format results as Markdown.

    Parameters
    ----------
    found : dict
        "libraries" (names with versions), "layers" and "transformer" (what `measure_layers` and
        `measure_transformer` returned).

    Returns
    -------
    str
    """
    lines = [", ".join(found["libraries"]) + ". Forward + backward, medians."]
    points: dict[tuple[Any, ...], dict[str, float]] = {}
    for row in found["layers"]:
        point = (row["threads"], row["dtype"], row["p"], row["elements"])
        points.setdefault(point, {})[row["side"]] = row["ns"]
    lines += [
        "",
        "| threads | dtype | p | elements | torch.nn, ns per element | fastdrop.torch | times |",
        "|---:|---|---:|---:|---:|---:|---:|",
    ]
    for (threads, dtype, p, elements), ns in points.items():
        theirs, ours = ns["torch.nn"], ns["fastdrop.torch"]
        lines.append(
            f"| {threads} | {dtype} | {p:g} | {elements} | {theirs:.3g} | {ours:.3g} "
            f"| {theirs / ours:.3g} |"
        )
    layers, width, batch, length, p = TRANSFORMER
    lines += [
        "",
        f"A training step of a transformer encoder: {layers} layers of {width}, "
        f"a batch of {batch} x {length}, p = {p:g}.",
        "",
        "| threads | dropout | ms | times | peak MiB |",
        "|---:|---|---:|---:|---:|",
    ]
    base = {row["threads"]: row["ms"] for row in found["transformer"] if row["side"] == SIDES[0]}
    for row in found["transformer"]:
        times = base[row["threads"]] / row["ms"]
        lines.append(
            f"| {row['threads']} | {row['side']} | {row['ms']:.4g} | {times:.3f} "
            f"| {row['MiB']:.0f} |"
        )
    return "\n".join(lines)


def _main(side: str, threads: int, *model: Any) -> None:
    import torch

    torch.set_num_threads(threads)
    step = _training_step(side, Transformer(*model))
    step()
    step()
    # not ru_maxrss: a new process begins with its parent's
    (peak,) = re.findall(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    print(int(peak) / 1024)


if __name__ == "__main__":
    _main(*json.loads(sys.argv[1]))
