"""The dropout family: layers that are random in training, built on functions of arrays and keys."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, ClassVar, TypeAlias

import numpy as np

from fastdrop._checks import check_choice, check_count, checked_axes, mask_shape
from fastdrop._quiet import underflowing
from fastdrop.functional import dropout, masked_scale
from fastdrop.layers.base import Array, Backward, Layer, Shape, batch_shape
from fastdrop.layers.batch import Batch
from fastdrop.layers.schedules import Rate, checked_rate, p_or_rate, rate_at
from fastdrop.random import Key
from fastdrop.variants import alpha_dropout, alpha_dropout_backward, drop_block2d, drop_path

__all__ = [
    "AlphaDropout",
    "DropBlock2d",
    "DropPath",
    "Dropout",
    "Dropout1d",
    "Dropout2d",
    "Dropout3d",
    "FeatureAlphaDropout",
    "RandomLayer",
]

Rule: TypeAlias = Callable[[Array], Array]


def same(a: Array) -> Array:
    """Return a itself."""
    return a


def group_spans(groups: int, start: int, stop: int, rows: int) -> list[tuple[int, int, int]]:
    """Return (group, first row, last row + 1) of the groups that rows [start, stop) belong to.

    Row r of `rows` is in group r * groups // rows. Rows from `rows` on are in the last group.
    """
    spans = []
    while start < stop:
        group = min(groups - 1, start * groups // rows)
        end = stop if group == groups - 1 else min(stop, -(-(group + 1) * rows // groups))
        spans.append((group, start, end))
        start = end
    return spans


def _refuse_noise_shape(noise_shape: object) -> None:
    if noise_shape is not None:
        raise TypeError(
            "noise_shape: expected shared_axes instead, with the axes of size 1: "
            "shared_axes=(1,) for noise_shape=(batch, 1, features)"
        )


def _as_axes(axes: int | tuple[int, ...] | list[int]) -> int | tuple[int, ...]:
    """Return axes as a file of a model can hold them; files return a tuple as a list."""
    if isinstance(axes, list | tuple):
        return tuple(int(axis) if isinstance(axis, np.integer) else axis for axis in axes)
    return int(axes) if isinstance(axes, np.integer) else axes


class RandomLayer(Layer):
    """Base class of layers that are random in training and the identity at inference.

    Parameters
    ----------
    seed : int, optional
        Seed of the layer's own generator, which is made at its first use. Without a seed, the
        generator is spawned from the default generator. Inside a model, the model's seed decides
        instead.
    input_shape, name
        As for `Layer`.

    Notes
    -----
    No mask is stored: the backward pass draws the same mask again from the same key. The p of a
    layer may be a number or a schedule, which is a callable of the training step (see
    `fastdrop.layers.schedules`). Layers with a p also take it as `rate`, which is Keras's name for
    it.
    """

    is_random = True
    sample_axes: tuple[str, ...] | None = None  # names of the axes, where their number is fixed
    synonyms: ClassVar = {"rate": "p"}  # for layers with a p

    def __init__(
        self,
        *,
        seed: int | None = None,
        input_shape: Iterable[int] | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(input_shape=input_shape, name=name)
        self.seed = seed

    def output_shape(self, input_shape: Shape) -> Shape:
        if self.sample_axes is not None and len(input_shape) != len(self.sample_axes):
            raise ValueError(
                f"layer {self.name!r} expects x of shape (samples, {', '.join(self.sample_axes)}), "
                f"got {batch_shape(input_shape)}"
            )
        return input_shape

    def forward(self, x: Array, batch: Batch = Batch()) -> tuple[Array, Backward]:
        self.output_shape(x.shape[1:])
        if batch.training:
            rule, backward = self._rules(x.shape, self.key_of(batch), batch.row, batch.size(x))
        else:
            rule = backward = self._inference
        return rule(x), backward

    def _rules(self, shape: Shape, key: Key, row: int, rows: int) -> tuple[Rule, Rule]:
        """Return how to make y from x, and dx from dy, for rows from `row` on of `rows` rows."""
        raise NotImplementedError

    def _inference(self, a: Array) -> Array:
        """Make y from x, and dx from dy, at inference."""
        return a


class Dropout(RandomLayer):
    """Set elements to zero at random in training [1]_.

    In training y = x / (1 - p) where an element is kept, and 0 where it is dropped.

    Parameters
    ----------
    p : float or callable
        Probability of dropping an element, in [0, 1], or a schedule of it; by default 0.5.
    seed : int, optional
        As for `Layer`.
    shared_axes : int or tuple of int
        Axes along which all elements share one decision; 0 is the batch axis. If the layer stands
        between `Dense` layers and one mask serves the whole batch, a model multiplies only the
        units that the mask keeps.
    groups : int
        How many masks a batch has, where axis 0 is shared. Row r of B rows is in group
        r * groups // B, and the mask of group g is row g of a mask of shape (groups, ...).
    mode : {"inverted", "vanilla"}
        "inverted" multiplies kept elements by 1 / (1 - p) in training and changes nothing at
        inference. "vanilla", the original rule, does not scale in training and multiplies by 1 - p
        at inference; p has to be a number then.
    rate : float or callable, optional
        Keras's name for `p`.
    noise_shape : object
        Not supported: use `shared_axes`.
    input_shape, name
        As for `Layer`.

    Raises
    ------
    ValueError
        When `p` is outside [0, 1] or NaN, when `mode` is unknown, or, at the first use, when there
        are several groups without axis 0 in `shared_axes`.
    TypeError
        When `noise_shape` is given, or both `p` and `rate`.

    References
    ----------
    .. [1] Srivastava et al. 2014, Dropout: a simple way to prevent neural networks from
       overfitting, JMLR 15:1929.
    """

    synonyms: ClassVar = {"rate": "p", "noise_shape": None}

    def __init__(
        self,
        p: Rate | None = None,
        *,
        seed: int | None = None,
        shared_axes: int | tuple[int, ...] = (),
        groups: int = 1,
        mode: str = "inverted",
        rate: Rate | None = None,
        noise_shape: object = None,
        input_shape: Iterable[int] | None = None,
        name: str | None = None,
    ) -> None:
        _refuse_noise_shape(noise_shape)
        check_choice("mode", mode, "inverted", "vanilla")
        super().__init__(seed=seed, input_shape=input_shape, name=name)
        self.p = checked_rate(p_or_rate(p, rate, 0.5))
        if mode == "vanilla" and callable(self.p):
            raise ValueError("mode: expected 'inverted' with a schedule, got 'vanilla'")
        self.shared_axes = _as_axes(shared_axes)
        self.mode = mode
        check_count("groups", groups)
        self.groups = int(groups)

    def output_shape(self, input_shape: Shape) -> Shape:
        super().output_shape(input_shape)
        axes = checked_axes(self.shared_axes, 1 + len(input_shape))
        if self.groups > 1 and 0 not in axes:
            raise ValueError(
                f"groups: expected 0 in shared_axes of a layer with groups, got {self.shared_axes}"
            )
        return input_shape

    def _rules(self, shape: Shape, key: Key, row: int, rows: int) -> tuple[Rule, Rule]:
        axes = checked_axes(self.shared_axes, len(shape))
        per_row = math.prod(mask_shape(shape, axes)[1:])
        p = rate_at(self.p, key.call)
        drop = (
            partial(dropout, p=p)
            if self.mode == "inverted"
            else partial(masked_scale, p=p, scale=1.0)
        )
        drop = partial(drop, key=key, shared_axes=axes)
        if self.groups == 1:
            drop = partial(drop, offset=0 if 0 in axes else row * per_row)
            return drop, drop  # dropout is linear in x, so it is its own gradient

        def drop_groups(x: Array) -> Array:
            y = np.empty_like(x)
            for group, start, stop in group_spans(self.groups, row, row + len(x), rows):
                span = slice(start - row, stop - row)
                drop(x[span], offset=group * per_row, out=y[span])
            return y

        return drop_groups, drop_groups

    @underflowing
    def _inference(self, a: Array) -> Array:
        return a * (1 - rate_at(self.p, 0)) if self.mode == "vanilla" else a


class ChannelDropout(Dropout):
    """Drop whole channels: one decision for each channel of each sample [1]_.

    Parameters
    ----------
    p : float or callable
        Probability of dropping a channel, in [0, 1], or a schedule of it; by default 0.5.
    data_format : {"channels_first", "channels_last"}
        Whether the channels of x come right after the samples, or at the end.
    rate : float or callable, optional
        Keras's name for `p`.
    seed, input_shape, name
        As for `Layer`.

    Raises
    ------
    TypeError
        When both `p` and `rate` are given.
    ValueError
        When `p` is outside [0, 1], when `data_format` is unknown, or when x has another number of
        axes: even a single sample needs the batch axis.

    References
    ----------
    .. [1] Tompson et al. 2015, Efficient object localization using convolutional networks, CVPR.
    """

    space: tuple[str, ...]
    decides_on = "channels"

    def __init__(
        self,
        p: Rate | None = None,
        data_format: str = "channels_first",
        *,
        rate: Rate | None = None,
        seed: int | None = None,
        input_shape: Iterable[int] | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(p, rate=rate, seed=seed, input_shape=input_shape, name=name)
        self.data_format = data_format

    @property
    def data_format(self) -> str:
        """Where x has its channels: "channels_first" or "channels_last"."""
        return self._data_format

    @data_format.setter
    def data_format(self, data_format: str) -> None:
        check_choice("data_format", data_format, "channels_first", "channels_last")
        first = data_format == "channels_first"
        self._data_format = data_format
        self.shared_axes = tuple(range(1 + first, 1 + first + len(self.space)))
        self.sample_axes = ("channels", *self.space) if first else (*self.space, "channels")


class Dropout1d(ChannelDropout):
    """Drop whole channels of sequences, (samples, channels, length) [1]_.

    Parameters
    ----------
    p : float or callable
        Probability of dropping a channel, in [0, 1], or a schedule of it; by default 0.5.
    data_format : {"channels_first", "channels_last"}
        Whether the channels of x come right after the samples, or at the end.
    rate : float or callable, optional
        Keras's name for `p`.
    seed, input_shape, name
        As for `Layer`.

    References
    ----------
    .. [1] Tompson et al. 2015, Efficient object localization using convolutional networks, CVPR.
    """

    space = ("length",)


class Dropout2d(ChannelDropout):
    """Drop whole channels of images, (samples, channels, height, width); see `Dropout1d`.

    Parameters
    ----------
    p, data_format, rate, seed, input_shape, name
        As for `Dropout1d`.
    """

    space = ("height", "width")


class Dropout3d(ChannelDropout):
    """Drop whole channels of volumes, (samples, channels, depth, height, width).

    Parameters
    ----------
    p, data_format, rate, seed, input_shape, name
        As for `Dropout1d`.
    """

    space = ("depth", "height", "width")


class _AlphaDropout(RandomLayer):
    """Base class of alpha dropout, whose formula `fastdrop.alpha_dropout` states."""

    def __init__(
        self,
        p: Rate | None = None,
        *,
        rate: Rate | None = None,
        seed: int | None = None,
        input_shape: Iterable[int] | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(seed=seed, input_shape=input_shape, name=name)
        self.p = checked_rate(p_or_rate(p, rate, 0.5))

    def _mask_axes(self, ndim: int) -> tuple[int, ...]:
        """Return the axes along which elements of x share a decision."""
        raise NotImplementedError

    def _rules(self, shape: Shape, key: Key, row: int, rows: int) -> tuple[Rule, Rule]:
        axes = self._mask_axes(len(shape))
        mask: dict[str, Any] = {
            "p": rate_at(self.p, key.call),
            "key": key,
            "shared_axes": axes,
            "offset": 0 if 0 in axes else row * math.prod(mask_shape(shape, axes)[1:]),
        }
        return partial(alpha_dropout, **mask), partial(alpha_dropout_backward, **mask)


class AlphaDropout(_AlphaDropout):
    """Dropout that keeps mean 0 and variance 1 after a SELU [1]_.

    In training y = a x + b where an element is kept, and a alpha' + b where it is dropped; see
    `fastdrop.alpha_dropout` for a, b and alpha'.

    Parameters
    ----------
    p : float or callable
        Probability of dropping an element, in [0, 1], or a schedule of it; by default 0.5. With
        p = 1 every element becomes 0.
    shared_axes : int or tuple of int
        As for `Dropout`.
    rate : float or callable, optional
        Keras's name for `p`.
    noise_shape : object
        As for `Dropout`.
    seed, input_shape, name
        As for `Layer`.

    Raises
    ------
    ValueError
        When `p` is outside [0, 1].
    TypeError
        When `noise_shape` is given, or both `p` and `rate`.

    References
    ----------
    .. [1] Klambauer et al. 2017, Self-normalizing neural networks, NIPS.
    """

    synonyms = Dropout.synonyms

    def __init__(
        self,
        p: Rate | None = None,
        *,
        shared_axes: int | tuple[int, ...] = (),
        rate: Rate | None = None,
        noise_shape: object = None,
        seed: int | None = None,
        input_shape: Iterable[int] | None = None,
        name: str | None = None,
    ) -> None:
        _refuse_noise_shape(noise_shape)
        super().__init__(p, rate=rate, seed=seed, input_shape=input_shape, name=name)
        self.shared_axes = _as_axes(shared_axes)

    def output_shape(self, input_shape: Shape) -> Shape:
        self._mask_axes(1 + len(input_shape))
        return input_shape

    def _mask_axes(self, ndim: int) -> tuple[int, ...]:
        return checked_axes(self.shared_axes, ndim)


class FeatureAlphaDropout(_AlphaDropout):
    """Alpha dropout of whole channels: one decision for all of x[i, j]; see `AlphaDropout`.

    x has the shape (samples, channels, ...).

    Parameters
    ----------
    p, rate, seed, input_shape, name
        As for `AlphaDropout`.

    Raises
    ------
    TypeError
        When both `p` and `rate` are given.
    ValueError
        When `p` is outside [0, 1], or x has no channels.
    """

    decides_on = "channels"

    def output_shape(self, input_shape: Shape) -> Shape:
        if not input_shape:
            raise ValueError(
                f"layer {self.name!r} expects x of shape (samples, channels, ...), got (samples,)"
            )
        return input_shape

    def _mask_axes(self, ndim: int) -> tuple[int, ...]:
        return tuple(range(2, ndim))


class DropPath(RandomLayer):
    """Drop the residual branch of whole samples (stochastic depth) [1]_.

    See `fastdrop.drop_path` for the formula.

    Parameters
    ----------
    p : float or callable
        Probability of dropping the branch, in [0, 1], or a schedule of it; by default 0.5.
    mode : {"row", "batch"}
        Whether each sample gets a decision of its own, or all samples of the batch get the same.
    rate : float or callable, optional
        Keras's name for `p`.
    seed, input_shape, name
        As for `Layer`.

    Raises
    ------
    TypeError
        When both `p` and `rate` are given.
    ValueError
        When `p` is outside [0, 1], or `mode` is unknown.

    References
    ----------
    .. [1] Huang et al. 2016, Deep networks with stochastic depth, ECCV.
    """

    decides_on = "samples"

    def __init__(
        self,
        p: Rate | None = None,
        mode: str = "row",
        *,
        rate: Rate | None = None,
        seed: int | None = None,
        input_shape: Iterable[int] | None = None,
        name: str | None = None,
    ) -> None:
        check_choice("mode", mode, "row", "batch")
        super().__init__(seed=seed, input_shape=input_shape, name=name)
        self.p = checked_rate(p_or_rate(p, rate, 0.5))
        self.mode = mode

    def _rules(self, shape: Shape, key: Key, row: int, rows: int) -> tuple[Rule, Rule]:
        rule = partial(
            drop_path,
            p=rate_at(self.p, key.call),
            mode=self.mode,
            key=key,
            offset=row if self.mode == "row" else 0,
        )
        return rule, rule


class DropBlock2d(RandomLayer):
    """Drop square blocks of feature maps (DropBlock) [1]_; see `fastdrop.drop_block2d`.

    x has the shape (samples, channels, height, width). Each sample is normalised on its own.

    Parameters
    ----------
    p : float or callable
        Share of the elements to drop, in [0, 1], or a schedule of it; by default 0.1.
    block_size : int
        Side of the blocks, at most the height and the width of the maps.
    rate : float or callable, optional
        Keras's name for `p`.
    seed, input_shape, name
        As for `Layer`.

    Raises
    ------
    TypeError
        When both `p` and `rate` are given.
    ValueError
        When `p` is outside [0, 1], or `block_size` is below 1 or larger than the maps.

    References
    ----------
    .. [1] Ghiasi, Lin, Le 2018, DropBlock: a regularization method for convolutional networks,
       NeurIPS.
    """

    sample_axes = ("channels", "height", "width")

    def __init__(
        self,
        p: Rate | None = None,
        block_size: int = 7,
        *,
        rate: Rate | None = None,
        seed: int | None = None,
        input_shape: Iterable[int] | None = None,
        name: str | None = None,
    ) -> None:
        check_count("block_size", block_size)
        super().__init__(seed=seed, input_shape=input_shape, name=name)
        self.p = checked_rate(p_or_rate(p, rate, 0.1))
        self.block_size = int(block_size)

    def output_shape(self, input_shape: Shape) -> Shape:
        _, height, width = super().output_shape(input_shape)
        if self.block_size > min(height, width):
            raise ValueError(
                f"block_size: expected at most {min(height, width)} on maps of "
                f"{height} x {width}, got {self.block_size}"
            )
        return input_shape

    def _rules(self, shape: Shape, key: Key, row: int, rows: int) -> tuple[Rule, Rule]:
        _, channels, height, width = shape
        block = self.block_size
        rule = partial(
            drop_block2d,
            p=rate_at(self.p, key.call),
            block_size=block,
            key=key,
            offset=row * channels * (height - block + 1) * (width - block + 1),
        )
        return rule, rule
