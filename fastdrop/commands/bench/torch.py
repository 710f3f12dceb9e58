"""`fastdrop bench --torch`: fastdrop.torch beside torch.nn, forward and backward, in one process.

The sides take turns, so that a ratio is a result also where a machine is not quiet. Peak memory is
of processes of their own, a side each.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from fastdrop._version import __version__
from fastdrop.commands.bench.keep import keep
from fastdrop.commands.bench.machine import machine, results_folder
from fastdrop.commands.bench.turns import Times, take_turns

if TYPE_CHECKING:
    import torch

__all__ = ["RESULTS", "TABLE", "run", "table"]

RESULTS, TABLE = "bench_torch.json", "bench_torch.md"


class Transformer(NamedTuple):
    """A transformer encoder and its batch."""

    layers: int = 4
    width: int = 512
    batch: int = 32
    length: int = 128
    p: float = 0.1


SIDES = ("torch.nn", "convert", "enable")
TRANSFORMER = Transformer()


class Point(NamedTuple):
    """A layer's input, and the number of threads."""

    threads: int
    dtype: str
    p: float
    elements: int


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
    SystemExit
        When a signal ends the run, see `keep`.
    """
    import fastdrop.torch  # noqa: F401, tells how to install PyTorch where it is missing

    out = results_folder(arguments.out, (TABLE, RESULTS))
    turns = _Turns()
    points = [
        Point(*point)
        for point in dict.fromkeys(
            product(arguments.threads, arguments.dtypes, arguments.p, arguments.sizes)
        )
    ]
    steps = [
        *(
            (f"{point.elements} elements", partial(turns.layer, point))
            for point in sorted(points, key=lambda point: point.elements)
        ),
        *(("transformer", partial(turns.transformer, n)) for n in arguments.threads),
        *(
            ("peak memory", partial(turns.memory, side, n))
            for n in arguments.threads
            for side in SIDES
        ),
    ]

    def files(missing: str) -> dict[str, str | bytes]:
        found = turns.found(points, missing)
        return {TABLE: table(found), RESULTS: json.dumps(found, indent=1)} if turns.layers else {}

    failed = keep(
        steps,
        arguments.rounds,
        lambda step, _: step(),
        files,
        out,
        turns.failures,
        arguments.console,
    )
    if failed:
        raise ChildProcessError(f"{failed:.160}")


class _Turns:
    """What is measured, and what was."""

    def __init__(self) -> None:
        self.layers: dict[Point, Times] = {}
        self.failures: dict[str, str] = {}
        self._transformers: dict[int, Times] = {}
        self._steps: dict[str, Callable[[], object]] = {}
        self._mib: dict[tuple[int, str], float | None] = {}

    def layer(self, point: Point) -> None:
        """Give Dropout layers their turns, forward and backward."""
        import torch

        import fastdrop.torch as fnn

        torch.set_num_threads(point.threads)
        x = torch.rand(point.elements).to(getattr(torch, point.dtype)).requires_grad_()
        dy = torch.ones_like(x)

        def step(layer: torch.nn.Module) -> None:
            x.grad = None
            layer(x).backward(dy)

        layers = {"torch.nn": torch.nn.Dropout(point.p), "fastdrop.torch": fnn.Dropout(point.p)}
        steps = {side: partial(step, layer) for side, layer in layers.items()}
        times = {side: list(seconds) for side, seconds in self.layers.get(point, {}).items()}
        take_turns(steps, times)
        self.layers[point] = times  # of both sides, or not at all

    def transformer(self, threads: int) -> None:
        """Give the training steps of transformer encoders their turns."""
        import torch

        torch.set_num_threads(threads)
        if not self._steps:
            self._steps = {side: _training_step(side, TRANSFORMER) for side in SIDES}
        take_turns(self._steps, self._transformers.setdefault(threads, {}))

    def memory(self, side: str, threads: int) -> None:
        """Measure the peak memory of a transformer's training, once."""
        if (threads, side) in self._mib:
            return
        self._mib[threads, side] = None
        try:
            self._mib[threads, side] = _peak_memory(side, TRANSFORMER, threads)
        except subprocess.SubprocessError as error:
            self.failures[f"peak memory of {side}"] = f"{error}"

    def found(self, points: Sequence[Point], missing: str) -> dict[str, Any]:
        """Return the figures: ns per element of layers, ms of a transformer's step, MiB."""
        import torch

        return {
            "machine": machine(),
            "libraries": [f"fastdrop {__version__}", f"PyTorch {torch.__version__}"],
            "missing": missing,
            "layers": [
                {
                    **point._asdict(),
                    "side": side,
                    "ns": statistics.median(seconds) / point.elements * 1e9,
                }
                for point in points
                for side, seconds in self.layers.get(point, {}).items()
            ],
            "transformer": [
                {
                    "threads": threads,
                    "side": side,
                    "ms": statistics.median(seconds) * 1e3,
                    "MiB": self._mib.get((threads, side)),
                }
                for threads, times in self._transformers.items()
                for side, seconds in times.items()
            ],
        }


def _training_step(side: str, model: Transformer) -> Callable[[], object]:
    """A training step of a transformer encoder with dropout as the side has it."""
    import torch

    import fastdrop.torch as fnn

    torch.manual_seed(0)
    layers, width, batch, length, p = model
    layer = torch.nn.TransformerEncoderLayer(width, 8, 4 * width, p, batch_first=True)
    encoder = torch.nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
    if side == "convert":
        fnn.convert(encoder)
    optimizer = torch.optim.SGD(encoder.parameters(), 0.01)
    x = torch.randn(batch, length, width)

    def step() -> None:
        with fnn.enable() if side == "enable" else nullcontext():
            optimizer.zero_grad()
            encoder(x).square().mean().backward()
            optimizer.step()

    return step


def _peak_memory(side: str, model: Transformer, threads: int) -> float | None:
    """MiB that a process takes for two training steps; None where the system does not tell."""
    if not Path("/proc/self/status").exists():
        return None
    fields = json.dumps([side, threads, *model])
    command = [sys.executable, "-m", "fastdrop.commands.bench.torch", fields]
    result = subprocess.run(command, check=True, capture_output=True, text=True, timeout=600)
    return float(result.stdout)


def table(found: Mapping[str, Any]) -> str:
    """Format results as Markdown.

    Parameters
    ----------
    found : dict
        "libraries" (names with versions), "layers" and "transformer", as they are written.

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
        mib = "-" if row["MiB"] is None else f"{row['MiB']:.0f}"
        lines.append(
            f"| {row['threads']} | {row['side']} | {row['ms']:.4g} | {times:.3f} | {mib} |"
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
