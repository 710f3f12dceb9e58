"""The report's pictures: each a function of findings that returns an SVG."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from fastdrop.calibration import Reliability
from fastdrop.commands.report.findings import CONDITIONS, Comparison, Learning, Sweep
from fastdrop.commands.report.insides import Fingerprint
from fastdrop.commands.report.outcomes import Answers, Importance
from fastdrop.commands.report.scales import Scale, number, percent, tick_labels, ticks, whole_ticks
from fastdrop.commands.report.svg import BOLD, LETTER, WIDTH, Panel, Picture
from fastdrop.layers import Array

__all__ = [
    "draw_confusion",
    "draw_curves",
    "draw_estimates",
    "draw_histograms",
    "draw_importance",
    "draw_reliability",
    "draw_seeds",
    "draw_sweep",
    "draw_time",
]

END = 7 * BOLD  # room for "without" at the right end of a line
DOTS = 800  # in a scatter plot
FEW = 5  # samples, of which a share is mostly luck: a dot, but no line leads to it
SETTLED = 10  # a curve's first tenth may leave the picture: it would squeeze the rest


def draw_curves(name: str, title: str, description: str, curves: Learning, parts: str) -> str:
    """Draw a figure over the epochs, validation as solid lines, training as dashed ones.

    Parameters
    ----------
    name, title, description : str
    curves : Learning
    parts : str
        What the y axis shows.
    """
    settled: list[float] = []
    for curve in curves.curves:
        start = len(curve.mean) // SETTLED
        settled += curve.low[start:] + curve.high[start:]
    panel = Panel(name, title, description, curves.epochs, settled, ("epoch", parts), right=END + 8)
    labels = _share_labels if curves.measure.unit == "%" else tick_labels
    y = ticks(panel.y.low, panel.y.high)
    panel.grid(whole_ticks(curves.epochs[0], curves.epochs[-1]), y, y_labels=labels(y))
    for curve in curves.curves:
        if curve.part == "validation":
            panel.band(curves.epochs, curve.low, curve.high, f"band {curve.condition}")
    for curve in sorted(curves.curves, key=lambda curve: curve.part):
        dashed = " dashed" if curve.part == "training" else ""
        panel.curve(curves.epochs, curve.mean, f"line {curve.condition}{dashed}")
        if not dashed:
            panel.end(curve.mean[-1], curve.condition, f"name {curve.condition}")
    panel.write_ends()
    if any(curve.part == "training" for curve in curves.curves):
        for x, part, dashed in ((196, "validation", ""), (284, "training", " dashed")):
            panel.line(x, 10, x + 18, 10, f"line plain{dashed}")
            panel.text(x + 22, 10, part, "tick")
    return str(panel)


def draw_seeds(name: str, title: str, description: str, comparison: Comparison) -> str:
    """Draw a line for each seed, from its figure without dropout to that with."""
    measure = comparison.measure
    values = [*comparison.without, *comparison.with_dropout]
    means = comparison.means
    ends = [f"{kind} {measure.say(mean)}" for kind, mean in zip(CONDITIONS, means)]
    panel = Panel(
        name,
        title,
        description,
        (0, 1),
        values,
        ("", f"validation {measure.title}{f' ({measure.unit})' if measure.unit else ''}"),
        right=8 + BOLD * max(map(len, ends)),
        margins=(0.3, 0.12),
    )
    y = ticks(panel.y.low, panel.y.high)
    panel.grid(
        (0, 1),
        y,
        CONDITIONS,
        _share_labels(y) if measure.unit == "%" else tick_labels(y),
    )
    for pair in zip(comparison.without, comparison.with_dropout):
        panel.curve((0, 1), pair, "line faint")
        for x, (value, kind) in enumerate(zip(pair, CONDITIONS)):
            panel.dot(panel.x(x), panel.y(value), f"dot {kind}")
    if len(comparison.seeds) > 1:
        panel.curve((0, 1), means, "line strong")
    for x, (mean, kind) in enumerate(zip(means, CONDITIONS)):
        place = panel.x(x)
        panel.line(place - 14, panel.y(mean), place + 14, panel.y(mean), f"line {kind} thick")
        panel.end(mean, ends[x], f"name {kind}")
    panel.write_ends()
    return str(panel)


def draw_sweep(name: str, title: str, description: str, found: Sweep) -> str:
    """Draw a figure against the rate of dropout: each seed, the mean, its standard error."""
    measure = found.measure
    every = [value for values in found.values for value in values]
    axis = f"validation {measure.title}{f' ({measure.unit})' if measure.unit else ''}"
    panel = Panel(
        name,
        title,
        description,
        found.rates,
        every,
        ("rate of dropout", axis),
        right=20,
        margins=(0.05, 0.24),
    )
    y = ticks(panel.y.low, panel.y.high)
    x_labels = [f"{rate:g}" for rate in found.rates]
    room = (panel.right - panel.left) / max(len(x_labels), 1)
    x = found.rates if room > LETTER * max(map(len, x_labels)) else ticks(0, found.rates[-1])
    panel.grid(
        x,
        y,
        x_labels if x is found.rates else None,
        _share_labels(y) if measure.unit == "%" else tick_labels(y),
    )
    means = found.means
    for rate, values in zip(found.rates, found.values, strict=True):
        for value in values:
            panel.dot(panel.x(rate) - 6, panel.y(value), "dot faint", 2.2)
    panel.curve(found.rates, means, "line with")
    for rate, mean, error in zip(found.rates, means, found.errors, strict=True):
        place = panel.x(rate)
        if math.isfinite(error):
            panel.line(
                place, panel.y(mean - error), place, panel.y(mean + error), "line with thick"
            )
        panel.dot(place, panel.y(mean), "dot with" if rate else "dot without", 4)
    best = found.best
    place, mean = panel.x(found.rates[best]), means[best]
    panel.dot(place, panel.y(mean), "ring", 7.5)
    above = -16 if measure.higher else 16
    anchor = "start" if best == 0 else "end" if best == len(means) - 1 else "middle"
    kind = "name with" if found.rates[best] else "name without"
    beyond = max(found.values[best]) if measure.higher else min(found.values[best])
    panel.text(place, panel.y(beyond) + above, measure.say(mean), kind, anchor)
    return str(panel)


def draw_confusion(
    name: str, title: str, description: str, table: Array, classes: Sequence[str]
) -> str:
    """Draw a table of true class (rows) by said class; mistakes stand out by their number."""
    count = len(classes)
    room = min(max(map(len, classes)) * LETTER, 112.0)
    left = room + 28
    size = (WIDTH - left) / count
    upright = room > size
    top = 28 + (room if upright else 12.0)
    picture = Picture(name, title, description, top + size * count + 2)
    picture.text(left + size * count / 2, 8, "said by the model", "axis", "middle")
    picture.turned(8, top + size * count / 2, "true class", "axis", "middle")
    wrong = table - np.diag(np.diag(table))
    largest, whole = max(int(wrong.max()), 1), np.maximum(table.sum(axis=1), 1)
    for i, label in enumerate(classes):
        y, middle = top + size * i, left + size * (i + 0.5)
        shown = _cut(label, room)
        picture.text(left - 6, y + size / 2, shown, "tick", "end")
        if upright:
            picture.turned(middle, top - 5, shown, "tick", "start")
        else:
            picture.text(middle, top - 10, shown, "tick", "middle")
        for j, value in enumerate(table[i].tolist()):
            right, x = i == j, left + size * j
            share = value / int(whole[i]) if right else math.sqrt(value / largest)
            if value:
                kind = "cell with" if right else "cell without"
                picture.box(x + 0.5, y + 0.5, size - 1, size - 1, kind, 0.08 + 0.37 * share)
                if len(str(value)) * LETTER < size:
                    picture.text(x + size / 2, y + size / 2, str(value), "value", "middle")
    picture.box(left, top, size * count, size * count, "frame")
    return str(picture)


def draw_estimates(
    name: str, title: str, description: str, answers: Answers, unit: str, kind: str
) -> str:
    """Draw predicted values against true ones; what is right lies on the diagonal."""
    step = math.ceil(len(answers.y) / DOTS)
    true, predicted = answers.y[::step], answers.predicted[::step]
    both = [*true.tolist(), *predicted.tolist()]
    units = f" ({unit})" if unit else ""
    panel = Panel(
        name,
        title,
        description,
        both,
        both,
        (f"true{units}", f"predicted{units}"),
        height=350,
        margins=(0.04, 0.04),
    )
    places = ticks(panel.x.low, panel.x.high)
    panel.grid(places, places)
    panel.curve((panel.x.low, panel.x.high), (panel.x.low, panel.x.high), "line faint dashed")
    for a, b in zip(true.tolist(), predicted.tolist(), strict=True):
        panel.dot(panel.x(a), panel.y(b), f"dot {kind} sheer", 2.6)
    panel.text(panel.right - 26, panel.top + 6, "right on the line", "tick", "end")
    return str(panel)


def draw_reliability(
    name: str, title: str, description: str, diagrams: Mapping[str, Reliability], kind: str
) -> str:
    """Draw accuracy against confidence: as it is, dashed after scaling, and what would be right."""
    panel = Panel(
        name,
        title,
        description,
        (0, 1),
        (0, 1),
        ("confidence: what the model says (%)", "accuracy: what is right (%)"),
        height=300,
        margins=(0.02, 0.03),
    )
    panel.grid(
        (0, 0.25, 0.5, 0.75, 1),
        (0, 0.25, 0.5, 0.75, 1),
        *[_share_labels((0, 0.25, 0.5, 0.75, 1))] * 2,
    )
    panel.curve((0, 1), (0, 1), "line faint dashed")
    panel.text(panel.x(0.16), panel.y(0.05), "as sure as right", "tick")
    for i, diagram in enumerate(diagrams.values()):
        some = diagram.counts > 0
        said, right = diagram.confidence[some], diagram.accuracy[some]
        many = diagram.counts[some] >= FEW
        dashed = " dashed" if i else ""
        panel.curve(said[many].tolist(), right[many].tolist(), f"line {kind}{dashed}")
        most = diagram.counts.max()
        for a, b, n in zip(said.tolist(), right.tolist(), diagram.counts[some].tolist()):
            radius = 2 + 5 * math.sqrt(n / most)
            panel.dot(panel.x(a), panel.y(b), f"dot {kind}{' hollow' if i else ''}", radius)
    return str(panel)


def draw_histograms(name: str, title: str, description: str, found: Fingerprint, x: str) -> str:
    """Draw histograms as steps, one over the other."""
    shares = [share for h in found.histograms.values() for share in h.shares]
    edges = next(iter(found.histograms.values())).edges
    panel = Panel(
        name,
        title,
        description,
        edges,
        [0, *shares],
        (x, "% of all values in each bin"),
        height=220,
    )
    panel.y = Scale(0, 1.25 * max(*shares, 1e-9), panel.bottom, panel.top)
    y = ticks(0, panel.y.high, 4)
    panel.grid(ticks(edges[0], edges[-1]), y, y_labels=_share_labels(y))
    for condition, histogram in found.histograms.items():
        steps_x = np.repeat(edges, 2)[1:-1].tolist()
        steps_y = np.repeat(histogram.shares, 2).tolist()
        panel.band(steps_x, [0] * len(steps_x), steps_y, f"band {condition}")
        panel.curve(steps_x, steps_y, f"line {condition}")
    for row, condition in enumerate(found.histograms):
        panel.text(panel.right, panel.top + 8 + 15 * row, condition, f"name {condition}", "end")
    return str(panel)


def draw_importance(
    name: str, title: str, description: str, found: Mapping[str, Sequence[Importance]], x: str
) -> str:
    """Draw a row for each column: how much the loss rises without it, a dot for each network."""
    conditions = list(found)
    rows = [*zip(*found.values(), strict=True)]
    step = 34
    picture = Picture(name, title, description, 64 + step * len(rows))
    reach = [value.mean + sign * value.error for row in rows for value in row for sign in (-1, 1)]
    low, high = min(0.0, *reach), max(0.0, *reach)
    scale = Scale(low, high + (0.02 * (high - low) or 1.0), 14, WIDTH - 14)
    for place, condition in zip((WIDTH - 130, WIDTH - 58), conditions):
        picture.dot(place, 5, f"dot {condition}", 4.5)
        picture.text(place + 8, 5, condition, f"name {condition}")
    bottom = 32.0 + step * len(rows)
    values = ticks(scale.low, scale.high)
    for value, label in zip(values, tick_labels(values), strict=True):
        picture.line(scale(value), 18, scale(value), bottom, "grid" if value else "base")
        picture.text(scale(value), bottom + 8, label, "tick", "middle")
    picture.text(WIDTH / 2, bottom + 22, x, "axis", "middle")
    for i, row in enumerate(rows):
        y = 44.0 + step * i
        label = _cut(row[0].name, (WIDTH - 30) * LETTER / BOLD)
        picture.text(18, y - 14, label, "strong-text")
        for condition, value in zip(conditions, row):
            picture.line(scale(0), y, scale(value.mean), y, f"line {condition} sheer-line")
        for condition, value in zip(conditions, row):
            low, high = scale(value.mean - value.error), scale(value.mean + value.error)
            picture.line(low, y, high, y, f"line {condition} thick")
            picture.dot(scale(value.mean), y, f"dot {condition}", 4.5)
    return str(picture)


def draw_time(
    name: str, title: str, description: str, shares: Mapping[str, Mapping[str, float]]
) -> str:
    """Draw a bar for each condition, cut into what its seconds went to.

    Parameters
    ----------
    name, title, description : str
    shares : mapping of str to mapping of str to float
        By condition, the seconds of each part.
    """
    most = max(sum(parts.values()) for parts in shares.values()) or 1
    scale = Scale(0, most, 0, WIDTH - 2)
    picture = Picture(name, title, description, 58.0 * len(shares) + 6)
    for row, (condition, parts) in enumerate(shares.items()):
        y, start = 58.0 * row, 0.0
        total = sum(parts.values())
        picture.text(0, y + 8, f"{condition}: {number(total)} s", f"name {condition}")
        for i, (part, seconds) in enumerate(parts.items()):
            x, width = scale(start), scale(seconds)
            opacity = max(0.45 - 0.13 * i, 0.1)
            picture.box(x, y + 18, width - 1, 30.0, f"cell {condition}", opacity)
            label = f"{part} {percent(seconds / total, 0)}" if total else part
            if len(label) * LETTER < width:
                picture.text(x + 5, y + 33, label, "value")
            start += seconds
    return str(picture)


def _share_labels(values: Iterable[float]) -> list[str]:
    return tick_labels([100 * value for value in values])


def _cut(label: str, room: float) -> str:
    """Return a label that has room, with a sign where it was cut."""
    letters = max(int(room / LETTER), 1)
    return label if len(label) <= letters else f"{label[: max(letters - 1, 1)]}…"
