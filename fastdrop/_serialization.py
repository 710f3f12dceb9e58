"""What can be written down: a class's name and its constructor's arguments, fit for JSON."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from typing import Any, Self, TypeVar

import numpy as np

from fastdrop._checks import lookup

__all__ = ["Configurable", "deserialize", "plain", "serialize"]

T = TypeVar("T", bound="Configurable")


class Configurable:
    """Base of what keeps each argument of its constructor in an attribute of the same name."""

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments; `from_config` makes an equal object of them."""
        names = inspect.signature(type(self)).parameters
        return {name: plain(getattr(self, name)) for name in names if hasattr(self, name)}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """Make an object from what `get_config` returned."""
        return cls(**config)


def plain(value: Any) -> Any:
    """Return what JSON can hold of an argument: things serialised, NumPy's numbers Python's."""
    if isinstance(value, Configurable):
        return serialize(value)
    if isinstance(value, np.generic):
        return value.item()
    return [plain(item) for item in value] if isinstance(value, list) else value


def serialize(thing: Configurable) -> dict[str, Any]:
    """Return ``{"class_name": ..., "config": ...}``, of which `deserialize` makes an equal object.

    Parameters
    ----------
    thing : Configurable
        A layer, loss, metric or initialiser.
    """
    return {"class_name": type(thing).__name__, "config": thing.get_config()}


def deserialize(argument: str, data: object, base: type[T]) -> T:
    """Make an object from what `serialize` returned.

    Parameters
    ----------
    argument : str
        What the caller names `data`, for messages.
    data : mapping
        With keys "class_name" and "config".
    base : type
        The class is this one or one derived from it, in this package or in the user's program.

    Raises
    ------
    ValueError
        When `data` is something else, or the class unknown.
    """
    if not isinstance(data, Mapping) or set(data) != {"class_name", "config"}:
        raise ValueError(f"{argument}: expected a dict of class_name and config, got {data!r}")
    known: dict[str, type[T]] = {}
    for cls in _family(base):
        if not cls.__name__.startswith("_"):
            known.setdefault(cls.__name__, cls)
    return lookup(argument, data["class_name"], known).from_config(data["config"])


def _family(base: type[T]) -> Iterator[type[T]]:
    yield base
    for cls in base.__subclasses__():
        yield from _family(cls)
