"""SVG with names: pictures that follow the page's colours and that screen readers can read out.

Colours are classes of the page's style sheet, so that one picture serves light, dark and paper.
Text is escaped by ElementTree, wherever it comes from.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import Any
from xml.etree import ElementTree

from fastdrop._messages import one_line
from fastdrop.commands.report.scales import Scale, tick_labels

__all__ = ["BOLD", "LETTER", "WIDTH", "Panel", "Picture"]

WIDTH = 360  # of every picture: as many units as a phone has pixels, so that text is not shrunk
LETTER, BOLD = 7.0, 7.8  # about the mean widths of letters of 12 units, of a wide typeface
TEXT = 200  # characters of a name at the most


class Picture:
    """An SVG of the page's width, with a title and a description for those who cannot see it.

    Parameters
    ----------
    name : str
        The picture's id, of which those of its title and description are made.
    title, description : str
    height : float
    """

    def __init__(self, name: str, title: str, description: str, height: float) -> None:
        self.height = height
        self.root = ElementTree.Element(
            "svg",
            {
                "viewBox": f"0 0 {WIDTH} {height:g}",
                "role": "img",
                "id": name,
                "aria-labelledby": f"{name}-title {name}-description",
            },
        )
        for tag, text in (("title", title), ("desc", description)):
            full = {"desc": "description"}.get(tag, tag)
            self.add(tag, {"id": f"{name}-{full}"}, text)

    def add(self, tag: str, attributes: dict[str, Any], text: str = "") -> ElementTree.Element:
        """Add an element; numbers are rounded to tenths of a unit."""
        given = {
            key: f"{value:.1f}".removesuffix(".0") if isinstance(value, float) else str(value)
            for key, value in attributes.items()
        }
        element = ElementTree.SubElement(self.root, tag, given)
        if text:
            element.text = one_line(text, TEXT if tag == "text" else 4 * TEXT)
        return element

    def text(
        self, x: float, y: float, text: str, kind: str = "label", anchor: str = "start"
    ) -> None:
        """Write a line of text; `y` is the middle of its height."""
        self.add("text", {"x": x, "y": y + 4.0, "class": kind, "text-anchor": anchor}, text)

    def turned(self, x: float, y: float, text: str, kind: str, anchor: str) -> None:
        """Write a line of text upwards; `x` is the middle of its height."""
        place = f"translate({x + 4:.1f} {y:.1f}) rotate(-90)"
        self.add("text", {"transform": place, "class": kind, "text-anchor": anchor}, text)

    def line(self, x1: float, y1: float, x2: float, y2: float, kind: str) -> None:
        """Draw a straight line."""
        self.add("line", {"x1": x1, "y1": y1, "x2": x2, "y2": y2, "class": kind})

    def path(self, points: Iterable[tuple[float, float]], kind: str, closed: bool = False) -> None:
        """Draw a line through points, or fill what it encloses."""
        d = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
        self.add("path", {"d": d + "Z" * closed, "class": kind})

    def dot(self, x: float, y: float, kind: str, radius: float = 3.5) -> None:
        """Draw a dot."""
        self.add("circle", {"cx": float(x), "cy": float(y), "r": radius, "class": kind})

    def box(
        self, x: float, y: float, width: float, height: float, kind: str, opacity: float = 1
    ) -> None:
        """Fill a rectangle."""
        extra = {} if opacity == 1 else {"fill-opacity": f"{opacity:.3f}"}
        self.add(
            "rect",
            {"x": x, "y": y, "width": max(width, 0.0), "height": height, "class": kind, **extra},
        )

    def __str__(self) -> str:
        return ElementTree.tostring(self.root, encoding="unicode")


class Panel(Picture):
    """A picture with two axes.

    Parameters
    ----------
    name, title, description : str
    x, y : sequence of float
        Values that the axes have to have room for.
    labels : (str, str)
        What the axes show; that of y stands above its axis, to be read without turning the head.
    height : float
    right : float
        Room for labels at the ends of lines.
    margins : (float, float)
        Of the values' span, beside them.
    """

    def __init__(
        self,
        name: str,
        title: str,
        description: str,
        x: Iterable[float],
        y: Iterable[float],
        labels: tuple[str, str],
        height: float = 250,
        right: float = 12,
        margins: tuple[float, float] = (0.02, 0.06),
    ) -> None:
        super().__init__(name, title, description, height)
        self.left, self.top, self.right, self.bottom = 46.0, 30.0, WIDTH - right, height - 40
        if not labels[0]:
            self.bottom = height - 24
        self.x = Scale.over(x, self.left, self.right, margins[0])
        self.y = Scale.over(y, self.bottom, self.top, margins[1])
        self.text(0, 10, labels[1], "axis")
        self.text((self.left + self.right) / 2, height - 8, labels[0], "axis", "middle")
        self.ends: list[tuple[float, str, str]] = []

    def grid(
        self,
        x: Sequence[float],
        y: Sequence[float],
        x_labels: Sequence[str] | None = None,
        y_labels: Sequence[str] | None = None,
    ) -> None:
        """Draw the axes: lines of y's ticks, and both axes' labels."""
        for value, label in zip(y, y_labels or tick_labels(y), strict=True):
            place = self.y(value)
            self.line(self.left, place, self.right, place, "grid")
            self.text(self.left - 6, place, label, "tick", "end")
        self.line(self.left, self.bottom, self.right, self.bottom, "base")
        for value, label in zip(x, x_labels or tick_labels(x), strict=True):
            place = self.x(value)
            self.line(place, self.bottom, place, self.bottom + 4, "base")
            self.text(place, self.bottom + 14, label, "tick", "middle")

    def curve(self, x: Sequence[float], y: Sequence[float], kind: str) -> None:
        """Draw a line through those points that lie in the panel; a single one as a dot."""
        inside = [self.y.holds(value) for value in y]
        points = [(self.x(a), self.y(b)) for a, b in zip(x, y, strict=True)]
        for shown, group in itertools.groupby(zip(inside, points), key=lambda pair: pair[0]):
            run = [point for _, point in group]
            if shown and len(run) == 1:
                self.dot(*run[0], kind.replace("line", "dot"))
            elif shown:
                self.path(run, kind)

    def band(self, x: Sequence[float], low: Sequence[float], high: Sequence[float], k: str) -> None:
        """Fill what lies between two lines."""

        def clipped(value: float) -> float:
            return min(max(value, self.y.low), self.y.high)

        upper = [(self.x(a), self.y(clipped(b))) for a, b in zip(x, high, strict=True)]
        lower = [(self.x(a), self.y(clipped(b))) for a, b in zip(x, low, strict=True)]
        if len(upper) > 1:
            self.path([*upper, *lower[::-1]], k, closed=True)

    def end(self, y: float, text: str, kind: str) -> None:
        """Keep a label for the right end of a line; `write_ends` writes all of them."""
        self.ends.append((self.y(min(max(y, self.y.low), self.y.high)), text, kind))

    def write_ends(self, apart: float = 14) -> None:
        """Write the labels of lines' ends, so far apart that none covers another."""
        places = spread([place for place, _, _ in self.ends], apart, self.bottom)
        for (_, text, kind), place in zip(self.ends, places, strict=True):
            self.text(self.right + 5, place, text, kind)
        self.ends = []


def spread(places: Sequence[float], apart: float, high: float) -> list[float]:
    """Return places, in the same order, moved so far that they are apart and at most `high`."""
    order = sorted(range(len(places)), key=lambda i: places[i])
    moved = list(places)
    for before, i in itertools.pairwise(order):
        moved[i] = max(moved[i], moved[before] + apart)
    limit = high
    for i in reversed(order):
        moved[i] = min(moved[i], limit)
        limit = moved[i] - apart
    return moved
