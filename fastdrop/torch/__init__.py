"""PyTorch's dropout by fastdrop's kernels: ``import fastdrop.torch as fnn``.

Layers with the names and the behaviour of torch.nn's, `functional`, and `convert`, `revert` and
`patch` for models and code that name torch.nn. docs/torch.md has the details.
"""

try:
    import torch as _torch  # noqa: F401
except ImportError as error:
    raise ImportError(
        "fastdrop.torch needs PyTorch: pip install 'fastdrop-nn[torch]', on a machine without a "
        f"GPU with --extra-index-url https://download.pytorch.org/whl/cpu ({error})"
    ) from None

from fastdrop.torch import functional
from fastdrop.torch.convert import convert, patch, revert
from fastdrop.torch.modules import (
    AlphaDropout,
    DropBlock2d,
    Dropout,
    Dropout1d,
    Dropout2d,
    Dropout3d,
    DropPath,
    FeatureAlphaDropout,
    GaussianDropout,
)

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
    "convert",
    "functional",
    "patch",
    "revert",
]
