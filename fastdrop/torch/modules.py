"""The dropout layers of torch.nn with fastdrop's kernels, and some that torch.nn lacks.

A layer that torch.nn has too is a subclass of torch.nn's, so models look and behave as before.
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
    """Make torch.fx keep a layer whole, as it does where ``layer.__module__`` is torch.nn.

    If a layer is traced through, dropout ends up in the graph, where eval() does not reach it. The
    class keeps its own `__module__`, because pickles find the class by it. Users' subclasses are
    traced through, just as subclasses of torch.nn's layers are, because their forward may do more.
    """
    if type(layer).__module__ == __name__:
        layer.__dict__["__module__"] = nn.__name__
    else:
        layer.__dict__.pop("__module__", None)


class _Seeded(nn.Module):
    """What torch.nn's layers lack: a generator of their own.

    It is a class attribute as well, because `convert` changes the class of layers that have never
    had one. It has no annotation, because TorchScript would read that in place of the annotations
    of torch.nn's layers.
    """

    generator = None

    def __init__(self, *arguments: Any, generator: torch.Generator | None = None) -> None:
        super().__init__(*arguments)
        self.generator = generator
        mark(self)

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        mark(self)  # layers in pickles of earlier versions are not marked

    def __prepare_scriptable__(self) -> Self:
        if self.generator is not None:
            raise ValueError(
                "generator: expected None in TorchScript, where PyTorch drops itself, got one"
            )
        return self


class _TorchLayer(_Seeded):
    """The arguments of a layer that torch.nn has. A class derived from both defines forward."""

    def __init__(
        self,
        p: float = 0.5,
        inplace: bool = False,
        *,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__(p, inplace, generator=generator)


class Dropout(_TorchLayer, nn.Dropout):
    """Dropout of single elements, like `torch.nn.Dropout`; see `fastdrop.torch.functional.dropout`.

    Parameters
    ----------
    p, inplace
        As in `torch.nn.Dropout`.
    generator : torch.Generator, optional
        The source of the masks; by default PyTorch's default generator.
    save_mask : bool
        Whether to keep masks for backward, at 1 bit per element, instead of drawing them again.
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
    """Dropout of whole channels, like `torch.nn.Dropout1d`.

    Parameters
    ----------
    p, inplace
        As in `torch.nn.Dropout1d`.
    generator : torch.Generator, optional
        As for `Dropout`.
    """

    def forward(self, input: Tensor) -> Tensor:
        if torch.jit.is_scripting():
            return nn.functional.dropout1d(input, self.p, self.training, self.inplace)
        else:
            return functional.dropout1d(
                input, self.p, self.training, self.inplace, generator=self.generator
            )


class Dropout2d(_TorchLayer, nn.Dropout2d):
    """Dropout of whole channels, like `torch.nn.Dropout2d`.

    Parameters
    ----------
    p, inplace
        As in `torch.nn.Dropout2d`.
    generator : torch.Generator, optional
        As for `Dropout`.
    """

    def forward(self, input: Tensor) -> Tensor:
        if torch.jit.is_scripting():
            return nn.functional.dropout2d(input, self.p, self.training, self.inplace)
        else:
            return functional.dropout2d(
                input, self.p, self.training, self.inplace, generator=self.generator
            )


class Dropout3d(_TorchLayer, nn.Dropout3d):
    """Dropout of whole channels, like `torch.nn.Dropout3d`.

    Parameters
    ----------
    p, inplace
        As in `torch.nn.Dropout3d`.
    generator : torch.Generator, optional
        As for `Dropout`.
    """

    def forward(self, input: Tensor) -> Tensor:
        if torch.jit.is_scripting():
            return nn.functional.dropout3d(input, self.p, self.training, self.inplace)
        else:
            return functional.dropout3d(
                input, self.p, self.training, self.inplace, generator=self.generator
            )


class AlphaDropout(_TorchLayer, nn.AlphaDropout):
    """Dropout that keeps mean and variance after a SELU, like `torch.nn.AlphaDropout`.

    Parameters
    ----------
    p, inplace
        As in `torch.nn.AlphaDropout`, where `inplace` has no effect.
    generator : torch.Generator, optional
        As for `Dropout`.
    """

    def forward(self, input: Tensor) -> Tensor:
        if torch.jit.is_scripting():
            return nn.functional.alpha_dropout(input, self.p, self.training)
        else:
            return functional.alpha_dropout(input, self.p, self.training, generator=self.generator)


class FeatureAlphaDropout(_TorchLayer, nn.FeatureAlphaDropout):
    """Alpha dropout of whole channels, like `torch.nn.FeatureAlphaDropout`.

    Parameters
    ----------
    p, inplace
        As in `torch.nn.FeatureAlphaDropout`, where `inplace` has no effect.
    generator : torch.Generator, optional
        As for `Dropout`.
    """

    def forward(self, input: Tensor) -> Tensor:
        if torch.jit.is_scripting():
            return nn.functional.feature_alpha_dropout(input, self.p, self.training)
        else:
            return functional.feature_alpha_dropout(
                input, self.p, self.training, generator=self.generator
            )


class DropPath(_Seeded):
    """Drop the whole residual branch of a sample, or of the batch (stochastic depth).

    Parameters
    ----------
    p : float
        Probability of dropping the branch.
    mode : {"row", "batch"}
        Whether each sample gets a decision of its own, or all samples get the same.
    generator : torch.Generator, optional
        The source of the masks; by default PyTorch's default generator.
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
    """Multiply by normal noise of mean 1 and of the variance of dropout, p / (1 - p).

    Parameters
    ----------
    p : float
        A number in [0, 1).
    generator : torch.Generator, optional
        The source of the noise; by default PyTorch's default generator.
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
    """Drop square blocks of feature maps (DropBlock).

    Parameters
    ----------
    p : float
        Share of the elements to drop.
    block_size : int
        Side of the blocks.
    generator : torch.Generator, optional
        The source of the masks; by default PyTorch's default generator.
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
