"""The dropouts of torch.nn.functional, their relatives, and two fused steps."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from fastdrop._checks import check_count
from fastdrop._messages import shown
from fastdrop.torch.autograd import drop, drop_elements, forbids_in_place, is_eager
from fastdrop.torch.fused import Add, BiasAct
from fastdrop.torch.keys import draw_seed, group
from fastdrop.torch.rules import Rule
from fastdrop.torch.tensors import in_memory_order, is_plain, memory_order, undone

__all__ = [
    "alpha_dropout",
    "bias_act_dropout",
    "drop_block2d",
    "drop_path",
    "dropout",
    "dropout1d",
    "dropout2d",
    "dropout3d",
    "dropout_add",
    "feature_alpha_dropout",
    "gaussian_dropout",
]


def _is_ours(input: Tensor, p: float, training: bool, inplace: bool) -> bool:
    """Tell whether something is to be dropped, in memory that kernels may use."""
    return training and 0 < p <= 1 and is_plain(input) and not (inplace and forbids_in_place(input))


def _own(
    name: str,
    input: Tensor,
    p: float,
    training: bool,
    inplace: bool,
    generator: torch.Generator | None,
) -> Tensor:
    """Return what PyTorch's own function returns, or raise what it raises."""
    y: Tensor = getattr(functional, name)(input, p, training, inplace)
    if generator is not None and training and p > 0 and not is_plain(input) and input.numel():
        raise ValueError(
            "generator: expected None for a tensor that PyTorch drops itself, "
            f"got one for a {input.dtype} tensor on {input.device}"
        )
    return y


def _drop_channels(
    name: str,
    input: Tensor,
    p: float,
    training: bool,
    inplace: bool,
    generator: torch.Generator | None,
    batched: int,
    unbatched: int | None,
) -> Tensor:
    """Drop input[i, j] as a whole, or input[j] if the function takes an input without a batch axis.

    `batched` and `unbatched` are the numbers of axes that it takes without a warning.
    """
    if not _is_ours(input, p, training, inplace):
        return _own(name, input, p, training, inplace, generator)
    axes = input.dim()
    first = 2 if axes == batched or unbatched is None else 1
    if axes < first:
        return _own(name, input, p, training, inplace, generator)  # raises
    if axes not in (batched, unbatched):
        getattr(functional, name)(input, p, False)  # may warn or raise
    shared = tuple(range(first, input.dim()))
    return drop(input, Rule("scale", float(p), shared, memory_order(input)), generator, inplace)


def dropout(
    input: Tensor,
    p: float = 0.5,
    training: bool = True,
    inplace: bool = False,
    *,
    generator: torch.Generator | None = None,
    save_mask: bool = False,
) -> Tensor:
    """Do what `torch.nn.functional.dropout` does, with fastdrop's kernels.

    The mask is that of ``fastdrop.dropout`` with ``key=Key(seed)``, for the elements in the order
    in which they lie in memory. The seed is drawn as
    ``torch.empty((), dtype=torch.int64).random_(generator=generator)`` draws it.

    Parameters
    ----------
    input : Tensor
        A tensor of any shape and strides. fastdrop takes float16, bfloat16, float32 and float64 on
        the CPU, and calls PyTorch's own function for all other tensors.
    p : float
        Probability of dropping an element.
    training : bool
        If False, the result is input itself.
    inplace : bool
        Whether to write to the memory of input.
    generator : torch.Generator, optional
        The source of the seed; by default PyTorch's default generator.
    save_mask : bool
        Whether to keep the mask for backward, at 1 bit per element, instead of drawing it again.

    Returns
    -------
    Tensor
        The result, in the memory format of input. A dropped element is 0, even where input is
        infinite or NaN.

    Raises
    ------
    ValueError
        As for PyTorch's function; also for a generator with a tensor that fastdrop does not take.
    """
    if not _is_ours(input, p, training, inplace):
        return _own("dropout", input, p, training, inplace, generator)
    if not inplace and not save_mask and input.is_contiguous() and is_eager():
        return drop_elements(input, p, draw_seed(generator, p))
    rule = Rule("scale", float(p), (), memory_order(input))
    return drop(input, rule, generator, inplace, save_mask)


