"""The blocks that make up a training step. Each computes one or more layers at once.

- `chains.ChainBlock`: `Dense` layers that follow one another, with their bias, activation and
  dropout, in compiled code from end to end;
- `shared_masks.ShrinkBlock` and `.DenseBlock`: the same for one `Dense` at a time, where groups of
  rows have masks of their own, or ranks sum the gradients of each layer as soon as it has them;
- `LayerBlock`: any other layer, even one of a user's own, by its own forward and backward.

Activations between blocks are lists of parts: rows of the batch, with the columns that were kept.
Usually there is one part, with all of them. Arrays that blocks return lie in the blocks' own
buffers, and the next batch overwrites them. The batch of a block has the model's key, (seed, step).
Each layer derives its own key from it: (seed folded with the layer's number, step). The results are
those of the single layers. Where everything is multiplied they have the same bits, except that the
sums for a bias's gradient have another order.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from numpy.typing import DTypeLike

from fastdrop._quiet import bare
from fastdrop.compiled._chain import Link
from fastdrop.layers import Activation, Backward, Batch, Dense, Dropout, Layer, ReLU, Shape, Softmax
from fastdrop.random import Key
from fastdrop.training.block import Block, Buffers, Part, whole
from fastdrop.training.chains import ChainBlock, dense_link, dropout_link
from fastdrop.training.shared_masks import DenseBlock, DropoutRule, ShrinkBlock

__all__ = ["LayerBlock", "make_blocks"]


class LayerBlock(Block):
    """Any layer, computed by its own forward and backward."""

    def __init__(self, number: int, layer: Layer, seed: int, logits: bool) -> None:
        self._number, self._layer, self._seed = number, layer, seed
        self._forward = bare(layer.forward_logits if logits else layer.forward)
        self._backward: Backward
        self.trains = bool(layer.trainable_params)
        self.grads = {}

    def forward(self, parts: list[Part], batch: Batch) -> list[Part]:
        x = whole(parts)
        key = Key(self._seed, batch.step) if batch.training else None
        y, self._backward = self._forward(x, batch._replace(key=key))
        return [Part(0, len(x), None, y)]

    def backward(self, parts: list[Part], need_dx: bool) -> list[Part]:
        dy = whole(parts)
        dx = self._backward(dy) if need_dx else self._backward(dy, need_dx=False)
        self.grads = {f"{self._number}.{name}": g for name, g in self._layer.grads.items()}
        return [Part(0, len(dy), None, dx)]


def make_blocks(
    layers: Sequence[Layer],
    shapes: Sequence[Shape],
    seed: int,
    logits: bool,
    dtype: DTypeLike,
    shared: Buffers | None = None,
    in_chains: bool = True,
    first: int = 0,
) -> list[Block]:
    """Return the blocks that compute what a model's layers do.

    Parameters
    ----------
    layers : sequence of Layer
        Layers that are built.
    shapes : sequence of tuple of int
        Shapes of samples between the layers, and of the input and the output.
    seed : int
        The model's seed.
    logits : bool
        Whether the last layer stops before its activation.
    dtype : dtype
        The model's dtype.
    shared : Buffers, optional
        Memory for gradients that are left as products for the update. Without it none are.
    in_chains : bool
        Whether one block may have several `Dense` layers, whose gradients are then ready together.
    first : int
        Number of the first of these layers in the model.

    Returns
    -------
    list of Block
        The blocks, in the order of the layers.
    """
    seeds = [Key(seed).fold_in(first + number).seed for number in range(len(layers))]
    blocks: list[Block] = []
    links: list[Link] = []  # of the current chain
    begin = 0  # the number of its first layer
    shrunk = False  # whether the next layer's input comes without what was dropped

    def takes_dense(number: int) -> bool:
        """Tell whether a block of a `Dense` and what follows it can start here."""
        if number >= len(layers) or len(shapes[number]) != 1:
            return False
        return type(layers[number]) is Dense  # a class that others derive may do something else

    def activation_of(number: int) -> tuple[str, int]:
        """Return the activation after the `Dense` there, and the number of the layer after it."""
        last = number + 1
        activation = "linear" if logits and last == len(layers) else layers[number].activation
        if activation == "linear" and last < len(layers):
            follower = layers[last]
            if type(follower) in (Activation, ReLU, Softmax):
                stops = logits and last == len(layers) - 1
                return "linear" if stops else follower.activation, last + 1
        return activation, last

    def one_by_one() -> bool:
        """Tell whether blocks pass on parts of activations, instead of a chain's links."""
        rules = (rule_of(number) for number in range(len(layers)))
        return not in_chains or any(r and r.shared and r.layer.groups > 1 for r in rules)

    def rule_of(number: int) -> DropoutRule | None:
        """Return the rule of a dropout that a block can include."""
        layer = layers[number] if number < len(layers) else None
        if type(layer) is not Dropout or layer.mode != "inverted":
            return None
        rule = DropoutRule(layer, seeds[number])
        fits = takes_dense(number + 1) if rule.shared else layer.shared_axes == ()
        return rule if fits else None

    def memory() -> Buffers | None:
        # In its backward pass, a layer before may change its outputs, or what it was given.
        return None if any(isinstance(block, LayerBlock) for block in blocks) else shared

    def end_chain(number: int) -> None:
        nonlocal begin
        if links:
            trains = any(layer.trainable_params for layer in layers[begin:number])
            shape = shapes[begin]
            blocks.append(ChainBlock(list(links), trains, shape, dtype, memory()))
            links.clear()
        begin = number

    apart = one_by_one()
    number = 0
    while number < len(layers):
        layer, end = layers[number], number + 1
        rule = rule_of(number)
        if takes_dense(number):
            assert isinstance(layer, Dense)
            activation, end = activation_of(number)
            rule = rule_of(end)
            if rule is not None and rule.shared and activation == "softmax":
                rule = None  # this activation depends on all units
            end += rule is not None
            if shrunk or (apart and rule is not None and rule.shared):
                end_chain(number)
                blocks.append(DenseBlock(first + number, layer, activation, rule, memory()))
                shrunk = rule is not None and rule.shared
                begin = end
            else:
                dropout, its_seed = (rule.layer, rule.seed) if rule is not None else (None, 0)
                links.append(dense_link(first + number, layer, activation, dropout, its_seed))
        elif rule is None:
            end_chain(number)
            stop = logits and number == len(layers) - 1
            blocks.append(LayerBlock(first + number, layer, seeds[number], stop))
            begin = end
        elif rule.shared and apart:
            end_chain(number)
            blocks.append(ShrinkBlock(rule, dtype))
            shrunk, begin = True, end
        else:
            links.append(dropout_link(math.prod(shapes[number]), rule.layer, rule.seed))
        if not in_chains or len(shapes[end]) != 1:
            end_chain(end)
        number = end
    end_chain(number)
    return blocks
