"""fastdrop in models and code that name torch.nn: `convert`, `revert`, `patch`."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

from fastdrop.torch import functional, modules
from fastdrop.torch.attention import scaled_dot_product_attention

__all__ = ["convert", "patch", "revert"]

_OURS: dict[type[nn.Module], type[nn.Module]] = {
    nn.Dropout: modules.Dropout,
    nn.Dropout1d: modules.Dropout1d,
    nn.Dropout2d: modules.Dropout2d,
    nn.Dropout3d: modules.Dropout3d,
    nn.AlphaDropout: modules.AlphaDropout,
    nn.FeatureAlphaDropout: modules.FeatureAlphaDropout,
}
_THEIRS = {ours: theirs for theirs, ours in _OURS.items()}


def convert(model: nn.Module) -> list[str]:
    """Let every dropout layer of a model be fastdrop's, in place.

    A layer stays the object it is, with its p, mode, hooks, and places in the model; only its class
    changes, from ``torch.nn.Dropout`` to ``fastdrop.torch.Dropout``. Subclasses of torch.nn's
    layers are left alone: they may rely on what they inherit.

    Parameters
    ----------
    model : torch.nn.Module
        May be a dropout layer itself.

    Returns
    -------
    list of str
        Names of the layers that changed, as in ``model.named_modules()``; a layer used in several
        places has one.
    """
    return _change_classes(model, _OURS)


def revert(model: nn.Module) -> list[str]:
    """Undo `convert`: let every dropout layer of a model be torch.nn's, in place.

    Also layers that were fastdrop's from the start, if torch.nn has their like; what they have
    beyond it, a generator or saved masks, no longer has an effect.

    Parameters
    ----------
    model : torch.nn.Module

    Returns
    -------
    list of str
        Names of the layers that changed.
    """
    return _change_classes(model, _THEIRS)


def _change_classes(model: nn.Module, classes: dict[type[nn.Module], type[nn.Module]]) -> list[str]:
    names = []
    for name, module in model.named_modules():
        if type(module) in classes:
            module.__class__ = classes[type(module)]
            modules.mark(module)
            names.append(name)
    return names


_PATCHES: dict[str, Any] = {
    "alpha_dropout": functional.alpha_dropout,
    "dropout": functional.dropout,
    "dropout1d": functional.dropout1d,
    "dropout2d": functional.dropout2d,
    "dropout3d": functional.dropout3d,
    "feature_alpha_dropout": functional.feature_alpha_dropout,
    "scaled_dot_product_attention": scaled_dot_product_attention,
}
_lock = threading.Lock()
_before: dict[str, Any] = {}
_users = 0


@contextmanager
def patch() -> Iterator[None]:
    """Let the functions of torch.nn.functional be fastdrop's inside a ``with`` block.

    For code that calls ``torch.nn.functional.dropout``, its like for channels and alpha dropout, or
    ``scaled_dot_product_attention(dropout_p=)``, as `torch.nn.MultiheadAttention` does. They are
    replaced in the module `torch.nn.functional`, so for all threads, until the last of nested or
    simultaneous blocks ends. Out of reach are names that were imported from there before, and what
    PyTorch drops in C++: ``torch.dropout``, ``torch.nn.LSTM(dropout=)``, TorchScript.
    """
    global _users
    with _lock:
        _users += 1
        if _users == 1:
            for name, function in _PATCHES.items():
                _before[name] = getattr(nn.functional, name)
                setattr(nn.functional, name, function)
    try:
        yield
    finally:
        with _lock:
            _users -= 1
            if _users == 0:
                for name, function in _before.items():
                    setattr(nn.functional, name, function)
