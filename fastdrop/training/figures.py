"""What is reported about a network's batches: the loss and the metrics."""

from __future__ import annotations

import copy
import functools
import math
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from fastdrop._attributes import is_ours
from fastdrop.callbacks.base import Logs
from fastdrop.layers import Array
from fastdrop.metrics import Metric
from fastdrop.training.batches import Minibatch
from fastdrop.training.network import Network
from fastdrop.training.ranks import Ranks

__all__ = ["Figures", "figures_of_one"]


class BatchLogs(Logs):
    """The figures of the batches so far. Each is computed when it is read, as some take time.

    To keep the figures, copy them into a dict. `Figures` computes the pending figures of logs that
    somebody holds before it adds another batch.
    """

    pending: Mapping[str, Callable[[], float]] = {}  # figures that are not computed yet

    def work_out(self, *names: str) -> None:
        """Compute the figures with these names, or all figures without names."""
        left = {}
        for name, result in self.pending.items():
            if not names or name in names:
                super().__setitem__(name, float(result()))
            else:
                left[name] = result
        self.pending = left

    def __getitem__(self, name: str) -> float:
        self.work_out(name)
        return super().__getitem__(name)

    def get(self, name: str, default: Any = None) -> Any:
        self.work_out(name)
        return super().get(name, default)

    def __reduce__(self) -> tuple[Any, ...]:
        return dict, (dict(self),)  # for copies and pickles

    def __iter__(self) -> Iterator[str]:
        # Without an own method, `dict(logs)`, `{**logs}` and similar expressions would not call
        # `__getitem__`, but copy entries that are not computed yet.
        return super().__iter__()


def _of_all(name: str) -> Callable[..., Any]:
    method = getattr(dict, name)

    @functools.wraps(method)
    def worked_out(logs: BatchLogs, *args: Any, **keywords: Any) -> Any:
        logs.work_out()
        return method(logs, *args, **keywords)

    return worked_out


for _name in (
    *("__delitem__", "__eq__", "__ior__", "__ne__", "__or__", "__repr__", "__ror__", "__setitem__"),
    *("clear", "copy", "items", "pop", "popitem", "setdefault", "update", "values"),
):
    setattr(BatchLogs, _name, _of_all(_name))


def _copy(metric: Metric) -> Metric:
    """Return a copy that gathers on its own. `reset` of our metrics leaves nothing in common."""
    return copy.copy(metric) if is_ours(type(metric)) else copy.deepcopy(metric)


class Figures:
    """The loss and the metrics over some batches."""

    def __init__(self, network: Network) -> None:
        self._network = network
        # Copies, because a callback may evaluate the model within an epoch.
        self._metrics = list(map(_copy, network.metrics))
        self._weighted_metrics = list(map(_copy, network.weighted_metrics))
        self._loss = 0.0
        self._samples = 0
        for metric in self.metrics:
            metric.reset()
        self._results: dict[str, Callable[[], float]] = {}  # what callbacks may read
        self._given: weakref.ref[BatchLogs] | None = None

    def add(self, batch: Minibatch, loss: float, outputs: Array, from_logits: bool) -> None:
        """Add a batch, and what a step returned for it."""
        if self._given is not None:
            self._settle(self._given)
        self._loss += loss * batch.rows
        self._samples += batch.rows
        if not len(batch.x):
            return
        loss_function = self._network.loss
        assert loss_function is not None
        activation = loss_function.folds if from_logits or loss_function.from_logits else None
        for metric in self._metrics:
            metric.update(outputs, batch.y, activation)
        for metric in self._weighted_metrics:
            metric.update(outputs, batch.y, activation, batch.sample_weight)

    def logs(self) -> BatchLogs:
        """Return the figures so far, for callbacks."""
        if not self._results:
            self._results = {"loss": self._mean_loss, **{m.name: m.result for m in self.metrics}}
        logs = BatchLogs(dict.fromkeys(self._results, math.nan))
        logs.pending = self._results
        self._given = weakref.ref(logs)
        return logs

    @staticmethod
    def _settle(given: weakref.ref[BatchLogs]) -> None:
        """Make logs that were given, if somebody has kept them, keep their current values."""
        if (logs := given()) is not None:
            logs.work_out()

    def values(self) -> dict[str, float]:
        """Return the figures so far."""
        figures = {"loss": self._mean_loss()}
        for metric in self.metrics:
            figures[metric.name] = float(metric.result())
        return figures

    def _mean_loss(self) -> float:
        return float(self._loss / self._samples)

    def over(self, ranks: Ranks) -> dict[str, float]:
        """Return the figures of all ranks' rows. Until then, metrics are of this rank's rows."""
        if self._given is not None:
            self._settle(self._given)
        for metrics in ranks.gather(self.metrics)[1:]:
            self.merge(metrics)
        return ranks.broadcast(self.values() if ranks.rank == 0 else {})

    def check_merging(self) -> None:
        """Refuse metrics that cannot merge those of another rank."""
        self.merge(self.metrics)

    @property
    def metrics(self) -> list[Metric]:
        """The metrics, which have gathered this rank's rows. The loss is that of whole batches."""
        return [*self._metrics, *self._weighted_metrics]

    def merge(self, metrics: Sequence[Metric]) -> None:
        """Merge another rank's metrics into these."""
        for own, other in zip(self.metrics, metrics, strict=True):
            own.merge(other)


def figures_of_one(
    network: Network, batch: Minibatch, loss: float, outputs: Array, from_logits: bool
) -> dict[str, float]:
    """Return the figures of a single batch, given what a step returned for it."""
    if not network.metrics and not network.weighted_metrics:
        return {"loss": float(loss * batch.rows / batch.rows)}  # the last bit as `Figures` has it
    figures = Figures(network)
    figures.add(batch, loss, outputs, from_logits)
    return figures.values()
