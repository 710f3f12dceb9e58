"""What `fastdrop train` leaves in its folder, and how it is read again."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fastdrop import __version__
from fastdrop._messages import about, one_line_about
from fastdrop._output import replace_file
from fastdrop.compiled import _core

__all__ = [
    "MODELS",
    "PICTURE",
    "RESULTS",
    "SECONDS",
    "Figures",
    "Results",
    "Run",
    "environment",
    "model_name",
    "title_of",
]

PICTURE, RESULTS = "training.png", "training.json"
MODELS = ("model-without-dropout.safetensors", "model-with-dropout.safetensors")

SECONDS = ("training", "evaluation", "checkpoint")  # where the time of an epoch goes

# What stands in the file, where it matters to whom it is shown or read again
FORMS = {"environment": dict, "command": list, "data": dict, "settings": dict, "runs": list}
DATA = {
    **dict.fromkeys(("name", "checksum", "task", "metric"), str),
    **{"path": str | None, "folder": str | None, "label": str | None, "roles": dict | None},
    **{"training": int, "validation": int, "classes": list},
}

Figures = dict[str, list[float]]  # one an epoch, by name, as in History.history


class Run(NamedTuple):
    """One network, from its first weights to its last.

    Attributes
    ----------
    dropout : float
        The probability of dropping; 0 is without dropout.
    seed : int
    figures : dict of str to list of float
        One of each epoch: "loss", the metric (`Data.metric`), and both with "val_" before the name.
        A regression's metric is in the units of its target.
    seconds : dict of str to list of float
        Where the time of each epoch went: "training", "evaluation" (on both parts of the data)
        and "checkpoint" (writing it).
    """

    dropout: float
    seed: int
    figures: Figures
    seconds: Figures

    @property
    def title(self) -> str:
        """What it is called where seeds do not matter."""
        return title_of(self.dropout)


class Results(NamedTuple):
    """All that is in `RESULTS`.

    Attributes
    ----------
    version : str
        Of fastdrop.
    environment : dict of str to str
        Versions and instruction set that the figures come from.
    command : list of str
        The command line as it was typed.
    data : dict
        "name", "path" (as it was typed; None for the embedded digits), "folder" (where), "label"
        (the target of a table, or None), "roles" (of a table's columns, or None), "checksum",
        "training" and "validation" (numbers of samples), "task", "metric", "classes" (names).
    settings : dict
        `network.Settings`, by name.
    runs : list of Run
        First those of the first seed: without dropout, and with each rate.
    """

    version: str
    environment: dict[str, str]
    command: list[str]
    data: dict[str, Any]
    settings: dict[str, Any]
    runs: list[Run]

    def facts(self) -> dict[str, Any]:
        """Return what JSON can hold."""
        return self._asdict() | {"runs": [run._asdict() for run in self.runs]}

    def write(self, folder: Path) -> Path:
        """Write the file, and return its path."""
        path = folder / RESULTS
        replace_file(path, json.dumps(self.facts(), indent=1).encode())
        return path

    @classmethod
    def read(cls, folder: Path) -> Results:
        """Read what `write` wrote.

        Raises
        ------
        FileNotFoundError
            When there is no such folder, or nothing was trained in it.
        ValueError
            When the file holds something else.
        """
        path = folder / RESULTS
        if not path.is_file():
            raise FileNotFoundError(
                about(folder, f"expected a folder that fastdrop train wrote {RESULTS} to")
            )
        with one_line_about(path):
            found = json.loads(path.read_bytes())
            if not isinstance(found, Mapping) or set(found) != set(cls._fields):
                raise ValueError("expected results of fastdrop train, got another structure")
            _check(found, FORMS)
            _check(found["data"], DATA)
            runs = [Run(**run) for run in found["runs"]]
            return cls(**{**found, "runs": runs})


def _check(found: Mapping[str, Any], forms: Mapping[str, Any]) -> None:
    for name, form in forms.items():
        if not isinstance(found.get(name), form):
            raise ValueError(f"expected results of fastdrop train, got others in {name}")


def title_of(dropout: float) -> str:
    """Name runs by their rate."""
    return f"dropout p = {dropout:g}" if dropout else "without dropout"


def model_name(dropout: float, rates: list[float]) -> str:
    """Return the name of the file of the first seed's model.

    Where there are several rates, each has its model, and that of the best is also in `MODELS`[1].
    """
    if not dropout or len(rates) == 1:
        return MODELS[bool(dropout)]
    return f"model-with-dropout-{dropout}.safetensors"


def environment() -> dict[str, str]:
    """Return what figures depend on, beside the command and the data."""
    return {
        "fastdrop": __version__,
        "NumPy": np.__version__,
        "Python": platform.python_version(),
        "system": platform.platform(),
        "instruction set": _core.active_isa(),
    }