def dropout1d(
    input: Tensor,
    p: float = 0.5,
    training: bool = True,
    inplace: bool = False,
    *,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Do what `torch.nn.functional.dropout1d` does, with fastdrop's kernels.

    Parameters
    ----------
    input : Tensor, (samples, channels, length) or (channels, length)
        As in `dropout`.
    p : float
        Probability of dropping a channel.
    training, inplace, generator
        As in `dropout`.

    Returns
    -------
    Tensor
        As for `dropout`.
    """
    return _drop_channels("dropout1d", input, p, training, inplace, generator, 3, 2)


def dropout2d(
    input: Tensor,
    p: float = 0.5,
    training: bool = True,
    inplace: bool = False,
    *,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Do what `torch.nn.functional.dropout2d` does, with fastdrop's kernels.

    Parameters
    ----------
    input : Tensor, (samples, channels, height, width)
        As in `dropout`.
    p : float
        Probability of dropping a channel.
    training, inplace, generator
        As in `dropout`.

    Returns
    -------
    Tensor
        As for `dropout`.
    """
    return _drop_channels("dropout2d", input, p, training, inplace, generator, 4, None)


def dropout3d(
    input: Tensor,
    p: float = 0.5,
    training: bool = True,
    inplace: bool = False,
    *,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Do what `torch.nn.functional.dropout3d` does, with fastdrop's kernels.

    Parameters
    ----------
    input : Tensor, (samples, channels, depth, height, width) or (channels, depth, height, width)
        As in `dropout`.
    p : float
        Probability of dropping a channel.
    training, inplace, generator
        As in `dropout`.

    Returns
    -------
    Tensor
        As for `dropout`.
    """
    return _drop_channels("dropout3d", input, p, training, inplace, generator, 5, 4)


def alpha_dropout(
    input: Tensor,
    p: float = 0.5,
    training: bool = False,
    inplace: bool = False,
    *,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Do what `torch.nn.functional.alpha_dropout` does, with fastdrop's kernels.

    Parameters
    ----------
    input, p, training, inplace, generator
        As in `dropout`, but training is False by default.

    Returns
    -------
    Tensor
        As for `dropout`; `fastdrop.alpha_dropout` has the formula.
    """
    if not _is_ours(input, p, training, inplace):
        return _own("alpha_dropout", input, p, training, inplace, generator)
    return drop(input, Rule("alpha", float(p), (), memory_order(input)), generator, inplace)


def feature_alpha_dropout(
    input: Tensor,
    p: float = 0.5,
    training: bool = False,
    inplace: bool = False,
    *,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Do what `torch.nn.functional.feature_alpha_dropout` does, with fastdrop's kernels.

    Parameters
    ----------
    input, p, training, inplace, generator
        As in `dropout`, but training is False by default. One decision holds for a channel.

    Returns
    -------
    Tensor
        As for `dropout`; `fastdrop.feature_alpha_dropout` has the formula.
    """
    if not _is_ours(input, p, training, inplace) or input.dim() < 2:
        return _own("feature_alpha_dropout", input, p, training, inplace, generator)
    shared = tuple(range(2, input.dim()))
    return drop(input, Rule("alpha", float(p), shared, memory_order(input)), generator, inplace)


def check_p(p: float) -> None:
    """Refuse a p that is not a probability, with PyTorch's message."""
    if not 0 <= p <= 1:
        raise ValueError(f"dropout probability has to be between 0 and 1, but got {shown(p)}")


def check_mode(mode: str) -> None:
    """Refuse an unknown mode of `drop_path`."""
    if mode not in ("row", "batch"):
        raise ValueError(f"mode: expected 'row' or 'batch', got {shown(mode)}")


def check_gaussian_p(p: float) -> None:
    """Refuse a p for which the noise has no finite variance."""
    check_p(p)
    if p == 1:
        raise ValueError("p: expected 0 <= p < 1, where the variance p / (1 - p) is finite, got 1")


def drop_path(
    input: Tensor,
    p: float = 0.5,
    training: bool = True,
    mode: str = "row",
    *,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Drop the whole residual branch of a sample, or of the batch (stochastic depth).

    Parameters
    ----------
    input : Tensor, (samples, ...)
        The output of the branch. If fastdrop's kernels do not take it, PyTorch's operations compute
        the same.
    p, training
        As in `dropout`.
    mode : {"row", "batch"}
        Whether each sample gets a decision of its own, or all samples get the same.
    generator : torch.Generator, optional
        As in `dropout`.

    Returns
    -------
    Tensor
        input / (1 - p) where it is kept, else 0.

    Raises
    ------
    ValueError
        If p is not in [0, 1], mode is unknown, or input has no axes.

    References
    ----------
    Huang, Sun, Liu, Sedra, Weinberger 2016, Deep networks with stochastic depth, ECCV.
    """
    check_p(p)
    check_mode(mode)
    if input.dim() == 0:
        raise ValueError("input: expected shape (samples, ...), got a 0-d tensor")
    if not training or p == 0 or not input.numel():
        return input
    first = 1 if mode == "row" else 0
    if is_plain(input):
        shared = tuple(range(first, input.dim()))
        return drop(input, Rule("scale", float(p), shared, memory_order(input)), generator)
    shape = [length if axis < first else 1 for axis, length in enumerate(input.shape)]
    factor = torch.ones(shape, dtype=input.dtype, device=input.device)
    return input * dropout(factor, p, generator=generator)


def gaussian_dropout(
    input: Tensor,
    p: float = 0.5,
    training: bool = True,
    *,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Multiply by normal noise of mean 1 and of the variance of dropout, p / (1 - p).

    Parameters
    ----------
    input : Tensor
        Any tensor of floats. If fastdrop's kernels do not take it, PyTorch's operations compute the
        same.
    p, training, generator
        As in `dropout`; p < 1.

    Returns
    -------
    Tensor
        The product, with the shape and dtype of input.

    Raises
    ------
    ValueError
        If p is not in [0, 1).

    References
    ----------
    Srivastava et al. 2014, Dropout, JMLR 15:1929, section 10.
    """
    check_gaussian_p(p)
    if not training or p == 0:
        return input
    if is_plain(input):
        return drop(input, Rule("gaussian", float(p), (), memory_order(input)), generator)
    options: dict[str, Any] = {"dtype": input.dtype, "device": input.device}
    noise = torch.randn(input.shape, generator=generator, **options)
    return input * (1 + math.sqrt(p / (1 - p)) * noise)


def drop_block2d(
    input: Tensor,
    p: float = 0.1,
    block_size: int = 7,
    training: bool = True,
    *,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Drop square blocks of feature maps (DropBlock); `fastdrop.drop_block2d` has the definition.

    Parameters
    ----------
    input : Tensor, (samples, channels, height, width)
        Feature maps, in a float type on the CPU.
    p : float
        Share of the elements to drop.
    block_size : int
        Side of the blocks, at most the height and the width.
    training, generator
        As in `dropout`.

    Returns
    -------
    Tensor
        The result, in the memory format of input.

    Raises
    ------
    TypeError
        If input is not a dense tensor of a float type on the CPU.
    ValueError
        If p is not in [0, 1], input is not 4-d, or block_size does not fit it.

    References
    ----------
    Ghiasi, Lin, Le 2018, DropBlock: a regularization method for convolutional networks, NeurIPS.
    """
    check_p(p)
    check_count("block_size", block_size)
    if input.dim() != 4:
        raise ValueError(
            f"input: expected shape (samples, channels, height, width), got {tuple(input.shape)}"
        )
    if block_size > min(input.shape[2:]):
        raise ValueError(
            f"block_size: expected at most {min(input.shape[2:])} on maps of "
            f"{input.shape[2]} x {input.shape[3]}, got {block_size}"
        )
    if not training or p == 0 or not input.numel():
        return input
    if not is_plain(input):
        raise TypeError(
            f"input: expected a dense float tensor on the CPU, got {input.dtype} on {input.device}"
        )
    order = memory_order(input)
    y = drop(input, Rule("blocks", float(p), (), (), block_size), generator)
    return undone(in_memory_order(y, order), order)


# torch.fx records the functions below as they are, and the functions above as PyTorch's own.
for _name in ("drop_path", "gaussian_dropout", "drop_block2d"):
    torch.fx.wrap(_name)


def dropout_add(
    input: Tensor,
    residual: Tensor,
    p: float = 0.5,
    training: bool = True,
    *,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Return ``dropout(input, p, training) + residual``, in one pass in eager mode.

    Parameters
    ----------
    input : Tensor
        As in `dropout`.
    residual : Tensor
        A tensor with the shape and dtype of input. Anything else that PyTorch's addition takes
        works too, but costs another pass.
    p, training, generator
        As in `dropout`.

    Returns
    -------
    Tensor
        The sum.

    Raises
    ------
    ValueError
        As for `dropout`.
    """
    if (
        _is_ours(input, p, training, False)
        and is_plain(residual)
        and residual.shape == input.shape
        and residual.dtype == input.dtype
        and is_eager()
        and group() is None
    ):
        rule = Rule("scale", float(p), (), memory_order(input))
        y: Tensor = Add.apply(input, residual, draw_seed(generator, rule.p), rule)
        return y
    return dropout(input, p, training, generator=generator) + residual


def bias_act_dropout(
    input: Tensor,
    bias: Tensor,
    activation: str | None,
    p: float = 0.5,
    training: bool = True,
    *,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Return ``dropout(activation(input + bias), p, training)``, in one pass in eager mode.

    This is what follows a matrix product. After a ReLU, backward reads only the output and no mask.

    Parameters
    ----------
    input : Tensor, (..., units)
        The product. If its axes lie in another order in memory, each step takes a pass.
    bias : Tensor, (units,)
        A tensor with the dtype of input. Anything else that PyTorch's addition takes works too, but
        costs more passes.
    activation : {None, "relu"}
        None adds the bias only.
    p, training, generator
        As in `dropout`.

    Returns
    -------
    Tensor
        The result, with the shape of input.

    Raises
    ------
    ValueError
        As for `dropout`; also for another activation.
    """
    if activation not in (None, "relu"):
        raise ValueError(f"activation: expected None or 'relu', got {shown(activation)}")
    relu = activation == "relu"
    if (
        _is_ours(input, p, training, False)
        and is_plain(bias)
        and bias.shape == input.shape[-1:]
        and bias.dtype == input.dtype
        and input.dim() > 0
        and not memory_order(input)
        and is_eager()
        and group() is None
    ):
        y: Tensor = BiasAct.apply(input, bias, relu, float(p), draw_seed(generator, p))
        return y
    y = input + bias
    return dropout(torch.relu(y) if relu else y, p, training, generator=generator)
