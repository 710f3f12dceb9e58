"""What can be written down: a class's name and its constructor's arguments, fit for JSON."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, ClassVar, Self, TypeVar

import numpy as np

from fastdrop._checks import lookup

__all__ = ["Configurable", "deserialize", "plain", "serialize"]

T = TypeVar("T", bound="Configurable")


class Configurable:
    """Base of what keeps each argument of its constructor in an attribute of the same name.

    A class that does not has to define `get_config`. Those derived from one kind of thing (`Layer`,
    `Loss`, ...) are known by their names.
    """

    # Arguments that are not kept: other words for others, or refused.
    synonyms: ClassVar[tuple[str, ...]] = ()
    _known: ClassVar[dict[str, type]]

    # What a constructor's `**` took, by which a derived class hands arguments on to its base.
    _handed_on: Mapping[str, Any] = MappingProxyType({})

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if Configurable in cls.__bases__:
            cls._known = {}
        before = cls._known.get(cls.__name__)
        base_of_ours = _is_ours(cls) and cls.__name__.startswith("_")
        # Of a program's own classes the latest counts: a notebook defines them again and again.
        if not base_of_ours and (before is None or not _is_ours(before)):
            cls._known[cls.__name__] = cls
        if "__init__" in vars(cls) and _takes_any_keyword(cls):
            _remember_keywords(cls)

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments; `from_config` makes an equal object of them."""
        handed_on = self._handed_on
        own = {name: getattr(self, name) for name in _arguments(type(self)) if hasattr(self, name)}
        others = {name: getattr(self, name, handed_on[name]) for name in handed_on}
        return {name: plain(value) for name, value in (own | others).items()}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """Make an object from what `get_config` returned."""
        return cls(**config)


def _is_ours(cls: type) -> bool:
    return cls.__module__.partition(".")[0] == __package__


def _arguments(cls: type) -> dict[str, inspect.Parameter]:
    """Return a constructor's arguments by name, without what ``*`` and ``**`` take."""
    variable = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    arguments = inspect.signature(cls).parameters
    return {name: argument for name, argument in arguments.items() if argument.kind not in variable}


def _takes_any_keyword(cls: type) -> bool:
    arguments = inspect.signature(cls).parameters.values()
    return any(argument.kind == argument.VAR_KEYWORD for argument in arguments)


def _remember_keywords(cls: type) -> None:
    """Let a class's objects keep what the ``**`` of their constructor took."""
    init, own = cls.__init__, _arguments(cls)  # type: ignore[misc]

    @functools.wraps(init)
    def remembering(self: Any, *args: Any, **keywords: Any) -> None:
        if type(self).__init__ is remembering:  # not called by a derived class's
            handed_on = {name: value for name, value in keywords.items() if name not in own}
            object.__setattr__(self, "_handed_on", handed_on)
        init(self, *args, **keywords)

    cls.__init__ = remembering  # type: ignore[misc]


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

    Raises
    ------
    ValueError
        When that is not possible: an argument of its constructor is not kept, or another class has
        its name.
    """
    cls, config = type(thing), thing.get_config()
    for name, argument in _arguments(cls).items():
        optional = argument.default is not argument.empty
        if name not in config and not (name in cls.synonyms and optional):
            raise ValueError(
                f"{name}: expected {cls.__name__} to keep this argument in an attribute of that "
                "name, or to define get_config"
            )
    known = cls._known.get(cls.__name__, cls)
    if (known.__module__, known.__qualname__) != (cls.__module__, cls.__qualname__):
        raise ValueError(
            f"{cls.__name__}: expected a name that no other class has, "
            f"got that of {known.__module__}.{known.__qualname__}"
        )
    return {"class_name": cls.__name__, "config": config}


def deserialize(argument: str, data: object, base: type[T]) -> T:
    """Make an object from what `serialize` returned.

    Parameters
    ----------
    argument : str
        What the caller names `data`, for messages.
    data : mapping
        With keys "class_name" and "config".
    base : type
        The class is this kind of thing, in this package or in the user's program.

    Raises
    ------
    ValueError
        When `data` is something else, or the class unknown.
    """
    if not isinstance(data, Mapping) or set(data) != {"class_name", "config"}:
        raise ValueError(f"{argument}: expected a dict of class_name and config, got {data!r}")
    known: dict[str, type[T]] = base._known
    return lookup(argument, data["class_name"], known).from_config(data["config"])
