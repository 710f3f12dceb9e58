"""What a run has left: its results, its models, and the data that it was validated on."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from fastdrop._messages import one_line, one_line_about
from fastdrop.commands.report.findings import CONDITIONS
from fastdrop.commands.report.outcomes import Answers, Column, classified, estimated
from fastdrop.commands.runs.comparison import best_of, rates_of
from fastdrop.commands.runs.data import Data, load
from fastdrop.commands.runs.results import MODELS, RESULTS, Results
from fastdrop.layers import Array
from fastdrop.models import Sequential, load_model

__all__ = ["Evidence", "Samples", "gather"]


class Samples(NamedTuple):
    """The validation part, as networks take it and as people read it.

    Attributes
    ----------
    x, y : ndarray, or EncodedRows of a table
    numbers : ndarray of int
        What the samples are called, see `Data`.
    classes : sequence of str
        Empty for a regression.
    scale, shift : float
        A regression's value is `scale` times a number in `y`, plus `shift`.
    columns : sequence of Column
        Of a table, and where they stand in x.
    cells : callable, or None
        Returns what stands in a row of the table, by its index; None where there are no rows.
    """

    x: Array
    y: Array
    numbers: Array
    classes: Sequence[str]
    scale: float = 1.0
    shift: float = 0.0
    columns: Sequence[Column] = ()
    cells: Callable[[int], Sequence[str]] | None = None

    @property
    def images(self) -> Array | None:
        """The samples, where they are images."""
        shape = self.x.shape[1:]
        return self.x if len(shape) in (2, 3) and min(shape[:2]) > 1 else None

    def answers(self, model: Sequential) -> Callable[[Array, Array], Answers]:
        """Return what tells a model's answers to samples with known classes or values."""

        def answer(x: Array, y: Array) -> Answers:
            outputs = model.predict(x, verbose=0)
            if self.classes:
                return classified(outputs, y)
            return estimated(*(self.scale * values + self.shift for values in (outputs, y)))

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
    with one_line_about(folder / RESULTS):
        rate = _checked_rate(results)
    missing: list[str] = []
    models = {}
    for condition, name in zip(CONDITIONS, MODELS, strict=True):
        try:
            models[condition] = _load_model(folder / name, results)
        except (OSError, ValueError, ImportError) as error:
            missing.append(f"What {name} is needed for is missing: {one_line(error)}.")
    samples = None
    try:
        samples = _samples(_load_data(results))
    except (OSError, ValueError, ImportError) as error:
        missing.append(f"What the data are needed for is missing: {one_line(error)}.")
    return Evidence(results, rate, models, samples, missing)


def _checked_rate(results: Results) -> float:
    """Return the best rate; refuse results that somebody has changed or cut off."""
    metric, seed = results.data["metric"], results.settings["seed"]
    for run in results.runs:
        for name in ("loss", metric, "val_loss", f"val_{metric}"):
            values = run.figures[name]
            if not values or not all(map(math.isfinite, values)):
                raise ValueError(f"expected finite figures of each epoch as {name}, got others")
    if {seed} - {run.seed for run in results.runs if run.dropout == 0}:
        raise ValueError(f"expected a run of seed {seed} without dropout, got none")
    return best_of(rates_of(results.runs)).dropout


def _load_model(path: Path, results: Results) -> Sequential:
    if results.data["roles"] is None:
        return load_model(path)
    from fastdrop.tables import TableModel

    return TableModel.load(path).network


def _load_data(results: Results) -> Data:
    """Read the data again, and refuse others than those of the run."""
    facts = results.data
    if facts["path"] == "-":
        raise ValueError("the table came from standard input, which cannot be read again")
    path = facts["path"] and _found(Path(facts["path"]), Path(facts.get("folder") or ""))
    roles = {name: value for name, value in (facts["roles"] or {}).items() if name != "target"}
    data = load(path, facts["label"] or "label", results.settings["seed"], roles)
    if data.checksum != facts["checksum"]:
        raise ValueError(f"{data.name}: expected the data of the run, got others by their checksum")
    return data


def _found(path: Path, folder: Path) -> Path:
    """Return where data are now that train, which ran in a folder, was given a path of."""
    places = list(dict.fromkeys([folder / path, path]))  # `path` itself, if it is absolute
    found = next((place for place in places if place.exists()), None)
    if found is None:
        raise FileNotFoundError(
            f"the data are not there any longer: {' or '.join(map(str, places))}"
        )
    return found


def _samples(data: Data) -> Samples:
    table = data.table
    if table is None:
        return Samples(data.x_val, data.y_val, data.numbers_val, data.classes, data.scale)
    target, encoding = table.target, table.encoding
    return Samples(
        data.x_val,
        data.y_val,
        data.numbers_val,
        data.classes,
        target.deviation,
        target.mean,
        [Column(each.name, places) for each, places in zip(encoding.columns, encoding.places())],
        lambda row: encoding.cells(table.x_val[row : row + 1][0]),
    )
