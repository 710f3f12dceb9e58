"""What `fastdrop bench` compares: one library per process, told on standard input what to measure.

`_Measuring.answer` has the form of requests and answers.
"""

from __future__ import annotations

import math
import os
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, ClassVar, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fastdrop.commands.bench.process import serve

__all__ = ["GROUPS", "LIBRARIES", "as_dtype"]

Array: TypeAlias = NDArray[Any]


class Measured(NamedTuple):
    """A call that is timed, and its latest outputs: y, and dx where it was asked for."""

    run: Callable[[], object]
    results: Callable[[], list[Array]]


class Group(NamedTuple):
    """One kind of dropout: the shape behind the batch axis, and the mask's shared axes."""

    sample: tuple[int, ...] = ()
    shared_axes: tuple[int, ...] = ()

    def shape(self, elements: int) -> tuple[int, ...]:
        """Return an array's shape of so many elements."""
        rows, rest = divmod(elements, math.prod(self.sample))
        if rest or not rows:
            raise ValueError(
                f"sizes: expected multiples of {math.prod(self.sample)} elements, got {elements}"
            )
        return (rows, *self.sample)


BLOCK_SIZE = 7
GROUPS = {
    "dropout": Group(),
    "channels": Group((64, 32, 32), (2, 3)),
    "maps": Group((256, 8, 8), (2, 3)),
    "paths": Group((4096,), (1,)),
    "locked": Group((64, 512), (1,)),
    "gaussian": Group(),
    "blocks": Group((64, 32, 32)),
}
COPIES = ("copy", "streaming copy")
CHECKED = 1 << 20  # elements of a result, of the first axis some


class Library:
    """One library: its name with versions, and the sides it can measure, by group."""

    name: str
    sides: ClassVar[Mapping[str, tuple[str, ...]]]

    def __init__(self, threads: int) -> None:
        raise NotImplementedError

    def prepare(self, group: str, side: str, x: Array, p: float, backward: bool) -> Measured:
        """Get ready to drop x, and with `backward` to propagate a gradient too.

        What is compiled is compiled now, once: the first call takes no longer than others.
        """
        raise NotImplementedError


def as_dtype(name: str) -> np.dtype[Any]:
    """Return a float dtype by its name, bfloat16 with the help of ml_dtypes."""
    if name != "bfloat16":
        return np.dtype(name)
    try:
        from ml_dtypes import bfloat16
    except ImportError:
        raise ImportError("bfloat16 needs ml_dtypes: pip install 'fastdrop-nn[bfloat16]'") from None
    return np.dtype(bfloat16)


class Fastdrop(Library):
    """fastdrop, and the limits it is held against."""

    sides: ClassVar = dict.fromkeys(GROUPS, (*COPIES, "fastdrop", "fastdrop, new output")) | {
        "dropout": (*COPIES, "NumPy", "fastdrop", "fastdrop, new output")
    }

    def __init__(self, threads: int) -> None:
        import fastdrop

        fastdrop.set_num_threads(threads)
        self.threads = threads
        self.name = f"fastdrop {fastdrop.__version__}, NumPy {np.__version__}"

    def prepare(self, group: str, side: str, x: Array, p: float, backward: bool) -> Measured:
        from fastdrop import drop_block2d, dropout, dropout_mask, gaussian_dropout
        from fastdrop.compiled import _core
        from fastdrop.random import Generator, Key

        y, dx = x.copy(), x.copy() if backward else None  # not empty: their memory is there
        generator, random = Generator(1), np.random.Generator(np.random.SFC64(1))
        scale = x.dtype.type(1 / (1 - p))
        outputs = [y] if dx is None else [y, dx]
        keys: list[Key | None] = [None]

        def both(step: Callable[[Array, Array], object]) -> Callable[[], object]:
            """`step` from x to y and, if asked for, from dy (x serves as such) to dx."""
            return lambda: (step(x, y), step(x, dx) if dx is not None else None)

        def numpy() -> None:
            keep = random.random(x.shape, np.float32) >= p
            for out in (y, dx):
                if out is not None:
                    np.multiply(x, keep, out=out)
                    np.multiply(out, scale, out=out)

        layer: Callable[..., Array] = {
            "dropout": partial(dropout, x, p),
            "gaussian": partial(gaussian_dropout, x, p),
            "blocks": partial(drop_block2d, x, p, BLOCK_SIZE),
        }.get(group, partial(dropout, x, p, shared_axes=GROUPS[group].shared_axes))

        def drop() -> None:
            keys[0] = key = generator.next_key()
            for out in outputs:
                layer(key=key, out=out)

        def drop_new() -> None:
            keys[0] = key = generator.next_key()
            outputs[:] = [layer(key=key) for _ in outputs]

        def results() -> list[Array]:
            """Check, for plain dropout, that the mask is the contract's: bit for bit."""
            if keys[0] and group == "dropout":
                kept = dropout_mask(x.shape, p, key=keys[0])
                if not all(np.array_equal(output != 0, kept) for output in outputs):
                    raise ValueError(f"{side}: the mask is not the one of {keys[0]}")
            return outputs

        run = {
            "copy": both(lambda a, b: np.copyto(b, a)),
            "streaming copy": both(lambda a, b: _core.stream_copy(a, b, self.threads)),
            "NumPy": numpy,
            "fastdrop": drop,
            "fastdrop, new output": drop_new,
        }[side]
        return Measured(run, results)


