"""PyTorch's dropout by fastdrop's kernels: ``import fastdrop.torch as fnn``.

`enable` replaces every dropout of a process. To replace less, use `convert` and `revert` for the
layers of one model, the layers of this module (with the names and the behaviour of torch.nn's), or
`functional`. docs/reference/torch.md has the details.
"""

try:
    import torch as _torch
except ImportError as error:
    raise ImportError(
        "fastdrop.torch needs PyTorch: pip install 'fastdrop-nn[torch]', on a machine without a "
        f"GPU with --extra-index-url https://download.pytorch.org/whl/cpu ({error})"
    ) from None

from fastdrop.torch.private import IMPORTED as _IMPORTED
from fastdrop.torch.private import first_missing as _first_missing

if _missing := _first_missing(_IMPORTED):
    raise ImportError(
        f"fastdrop.torch: expected {_missing}, which PyTorch {_torch.__version__} lacks"
    )

from fastdrop.torch import functional
from fastdrop.torch.convert import convert, revert
from fastdrop.torch.enable import disable, enable
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
from fastdrop.torch.monte_carlo import predict_mc

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
    "disable",
    "enable",
    "functional",
    "predict_mc",
    "revert",
]
