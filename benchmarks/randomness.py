"""Write raw random bits for an external test suite to standard output, without end.

    python benchmarks/randomness.py words | dieharder -a -g 200
    python benchmarks/randomness.py masks | dieharder -a -g 200
    python benchmarks/randomness.py keys  | dieharder -a -g 200

"words" writes domain 1: one 32-bit word for each element of one long array. "masks" writes packed
masks of p = 1/2, of 4096 elements each, with a new call for each mask. "keys" writes the seeds of
fold_in(0), fold_in(1), ... of one key. docs/explanation/randomness.md has the results.
"""

import argparse
import itertools
import os
import sys

import numpy as np

import fastdrop
from fastdrop import Key
from fastdrop.compiled import _core


def words(seed):
    n = 1 << 18
    for i in itertools.count():
        yield _core.random_words(n, seed, 0, i * n).tobytes()


def masks(seed):
    generator = fastdrop.Generator(seed)
    while True:
        parts = (
            fastdrop.dropout_mask(4096, 0.5, key=generator.next_key(), packed=True)
            for _ in range(1000)
        )
        yield b"".join(part.tobytes() for part in parts)


def keys(seed):
    key = Key(seed)
    for start in itertools.count(0, 10_000):
        seeds = [key.fold_in(n).seed for n in range(start, start + 10_000)]
        yield np.array(seeds, np.uint64).tobytes()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", choices=["words", "masks", "keys"])
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    source = {"words": words, "masks": masks, "keys": keys}[arguments.source](arguments.seed)
    try:
        for chunk in source:
            sys.stdout.buffer.write(chunk)
    except BrokenPipeError:  # the reader has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    main()
