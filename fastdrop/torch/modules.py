"""torch.nn's dropout layers, by fastdrop's kernels, and some that torch.nn lacks.

Each is a subclass of the layer whose name it has, so that models look and behave as before.
"""

from __future__ import annotations

from typing import Any, Self

import torch
from torch import Tensor, nn

from fastdrop._checks import check_count
from fastdrop.torch import functional

__all__ = [
    "AlphaDropout",
    "DropBlock2d",
    "DropPath",
    "Dropout",
    "Dropout1d",
    "Dropout2d",
    "Dropout3d",
    "FeatureAlphaDropout",
    "GaussianDropout",
]


def mark(layer: nn.Module) -> None:
    """Let torch.fx keep a layer whole, as it does where ``layer.__module__`` is torch.nn.

    Traced through, a layer leaves dropout in the graph, where eval() does not reach it. The class
    keeps its own `__module__`, by which pickles find it. Subclasses of users are traced through,
    as those of torch.nn's layers are: their forward may do more.
    """
    if type(layer).__module__ == __name__:
        layer.__dict__["__module__"] = nn.__name__
    else:
        layer.__dict__.pop("__module__", None)


class _Seeded(nn.Module):
    """What torch.nn's layers lack: a generator of their own.

    A class attribute too, since `convert` changes the class of layers that never had one. Without
    annotation: TorchScript would read it in place of those that torch.nn's layers have.
    """

    generator = None

    def __init__(self, *arguments: Any, generator: torch.Generator | None = None) -> None:
        super().__init__(*arguments)
        self.generator = generator
        mark(self)

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        mark(self)  # pickles of earlier versions have no mark

    def __prepare_scriptable__(self) -> Self:
        if self.generator is not None:
            raise ValueError(
                "generator: expected None in TorchScript, where PyTorch drops, got one"
            )
        return self


class _TorchLayer(_Seeded):
    """What a layer that torch.nn has takes; the class derived from both has its forward."""

    def __init__(
        self,
        p: float = 0.5,
        inplace: bool = False,
        *,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__(p, inplace, generator=generator)


class Dropout(_TorchLayer, nn.Dropout):
    """`torch.nn.Dropout`; `fastdrop.torch.functional.dropout` has the details.

    Parameters
    ----------
    p, inplace
        As in `torch.nn.Dropout`.
    generator : torch.Generator, optional
        Where masks come from; by default PyTorch's default generator.
    save_mask : bool
        Keep masks for backward, 1 bit per element, instead of drawing them again.
    """

    save_mask = False

    def __init__(
        self,
        p: float = 0.5,
        inplace: bool = False,
        *,
        generator: torch.Generator | None = None,
        save_mask: bool = False,
    ) -> None:
        super().__init__(p, inplace, generator=generator)
        self.save_mask = save_mask

    def forward(self, input: Tensor) -> Tensor:
        if torch.jit.is_scripting():
            return nn.functional.dropout(input, self.p, self.training, self.inplace)
        else:
            return functional.dropout(
                input,
                self.p,
                self.training,
                self.inplace,
                generator=self.generator,
                save_mask=self.save_mask,
            )


class Dropout1d(_TorchLayer, nn.Dropout1d):
    """`torch.nn.Dropout1d`, with a generator of its own if given."""

    def forward(self, input: Tensor) -> Tensor:
        if torch.jit.is_scripting():
            return nn.functional.dropout1d(input, self.p, self.training, self.inplace)
        else:
            return functional.dropout1d(
                input, self.p, self.training, self.inplace, generator=self.generator
            )


class Dropout2d(_TorchLayer, nn.Dropout2d):
    """`torch.nn.Dropout2d`, with a generator of its own if given."""

    def forward(self, input: Tensor) -> Tensor:
        if torch.jit.is_scripting():
            return nn.functional.dropout2d(input, self.p, self.training, self.inplace)
        else:
            return functional.dropout2d(
                input, self.p, self.training, self.inplace, generator=self.generator
            )


class Dropout3d(_TorchLayer, nn.Dropout3d):
    """`torch.nn.Dropout3d`, with a generator of its own if given."""

    def forward(self, input: Tensor) -> Tensor:
        if torch.jit.is_scripting():
            return nn.functional.dropout3d(input, self.p, self.training, self.inplace)
        else:
            return functional.dropout3d(
                input, self.p, self.training, self.inplace, generator=self.generator
            )


class AlphaDropout(_TorchLayer, nn.AlphaDropout):
    """`torch.nn.AlphaDropout`, with a generator of its own if given.

    `inplace` has no effect, as in PyTorch.
    """

    def forward(self, input: Tensor) -> Tensor:
        if torch.jit.is_scripting():
            return nn.functional.alpha_dropout(input, self.p, self.training)
        else:
            return functional.alpha_dropout(input, self.p, self.training, generator=self.generator)


class FeatureAlphaDropout(_TorchLayer, nn.FeatureAlphaDropout):
    """`torch.nn.FeatureAlphaDropout`, with a generator of its own if given.

    `inplace` has no effect, as in PyTorch.
    """

    def forward(self, input: Tensor) -> Tensor:
        if torch.jit.is_scripting():
            return nn.functional.feature_alpha_dropout(input, self.p, self.training)
        else:
            return functional.feature_alpha_dropout(
                input, self.p, self.training, generator=self.generator
            )


class DropPath(_Seeded):
    """Stochastic depth: drop the residual branch of a sample, or of the batch, as a whole.

    Parameters
    ----------
    p : float
        Probability of dropping.
    mode : {"row", "batch"}
        One decision for each sample, or one for all.
    generator : torch.Generator, optional
        Where masks come from; by default PyTorch's default generator.
    """

    def __init__(
        self, p: float = 0.5, mode: str = "row", *, generator: torch.Generator | None = None
    ) -> None:
        super().__init__(generator=generator)
        functional.check_p(p)
        functional.check_mode(mode)
        self.p = p
        self.mode = mode

    def extra_repr(self) -> str:
        return f"p={self.p}, mode={self.mode!r}"

    def forward(self, input: Tensor) -> Tensor:
        return functional.drop_path(
            input, self.p, self.training, self.mode, generator=self.generator
        )


class GaussianDropout(_Seeded):
    """Multiply by normal noise of mean 1 and the variance of dropout, p / (1 - p).

    Parameters
    ----------
    p : float
        Below 1.
    generator : torch.Generator, optional
        Where the noise comes from; by default PyTorch's default generator.
    """

    def __init__(self, p: float = 0.5, *, generator: torch.Generator | None = None) -> None:
        super().__init__(generator=generator)
        functional.check_gaussian_p(p)
        self.p = p

    def extra_repr(self) -> str:
        return f"p={self.p}"

    def forward(self, input: Tensor) -> Tensor:
        return functional.gaussian_dropout(input, self.p, self.training, generator=self.generator)


class DropBlock2d(_Seeded):
    """Drop squares of feature maps.

    Parameters
    ----------
    p : float
        Share to drop.
    block_size : int
        The squares' side.
    generator : torch.Generator, optional
        Where masks come from; by default PyTorch's default generator.
    """

    def __init__(
        self, p: float = 0.1, block_size: int = 7, *, generator: torch.Generator | None = None
    ) -> None:
        super().__init__(generator=generator)
        functional.check_p(p)
        check_count("block_size", block_size)
        self.p = p
        self.block_size = block_size

    def extra_repr(self) -> str:
        return f"p={self.p}, block_size={self.block_size}"

    def forward(self, input: Tensor) -> Tensor:
        return functional.drop_block2d(
            input, self.p, self.block_size, self.training, generator=self.generator
        )
