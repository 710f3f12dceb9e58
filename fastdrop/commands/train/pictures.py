"""Pictures of training runs. Needs matplotlib, which only this module imports."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

__all__ = ["render_comparison"]

COLOURS = ("#d95f02", "#1b6ca8")  # orange and blue: told apart by colour-blind readers too
GREY = "#555555"


def render_comparison(
    runs: Mapping[str, Mapping[str, Sequence[float]]], title: str, subtitle: str
) -> bytes:
    """Draw loss and accuracy of two runs over the epochs, training against validation.

    Parameters
    ----------
    runs : mapping of str to mapping
        By each run's name, lists of one figure per epoch: "loss", "accuracy", "val_loss" and
        "val_accuracy".
    title, subtitle : str
        Headings.

    Returns
    -------
    bytes
        A PNG file.
    """
    figure = Figure(figsize=(11, 5.2), dpi=150, layout="constrained")
    figure.suptitle(f"{title}\n", fontsize=15, fontweight="bold", x=0.01, ha="left")
    # a file's name may have a $ in it
    figure.text(0.01, 0.925, subtitle, fontsize=10, color=GREY, va="top", parse_math=False)
    loss, accuracy = figure.subplots(1, 2)
    _draw(loss, runs, "loss")
    _draw(accuracy, runs, "accuracy")
    loss.set_ylabel("cross-entropy loss (nats per sample)")
    accuracy.set_ylabel("accuracy (% of samples)")
    accuracy.yaxis.set_major_formatter(PercentFormatter(xmax=1, symbol=""))
    figure.legend(
        *loss.get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False
    )
    file = io.BytesIO()
    figure.savefig(file, format="png")
    return file.getvalue()


def _draw(axes: Axes, runs: Mapping[str, Mapping[str, Sequence[float]]], name: str) -> None:
    settled: list[float] = []
    for colour, (run, history) in zip(COLOURS, runs.items(), strict=True):
        for part, style, values in (
            ("training", "--", history[name]),
            ("validation", "-", history[f"val_{name}"]),
        ):
            epochs = range(1, len(values) + 1)
            marker = "o" if len(values) == 1 else None  # a line of one point is invisible
            axes.plot(
                epochs, values, style, color=colour, marker=marker, lw=1.8, label=f"{run}, {part}"
            )
            settled += values[len(values) // 10 :]
    # The first epochs would squeeze what is compared into a corner: they may leave the picture.
    margin = 0.05 * (max(settled) - min(settled)) or 0.05
    axes.set_ylim(min(settled) - margin, max(settled) + margin)
    axes.set_title(name, loc="left", fontsize=12)
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
