"""What a page is made of: sections, figures, tables, galleries, as plain data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

__all__ = ["Block", "Figure", "Gallery", "Section", "Sight", "Table", "Tile", "joined"]


class Table(NamedTuple):
    """Rows of text under the names of their columns.

    Attributes
    ----------
    caption : str
    columns : sequence of str
    rows : sequence of sequence of str
    says : str
        A sentence on what it shows, where it stands for itself.
    """

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    says: str = ""

    @property
    def kind(self) -> str:
        """What the page takes it for."""
        return "table"


class Figure(NamedTuple):
    """A picture, a sentence that says what it shows, and the numbers behind it.

    Attributes
    ----------
    name : str
        Its id.
    title : str
    says : str
        The sentence.
    picture : str
        SVG or another element, which is safe to put into a page as it is.
    numbers : Table
    """

    name: str
    title: str
    says: str
    picture: str
    numbers: Table

    @property
    def kind(self) -> str:
        """What the page takes it for."""
        return "figure"


class Sight(NamedTuple):
    """One image of a gallery: what it is of, its data as a URL, and lines to stand below it."""

    description: str
    url: str
    lines: Sequence[str]


class Gallery(NamedTuple):
    """Images side by side."""

    title: str
    says: str
    sights: Sequence[Sight]

    @property
    def kind(self) -> str:
        """What the page takes it for."""
        return "gallery"


Block: TypeAlias = Figure | Gallery | Table


class Section(NamedTuple):
    """A part of the page under a heading, with a sentence that answers it."""

    name: str
    title: str
    says: str
    blocks: Sequence[Block]


class Tile(NamedTuple):
    """A figure in large print, with what it is above and what to know of it below."""

    title: str
    value: str
    note: str
    kind: str


def joined(words: Sequence[str]) -> str:
    """Return words as a sentence has them: "a, b and c"."""
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)
