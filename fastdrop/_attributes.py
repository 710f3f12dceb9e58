"""Which attributes an object takes: a wrong name raises an error where it would do nothing."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, ClassVar

from fastdrop._typed import call_of

__all__ = ["Declared", "is_ours"]


def is_ours(cls: type) -> bool:
    """Tell whether a class is this package's, not the user's."""
    return cls.__module__.partition(".")[0] == __package__


class Declared:
    """Base of classes whose objects take no attributes but those that are read somewhere.

    These are the arguments of the constructor, what a class annotates, properties and methods. An
    object of a class that a user derives takes any name; but such a class cannot define by Keras's
    name a method that has another one here.
    """

    # Other words for arguments, and for which ones; None for what a constructor only refuses.
    synonyms: ClassVar[Mapping[str, str | None]] = {}
    # Methods that Keras would call, and what they are called here; None where nothing calls them.
    renamed: ClassVar[Mapping[str, str | None]] = {}
    # Whether methods may be assigned to an object; otherwise only classes define them.
    own_methods: ClassVar[bool] = True
    _attributes: ClassVar[frozenset[str] | None] = None  # None where all names are taken

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        cls._attributes = _attributes(cls) if is_ours(cls) else None
        for name, here in cls.renamed.items():
            if hasattr(cls, name):
                expected = f"to define {here} in its place" if here else "not to define it"
                raise TypeError(f"{name}: expected {cls.__name__} {expected}; nobody would call it")

    def __setattr__(self, name: str, value: Any) -> None:
        if name[:1] != "_" and self._attributes is not None and name not in self._attributes:
            self._refuse(name, value)
        object.__setattr__(self, name, value)  # optimisers and metrics do it in every step

    def __repr__(self) -> str:
        """Return the call that makes an equal object, without arguments that have their defaults.

        What an object has learnt or counted is not in it.
        """
        return call_of(type(self), self._arguments())

    def _arguments(self) -> dict[str, Any]:
        """Return the constructor's arguments, as far as attributes have them."""
        names = inspect.signature(type(self)).parameters
        attributes = {name: self.synonyms.get(name, name) for name in names}
        return {
            name: getattr(self, attribute)
            for name, attribute in attributes.items()
            if attribute is not None
            and (attribute == name or attribute not in names)
            and hasattr(self, attribute)
        }

    def _refuse(self, name: str, value: Any) -> None:
        if getattr(type(self), name, self) is value:  # that changes nothing: nothing is ignored
            return
        hint = f", such as {self.synonyms[name]}" if self.synonyms.get(name) else ""
        if hasattr(type(self), name):
            hint = " of its own, not of its class"
        raise AttributeError(
            f"{name}: expected an attribute that {type(self).__name__} has{hint}; "
            "nobody would read this one"
        )


def _attributes(cls: type[Declared]) -> frozenset[str]:
    names: set[str] = set()
    for base in cls.__mro__:
        annotated = inspect.get_annotations(base)
        names |= {name for name, kind in annotated.items() if not str(kind).startswith("ClassVar")}
        names |= {
            name
            for name, each in vars(base).items()
            if hasattr(each, "__set__") or (cls.own_methods and inspect.isfunction(each))
        }
        if "__init__" in vars(base) and base is not object:
            names |= inspect.signature(base.__init__).parameters.keys()  # type: ignore[misc]
    return frozenset(names - cls.synonyms.keys())
