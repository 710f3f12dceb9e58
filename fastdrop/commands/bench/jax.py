"""`fastdrop bench --jax`: fastdrop.jax beside JAX's own random numbers, jitted, in one process.

The sides take turns, so that a ratio is a result also where a machine is not quiet. XLA's threads
are as many as the CPUs that the process is held to: the most of ``--threads``.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import pairwise, product
from typing import Any, NamedTuple

from fastdrop._version import __version__
from fastdrop.commands.bench.keep import keep
from fastdrop.commands.bench.machine import machine, results_folder
from fastdrop.commands.bench.turns import Times, take_turns

__all__ = ["RESULTS", "TABLE", "run", "table"]

RESULTS, TABLE = "bench_jax.json", "bench_jax.md"
GENERATORS = {"threefry": "threefry2x32", "rbg": "rbg"}
COPY = "a call that copies"  # fastdrop at p = 0, which XLA does not know: nothing is drawn
SIDES = (*GENERATORS, "fastdrop", COPY)
WIDTHS, BATCH = (784, 1024, 1024, 10), 128  # of the network
TURNS = 5  # of the network in each round, because dropout is a small part of its step


class Point(NamedTuple):
    """An array, and what is done to it."""

    dtype: str
    p: float
    backward: bool
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
        For arguments or a folder that do not serve, or without JAX.
    SystemExit
        When a signal ends the run, see `keep`.
    """
    import fastdrop.jax  # noqa: F401, tells how to install JAX where it is missing

    out = results_folder(arguments.out, (TABLE, RESULTS))
    threads = max(arguments.threads)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
    turns = _Turns(threads)
    points = [
        Point(*point)
        for point in dict.fromkeys(
            product(arguments.dtypes, arguments.p, (False, True), arguments.sizes)
        )
    ]
    steps = [
        *(
            (f"{point.elements} elements", partial(turns.array, point))
            for point in sorted(points, key=lambda point: point.elements)
        ),
        *((f"network, p = {p:g}", partial(turns.network, p)) for p in arguments.p),
    ]

    def files(missing: str) -> dict[str, str | bytes]:
        found = turns.found(points, missing)
        return {TABLE: table(found), RESULTS: json.dumps(found, indent=1)} if turns.arrays else {}

    failed = keep(
        steps, arguments.rounds, lambda step, _: step(), files, out, console=arguments.console
    )
    if failed:
        raise ChildProcessError(f"{failed:.160}")


class _Turns:
    """What is measured, and what was."""

    def __init__(self, threads: int) -> None:
        self.arrays: dict[Point, Times] = {}
        self._threads = threads
        self._networks: dict[float, Times] = {}
        self._steps: dict[Any, dict[str, Callable[[], object]]] = {}

    def array(self, point: Point) -> None:
        """Give dropout of an array its turns."""
        if point not in self._steps:
            self._steps[point] = {side: _array_step(side, point) for side in SIDES}
        take_turns(self._steps[point], self.arrays.setdefault(point, {}))

    def network(self, p: float) -> None:
        """Give the training steps of networks their turns."""
        if p not in self._steps:
            self._steps[p] = {side: _network_step(side, p) for side in ("none", *SIDES)}
        for _ in range(TURNS):
            take_turns(self._steps[p], self._networks.setdefault(p, {}))

    def found(self, points: Sequence[Point], missing: str) -> dict[str, Any]:
        """Return the figures: ns per element of arrays, ms of a network's step."""
        import jax

        return {
            "machine": machine(),
            "libraries": [f"fastdrop {__version__}", f"JAX {jax.__version__}"],
            "threads": self._threads,
            "missing": missing,
            "arrays": [
                {
                    **point._asdict(),
                    "side": side,
                    "ns": statistics.median(seconds) / point.elements * 1e9,
                }
                for point in points
                for side, seconds in self.arrays.get(point, {}).items()
            ],
            "networks": [
                {"p": p, "side": side, "ms": statistics.median(seconds) * 1e3}
                for p, times in self._networks.items()
                for side, seconds in times.items()
            ],
        }


def _dropout(side: str) -> Callable[[Any, Any, float], Any]:
    """Dropout of a key, an array and p, as the side has it."""
    import jax

    from fastdrop.jax import dropout

    def idiom(key: Any, x: Any, p: float) -> Any:
        keep = jax.random.bernoulli(key, 1 - p, x.shape)
        return jax.numpy.where(keep, x / (1 - p), 0).astype(x.dtype)

    def copy(key: Any, x: Any, p: float) -> Any:
        return dropout(key, x, 0 * jax.random.key_data(key)[0].astype("float32"))

    return {"none": lambda key, x, p: x, "fastdrop": dropout, COPY: copy}.get(side, idiom)


