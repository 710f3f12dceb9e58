"""The loop of `fit`: epochs, their batches, callbacks and ranks; and one epoch of `evaluate`."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import numpy as np

from fastdrop.callbacks import Callback, History
from fastdrop.random import Key
from fastdrop.training.batches import ArrayBatches, Batches, Minibatch
from fastdrop.training.blas import matmul
from fastdrop.training.expected import Expected
from fastdrop.training.figures import Figures
from fastdrop.training.network import Network
from fastdrop.training.ranks import ALONE, Ranks, agreed, facts_of, process
from fastdrop.training.step import Step

__all__ = ["evaluate", "fit", "prepare"]


def prepare(
    network: Network,
    batches: Batches,
    validation: Batches | None = None,
    class_weight: Mapping[int, float] | None = None,
    y_needed: bool = True,
) -> None:
    """Check the data against the network, then build the network if it is not.

    Parameters
    ----------
    network : Network
    batches, validation : Batches
        What it is to compute on.
    class_weight : mapping of int to float, optional
        As for `Sequential.fit`; not for the validation.
    y_needed : bool
        Whether a loss will be computed.

    Raises
    ------
    ValueError
        When they do not fit.
    """
    if not network.layers:
        raise ValueError("layers: expected at least one, got none")
    input_shape = batches.sample_shape if network.input_shape is None else network.input_shape
    output_shape = network.output_shape(input_shape)
    loss = network.loss if y_needed else None
    expected = Expected(input_shape, output_shape, network.dtype, loss, class_weight)
    batches.check(expected)
    if validation is not None:
        validation.check(replace(expected, class_weight=None))
    if loss is not None and network.checked_metrics is not network.metrics:
        Figures(network).check(batches.first_target(), output_shape, network.dtype)
        network.checked_metrics = network.metrics
    network.build(input_shape)


def fit(
    network: Network,
    training: Batches,
    validation: Batches | None,
    callbacks: Sequence[Callback],
    history: History,
    ranks: Ranks,
    epochs: range,
    shuffle: bool,
) -> None:
    """Train for some epochs.

    Parameters
    ----------
    network : Network
        Compiled; `prepare` has checked it against the data.
    training, validation : Batches
    callbacks : sequence of Callback
        This rank's, the history among them on rank 0.
    history : History
        In the end every rank's is rank 0's.
    ranks : Ranks
    epochs : range
        Their numbers.
    shuffle : bool
        Whether each epoch takes an array's samples in an order of its own.

    Raises
    ------
    ValueError
        When the loss is not finite, or ranks differ.
    """
    # Where others' code runs between the batches, it may have products of its own.
    product = matmul if isinstance(training, ArrayBatches) else np.matmul
    step, validation_step = (Step(network, ranks, product) for _ in range(2))
    network.stop_training = False
    logs: dict[str, float] = {}
    begun: list[Callback] = []
    try:
        for callback in callbacks:
            _tell([callback], "on_train_begin", ranks, {})
            begun.append(callback)
        for epoch in epochs:
            title = f"epoch {epoch + 1}"
            _tell(callbacks, "on_epoch_begin", ranks, epoch, {})
            if ranks.size > 1:
                ranks.check_same(f"the start of {title}", {"model": network.get_config()})
            order = Key(network.seed, network.epoch) if shuffle else None
            logs = _train_epoch(step, training, title, order, callbacks, ranks).over(ranks)
            if validation is not None:
                place = f"validation, {title}"
                measured = evaluate(validation_step, validation, place, ranks)
                logs.update({f"val_{name}": value for name, value in measured.items()})
            network.epoch += 1
            if ranks.size > 1:
                ranks.check_same(f"after {title}", facts_of(network))
            _tell(callbacks, "on_epoch_end", ranks, epoch, logs)
            ranks.share_weights(f"the weights of {title}", network.weights().values())
            (network.stop_training,) = ranks.broadcast_flags(network.stop_training)
            if network.stop_training:
                break
    except BaseException as error:
        ranks.note(error)
        raise
    finally:
        with ExitStack() as endings:  # all of them, also behind one that fails
            for callback in reversed(begun):
                endings.callback(_tell, [callback], "on_train_end", ranks, logs)
    ranks.share_weights("the last weights", network.weights().values())
    _, optimizer = network.compiled()
    history.epoch, history.history, rate = ranks.broadcast(
        (history.epoch, history.history, optimizer.current_learning_rate)
    )
    optimizer.follow(rate)


def _tell(callbacks: Sequence[Callback], hook: str, ranks: Ranks, *arguments: Any) -> None:
    for callback in callbacks:
        process.rank_0_only = ranks.size > 1 and not callback.every_rank
        getattr(callback, hook)(*arguments)
    process.rank_0_only = False


def _train_epoch(
    step: Step,
    batches: Batches,
    title: str,
    order: Key | None,
    callbacks: Sequence[Callback],
    ranks: Ranks,
) -> Figures:
    """Take a step for each batch, unless a callback stops training, and return the figures."""
    network = step.network
    figures = Figures(network)
    for number, batch in enumerate(_batches(batches, title, ranks, order)):
        _tell(callbacks, "on_train_batch_begin", ranks, number, {})
        result = step.train(*batch)
        network.step += 1
        figures.add(batch, *result)
        _tell(callbacks, "on_train_batch_end", ranks, number, figures)
        changed = ranks.size > 1 and step.changed()
        network.stop_training, changed = ranks.broadcast_flags(network.stop_training, changed)
        if changed:  # on rank 0; the others would wait for other sums
            ranks.check_same(f"batch {number + 1} of {title}", {"model": network.get_config()})
        if network.stop_training:
            break
        if not math.isfinite(result[0]):
            raise agreed(
                ValueError(
                    f"loss: expected a finite one, got {result[0]} in {title}, "
                    f"step {number + 1}, whose update has spoilt the weights; "
                    "try a smaller learning rate"
                )
            )
    return figures


def _batches(
    batches: Batches, title: str, ranks: Ranks, order: Key | None = None
) -> Iterator[Minibatch]:
    """Give this rank's part of the batches of an epoch, which have to be the same on every rank."""
    epoch = batches.epoch(title, order, ranks.share)
    if ranks.size == 1 or isinstance(batches, ArrayBatches):  # which `fit` has compared
        return epoch
    return ranks.same_batches(epoch, batches.facts_of_batch, title)


def evaluate(step: Step, batches: Batches, title: str, ranks: Ranks = ALONE) -> dict[str, float]:
    """Return loss and metrics at inference over one epoch of batches, which `title` names."""
    figures = Figures(step.network)
    for batch in _batches(batches, title, ranks):
        figures.add(batch, *step.test(*batch))
    return figures.over(ranks)
