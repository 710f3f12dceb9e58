"""Write the cases of test_kernels.c: what the NumPy reference says of masks and operations.

    python tests/compiled/c/make_cases.py FILE

One record a case, little-endian: nine uint64 (seed, call, threshold, offset, n, op, dtype,
z_period, bytes of z), scale, shift and fill as float64, then x, z, the expected y and packed mask.
"""

import struct
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))
import reference

SCALE, ADD, BIAS, BIAS_RELU, ALPHA, PICK, RELU_BACKWARD = range(7)
SHIFT, FILL = 0.75, -0.5  # exact in every type
DTYPES = [np.float16, None, np.float32, np.float64]  # None: bfloat16
TILE = 2048


def to_bfloat16(a):
    """float32 to bfloat16's bits, to nearest even; no NaNs here."""
    bits = a.astype(np.float32).view(np.uint32)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)


def store(a, dtype):
    return to_bfloat16(a) if dtype is None else a.astype(dtype)


def load(a, dtype):
    if dtype is None:
        return (a.astype(np.uint32) << 16).view(np.float32)
    return a.astype(np.float64 if dtype == np.float64 else np.float32)


def expected(op, x, z, kept, scale):
    s, zero = x.dtype.type(scale), x.dtype.type(0)
    if op == SCALE:
        return np.where(kept, x * s, zero)
    if op == ADD:
        return np.where(kept, x * s, zero) + z
    if op in (BIAS, BIAS_RELU):
        v = x + z
        v = np.where(v < 0, zero, v) if op == BIAS_RELU else v
        return np.where(kept, v * s, zero)
    if op == ALPHA:
        return np.where(kept, x * s + x.dtype.type(SHIFT), x.dtype.type(FILL))
    if op == PICK:
        return np.where(kept, x, z)
    return np.where(z > 0, x * s, zero)


def main(path):
    rng = np.random.default_rng(0)
    with open(path, "wb") as file:
        for number, (op, (code, dtype), p, offset) in enumerate(
            (op, d, p, offset)
            for op in range(7)
            for d in enumerate(DTYPES)
            for p in (0.5, 0.1, 0.75, 0.0, 1.0)
            for offset in (0, 1000003, (1 << 43) + 17)
        ):
            n = int(rng.integers(1, 7000))
            seed, call = (int(word) for word in rng.integers(0, 1 << 63, 2))
            period = 1 + number * 37 % 700 if op in (BIAS, BIAS_RELU) else 0
            x = store(rng.standard_normal(n), dtype)
            z = store(rng.standard_normal(period or n), dtype)
            whole = np.resize(z, n)
            kept = reference.mask(n, p, seed, call, offset)
            scale = 1 / (1 - p) if p < 1 else 0.0
            y = expected(op, load(x, dtype), load(whole, dtype), kept, scale)
            stored_z = np.resize(z, period + TILE) if period else z
            threshold = round((1 - p) * 2**32)
            file.write(
                struct.pack(
                    "<9Q3d",
                    seed,
                    call,
                    threshold,
                    offset,
                    n,
                    op,
                    code,
                    period,
                    stored_z.nbytes,
                    scale,
                    SHIFT,
                    FILL,
                )
            )
            file.write(x.tobytes() + stored_z.tobytes() + store(y, dtype).tobytes())
            file.write(np.packbits(kept, bitorder="little").tobytes())


if __name__ == "__main__":
    main(sys.argv[1])
