"""The settings of `fastdrop train`, and the networks that they describe."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import NamedTuple

from fastdrop.commands.runs.data import Data
from fastdrop.layers import Dense, Dropout, Flatten, Layer
from fastdrop.models import Sequential
from fastdrop.optimizers import OPTIMIZERS, Optimizer

__all__ = ["Settings", "model_of", "save_model"]


class Settings(NamedTuple):
    """What is trained and how: with the data, all that the results depend on.

    Attributes
    ----------
    hidden : list of int
        Units of the hidden layers.
    dropout : list of float
        Rates that are compared with no dropout.
    epochs, batch_size : int
    optimizer : str
    lr : float
        Its learning rate.
    seed, seeds : int
        The first seed, and how many there are from it on.
    """

    hidden: list[int]
    dropout: list[float]
    epochs: int
    batch_size: int
    optimizer: str
    lr: float
    seed: int
    seeds: int

    @classmethod
    def of(cls, arguments: argparse.Namespace) -> Settings:
        """Take them from the command line's arguments."""
        given = {name: getattr(arguments, name) for name in cls._fields}
        if arguments.seed + arguments.seeds > 2**64:
            raise ValueError(
                f"--seeds: expected seeds below 2**64, got {arguments.seeds} from "
                f"{arguments.seed} on"
            )
        if arguments.lr is None:
            given["lr"] = OPTIMIZERS[arguments.optimizer]().learning_rate
        return cls(**given)

    @property
    def plan(self) -> list[tuple[float, int]]:
        """Rate and seed of each run: all rates of a seed, so that the first seed compares them."""
        seeds = range(self.seed, self.seed + self.seeds)
        return [(p, seed) for seed in seeds for p in (0.0, *self.dropout)]


def model_of(data: Data, settings: Settings, p: float, seed: int) -> Sequential:
    """Return the untrained network of a run that drops with probability `p`."""
    layers: list[Layer] = [Flatten()]
    for units in settings.hidden:
        layers.append(Dense(units, "relu"))
        if p:
            layers.append(Dropout(p))
    if data.task == "classification":
        head, loss = Dense(len(data.classes), "softmax"), "sparse_categorical_crossentropy"
    else:
        head, loss = Dense(1), "mean_squared_error"
    model = Sequential([*layers, head], seed=seed)
    optimizer: Optimizer = OPTIMIZERS[settings.optimizer](learning_rate=settings.lr)
    model.compile(optimizer, loss, [data.metric])
    if data.table is not None:
        data.table.begin(model)
    return model


def save_model(
    path: Path, model: Sequential, data: Data, settings: Settings, p: float, seed: int
) -> None:
    """Write a trained network to a file; of a table with all that is done to its columns."""
    if data.table is None:
        model.save(path)
        return
    from fastdrop.tables import TableModel

    TableModel.of(
        data.table,
        model,
        hidden=settings.hidden,
        dropout=p,
        epochs=settings.epochs,
        batch_size=settings.batch_size,
        optimizer=model.optimizer,
        seed=seed,
    ).save(path)
