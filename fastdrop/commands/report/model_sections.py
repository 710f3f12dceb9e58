"""What the trained networks say and what they are like, in words and pictures."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from html import escape

import numpy as np

from fastdrop.commands.report.charts import (
    FEW,
    draw_confusion,
    draw_estimates,
    draw_histograms,
    draw_importance,
    draw_reliability,
)
from fastdrop.commands.report.images import as_url, contact_sheet
from fastdrop.commands.report.insides import Fingerprint
from fastdrop.commands.report.outcomes import (
    Answers,
    Calibration,
    Example,
    Importance,
    confusion,
    mistakes,
)
from fastdrop.commands.report.parts import Block, Figure, Gallery, Section, Sight, Table, joined
from fastdrop.commands.report.scales import number, percent
from fastdrop.layers import Array

__all__ = [
    "calibration_section",
    "columns_section",
    "confusion_section",
    "estimates_section",
    "examples_section",
    "inside_section",
    "weights_section",
]

DRAWN_CLASSES = 20  # more than these would not be readable in a picture
PAIRS = 10  # of classes, most often mistaken for each other
COLUMNS = 15
NAMED = {"without": "Without dropout", "with": "With dropout"}


def confusion_section(answers: Mapping[str, Answers], classes: Sequence[str]) -> Section:
    """Tell which classes are taken for which."""
    tables = {condition: confusion(found) for condition, found in answers.items()}
    sentences = []
    for condition, table in tables.items():
        right, total = int(np.trace(table)), int(table.sum())
        wrong = total - right
        sentences.append(f"{NAMED[condition]}, {wrong} of {total} validation samples are wrong.")
    blocks: list[Block] = []
    for condition, table in tables.items():
        worst = mistakes(table)
        title = NAMED[condition]
        says = "No sample is taken for another class."
        if worst:
            i, j, n = worst[0]
            says = f"Most often, {classes[i]} is taken for {classes[j]}: {n} of {table[i].sum()}."
        caption = f"{title}: true class by row, said class by column"
        if len(classes) <= DRAWN_CLASSES:
            name = f"confusion-{condition}"
            rows = [[label, *map(str, row)] for label, row in zip(classes, table.tolist())]
            numbers = Table(caption, ["true", *classes], rows)
            picture = draw_confusion(name, title, says, table, classes)
            blocks.append(Figure(name, title, says, picture, numbers))
        else:
            rows = [
                [classes[i], classes[j], str(n), percent(n / table[i].sum())]
                for i, j, n in worst[:PAIRS]
            ]
            heads = ["true", "said", "samples", "of the class"]
            blocks.append(Table(f"{title}: the most frequent mistakes", heads, rows, says))
    title = "Which classes are confused?"
    return Section("confusion", title, " ".join(sentences), blocks)


def estimates_section(answers: Mapping[str, Answers], unit: str) -> Section:
    """Tell how far a regression's predictions are off."""
    blocks = []
    units = f" {unit}" if unit else ""
    halves = {}
    for condition, found in answers.items():
        half, nine, worst = np.quantile(found.loss, [0.5, 0.9, 1])
        halves[condition] = half
        says = (
            f"Half of the predictions are off by at most {number(half)}{units}, nine in ten by at "
            f"most {number(nine)}{units}."
        )
        name, title = f"estimates-{condition}", NAMED[condition]
        rows = [
            ["half of them", number(half)],
            ["nine in ten", number(nine)],
            ["all", number(worst)],
            ["root of the mean square", number(math.sqrt(float(np.square(found.loss).mean())))],
            ["share of the variance explained", percent(_explained(found))],
        ]
        table = Table(f"{title}: errors{f' in {unit}' if unit else ''}", ["of", "at most"], rows)
        picture = draw_estimates(name, title, says, found, unit, condition)
        blocks.append(Figure(name, title, says, picture, table))
    says = "The median error is " + joined(
        [f"{number(value)}{units} {condition} dropout" for condition, value in halves.items()]
    )
    return Section("estimates", "How far off are predictions?", f"{says}.", blocks)


def _explained(found: Answers) -> float:
    spread = float(np.square(found.y - found.y.mean()).sum())
    return 1 - float(np.square(found.loss).sum()) / spread if spread else math.nan


