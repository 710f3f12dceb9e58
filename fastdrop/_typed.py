"""Objects as they would be typed in again: what `repr` shows of them."""

from __future__ import annotations

import inspect
import math
import os
from collections.abc import Mapping
from typing import Any

import numpy as np

__all__ = ["call_of", "not_default", "short_name", "typed"]


def typed(value: Any) -> str:
    """Return the text that makes an equal value.

    Functions are their names, which have to be known where the text is typed in. A thing that is
    written in another way as an argument than alone, such as by a short name, says so by a method
    ``_as_argument``.
    """
    if isinstance(value, np.generic):
        value = value.item()
    if hasattr(value, "_as_argument") and not isinstance(value, type):
        return str(value._as_argument())
    if isinstance(value, float) and not math.isfinite(value):
        return f"float('{value}')"
    if type(value) is list:
        return f"[{', '.join(map(typed, value))}]"
    if type(value) is tuple:
        return f"({', '.join(map(typed, value))}{',' * (len(value) == 1)})"
    if type(value) is dict:
        return f"{{{', '.join(f'{typed(key)}: {typed(item)}' for key, item in value.items())}}}"
    if isinstance(value, os.PathLike):
        return repr(os.fspath(value))
    if callable(value) and hasattr(value, "__name__"):
        return str(value.__name__)
    return repr(value)


def not_default(cls: type, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return those of a constructor's arguments that have not their defaults."""
    parameters = inspect.signature(cls).parameters
    return {
        name: value
        for name, value in arguments.items()
        if name not in parameters
        or parameters[name].default is inspect.Parameter.empty
        or typed(parameters[name].default) != typed(value)
    }


def call_of(cls: type, arguments: Mapping[str, Any]) -> str:
    """Return the call of a class that makes an object with these arguments.

    An argument that has its default is left out. The first one stands without its name, and so do
    those behind it that have no default.

    Parameters
    ----------
    cls : type
    arguments : mapping of str to object
    """
    given = not_default(cls, arguments)
    texts: list[str] = []
    for parameter in inspect.signature(cls).parameters.values():
        needed = parameter.default is parameter.empty or not texts
        if parameter.name not in given or parameter.kind is parameter.KEYWORD_ONLY or not needed:
            break
        texts.append(typed(given.pop(parameter.name)))
    texts += [f"{name}={typed(value)}" for name, value in given.items()]
    return f"{cls.__name__}({', '.join(texts)})"


def short_name(thing: object, table: Mapping[str, type]) -> str:
    """Return the longest name that stands for an equal thing, as text; otherwise its call."""
    call = repr(thing)
    names = [name for name, cls in table.items() if cls is type(thing)]
    return repr(max(names, key=len)) if names and call == f"{type(thing).__name__}()" else call
