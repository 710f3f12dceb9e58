"""The page: sections as one HTML file that needs nothing else. Only this module imports Jinja2."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from typing import NamedTuple

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from fastdrop import __version__
from fastdrop.commands.report.parts import Section, Tile

__all__ = ["GENERATOR", "Page", "render"]

GENERATOR = '<meta name="generator" content="fastdrop '  # by which a report is known as ours


class Page(NamedTuple):
    """All that a page says.

    Attributes
    ----------
    title : str
        What came out, in one line.
    subject : str
        What it is about: the data and the network.
    warnings : sequence of str
        What is missing, and why.
    tiles : sequence of Tile
    sections : sequence of Section
    command : str
        That repeats the run.
    facts : sequence of (str, str)
        What else it takes to repeat it.
    """

    title: str
    subject: str
    warnings: Sequence[str]
    tiles: Sequence[Tile]
    sections: Sequence[Section]
    command: str
    facts: Sequence[tuple[str, str]]


def render(page: Page) -> bytes:
    """Return a page as HTML; all text in it is escaped."""
    environment = Environment(
        loader=FunctionLoader(_source),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_readable,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["drawn"] = Markup
    template = environment.get_template("page.html.jinja")
    text = template.render(page=page, generator=Markup(GENERATOR), version=__version__)
    # names of files may hold bytes that are no text
    return text.encode("utf-8", "backslashreplace")


def _readable(value: object) -> object:
    """Return text without what cannot be seen: NUL, or what turns the direction of reading."""
    if not isinstance(value, str) or isinstance(value, Markup):
        return value
    seen = (c if c.isprintable() or c in "\n\u202f" else repr(c)[1:-1] for c in value)
    return "".join(seen)


def _source(name: str) -> str:
    return files("fastdrop.commands.report").joinpath(name).read_text("utf-8")
