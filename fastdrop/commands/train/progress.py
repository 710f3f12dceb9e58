"""Checkpoints of `fastdrop train`: how far it is."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fastdrop._messages import one_line, one_line_about
from fastdrop.commands.runs.data import Data
from fastdrop.commands.runs.network import Settings, model_of
from fastdrop.commands.runs.results import SECONDS, Figures, Run
from fastdrop.layers import Array
from fastdrop.models import Sequential
from fastdrop.training import files, saving

__all__ = ["CHECKPOINT", "Progress"]

CHECKPOINT = "checkpoint.safetensors"
KIND = ("training",)  # of the file
LISTS = ("figures", "seconds")  # what a checkpoint's arrays are, one of each epoch


class Progress(NamedTuple):
    """What a checkpoint holds: all that is needed to go on as if nothing had happened.

    Attributes
    ----------
    facts : dict
        What has to be the same: the settings, and which data they are.
    runs : list of Run
        All that have begun; the last one is not over, or is the last of all.
    model : Sequential
        That of the last run, after its last whole epoch.
    """

    facts: dict[str, Any]
    runs: list[Run]
    model: Sequential

    @classmethod
    def begin(cls, data: Data, settings: Settings, more: Mapping[str, Any]) -> Progress:
        """Return where all begins."""
        return cls(_facts(data, settings, more), [], Sequential()).next_run(data, settings)

    def next_run(self, data: Data, settings: Settings) -> Progress:
        """Return where the next run begins."""
        p, seed = settings.plan[len(self.runs)]
        runs = [*self.runs, Run(p, seed, {}, {})]
        return self._replace(runs=runs, model=model_of(data, settings, p, seed))

    def describe(self, settings: Settings) -> str:
        """Say how far this is."""
        number, runs = len(self.runs), len(settings.plan)
        if number == runs and self.model.epoch == settings.epochs:
            return "training has finished"
        seed = f", seed {self.runs[-1].seed}" if settings.seeds > 1 else ""
        return (
            f"going on with run {number} of {runs} ({self.runs[-1].title}{seed}), after epoch "
            f"{self.model.epoch}"
        )

    def write(self, path: Path) -> None:
        """Write a checkpoint; the figures are arrays, for there is no end to them."""
        model, arrays = saving.pack(self.model.network)
        runs = []
        for number, run in enumerate(self.runs):
            fields = run._asdict()
            for kind in LISTS:
                lists = fields[kind]
                arrays |= {f"{kind}/{number}/{name}": np.array(lists[name]) for name in lists}
                fields[kind] = list(lists)
            runs.append(fields)
        files.write(path, *KIND, {"facts": self.facts, "runs": runs, "model": model}, arrays)

    @classmethod
    def read(
        cls,
        path: Path,
        content: tuple[Mapping[str, Any], Mapping[str, Array]],
        data: Data,
        settings: Settings,
        more: Mapping[str, Any],
    ) -> Progress:
        """Return what `files.read` found in a checkpoint, if it belongs to these settings.

        Raises
        ------
        ValueError
            If not.
        """
        config, arrays = content[0], dict(content[1])
        with one_line_about(path):
            files.check_keys("checkpoint", config, cls._fields)
            if not isinstance(config["runs"], list) or not config["runs"]:
                raise ValueError("expected a checkpoint with runs, got none")
            runs = [_run(number, fields, arrays) for number, fields in enumerate(config["runs"])]
        model = Sequential.from_network(saving.unpack(path, config["model"], arrays))
        progress = cls(config["facts"], runs, model)
        _check_facts(path, progress.facts, _facts(data, settings, more))
        with one_line_about(path):
            progress._check(data, settings)
        return progress

    def _check(self, data: Data, settings: Settings) -> None:
        """Refuse other runs than these settings lead to."""
        found = [(run.dropout, run.seed) for run in self.runs]
        if found != settings.plan[: len(found)]:
            raise ValueError(f"expected runs {settings.plan}, got {found}")
        expected = _recipe(model_of(data, settings, *found[-1]))
        epoch = self.model.epoch
        if _recipe(self.model) != expected or epoch > settings.epochs:
            raise ValueError("expected the model of these settings, got another")
        names = {"loss", "val_loss", data.metric, f"val_{data.metric}"}
        for run in self.runs:
            epochs = epoch if run is self.runs[-1] else settings.epochs
            for lists, known in ((run.figures, names), (run.seconds, set(SECONDS))):
                whole = all(
                    len(values) == epochs and all(map(math.isfinite, values))
                    for values in lists.values()
                )
                if not whole or set(lists) != (known if epochs else set()):
                    raise ValueError(
                        f"{run.title}: expected the figures of {epochs} epochs, got others"
                    )


def _run(number: int, fields: Any, arrays: dict[str, Array]) -> Run:
    """Take a run's arrays from those of a checkpoint."""
    files.check_keys("run", fields, Run._fields)
    lists: list[Figures] = []
    for kind in LISTS:
        found = {name: arrays.pop(f"{kind}/{number}/{name}") for name in fields[kind]}
        if any(values.ndim != 1 or values.dtype != np.float64 for values in found.values()):
            raise ValueError(f"run {number}: expected lists of numbers, got other arrays")
        lists.append({name: values.tolist() for name, values in found.items()})
    return Run(fields["dropout"], fields["seed"], *lists)


def _facts(data: Data, settings: Settings, more: Mapping[str, Any]) -> dict[str, Any]:
    return {**settings._asdict(), **more, "data": data.name, "checksum": data.checksum}


def _check_facts(path: Path, was: Any, facts: Mapping[str, Any]) -> None:
    """Refuse to go on with other settings than the checkpoint's."""
    with one_line_about(path):
        files.check_keys("facts", was, list(facts))
    for name, value in facts.items():
        if value != was[name]:
            same = name == "checksum"
            option = "data" if same else name.replace("_", "-")
            expected, got = ("the same data", "other data") if same else (was[name], value)
            raise ValueError(
                f"--{option}: expected {one_line(str(expected), 40)}, as in {path}, got {got}; "
                "settings cannot change on --resume"
            )


def _recipe(model: Sequential) -> list[Any]:
    """Return what a model is and how it is trained, without how far it is."""
    config, _ = saving.pack(model.network)
    compiled = config["compiled"] and config["compiled"] | {"iterations": None}
    return [config["model"] | {"input_shape": None}, compiled]
