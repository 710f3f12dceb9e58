"""The network that `fastdrop train`'s settings describe."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from fastdrop.commands.runs.data import Data
from fastdrop.layers import Dense, Dropout, Flatten, Layer
from fastdrop.models import Sequential
from fastdrop.optimizers import OPTIMIZERS, Optimizer

__all__ = ["model_of", "settings_of"]


def model_of(data: Data, p: float, arguments: argparse.Namespace) -> Sequential:
    """Return the untrained network of a run that drops with probability `p`."""
    model = Sequential(_layers(arguments.hidden, p, len(data.classes)), seed=arguments.seed)
    model.compile(_optimizer(arguments), "sparse_categorical_crossentropy", ["accuracy"])
    return model


def _optimizer(arguments: argparse.Namespace) -> Optimizer:
    rate = {} if arguments.lr is None else {"learning_rate": arguments.lr}
    return OPTIMIZERS[arguments.optimizer](**rate)


def _layers(hidden: Sequence[int], p: float, classes: int) -> list[Layer]:
    layers: list[Layer] = [Flatten()]
    for units in hidden:
        layers.append(Dense(units, "relu"))
        if p:
            layers.append(Dropout(p))
    return [*layers, Dense(classes, "softmax")]


def settings_of(data: Data, arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the settings that lead to the same results again."""
    return {
        "data": data.name,
        "hidden": arguments.hidden,
        "dropout": arguments.dropout,
        "epochs": arguments.epochs,
        "batch_size": arguments.batch_size,
        "optimizer": arguments.optimizer,
        "lr": _optimizer(arguments).learning_rate,
        "seed": arguments.seed,
    }
