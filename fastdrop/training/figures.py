"""What is reported of a network's batches: the loss and the metrics."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import DTypeLike

from fastdrop._serialization import is_ours
from fastdrop.layers import Array, Shape
from fastdrop.metrics import Metric
from fastdrop.training.batches import Minibatch
from fastdrop.training.network import Network
from fastdrop.training.ranks import Ranks

__all__ = ["Figures"]


class Figures(Mapping[str, float]):
    """The loss and the metrics over some batches, worked out when read: some take their time."""

    def __init__(self, network: Network) -> None:
        # Copies: a callback may evaluate the model within an epoch.
        self._metrics = copy.deepcopy(network.metrics)
        self._weighted_metrics = copy.deepcopy(network.weighted_metrics)
        self._folds = network.loss.folds if network.loss is not None else None
        self._loss = 0.0
        self._samples = 0
        self._results = {"loss": lambda: self._loss / self._samples}
        for metric in self.metrics:
            metric.reset()
            self._results[metric.name] = metric.result

    def check(self, target: Array, output_shape: Shape, dtype: DTypeLike) -> None:
        """Refuse metrics that have no figure for such outputs and labels, of which one is given.

        Only ours: nobody knows what others make of a single row.
        """
        for metric in self.metrics:
            if len(target) and is_ours(type(metric)):
                metric.update(np.full((1, *output_shape), 0.5, dtype), target)
            metric.reset()

    def add(self, batch: Minibatch, loss: float, outputs: Array, from_logits: bool) -> None:
        self._loss += loss * batch.rows
        self._samples += batch.rows
        if not len(batch.x):
            return
        activation = self._folds if from_logits else None
        for metric in self._metrics:
            metric.update(outputs, batch.y, activation)
        for metric in self._weighted_metrics:
            metric.update(outputs, batch.y, activation, batch.sample_weight)

    def over(self, ranks: Ranks) -> dict[str, float]:
        """Return the figures of all ranks' rows; until then metrics are of this rank's."""
        for metrics in ranks.gather(self.metrics)[1:]:
            self.merge(metrics)
        return ranks.broadcast(dict(self) if ranks.rank == 0 else {})

    def check_merging(self) -> None:
        """Refuse metrics that cannot take in another rank's."""
        self.merge(self.metrics)

    @property
    def metrics(self) -> list[Metric]:
        """The metrics, which have gathered this rank's rows; the loss is of whole batches."""
        return [*self._metrics, *self._weighted_metrics]

    def merge(self, metrics: Sequence[Metric]) -> None:
        """Take in another rank's metrics."""
        for own, other in zip(self.metrics, metrics, strict=True):
            own.merge(other)

    def __getitem__(self, name: str) -> float:
        return self._results[name]()

    def __iter__(self) -> Iterator[str]:
        return iter(self._results)

    def __len__(self) -> int:
        return len(self._results)
