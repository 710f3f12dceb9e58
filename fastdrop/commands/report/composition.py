"""From evidence to a page: which findings there are, and in which order they are told."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator

from fastdrop.commands.report import findings, insides, outcomes
from fastdrop.commands.report.evidence import Evidence, Samples
from fastdrop.commands.report.model_sections import (
    calibration_section,
    columns_section,
    confusion_section,
    estimates_section,
    examples_section,
    inside_section,
    weights_section,
)
from fastdrop.commands.report.page import Page
from fastdrop.commands.report.parts import Section
from fastdrop.commands.report.training_sections import (
    gap_section,
    headline,
    learning_section,
    seeds_section,
    sweep_section,
    tiles,
    time_section,
)
from fastdrop.commands.runs.results import Results
from fastdrop.layers import Array

__all__ = ["compose"]

EXAMPLES = {True: 12, False: 8}  # images, rows of a table
ACTIVE = 1000  # samples whose activations are counted
SHUFFLED = 1000  # rows whose columns are shuffled
NAMES = {"lr": "learning rate", "hidden": "hidden layers"}  # of settings, in words


def compose(evidence: Evidence) -> Page:
    """Return the page that tells what a run's evidence says."""
    results, rate = evidence.results, evidence.rate
    measures = findings.measures(results.data["metric"], results.data.get("unit") or "")
    main = findings.compare(results.runs, rate, measures[-1])
    curves = findings.learning(results.runs, rate, measures[-1])
    return Page(
        headline(main),
        _subject(results),
        evidence.missing,
        tiles(main, curves, rate),
        [*_of_training(evidence, measures), *_of_models(evidence)],
        shlex.join(results.command),
        _facts(results),
    )


def _of_training(evidence: Evidence, measures: list[findings.Measure]) -> Iterator[Section]:
    runs, rate = evidence.results.runs, evidence.rate
    yield seeds_section([findings.compare(runs, rate, one) for one in measures[::-1]])
    curves = [findings.learning(runs, rate, one) for one in measures]
    yield learning_section(curves)
    yield gap_section(curves)
    if len({run.dropout for run in runs}) > 2:
        yield sweep_section([findings.sweep(runs, one) for one in measures])


def _of_models(evidence: Evidence) -> Iterator[Section]:
    samples, models = evidence.samples, evidence.models
    if samples is not None and models:
        yield from _of_answers(evidence, samples)
    if models:
        weights = {condition: insides.weights(m.layers) for condition, m in models.items()}
        last = len(next(iter(weights.values())))
        titles = [f"layer {i + 1}" if i + 1 < last else "the output layer" for i in range(last)]
        active = {}
        if samples is not None:
            few = samples.x[:ACTIVE]
            active = {c: insides.activations(m.layers, few) for c, m in models.items()}
        hidden = [f"hidden {title}" for title in titles[:-1]]
        yield inside_section(
            insides.fingerprints(hidden, active) if active else [],
            insides.fingerprints(titles, weights),
            {c: insides.likeness(layers[0]) for c, layers in active.items() if layers},
        )
        if samples is not None and samples.images is not None:
            shape = samples.images.shape[1:]
            units = {c: insides.unit_images(m.layers, shape) for c, m in models.items()}
            shown = {condition: images for condition, images in units.items() if images is not None}
            if shown:
                yield weights_section(shown)
    seconds = findings.seconds(evidence.results.runs, evidence.rate)
    yield time_section(seconds, evidence.results.settings["epochs"])


def _of_answers(evidence: Evidence, samples: Samples) -> Iterator[Section]:
    judges = {condition: samples.answers(m) for condition, m in evidence.models.items()}
    answers = {condition: judge(samples.x, samples.y) for condition, judge in judges.items()}
    seed = evidence.results.settings["seed"]
    shown = answers.get("with", next(iter(answers.values())))
    most = EXAMPLES[samples.images is not None]
    wrong, unsure = outcomes.wrongest(shown, most), []
    several = " These are the networks of the first seed." * (len(evidence.results.runs) > 2)
    if samples.classes:
        section = confusion_section(answers, samples.classes)
        yield section._replace(says=section.says + several)
        yield calibration_section({c: outcomes.calibration(a, seed) for c, a in answers.items()})
        unsure = outcomes.least_certain(shown, most)
    else:
        section = estimates_section(answers, evidence.results.data.get("unit") or "")
        yield section._replace(says=section.says + several)
    names = [column.name for column in samples.columns]
    yield examples_section(
        wrong,
        unsure,
        samples.numbers,
        samples.classes,
        samples.images,
        names,
        samples.cells,
    )
    if samples.columns:
        x, y = samples.x[:SHUFFLED], samples.y[:SHUFFLED]

        def rises(judge: Callable[[Array, Array], outcomes.Answers]) -> list[outcomes.Importance]:
            return outcomes.importance(lambda given: judge(given, y), x, samples.columns, seed)

        found = {condition: rises(judge) for condition, judge in judges.items()}
        loss = "log loss" if samples.classes else "absolute error"
        yield columns_section(found, loss)


def _subject(results: Results) -> str:
    data, settings = results.data, results.settings
    parts = f"{data['training']} training and {data['validation']} validation samples"
    hidden = ", ".join(map(str, settings["hidden"]))
    return f"{data['name']}: {parts}; hidden layers of {hidden} units"


def _facts(results: Results) -> list[tuple[str, str]]:
    data, settings = results.data, results.settings
    return [
        ("data", str(data["path"] or data["name"])),
        ("SHA-256 of the data", data["checksum"]),
        *(
            (NAMES.get(name, name.replace("_", " ")), _said(value))
            for name, value in settings.items()
            if value is not None
        ),
        *results.environment.items(),
    ]


def _said(value: object) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(_said, value))
    return f"{value:g}" if isinstance(value, float) else str(value)
