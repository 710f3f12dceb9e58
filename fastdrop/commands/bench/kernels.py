"""`fastdrop bench`: this machine's dropout, in one run, against a copy and the frameworks.

Each library runs in a process of its own, so that no thread pool slows another one; all wait while
one measures, and the sides take turns, round after round: a ratio within one run is a result, a
single time is not.
"""

from __future__ import annotations

import argparse
import importlib.util
import io
import json
import os
import platform
import statistics
import sys
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

from tqdm import tqdm

from fastdrop._checks import lookup
from fastdrop._output import make_writable, write
from fastdrop.commands.bench.process import Peer
from fastdrop.commands.bench.sides import GROUPS, LIBRARIES, as_dtype
from fastdrop.compiled import _core

__all__ = ["GROUPS", "PICTURE", "RESULTS", "TABLE", "machine", "measure", "plot", "run", "table"]

PICTURE, RESULTS, TABLE = "bench.png", "bench.json", "bench.md"
_STYLES: dict[str, dict[str, Any]] = {
    "copy": {"color": "#555555", "linestyle": "--"},
    "streaming copy": {"color": "#555555", "linestyle": ":"},
    "fastdrop": {"color": "#1b6ca8", "linewidth": 2.5, "marker": "o"},
    "fastdrop, new output": {"color": "#7fb8e0", "linewidth": 2.5, "marker": "o"},
}

SECONDS = 0.06  # of measuring, for each side in each round


class Point(NamedTuple):
    """What all sides are given at once."""

    group: str
    threads: int
    dtype: str
    p: float
    backward: bool
    elements: int


def run(arguments: argparse.Namespace) -> None:
    """Measure; print a table, write it with all figures and a plot.

    Parameters
    ----------
    arguments : argparse.Namespace
        What the command line's parser for ``bench`` gave.

    Raises
    ------
    ValueError, OSError, ImportError
        For arguments or a folder that do not serve, or a library that fails.
    """
    make_writable(arguments.out, (TABLE, RESULTS, PICTURE))
    found = measure(
        arguments.sizes,
        arguments.p,
        arguments.dtypes,
        arguments.threads,
        arguments.rounds,
        arguments.groups,
    )
    text = table(found)
    print(text)
    write(arguments.out / TABLE, f"{text}\n".encode())
    write(arguments.out / RESULTS, json.dumps(found, indent=1).encode())
    try:
        picture = plot(found)
    except ImportError as error:
        print(f"no picture: it needs matplotlib, pip install 'fastdrop-nn[plot]' ({error})")
    else:
        write(arguments.out / PICTURE, picture)


def _seconds(peer: Peer, side: str, point: Point) -> float:
    return float(peer.ask({"side": side, "seconds": SECONDS, "point": point._asdict()}))


def machine() -> dict[str, Any]:
    """Return what a benchmark's reader has to know of this machine."""
    model = platform.processor() or platform.machine()
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                model = line.split(":", 1)[1].strip()
                break
    except OSError:
        pass
    return {
        "cpu": model,
        "cpus": os.cpu_count(),
        "isa": _core.active_isa(),
        "last-level cache, MiB": _core.cache_bytes() / 2**20,
        "system": f"{platform.system()}, Python {platform.python_version()}",
    }


def measure(
    sizes: Sequence[int],
    rates: Sequence[float],
    dtypes: Sequence[str],
    threads: Sequence[int],
    rounds: int,
    groups: Sequence[str] = ("dropout",),
) -> dict[str, Any]:
    """Measure all libraries that are installed.

    Parameters
    ----------
    sizes : sequence of int
        Elements.
    rates : sequence of float
        Probabilities of dropping.
    dtypes : sequence of str
    threads : sequence of int
        Numbers of threads, and of CPUs that each process is held to.
    rounds : int
        How often the sides take turns.
    groups : sequence of str
        Kinds of dropout, of `GROUPS`. All but "dropout" and "gaussian" take multiples of 2**16
        elements.

    Returns
    -------
    dict
        "machine", "libraries" (names with versions) and "results": a list of dicts with the fields
        of a point, "side", "ns" (per element, median of the rounds) and "spread" (half the
        distance between the fastest and the slowest round, over the median).

    Raises
    ------
    ImportError
        For bfloat16 without ml_dtypes.
    ValueError
        When a group is unknown, or a size does not suit it.
    ChildProcessError
        When a library fails, or its result is wrong.
    """
    for dtype in dtypes:
        as_dtype(dtype)
    for group in groups:
        for elements in sizes:
            lookup("groups", group, GROUPS).shape(elements)
    installed = [name for name in LIBRARIES if importlib.util.find_spec(name)]
    found: dict[str, Any] = {"machine": machine(), "libraries": [], "results": []}
    points = len(groups) * len(sizes) * len(rates) * len(dtypes) * 2
    there = sys.stderr is not None
    with tqdm(
        total=len(threads) * points,
        unit="point",
        dynamic_ncols=True,
        mininterval=0.1 if there and sys.stderr.isatty() else 10,  # a log file wants few lines
        disable=not there,
    ) as bar:
        for count in threads:
            peers = [
                Peer(["-m", "fastdrop.commands.bench.sides", name, str(count)], count)
                for name in installed
            ]
            found["libraries"] = [peer.hello["name"] for peer in peers]
            try:
                for point in _points(groups, sizes, rates, dtypes, count):
                    found["results"] += _measure_point(peers, point, rounds)
                    bar.update()
            finally:
                for peer in peers:
                    peer.close()
    return found


