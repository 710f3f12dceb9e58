"""Pictures of training runs. Needs matplotlib, which only this module imports."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from fastdrop.commands.runs.comparison import best_of, rates_of
from fastdrop.commands.runs.results import Results, Run, title_of
from fastdrop.commands.train.summary import conclusion

__all__ = ["render"]

COLOURS = ("#d95f02", "#1b6ca8")  # orange and blue: told apart by colour-blind readers too
GREY = "#555555"
LABELS = {
    "loss": "loss",
    "accuracy": "error (% of samples)",
    "root_mean_squared_error": "root mean squared error (units of the target)",
}


def render(results: Results) -> bytes:
    """Draw loss and metric over the epochs; of several rates also what each came to.

    Parameters
    ----------
    results : Results

    Returns
    -------
    bytes
        A PNG file.
    """
    best = best_of(rates_of(results.runs)).dropout
    shown = [run for run in results.runs if run.dropout in (0.0, best)]
    metric = results.data["metric"]
    sweep = len(results.settings["dropout"]) > 1
    figure = Figure(figsize=(16 if sweep else 12, 5.6), dpi=120, layout="constrained")
    figure.get_layout_engine().set(rect=(0, 0, 1, 0.85), wspace=0.06)
    put = {"x": 0.008, "ha": "left", "va": "top", "parse_math": False}  # names may have a $
    figure.text(y=0.98, s=conclusion(results, short=True), fontsize=14, fontweight="bold", **put)
    figure.text(y=0.915, s=_subtitle(results), fontsize=10, color=GREY, **put)
    axes = figure.subplots(1, 3 if sweep else 2)
    _draw_course(axes[0], shown, "loss")
    if sweep:
        _draw_sweep(axes[1], results.runs, "loss")
        _draw_sweep(axes[2], results.runs, metric)
    else:
        _draw_course(axes[1], shown, metric)
    file = io.BytesIO()
    figure.savefig(file, format="png")
    return file.getvalue()


def _subtitle(results: Results) -> str:
    data, settings = results.data, results.settings
    seeds = f"{settings['seeds']} seeds from {settings['seed']} on"
    return (
        f"{data['name']}: {data['training']} training and {data['validation']} validation samples; "
        f"hidden layers {', '.join(map(str, settings['hidden']))}; batch {settings['batch_size']}; "
        f"{settings['optimizer']}, learning rate {settings['lr']:g}; "
        + (seeds if settings["seeds"] > 1 else f"seed {settings['seed']}")
    )


def _shown(name: str, values: Sequence[float] | Sequence[Sequence[float]]) -> NDArray[np.float64]:
    """Return figures as they are drawn: an accuracy as its error, which smaller is better."""
    array = np.asarray(values, np.float64)
    return 100 * (1 - array) if name.removeprefix("val_") == "accuracy" else array


def _draw_course(axes: Axes, runs: Sequence[Run], name: str) -> None:
    """Draw the mean over the seeds by epoch, and a band of one standard deviation."""
    ends, settled = [], []
    for colour, p in zip(COLOURS, dict.fromkeys(run.dropout for run in runs), strict=True):
        for part, style, figure in (("training", "--", name), ("validation", "-", f"val_{name}")):
            values = _shown(name, [run.figures[figure] for run in runs if run.dropout == p])
            mean, spread = values.mean(axis=0), values.std(axis=0)
            epochs = np.arange(1, len(mean) + 1)
            marker = "o" if len(mean) == 1 else None  # a line of one point is invisible
            axes.plot(epochs, mean, style, color=colour, marker=marker, lw=1.8)
            axes.fill_between(epochs, mean - spread, mean + spread, color=colour, alpha=0.18, lw=0)
            ends.append((float(mean[-1]), f"{title_of(p)}, {part}", colour))
            settled += list(mean[len(mean) // 10 :])
    # The first epochs would squeeze what is compared into a corner: they may leave the picture.
    margin = 0.05 * (max(settled) - min(settled)) or 0.05
    low, high = min(settled) - margin, max(settled) + margin
    axes.set_ylim(low, high)
    heights = _apart([end for end, *_ in ends], (high - low) / 18, low)
    for height, (_, label, colour) in zip(heights, ends):
        axes.annotate(
            label,
            (1, height),
            (5, 0),
            xycoords=axes.get_yaxis_transform(),
            textcoords="offset points",
            color=colour,
            va="center",
            fontsize=9,
        )
    _dress(axes, f"{LABELS[name]}, by epoch", "epoch")
    axes.set_xlim(left=0, right=len(mean))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))


def _draw_sweep(axes: Axes, runs: Sequence[Run], name: str) -> None:
    """Draw what the validation part says of each rate: all seeds, mean and standard deviation."""
    rates = sorted({run.dropout for run in runs})
    values = [
        _shown(name, [run.figures[f"val_{name}"][-1] for run in runs if run.dropout == p])
        for p in rates
    ]
    means = [float(of.mean()) for of in values]
    spreads = [float(of.std(ddof=1)) if len(of) > 1 else 0.0 for of in values]
    for p, of in zip(rates, values):
        axes.plot([p] * len(of), of, "o", color=GREY, alpha=0.35, ms=4, mew=0)
    axes.errorbar(rates, means, spreads, color=COLOURS[1], lw=1.8, capsize=3, marker="o", ms=6)
    axes.errorbar(rates[:1], means[:1], spreads[:1], color=COLOURS[0], capsize=3, marker="o", ms=7)
    least = int(np.argmin(means))
    for i, colour in {least: COLOURS[1], 0: COLOURS[0]}.items():
        number = f"{means[i]:.3g}{'%' if name == 'accuracy' else ''}"
        label = f"{'least: ' if i == least else ''}{title_of(rates[i])}\n{number}"
        above = means[i] + spreads[i] if i != least else means[i] - spreads[i]
        axes.annotate(
            label,
            (rates[i], above),
            (6 if i == 0 else 0, -8 if i == least else 8),
            textcoords="offset points",
            ha="left" if i == 0 else "right" if i == len(rates) - 1 else "center",
            va="top" if i == least else "bottom",
            color=colour,
            fontsize=9,
        )
    axes.margins(y=0.22)
    _dress(axes, f"validation {LABELS[name]}, by rate", "p, the probability of dropping")
    axes.set_xticks(rates, [f"{p:g}" for p in rates])


def _dress(axes: Axes, title: str, xlabel: str) -> None:
    axes.set_title(title, loc="left", fontsize=12)
    axes.set_xlabel(xlabel)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)


def _apart(heights: Sequence[float], gap: float, low: float) -> list[float]:
    """Move labels up until they are a gap apart."""
    moved, last = dict.fromkeys(range(len(heights)), 0.0), low
    for i in sorted(moved, key=lambda i: heights[i]):
        moved[i] = last = max(heights[i], last + gap)
    return list(moved.values())