class PyTorch(Library):
    """torch.nn.functional's dropouts where it has them, else what its users write."""

    sides: ClassVar = dict.fromkeys(GROUPS, ("PyTorch",))

    def __init__(self, threads: int) -> None:
        import torch

        torch.set_num_threads(threads)
        self.name = f"PyTorch {torch.__version__}"

    def prepare(self, group: str, side: str, x: Array, p: float, backward: bool) -> Measured:
        import torch

        kinds = {2: torch.float16, 4: torch.float32, 8: torch.float64}
        kind = torch.bfloat16 if x.dtype.name == "bfloat16" else kinds[x.itemsize]
        tensor = torch.from_numpy(x.astype(np.float32)).to(kind).requires_grad_(backward)
        dy = torch.ones_like(tensor)
        outputs: dict[str, Any] = {}
        functional, axes = torch.nn.functional, GROUPS[group].shared_axes

        def shared(x: Any) -> Any:
            shape = [1 if axis in axes else n for axis, n in enumerate(x.shape)]
            return x * torch.empty(shape, dtype=x.dtype).bernoulli_(1 - p).div_(1 - p)

        def gaussian(x: Any) -> Any:
            return x * (1 + torch.randn_like(x) * (p / (1 - p)) ** 0.5)

        def blocks(x: Any) -> Any:
            *_, height, width = x.shape
            places = (height - BLOCK_SIZE + 1, width - BLOCK_SIZE + 1)
            gamma = p * height * width / (BLOCK_SIZE**2 * math.prod(places))
            corners = torch.empty((*x.shape[:2], *places), dtype=x.dtype).bernoulli_(gamma)
            corners = functional.pad(corners, [BLOCK_SIZE // 2] * 4)
            kept = 1 - functional.max_pool2d(corners, BLOCK_SIZE, 1, BLOCK_SIZE // 2)
            return x * kept * (kept.numel() / kept.sum())

        layer: Callable[[Any], Any] = {
            "dropout": lambda x: functional.dropout(x, p, True),
            "channels": lambda x: functional.dropout2d(x, p, True),
            "maps": lambda x: functional.dropout2d(x, p, True),
            "gaussian": gaussian,
            "blocks": blocks,
        }.get(group, shared)

        def run() -> None:
            outputs["y"] = layer(tensor)
            if backward:
                tensor.grad = None
                outputs["y"].backward(dy)

        def results() -> list[Array]:
            tensors = [outputs["y"].detach(), *([tensor.grad] if backward else [])]
            return [t.float().numpy().astype(x.dtype, copy=False) for t in tensors]

        return Measured(run, results)


class Jax(Library):
    """The idiom of Flax's layer, jitted, with JAX's default generator and its fastest."""

    sides: ClassVar = {"dropout": ("JAX threefry", "JAX rbg")}

    def __init__(self, threads: int) -> None:
        import jax

        self.name = f"JAX {jax.__version__}"
        self._compiled: dict[tuple[Any, ...], Any] = {}

    def prepare(self, group: str, side: str, x: Array, p: float, backward: bool) -> Measured:
        import jax

        if x.itemsize == 8:
            jax.config.update("jax_enable_x64", True)
        generator = {"JAX threefry": "threefry2x32", "JAX rbg": "rbg"}[side]
        array, keys = jax.numpy.asarray(x), [jax.random.key(1, impl=generator)]
        outputs: list[Any] = []

        def dropout(key: Any, x: Any) -> Any:
            keep = jax.random.bernoulli(key, 1 - p, x.shape)
            return jax.numpy.where(keep, x / (1 - p), 0).astype(x.dtype)

        @jax.jit
        def new_step(key: Any, x: Any, dy: Any) -> Any:
            key, now = jax.random.split(key)
            if not backward:
                return key, dropout(now, x)
            y, pull = jax.vjp(lambda x: dropout(now, x), x)
            return key, y, *pull(dy)

        name = (side, x.shape, x.dtype.name, p, backward)
        if name not in self._compiled:
            new_step.lower(keys[0], array, array).compile()  # calls find that
            self._compiled[name] = new_step
        step = self._compiled[name]

        def run() -> None:
            keys[0], *outputs[:] = jax.block_until_ready(step(keys[0], array, array))

        return Measured(run, lambda: [np.asarray(output) for output in outputs])


class TensorFlow(Library):
    """tf.nn.dropout and its stateless form, and Keras's layers, compiled as graphs."""

    sides: ClassVar = {
        "dropout": ("TensorFlow", "TensorFlow stateless"),
        "channels": ("Keras",),
        "maps": ("Keras",),
        "gaussian": ("Keras",),
    }

    def __init__(self, threads: int) -> None:
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
        import tensorflow as tf

        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(1)
        self.name = f"TensorFlow {tf.__version__}"
        self._traced: dict[tuple[Any, ...], Any] = {}

    def prepare(self, group: str, side: str, x: Array, p: float, backward: bool) -> Measured:
        import tensorflow as tf

        tensor = tf.constant(x)
        outputs: dict[str, Any] = {"call": 0}

        if side == "Keras":
            import keras

            layer = (
                keras.layers.GaussianDropout(p, dtype=x.dtype.name)
                if group == "gaussian"
                else keras.layers.SpatialDropout2D(p, "channels_first", dtype=x.dtype.name)
            )

        def dropout(x: Any, call: Any) -> Any:
            if side == "Keras":
                return layer(x, training=True)
            if side == "TensorFlow":
                return tf.nn.dropout(x, p)
            return tf.nn.experimental.stateless_dropout(x, p, seed=tf.stack([1, call]))

        @tf.function(autograph=False)
        def new_step(x: Any, call: Any) -> Any:
            if not backward:
                return dropout(x, call)
            with tf.GradientTape() as tape:
                tape.watch(x)
                y = dropout(x, call)
            return y, tape.gradient(y, x)

        name = (side, group, x.shape, x.dtype.name, p, backward)
        if name not in self._traced:
            new_step.get_concrete_function(tensor, tf.constant(0))  # calls find that
            self._traced[name] = new_step
        step = self._traced[name]

        def run() -> None:
            outputs["call"] += 1
            result = step(tensor, tf.constant(outputs["call"]))
            outputs["results"] = result if backward else [result]

        return Measured(run, lambda: [output.numpy() for output in outputs["results"]])


# by the module that has to be installed
LIBRARIES: dict[str, type[Library]] = {
    "fastdrop": Fastdrop,
    "torch": PyTorch,
    "jax": Jax,
    "tensorflow": TensorFlow,
}


def _check(group: str, side: str, x: Array, y: Array, p: float) -> None:
    """Is y x with a share p of its elements dropped and the others scaled, or with noise?"""
    x64, y64 = x.astype(np.float64), y.astype(np.float64)
    kept, scale, decisions = y64 != 0, 1 / (1 - p), x.size
    shared = GROUPS[group].shared_axes
    decisions //= math.prod(x.shape[axis] for axis in shared)
    if side in COPIES:
        p, scale, kept = 0.0, 1.0, np.ones(x.shape, bool)
    elif group == "gaussian":
        noise = y64 / x64
        expected = (p / (1 - p)) ** 0.5
        if abs(noise.mean() - 1) > 6 * expected / x.size**0.5 + 1e-3:
            raise ValueError(f"{side}: the noise has mean {noise.mean():.4f}")
        if abs(noise.std() / expected - 1) > 6 / x.size**0.5 + 1e-2:
            raise ValueError(f"{side}: the noise has deviation {noise.std():.4f}")
        return
    elif group == "blocks":
        dropped = 1 - kept.mean()
        if not 0.5 * p < dropped < p:
            raise ValueError(f"{side}: dropped {dropped:.4f} of the elements at p = {p}")
        return
    error = np.abs(y64 - x64 * scale)[kept].max(initial=0)
    if error > 4 * np.finfo(np.float16 if x.itemsize == 2 else np.float32).eps * 8:
        raise ValueError(f"{side}: kept elements are not x / (1 - p), off by {error:.2g}")
    if abs(kept.mean() - (1 - p)) > 6 * (p * (1 - p) / decisions) ** 0.5 + 1e-3 * p:
        raise ValueError(f"{side}: dropped {1 - kept.mean():.4f} of the elements at p = {p}")


def _median_time(run: Callable[[], object], seconds: float, known: bool) -> float:
    """Median time of a call, of as many as fit in about so many seconds, but for the first.

    The first counts, alone, where it takes all of them and is known not to prepare anything.
    """
    times: list[float] = []
    end = time.perf_counter() + seconds
    while len(times) < 2 or time.perf_counter() < end:
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
        if known and times[0] >= seconds:
            return times[0]
    return statistics.median(times[1:])


class _Measuring:
    """Answers requests; keeps nothing but x between two."""

    def __init__(self, library: Library) -> None:
        self._library = library
        self._latest: tuple[Any, Array] = (None, np.empty(0))
        self._known: set[tuple[Any, ...]] = set()  # calls that ran before, if with another size

    def answer(self, request: dict[str, Any]) -> float:
        """Measure: {"side", "point", "seconds"} -> seconds of a call whose results are right."""
        side, point = request["side"], request["point"]
        group, p = point["group"], point["p"]
        x = self._x(group, point["elements"], point["dtype"])
        measured = self._library.prepare(group, side, x, p, point["backward"])
        call = (side, group, point["dtype"], p, point["backward"])
        result = _median_time(measured.run, request["seconds"], call in self._known)
        self._known.add(call)
        some = slice(None, None, x.size // CHECKED | 1)  # odd: from all places of vectors
        y, *gradients = (output[some] for output in measured.results())
        _check(group, side, x[some], y, p)
        for dx in gradients:
            if not np.array_equal(dx != 0, y != 0):
                raise ValueError(f"{side}: the gradient is dropped in other places than the output")
        return result

    def _x(self, *wanted: Any) -> Array:
        if self._latest[0] != wanted:
            self._latest = None, np.empty(0)  # lets go of the last one first
            group, elements, dtype = wanted
            x = np.random.default_rng(0).random(GROUPS[group].shape(elements), np.float32)
            x += 1
            x /= 2
            self._latest = wanted, x.astype(as_dtype(dtype), copy=False)
        return self._latest[1]


def _start(name: str, threads: int) -> tuple[dict[str, Any], Callable[[Any], float]]:
    library = LIBRARIES[name](threads)
    return {"name": library.name, "sides": library.sides}, _Measuring(library).answer


if __name__ == "__main__":
    serve(partial(_start, sys.argv[1], int(sys.argv[2])))
