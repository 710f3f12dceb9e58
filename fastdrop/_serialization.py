"""How objects are written down for JSON: the name of a class and its constructor's arguments."""

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
from fastdrop._checks import check_mapping, lookup
from fastdrop._messages import shown

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
    """Base class of objects that keep each argument of their constructor under its own name.

    A class that does not do so has to define `get_config`. A name only has to be unique among the
    classes of one kind (`Layer`, `Loss`, ...).
    """

    _family: ClassVar[list[type]]  # classes of one kind, in the order of definition
    # What the constructor's `**` took, with which a derived class passes arguments on to its base;
    # "*" has what its `*` took.
    _handed_on: tuple[str, ...] = ()

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if Configurable in cls.__bases__:
            cls._family = []
        cls._family.append(cls)
        if "__init__" in vars(cls) and len(_arguments(cls)) < len(_signature(cls)):
            _remember_handed_on(cls)

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments, of which `from_config` makes an equal object.

        Returns
        -------
        dict
            The arguments by name.
        """
        return {name: plain(value) for name, value in self._kept().items()}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """Make an object from what `get_config` returned.

        Parameters
        ----------
        config : mapping
            The constructor's arguments by name.

        Returns
        -------
        object
            A new object of this class.

        Raises
        ------
        TypeError, ValueError
            When an argument is unknown, or does not fit its description.
        """
        check_mapping("config", config)
        arguments = _signature(cls)
        if not any(argument.kind == argument.VAR_KEYWORD for argument in arguments.values()):
            for name in config:
                lookup(f"config of {cls.__name__}", name, arguments)
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
    """Make a class's objects remember what ``*`` and ``**`` of their constructor took."""
    init, own = cls.__init__, _arguments(cls)  # type: ignore[misc]
    positions = sum(argument.kind != argument.KEYWORD_ONLY for argument in own.values())

    @functools.wraps(init)
    def remembering(self: Any, *args: Any, **keywords: Any) -> None:
        init(self, *args, **keywords)
        if type(self).__init__ is remembering:  # not called by a derived class's constructor
            unnamed = ("*",) if len(args) > positions else ()
            named = (name for name in keywords if name not in own)
            object.__setattr__(self, "_handed_on", (*unnamed, *named))

    cls.__init__ = remembering  # type: ignore[misc]


def _known(kind: type[T]) -> dict[str, type[T]]:
    """Return the classes of a kind by name, of a program's own classes the latest definition.

    A notebook defines its classes again and again.
    """
    known: dict[str, type[T]] = {}
    for cls in kind._family:
        hidden = is_ours(cls) and cls.__name__.startswith("_")
        if not hidden and not (cls.__name__ in known and is_ours(known[cls.__name__])):
            known[cls.__name__] = cls
    return known


def check_can_be_read(thing: object) -> None:
    """Refuse an object of which `deserialize` would not make an equal one.

    Raises
    ------
    ValueError
        When an argument of its constructor is not kept or has another type, or when another class
        has the same name.
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
    """Refuse a number, flag or text where a class of ours takes another of them.

    True is not a number. Other values, and all arguments of a user's class, are left to the class.

    Raises
    ------
    ValueError
        When an argument has another type. The message names it.
    """
    for name, value in config.items() if is_ours(cls) else ():
        hint = _hints(cls).get(name, object)
        kinds = set(get_args(hint)) if get_origin(hint) in (Union, UnionType) else {hint}
        if not _fits(value, kinds):
            expected = [words for kind, words in _KINDS.items() if kind in kinds]
            raise ValueError(
                f"{name}: expected {' or '.join(expected) or 'a list'}, got {shown(value)}"
            )


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
    """Return an argument for JSON: objects serialised, and NumPy's numbers as Python's."""
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

    Returns
    -------
    dict
        The name of the class, and the constructor's arguments.
    """
    return {"class_name": type(thing).__name__, "config": thing.get_config()}


def deserialize(argument: str, data: object, base: type[T]) -> T:
    """Make an object from what `serialize` returned.

    Parameters
    ----------
    argument : str
        The caller's name for `data`, for messages.
    data : mapping
        A mapping with the keys "class_name" and "config".
    base : type
        The kind of object. Its class is one of this package or of the user's program.

    Returns
    -------
    object
        A new object.

    Raises
    ------
    ValueError
        When `data` is something else, when the class is unknown, or when a class of ours would get
        a number, a flag or a text in place of another of these.
    """
    if not isinstance(data, Mapping) or set(data) != {"class_name", "config"}:
        raise ValueError(f"{argument}: expected a dict of class_name and config, got {shown(data)}")
    cls, config = lookup(argument, data["class_name"], _known(base)), data["config"]
    if not isinstance(config, Mapping):
        raise ValueError(
            f"{argument}: expected a dict as config of {cls.__name__}, got {shown(config)}"
        )
    check_kinds(cls, config)
    return cls.from_config(config)
