"""`fastdrop bench`: this machine's dropout, in one run, against a copy and the frameworks.

Each library runs in a process of its own, so that no thread pool slows another one; all wait while
one measures, and the sides take turns, round after round: a ratio within one run is a result, a
single time is not. What was measured is kept when the run is stopped or a library fails.
"""

from __future__ import annotations

import argparse
import importlib.util
import io
import json
import math
import statistics
from collections.abc import Mapping, Sequence
from contextlib import suppress
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

from fastdrop._checks import lookup
from fastdrop.commands.bench.keep import keep
from fastdrop.commands.bench.machine import machine, results_folder
from fastdrop.commands.bench.process import Peers
from fastdrop.commands.bench.sides import GROUPS, LIBRARIES, as_dtype
from fastdrop.commands.console import Console

__all__ = ["GROUPS", "PICTURE", "RESULTS", "TABLE", "measure", "plot", "run", "size_name", "table"]

PICTURE, RESULTS, TABLE = "bench.png", "bench.json", "bench.md"
_STYLES: dict[str, dict[str, Any]] = {
    "copy": {"color": "#555555", "linestyle": "--"},
    "streaming copy": {"color": "#555555", "linestyle": ":"},
    "fastdrop": {"color": "#1b6ca8", "linewidth": 2.5, "marker": "o"},
    "fastdrop, new output": {"color": "#7fb8e0", "linewidth": 2.5, "marker": "o"},
}

QUICK, SECONDS = 0.02, 0.06  # of measuring, for each side, in the first round and in others


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
        For arguments or a folder that do not serve, or after all when a library failed.
    SystemExit
        When a signal ends the run, see `keep`.
    """
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError as error:
        arguments.console.tell(
            f"no picture: it needs matplotlib, pip install 'fastdrop-nn[plot]' ({error})"
        )
    measure(
        arguments.sizes,
        arguments.p,
        arguments.dtypes,
        arguments.threads,
        arguments.rounds,
        arguments.groups,
        arguments.out,
        arguments.console,
    )


def measure(
    sizes: Sequence[int],
    rates: Sequence[float],
    dtypes: Sequence[str],
    threads: Sequence[int],
    rounds: int,
    groups: Sequence[str] = ("dropout",),
    out: Path | None = None,
    console: Console | None = None,
) -> dict[str, Any]:
    """Measure all libraries that are installed; print a table.

    Every round measures everything once, small arrays first: whatever ends the run, there is a
    table of what it measured until then.

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
    out : Path, optional
        A folder for the table, the figures and a plot; see `results_folder`.
    console : Console, optional
        Where the table is printed.

    Returns
    -------
    dict
        "machine", "libraries" (names with versions), "missing" (in words) and "results": a list of
        dicts with the fields of a point, "side", "ns" (per element, median of the rounds) and
        "spread" (half the distance between the fastest and the slowest round, over the median).

    Raises
    ------
    ImportError
        For bfloat16 without ml_dtypes.
    ValueError
        When a group is unknown, or a size does not suit it.
    OSError
        When the folder cannot be written.
    ChildProcessError
        After all when a library has failed, or its result was wrong.
    SystemExit
        When a signal ends the run, see `keep`.
    """
    for dtype in dtypes:
        as_dtype(dtype)
    for group in groups:
        for elements in sizes:
            lookup("groups", group, GROUPS).shape(elements)
    folder = results_folder(out, (TABLE, RESULTS, PICTURE)) if out else None
    points = [
        Point(group, count, dtype, p, backward, elements)
        for count, group, dtype, p, backward, elements in dict.fromkeys(
            product(threads, groups, dtypes, rates, (False, True), sizes)
        )
    ]
    # small ones first: a table that ends early is whole as far as it goes
    steps = [
        (f"{size_name(point.elements)} elements", point)
        for point in sorted(points, key=lambda point: (point.elements, point.backward))
    ]
    with Peers() as peers:
        turns = _Turns(peers, points)
        failed = keep(steps, rounds, turns.measure, turns.files, folder, peers.failures, console)
    if failed:
        raise ChildProcessError(f"{failed:.160}")
    return turns.found("")


class _Turns:
    """All libraries' processes, and what they have measured."""

    def __init__(self, peers: Peers, points: Sequence[Point]) -> None:
        installed = [name for name in LIBRARIES if importlib.util.find_spec(name)]
        self._peers, self._points = peers, points
        self._of_threads = {
            count: [
                peers.start(name, ["-m", "fastdrop.commands.bench.sides", name, str(count)], count)
                for name in installed
            ]
            for count in dict.fromkeys(point.threads for point in points)
        }
        self._names: dict[str, str] = {}
        self._ns: dict[Point, dict[str, list[float]]] = {}

    def measure(self, point: Point, number: int) -> None:
        """Give each side of each library its turn: what counts is that of all, or none."""
        turn: dict[str, float] = {}
        for peer in self._of_threads[point.threads]:
            hello = self._peers.hello(peer) or {"sides": {}}
            for side in hello["sides"].get(point.group, ()):
                self._names[peer.name] = hello["name"]
                seconds = QUICK if number == 1 else SECONDS
                request = {"side": side, "seconds": seconds, "point": point._asdict()}
                if answer := self._peers.ask(peer, request):
                    turn[side] = answer / point.elements * 1e9
        for side, ns in turn.items():
            self._ns.setdefault(point, {}).setdefault(side, []).append(ns)

    def found(self, missing: str) -> dict[str, Any]:
        """Return what `measure` returns."""
        results = []
        for point in self._points:
            for side, ns in self._ns.get(point, {}).items():
                middle = statistics.median(ns)
                spread = (max(ns) - min(ns)) / 2 / middle
                results.append({**point._asdict(), "side": side, "ns": middle, "spread": spread})
        return {
            "machine": machine(),
            "libraries": list(self._names.values()),
            "missing": missing,
            "results": results,
        }

    def files(self, missing: str) -> dict[str, str | bytes]:
        """Return the contents of the files, as `keep` takes them."""
        found = self.found(missing)
        if not found["results"]:
            return {}
        files: dict[str, str | bytes] = {
            TABLE: table(found),
            RESULTS: json.dumps(found, indent=1),
        }
        with suppress(ImportError):
            files[PICTURE] = plot(found)
        return files