def calibration_section(found: Mapping[str, Calibration]) -> Section:
    """Tell whether networks are as sure as they are right."""
    sentences = []
    blocks = []
    for condition, one in found.items():
        said, right = _means(one)
        how = "surer than it is right" if said > right else "less sure than it is right"
        sentences.append(
            f"{NAMED[condition]}, the network says {percent(said)} on average where "
            f"{percent(right)} are right: it is {how}."
        )
        says = f"The expected calibration error is {number(one.before.error, 2)}"
        diagrams = {"as it is": one.before}
        if one.after is not None:
            diagrams["scaled"] = one.after
            says += (
                f", and {number(one.after.error, 2)} with logits divided by the temperature "
                f"{number(one.temperature)}, the dashed line"
            )
        says += "." if one.after else ". There is no best temperature."
        name, title = f"reliability-{condition}", NAMED[condition]
        rows = [
            [
                f"{percent(low, 0)} to {percent(high, 0)}",
                *(
                    text
                    for diagram in diagrams.values()
                    for text in (
                        str(int(diagram.counts[i])),
                        percent(float(diagram.confidence[i])),
                        percent(float(diagram.accuracy[i])),
                    )
                ),
            ]
            for i, (low, high) in enumerate(zip(one.before.edges, one.before.edges[1:]))
            if any(diagram.counts[i] for diagram in diagrams.values())
        ]
        heads = [f"{head}, {n}" for n in diagrams for head in ("samples", "confidence", "accuracy")]
        table = Table(f"{title}: confidence and accuracy by bin", ["bin", *heads], rows)
        picture = draw_reliability(name, title, says, diagrams, condition)
        blocks.append(Figure(name, title, says, picture, table))
    sentences.append(
        f"Larger dots stand for more samples; no line leads to fewer than {FEW}. The temperature "
        "was fitted on one half of the validation part, and the diagrams are of the other "
        f"({one.samples} samples)."
    )
    return Section("calibration", "Is it as sure as it is right?", " ".join(sentences), blocks)


def _means(found: Calibration) -> tuple[float, float]:
    """Return the mean confidence and accuracy of a diagram's samples."""
    diagram = found.before
    some = diagram.counts > 0
    weights = diagram.counts[some] / diagram.counts.sum()
    return float(weights @ diagram.confidence[some]), float(weights @ diagram.accuracy[some])


def examples_section(
    wrong: Sequence[Example],
    unsure: Sequence[Example],
    numbers: Array,
    classes: Sequence[str],
    images: Array | None,
    columns: Sequence[str],
    cells: Callable[[int], Sequence[str]] | None,
) -> Section:
    """Show the samples that a network is most wrong about, and least certain of.

    Parameters
    ----------
    wrong, unsure : sequence of Example
        A regression has no `unsure` ones.
    numbers : ndarray of int
        What the samples are called: rows of a table from 1, or indices in arrays.
    classes : sequence of str
        Empty for a regression.
    images : ndarray or None
        Of all samples, where they are images.
    columns : sequence of str
    cells : callable, or None
        Returns what stands in a row of a table, by its index.
    """
    groups = []
    if wrong:
        sure = (
            "Mistakes, the surest first: look at these for a wrong label or an odd sample."
            if classes
            else "The largest errors: look at these for a wrong value or an odd sample."
        )
        groups.append(("Wrongest", sure, wrong))
    if unsure:
        groups.append(("Least certain", "Here the network itself says that it guesses.", unsure))
    blocks: list[Block] = []
    for title, says, examples in groups:
        if images is not None:
            sights = [
                _sight(each, numbers[each.sample], classes, images[each.sample])
                for each in examples
            ]
            blocks.append(Gallery(title, says, sights))
        else:
            told = [_told(example, classes) for example in examples]
            rows = [cells(example.sample) if cells else [] for example in examples]
            heads = ["row", "true", "said", *(["certainty"] if classes else ["error"])]
            body = [
                [str(numbers[example.sample]), *text, *row]
                for example, text, row in zip(examples, told, rows, strict=True)
            ]
            blocks.append(Table(title, [*heads, *(columns if cells else [])], body, says))
    says = "The network with dropout on the validation part; " + (
        "row 1 is the first below the table's header."
        if cells
        else "samples are counted from 0, as in the arrays that they come from."
    )
    if not wrong:
        says += " None of its answers is wrong."
    return Section("examples", "Where does it fail?", says, blocks)


def _told(example: Example, classes: Sequence[str]) -> list[str]:
    if not classes:
        return [number(example.y, 4), number(example.predicted, 4), number(example.loss)]
    certainty = percent(example.shares[0][1], 0)
    return [classes[int(example.y)], classes[int(example.predicted)], certainty]


def _sight(example: Example, name: int, classes: Sequence[str], image: Array) -> Sight:
    if not classes:
        true, said = number(example.y), number(example.predicted)
        lines = [f"true {true}", f"said {said}"]
    else:
        true = classes[int(example.y)]
        shares = [f"{classes[k]} ({percent(p, 0)})" for k, p in example.shares[:2]]
        said = " or ".join(shares)
        lines = [f"true {true}", f"said {shares[0]}", *(f"or {share}" for share in shares[1:])]
    return Sight(f"sample {name}: true {true}, said {said}", as_url(image), lines)


