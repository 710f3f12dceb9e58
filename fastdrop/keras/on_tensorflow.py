"""Keras's backend tensorflow, by an op of our own, or by kernels in a `tf.numpy_function`."""

from __future__ import annotations

from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from fastdrop.compiled import _core
from fastdrop.functional import inverted_scale
from fastdrop.keras.rules import Rule, key_of, run
from fastdrop.noise import gaussian_stddev
from fastdrop.variants import alpha_coefficients

__all__ = ["SUPPORTS_JIT", "apply"]

SUPPORTS_JIT = False  # XLA knows neither the op nor Python

OP = "FastdropMasked"


def apply(x: Any, rule: Rule, state: Any) -> Any:
    """Apply a rule with the key of a seed generator's state: (seed, call).

    Parameters
    ----------
    x : tf.Tensor
        The tensor. Some of its lengths may be unknown.
    rule : Rule
        What to do to it.
    state : tf.Tensor
        Two integers, the seed and the call.

    Returns
    -------
    tf.Tensor
        The result, like x.
    """
    shared = _shared_axes(x, rule)
    if shared is None or not _HAS_OP:
        return _by_python(x, rule, state)
    op, numbers = _numbers(rule)
    return _by_op(op)(x, tf.cast(state, tf.int64), np.array(shared, np.int64), np.array(numbers))


def _shared_axes(x: Any, rule: Rule) -> tuple[int, ...] | None:
    """Return them, or None if it depends on lengths that are unknown whether noise_shape fits."""
    if rule.noise_shape is None:
        return ()
    if x.shape.rank is None:
        return None
    shape = tuple(x.shape)
    own = (1,) * (len(shape) - len(rule.noise_shape)) + rule.noise_shape
    if any(known is None and length not in (None, 1) for length, known in zip(own, shape)):
        return None
    return rule.shared(shape)


# ---- the op --------------------------------------------------------------------------------------


def _has_op() -> bool:
    """Register the op, if this TensorFlow has the interface for it, and its gradient."""
    for path in Path(tf.sysconfig.get_lib()).glob("libtensorflow_framework.*"):
        with suppress(ImportError):
            _core.register_tensorflow_op(bytes(path))
            with suppress(KeyError):  # this module was loaded before
                tf.RegisterGradient(OP)(_gradient)
            return True
    return False


def _numbers(rule: Rule) -> tuple[str, tuple[float, float, float, float]]:
    """Return the op's operation, and p, scale, shift and fill."""
    if rule.kind == "alpha":
        return "alpha", (rule.p, *alpha_coefficients(rule.p))
    if rule.kind == "gaussian":
        return "gaussian", (0.0, gaussian_stddev(rule.p), 0.0, 0.0)
    if rule.kind == "noise":
        return "noise", (0.0, rule.p, 0.0, 0.0)
    return "scale", (rule.p, inverted_scale(rule.p), 0.0, 0.0)


@lru_cache
def _by_op(op: str) -> Any:
    """Return a function that calls the op.

    TensorFlow has a public way only within a graph, where tapes do not see it. Of this function
    they see the call.
    """
    return tf.function(lambda *inputs: _node(_core.OPS[op], *inputs), reduce_retracing=True)


def _node(op: int, *inputs: Any) -> Any:
    """Add the op to the graph that is being built."""
    tensors = [tf.convert_to_tensor(each) for each in inputs]
    attributes = {
        "T": tf.compat.v1.AttrValue(type=tensors[0].dtype.as_datatype_enum),
        "op": tf.compat.v1.AttrValue(i=op),
    }
    graph = tf.compat.v1.get_default_graph()
    return graph.create_op(OP, tensors, [tensors[0].dtype], attrs=attributes).outputs[0]


def _gradient(node: Any, dy: Any) -> list[Any]:
    op = node.get_attr("op")
    if op == _core.OPS["noise"]:
        return [dy, None, None, None]
    linear = _core.OPS["scale"] if op == _core.OPS["alpha"] else op
    return [_node(linear, dy, *node.inputs[1:]), None, None, None]


_HAS_OP = _has_op()  # at once, because files may have it


# ---- without it ----------------------------------------------------------------------------------


def _by_python(x: Any, rule: Rule, state: Any) -> Any:
    @tf.custom_gradient  # type: ignore[untyped-decorator, unused-ignore]
    def masked(x: Any) -> Any:
        y = tf.numpy_function(
            lambda x, state: run(np.asarray(x), rule, key_of(*map(int, state))),
            [x, state],
            x.dtype,
            stateful=False,
        )
        y.set_shape(x.shape)
        gradient = rule.gradient
        return y, lambda dy: dy if gradient is None else _by_python(dy, gradient, state)

    return masked(x)
