"""What `convert` did to a model, and what it could not do."""

from __future__ import annotations

import dis
import re
from collections.abc import Iterable
from functools import lru_cache
from inspect import unwrap
from itertools import pairwise
from types import CodeType
from typing import NamedTuple

import torch
from torch import nn

__all__ = ["Report", "Row", "drops", "explain", "names_called"]

ENABLE = "fastdrop.torch.enable()"
NOTHING = "nothing"
_LAYERS = (nn.modules.dropout._DropoutNd,)
_FUNCTIONS = {
    "alpha_dropout",
    "dropout",
    "dropout1d",
    "dropout2d",
    "dropout3d",
    "feature_alpha_dropout",
    "scaled_dot_product_attention",
}
_PATHS = ("droppath", "stochasticdepth")  # names of classes that drop whole samples


class Row(NamedTuple):
    """A module with dropout, and what `convert` did to it.

    Attributes
    ----------
    module : str
        The name of the module in the model.
    reached : bool
        Whether all its dropout is fastdrop's now, or there is nothing to gain.
    why : str
        The reason for `reached`.
    to_do : str
        What the user can do about it.
    """

    module: str
    reached: bool
    why: str
    to_do: str


class Report(list[str]):
    """Names of the layers that changed. It prints as a table of all modules with dropout.

    Attributes
    ----------
    rows : list of Row
        The rows of the table.
    """

    def __init__(self, names: Iterable[str], rows: Iterable[Row]) -> None:
        super().__init__(names)
        self.rows = list(rows)

    def __str__(self) -> str:
        if not self.rows:
            return (
                "no dropout was found in this model's modules; if their code calls it by another "
                f"name, {ENABLE} still reaches it"
            )
        head = Row("module", True, "why", "what to do")
        cells = [
            (row.module or "(the model)", "yes" if row.reached else "no", row.why, row.to_do)
            for row in self.rows
        ]
        cells.insert(0, (head.module, "reached", head.why, head.to_do))
        widths = [max(map(len, column)) for column in zip(*cells)]
        return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in cells)


def explain(model: nn.Module, changed: Iterable[str], ours: tuple[type[nn.Module], ...]) -> Report:
    """Describe a model after its layers were changed.

    Parameters
    ----------
    model : torch.nn.Module
        The model.
    changed : iterable of str
        Names of the layers that were changed.
    ours : tuple of type
        fastdrop's classes of layers.

    Returns
    -------
    Report
        The names, and a row for each module with dropout.
    """
    changed = list(changed)
    rows = []
    for name, module in model.named_modules():
        if name in changed and type(module) in ours:
            rows.append(Row(name, True, f"was torch.nn.{type(module).__name__}", NOTHING))
        elif name not in changed:
            rows += _rows(name, module, ours)
    return Report(changed, rows)


def _rows(name: str, module: nn.Module, ours: tuple[type[nn.Module], ...]) -> list[Row]:
    """Return the rows of a module that `convert` did not change: one row or none."""
    kind = type(module)
    title = kind.__name__
    if kind in ours:
        return [Row(name, True, "was fastdrop's before", NOTHING)]
    if isinstance(module, _LAYERS):
        return [Row(name, False, f"{title} is a subclass, which may do more", ENABLE)]
    if any(word in title.lower().replace("_", "") for word in _PATHS):
        return [Row(name, True, f"{title} costs what a copy costs: left alone", NOTHING)]
    numbers = _numbers(module)
    ps = [f"{key}={value:g}" for key, value in numbers.items() if 0 < value <= 1]
    if ps:
        if isinstance(module, nn.RNNBase):
            return [Row(name, False, f"{title} drops in C++: {ps[0]}", ENABLE)]
        return [Row(name, False, f"{title} calls functions: {', '.join(ps)}", ENABLE)]
    if numbers:
        zeros = ", ".join(f"{key}=0" for key in numbers)
        return [Row(name, True, f"{title} drops nothing: {zeros}", NOTHING)]
    if kind.__module__.startswith(("torch.", "fastdrop.")):
        return []
    called, handed = names_called(module) & _FUNCTIONS, _handed(module)
    if handed:
        why = f"{title} hands {handed[0]} to a function"
        return [Row(name, False, why, ENABLE)]
    if called:
        return [Row(name, False, f"{title} calls {', '.join(sorted(called))}", ENABLE)]
    return []


def drops(module: nn.Module) -> bool:
    """Tell whether a module's own forward drops something in training, without its children's.

    Parameters
    ----------
    module : torch.nn.Module
        The module.

    Returns
    -------
    bool
        False as well if all its p are 0.
    """
    if isinstance(module, torch.jit.ScriptModule):
        return any("dropout" in name for name in names_called(module))
    numbers = _numbers(module)
    title = type(module).__name__.lower().replace("_", "")
    if "drop" in title or title in _PATHS:
        numbers |= {key: vars(module)[key] for key in ("p", "prob") if key in vars(module)}
        if not (numbers or module._modules):
            return True
    if numbers or type(module).__module__.startswith("torch."):
        return any(value > 0 for value in numbers.values())
    return bool(names_called(module) & _FUNCTIONS or _handed(module))


def _numbers(module: nn.Module) -> dict[str, float]:
    """Return the module's attributes that are probabilities of dropping, by name."""
    return {
        key: value
        for key, value in vars(module).items()
        if "drop" in key and type(value) in (int, float)
    }


def names_called(module: nn.Module) -> set[str]:
    """Return the names that a module's forward reads from modules and objects, not its children's.

    Parameters
    ----------
    module : torch.nn.Module
        The module.

    Returns
    -------
    set of str
        The names.
    """
    if isinstance(module, torch.jit.ScriptModule):
        return set(re.findall(r"torch\.(?:nn\.functional\.)?(\w+)", module.code))
    return set(_forward_names(module)) - set(module._modules)


def _handed(module: nn.Module) -> list[str]:
    """Return the p of layers that a module's forward reads in order to pass it to a function."""
    return [
        f"{layer}.p"
        for layer, attribute in pairwise(_forward_names(module))
        if attribute == "p" and isinstance(module._modules.get(layer), _LAYERS)
    ]


def _forward_names(module: nn.Module) -> tuple[str, ...]:
    code = getattr(unwrap(type(module).forward), "__code__", None)
    return _names(code) if code else ()


@lru_cache(maxsize=1024)  # reading code takes longer than running it
def _names(code: CodeType) -> tuple[str, ...]:
    """Return the names, in order, that code and functions in it read from modules and objects."""
    found = [
        str(step.argval)
        for step in dis.get_instructions(code)
        if step.opname.startswith(("LOAD_GLOBAL", "LOAD_ATTR", "LOAD_METHOD"))
    ]
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            found += _names(constant)
    return tuple(found)
