"""How JAX sees a masked operation: as one primitive, with its derivatives and batches.

Only the key is kept for a backward pass. The same primitive masks tangents and gradients, and draws
the mask again.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from fastdrop.jax.partition import whole
from fastdrop.jax.rules import Rule

__all__ = ["apply"]

# takes x, [z,] key, offset, [p], as `partition.whole` does
_masked = Primitive("fastdrop")


def apply(rule: Rule, *operands: Array) -> Array:
    """Apply a rule.

    Parameters
    ----------
    rule : Rule
        What to do to x.
    *operands : Array
        x; z if the rule's operation has it (a residual of the shape of x, or a bias along its last
        axis); key (1, 2 or 4 words); offset (2 words); p (one number, of shape (1,)) if the rule
        has none.

    Returns
    -------
    Array
        The result, like x.
    """
    return _bind(_varying(operands, rule), rule, 0)


def _bind(operands: Sequence[Any], rule: Rule, batch: int) -> Array:
    y: Array = _masked.bind(*operands, rule=rule, batch=batch)
    return y


def _varying(operands: Sequence[Array], rule: Rule) -> Sequence[Array]:
    """Make x, and what is added to it, vary over all `shard_map` axes of the operands."""
    axes = [_axes_of(operand) for operand in operands]
    every = frozenset().union(*axes)
    many = 2 if rule.has_second else 1
    return [
        _vary(operand, tuple(every - own)) if i < many and every - own else operand
        for i, (operand, own) in enumerate(zip(operands, axes))
    ]


def _axes_of(operand: Any) -> frozenset[Any]:
    """Return the axes of a `shard_map` that it varies over; raises if JAX names them otherwise."""
    kind: Any = jax.typeof(operand)
    axes: frozenset[Any] = kind.vma if hasattr(kind, "vma") else kind.manual_axis_type.varying
    return axes


def _vary(operand: Any, axes: tuple[Any, ...]) -> Array:
    if hasattr(jax.lax, "pcast"):
        y: Array = jax.lax.pcast(operand, axes, to="varying")
    else:  # before JAX 0.9
        y = jax.lax.pvary(operand, axes)
    return y


@_masked.def_abstract_eval
def _like_x(x: Any, *_: Any, **params: Any) -> Any:
    return x.update(weak_type=False)


@cache
def _compiled(rule: Rule, batch: int) -> Any:
    return jax.jit(partial(_masked.bind, rule=rule, batch=batch))


@_masked.def_impl
def _run(*operands: Any, rule: Rule, batch: int) -> Any:
    with jax.disable_jit(False):
        return _compiled(rule, batch)(*operands)


# ---- derivatives --------------------------------------------------------------------------------


def _spread(bias: Array, x: Any, batch: int) -> Array:
    """Return a bias with the axes of x."""
    between = (1,) * (x.ndim - batch - 1)
    return bias.reshape((*bias.shape[:batch], *between, bias.shape[-1]))


@partial(jax.checkpoint, prevent_cse=False, static_argnums=0)  # keeps only y, which exists anyway
def _behind_relu(scale: float, y: Array, dx: Array) -> Array:
    """Mask a tangent: y > 0 is the mask of the ReLU and of dropout in one."""
    kind = jnp.promote_types(y.dtype, jnp.float32)
    scaled = (dx.astype(kind) * jnp.asarray(scale, kind)).astype(y.dtype)
    return jnp.where(y > 0, scaled, jnp.zeros((), y.dtype))


def _jvp(primals: Any, tangents: Any, *, rule: Rule, batch: int) -> Any:
    y = _bind(primals, rule, batch)
    x = primals[0]
    dx, added = tangents[0], tangents[1] if rule.has_second else None
    words = primals[2:] if rule.has_second else primals[1:]
    if rule.op == "noise":
        return y, dx
    if rule.op in ("bias", "bias relu"):
        if type(added) is not ad.Zero:
            added = jnp.broadcast_to(_spread(added, x, batch), x.shape)
        dx, added = ad.add_tangents(dx, added), None
    if rule.op == "bias relu":
        return y, _behind_relu(rule.scale, y, dx)
    if type(dx) is ad.Zero:
        return y, added
    dy = _bind((dx, *words), rule.linear, batch)
    return y, dy if added is None else ad.add_tangents(dy, added)


def _transpose(dy: Any, x: Any, *words: Any, rule: Rule, batch: int) -> Any:
    assert rule == rule.linear
    assert ad.is_undefined_primal(x)
    dx = ad.Zero(x.aval) if type(dy) is ad.Zero else _bind((dy, *words), rule, batch)
    return dx, *(None for _ in words)


ad.primitive_jvps[_masked] = _jvp
ad.primitive_transposes[_masked] = _transpose

# ---- batches ------------------------------------------------------------------------------------


def _batched(operands: Any, axes: Any, *, rule: Rule, batch: int) -> Any:
    """Make one call for the whole batch, with another axis, of length 1 if an operand has none."""
    (size,) = {operand.shape[axis] for operand, axis in zip(operands, axes) if axis is not None}
    arrays = 2 if rule.op == "add" else 1
    moved = []
    for i, (operand, axis) in enumerate(zip(operands, axes)):
        if axis is not None:
            moved.append(jnp.moveaxis(operand, axis, 0))
        elif i < arrays:
            moved.append(jnp.broadcast_to(operand, (size, *operand.shape)))
        else:
            moved.append(operand[None])
    return _bind(moved, rule, batch + 1), 0


batching.primitive_batchers[_masked] = _batched

# ---- programs -----------------------------------------------------------------------------------

mlir.register_lowering(_masked, mlir.lower_fun(whole, multiple_results=False))

try:  # Not public (jax issue 25802): gives a program its devices where a primitive asks for them.
    from jax._src.dispatch import prim_requires_devices_during_lowering

    prim_requires_devices_during_lowering.add(_masked)
except ImportError:  # Then XLA gathers an array that lies on several devices; the mask is the same.
    pass
