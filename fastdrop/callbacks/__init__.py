"""Callbacks, which `Sequential.fit` calls while it trains.

A figure in ``logs`` has the same name as in `History`: "loss", "accuracy", "val_loss", ...
"""

from fastdrop.callbacks.base import Callback, LambdaCallback, Logs
from fastdrop.callbacks.monitors import (
    EarlyStopping,
    LearningRateScheduler,
    ModelCheckpoint,
    ReduceLROnPlateau,
    TerminateOnNaN,
)
from fastdrop.callbacks.reports import (
    CSVLogger,
    EpochLines,
    History,
    ProgressBar,
)

__all__ = [
    "CSVLogger",
    "Callback",
    "EarlyStopping",
    "EpochLines",
    "History",
    "LambdaCallback",
    "LearningRateScheduler",
    "Logs",
    "ModelCheckpoint",
    "ProgressBar",
    "ReduceLROnPlateau",
    "TerminateOnNaN",
]