def inside_section(
    activations: Sequence[Fingerprint],
    weights: Sequence[Fingerprint],
    alike: Mapping[str, float],
) -> Section:
    """Show how dropout changes what hidden units give, and weights.

    Parameters
    ----------
    activations, weights : sequence of Fingerprint
        Of each hidden layer, and of each layer.
    alike : mapping of str to float
        By condition, the mean correlation of the first hidden layer's units.
    """
    sentences = []
    if activations:
        first = activations[0].histograms
        zeros = [f"{percent(h.zeros, 0)} {condition} dropout" for condition, h in first.items()]
        sentences.append(
            f"On the validation part, {joined(zeros)} of the values that {activations[0].title} "
            "gives are 0."
        )
    if len(alike) == 2 and all(map(math.isfinite, alike.values())):
        less = "less" if alike["with"] < alike["without"] else "more"
        said = [f"{number(value)} {condition} dropout" for condition, value in alike.items()]
        sentences.append(
            f"With dropout its units repeat each other {less}: two of them correlate by "
            f"{joined(said)} on average, whatever the sign."
        )
    if weights:
        spread = [f"{number(h.deviation)} {c}" for c, h in weights[0].histograms.items()]
        sentences.append(
            f"The weights of {weights[0].title} have a standard deviation of {joined(spread)} "
            "dropout."
        )
    blocks = [
        *(_histograms("activations", found, "activation, zeros left out") for found in activations),
        *(_histograms("weights", found, "weight") for found in weights),
    ]
    return Section("inside", "What does dropout leave inside?", " ".join(sentences), blocks)


def _histograms(what: str, found: Fingerprint, axis: str) -> Figure:
    name = f"{what}-{found.title.replace(' ', '-')}"
    title = f"{what.capitalize()} of {found.title}"
    spread = [f"{number(h.deviation)} {c} dropout" for c, h in found.histograms.items()]
    says = f"The standard deviation is {joined(spread)}."
    if what == "activations":
        zeros = [f"{percent(h.zeros, 0)} {c} dropout" for c, h in found.histograms.items()]
        says = f"Zeros are {joined(zeros)}. {says}"
    edges = next(iter(found.histograms.values())).edges
    rows = [
        [f"{number(low)} to {number(high)}", *(percent(s, 2) for s in shares)]
        for low, high, *shares in zip(
            edges, edges[1:], *(h.shares for h in found.histograms.values())
        )
    ]
    heads = [f"{condition} dropout" for condition in found.histograms]
    table = Table(f"{title}: share of all values by bin", ["bin", *heads], rows)
    return Figure(name, title, says, draw_histograms(name, title, says, found, axis), table)


def weights_section(images: Mapping[str, Array]) -> Section:
    """Show the first layer's weights as images.

    Parameters
    ----------
    images : mapping of str to ndarray, (units, height, width)
    """
    blocks: list[Block] = []
    for condition, units in images.items():
        rough = _roughness(units)
        title = NAMED[condition]
        says = (
            f"Neighbouring weights differ by {number(rough)} times the mean weight: the less, the "
            "smoother is what the units look for."
        )
        alt = f"{title}: weights of {len(units)} units as images, blue above 0, orange below."
        picture = (
            f'<img class="sheet" id="units-{condition}" src="{contact_sheet(units)}" '
            f'alt="{escape(f"{alt} {says}")}">'
        )
        rows = [
            [str(i + 1), number(float(np.abs(unit).max())), number(float(unit.std()))]
            for i, unit in enumerate(units)
        ]
        table = Table(f"{title}: the units shown", ["unit", "largest weight", "deviation"], rows)
        blocks.append(Figure(f"units-of-{condition}", title, says, picture, table))
    says = (
        "Each square is what one unit of the first hidden layer looks for: it answers to light "
        "where the square is blue, and to darkness where it is orange. These are the units with "
        "the largest weights."
    )
    return Section("units", "What do the first units look for?", says, blocks)


def _roughness(units: Array) -> float:
    """Return the mean difference of neighbouring weights beside their mean size."""
    steps = [np.abs(np.diff(units, axis=axis)).mean() for axis in (1, 2)]
    return float(np.mean(steps) / (np.abs(units).mean() or 1))


def columns_section(found: Mapping[str, Sequence[Importance]], loss: str) -> Section:
    """Tell which columns the networks count on."""
    main = [*found.values()][-1]
    order = sorted(range(len(main)), key=lambda i: -main[i].mean)
    shown = {condition: [values[i] for i in order[:COLUMNS]] for condition, values in found.items()}
    first = main[order[0]]
    says = (
        "When the values of one column are shuffled, the network cannot use it. Without "
        f"“{first.name}” the mean {loss} rises by {number(first.mean)}, more than without any "
        "other."
    )
    idle = [value.name for value in main if value.mean <= 2 * value.error]
    if idle:
        says += (
            f" For {len(idle)} of {len(main)} columns the rise is within twice its standard error "
            "of 0: they may be of no use."
        )
    rows = [
        [
            main[i].name,
            *(
                text
                for values in found.values()
                for text in (number(values[i].mean), number(values[i].error, 2))
            ),
        ]
        for i in order
    ]
    heads = [f"{what} {c} dropout" for c in found for what in ("rise", "standard error")]
    table = Table(f"Rise of the mean {loss} by shuffled column", ["column", *heads], rows)
    name, title = "columns-importance", "The columns that count"
    more = len(main) - COLUMNS
    note = f"The network counts most on “{first.name}”"
    note += f"; {more} more columns are in the table." if more > 0 else "."
    picture = draw_importance(name, title, note, shown, f"rise of the mean {loss}")
    figure = Figure(name, title, note, picture, table)
    return Section("columns", "Which columns count?", says, [figure])
