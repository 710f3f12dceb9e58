"""The mask contract in jax.numpy. GPUs and TPUs run it, and the kernels are tested against it.

By default XLA has no 64-bit integers, so a number of 64 bits is a pair of uint32 here, the high one
first. Each word of 32 mask bits is drawn with its own counter, so that it needs no neighbours. The
other three words of the generator are not used.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from fastdrop.jax.rules import Rule

__all__ = ["masked"]

Pair = tuple[Any, Any]  # the two words of a number of 64 bits

_M0, _M1 = 0xD2511F53, 0xCD9E8D57
_W0, _W1 = 0x9E3779B9, 0xBB67AE85
_MASKS, _WORDS = 0, 1  # domains
_ALL = 1 << 32  # the T that keeps everything


def _u32(value: Any) -> Array:
    return jnp.asarray(value, jnp.uint32)


def _high(a: Array, b: Array) -> Array:
    """Return the high 32 bits of a product."""
    a0, a1, b0, b1 = a & 0xFFFF, a >> 16, b & 0xFFFF, b >> 16
    middle = a1 * b0 + (a0 * b0 >> 16)
    return a1 * b1 + (middle >> 16) + (a0 * b1 + (middle & 0xFFFF) >> 16)


def _plus(a: Pair, b: Pair) -> Pair:
    low = a[1] + b[1]
    return a[0] + b[0] + (low < a[1]).astype(jnp.uint32), low


def _times(a: Array, b: int) -> Pair:
    high, low = _u32(b >> 32), _u32(b & 0xFFFFFFFF)
    return _high(a, low) + a * high, a * low


def _philox(counter: Sequence[Array], seed: Pair) -> list[Array]:
    a, b, c, d = counter
    k1, k0 = seed
    for _ in range(10):
        a, b, c, d = (
            _high(c, _u32(_M1)) ^ b ^ k0,
            c * _u32(_M1),
            _high(a, _u32(_M0)) ^ d ^ k1,
            a * _u32(_M0),
        )
        k0, k1 = k0 + _u32(_W0), k1 + _u32(_W1)
    return [a, b, c, d]


def _words(key: Sequence[Array], domain: int, plane: Any, number: Pair) -> Array:
    """Return words of a domain and plane by number: 64 to a tile, in 16 blocks side by side."""
    high, low = number
    counter: Sequence[Any] = (
        (low >> 2 | high << 30) & ~_u32(15) | low & 15,
        high >> 2 | _u32(plane) << 16 | domain << 21,
        key[3],
        key[2],
    )
    counter = [jnp.broadcast_to(word, low.shape) for word in counter]
    outputs = _philox(counter, (key[0], key[1]))
    which = low >> 4 & 3
    return jnp.select([which == i for i in range(3)], outputs[:3], outputs[3])


def _threshold(p: Array) -> tuple[Array, Array]:
    """Return T for a traced p, and whether it is 2**32; float32 gives what float64 would give."""
    p = jnp.where(p > 1, 1, jnp.where(p >= 0, p, 0)).astype(p.dtype)
    if p.dtype == jnp.float64:
        t = jnp.round((1 - p) * 2.0**32).astype(jnp.uint64)
        return t.astype(jnp.uint32), t >> 32 > 0
    dropped = p * 2.0**32
    # 1 - p has 53 bits
    dropped = jnp.where(dropped < 8, jnp.round(dropped * 2.0**21) / 2.0**21, dropped)
    dropped = jnp.round(dropped)
    part = jnp.where(dropped < 2.0**32, dropped, 0).astype(jnp.uint32)
    return _u32(0) - part, dropped == 0


def _kept_words(key: Sequence[Array], t: Any, planes: int, number: Pair) -> Array:
    """Return mask words by number: u < T is decided for 32 elements at once, plane by plane."""

    def decide(plane: Any, state: tuple[Array, Array]) -> tuple[Array, Array]:
        undecided, kept = state
        bits = _words(key, _MASKS, plane, number)
        digit = _u32(t) << plane.astype(jnp.uint32) >> 31 == 1
        kept = jnp.where(digit, kept | undecided & ~bits, kept)
        return jnp.where(digit, undecided & bits, undecided & ~bits), kept

    start = jnp.zeros_like(number[1])
    # derived from the numbers, so that it varies over the same devices as they do
    state = lax.fori_loop(0, planes, decide, (~start, start))
    kept: Array = state[1]
    return kept


def _rows(shape: Sequence[int], strides: Sequence[int]) -> tuple[tuple[int, ...], int]:
    """Return the mask's axes without the innermost, whose elements lie side by side in the mask."""
    outer, length = list(shape), 1
    while outer and (outer[-1] == 1 or strides[len(outer) - 1] == length):
        length *= outer.pop()
    return tuple(outer), length


def _numbers(
    shape: Sequence[int], strides: Sequence[int], offset: Array, starts: Array
) -> tuple[Pair, int]:
    """Return where the rows of a block lie in the whole mask, and the length of a row."""
    first: Pair = (offset[0], offset[1])
    for axis, stride in enumerate(strides):
        first = _plus(first, _times(starts[axis], stride))
    outer, length = _rows(shape, strides)
    number: Pair = tuple(jnp.broadcast_to(word, outer) for word in first)
    for axis in range(len(outer)):
        steps = lax.broadcasted_iota(jnp.uint32, outer, axis)
        number = _plus(number, _times(steps, strides[axis]))
    return tuple(word.reshape(-1, 1) for word in number), length


