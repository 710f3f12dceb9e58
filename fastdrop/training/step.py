"""What a network computes for one batch: forward, loss, backward, update."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from fastdrop._quiet import quiet
from fastdrop._serialization import is_ours
from fastdrop.compiled._chain import Chain
from fastdrop.compiled._sparse import SparseRows
from fastdrop.compiled._train import Layouts, Watched
from fastdrop.layers import Array, Batch, Dense, Layer
from fastdrop.layers.base import shapes_between, sum_over_ranks
from fastdrop.optimizers import Optimizer
from fastdrop.random import Key
from fastdrop.training.block import Block, Buffers, Gradient, Part, whole
from fastdrop.training.blocks import make_blocks
from fastdrop.training.chains import ChainBlock
from fastdrop.training.expected import Expected
from fastdrop.training.network import Network
from fastdrop.training.ranks import ALONE, Ranks
from fastdrop.training.sums import GradientSums

__all__ = ["Step"]

# Attributes of our layers that may be assigned between batches, besides parameters and p
SETTINGS = (
    "trainable",
    "activation",
    "use_bias",
    "l1",
    "l2",
    "max_norm",
    "shared_axes",
    "groups",
    "mode",
)


class Step:
    """The computation of one `fit`, `evaluate` or `predict`, batch by batch.

    Call `follow` before each batch, because layers, parameters and loss may be replaced between
    them. The next call may overwrite outputs.

    Parameters
    ----------
    network : Network
        A network that is built and, except for `predict`, compiled.
    ranks : Ranks
        The processes. Those of a communicator take each step together, each with its own rows.

    Attributes
    ----------
    expected : Expected or None
        What the caller knows of batches for this network: `follow` only forgets it when parts of
        the network have changed.
    """

    def __init__(self, network: Network, ranks: Ranks = ALONE) -> None:
        self.network = network
        self._ranks = None if ranks.alone else ranks
        self._dtype = network.dtype
        self._x = Buffers(self._dtype)
        self._layouts = Layouts({})
        self._watched = Watched([], [])
        self.expected: Expected | None = None
        self._rates: list[object] = []

    def changed(self) -> bool:
        """Tell whether layers, or what they drop, have changed since this was last asked."""
        before, self._rates = self._rates, [layer.p for layer in self._dropping]
        return self._rates != before or not self._watched.is_still(self.network.layers)

    def is_current(self) -> bool:
        """Tell whether the network still consists of the same parts: `follow` has nothing to do.

        Raises
        ------
        ValueError
            When another shape or dtype has been assigned to one of its arrays.
        """
        if not self._watched.is_still(self.network.layers):
            return False
        self._layouts.check()
        return True

    def follow(self) -> None:
        """Prepare the computation, unless it fits what the network consists of now.

        Raises
        ------
        ValueError
            When another shape or dtype has been assigned to one of the network's arrays.
        """
        if self.is_current():
            return
        network, self.expected = self.network, None
        assert network.input_shape is not None
        network.build(network.input_shape)  # because users may have replaced parameters
        # Training and testing use logits where the loss folds the last activation.
        self.from_logits = (
            network.loss is not None and network.loss.folds == network.layers[-1].activation
        )
        self._own_loss = is_ours(type(network.loss))
        self._params = {
            f"{number}.{name}": array
            for number, layer in enumerate(network.layers)
            for name, array in layer.trainable_params.items()
        }
        self._rules = {
            name: rule
            for number, layer in enumerate(network.layers)
            for inner, rule in layer.weight_rules().items()
            if (name := f"{number}.{inner}") in self._params
        }
        self._in_groups = any(getattr(layer, "groups", 1) > 1 for layer in network.layers)
        self._blocks = self._make_blocks(self.from_logits)
        self._first = next(
            (n for n, block in enumerate(self._blocks) if block.trains), len(self._blocks)
        )
        self._predicting: list[Block] | None = None
        self._predicting_chain: Chain | None = None
        weights = network.weights()
        self._layouts = Layouts(
            {f"weights[{name!r}]": array for name, array in weights.items()}, written=True
        )
        inner = [layer for outer in network.layers for layer in outer.flattened()]
        self._penalised = [layer for layer in network.layers if _may_add_penalty(layer)]
        self._dropping: list[Any] = [layer for layer in inner if "p" in vars(layer)]
        self._rates = [layer.p for layer in self._dropping]
        self._chain = self._chain_alone()
        self._watched = self._watch(inner)

    def _watch(self, layers: list[Layer]) -> Watched:
        """Return what to look at before each batch: everything that decides what is computed."""
        network, optimizer = self.network, self.network.optimizer
        parts: list[tuple[Any, tuple[str, ...]]] = [
            (layer, SETTINGS if is_ours(type(layer)) else ("trainable", "activation"))
            for layer in layers
        ]
        parts.append((network, ("generator", "loss", "optimizer")))
        parts.append((network.generator, ("_seed",)))  # what `seed` returns, without its call
        if optimizer is not None:  # it decides whether gradients may be products
            parts.append((optimizer, ("clipnorm", "global_clipnorm", "update")))
        settings = [(part, name) for part, names in parts for name in names if hasattr(part, name)]
        return Watched(network.layers, settings)

    def _chain_alone(self) -> Chain | None:
        """Return the chain that is the whole network, if the rest of a step is compiled as well."""
        chain = _only_chain(self._blocks)
        if chain is None or chain.calls_functions or self._penalised:
            return None
        ours = self._own_loss and is_ours(type(self.network.optimizer))
        return chain if ours and self._leaves_products() else None

    def _chain_without_numpy(self, blocks: list[Block]) -> Chain | None:
        """Return the chain that is the whole network, if NumPy computes nothing of its outputs."""
        chain = _only_chain(blocks)
        softmax_last = self.from_logits and self.network.layers[-1].activation == "softmax"
        if chain is None or (softmax_last and self._chain is not None):  # softmax is compiled
            return chain
        return None if chain.calls_functions else chain

    def _leaves_products(self) -> bool:
        """Tell whether the optimiser may multiply gradients one by one, in one piece of memory."""
        optimizer = self.network.optimizer
        return self._ranks is None and optimizer is not None and optimizer.takes_products

    def train(
        self,
        x: Array,
        y: Array,
        sample_weight: Array | None = None,
        row: int = 0,
        rows: int | None = None,
    ) -> tuple[float, Array, bool]:
        """Take one optimiser step.

        Parameters
        ----------
        x : ndarray, (samples, ...)
            A batch of finite numbers of any type.
        y : ndarray
            The part of this batch of what the loss's ``targets`` returned.
        sample_weight : ndarray, (samples,), optional
            Weights of the samples, in the model's dtype.
        row, rows : int
            With ranks: the index of the first row of x in the whole batch, and the number of rows
            of the whole batch.

        Returns
        -------
        loss : float
            The loss of the whole batch before the update, with penalties of layers.
        outputs : ndarray
            The model's outputs for `x`, before the update.
        from_logits : bool
            Whether the outputs come from before the last activation.
        """
        optimizer = self.network.optimizer
        assert optimizer is not None  # `fit` has checked it
        if self._chain is not None:
            return self._train_chain(self._chain, optimizer, x, y, sample_weight)
        with np.errstate(all="ignore"):  # the loss itself shows when something is not finite
            if self._ranks is not None:
                return self._train_together(self._ranks, optimizer, x, y, sample_weight, row, rows)
            loss, outputs, grads = self._loss_and_gradients(x, y, sample_weight)
            self._update(optimizer, grads)
        return loss, outputs, self.from_logits

    def takes_sparse(self) -> bool:
        """Tell whether `gradients` and `predict` take sparse rows, for the network as it is now."""
        chain = _only_chain(self._blocks)
        return chain is not None and chain.takes_sparse

    def gradients(
        self, x: Array | SparseRows, y: Array, sample_weight: Array | None = None
    ) -> tuple[float, Mapping[str, Gradient]]:
        """Return loss and gradients, for callers that make the update themselves.

        Parameters
        ----------
        x, y, sample_weight
            As for `train`, with all rows of the batch. `x` may be sparse, in the network's dtype,
            if `takes_sparse` says so.

        Returns
        -------
        loss : float
            The loss of the batch, with penalties of layers.
        gradients : mapping of str to ndarray, PartialGradient or ProductGradient
            The gradients by the network's parameter names, without those of the penalties. They
            are for an optimiser's `update`, before the next batch is computed. They are products
            only if the network has an optimiser that takes products.
        """
        if self._chain is not None:
            loss, _, grads = self._loss_and_gradients(x, y, sample_weight)
        else:
            with np.errstate(all="ignore"):
                loss, _, grads = self._loss_and_gradients(x, y, sample_weight)
        return loss, grads

    def _train_chain(
        self, chain: Chain, optimizer: Optimizer, x: Array, y: Array, sample_weight: Array | None
    ) -> tuple[float, Array, bool]:
        """Do what `train` does for an ordinary network: this is all that its step does.

        Forward, loss, backward and update are one call into compiled code each, with no NumPy in
        between. docs/explanation/training_step.md tells why they are not one call together.
        """
        outputs = chain.forward(self._cast(x), True, self.network.step, 0)
        loss, dy = self._loss(outputs, y, sample_weight)
        chain.backward(dy, False)
        self._update(optimizer, chain.grads)
        return loss, outputs, self.from_logits

    def _loss_and_gradients(
        self, x: Array | SparseRows, y: Array, sample_weight: Array | None
    ) -> tuple[float, Array, Mapping[str, Gradient]]:
        outputs = self._forward(self._blocks, x, training=True)
        loss, dy = self._loss(outputs, y, sample_weight)
        loss += self._penalty()
        return loss, outputs, self._gradients(dy)

    def test(
        self,
        x: Array,
        y: Array,
        sample_weight: Array | None = None,
        row: int = 0,
        rows: int | None = None,
    ) -> tuple[float, Array, bool]:
        """Return what `train` returns, at inference and without an update."""
        if self._chain is not None:  # no NumPy, so no settings of NumPy's either, which take a us
            outputs = self._chain.forward(self._cast(x), False, 0, 0)
            loss, _ = self._loss(outputs, y, sample_weight)
            return loss, outputs, self.from_logits
        with quiet(over="ignore", invalid="ignore"):
            outputs = self._forward(self._blocks, x, False, row, rows)
            if self._ranks is None:
                loss, _ = self._loss(outputs, y, sample_weight)
            else:
                loss, _ = self._share_of_loss(outputs, y, sample_weight, rows)
                loss = float(self._ranks.sum(np.array([loss]))[0])
            loss += self._penalty()
        return loss, outputs, self.from_logits

    def _train_together(
        self,
        ranks: Ranks,
        optimizer: Optimizer,
        x: Array,
        y: Array,
        sample_weight: Array | None,
        row: int,
        rows: int | None,
    ) -> tuple[float, Array, bool]:
        """Do what `train` does, on every rank with its rows of the batch."""
        token = sum_over_ranks.set(ranks.sum)
        try:
            outputs = self._forward(self._blocks, x, True, row, rows)
            loss, dy = self._share_of_loss(outputs, y, sample_weight, rows)
            sums = GradientSums(ranks, self._in_groups)
            # Rank 0's callbacks may have changed the learning rate.
            rate = optimizer.current_learning_rate if ranks.rank == 0 else 0
            numbers = np.array([loss, rate])
            sums.start(numbers)
            self._backward(dy, sums.add)
            grads = sums.finish()
        finally:
            sum_over_ranks.reset(token)
        loss = float(numbers[0]) + self._penalty()
        optimizer.follow(float(numbers[1]))
        self._update(optimizer, grads)
        return loss, outputs, self.from_logits

    def _update(self, optimizer: Optimizer, grads: Mapping[str, Gradient]) -> None:
        self.network.step += 1  # now, so that no mask is used again, even after an interrupt
        optimizer.update(self._params, grads, self._rules)

    def predict(self, x: Array | SparseRows, training: bool = False) -> Array:
        """Return the model's outputs for the batch `x`."""
        if self._predicting is None:
            self._predicting = self._make_blocks(logits=False) if self.from_logits else self._blocks
            self._predicting_chain = self._chain_without_numpy(self._predicting)
        if self._predicting_chain is not None and not training:
            return self._predicting_chain.forward(self._cast(x), False, 0, 0)
        with quiet():
            return self._forward(self._predicting, x, training)

    def _make_blocks(self, logits: bool) -> list[Block]:
        network = self.network
        assert network.input_shape is not None
        shapes = shapes_between(network.layers, network.input_shape)
        shared = Buffers(self._dtype) if self._leaves_products() else None
        return make_blocks(
            network.layers,
            shapes,
            network.seed,
            logits,
            self._dtype,
            shared,
            in_chains=self._ranks is None,  # ranks sum gradients as soon as a block has them
        )

    def _loss(self, outputs: Array, y: Array, sample_weight: Array | None) -> tuple[float, Array]:
        loss = self.network.loss
        assert loss is not None  # `fit` and `evaluate` have checked it
        if self._own_loss:
            found = loss.compiled(outputs, y, self.from_logits, sample_weight)
            if found is not None:
                return found
        weighted = {} if sample_weight is None else {"sample_weight": sample_weight}
        value, dy = loss(outputs, y, self.from_logits, **weighted)
        if dy.shape != outputs.shape:
            raise ValueError(
                f"loss: expected a gradient of the outputs' shape {outputs.shape}, got {dy.shape}"
            )
        usable = dy.dtype == self._dtype and dy.flags.writeable
        if not usable or np.may_share_memory(dy, y) or np.may_share_memory(dy, outputs):
            dy = np.array(dy, self._dtype)  # a backward pass overwrites it
        return value, dy

    def _share_of_loss(
        self, outputs: Array, y: Array, sample_weight: Array | None, rows: int | None
    ) -> tuple[float, Array]:
        """Return what these rows add to the mean over all rows of the batch, and the gradient."""
        if not len(outputs):
            return 0.0, outputs
        loss, dy = self._loss(outputs, y, sample_weight)
        share = len(outputs) / (rows or len(outputs))
        dy *= share
        return loss * share, dy

    def _penalty(self) -> float:
        return sum(layer.penalty() for layer in self._penalised if layer.trainable)

    def _forward(
        self,
        blocks: list[Block],
        x: Array | SparseRows,
        training: bool,
        row: int = 0,
        rows: int | None = None,
    ) -> Array:
        x = self._cast(x)
        if (chain := _only_chain(blocks)) is not None:
            return chain.forward(x, training, self.network.step, row)
        assert not isinstance(x, SparseRows)  # `takes_sparse` tells it
        key = Key(self.network.seed, self.network.step) if training else None
        batch = Batch(training, key, row, len(x) if rows is None else rows)
        parts = [Part(0, len(x), None, x)]
        for block in blocks:
            parts = block.forward(parts, batch)
        return whole(parts)

    def _cast(self, x: Array | SparseRows) -> Array | SparseRows:
        """Return x in the network's dtype, which sparse rows have."""
        if isinstance(x, SparseRows) or x.dtype == self._dtype:
            return x
        own = self._x("x", *x.shape)
        with np.errstate(all="ignore"):
            np.copyto(own, x, casting="unsafe")
        return own

    def _gradients(self, dy: Array) -> Mapping[str, Gradient]:
        if (chain := _only_chain(self._blocks)) is not None:
            chain.backward(dy, need_dx=False)
            return chain.grads
        grads: dict[str, Gradient] = {}
        self._backward(dy, grads.update)
        return grads

    def _backward(self, dy: Array, take: Callable[[dict[str, Any]], None]) -> None:
        """Compute gradients, block by block from the last one; `take` gets those of each block."""
        parts = [Part(0, len(dy), None, dy)]
        for number in reversed(range(self._first, len(self._blocks))):
            parts = self._blocks[number].backward(parts, need_dx=number > self._first)
            take(self._trained(self._blocks[number].grads))

    def _trained(self, grads: dict[str, Gradient]) -> dict[str, Gradient]:
        """Return the gradients of parameters that are not frozen."""
        return {name: g for name, g in grads.items() if name in self._params}


def _only_chain(blocks: list[Block]) -> Chain | None:
    """Return the chain that computes the whole network, if one does."""
    block = blocks[0]
    if type(block) is ChainBlock and block.flat and len(blocks) == 1:
        return block.chain
    return None


def _may_add_penalty(layer: Layer) -> bool:
    if type(layer) is Dense:
        return bool(layer.l1 or layer.l2)
    return type(layer).penalty is not Layer.penalty
