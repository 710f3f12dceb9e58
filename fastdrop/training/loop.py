"""The loop of `fit`: epochs, their batches, callbacks and ranks; and one epoch of `evaluate`."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import numpy as np
from tqdm import tqdm

from fastdrop.callbacks import History
from fastdrop.callbacks.base import Callback, Listener, all_of, heard
from fastdrop.layers import Array
from fastdrop.layers.base import shapes_between
from fastdrop.random import Key
from fastdrop.training.batches import ArrayBatches, Batches, Minibatch
from fastdrop.training.expected import Expected
from fastdrop.training.figures import Figures
from fastdrop.training.network import Network
from fastdrop.training.ranks import ALONE, Ranks, agreed, facts_of, process
from fastdrop.training.sampling import Sampler
from fastdrop.training.step import Step
from fastdrop.uncertainty import Prediction

__all__ = ["evaluate", "fit", "predict", "predict_mc", "prepare"]


def prepare(
    network: Network,
    batches: Batches,
    validation: Batches | None = None,
    class_weight: Mapping[int, float] | None = None,
    y_needed: bool = True,
) -> None:
    """Check the data against the network, then build the network if that is still to do.

    Parameters
    ----------
    network : Network
        The network.
    batches, validation : Batches
        The batches that it will compute on.
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
    shapes = shapes_between(network.layers, input_shape)
    loss, metrics = None, []
    if y_needed:
        network.check_meaning(shapes)
        loss, metrics = network.loss, [*network.metrics, *network.weighted_metrics]
    expected = Expected(input_shape, shapes[-1], network.dtype, loss, class_weight, metrics)
    batches.check(expected)
    if validation is not None:
        validation.check(replace(expected, class_weight=None))
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
        A compiled network, which `prepare` has checked against the data.
    training, validation : Batches
        The batches to train on, and those to validate on or None.
    callbacks : sequence of Callback
        This rank's callbacks, with the history among them on rank 0.
    history : History
        The history. At the end every rank has that of rank 0.
    ranks : Ranks
        The processes that train together.
    epochs : range
        The numbers of the epochs.
    shuffle : bool
        Whether each epoch takes an array's samples in an order of its own.

    Raises
    ------
    ValueError
        When the loss is not finite, or ranks differ.
    """
    step, validation_step = (Step(network, ranks) for _ in range(2))
    network.stop_training = False
    logs: dict[str, float] = {}
    begun: list[Callback] = []
    try:
        for callback in callbacks:
            _tell(ranks, all_of([callback], "on_train_begin"), {})
            begun.append(callback)
        for epoch in epochs:
            title = f"epoch {epoch + 1}"
            _tell(ranks, all_of(callbacks, "on_epoch_begin"), epoch, {})
            if ranks.size > 1:
                ranks.check_same(f"the start of {title}", {"model": network.get_config()})
            logs = _train_epoch(step, training, title, callbacks, ranks, shuffle).over(ranks)
            if validation is not None:
                place = f"validation, {title}"
                measured = evaluate(validation_step, validation, place, callbacks, ranks)
                logs.update({f"val_{name}": value for name, value in measured.items()})
            if ranks.size > 1:
                ranks.check_same(f"after {title}", facts_of(network))
            _tell(ranks, all_of(callbacks, "on_epoch_end"), epoch, logs)
            ranks.share_weights(f"the weights of {title}", network.weights().values())
            (network.stop_training,) = ranks.broadcast_flags(network.stop_training)
            if network.stop_training:
                break
    except BaseException as error:
        ranks.note(error)
        raise
    finally:
        with ExitStack() as endings:  # calls all of them, even after one that fails
            for callback in reversed(begun):
                endings.callback(_tell, ranks, all_of([callback], "on_train_end"), logs)
    ranks.share_weights("the last weights", network.weights().values())
    _, optimizer = network.compiled()
    history.epoch, history.history, rate = ranks.broadcast(
        (history.epoch, history.history, optimizer.current_learning_rate)
    )
    optimizer.follow(rate)


def _tell(ranks: Ranks, listeners: Sequence[Listener], *arguments: Any) -> None:
    together = ranks.size > 1
    for callback, hook in listeners:
        if together:
            process.rank_0_only = not callback.every_rank
        hook(*arguments)
    if together:
        process.rank_0_only = False


def _train_epoch(
    step: Step,
    training: Batches,
    title: str,
    callbacks: Sequence[Callback],
    ranks: Ranks,
    shuffle: bool,
) -> Figures:
    """Take a step for each batch, unless a callback stops training, and return the figures.

    The network counts the epoch at its last batch, when nothing of it is left.
    """
    network = step.network
    figures = Figures(network)
    begin, end = (heard(callbacks, f"on_train_batch_{when}") for when in ("begin", "end"))
    order = Key(network.seed, network.epoch) if shuffle else None
    batches = _batches(training, title, ranks, order, network.epoch)
    for number, batch in enumerate(batches):
        if begin:
            _tell(ranks, begin, number, {})
        step.follow()
        result = step.train(*batch)
        figures.add(batch, *result)
        if end:
            _tell(ranks, end, number, figures.logs())
        if ranks.size > 1:
            changed = bool(begin or end) and step.changed()
            network.stop_training, changed = ranks.broadcast_flags(network.stop_training, changed)
            if changed:  # this happens on rank 0, and the others would wait for other sums
                place = f"batch {number + 1} of {title}"
                ranks.check_same(place, {"model": network.get_config()})
        if network.stop_training:
            if number + 1 != training.steps_in(network.epoch):
                return figures
            break
        if not math.isfinite(result[0]):
            raise agreed(
                ValueError(
                    f"loss: expected a finite one, got {result[0]} in {title}, "
                    f"step {number + 1}, whose update has spoilt the weights; "
                    "try a smaller learning rate"
                )
            )
    network.epoch += 1
    return figures


def _batches(
    batches: Batches, title: str, ranks: Ranks, order: Key | None = None, number: int = 0
) -> Iterator[Minibatch]:
    """Yield this rank's part of the batches of an epoch, which must be the same on every rank."""
    epoch = batches.epoch(title, order, ranks.share, number)
    if ranks.size == 1 or isinstance(batches, ArrayBatches):  # `fit` has compared arrays already
        return epoch
    return ranks.same_batches(epoch, batches.facts_of_batch, title)


