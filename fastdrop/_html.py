"""Tables and curves for notebooks, in the colours of the page around them, light or dark."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from html import escape

__all__ = ["curve", "table"]

_LINE = "1px solid rgba(128, 128, 128, 0.5)"  # on white and on black
_POINTS = 200  # of a curve, at the most


def table(
    caption: str,
    header: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    graphic: int | None = None,
) -> str:
    """Return a table.

    Parameters
    ----------
    caption : str
    header : sequence of str
    rows : iterable of sequence of str
        The first column stands on the left, the others on the right. Text is escaped.
    graphic : int, optional
        Number of the column whose cells are HTML and stay as they are.
    """
    lines = [
        '<table style="border-collapse: collapse; color: inherit; background: transparent">',
        f'<caption style="text-align: left; font-weight: bold">{escape(caption)}</caption>',
        f"<thead>{_row('th', header, None)}</thead>",
        "<tbody>",
        *(_row("td", row, graphic) for row in rows),
        "</tbody>",
        "</table>",
    ]
    return "\n".join(lines)


def _row(tag: str, cells: Sequence[str], graphic: int | None) -> str:
    parts = []
    for number, cell in enumerate(cells):
        side = "right" if number else "left"
        style = f"text-align: {side}; white-space: pre; padding: 2px 10px; border-bottom: {_LINE}"
        scope = ' scope="col"' if tag == "th" else ""
        inside = cell if number == graphic else escape(cell)
        parts.append(f'<{tag}{scope} style="{style}">{inside}</{tag}>')
    return f"<tr>{''.join(parts)}</tr>"


def curve(values: Sequence[float], width: int = 120, height: int = 24) -> str:
    """Return a small line through the finite ones of the values, as SVG."""
    step = max(1, math.ceil(len(values) / _POINTS))
    points = [(i, y) for i, y in enumerate(values) if math.isfinite(y)][::step]
    if not points:
        return ""
    lowest, highest = min(y for _, y in points), max(y for _, y in points)
    # halves, as the difference may overflow
    span = (highest / 2 - lowest / 2) or 1
    places = " ".join(
        f"{2 + (width - 4) * i / max(1, len(values) - 1):.1f},"
        f"{height - 2 - (height - 4) * (y / 2 - lowest / 2) / span:.1f}"
        for i, y in points
    )
    return (
        f'<svg width="{width}" height="{height}" role="img" aria-label="from {values[0]:.4g} to '
        f'{values[-1]:.4g}"><polyline points="{places}" fill="none" stroke="currentColor" '
        'stroke-width="1.5" stroke-linecap="round"/></svg>'
    )
