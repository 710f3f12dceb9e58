"""The mask contract in NumPy, as slow as it is plain: what every kernel must equal, bit for bit."""

import math
from statistics import NormalDist

import numpy as np

M0, M1 = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
W0, W1 = 0x9E3779B9, 0xBB67AE85
LOW = np.uint64(0xFFFFFFFF)
MASKS, WORDS, FOLD = 0, 1, 2  # domains


def philox(counter, seed):
    """Philox4x32-10; counter: four integers or arrays of one shape; four uint64 arrays back."""
    a, b, c, d = (np.asarray(word, np.uint64) for word in counter)
    k0, k1 = seed & 0xFFFFFFFF, seed >> 32
    for _ in range(10):
        p0, p1 = M0 * a, M1 * c
        a, b, c, d = (
            p1 >> np.uint64(32) ^ b ^ np.uint64(k0),
            p1 & LOW,
            p0 >> np.uint64(32) ^ d ^ np.uint64(k1),
            p0 & LOW,
        )
        k0, k1 = (k0 + W0) & 0xFFFFFFFF, (k1 + W1) & 0xFFFFFFFF
    return a, b, c, d


def block_words(blocks, plane, domain, seed, call):
    """Output words of blocks: array (4, len(blocks))."""
    blocks = np.asarray(blocks, np.uint64)
    word1 = blocks >> np.uint64(32) | np.uint64(plane << 16 | domain << 21)
    call_words = (np.full_like(blocks, call & 0xFFFFFFFF), np.full_like(blocks, call >> 32))
    return np.stack(philox((blocks & LOW, word1, *call_words), seed))


def uniforms(first, last, seed, call):
    """u_i of elements first <= i < last, as uint64."""
    tiles = range(first >> 11, (last >> 11) + 1)
    blocks = np.arange(16 * tiles[0], 16 * (tiles[-1] + 1), dtype=np.uint64)
    u = np.zeros(2048 * len(tiles), np.uint64)
    for plane in range(32):
        words = block_words(blocks, plane, MASKS, seed, call).reshape(4, len(tiles), 16)
        words = words.transpose(1, 0, 2).ravel()  # word w = output word w >> 4 of block w & 15
        bits = words[:, None] >> np.arange(32, dtype=np.uint64) & np.uint64(1)
        u = u << np.uint64(1) | bits.ravel()
    start = 2048 * tiles[0]
    return u[first - start : last - start]


def mask(n, p, seed, call=0, offset=0):
    """Bool array: which of the elements offset ... offset + n - 1 are kept."""
    threshold = round((1 - p) * 2**32)
    return uniforms(offset, offset + n, seed, call) < np.uint64(threshold)


def random_words(n, seed, call=0, offset=0):
    """Domain 1: one 32-bit word for each element."""
    i = np.arange(offset, offset + n, dtype=np.uint64)
    e = i & np.uint64(63)
    blocks = (i >> np.uint64(6)) * np.uint64(16) + (e & np.uint64(15))
    words = block_words(blocks, 0, WORDS, seed, call)
    return words[e >> np.uint64(4), np.arange(n)].astype(np.uint32)


def fold_in(seed, call, n):
    """The derived seed."""
    words = philox((n & 0xFFFFFFFF, n >> 32 | FOLD << 21, call & 0xFFFFFFFF, call >> 32), seed)
    return int(words[0]) | int(words[1]) << 32


def dropout(x, p, seed, call=0, offset=0, shared_axes=()):
    """Drop and scale, with the mask of x's shape with the shared axes set to 1."""
    shape = tuple(1 if a in shared_axes else n for a, n in enumerate(x.shape))
    kept = mask(math.prod(shape), p, seed, call, offset).reshape(shape)
    scale = x.dtype.type(1 / (1 - p) if p < 1 else 0)
    with np.errstate(all="ignore"):
        return np.where(kept, x * scale, x.dtype.type(0))


def normal(n, seed, call=0, offset=0):
    """Normal variates of domain 1, in float64, from Python's own inverse distribution function."""
    words = random_words(n, seed, call, offset).astype(np.int64)
    below = words < 2**31  # the lower half; the upper one mirrors it, for there u is near 1
    u = (np.where(below, words, 2**32 - 1 - words) + 0.5) / 2**32
    z = np.array([NormalDist().inv_cdf(value) for value in u.tolist()])
    return np.where(below, z, -z)


def alpha_dropout(x, kept, p):
    """The formula as the paper has it, for a mask that is there already."""
    if p == 1:
        return np.zeros_like(x)
    limit = -1.7580993408473766
    a = ((1 - p) * (1 + p * limit**2)) ** -0.5
    return (a * np.where(kept, x, limit) - a * limit * p).astype(x.dtype)


def covered(corners, block):
    """Which elements of maps lie in a square whose upper left corner is in `corners`."""
    *batch, rows, columns = corners.shape
    maps = np.zeros((*batch, rows + block - 1, columns + block - 1), bool)
    for *where, i, j in np.argwhere(corners):
        maps[(*where, slice(i, i + block), slice(j, j + block))] = True
    return maps


