"""Calls of every function of the compiled modules, with right arguments and with wrong ones.

Each call is made of a table of right arguments, some of which are then replaced. Arrays lie against
pages that nobody may touch, so that one element too far ends the process; what ends it, and what is
called, is told by `fuzz`, which starts the processes. A call is a function of (seed, number).
"""

import ctypes
import json
import mmap
import os
import random
import resource
import subprocess
import sys
import tempfile
import warnings
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from fastdrop.compiled import _attention, _chain, _core, _losses, _products, _sparse, _train
from fastdrop.compiled._train import ProductGradient
from fastdrop.layers import ACTIVATIONS
from fastdrop.layers.base import PartialGradient, WeightRule
from fastdrop.layers.schedules import Linear, rate_at
from fastdrop.training.block import Buffers

try:
    from ml_dtypes import bfloat16
except ImportError:
    bfloat16 = np.float16

PAGE = mmap.PAGESIZE
FLOATS = [np.float16, bfloat16, np.float32, np.float64]
DTYPES = [
    *(*FLOATS, ">f4", ">f8", np.int8, np.uint8, np.int32, np.int64, ">i8", np.uint64, bool),
    *(np.complex64, object, "S3", "U2", "M8[s]", [("a", "f4"), ("b", "i8")], np.longdouble),
    _core.MEMORY_DTYPES["bfloat16"],
]
SHAPES = [
    *((), (0,), (1,), (7,), (64,), (2048,), (2049,), (5000,), (40000,)),
    *((4, 0), (0, 4), (1, 1), (3, 5), (64, 40), (1, 2560), (2560, 1), (5, 512), (300, 130)),
    *((2, 3, 4), (4, 0, 7), (2, 3, 7, 7), (1, 1, 20, 70), (0, 3, 7, 7), (2, 3, 0, 7), (1,) * 32),
]
NUMBERS = [
    *(0, 1, 2, 3, 7, 64, 2047, 2048, -1, -2, -(2**63), 2**36, 2**48, 2**55, 2**55 + 1),
    *(2**62, 2**63 - 1, 2**63, 2**64 - 8, 2**64 - 1, 2**64, 10**30, True, np.int64(3), np.int8(-1)),
    *(0.5, 1.0, -0.0, 1.5, -0.1, 1e-300, 1e308, float("nan"), float("inf"), np.float32(0.3)),
]
OTHERS = [None, "adam", "3", b"x", (), [], {}, (0,), (1, 0), (7,), (-1,), (2**70,), "a", object()]
THREADS = [None, 1, 2, 3, 5, 9, _core.AtMost(2), _core.AtMost.__new__(_core.AtMost)]

_mprotect = ctypes.CDLL(None, use_errno=True).mprotect


