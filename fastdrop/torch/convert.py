"""fastdrop in the layers of one model: `convert` and `revert`."""

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
    """Let every dropout layer of a model be fastdrop's, in place.

    A layer stays the object it is, with its p, mode, hooks, and places in the model; only its class
    changes, from ``torch.nn.Dropout`` to ``fastdrop.torch.Dropout``. Subclasses of torch.nn's
    layers are left alone: they may rely on what they inherit. `enable` converts nothing, and
    reaches these, too, and all that is no layer.

    Parameters
    ----------
    model : torch.nn.Module
        May be a dropout layer itself.

    Returns
    -------
    Report
        A list of the names of the layers that changed, as in ``model.named_modules()``; a layer
        used in several places has one. Printed, it is a table of all modules with dropout: whether
        `convert` reached them, why not, and what to do.
    """
    return explain(model, _change_classes(model, OURS), tuple(_THEIRS))


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
