"""Callbacks, which `Sequential.fit` calls while it trains.

A figure in ``logs`` has the same name as in `History`: "loss", "accuracy", "val_loss", ...
"""

from fastdrop.callbacks.base import Callback, LambdaCallback, Logs, callbacks_of
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
    format_logs,
    reports_of,
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
    "callbacks_of",
    "format_logs",
    "reports_of",
]