def guarded(nbytes, at_end):
    """Bytes of 1s that touch a page without access, in front or behind."""
    pages = -(-nbytes // PAGE) * PAGE
    memory = mmap.mmap(-1, pages + 2 * PAGE)
    start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    for page in (start, start + PAGE + pages):
        if _mprotect(ctypes.c_void_p(page), ctypes.c_size_t(PAGE), 0):
            raise OSError(ctypes.get_errno(), "mprotect")
    first = PAGE + (pages - nbytes) * at_end
    memory_view = np.frombuffer(memory, np.uint8, nbytes, first)
    memory_view[...] = 1
    return memory_view


class Liar(np.ndarray):
    """Says that it is of another shape."""

    shape = property(lambda self: (10**6, 10**6))
    strides = property(lambda self: (4, 4))
    dtype = property(lambda self: np.dtype(np.float32))
    size = property(lambda self: 10**12)


shape_of, dtype_of = np.ndarray.shape.__get__, np.ndarray.dtype.__get__  # the truth


class LongList(list):
    """Says that it is shorter than it is, or longer."""

    def __len__(self):
        return max(0, super().__len__() - 1)

    def __iter__(self):
        return iter([*super().__iter__()] * 3)


class LongDict(dict):
    """Gives more items than it says that it has."""

    def __len__(self):
        return 1

    def items(self):
        return LongList([*super().items()] * 50)


class Parametrised:
    """Like a layer with one parameter."""

    def __init__(self, w):
        self.params, self.p = {"w": w}, 0.5


class Meddler:
    """A number which, when it is read, assigns another layout to arrays; or what gives arrays."""

    def __init__(self, r, arrays, value):
        self.arrays, self.value, self.r = arrays, value, r

    def __index__(self):
        for array in self.arrays:
            meddle(self.r, array)
        return self.value

    def __float__(self):
        return float(self.__index__())

    def __array__(self, dtype=None, copy=None):
        self.__index__()
        return self.arrays[0] if self.arrays else np.ones(3, np.float32)


def meddle(r, array):
    """Assign something in place, which may be refused."""
    kind = r.randrange(5)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if kind == 0:
                array.shape = r.choice(
                    [(-1,), (1, -1), (-1, 2), (array.size, 1), array.shape[::-1]]
                )
            elif kind == 1:
                array.dtype = r.choice([np.float64, np.float16, np.int32, np.uint8, ">f4", "S2"])
            elif kind == 2:
                array.strides = tuple(r.choice([0, step]) for step in array.strides)
            elif kind == 3:
                array.flags.writeable = False
            else:
                array.resize((1,))
    except (ValueError, TypeError, AttributeError):
        pass


class Fuzzer:
    """Arguments of one call."""

    def __init__(self, seed, number):
        self.r = random.Random(f"{seed} {number}")
        self.given = []  # arrays that others may change in the middle

    def shape(self, ndim=None):
        shapes = [shape for shape in SHAPES if ndim is None or len(shape) == ndim]
        return self.r.choice(shapes)

    def array(self, shape=None, dtype=np.float32, wild=0.1):
        """An array of 1s or so; sometimes one that lies oddly, is read-only or a subclass's."""
        r = self.r
        shape, dtype = self.shape() if shape is None else shape, np.dtype(dtype)
        if dtype.hasobject or dtype is _core.MEMORY_DTYPES["bfloat16"]:
            array = np.empty(shape, dtype)
        else:
            nbytes = int(np.prod(shape, dtype=int)) * dtype.itemsize
            array = guarded(nbytes, r.random() < 0.8).view(dtype).reshape(shape)
            if dtype.kind in "fiu" and dtype.itemsize > 1:
                array[...] = 1
        if r.random() < wild and array.ndim and not dtype.hasobject:
            array = self.oddly(array)
        self.given.append(array)
        return array

    def oddly(self, array):
        r = self.r
        kind = r.randrange(8)
        if kind == 0:
            return array[::-1]
        if kind == 1:
            return array[..., ::2]
        if kind == 2:
            return array.T
        if kind == 3 and array.size:
            return np.broadcast_to(array[:1], array.shape)
        if kind == 4:
            array.flags.writeable = False
            return array
        if kind == 5:
            return array.view(Liar)
        if kind == 6:
            return np.ma.masked_array(array)
        raw = np.ones(array.nbytes + 1, np.uint8)[1:]  # not aligned
        return raw.view(array.dtype).reshape(array.shape) if array.dtype.itemsize > 1 else array

    def any_array(self):
        return self.array(dtype=self.r.choice(DTYPES), wild=0.4)

    def anything(self):
        r = self.r
        kind = r.randrange(10)
        if kind < 3:
            return r.choice(NUMBERS)
        if kind < 5:
            return r.choice(OTHERS)
        if kind < 8:
            return self.any_array()
        return Meddler(r, self.given, r.choice([0, 1, 3]))

    def like(self, array, wild=0.1):
        """Another array of this one's shape and dtype."""
        return self.array(shape_of(array), dtype_of(array), wild)

    def axes(self, ndim):
        return tuple(axis for axis in range(ndim) if self.r.random() < 0.4)

    def out(self, array):
        return self.r.choice([None, array, self.like(array), self.like(array, 1)])

    def key(self):
        return self.r.getrandbits(64), self.r.choice([0, 1, 2**64 - 1])

    def indices(self, length, some=True):
        numbers = sorted(self.r.sample(range(length), self.r.randrange(length + 1)))
        if not some:
            numbers = list(range(length))
        array = self.array((len(numbers),), np.intp, 0)
        array[...] = numbers
        if self.r.random() < 0.15 and numbers:
            array[self.r.randrange(len(numbers))] = self.r.choice([-1, length, 2**62, 0, -(2**63)])
        return array if self.r.random() < 0.9 else self.oddly(array)

    # ---- right arguments of each function --------------------------------------------------------

    def common(self, x):
        """p to num_threads of most operations."""
        axes = () if self.r.random() < 0.5 else self.axes(x.ndim)
        return [self.r.choice([0.0, 0.1, 0.5, 1.0]), 2.0, *self.key(), axes, self.r.choice([0, 5])]

    def x(self, ndim=None):
        return self.array(self.shape(ndim), self.r.choice(FLOATS), 0.15)

    def threads(self):
        return self.r.choice(THREADS)

    def masked_scale(self):
        x = self.x()
        return [x, *self.common(x), self.out(x), self.r.random() < 0.4, self.threads()]

    def masked_add(self):
        x = self.x()
        return [x, self.like(x), *self.common(x), self.out(x), self.threads()]

    def masked_pick(self):
        x = self.x()
        p, _, *rest = self.common(x)
        return [x, self.like(x), p, *rest, self.out(x), self.threads()]

    def masked_alpha(self):
        x = self.x()
        p, scale, *rest = self.common(x)
        return [x, p, scale, 0.5, -1.0, *rest, self.out(x), self.threads()]

    def masked_bias(self):
        x = self.x()
        units = shape_of(x)[-1:] or (1,)
        bias = self.array(units, x.dtype)
        return [x, bias, self.r.random() < 0.5, *self.common(x), self.out(x), self.threads()]

    def bias_backward(self):
        x = self.x()
        y = self.like(x)
        return [x, y, self.r.random() < 0.5, *self.common(x), self.out(x), self.threads()]

    def softmax_dropout(self):
        x = self.x()
        p, scale, seed, call, _, offset = self.common(x)
        shape = shape_of(x)
        mask = None
        if self.r.random() < 0.7 and shape:
            start = self.r.randrange(len(shape))
            own = [self.r.choice([1, length]) for length in shape[start:-1]]
            number = np.float64 if x.dtype == np.float64 else np.float32
            mask = self.array((*own, shape[-1]), self.r.choice([bool, number]))
        causal = self.r.random() < 0.5
        return [x, mask, causal, p, scale, seed, call, offset, self.out(x), self.threads()]

    def softmax_dropout_backward(self):
        x, *others = self.softmax_dropout()
        return [x, self.like(x), *others]

    def heads(self, *shape, dtype=np.float32):
        """An array of four axes, as attention takes them, or nearly so."""
        if self.r.random() < 0.2:
            return np.swapaxes(self.array((shape[0], shape[2], shape[1], shape[3]), dtype, 0), 1, 2)
        return self.array(shape, dtype, 0.05)

    def attention(self):
        r = self.r
        batch, groups, heads = r.choice([1, 2]), r.choice([1, 2]), r.choice([1, 3])
        queries, keys, width, values = (r.choice([1, 3, 40, 130]) for _ in range(4))
        dtype = r.choice([np.float32, np.float64])
        q = self.heads(batch, groups * heads, queries, width, dtype=dtype)
        k = self.heads(batch, heads, keys, width, dtype=dtype)
        v = self.heads(batch, heads, keys, values, dtype=dtype)
        shape, mask = (batch, groups * heads, queries, keys), None
        if r.random() < 0.6:
            own = [r.choice([1, length]) for length in shape[:-1]]
            mask = np.broadcast_to(self.array((*own, keys), r.choice([bool, dtype]), 0), shape)
        out = self.heads(batch, groups * heads, queries, values, dtype=dtype)
        p, keep_scale, seed, *_ = self.common(out)
        options = [mask, r.random() < 0.5, p, keep_scale, 0.1, seed]
        return [q, k, v, *options, out, self.threads()]

    def attention_backward(self):
        *tensors, mask, causal, p, keep_scale, scale, seed, out, threads = self.attention()
        outs = [self.like(x, 0.05) for x in tensors]
        if self.r.random() < 0.4:  # several sums
            outs[1:] = [self.array((3 * len(x), *x.shape[1:]), x.dtype, 0.05) for x in tensors[1:]]
        return [out, *tensors, mask, causal, p, keep_scale, scale, seed, *outs, threads]

    def apply_packed(self):
        x = self.x()
        axes = self.axes(x.ndim)
        shape = shape_of(x)
        n = int(np.prod([1 if d in axes else size for d, size in enumerate(shape)], dtype=int))
        packed = self.array(((n + 7) // 8 + (self.r.random() < 0.1),), np.uint8)
        return [x, packed, 2.0, axes, self.out(x), self.threads()]

    def normal_noise(self):
        x = self.x()
        return [x, True, 0.5, *self.key(), 3, self.out(x), self.threads()]

    def drop_blocks(self):
        x = self.x(4)
        block = self.r.choice([1, 2, 7, 8])
        return [x, block, 0.2, *self.key(), 3, self.out(x), self.threads()]

    def stream_copy(self):
        x = self.x()
        return [x, self.like(x), self.threads()]

    def identity(self):
        x = self.x()
        return [x, self.out(x)]

    def make_mask(self):
        n = self.r.choice([0, 1, 2048, 40001])
        return [n, 0.1, *self.key(), 7, self.r.random() < 0.5, self.threads()]

    def random_words(self):
        return [self.r.choice([0, 1, 63, 2049]), *self.key(), self.r.choice([0, 5, 2**50])]

    def fold_in(self):
        return [*self.key(), self.r.choice([0, 5, 2**48 - 1, 2**60])]

    def philox(self):
        counter = self.r.choice([(1, 2, 3, 4), [1, 2, 3], (), np.ones(4, np.uint32), (2**40,) * 4])
        return [counter, 5]

    def memory(self):
        x = self.array((64, 8), np.float32, 0)
        shape = self.r.choice(
            [(64, 8), (512,), (), (-1,), (1,) * 65, (2**40,) * 3, (1,) * 200, (0, 9)]
        )
        dtype = np.dtype(self.r.choice([np.float32, np.float16, *DTYPES]))
        return [x.ctypes.data + self.r.choice([0, 0, 0, 1]), shape, dtype]

    def masked_scale_memory(self):
        """Of right addresses: nobody can check them."""
        x, y = (self.array((3000,), np.float64, 0) for _ in range(2))
        dtype = np.dtype(self.r.choice([np.float32, np.float64, np.int8, object]))
        n = self.r.choice([0, 1, 2999, 3000, 2**55 + 1, 2**64 - 1])
        at = self.r.choice([0, 0, 0, 0, 1])
        return [x.ctypes.data + at, y.ctypes.data, n - at * (n <= 3000), dtype, 0.5, 2.0, 7, 1]

    def lend_threads(self):
        """Of no library: other tests would run on its threads."""
        return [self.r.choice([b"", b"/nowhere", b"libnothing.so"])]

    def want_huge_pages(self):
        return [self.r.choice([0, 1, PAGE, 2**64 - 1]), self.r.choice([0, 5, 2**22, 2**64 - 1])]

    def register_tensorflow_op(self):
        return [self.r.choice([b"", b"/", b"libm.so.6"])]

    def xla_handler(self):
        """The handler's own arguments: tests/adapters/jax/test_jax_interface.py."""
        return []

    def matmul(self):
        m, k, n = (self.r.choice([1, 3, 40, 128, 300]) for _ in range(3))
        dtype = self.r.choice([np.float32, np.float64])
        a, b = self.array((m, k), dtype), self.array((k, n), dtype)
        if self.r.random() < 0.3:
            a = self.array((k, m), dtype).T
        return [a, b, self.array((m, n), dtype)]

    def submatrix(self):
        height, width = (self.r.choice([1, 5, 64, 130]) for _ in range(2))
        dtype = self.r.choice([np.float32, np.float64])
        matrix = self.array((height, width), dtype, 0.1)
        rows = self.r.choice([None, self.indices(height)])
        columns = self.r.choice([None, self.indices(width)])
        counts = [
            size if some is None else shape_of(some)[0]
            for size, some in ((height, rows), (width, columns))
        ]
        return [matrix, rows, columns, self.array(tuple(counts), dtype, 0.1)]

    def rows_ahead(self):
        height, width = self.r.choice([1, 130]), self.r.choice([1, 64, 700])
        dtype = self.r.choice([np.float32, np.float64])
        rows = self.indices(height)
        out = self.array((len(rows), width), dtype, 0.1)
        return [self.array((height, width), dtype, 0.1), rows, out]

    def sum_of_squares(self):
        shape = self.r.choice([(), (0,), (5,), (3, 4), (50, 100)])
        return [self.array(shape, self.r.choice([np.float32, np.float64, np.intp]))]

    def mean_loss(self):
        r = self.r
        shape = r.choice([(3, 4), (64, 10), (2, 3, 5), (0, 3), (5,)])
        outputs = self.array(shape, r.choice([np.float32, np.float64]))
        y = self.like(outputs)
        name = r.choice(["squared", "absolute", "huber", "sigmoid", "softmax"])
        if name == "softmax" and r.random() < 0.5:
            y = self.array(outputs.shape[:-1], np.intp)
            if y.flags.writeable:
                y[...] = r.choice([0, 2, 9, -1])
        weights = r.choice([None, self.array(outputs.shape[:1], outputs.dtype)])
        return [name, outputs, y, weights, 1.0]

    def count_hits(self):
        outputs = self.array((3, 4), self.r.choice([np.float32, np.float64]))
        return [outputs, self.array((3,), self.r.choice([np.intp, np.float32]))]

    def are_classes(self):
        y = self.array(dtype=self.r.choice([np.intp, np.float32]))
        return [y, (*y.shape[1:], self.r.choice([0, 3, -1]))]

    def are_batch(self):
        x = self.array()
        y = self.r.choice([None, self.array(), self.like(x)])
        return [x, y, self.r.choice([x.dtype, np.dtype("f4")]), self.r.choice([x.shape[1:], None])]

    def are_finite(self):
        return [self.array(dtype=self.r.choice([np.float32, np.float64, np.intp]))]

    def softmax_of(self):
        z = self.array(dtype=self.r.choice([np.float32, np.float64]))
        return [z, self.r.choice([z, self.like(z), z[1:], z[:0]]) if z.ndim else z]

    def activation_of(self):
        z = self.array(dtype=self.r.choice([np.float32, np.float64]))
        outs = [None, z, self.like(z), *([z[1:], z[:0]] if z.ndim else [])]
        return [self.r.choice(["sigmoid", "tanh"]), z, self.r.choice(outs)]

    def activation_gradient_of(self):
        dy = self.array(dtype=self.r.choice([np.float32, np.float64]))
        y = self.r.choice([dy, self.like(dy), self.array()])
        return [self.r.choice(["sigmoid", "tanh"]), dy, y]

    def add_samples(self):
        r = self.r
        places, classes = r.choice([(), (1,), (5,), (16, 4)]), r.choice([0, 1, 3, 10])
        samples = self.array((r.choice([0, 1, 7]), *places, classes), r.choice(FLOATS[2:]))
        sums = self.array((3, *places, classes), np.float64)
        if r.random() < 0.3:
            return [samples, None, sums, None, None, True]
        each = r.choice([places, (*places, classes)])
        votes = self.array((*places, classes), np.int64)
        terms, entropies = self.like(samples), self.array(each, np.float64)
        return [samples, terms, sums, entropies, votes, r.random() < 0.5]

    def statistics_of(self):
        sums, entropies, votes = self.add_samples()[2:5]
        return [sums, entropies, votes, self.r.choice([0, 1, 7])]

    def softmax_cross_entropy(self):
        n, classes = self.r.choice([0, 1, 5, 64]), self.r.choice([0, 1, 3, 10])
        dtype = self.r.choice([np.float32, np.float64])
        y = self.array((n, classes), dtype)
        if self.r.random() < 0.6:
            y = self.array((n,), np.intp)
            if n and y.flags.writeable:
                y[...] = self.r.choice([0, 1, -1, 2**40, classes])
        return [self.array((n, classes), dtype), y]

    def update(self):
        r = self.r
        dtype = r.choice([np.float32, np.float64])
        params, grads, rules = {}, {}, {}
        for name in "abc"[: r.randrange(4)]:
            shape = self.shape() if r.random() < 0.3 else (r.choice([1, 5, 64]), r.choice([1, 70]))
            params[name] = self.array(shape, dtype, 0.05)
            grads[name] = self.gradient(params[name], shape, dtype)
            if r.random() < 0.3:
                rules[name] = WeightRule(0.1, 0.1, r.choice([None, 1.0, -1.0]))
        optimizer = r.choice(["sgd", "momentum", "adam", "rmsprop_centered_momentum", "nothing"])
        state = {}
        for name in [*params][: r.randrange(2)]:
            names = ("velocity", "m", "v", "momentum", "average_gradient")
            state[name] = {k: self.like(params[name]) for k in names}
        if r.random() < 0.1:
            params, grads = LongDict(params), r.choice([grads, LongDict(grads)])
        constants = {"rate": 0.1, "momentum": 0.5, "keep": 0.9, "epsilon": 1e-7}
        if r.random() < 0.1:
            constants[r.choice([*constants])] = self.anything()
        options = {}
        if r.random() < 0.3:
            options[r.choice(["clipnorm", "clipvalue", "global_clipnorm", "decay"])] = 0.1
        return [params, grads, rules, state, optimizer, constants], options

    def gradient(self, param, shape, dtype):
        r = self.r
        kind = r.randrange(4)
        if kind == 0 and len(shape) == 2:
            parts = []
            for _ in range(r.randrange(4)):
                rows, columns = self.indices(shape[0]), self.indices(shape[1])
                parts.append((rows, columns, self.array((len(rows), len(columns)), dtype)))
            if r.random() < 0.2:
                parts = LongList(parts)
            if parts and r.random() < 0.2:
                rows, _, values = parts[0]
                parts[0] = (rows, Meddler(r, [param, *self.given], 1), values)
            return PartialGradient(shape, parts)
        if kind == 1 and len(shape) == 2:
            a, b = self.array((shape[0], 9), dtype), self.array((9, shape[1]), dtype)
            return ProductGradient(a, b, self.like(param))
        return self.like(param)

    def updates(self):
        return []

    def atmost(self):
        return [self.r.choice([1, 5, 2**70])]

    def layouts(self):
        return [{"x": self.array(), "y": self.any_array()}]

    def productgradient(self):
        a, b, out = self.matmul()
        if self.r.random() < 0.3:
            b = self.sparse_rows(*self.r.choice([(3, 7), (40, 1)]), np.float32)
        return [a, b, out]

    def sparserows(self):
        r = self.r
        rows, features = r.choice([0, 1, 9]), r.choice([1, 7, 1000])
        arrays = [self.like(array) for array in self.stored(rows, features)]
        chosen = r.choices(range(rows), k=r.choice([0, 3])) if rows else []
        if r.random() < 0.3:
            arrays[r.randrange(3)] = self.any_array()
        features = r.choice([features, features, 3, -1])
        return [*arrays, np.array(chosen, int), features, r.choice([np.float32, np.float64])]

    def sparse_rows(self, rows, features, dtype):
        arrays = self.stored(rows, features)
        return _sparse.SparseRows(*arrays, np.arange(rows), features, dtype)

    def stored(self, rows, features):
        """The arrays of a CSR matrix."""
        rng = np.random.default_rng(self.r.randrange(99))
        index = self.r.choice([np.int32, np.int64])
        counts = rng.integers(0, 4, rows)
        columns = rng.integers(0, features, counts.sum()).astype(index)
        return np.append(0, counts.cumsum()).astype(index), columns, rng.normal(size=len(columns))

    def watched(self):
        layer = Parametrised(self.array())
        return [[layer], [(layer, "p")]]

    def link(self, inputs=None, dtype=None):
        r = self.r
        inputs, units = inputs or r.choice([1, 7, 40]), r.choice([1, 3, 50])
        dtype = dtype or r.choice([np.float32, np.float64])
        dropout = r.choice([None, SimpleNamespace(p=0.5), SimpleNamespace(p=Linear(0, 1, 5))])
        trains, shared = r.random() < 0.8, r.random() < 0.3
        if r.random() < 0.2:
            dropout = dropout or SimpleNamespace(p=0.1)
            return [inputs, None, None, ("", ""), "linear", dropout, 3, trains, shared]
        activation = r.choice(["linear", "relu", ACTIVATIONS["tanh"], ACTIVATIONS["softmax"]])
        bias = r.choice([None, self.array((units,), dtype)])
        weight = self.array((units, inputs), dtype)
        return [units, weight, bias, ("w", "b"), activation, dropout, 3, trains, shared]

    def chain(self):
        dtype = self.r.choice([np.float32, np.float64])
        self.inputs = width = self.r.choice([1, 7, 40])
        links = []
        for _ in range(self.r.randrange(1, 4)):
            arguments = self.link(width, dtype)
            try:
                links.append(_chain.Link(*arguments))
            except (TypeError, ValueError):  # of an array that lies oddly
                continue
            width = arguments[0]
            if arguments[8] and arguments[5]:  # a Dense has to follow
                weight = np.ones((3, width), dtype)
                links.append(_chain.Link(3, weight, None, ("v", "c"), "relu", None, 3, True))
                width = 3
        buffers = Buffers(dtype)
        shared = self.r.choice([None, buffers])
        return [links, self.inputs, dtype, buffers, shared, rate_at, PartialGradient]

    def pass_through(self, chain):
        """Use a chain, and let others meddle with its arrays."""
        for n in (3, self.r.choice([0, 1, 3, 700])):
            dtype = self.r.choice([np.float32, np.float64])
            x = self.array((n, self.inputs), dtype)
            if self.r.random() < 0.3:
                x = self.sparse_rows(n, self.r.choice([self.inputs, self.inputs, 2]), dtype)
            y = chain.forward(x, self.r.random() < 0.8, 1, 5)
            meddle(self.r, self.r.choice(self.given))
            dy = self.like(np.ones(y.shape, dtype))
            meddle(self.r, y)
            chain.backward(dy, self.r.random() < 0.5)
            self.sample(chain)
            for gradient in chain.grads.values():
                for array in gradient.parts[0] if hasattr(gradient, "parts") else [gradient]:
                    if isinstance(array, np.ndarray):
                        meddle(self.r, array)

    def sample(self, chain):
        """Lines of a chain, of right segments and of wrong ones."""
        r = self.r
        rows, lines = r.choice([1, 3, 60]), r.choice([1, 5, 200])
        segments = np.array([[0, lines, 0, 3]])
        if r.random() < 0.8:
            counts = np.diff([0, *sorted(r.sample(range(1, 300), r.choice([1, 4]))), 300])
            firsts = [r.choice([0, 0, 1, rows, -1]) for _ in counts]
            samples = [r.choice([-1, 0, 9]) for _ in counts]
            segments = np.stack([counts.cumsum() - counts, counts, firsts, samples], axis=1)
        in_lines = r.random() < 0.5
        x = self.array((int(segments[:, 1].sum()) if in_lines else rows, self.inputs), np.float32)
        if r.random() < 0.2:
            segments = self.any_array()
        try:
            y = chain.sample(x, segments, r.choice([0, 5, 2**50]), in_lines)
        except (TypeError, ValueError, IndexError):
            return
        meddle(r, y)

    def set_isa(self):
        return [self.r.choice([*_core.available_isas(), "mmx"])]

    use_isa = set_isa

    def set_num_threads(self):
        return [self.r.choice([1, 2, 3])]

    def set_cache_bytes(self):
        return [self.r.choice([0, 1, 32 << 20, 2**64 - 1])]


# These take no arguments; each process calls them once.
PLAIN = {
    *("active_isa", "available_isas", "get_num_threads", "cache_bytes", "openmp_version"),
    *("compiler", "openmp_max_threads", "has_products", "Used"),
    "RowsAhead",
}

# Whose right addresses cannot be told from wrong ones: these arguments stay as they are.
ADDRESSES = {"memory": [0], "masked_scale_memory": [0, 1, 2, 3]}


def functions():
    """All that a compiled module lets be called, by name."""
    found = {}
    for module in (_attention, _core, _train, _chain, _losses, _products, _sparse):
        for name, value in vars(module).items():
            own = getattr(value, "__module__", None) == module.__name__
            if callable(value) and own and not name.startswith("_"):
                found[name] = value
    return found


def described(value):
    if isinstance(value, np.ndarray):
        flags = value.flags
        marks = f"{'c' * flags.c_contiguous}{'w' * flags.writeable}{'a' * flags.aligned}"
        return f"{type(value).__name__} {dtype_of(value)}{shape_of(value)} {marks}"
    if isinstance(value, dict):
        return str({k: described(v) for k, v in dict.items(value)})
    if isinstance(value, tuple | list):
        return f"{type(value).__name__} [{', '.join(described(v) for v in value)}]"
    return f"{type(value).__name__} {value!r:.60}"


def make(seed, number):
    """The function's name and the arguments of a call."""
    fuzzer = Fuzzer(seed, number)
    r = fuzzer.r
    names = sorted(functions().keys() - PLAIN)
    name = names[number % len(names)]
    made = getattr(fuzzer, name.lower())()
    arguments, options = made if isinstance(made, tuple) else (made, {})
    for _ in range(r.choice([0, 0, 1, 1, 1, 2, 3])):
        if arguments and not (options and r.random() < 0.2):
            place = r.randrange(len(arguments))
            if place not in ADDRESSES.get(name, ()):
                arguments[place] = fuzzer.anything()
        elif options:
            options[r.choice(list(options))] = fuzzer.anything()
    if arguments and r.random() < 0.03 and name not in ADDRESSES:
        arguments = arguments[: r.randrange(len(arguments))]
    return name, arguments, options, fuzzer


def perform(name, arguments, options, fuzzer):
    """Make the call; what came of it, in a word."""
    try:
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            result = functions()[name](*arguments, **options)
            if name == "use_isa":
                with result:
                    pass
            if name == "Layouts":
                meddle(fuzzer.r, fuzzer.given[0])
                result.check()
            if name == "Watched":
                result.is_still([fuzzer.anything()])
                result.is_still(arguments[0])
            if name == "Chain":
                fuzzer.pass_through(result)
            if name == "rows_ahead" and result is not None and fuzzer.r.random() < 0.5:
                meddle(fuzzer.r, arguments[1])
                result.finish()
        return "returned"
    except SystemError:  # of a function that does not keep Python's rules
        raise
    except Exception as error:
        return type(error).__name__


def work(seed, first, last, log, memory):
    """Make these calls in this process; the one that is made stands in the file `log`."""
    if memory:
        used = int(Path("/proc/self/statm").read_text().split()[0]) * PAGE
        resource.setrlimit(resource.RLIMIT_AS, (used + memory, used + memory))
    outcomes = Counter(f"{name} {perform(name, [], {}, None)}" for name in PLAIN)
    with open(log, "r+b", buffering=0) as file:
        for number in range(first, last):
            os.truncate(log, 0)
            os.pwrite(file.fileno(), f"call {number}".encode(), 0)
            name, arguments, options, fuzzer = make(seed, number)
            text = f"call {number} of {seed}: {name}({described(arguments)}, {described(options)})"
            os.pwrite(file.fileno(), text.encode(), 0)
            outcomes[f"{name} {perform(name, arguments, options, fuzzer)}"] += 1
    print(json.dumps(outcomes))


def fuzz(seed, calls, at_once=500):
    """Make calls in processes of their own; how many had each outcome, and what went wrong."""
    outcomes, failures = Counter(), []
    sanitized = "libasan" in os.environ.get("LD_PRELOAD", "")
    options = os.environ.get("ASAN_OPTIONS", "") + ":allocator_may_return_null=1"
    environment = {
        **os.environ,
        "ASAN_OPTIONS": options + ":max_allocation_size_mb=500",
        "OPENBLAS_NUM_THREADS": "2",
    }
    for first in range(0, calls, at_once):
        last = min(first + at_once, calls)
        while first < last:
            with tempfile.NamedTemporaryFile() as log:
                code = f"import fuzz; fuzz.work({seed}, {first}, {last}, {log.name!r}, "
                done = subprocess.run(
                    [sys.executable, "-c", code + f"{0 if sanitized else 4 << 30})"],
                    cwd=Path(__file__).parent,
                    env=environment,
                    capture_output=True,
                    text=True,
                    errors="replace",
                )
                call = Path(log.name).read_text(errors="replace")
            if done.returncode == 0:
                outcomes.update(json.loads(done.stdout))
                break
            failures.append(f"{call}\n  ended the process: {done.returncode} {done.stderr[-3000:]}")
            if not call:
                break
            first = int(call.split()[1]) + 1  # go on behind it
    return outcomes, failures
