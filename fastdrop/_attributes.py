"""Which attributes an object takes. A wrong name, which would have no effect, raises an error."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, ClassVar

from fastdrop._typed import call_of

__all__ = ["Declared", "is_ours"]


def is_ours(cls: type) -> bool:
    """Tell whether a class belongs to this package, and not to the user."""
    return cls.__module__.partition(".")[0] == __package__


class Declared:
    """Base class of objects that only take attributes which something reads.

    These are the arguments of the constructor, the annotations of a class, properties and methods.
    An object of a class that a user derives takes any name. But where fastdrop has another name for
    a method of Keras, such a class cannot define Keras's name.
    """

    # Other names, each with the argument it stands for, or None if a constructor only refuses it.
    synonyms: ClassVar[Mapping[str, str | None]] = {}
    # Methods that Keras would call, with their names here, or None if nothing here calls them.
    renamed: ClassVar[Mapping[str, str | None]] = {}
    # Whether methods may be assigned to an object. Otherwise only classes define them.
    own_methods: ClassVar[bool] = True
    _attributes: ClassVar[frozenset[str] | None] = None  # None where an object takes all names

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        cls._attributes = _attributes(cls) if is_ours(cls) else None
        for name, here in cls.renamed.items():
            if hasattr(cls, name):
                expected = f"to define {here} instead" if here else "not to define it"
                raise TypeError(f"{name}: expected {cls.__name__} {expected}; nothing calls it")

    def __setattr__(self, name: str, value: Any) -> None:
        # quick, the usual case first: optimisers and metrics do it in every step
        if (names := self._attributes) is not None and name not in names and name[:1] != "_":
            self._refuse(name, value)
        object.__setattr__(self, name, value)

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
        if getattr(type(self), name, self) is value:  # changes nothing, so nothing is ignored
            return
        hint = f", such as {self.synonyms[name]}" if self.synonyms.get(name) else ""
        if hasattr(type(self), name):
            hint = " of its own, not of its class"
        raise AttributeError(
            f"{name}: expected an attribute that {type(self).__name__} has{hint}; "
            "nothing reads this one"
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
