"""Checkpoints of `fastdrop train`: how far it is."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fastdrop._checks import is_count
from fastdrop._messages import one_line, one_line_about
from fastdrop.commands.runs.results import FIGURES, Figures
from fastdrop.layers import Array
from fastdrop.models import Sequential
from fastdrop.training import files, saving

__all__ = ["CHECKPOINT", "Progress", "check_progress", "check_settings", "position"]

CHECKPOINT = "checkpoint.safetensors"
RUNS = "runs/"  # before the names of a checkpoint's arrays of figures


class Progress(NamedTuple):
    """What a checkpoint holds: all that is needed to go on as if nothing had happened.

    Attributes
    ----------
    settings : dict
        Those that have to be the same.
    run : int
        0 without dropout, 1 with.
    runs : dict of str to Figures
        The figures of each run so far, by its title.
    model : Sequential
        That of the run, after its last whole epoch.
    """

    settings: dict[str, Any]
    run: int
    runs: dict[str, Figures]
    model: Sequential

    def write(self, path: Path) -> None:
        """Write a checkpoint: the figures are arrays, for there is no end to them."""
        model, arrays = saving.pack(self.model.network)
        config = self._asdict() | {
            "runs": {title: list(figures) for title, figures in self.runs.items()},
            "model": model,
        }
        arrays |= {
            f"{RUNS}{title}/{name}": np.array(values)
            for title, figures in self.runs.items()
            for name, values in figures.items()
        }
        files.write(path, "training", config, arrays)

    @classmethod
    def of(cls, path: Path, config: Mapping[str, Any], arrays: Mapping[str, Array]) -> Progress:
        """Return what a checkpoint holds, which was read from `path`."""
        with one_line_about(path):
            if (
                set(config) != set(cls._fields)
                or not is_count(config["run"], least=0)
                or not isinstance(config["settings"], dict)
                or not isinstance(config["runs"], dict)
                or len(config["runs"]) != config["run"] + 1
            ):
                raise ValueError("expected a checkpoint, got another structure")
            rest = dict(arrays)
            runs = {
                # In format 1 figures were in the configuration.
                title: names
                if isinstance(names, dict)
                else {name: rest.pop(f"{RUNS}{title}/{name}").tolist() for name in names}
                for title, names in config["runs"].items()
            }
        model = Sequential.from_network(saving.unpack(path, config["model"], rest))
        return cls(config["settings"], config["run"], runs, model)


def check_settings(path: Path, progress: Progress, settings: Mapping[str, Any]) -> None:
    """Refuse to go on with other settings than the checkpoint's."""
    with one_line_about(path):
        files.check_keys("settings", progress.settings, list(settings))
    for name, value in settings.items():
        was = progress.settings[name]
        if value != was:
            option = "data" if name == "bytes" else name.replace("_", "-")
            what = "the same data" if name == "bytes" else one_line(str(was), 40)
            raise ValueError(
                f"--{option}: expected {what}, as in {path}, got "
                f"{'other data' if name == 'bytes' else value}; settings cannot change on --resume"
            )


def check_progress(
    path: Path, progress: Progress, models: Mapping[str, Sequential], epochs: int
) -> None:
    """Refuse a checkpoint of other runs than these: their models by their titles."""
    with one_line_about(path):
        if list(progress.runs) != list(models)[: progress.run + 1]:
            raise ValueError(f"expected runs {', '.join(models)}, got {', '.join(progress.runs)}")
        expected = list(models.values())[progress.run]
        if _recipe(progress.model) != _recipe(expected) or progress.model.epoch > epochs:
            raise ValueError("expected the model of these settings, got another")
        for number, (title, figures) in enumerate(progress.runs.items()):
            trained = epochs if number < progress.run else progress.model.epoch
            whole = all(
                isinstance(values, list)
                and len(values) == trained
                and all(isinstance(value, float) and math.isfinite(value) for value in values)
                for values in figures.values()
            )
            if not whole or set(figures) != set(FIGURES if trained else ()):
                raise ValueError(f"{title}: expected the figures of {trained} epochs, got others")


def position(progress: Progress, epochs: int) -> str:
    """Say where a checkpoint was written."""
    epoch = progress.model.epoch
    if progress.run == 1 and epoch == epochs:
        return "training has finished"
    return f"going on {('without', 'with')[progress.run]} dropout, after epoch {epoch}"


def _recipe(model: Sequential) -> list[Any]:
    """Return what a model is and how it is trained, without how far it is."""
    config, _ = saving.pack(model.network)
    compiled = config["compiled"] and config["compiled"] | {"iterations": None}
    return [config["model"] | {"input_shape": None}, compiled]