def _mask(key: Sequence[Array], rule: Rule, p: Array | None, number: Pair, length: int) -> Array:
    """Return the mask as bool, of shape (rows, length)."""
    if p is None:
        t = round((1 - (rule.p or 0.0)) * 2**32)
        if t in (0, _ALL):
            return jnp.full((number[1].shape[0], length), t == _ALL)
        planes = 32 - (t & -t).bit_length() + 1
        every: Any = False
    else:
        t, every = _threshold(p[0])
        planes = 32
    count = (length + 31) // 32 + 1
    steps = lax.broadcasted_iota(jnp.uint32, (1, count), 1)
    high, low = number
    words = _kept_words(key, t, planes, _plus((high >> 5, low >> 5 | high << 27), (_u32(0), steps)))
    shift = low & 31
    words = words[:, :-1] >> shift | words[:, 1:] << 1 << (31 - shift)
    bits = words[:, :, None] >> lax.broadcasted_iota(jnp.uint32, (1, 1, 32), 2) & 1
    return (bits == 1).reshape(-1, 32 * (count - 1))[:, :length] | every


def _normal(key: Sequence[Array], number: Pair, length: int, dtype: Any) -> Array:
    """Return normal variates, (rows, length), exact to a few units in the last place."""
    steps = lax.broadcasted_iota(jnp.uint32, (1, length), 1)
    words = _words(key, _WORDS, 0, _plus(number, (_u32(0), steps)))
    lower = words >> 31 == 0  # the upper half mirrors the lower, because u is near 1 there
    tail = (jnp.where(lower, words, ~words).astype(dtype) + 0.5) / 2.0**32
    z = jax.scipy.special.ndtri(tail)
    return jnp.where(lower, z, -z)


def _member(
    x: Array,
    z: Array | None,
    key: Array,
    offset: Array,
    starts: Array,
    p: Array | None,
    rule: Rule,
    strides: tuple[int, ...],
) -> Array:
    """Do what `masked` does, without batch axes."""
    kind = jnp.promote_types(x.dtype, jnp.float32)
    value = x.astype(kind)
    zero = _u32(0)
    words = [key[i] for i in range(key.shape[0])]
    words = [zero] * (len(words) == 1) + words
    words += [zero] * (4 - len(words))
    shape = tuple(1 if stride == 0 else length for length, stride in zip(x.shape, strides))
    number, length = _numbers(shape, strides, offset, starts)
    if rule.op in ("gaussian", "noise"):
        noise = _normal(words, number, length, kind).reshape(x.shape) * rule.scale
        y = value * (1 + noise) if rule.op == "gaussian" else value + noise
        return y.astype(x.dtype)
    kept = _mask(words, rule, p, number, length).reshape(shape)
    scale = jnp.asarray(rule.scale, kind)
    if p is not None:
        rate = jnp.clip(p[0], 0, 1)
        scale = jnp.where(rate < 1, 1 / (1 - rate), 0).astype(kind)
    if rule.op == "alpha":
        shift, fill = jnp.asarray(rule.shift, kind), jnp.asarray(rule.fill, kind)
        return jnp.where(kept, value * scale + shift, fill).astype(x.dtype)
    second = None if z is None else z.astype(kind)
    if rule.op in ("bias", "bias relu"):
        value = value + second
    if rule.op == "bias relu":
        value = jnp.where(value < 0, 0, value)
    y = jnp.where(kept, value * scale, jnp.zeros((), kind))
    return (y + second if rule.op == "add" else y).astype(x.dtype)


def masked(*operands: Array, rule: Rule, batch: int, strides: tuple[int, ...]) -> Array:
    """Compute what the handler in ``compiled/xla.h`` computes, for the same operands.

    Parameters
    ----------
    *operands : Array
        x; z if the rule's operation has it; key; offset; starts; p if the rule has none.
    rule : Rule
        What to do to x.
    batch : int
        Number of batch axes.
    strides : tuple of int
        The strides of the other axes of x in the mask of the whole array.

    Returns
    -------
    Array
        The result, like x.
    """
    x, *others = operands
    z = others.pop(0) if rule.has_second else None
    key, offset, starts, *rate = others
    p = rate[0] if rate else None
    shape = x.shape[:batch]
    members = math.prod(shape)
    batched = [x, z, key, offset, p]
    flat = [
        None
        if operand is None
        else jnp.broadcast_to(operand, (*shape, *operand.shape[batch:])).reshape(
            (members, *operand.shape[batch:])
        )
        for operand in batched
    ]
    axes = [None if operand is None else 0 for operand in flat]
    if not x.size:
        return x
    function = partial(_member, rule=rule, strides=strides)
    y = jax.vmap(function, (*axes[:4], None, axes[4]))(*flat[:4], starts, flat[4])
    result: Array = y.reshape(x.shape)
    return result
