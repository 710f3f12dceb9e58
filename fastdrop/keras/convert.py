"""`convert` and `revert`, which change the dropout layers of whole models in place."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import keras

from fastdrop.keras.layers import LAYERS

__all__ = ["convert", "revert"]


def convert(model: Any) -> list[str]:
    """Turn every dropout layer of a model into one of `fastdrop.keras`, in place.

    This works before or after `compile` and `fit`: weights, optimiser, seeds and counters stay as
    they are. Layers inside layers are reached, even those of MultiHeadAttention. A warning names
    what is not reached: layers that call `keras.random.dropout` themselves (recurrent layers,
    Attention), and subclasses of Keras's layers. Convert the model that you fit. A model that was
    compiled around a part keeps the part's old layers until it is compiled again.

    Parameters
    ----------
    model : keras.Model or keras.layers.Layer
        The model, or a layer.

    Returns
    -------
    list of str
        Paths of the layers that changed.

    Raises
    ------
    TypeError
        If `model` is not a model or layer of Keras 3.
    """
    changed = _change(model, LAYERS)
    left = [layer.path or layer.name for layer in model._flatten_layers() if _keeps_its_own(layer)]
    if left:
        warnings.warn(
            f"convert: Keras's own dropout stays in {', '.join(left)}"[:200], stacklevel=2
        )
    return changed


def revert(model: Any) -> list[str]:
    """Undo `convert`. A model that is saved afterwards does not need fastdrop.

    Parameters
    ----------
    model : keras.Model or keras.layers.Layer
        The model, or a layer.

    Returns
    -------
    list of str
        Paths of the layers that changed.

    Raises
    ------
    TypeError
        As for `convert`.
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
    """Forget compiled programs, which have the old layers."""
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
