"""Whole models: their dropout layers, in place."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import keras

from fastdrop.keras.layers import LAYERS

__all__ = ["convert", "revert"]


def convert(model: Any) -> list[str]:
    """Make every dropout layer of a model one of `fastdrop.keras`, in place.

    Before or after `compile` and `fit`: weights, optimiser, seeds and counters stay. Layers inside
    layers are reached, those of MultiHeadAttention, too. A warning names what is not: layers that
    call `keras.random.dropout` themselves (recurrent ones, Attention), and subclasses of Keras's.
    Give it the model that you fit: one that was compiled around a part keeps the part's old layers
    until it is compiled again.

    Parameters
    ----------
    model : keras.Model or keras.layers.Layer

    Returns
    -------
    list of str
        Paths of the layers that changed.

    Raises
    ------
    TypeError
        If it is no model or layer of Keras 3.
    """
    changed = _change(model, LAYERS)
    left = [layer.path or layer.name for layer in model._flatten_layers() if _keeps_its_own(layer)]
    if left:
        warnings.warn(
            f"convert: Keras's own dropout stays in {', '.join(left)}"[:200], stacklevel=2
        )
    return changed


def revert(model: Any) -> list[str]:
    """Undo `convert`: what is saved then needs no fastdrop.

    Parameters
    ----------
    model : keras.Model or keras.layers.Layer

    Returns
    -------
    list of str
        Paths of the layers that changed.

    Raises
    ------
    TypeError
        As `convert`.
    """
    return _change(model, {ours: theirs for theirs, ours in LAYERS.items()})


def _change(model: Any, classes: Mapping[type, type]) -> list[str]:
    if not isinstance(model, keras.layers.Layer):
        raise TypeError(
            "model: expected a model or layer of Keras 3, "
            f"got {type(model).__module__}.{type(model).__name__}"
        )
    changed = []
    for layer in model._flatten_layers():
        new = classes.get(type(layer))
        if new is not None:
            layer.__class__ = new
            changed.append(layer.path or layer.name)
    if changed:
        _forget_programs(model)
    return changed


def _forget_programs(model: Any) -> None:
    """What was compiled has the old layers."""
    for each in model._flatten_layers():
        for name in ("train_function", "test_function", "predict_function"):
            if getattr(each, name, None) is not None:
                setattr(each, name, None)
        if getattr(each, "jit_compile", None) and not all(
            layer.supports_jit for layer in each._flatten_layers()
        ):
            each.jit_compile = False


def _keeps_its_own(layer: Any) -> bool:
    if type(layer) in LAYERS.values():
        return False
    if isinstance(layer, tuple(LAYERS)):
        return True
    if getattr(layer, "_dropout_layer", None) is not None:
        return False
    rates = [getattr(layer, name, 0) for name in ("dropout", "recurrent_dropout")]
    return any(isinstance(rate, int | float) and rate > 0 for rate in rates)
