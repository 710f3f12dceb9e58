"""What the figures of a run say, in words and pictures: seeds, curves, the gap, rates, time."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from fastdrop.commands.report.charts import draw_curves, draw_seeds, draw_sweep, draw_time
from fastdrop.commands.report.findings import Comparison, Learning, Measure, Sweep, gap
from fastdrop.commands.report.parts import Figure, Section, Table, Tile, joined
from fastdrop.commands.report.scales import number, percent

__all__ = [
    "gap_section",
    "headline",
    "learning_section",
    "seeds_section",
    "sweep_section",
    "tiles",
    "time_section",
]

ROWS = 25  # of a table by epochs


def headline(comparison: Comparison) -> str:
    """Return in one line what came out."""
    say, name = comparison.measure.say, comparison.measure.title
    without, with_dropout = map(say, comparison.means)
    moves = "rises" if comparison.change > 0 else "falls"
    return {
        "better": f"Dropout helps: {name} {moves} from {without} to {with_dropout}",
        "worse": f"Dropout harms here: {name} {moves} from {without} to {with_dropout}",
        "unclear": f"No clear difference: {name} is {without} without dropout and {with_dropout} "
        "with",
        "one seed": f"{comparison.measure.heading} is {without} without dropout and "
        f"{with_dropout} with, by one seed",
    }[comparison.verdict]


def tiles(comparison: Comparison, curves: Learning, rate: float) -> list[Tile]:
    """Return what to read first."""
    measure, seeds = comparison.measure, len(comparison.seeds)
    of = f"mean of {seeds} seeds" if seeds > 1 else "one seed"
    means, found = comparison.means, comparison.difference
    sure = (
        f"standard error {measure.say_change(found.error)}"
        if found is not None
        else "one seed cannot tell how sure it is"
    )
    change, _, unit = measure.say_change(comparison.change, signed=True).partition(" ")
    gaps = gap(curves)
    ends = [gaps.curve(condition).mean[-1] for condition in ("without", "with")]
    name = f"validation {measure.title}"
    return [
        Tile("without dropout", measure.say(means[0]), f"{name}, {of}", "without"),
        Tile(f"dropout {rate:g}", measure.say(means[1]), f"{name}, {of}", "with"),
        Tile("difference", change, f"{unit}, {sure}".removeprefix(", "), ""),
        Tile(
            "gap to training",
            f"{_plain(measure, ends[0])} → {_plain(measure, ends[1])}",
            f"{'points of ' if measure.unit == '%' else ''}{measure.title}, without → with",
            "",
        ),
    ]


def _plain(measure: Measure, value: float) -> str:
    """Return a difference without plus and without its unit's word."""
    return number(100 * value if measure.unit == "%" else value, 2)


def seeds_section(comparisons: Sequence[Comparison]) -> Section:
    """Tell whether a difference may be luck, with a figure for each measure."""
    main = comparisons[0]
    return Section(
        "seeds", "Is the difference luck?", _certainty(main), [*map(_seeds, comparisons)]
    )


def _certainty(found: Comparison) -> str:
    name, change = found.measure.title, found.measure.say_change(found.change, signed=True)
    if found.difference is None:
        return (
            f"With seed {found.seeds[0]}, dropout changes {name} by {change}. Another seed gives "
            "other first weights and other masks, and may give another difference: --seeds 5 "
            "trains with five and tells how far they differ."
        )
    error, chance = found.measure.say_change(found.difference.error), found.difference.chance
    luck = "it may be luck" if found.difference.is_luck else "it is hardly luck"
    often = "less than 0.1\u202f%" if chance < 0.001 else f"{number(100 * chance, 2)}\u202f%"
    return (
        f"Over {len(found.seeds)} seeds, dropout changes {name} by {change} on average, with a "
        f"standard error of {error}. If dropout did nothing, a mean as far from 0 would come in "
        f"{often} of such trials (Student's t): {luck}."
    )


