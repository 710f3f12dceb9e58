"""The picture of a history. Needs matplotlib, which only this file of the room imports."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence

try:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator
except ImportError as error:
    raise ImportError(
        f"history.plot needs matplotlib: pip install 'fastdrop-nn[plot]' ({error})"
    ) from None

__all__ = ["Picture", "draw_history"]

COLOURS = {"training": "#d95f02", "validation": "#1b6ca8"}  # colour-blind readers tell them apart
COLUMNS = 3  # of panels
LIMIT = 1e300  # matplotlib takes differences of what it draws


class Picture(Figure):
    """A figure that notebooks show, also where pyplot was never imported and without a display."""

    def _repr_png_(self) -> bytes:
        file = io.BytesIO()
        self.savefig(file, format="png", metadata={"Software": None})
        return file.getvalue()


def draw_history(epoch: Sequence[int], history: Mapping[str, Sequence[float]]) -> Picture:
    """Draw a panel for each figure over the epochs, training beside validation.

    Parameters
    ----------
    epoch : sequence of int
        Numbers of the epochs, from 0.
    history : mapping of str to sequence of float
        What happened; names with "val_" before them share a panel with those without.

    Returns
    -------
    Picture

    Raises
    ------
    ValueError
        When there is nothing to draw.
    """
    names = list(dict.fromkeys(name.removeprefix("val_") for name in history))
    if not epoch or not names:
        raise ValueError("history: expected at least one epoch, got none")
    columns = min(COLUMNS, len(names))
    rows = math.ceil(len(names) / columns)
    figure = Picture(figsize=(1 + 4.2 * columns, 3.6 * rows), dpi=110, layout="constrained")
    for name, axes in zip(names, figure.subplots(rows, columns, squeeze=False).flat):
        lines = {"training": history.get(name), "validation": history.get(f"val_{name}")}
        _draw(axes, epoch, {part: values for part, values in lines.items() if values})
        axes.set_title(name, loc="left", fontsize=11, parse_math=False)
        axes.set_xlabel("epoch")
    for axes in figure.axes[len(names) :]:
        axes.remove()
    return figure


def _draw(axes: Axes, epoch: Sequence[int], lines: Mapping[str, Sequence[float]]) -> None:
    for part, values in lines.items():
        # a figure that another callback began to add later belongs to the last epochs
        numbers = [number + 1 for number in epoch[-len(values) :]]
        marker = "o" if len(values) == 1 else None  # a line of one point is invisible
        drawn = [y if abs(y) < LIMIT else math.nan for y in values[-len(numbers) :]]
        axes.plot(numbers, drawn, color=COLOURS[part], lw=1.8, marker=marker)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    if len(lines) > 1:
        _label(axes, {part: values[-1] for part, values in lines.items()})


def _label(axes: Axes, ends: Mapping[str, float]) -> None:
    """Write the lines' names behind their ends, one above the other where these are close."""
    low, high = axes.get_ylim()
    gap = 0.07 * (high - low)  # a line of text
    places = {part: y if abs(y) < LIMIT else high for part, y in ends.items()}
    lower, upper = sorted(places, key=lambda part: places[part])
    more = gap - (places[upper] - places[lower])
    if more > 0:
        places[upper] += more / 2
        places[lower] -= more / 2
    for part, place in places.items():
        axes.annotate(
            part,
            (1, place),
            xycoords=axes.get_yaxis_transform(),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
            fontsize=9,
            color=COLOURS[part],
            annotation_clip=False,
        )
