"""What a run has left: its results, its models, and the data that it was validated on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from fastdrop._messages import one_line
from fastdrop.commands.report.findings import CONDITIONS
from fastdrop.commands.report.outcomes import Answers, Column, classified, estimated
from fastdrop.commands.runs.comparison import best_of, rates_of
from fastdrop.commands.runs.data import Data, load
from fastdrop.commands.runs.results import MODELS, Results
from fastdrop.layers import Array
from fastdrop.models import Sequential, load_model

__all__ = ["Evidence", "Samples", "gather"]


class Samples(NamedTuple):
    """The validation part, as networks take it and as people read it.

    Attributes
    ----------
    x, y : ndarray
    classes : sequence of str
        Empty for a regression.
    scale : float
        What 1 in `y` is in the units of a regression's target.
    columns : sequence of Column
        Of a table, and where they stand in x.
    rows : sequence of sequence of str
        Cells as they stand in the table.
    """

    x: Array
    y: Array
    classes: Sequence[str]
    scale: float
    columns: Sequence[Column]
    rows: Sequence[Sequence[str]]

    @property
    def images(self) -> Array | None:
        """The samples, where they are images."""
        return self.x if self.x.ndim in (3, 4) and min(self.x.shape[1:3]) > 1 else None

    def answers(self, model: Sequential) -> Callable[[Array, Array], Answers]:
        """Return what tells a model's answers to samples with known classes or values."""
        judge = classified if self.classes else estimated

        def answer(x: Array, y: Array) -> Answers:
            return judge(model.predict(x, verbose=0), y)

        return answer


class Evidence(NamedTuple):
    """All that a report is made of.

    Attributes
    ----------
    results : Results
    rate : float
        The rate that stands for "with dropout": the best of those that were tried.
    models : dict of str to Sequential
        By "without" and "with": those of the first seed.
    samples : Samples or None
        None where the data are not there, or have changed.
    missing : list of str
        What is missing and why, a sentence each.
    """

    results: Results
    rate: float
    models: dict[str, Sequential]
    samples: Samples | None
    missing: list[str]


def gather(folder: Path) -> Evidence:
    """Read a run's folder, and its data from where they were.

    Raises
    ------
    ValueError, OSError
        When there are no results. What else is missing is told in `Evidence.missing`.
    """
    results = Results.read(folder)
    rate = best_of(rates_of(results.runs)).dropout
    missing: list[str] = []
    models = {}
    for condition, name in zip(CONDITIONS, MODELS, strict=True):
        try:
            models[condition] = load_model(folder / name)
        except (OSError, ValueError) as error:
            missing.append(f"Without {name} its part of the report is missing: {error}.")
    samples = None
    try:
        data = _load(results)
        samples = Samples(data.x_val, data.y_val, data.classes, data.scale, [], [])
    except (OSError, ValueError, ImportError) as error:
        missing.append(f"What needs the data is missing: {one_line(error)}.")
    return Evidence(results, rate, models, samples, missing)


def _load(results: Results) -> Data:
    """Read the data again, and refuse others than those of the run."""
    facts = results.data
    path = facts["path"] and Path(facts["path"])
    data = load(path, facts["label"] or "label", results.settings["seed"])
    if data.checksum != facts["checksum"]:
        raise ValueError(f"{path}: expected the data of the run, got others, by their checksum")
    return data