def _seeds(found: Comparison) -> Figure:
    measure = found.measure
    pairs = [*zip(found.without, found.with_dropout)]
    higher = "higher" if measure.higher else "lower"
    better = sum((b > a) == measure.higher and a != b for a, b in pairs)
    says = f"{measure.heading} is {higher} with dropout in {better} of {len(pairs)} seeds."
    if len(pairs) == 1:
        a, b = pairs[0]
        moved = "higher" if b > a else "lower" if b < a else "the same"
        says = f"{measure.heading} is {moved} with dropout."
    rows = [
        [str(seed), measure.say(a), measure.say(b), measure.say_change(b - a, signed=True)]
        for seed, (a, b) in zip(found.seeds, pairs, strict=True)
    ]
    if found.difference is not None:
        spread = [float(np.std(v, ddof=1)) for v in (found.without, found.with_dropout)]
        rows += [
            [
                "mean",
                *map(measure.say, found.means),
                measure.say_change(found.change, signed=True),
            ],
            [
                "deviation",
                *map(measure.say_change, spread),
                f"standard error {measure.say_change(found.difference.error)}",
            ],
        ]
    table = Table(
        f"Validation {measure.title} after the last epoch, by seed",
        ["seed", "without dropout", "with dropout", "difference"],
        rows,
    )
    name, title = f"seeds-{measure.name}", f"{measure.heading}, seed by seed"
    return Figure(name, title, says, draw_seeds(name, title, says, found), table)


def learning_section(found: Sequence[Learning]) -> Section:
    """Tell how both learned, with a figure for each measure."""
    figures = [_curves(curves) for curves in found]
    loss = found[0]
    sentences = []
    for condition in dict.fromkeys(curve.condition for curve in loss.curves):
        values = loss.curve(condition).mean
        best = int(np.argmin(values))
        at = f"after epoch {loss.epochs[best]} of {loss.epochs[-1]}"
        rise = values[-1] / values[best] - 1 if values[best] > 0 else 0.0
        now = "at the last epoch" if best == len(values) - 1 else at
        if rise >= 0.01:
            now += f", and {percent(rise, 0)} higher at the end"
        sentences.append(
            f"{_named(condition)}, validation loss is lowest {now} ({number(values[best])})."
        )
    return Section("curves", "How did both learn?", " ".join(sentences), figures)


def _named(condition: str) -> str:
    return {"without": "Without dropout", "with": "With dropout"}[condition]


def _curves(found: Learning) -> Figure:
    measure = found.measure
    ends = joined(
        [
            f"{measure.say(found.curve(condition).mean[-1])} {condition} dropout"
            for condition in dict.fromkeys(curve.condition for curve in found.curves)
        ]
    )
    says = f"Validation {measure.title} ends at {ends}."
    unit = f" ({measure.unit})" if measure.unit else ""
    name, title = f"curve-{measure.name}", measure.heading
    drawn = draw_curves(
        name,
        title,
        f"{says} Solid lines: validation; dashed lines: training.",
        found,
        f"{measure.title}{unit}",
    )
    heads = [f"{curve.condition}, {curve.part}" for curve in found.curves]
    return Figure(name, title, says, drawn, _by_epoch(f"{title} by epoch", found, heads))


def _by_epoch(caption: str, found: Learning, heads: Sequence[str]) -> Table:
    """Return a table of curves, of some epochs where there are many."""
    epochs = len(found.epochs)
    shown = sorted({round(i) for i in np.linspace(0, epochs - 1, min(epochs, ROWS))})
    rows = [
        [str(found.epochs[i]), *(found.measure.say(curve.mean[i]) for curve in found.curves)]
        for i in shown
    ]
    return Table(caption, ["epoch", *heads], rows)


def gap_section(found: Sequence[Learning]) -> Section:
    """Tell how much better the networks know their training samples than new ones."""
    gaps = [gap(curves) for curves in found]
    main = gaps[-1]
    points = " points" if main.measure.unit == "%" else ""
    sizes = [
        f"{_plain(main.measure, abs(curve.mean[-1]))}{points} "
        f"{'better' if curve.mean[-1] < 0 else 'worse'} {curve.condition} dropout"
        for curve in main.curves
    ]
    says = (
        f"At the end, {main.measure.title} on new samples, compared with that on the training "
        f"samples, is {joined(sizes)}. What is learned by heart serves no new sample: dropout is "
        "there to close this gap."
    )
    return Section("gap", "How wide is the gap?", says, [_gap(curves) for curves in gaps])


