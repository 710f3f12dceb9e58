"""The arguments of `fit` about data, as batches."""

from __future__ import annotations

from numbers import Real
from typing import Any

from fastdrop._checks import checked_count
from fastdrop.training.batches import ArrayBatches, Batches, batches_of, validation_batches

__all__ = ["INFERENCE_BATCH", "batch_size_for", "batches_for_fit"]

# Nothing is kept for a backward pass at inference, so batches may be larger than in training.
INFERENCE_BATCH = 1024


def batches_for_fit(
    data: tuple[Any, Any, Any],
    batch_size: int | None,
    steps: int | None,
    validation_data: Any,
    validation_split: float,
    validation_batch_size: int | None,
    validation_steps: int | None,
) -> tuple[Batches, Batches | None]:
    """Return the batches to train on and, if there are any, those to validate on.

    Parameters
    ----------
    data : tuple
        x, y and sample_weight.
    batch_size, steps, validation_data, validation_split, validation_batch_size, validation_steps
        As for `Sequential.fit`; `steps` are those of an epoch.

    Returns
    -------
    training, validation : Batches
        The batches; validation may be None.

    Raises
    ------
    ValueError
        When the arguments do not fit together.
    """
    names = ("x", "y", "sample_weight", "steps_per_epoch")
    size = batch_size_for("batch_size", batch_size, steps, 32)
    training = batches_of(*data, names, size, steps)
    if validation_batch_size is None and validation_steps:
        validation_batch_size = batch_size
    last_size = batch_size_for(
        "validation_batch_size", validation_batch_size, validation_steps, INFERENCE_BATCH
    )
    if validation_data is not None:
        return training, validation_batches(validation_data, last_size, validation_steps)
    if not isinstance(validation_split, Real | None) or validation_split:
        if not isinstance(training, ArrayBatches):
            raise ValueError("validation_split: expected it with arrays only")
        return training.split(validation_split, last_size, validation_steps)
    alone = {"validation_steps": validation_steps, "validation_batch_size": validation_batch_size}
    for argument, value in alone.items():
        if value is not None:
            raise ValueError(f"{argument}: expected it with data to validate on, got none")
    return training, None


def batch_size_for(
    argument: str, batch_size: int | None, steps: int | None, default: int
) -> int | None:
    """Return the size of batches of arrays, or None where `steps` batches take all samples."""
    if batch_size is not None:
        return checked_count(argument, batch_size)
    return default if steps is None else None
