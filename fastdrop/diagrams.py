"""Pictures of the results of `fastdrop.calibration`, and of masks. Needs matplotlib."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping

import numpy as np

try:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.ticker import PercentFormatter
except ImportError as error:
    raise ImportError(
        f"fastdrop.diagrams needs matplotlib: pip install 'fastdrop-nn[plot]' ({error})"
    ) from None

from fastdrop.calibration import Reliability, RiskCoverage
from fastdrop.layers.effects import Effect

__all__ = ["draw_effect", "render_effect", "render_reliability", "render_risk_coverage"]

# Colours that colour-blind readers can tell apart as well
COLOURS = ("#1b6ca8", "#d95f02", "#4d4d4d", "#9e4f9e", "#008066", "#b8860b")
GREY = "#777777"
GAP = "#3d7ab8"  # between maps: neither of the greys of a mask
WIDTH = 7.5  # of the picture of a mask, in inches
SHAPE = 1.8  # width by height that the maps of one sample are arranged to


def render_reliability(diagrams: Mapping[str, Reliability], title: str) -> bytes:
    """Draw reliability diagrams, a panel for each: accuracy against confidence, and the counts.

    Parameters
    ----------
    diagrams : mapping of str to Reliability
        The diagrams by the names of their panels.
    title : str
        The title of the picture.

    Returns
    -------
    bytes
        A PNG file.

    Raises
    ------
    ValueError
        When there are no diagrams.
    """
    _check_some("diagrams", diagrams)
    figure = Figure(figsize=(0.6 + 3.6 * len(diagrams), 4.9), dpi=150, layout="constrained")
    figure.suptitle(title, fontsize=13, fontweight="bold", x=0.01, ha="left", parse_math=False)
    panels = figure.subplots(
        2, len(diagrams), squeeze=False, sharex=True, sharey="row", height_ratios=(4, 1)
    )
    for (name, diagram), panel, below in zip(diagrams.items(), panels[0], panels[1]):
        edges, confidence, accuracy, counts = diagram
        some = counts > 0
        middles, widths = (edges[1:] + edges[:-1]) / 2, np.diff(edges)
        panel.bar(middles[some], accuracy[some], widths[some], color=COLOURS[0], edgecolor="white")
        panel.plot(confidence[some], accuracy[some], "o", color="black", ms=3.5, zorder=3)
        panel.plot([0, 1], [0, 1], "--", color=GREY, lw=1.2)
        panel.set(xlim=(0, 1), ylim=(0, 1))
        panel.set_title(
            f"{name}\nECE {diagram.error:.3f}", loc="left", fontsize=10, parse_math=False
        )
        below.bar(middles, counts / counts.sum(), widths, color=GREY, edgecolor="white")
        below.set_xlabel("confidence")
        below.yaxis.set_major_formatter(PercentFormatter(xmax=1, decimals=0))
        _tidy(panel, below)
    panels[0][0].set_ylabel("accuracy")
    panels[1][0].set_ylabel("samples")
    return _png(figure)


def render_risk_coverage(curves: Mapping[str, RiskCoverage], title: str, risk: str) -> bytes:
    """Draw risk against coverage, a line for each curve.

    Parameters
    ----------
    curves : mapping of str to RiskCoverage
        The curves by the names of their lines.
    title : str
        The title of the picture.
    risk : str
        What the risk is, as a label for the axis, for instance "errors".

    Returns
    -------
    bytes
        A PNG file.

    Raises
    ------
    ValueError
        When there are no curves.
    """
    _check_some("curves", curves)
    figure = Figure(figsize=(7.5, 4.8), dpi=150, layout="constrained")
    axes = figure.subplots()
    axes.set_title(title, loc="left", fontsize=13, fontweight="bold", parse_math=False)
    for i, (name, curve) in enumerate(curves.items()):
        label = f"{name} (area {curve.area:.4g})"
        style = ("-", "--", ":")[i // len(COLOURS) % 3]
        colour = COLOURS[i % len(COLOURS)]
        axes.plot(curve.coverage, curve.risk, style, color=colour, lw=1.7, label=label)
    axes.set_xlabel("coverage: the share of samples that are answered, the most certain ones")
    axes.set_ylabel(risk, parse_math=False)
    axes.xaxis.set_major_formatter(PercentFormatter(xmax=1))
    axes.set_xlim(0, 1)
    # The risk of a few samples is a matter of luck, and may leave the picture.
    settled = max(curve.risk[len(curve.risk) // 20 :].max() for curve in curves.values())
    axes.set_ylim(0, 1.2 * settled or 1)
    axes.legend(frameon=False, loc="best")
    _tidy(axes)
    return _png(figure)


def draw_effect(axes: Axes, effect: Effect) -> None:
    """Draw what a layer did: of a mask, what is kept is white, what is dropped black.

    Of noise, a shade of grey is a factor, or what was added: black the smallest, white the largest.

    Parameters
    ----------
    axes : matplotlib.axes.Axes
    effect : Effect
        Samples are rows of maps, channels columns. The channels of a single sample fill lines.
    """
    maps = effect.maps()
    rows, columns, height, width = maps.shape
    if rows == 1:
        maps = maps[0]
        rows = max(1, round(math.sqrt(columns * width / height / SHAPE)))
        columns = -(-columns // rows)
        missing = rows * columns - len(maps)
        maps = np.pad(maps, ((0, missing), (0, 0), (0, 0)), constant_values=np.nan)
        maps = maps.reshape(rows, columns, height, width)
    gap = max(1, min(height, width) // 20) if rows * columns > 1 else 0
    maps = np.pad(maps, ((0, 0), (0, 0), (0, gap), (0, gap)), constant_values=np.nan)
    sheet = maps.transpose(0, 2, 1, 3).reshape(rows * (height + gap), columns * (width + gap))
    sheet = sheet[: len(sheet) - gap, : sheet.shape[1] - gap]
    # of a mask that keeps all, or nothing, the one colour has to be the right one
    low, high = (0, 1) if effect.kept is not None else (np.nanmin(sheet), np.nanmax(sheet))
    axes.set_facecolor(GAP)
    axes.imshow(sheet, cmap="gray", vmin=low, vmax=high, interpolation="nearest")
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_color(GAP)


def render_effect(effect: Effect, title: str, subtitle: str) -> bytes:
    """Draw what a layer did, see `draw_effect`, below two lines of text.

    Parameters
    ----------
    effect : Effect
    title, subtitle : str

    Returns
    -------
    bytes
        A PNG file.
    """
    figure = Figure(dpi=150, layout="constrained")
    axes = figure.subplots()
    draw_effect(axes, effect)
    height, width = axes.images[0].get_size()
    figure.set_size_inches(WIDTH, 0.7 + min(max(WIDTH * height / width, 0.5), WIDTH))
    figure.suptitle(title, fontsize=12, fontweight="bold", x=0.01, ha="left", parse_math=False)
    axes.set_title(subtitle, loc="left", fontsize=9, color=GREY, parse_math=False)
    if effect.kept is None:
        bar = figure.colorbar(axes.images[0], ax=axes, shrink=0.8)
        bar.outline.set_visible(False)
    return _png(figure)


def _check_some(argument: str, values: Mapping[str, object]) -> None:
    if not values:
        raise ValueError(f"{argument}: expected at least one, got none")


def _tidy(*panels: Axes) -> None:
    for panel in panels:
        panel.grid(alpha=0.25)
        panel.set_axisbelow(True)
        panel.spines[["top", "right"]].set_visible(False)


def _png(figure: Figure) -> bytes:
    file = io.BytesIO()
    figure.savefig(file, format="png", metadata={"Software": None})
    return file.getvalue()