def _gap(found: Learning) -> Figure:
    measure = found.measure
    unit = "points" if measure.unit == "%" else ""
    title = f"Gap in {measure.title}"
    name = f"gap-{measure.name}"
    last = {curve.condition: curve.mean[-1] for curve in found.curves}
    says = f"The gap in {measure.title} is " + joined(
        [f"{_plain(measure, v)} {unit}".strip() + f" {k} dropout" for k, v in last.items()]
    )
    says += " after the last epoch."
    axis = f"validation worse than training by{f' ({unit})' if unit else ''}"
    heads = [f"{curve.condition} dropout" for curve in found.curves]
    drawn = draw_curves(name, title, says, found, axis)
    return Figure(name, title, says, drawn, _by_epoch(f"{title} by epoch", found, heads))


def sweep_section(found: Sequence[Sweep]) -> Section:
    """Tell which rate is best, and what too little and too much cost."""
    main = found[0]
    means, best = main.means, main.best
    say, rate = main.measure.say, f"{main.rates[best]:g}"
    says = (
        f"Of {len(main.rates)} rates, {rate} gives the best validation {main.measure.title}: "
        f"{say(means[best])}."
    )
    if best:
        says += f" Without dropout it is {say(means[0])}."
    if best < len(means) - 1:
        says += f" More is not better: {main.rates[-1]:g} gives {say(means[-1])}."
    return Section("rates", "How much dropout?", says, [_sweep(one) for one in found])


def _sweep(found: Sweep) -> Figure:
    measure, best = found.measure, found.best
    says = (
        f"Validation {measure.title} is best at a rate of {found.rates[best]:g}, with "
        f"{measure.say(found.means[best])}."
    )
    name, title = f"rates-{measure.name}", f"{measure.heading} by rate"
    rows = [
        [
            f"{rate:g}",
            measure.say(mean),
            measure.say_change(error) if math.isfinite(error) else "one seed",
            str(len(values)),
        ]
        for rate, mean, error, values in zip(
            found.rates, found.means, found.errors, found.values, strict=True
        )
    ]
    table = Table(
        f"Validation {measure.title} after the last epoch, by rate",
        ["rate", "mean", "standard error", "seeds"],
        rows,
    )
    return Figure(name, title, says, draw_sweep(name, title, says, found), table)


def time_section(seconds: Mapping[str, Mapping[str, float]], epochs: int) -> Section:
    """Tell how long an epoch takes and where the time goes.

    Parameters
    ----------
    seconds : mapping of str to mapping of str to float
        By condition, the mean seconds of a run by what they went to.
    epochs : int
    """
    each = {condition: sum(parts.values()) / epochs for condition, parts in seconds.items()}
    says = (
        "An epoch takes "
        + joined([f"{_seconds(value)} {condition} dropout" for condition, value in each.items()])
        + "."
    )
    if len(each) == 2 and each["without"] > 0:
        longer = each["with"] / each["without"]
        says += f" With dropout it takes {number(longer)} times as long."
    name, title = "time-parts", "Where the time goes"
    most = {condition: max(parts, key=parts.__getitem__) for condition, parts in seconds.items()}
    note = "Most of it goes to " + joined(
        [f"{part} {condition} dropout" for condition, part in most.items()]
    )
    if len(set(most.values())) == 1:
        note = f"Most of it goes to {next(iter(most.values()))}"
    rows = [
        [condition, part, number(value), _seconds(value / epochs)]
        for condition, parts in seconds.items()
        for part, value in parts.items()
    ]
    table = Table(
        f"Seconds of a run of {epochs} epochs",
        ["dropout", "part", "seconds", "an epoch"],
        rows,
    )
    figure = Figure(name, title, f"{note}.", draw_time(name, title, f"{note}.", seconds), table)
    return Section("time", "How long does it take?", says, [figure])


def _seconds(value: float) -> str:
    return f"{number(1000 * value)} ms" if value < 1 else f"{number(value)} s"
