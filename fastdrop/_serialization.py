"""What can be written down: a class's name and its constructor's arguments, fit for JSON."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Mapping
from types import NoneType, UnionType
from typing import (
    Any,
    ClassVar,
    Self,
    TypeVar,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

import numpy as np

from fastdrop._attributes import Declared, is_ours
from fastdrop._checks import lookup

__all__ = [
    "Configurable",
    "check_can_be_read",
    "check_kinds",
    "deserialize",
    "is_ours",
    "plain",
    "serialize",
]

T = TypeVar("T", bound="Configurable")


class Configurable(Declared):
    """Base of what keeps each argument of its constructor in an attribute of the same name.

    A class that does not has to define `get_config`. Those derived from one kind of thing (`Layer`,
    `Loss`, ...) are known by their names.
    """

    _family: ClassVar[list[type]]  # of one kind of thing, in the order of definition
    # What a constructor's `**` took, by which a derived class hands arguments on to its base; "*"
    # for what `*` took.
    _handed_on: tuple[str, ...] = ()

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if Configurable in cls.__bases__:
            cls._family = []
        cls._family.append(cls)
        if "__init__" in vars(cls) and len(_arguments(cls)) < len(_signature(cls)):
            _remember_handed_on(cls)

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments; `from_config` makes an equal object of them."""
        return {name: plain(value) for name, value in self._kept().items()}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """Make an object from what `get_config` returned."""
        return cls(**config)

    def _arguments(self) -> dict[str, Any]:
        return super()._arguments() | self._kept()

    def _kept(self) -> dict[str, Any]:
        names = dict.fromkeys(_arguments(type(self)))
        names |= dict.fromkeys(self.synonyms.get(name, name) or name for name in self._handed_on)
        return {name: getattr(self, name) for name in names if hasattr(self, name)}


def _signature(cls: type) -> Mapping[str, inspect.Parameter]:
    return inspect.signature(cls).parameters


def _arguments(cls: type) -> dict[str, inspect.Parameter]:
    """Return a constructor's arguments by name, without what ``*`` and ``**`` take."""
    variable = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return {name: value for name, value in _signature(cls).items() if value.kind not in variable}


def _remember_handed_on(cls: type) -> None:
    """Let a class's objects remember what ``*`` and ``**`` of their constructor took."""
    init, own = cls.__init__, _arguments(cls)  # type: ignore[misc]
    positions = sum(argument.kind != argument.KEYWORD_ONLY for argument in own.values())

    @functools.wraps(init)
    def remembering(self: Any, *args: Any, **keywords: Any) -> None:
        init(self, *args, **keywords)
        if type(self).__init__ is remembering:  # not called by a derived class's
            unnamed = ("*",) if len(args) > positions else ()
            named = (name for name in keywords if name not in own)
            object.__setattr__(self, "_handed_on", (*unnamed, *named))

    cls.__init__ = remembering  # type: ignore[misc]


def _known(kind: type[T]) -> dict[str, type[T]]:
    """Return the classes of a kind of thing by name; of a program's own the latest definition.

    A notebook defines them again and again.
    """
    known: dict[str, type[T]] = {}
    for cls in kind._family:
        hidden = is_ours(cls) and cls.__name__.startswith("_")
        if not hidden and not (cls.__name__ in known and is_ours(known[cls.__name__])):
            known[cls.__name__] = cls
    return known


def check_can_be_read(thing: object) -> None:
    """Refuse what `deserialize` would not make an equal object of.

    Raises
    ------
    ValueError
        When an argument of its constructor is not kept or of another kind, or another class has its
        name.
    """
    if isinstance(thing, list | tuple):
        for item in thing:
            check_can_be_read(item)
    if not isinstance(thing, Configurable):
        return
    cls, kept = type(thing), thing._kept()
    writer = next(c for c in cls.__mro__ if {"get_config", "from_config"} & vars(c).keys())
    if is_ours(writer):
        arguments = _arguments(cls)
        required = [name for name, each in arguments.items() if each.default is each.empty]
        for name in (*arguments, *thing._handed_on):
            if name not in kept and (name in required or name not in cls.synonyms):
                raise ValueError(
                    f"{name}: expected {cls.__name__} to keep this argument in an attribute of "
                    "that name, or to define get_config"
                )
    check_kinds(cls, kept)
    known = _known(cls).get(cls.__name__, object)
    modules = {known.__module__, cls.__module__}
    if known.__qualname__ != cls.__qualname__ or len(modules - {"__main__"}) > 1:
        raise ValueError(
            f"{cls.__name__}: expected a name that no other class has, "
            f"got that of {known.__module__}.{known.__qualname__}"
        )
    check_can_be_read(list(kept.values()))


@functools.cache
def _hints(cls: type) -> dict[str, Any]:
    return get_type_hints(cls.__init__)  # type: ignore[misc]


def check_kinds(cls: type, config: Mapping[str, Any]) -> None:
    """Refuse numbers, flags and text that a class of ours takes others for; True is no number.

    Anything else is left to the class, and all that a user's class takes.

    Raises
    ------
    ValueError
        Names the argument.
    """
    for name, value in config.items() if is_ours(cls) else ():
        hint = _hints(cls).get(name, object)
        kinds = set(get_args(hint)) if get_origin(hint) in (Union, UnionType) else {hint}
        if not _fits(value, kinds):
            expected = [words for kind, words in _KINDS.items() if kind in kinds]
            raise ValueError(f"{name}: expected {' or '.join(expected) or 'a list'}, got {value!r}")


_KINDS = {
    bool: "True or False",
    int: "a whole number",
    float: "a number",
    str: "text",
    NoneType: "None",
}


def _fits(value: object, kinds: set[Any]) -> bool:
    if isinstance(value, list):
        return not any(isinstance(item, bool) for item in value)
    if object in kinds or not isinstance(value, str | bool | int | float | None):
        return True
    if isinstance(value, bool):
        return bool in kinds
    if isinstance(value, int):
        return bool(kinds & {int, float}) or (bool in kinds and value in (0, 1))
    return any(isinstance(value, kind) for kind in kinds & {str, float, NoneType})


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
        The class is this kind of thing, in this package or in the user's program.

    Raises
    ------
    ValueError
        When `data` is something else, or the class unknown, or a class of ours would take a number,
        a flag or text for another.
    """
    if not isinstance(data, Mapping) or set(data) != {"class_name", "config"}:
        raise ValueError(f"{argument}: expected a dict of class_name and config, got {data!r}")
    cls, config = lookup(argument, data["class_name"], _known(base)), data["config"]
    if not isinstance(config, Mapping):
        raise ValueError(f"{argument}: expected a dict as config of {cls.__name__}, got {config!r}")
    check_kinds(cls, config)
    return cls.from_config(config)
