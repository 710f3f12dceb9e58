"""When do stores around the cache pay, and what does the rule choose?

    python benchmarks/streaming.py --out docs/bench

Dropout is measured with ordinary stores, with streaming stores, and with those that fastdrop
chooses: first of float32 into another array, then other dtypes, fused steps, and dropout of
PyTorch's tensors, which makes new ones. Copies, and dropout whose result is read at once, are there
for comparison. The calls take turns, and the figures are medians. docs/explanation/threads.md has
the rule.
"""

import argparse
import importlib.util
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
MEBIBYTES = (8, 16, 32, 64, 256)  # of x and y together
KINDS = ("float64", "float16", "bfloat16", "bias_act_dropout", "dropout_add", "PyTorch")


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


def call_of(kind, p, elements, threads):
    """Return a call of another kind, and the copy of as many bytes that it is compared with."""
    x = np.random.default_rng(0).random(elements, np.float32)
    if kind == "PyTorch":
        import torch

        from fastdrop.torch.functional import dropout

        tensor = torch.from_numpy(x)
        torch.set_num_threads(threads)
        return partial(dropout, tensor, p), tensor.clone
    shared = {"key": KEY, "num_threads": threads}
    if kind in ("bias_act_dropout", "dropout_add"):
        x = x.reshape(-1, 1024)
        y = np.empty_like(x)
        others = (x[0].copy(), "relu") if kind == "bias_act_dropout" else (x.copy(),)
        call = partial(getattr(fastdrop, kind), x, *others, p, **shared, out=y)
    else:
        if kind == "bfloat16":
            import ml_dtypes  # NumPy's own dtypes lack it

            kind = ml_dtypes.bfloat16
        x = x.astype(kind)
        y = np.empty_like(x)
        call = partial(fastdrop.dropout, x, p, **shared, out=y)
    return call, partial(_core.stream_copy, x, y, threads)


def other_row(kind, p, mebibytes, threads):
    """Return a row for a call of another kind."""
    itemsize = {"float64": 8, "float16": 2, "bfloat16": 2}.get(kind, 4)
    call, copy = call_of(kind, p, (mebibytes << 19) // itemsize, threads)
    calls = {
        "plain": partial(with_cache, NEVER, call),
        "chosen": call,
        "streaming": partial(with_cache, ALWAYS, call),
        "copy": partial(with_cache, NEVER, copy),
        "streaming copy": partial(with_cache, ALWAYS, copy),
    }
    us = medians(calls, max(9, min(101, 1024 // mebibytes)), untimed=1)
    cells = " | ".join(f"{value:.0f}" for value in us.values())
    best = us["chosen"] / min(us["plain"], us["streaming"])
    return f"| {kind} | {p} | {mebibytes} | {threads} | {cells} | {best:.2f} |"


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
    other_head = (
        "| call | p | x and y, MiB | threads | plain, us | chosen, us | streaming, us | copy, us "
        "| streaming copy, us | chosen over the better of plain and streaming |\n"
        "|---" + "|---:" * 9 + "|"
    )
    missing = {"bfloat16": "ml_dtypes", "PyTorch": "torch"}
    kinds = [k for k in KINDS if k not in missing or importlib.util.find_spec(missing[k])]
    other_rows = [
        (
            f"{kind} of {mebibytes} MiB at p = {p}, {threads} threads",
            partial(other_row, kind, p, mebibytes, threads),
        )
        for kind in kinds
        for mebibytes in MEBIBYTES
        for p in (0.5, 0.1)
        for threads in dict.fromkeys((1, fastdrop.get_num_threads()))
    ]
    return keep_rows([(head, rows), (other_head, other_rows)], TABLE, arguments.out)


if __name__ == "__main__":
    sys.exit(main())
