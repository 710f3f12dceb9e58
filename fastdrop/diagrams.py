"""Pictures of the results of `fastdrop.calibration`. This module needs matplotlib."""

from __future__ import annotations

import io
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

__all__ = ["render_reliability", "render_risk_coverage"]

# Colours that colour-blind readers can tell apart as well
COLOURS = ("#1b6ca8", "#d95f02", "#4d4d4d", "#9e4f9e", "#008066", "#b8860b")
GREY = "#777777"


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