def evaluate(
    step: Step,
    batches: Batches,
    title: str,
    callbacks: Sequence[Callback] = (),
    ranks: Ranks = ALONE,
) -> dict[str, float]:
    """Return loss and metrics at inference over one epoch of batches; `title` names the epoch."""
    figures = Figures(step.network)
    begin, end = (heard(callbacks, f"on_test_batch_{when}") for when in ("begin", "end"))
    _tell(ranks, all_of(callbacks, "on_test_begin"), {})
    for number, batch in enumerate(_batches(batches, title, ranks)):
        _tell(ranks, begin, number, {})
        step.follow()
        figures.add(batch, *step.test(*batch))
        if end:
            _tell(ranks, end, number, figures.logs())
    measured = figures.over(ranks)
    _tell(ranks, all_of(callbacks, "on_test_end"), dict(measured))
    return measured


def predict(step: Step, batches: Iterable[Minibatch], callbacks: Sequence[Callback] = ()) -> Array:
    """Return the outputs at inference."""
    outputs: list[Array] = []
    begin, end = (heard(callbacks, f"on_predict_batch_{when}") for when in ("begin", "end"))
    _tell(ALONE, all_of(callbacks, "on_predict_begin"), {})
    for number, batch in enumerate(batches):
        _tell(ALONE, begin, number, {})
        step.follow()
        outputs.append(step.predict(batch.x).copy())
        _tell(ALONE, end, number, {"outputs": outputs[-1]})
    _tell(ALONE, all_of(callbacks, "on_predict_end"), {})
    return np.concatenate(outputs)


def predict_mc(
    sampler: Sampler,
    batches: Batches,
    ranks: Ranks,
    quiet: bool,
    options: tuple[int, Array | None, bool],
) -> Prediction:
    """Return, on all ranks, the prediction for all rows. Each rank draws samples of its own rows.

    `options` are those of `Sampler.predict`: samples, quantiles, return_samples.
    """
    rows = batches.samples if isinstance(batches, ArrayBatches) else None
    total = None if rows is None else -(-rows // ranks.size) * options[0]
    first, own = 0, []
    with tqdm(total=total, desc="predict_mc", disable=quiet or sys.stderr is None) as bar:
        for batch in _batches(batches, "this call", ranks):
            own.append(
                sampler.predict(batch.x, first + batch.row, rows, *options, tell=bar.update)
                if len(batch.x)
                else None
            )
            first += batch.rows
    parts = [part for batch in zip(*ranks.gather(own)) for part in batch if part is not None]
    return Prediction.concatenate(ranks.broadcast(parts))
