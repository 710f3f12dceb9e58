"""`fastdrop bench --keras`: Keras's fit without dropout, with Keras's own and with fastdrop's.

Each backend has a process of its own, in which the sides take turns.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping
from functools import partial
from importlib.util import find_spec
from typing import Any

from fastdrop._version import __version__
from fastdrop.commands.bench.keep import keep
from fastdrop.commands.bench.machine import machine, results_folder
from fastdrop.commands.bench.turns import Times, take_turns

__all__ = ["RESULTS", "TABLE", "run", "table"]

RESULTS, TABLE = "bench_keras.json", "bench_keras.md"
BACKENDS = ("torch", "jax", "tensorflow")
SIDES = ("none", "Keras", "fastdrop")
INPUTS, UNITS, BATCH, STEPS = 64, 2048, 512, 20  # dropout sees UNITS x BATCH elements
TURNS = 7  # epochs of each side in a process, which takes long to start
LIMIT = 900  # seconds for a backend's turn


def run(arguments: argparse.Namespace) -> None:
    """Measure; print a table, write it with all figures.

    Parameters
    ----------
    arguments : argparse.Namespace
        What the command line's parser for ``bench`` gave.

    Raises
    ------
    ValueError, OSError, ImportError
        For arguments or a folder that do not serve, without Keras, or after all when a backend
        failed.
    SystemExit
        When a signal ends the run, see `keep`.
    """
    if not find_spec("keras"):
        raise ImportError("fastdrop.keras needs Keras: pip install 'fastdrop-nn[keras]'")
    out = results_folder(arguments.out, (TABLE, RESULTS))
    threads = max(arguments.threads)
    times: dict[tuple[str, float], Times] = {}
    libraries: dict[str, str] = {}
    failures: dict[str, str] = {}

    def measure(backend: str, p: float) -> None:
        if backend in failures:
            return
        try:
            found = _in_process(backend, p, threads)
        except (subprocess.SubprocessError, ValueError) as error:
            failures[backend] = f"{error}"
            return
        libraries[backend] = found["library"]
        kept = times.setdefault((backend, p), {})
        for side, seconds in found["times"].items():
            kept.setdefault(side, []).extend(seconds)

    def files(missing: str) -> dict[str, str | bytes]:
        found = {
            "machine": machine(),
            "libraries": [f"fastdrop {__version__}", *libraries.values()],
            "threads": threads,
            "missing": missing,
            "fits": [
                {"backend": backend, "p": p, "side": side, "ms": 1e3 * statistics.median(seconds)}
                for (backend, p), sides in times.items()
                for side, seconds in sides.items()
            ],
        }
        return {TABLE: table(found), RESULTS: json.dumps(found, indent=1)} if times else {}

    steps = [
        (f"{backend}, p = {p:g}", partial(measure, backend, p))
        for backend in BACKENDS
        if find_spec(backend)
        for p in arguments.p
    ]
    failed = keep(
        steps, arguments.rounds, lambda step, _: step(), files, out, failures, arguments.console
    )
    if failed:
        raise ChildProcessError(f"{failed:.160}")


def _in_process(backend: str, p: float, threads: int) -> dict[str, Any]:
    """What `_main` prints, on a backend."""
    cpus = sorted(os.sched_getaffinity(0))[:threads] if hasattr(os, "sched_getaffinity") else []
    more = {"KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3", "OMP_NUM_THREADS": str(threads)}
    result = subprocess.run(
        [sys.executable, "-m", "fastdrop.commands.bench.keras", json.dumps([p, cpus])],
        check=True,
        capture_output=True,
        text=True,
        timeout=LIMIT,
        env=os.environ | more,
    )
    found: dict[str, Any] = json.loads(result.stdout.splitlines()[-1])
    return found


def _epoch(side: str, p: float) -> Callable[[], object]:
    """An epoch of a model with dropout as the side has it."""
    import keras
    import numpy as np

    import fastdrop.keras

    layers = {"Keras": keras.layers, "fastdrop": fastdrop.keras}
    dropout = [layers[side].Dropout(p, seed=1)] if side in layers else []
    model = keras.Sequential(
        [
            keras.layers.Input((INPUTS,)),
            keras.layers.Dense(UNITS, "relu"),
            *dropout,
            keras.layers.Dense(1),
        ]
    )
    model.compile("sgd", "mse")
    x = np.random.default_rng(0).normal(size=(STEPS * BATCH, INPUTS)).astype(np.float32)
    return lambda: model.fit(x, x[:, :1], batch_size=BATCH, shuffle=False, verbose=0)


def table(found: Mapping[str, Any]) -> str:
    """Format results as Markdown.

    Parameters
    ----------
    found : dict
        "libraries" (names with versions), "threads" and "fits", as they are written.

    Returns
    -------
    str
    """
    lines = [
        ", ".join(found["libraries"]) + f". {found['threads']} threads, medians.",
        "",
        f"`fit` of {INPUTS}-{UNITS}-1 at batch {BATCH}: {UNITS * BATCH} elements dropped a step.",
        "",
        "| backend | p | none, ms a step | Keras's dropout adds | fastdrop's adds | share |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    rows: dict[tuple[str, float], dict[str, float]] = {}
    for row in found["fits"]:
        rows.setdefault((row["backend"], row["p"]), {})[row["side"]] = row["ms"] / STEPS
    for (backend, p), ms in rows.items():
        theirs, ours = (ms[side] - ms["none"] for side in SIDES[1:])
        share = f"{ours / theirs:.0%}" if theirs > 0 else "-"
        lines.append(
            f"| {backend} | {p:g} | {ms['none']:.3g} | {theirs:.3g} | {ours:.3g} | {share} |"
        )
    return "\n".join(lines)


def _main(p: float, cpus: list[int]) -> None:
    if cpus:
        os.sched_setaffinity(0, cpus)
    import keras

    times: Times = {}
    epochs = {side: _epoch(side, p) for side in SIDES}
    for _ in range(TURNS):
        take_turns(epochs, times)
    backend = keras.backend.backend()
    version = __import__(backend).__version__
    print(
        json.dumps({"library": f"Keras {keras.__version__} on {backend} {version}", "times": times})
    )


if __name__ == "__main__":
    _main(*json.loads(sys.argv[1]))