def _points(
    groups: Sequence[str],
    sizes: Sequence[int],
    rates: Sequence[float],
    dtypes: Sequence[str],
    threads: int,
) -> Iterator[Point]:
    for group, dtype, p, backward, elements in product(groups, dtypes, rates, (False, True), sizes):
        yield Point(group, threads, dtype, p, backward, elements)


def _measure_point(peers: Sequence[Peer], point: Point, rounds: int) -> list[dict[str, Any]]:
    sides = [(peer, side) for peer in peers for side in peer.hello["sides"].get(point.group, ())]
    turns: dict[str, list[float]] = {side: [] for _, side in sides}
    for _ in range(rounds):
        for peer, side in sides:
            turns[side].append(_seconds(peer, side, point) / point.elements * 1e9)
    results = []
    for side, ns in turns.items():
        middle = statistics.median(ns)
        spread = (max(ns) - min(ns)) / 2 / middle
        results.append({**point._asdict(), "side": side, "ns": middle, "spread": spread})
    return results


def _by_point(results: Sequence[Mapping[str, Any]]) -> dict[Point, dict[str, float]]:
    points: dict[Point, dict[str, float]] = {}
    for row in results:
        point = Point(*(row[field] for field in Point._fields))
        points.setdefault(point, {})[row["side"]] = row["ns"]
    return points


def _size_name(elements: int) -> str:
    for unit, power in (("Mi", 20), ("Ki", 10)):
        if elements % (1 << power) == 0:
            return f"{elements >> power} {unit}"
    return str(elements)


def table(found: Mapping[str, Any]) -> str:
    """Format results as Markdown: ns per element, a table for each group, direction and p.

    Parameters
    ----------
    found : dict
        What `measure` returned.

    Returns
    -------
    str
    """
    machine = found["machine"]
    lines = [
        f"{machine['cpu']}, {machine['cpus']} CPUs, {machine['isa']}; {machine['system']}; "
        + ", ".join(found["libraries"])
        + ". Median ns per element."
    ]
    before = None
    for point, ns in _by_point(found["results"]).items():
        head = point[:-1]
        if head != before:
            direction = "forward + backward" if point.backward else "forward"
            lines += [
                "",
                f"**{point.group}, {direction}, p = {point.p:g}, {point.dtype}, {point.threads} "
                f"{'thread' if point.threads == 1 else 'threads'}**",
                "",
                "| elements | " + " | ".join(ns) + " |",
                "|---:|" + "---:|" * len(ns),
            ]
            before = head
        lines.append(
            f"| {_size_name(point.elements)} | "
            + " | ".join(f"{value:.3g}" for value in ns.values())
            + " |"
        )
    return "\n".join(lines)


def plot(found: Mapping[str, Any]) -> bytes:
    """Draw the forward results: ns per element over elements, both logarithmic.

    Parameters
    ----------
    found : dict
        What `measure` returned.

    Returns
    -------
    bytes
        A PNG file.

    Raises
    ------
    ImportError
        Without matplotlib.
    """
    from matplotlib.figure import Figure

    points = {k: v for k, v in _by_point(found["results"]).items() if not k.backward}
    rows = sorted({(point.group, point.threads, point.dtype) for point in points})
    rates = sorted({point.p for point in points}, reverse=True)
    figure = Figure(
        figsize=(3 + 5 * len(rates), 1.6 + 3.6 * len(rows)), dpi=110, layout="constrained"
    )
    axes = figure.subplots(len(rows), len(rates), sharex=True, sharey="row", squeeze=False)
    groups: set[str] = set()
    for (group, threads, dtype), line in zip(rows, axes):
        for p, axis in zip(rates, line):
            chosen = {
                k.elements: v for k, v in points.items() if k[:4] == (group, threads, dtype, p)
            }
            for number, side in enumerate(next(iter(chosen.values()))):
                style = _STYLES.get(side, {"color": f"C{number % 9 + 1}", "marker": "o"})
                values = [ns[side] for ns in chosen.values()]
                axis.plot(list(chosen), values, label=side, markersize=4, **style)
            axis.set_xscale("log", base=2)
            axis.set_yscale("log")
            title = f"{group}, p = {p:g}, {dtype}, {threads} thread{'s' * (threads > 1)}"
            axis.set_title(title, loc="left", fontsize=11)
            axis.set_xticks(list(chosen), [_size_name(n) for n in chosen], rotation=45)
            axis.grid(alpha=0.25)
            axis.spines[["top", "right"]].set_visible(False)
        if group not in groups:  # the sides of a group are the same in all its rows
            line[-1].legend(loc="upper left", bbox_to_anchor=(1.01, 1), frameon=False)
            groups.add(group)
    for axis in axes[-1]:
        axis.set_xlabel("elements")
    for axis in axes[:, 0]:
        axis.set_ylabel("ns per element, forward")
    machine = found["machine"]
    figure.suptitle(
        f"Dropout on {machine['cpu']}, {machine['isa']}\n" + ", ".join(found["libraries"]),
        fontsize=10,
    )
    file = io.BytesIO()
    figure.savefig(file, format="png")
    return file.getvalue()