def _key(side: str) -> Any:
    import jax

    return jax.random.key(1, impl=GENERATORS.get(side, "threefry2x32"))


def _array_step(side: str, point: Point) -> Callable[[], object]:
    import jax

    if point.dtype == "float64":
        jax.config.update("jax_enable_x64", True)
    dropout, key = _dropout(side), _key(side)
    # a gradient of its own: were it x, XLA would see one result, and copy it
    x, dy = jax.random.normal(jax.random.key(0), (2, point.elements), point.dtype)

    @jax.jit
    def step(key: Any, x: Any, dy: Any) -> Any:
        if not point.backward:
            return dropout(key, x, point.p)
        y, pull = jax.vjp(lambda x: dropout(key, x, point.p), x)
        return y, *pull(dy)

    return lambda: jax.block_until_ready(step(key, x, dy))


def _network_step(side: str, p: float) -> Callable[[], object]:
    """A training step with Adam: products, ReLU and dropout, softmax."""
    import jax
    import jax.numpy as jnp

    dropout = _dropout(side)
    keys = jax.random.split(jax.random.key(0), len(WIDTHS) + 1)
    weights = [
        jax.random.normal(key, shape) * shape[0] ** -0.5
        for key, shape in zip(keys, pairwise(WIDTHS))
    ]
    x = jax.random.normal(keys[-1], (BATCH, WIDTHS[0]))
    labels = jnp.arange(BATCH) % WIDTHS[-1]

    def loss(weights: Any, key: Any) -> Any:
        y = x
        for layer, weight in enumerate(weights[:-1]):
            y = dropout(jax.random.fold_in(key, layer), jax.nn.relu(y @ weight), p)
        scores = jax.nn.log_softmax(y @ weights[-1])
        return -scores[jnp.arange(BATCH), labels].mean()

    @jax.jit
    def step(state: Any) -> Any:
        weights, first, second, key = state
        key, own = jax.random.split(key)
        gradients = jax.grad(loss)(weights, own)
        first = [0.9 * m + 0.1 * g for m, g in zip(first, gradients)]
        second = [0.999 * v + 0.001 * g * g for v, g in zip(second, gradients)]
        new = [w - 1e-4 * m / (v**0.5 + 1e-7) for w, m, v in zip(weights, first, second)]
        return new, first, second, key

    zeros = [jnp.zeros_like(weight) for weight in weights]
    states = [(weights, zeros, zeros, _key(side))]

    def run() -> None:
        states[0] = jax.block_until_ready(step(states[0]))

    return run


def table(found: Mapping[str, Any]) -> str:
    """Format results as Markdown.

    Parameters
    ----------
    found : dict
        "libraries" (names with versions), "threads", "arrays" and "networks", as they are written.

    Returns
    -------
    str
    """
    threads = found["threads"]
    lines = [", ".join(found["libraries"]) + f". {threads} threads, jitted, medians."]
    points: dict[tuple[Any, ...], dict[str, float]] = {}
    for row in found["arrays"]:
        point = (row["dtype"], row["p"], row["backward"], row["elements"])
        points.setdefault(point, {})[row["side"]] = row["ns"]
    lines += [
        "",
        f"| dtype | p | | elements | threefry, ns per element | rbg | {COPY} | fastdrop "
        "| times threefry's speed | rbg's |",
        "|---|---:|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for (dtype, p, backward, elements), ns in points.items():
        passes = "forward + backward" if backward else "forward"
        ours = ns["fastdrop"]
        theirs = [ns[side] for side in GENERATORS]
        ratios = [value / ours for value in theirs]
        cells = [f"{value:.3g}" for value in (*theirs, ns[COPY], ours, *ratios)]
        lines.append(f"| {dtype} | {p:g} | {passes} | {elements} | {' | '.join(cells)} |")
    lines += [
        "",
        f"A training step of {'-'.join(map(str, WIDTHS))} at batch {BATCH}, with Adam.",
        "",
        "| p | dropout | ms | added |",
        "|---:|---|---:|---:|",
    ]
    base = {row["p"]: row["ms"] for row in found["networks"] if row["side"] == "none"}
    for row in found["networks"]:
        added = row["ms"] / base[row["p"]] - 1
        lines.append(f"| {row['p']:g} | {row['side']} | {row['ms']:.4g} | {added:+.1%} |")
    return "\n".join(lines)
