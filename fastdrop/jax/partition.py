"""An array on several devices, of which each draws its block of the mask and gathers nothing."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.experimental.custom_partitioning import SdyShardingRule, custom_partitioning
from jax.sharding import AbstractMesh, Mesh, NamedSharding, PartitionSpec, use_abstract_mesh

from fastdrop.jax.handler import block
from fastdrop.jax.rules import Rule

__all__ = ["whole"]


def whole(*operands: Array, rule: Rule, batch: int) -> Array:
    """Apply a rule to an array, however it is laid out on devices.

    Parameters
    ----------
    *operands : Array
        x; z if the rule's operation has it; key; offset; p if the rule has none. Batch axes of
        length 1 stand for all. Operands are abstract while a program is lowered.
    rule : Rule
        What to do to x.
    batch : int
        Number of batch axes.

    Returns
    -------
    Array
        The result, like x.
    """
    function = _partitioned(rule, batch) if operands[0].ndim else _unpartitioned(rule, batch)
    y: Array = function(*operands)
    return y


def _strides(shape: Sequence[int], shared: Sequence[int]) -> tuple[int, ...]:
    """Return the strides of the axes in the mask of an array of this shape; 0 along shared axes."""
    own = [1 if axis in shared else length for axis, length in enumerate(shape)]
    return tuple(0 if axis in shared else math.prod(own[axis + 1 :]) for axis in range(len(shape)))


def _with_mesh(sharding: Any, ndim: int) -> Any:
    """Return a sharding without a mesh as one with its own mesh, or as one that splits nothing.

    Devices find their place in a mesh by counting, so they have to be in order.
    """
    if isinstance(sharding, NamedSharding):
        return sharding
    tiles, devices = sharding._hlo_sharding, sharding._device_assignment
    if not tiles.is_replicated() and list(tiles.tile_assignment_devices()) == list(
        range(len(devices))
    ):
        lengths = tiles.tile_assignment_dimensions()
        names = [f"axis_{i}" for i in range(len(lengths))]
        spec = [name if n > 1 else None for name, n in zip(names[:ndim], lengths)]
        mesh = Mesh(np.array(devices).reshape(lengths), names)
        return NamedSharding(mesh, PartitionSpec(*spec))
    return type(sharding).get_replicated(devices)


def _bind(
    operands: Sequence[Array], starts: Array, rule: Rule, batch: int, strides: tuple[int, ...]
) -> Array:
    last = 4 if rule.has_second else 3  # the operands before p
    operands = [*operands[:last], starts, *operands[last:]]
    y: Array = block.bind(*operands, rule=rule, batch=batch, strides=strides)
    return y


def _no_mesh() -> Any:
    """Keep JAX from annotating arrays for an explicit mesh, which nothing reads on one device."""
    return use_abstract_mesh(AbstractMesh((), ()))


def _unpartitioned(rule: Rule, batch: int) -> Callable[..., Array]:
    def function(*operands: Array) -> Array:
        shape = operands[0].shape[batch:]
        with _no_mesh():
            starts = jnp.zeros(max(len(shape), 1), jnp.uint32)
        return _bind(operands, starts, rule, batch, _strides(shape, rule.shared))

    return function


def _dims(shape: Sequence[int], result: Sequence[int], batch: int, kind: str) -> list[int | None]:
    """Return, for each axis of an operand, the axis of the result that it is split with, if any."""
    axes: list[int | None]
    if kind == "array":
        axes = list(range(len(result)))
    elif kind == "bias":
        axes = [*range(batch), len(result) - 1]
    else:
        axes = [*range(batch), None]
    return [
        None if axis is None or length != result[axis] else axis
        for axis, length in zip(axes, shape)
    ]


def _kinds(rule: Rule) -> list[str]:
    second = {"add": ["array"], "bias": ["bias"], "bias relu": ["bias"]}.get(rule.op, [])
    return ["array", *second, "words", "words", *(["words"] if rule.p is None else [])]


@cache
def _partitioned(rule: Rule, batch: int) -> custom_partitioning:
    kinds = _kinds(rule)

    def infer(mesh: Any, operands: Any, result: Any) -> Any:
        return operands[0].sharding

    def partition(mesh: Any, operands: Any, result: Any) -> Any:
        sharding = _with_mesh(result.sharding, len(result.shape))
        if not isinstance(sharding, NamedSharding):
            return mesh, _unpartitioned(rule, batch), sharding, tuple(sharding for _ in operands)
        spec = [*sharding.spec, *[None] * (len(result.shape) - len(sharding.spec))]
        strides = _strides(result.shape[batch:], rule.shared)

        def on_device(*parts: Array) -> Array:
            lengths = parts[0].shape[batch:]
            with _no_mesh():
                starts = [
                    (lax.axis_index(names) if names else 0) * length
                    for names, length in zip(spec[batch:], lengths)
                ]
                words = [jnp.asarray(start).astype(jnp.uint32) for start in starts or [0]]
                return _bind(parts, jnp.stack(words), rule, batch, strides)

        split = [
            NamedSharding(
                sharding.mesh,
                PartitionSpec(
                    *(
                        None if axis is None else spec[axis]
                        for axis in _dims(operand.shape, result.shape, batch, kind)
                    )
                ),
            )
            for operand, kind in zip(operands, kinds)
        ]
        return sharding.mesh, on_device, sharding, tuple(split)

    def shardy(mesh: Any, operands: Any, results: Any) -> SdyShardingRule:
        (result,) = (tuple(kind.shape) for kind in results)
        names = [
            tuple(
                f"own_{i}_{j}" if axis is None else f"axis_{axis}"
                for j, axis in enumerate(_dims(operand.shape, result, batch, kind))
            )
            for i, (operand, kind) in enumerate(zip(operands, kinds))
        ]
        return SdyShardingRule(tuple(names), (names[0],))

    function = custom_partitioning(_unpartitioned(rule, batch))
    function.def_partition(
        partition=partition, infer_sharding_from_operands=infer, sharding_rule=shardy
    )
    return function
