"""When do stores around the cache pay, and what does the rule choose?

    python benchmarks/streaming.py --out docs/bench

Dropout of float32 into another array is measured with ordinary stores, with streaming stores, and
with those that fastdrop chooses. Two copies, and dropout whose result is read at once, are there
for comparison. The calls take turns, and the figures are medians.
docs/explanation/threads.md has the rule.
"""

import argparse
import sys
from functools import partial

import numpy as np
from rows import add_out, keep_rows
from threads import medians

import fastdrop
from fastdrop.compiled import _core

KEY = fastdrop.Key(1)
TABLE = "streaming.md"
NEVER, ALWAYS = (1 << 63), 0  # bytes of a cache into which everything fits, and nothing
POWERS = range(17, 27)


def with_cache(size, call):
    """Make the call as if the last-level cache had this size."""
    known = _core.cache_bytes()
    _core.set_cache_bytes(size)
    try:
        call()
    finally:
        _core.set_cache_bytes(known)


def row(p, power, threads):
    """Return a row, for 2^power elements."""
    x = np.random.default_rng(0).random(1 << power, np.float32)
    y = np.empty_like(x)

    def drop():
        fastdrop.dropout(x, p, key=KEY, out=y, num_threads=threads)

    def drop_and_read():
        drop()
        y.sum()

    calls = {
        "plain": partial(with_cache, NEVER, drop),
        "chosen": drop,
        "streaming": partial(with_cache, ALWAYS, drop),
        "copyto": partial(np.copyto, y, x),
        "streaming copy": partial(with_cache, ALWAYS, partial(_core.stream_copy, x, y, threads)),
        "plain, read": partial(with_cache, NEVER, drop_and_read),
        "streaming, read": partial(with_cache, ALWAYS, drop_and_read),
    }
    us = medians(calls, max(9, min(401, (1 << 26) >> power)), untimed=1)
    # NumPy copies on one thread, so with more threads only the streaming copy is comparable.
    copies = [us["streaming copy"]] + [us["copyto"]] * (threads == 1)
    ratio = us["chosen"] / min(copies)
    cells = " | ".join(f"{value:.0f}" for value in us.values())
    return f"| {p} | 2^{power} | {threads} | {cells} | {ratio:.2f} |"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_out(parser)
    arguments = parser.parse_args()
    head = (
        "| p | elements | threads | plain, us | chosen, us | streaming, us | numpy.copyto, us "
        "| streaming copy, us | plain, then y.sum(), us | streaming, then y.sum(), us "
        "| chosen over the faster copy |\n" + "|---:" * 11 + "|"
    )
    rows = [
        (f"2^{power} elements at p = {p}, {threads} threads", partial(row, p, power, threads))
        for power in POWERS
        for p in (0.5, 0.1)
        for threads in dict.fromkeys((1, fastdrop.get_num_threads()))
    ]
    return keep_rows([(head, rows)], TABLE, arguments.out)


if __name__ == "__main__":
    sys.exit(main())
