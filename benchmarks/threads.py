"""When do threads pay, and what does dropout cost after a matrix product?

    python benchmarks/threads.py --out docs/bench

The cut-off in _core.pyx comes from the first table; docs/explanation/threads.md has the results.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial

import numpy as np
from rows import add_out, keep_rows

import fastdrop

KEY = fastdrop.Key(1)
TABLE = "threads.md"


def medians(
    calls: dict[str, Callable[[], object]], rounds: int, untimed: int = 0, pause: float = 0
) -> dict[str, float]:
    """Return the median microseconds of each call, where the calls take turns.

    With `untimed` calls before each timed one, a call finds the caches as it leaves them itself,
    and not as the call before leaves them, which may write around them. In a `pause`, in seconds,
    threads that spin after the call before leave the cores.
    """
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            for _ in range(untimed):
                call()
            time.sleep(pause)
            start = time.perf_counter()
            call()
            times[name].append((time.perf_counter() - start) * 1e6)
    return {name: statistics.median(values) for name, values in times.items()}


def cut_off(p: float, power: int) -> str:
    """Return a row for dropout of 2^power elements, on one thread and on two."""
    x = np.random.default_rng(0).random(1 << power, np.float32)
    y = np.empty_like(x)
    calls = {
        str(n): lambda n=n: fastdrop.dropout(x, p, key=KEY, out=y, num_threads=n) for n in (1, 2)
    }
    one, two = medians(calls, max(21, min(401, (1 << 25) >> power)), untimed=1).values()
    return f"| {p} | 2^{power} | {one:.0f} | {two:.0f} | {two / one:.2f} |"


def behind_a_product(name: str) -> str:
    """Return a row for a call alone, and after a matrix product."""
    rng = np.random.default_rng(0)
    a, w = rng.random((128, 1024), np.float32), rng.random((1024, 1024), np.float32)
    product, y = np.empty_like(a), np.empty_like(a)
    follower = {
        "copy": lambda: np.copyto(y, product),
        "p = 0.5": lambda: fastdrop.dropout(product, 0.5, key=KEY, out=y),
        "p = 0.5, in place": lambda: fastdrop.dropout(product, 0.5, key=KEY, out=product),
        "p = 0.1": lambda: fastdrop.dropout(product, 0.1, key=KEY, out=y),
    }[name]

    def multiply() -> None:
        np.matmul(a, w, out=product)

    alone: list[float] = []
    added: list[float] = []
    for _ in range(7):
        alone.append(medians({"alone": follower}, 101)["alone"])
        bare = medians({"product": multiply}, 101)["product"]
        added.append(sum(medians({"product": multiply, "then": follower}, 101).values()) - bare)
    own, extra = statistics.median(alone), statistics.median(added)
    return f"| {name} | {own:.1f} | {extra:.1f} | {extra / own:.2f} |"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_out(parser)
    arguments = parser.parse_args()
    cut_offs = [
        (f"2^{power} elements at p = {p}", partial(cut_off, p, power))
        for p in (0.5, 0.1)
        for power in range(17, 25)
    ]
    head = "| p | elements | 1 thread, us | 2 threads, us | ratio |\n|---:|---:|---:|---:|---:|"
    followers = [
        (f"{name} behind a product", partial(behind_a_product, name))
        for name in ("copy", "p = 0.5", "p = 0.5, in place", "p = 0.1")
    ]
    behind = "| behind a product 128x1024x1024 | alone, us | added, us | ratio |"
    behind += "\n|---|---:|---:|---:|"
    return keep_rows([(head, cut_offs), (behind, followers)], TABLE, arguments.out)


if __name__ == "__main__":
    sys.exit(main())
