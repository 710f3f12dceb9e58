"""fastdrop in the layers of one model: `convert`, and `revert`, which undoes it."""

from __future__ import annotations

from torch import nn

from fastdrop.torch import modules
from fastdrop.torch.report import Report, explain

__all__ = ["OURS", "convert", "revert"]

OURS: dict[type[nn.Module], type[nn.Module]] = {
    nn.Dropout: modules.Dropout,
    nn.Dropout1d: modules.Dropout1d,
    nn.Dropout2d: modules.Dropout2d,
    nn.Dropout3d: modules.Dropout3d,
    nn.AlphaDropout: modules.AlphaDropout,
    nn.FeatureAlphaDropout: modules.FeatureAlphaDropout,
}
_THEIRS = {ours: theirs for theirs, ours in OURS.items()}


def convert(model: nn.Module) -> Report:
    """Turn every dropout layer of a model into fastdrop's, in place.

    A layer stays the same object, with its p, mode, hooks and places in the model. Only its class
    changes, from ``torch.nn.Dropout`` to ``fastdrop.torch.Dropout``. Subclasses of torch.nn's
    layers are left alone, because they may rely on what they inherit. `enable` converts nothing,
    but reaches these subclasses as well, and dropout that is not in layers.

    Parameters
    ----------
    model : torch.nn.Module
        The model, which may be a dropout layer itself.

    Returns
    -------
    Report
        A list of the names of the layers that changed, as in ``model.named_modules()``; a layer
        that is used in several places has one name. It prints as a table of all modules with
        dropout: whether `convert` reached them, why not, and what to do.

    Raises
    ------
    TypeError
        When `model` is not a module.
    """
    return explain(model, _change_classes(model, OURS), tuple(_THEIRS))


def revert(model: nn.Module) -> list[str]:
    """Undo `convert`: turn every dropout layer of a model into torch.nn's, in place.

    This also changes layers that were fastdrop's from the start, if torch.nn has such a layer. What
    they have beyond torch.nn's layers, a generator or saved masks, then has no effect any more.

    Parameters
    ----------
    model : torch.nn.Module
        The model, which may be a dropout layer itself.

    Returns
    -------
    list of str
        Names of the layers that changed.

    Raises
    ------
    TypeError
        When `model` is not a module.
    """
    return _change_classes(model, _THEIRS)


def _change_classes(model: nn.Module, classes: dict[type[nn.Module], type[nn.Module]]) -> list[str]:
    if not isinstance(model, nn.Module):
        raise TypeError(f"model: expected a torch.nn.Module, got {type(model).__name__}")
    names = []
    for name, module in model.named_modules():
        if type(module) in classes:
            module.__class__ = classes[type(module)]
            modules.mark(module)
            names.append(name)
    return names