def _by_point(results: Sequence[Mapping[str, Any]]) -> dict[Point, dict[str, float]]:
    points: dict[Point, dict[str, float]] = {}
    for row in results:
        point = Point(*(row[field] for field in Point._fields))
        points.setdefault(point, {})[row["side"]] = row["ns"]
    return points


def size_name(elements: int) -> str:
    """Return a number of elements as tables show it: ``16 Ki``."""
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
    points = _by_point(found["results"])
    sides: dict[tuple[Any, ...], dict[str, None]] = {}  # the columns of each table, in order
    for point, ns in points.items():
        sides.setdefault(point[:-1], {}).update(dict.fromkeys(ns))
    before = None
    for point, ns in points.items():
        head = point[:-1]
        if head != before:
            direction = "forward + backward" if point.backward else "forward"
            lines += [
                "",
                f"**{point.group}, {direction}, p = {point.p:g}, {point.dtype}, {point.threads} "
                f"{'thread' if point.threads == 1 else 'threads'}**",
                "",
                "| elements | " + " | ".join(sides[head]) + " |",
                "|---:|" + "---:|" * len(sides[head]),
            ]
            before = head
        cells = [f"{ns[side]:.3g}" if side in ns else "-" for side in sides[head]]
        lines.append(f"| {size_name(point.elements)} | " + " | ".join(cells) + " |")
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
            sides = dict.fromkeys(side for ns in chosen.values() for side in ns)
            for number, side in enumerate(sides):
                style = _STYLES.get(side, {"color": f"C{number % 9 + 1}", "marker": "o"})
                values = [ns.get(side, math.nan) for ns in chosen.values()]
                axis.plot(list(chosen), values, label=side, markersize=4, **style)
            axis.set_xscale("log", base=2)
            axis.set_yscale("log")
            title = f"{group}, p = {p:g}, {dtype}, {threads} thread{'s' * (threads > 1)}"
            axis.set_title(title, loc="left", fontsize=11)
            axis.set_xticks(list(chosen), [size_name(n) for n in chosen], rotation=45)
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
