"""What `fastdrop train` prints at its end: what its runs came to, and whether that is luck."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from fastdrop.commands.console import Console
from fastdrop.commands.runs.comparison import (
    Difference,
    Rate,
    best_of,
    difference,
    rates_of,
)
from fastdrop.commands.runs.data import Data
from fastdrop.commands.runs.results import MODELS, Results, Run, model_name

__all__ = ["conclusion", "facts_of", "last_line", "summary"]


def last_line(run: Run, data: Data) -> str:
    """Say what one run came to, and how long it took."""
    took = sum(sum(values) for values in run.seconds.values())
    metric = _form(data.metric, run.figures[f"val_{data.metric}"][-1])
    return (
        f"validation loss {run.figures['val_loss'][-1]:.4f}, {_short(data.metric)} {metric}, "
        f"{took:.1f} s"
    )


def summary(results: Results, console: Console) -> str:
    """Return a table of all rates, and a sentence on the best.

    Parameters
    ----------
    results : Results
    console : Console
        Says whether words may be in bold.

    Returns
    -------
    str
    """
    rates = rates_of(results.runs)
    best = best_of(rates)
    lines = [_table(results, rates), ""]
    lines += [console.strong(conclusion(results))]
    if len(rates) > 2:
        lines += [
            f"{MODELS[1]} is the model of p = {best.dropout:g} and seed {results.settings['seed']}."
        ]
    return "\n".join(lines)


def conclusion(results: Results, short: bool = False) -> str:
    """Say in a sentence or two what dropout did to the validation part, and whether it is luck.

    Parameters
    ----------
    results : Results
    short : bool
        Whether the metric alone is enough, for a heading.

    Returns
    -------
    str
    """
    rates = rates_of(results.runs)
    without, best, metric = rates[0], best_of(rates), results.data["metric"]
    parts, luck = [], ""
    for name in (metric,) if short else ("loss", metric):
        figure = f"val_{name}"
        means = [_form(name, rate.mean[figure]) for rate in (without, best)]
        parts.append(f"the validation {_short(name)} from {means[0]} to {means[1]}")
        found = difference(results.runs, best.dropout, figure)
        if found is None:
            luck = "One seed cannot tell whether that is luck: --seeds 5 may."
        else:
            parts[-1] += f" ({_luck(name, found)})"
            luck = f"Means over {results.settings['seeds']} seeds, differences ± standard errors."
    sentence = f"Dropout with p = {best.dropout:g} took {' and '.join(parts)}."
    return sentence if short else f"{sentence}\n{luck}"


def facts_of(results: Results, out: Path) -> dict[str, Any]:
    """Return for a program what `summary` says, and which files there are."""
    rates = rates_of(results.runs)
    best = best_of(rates)
    metric = results.data["metric"]
    compared = [difference(results.runs, best.dropout, f"val_{of}") for of in ("loss", metric)]
    return {
        "out": str(out),
        "models": {
            f"{rate.dropout}": str(out / model_name(rate.dropout, results.settings["dropout"]))
            for rate in rates
        },
        "rates": [rate._asdict() for rate in rates],
        "best": best.dropout,
        "differences": [
            found._asdict() | {"may be luck": found.is_luck} for found in compared if found
        ],
    }


def _luck(name: str, found: Difference) -> str:
    """Say how large a difference is beside its error, and whether that may be luck."""
    scale, unit = (100, " points") if name == "accuracy" else (1, "")
    digits = max(0, 1 - math.floor(math.log10(scale * found.error))) if found.error else 4
    size = f"{scale * found.mean:+.{digits}f} ± {scale * found.error:.{digits}f}{unit}"
    return f"{size}, {'may be' if found.is_luck else 'more than'} luck"


def _table(results: Results, rates: list[Rate]) -> str:
    """Return a line for each rate: loss and metric, of the training and the validation part."""
    metric, seeds = results.data["metric"], results.settings["seeds"]
    columns = [("loss", "training"), ("loss", "validation"), (metric, "training")]
    columns += [(metric, "validation")]
    head = ["", *(f"{part} {_short(name)}" for name, part in columns)]
    rows = [head]
    for rate in rates:
        cells = [rate.title]
        for name, part in columns:
            figure = f"val_{name}" if part == "validation" else name
            spread = rate.spread[figure]
            text = _form(name, rate.mean[figure])
            cells.append(text if spread is None else f"{text} ± {_form(name, spread)}")
        rows.append(cells)
    widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
    lines = [
        "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows
    ]
    last = f"after {results.settings['epochs']} epochs"
    note = f"Mean ± standard deviation of {seeds} seeds, {last}:" if seeds > 1 else f"{last}:"
    return "\n".join([note[:1].upper() + note[1:], *lines])


def _short(metric: str) -> str:
    return {"root_mean_squared_error": "RMSE"}.get(metric, metric)


def _form(name: str, value: float) -> str:
    """Write a figure: an accuracy in percent, a loss with four digits behind the point."""
    if name == "accuracy":
        return f"{value:.2%}"
    return f"{value:.4f}" if name == "loss" else f"{value:.5g}"