def drop_block2d(x, p, block, seed, call=0, offset=0):
    samples, channels, height, width = x.shape
    shape = (samples, channels, height - block + 1, width - block + 1)
    gamma = p * height * width / (block**2 * shape[2] * shape[3])
    corners = ~mask(math.prod(shape), gamma, seed, call, offset).reshape(shape)
    y = np.zeros_like(x)
    for sample, drop, out in zip(x, covered(corners, block), y):
        if not drop.all():
            scale = x.dtype.type(drop.size / (drop.size - drop.sum()))
            np.multiply(sample, scale, out=out, where=~drop)
    return y


def _sum_of_32(a):
    """Along the last axis: 32 sums of every 32nd element, then pairs of them."""
    missing = -a.shape[-1] % 32
    a = np.concatenate([a, np.zeros((*a.shape[:-1], missing), a.dtype)], axis=-1)
    sums = np.zeros((*a.shape[:-1], 32), a.dtype)
    for i in range(0, a.shape[-1], 32):
        sums = sums + a[..., i : i + 32]
    for half in (16, 8, 4, 2, 1):
        sums = sums[..., :half] + sums[..., half:]
    return sums


def _exp_parts(a):
    """m and n: exp of numbers that are at most 0 is m 2^n, by the polynomial of the kernels."""
    double = a.dtype == np.float64
    number = a.dtype.type
    shift, degree = (2.0**52, 11) if double else (2.0**23, 5)
    parts = (
        (6.93147180369123816490e-01, 1.90821492927058770002e-10)
        if double
        else (0.693359375, -2.12194440054690583e-4)
    )
    n = np.rint(a * number(1.4426950408889634))
    r = (a - n * number(parts[0])) - n * number(parts[1])
    c = [number(1 / math.factorial(k + 2)) for k in range(degree + 1)]
    q = c[-1] * r + c[-2]
    for k in range(degree - 3, -1, -2):
        q = q * (r * r) + (c[k + 1] * r + c[k])
    n = np.where(abs(n) < shift, n, 0)  # for the others, exp is 0 or NaN
    return number(1) + (r + (r * r) * q), n.astype(int)


def exp(a):
    """exp of numbers that are at most 0."""
    least = -708 if a.dtype == np.float64 else -87
    return np.where(a < least, a.dtype.type(0), np.ldexp(*_exp_parts(a)))


def sigmoid(z):
    number = z.dtype.type
    unit = number(2.0**64)
    with np.errstate(all="ignore"):
        m, n = _exp_parts(-abs(z))
        vanishes = -746 if z.dtype == np.float64 else -104
        e = np.where(-abs(z) < vanishes, number(0), np.ldexp(m, n + 64))
        return np.where(z < 0, e, unit) / (unit + e)


def tanh(z):
    number = z.dtype.type
    with np.errstate(all="ignore"):
        x, s = abs(z), z * z
        e = exp(number(-2) * x)
        p, q = s + number(594), s + number(630)
        for c in (45045, 675675):
            p = p * s + number(c)
        for c in (51975, 945945, 2027025):
            q = q * s + number(c)
        near_0 = x - (x * s) * (p / q)
        far = number(1) - (e + e) / (number(1) + e)
        return np.copysign(np.where(x < number(0.625), near_0, far), z)


def sigmoid_gradient(dy, y):
    with np.errstate(all="ignore"):
        return dy * y * (1 - y)


def tanh_gradient(dy, y):
    with np.errstate(all="ignore"):
        return dy * (1 - y * y)


def softmax(scores, added=None):
    """Exponentials of scores and a mask's numbers, and their sums, both of the scores' dtype."""
    with np.errstate(all="ignore"):
        a = scores if added is None else scores + added
        top = np.fmax.reduce(a, axis=-1, keepdims=True, initial=-np.inf)
        e = exp(a - np.where(top > -np.inf, top, a.dtype.type(0)))
        return e, _sum_of_32(e)


def _quotient(number, total):
    """In float64, rounded once; 0 for rows in which nothing takes part."""
    with np.errstate(all="ignore"):
        return np.where(total == 0, 0, number / total.astype(float)).astype(total.dtype)


def softmax_dropout(scores, added, p, seed, call=0, offset=0):
    scale = 1 / (1 - p) if p < 1 else 0
    kept = mask(scores.size, p, seed, call, offset).reshape(scores.shape)
    e, total = softmax(scores, added)
    with np.errstate(all="ignore"):
        return np.where(kept, e * _quotient(scale, total), scores.dtype.type(0))


def softmax_dropout_backward(dy, scores, added, p, seed, call=0, offset=0):
    g = dropout(dy, p, seed, call, offset)
    e, total = softmax(scores, added)
    zero, least = dy.dtype.type(0), np.finfo(dy.dtype).tiny
    with np.errstate(all="ignore"):
        w = e * _quotient(1, total)
        products = _sum_of_32(np.where(w < least, zero, w * g))
        return np.where(w < least, zero, w * (g - products))
