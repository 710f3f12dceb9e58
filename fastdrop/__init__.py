"""fastdrop: the fastest, most trustworthy dropout on a CPU, and a small trainer."""

import sys

# `python -m fastdrop`, and `-m fastdrop.torch`, import this file before a `__main__.py`.
if sys.argv[:1] == ["-m"] and sys.orig_argv[-len(sys.argv)].removeprefix("-m") in (
    "fastdrop",
    "fastdrop.torch",
):
    import _fastdrop_command

    _fastdrop_command.begin()

from importlib import import_module
from typing import TYPE_CHECKING, Any

from fastdrop._version import __version__ as __version__

_DISTRIBUTION = "fastdrop-nn"  # `_namesake` knows by it that this file is ours

from fastdrop import _namesake

_namesake.report()

from fastdrop._config import show_config
from fastdrop.compiled._core import (
    available_isas,
    get_num_threads,
    set_num_threads,
    use_isa,
)
from fastdrop.functional import (
    apply_mask,
    bias_act_dropout,
    bias_act_dropout_backward,
    dropout,
    dropout_add,
    dropout_mask,
)
from fastdrop.noise import gaussian_dropout, gaussian_noise
from fastdrop.random import Generator, Key, seed
from fastdrop.softmax import softmax_dropout, softmax_dropout_backward
from fastdrop.variants import (
    alpha_dropout,
    alpha_dropout_backward,
    drop_block2d,
    drop_path,
    feature_alpha_dropout,
    zoneout,
    zoneout_backward,
)

if TYPE_CHECKING:
    from fastdrop.layers import Input
    from fastdrop.models import Sequential, load_model
    from fastdrop.tables import TableModel

__all__ = [
    "Generator",
    "Input",
    "Key",
    "Sequential",
    "TableModel",
    "alpha_dropout",
    "alpha_dropout_backward",
    "apply_mask",
    "available_isas",
    "bias_act_dropout",
    "bias_act_dropout_backward",
    "drop_block2d",
    "drop_path",
    "dropout",
    "dropout_add",
    "dropout_mask",
    "feature_alpha_dropout",
    "gaussian_dropout",
    "gaussian_noise",
    "get_num_threads",
    "load_model",
    "seed",
    "set_num_threads",
    "show_config",
    "softmax_dropout",
    "softmax_dropout_backward",
    "use_isa",
    "zoneout",
    "zoneout_backward",
]

_MODULES = (
    "calibration",
    "callbacks",
    "datasets",
    "initializers",
    "layers",
    "learning_rates",
    "losses",
    "metrics",
    "models",
    "optimizers",
    "tables",
)
_NAMES = {
    "Input": "layers",
    "Sequential": "models",
    "TableModel": "tables",
    "load_model": "models",
}


def __getattr__(name: str) -> Any:
    """Import the trainer when it is first used: `fastdrop.layers`, ..., `fastdrop.Sequential`."""
    if name in _MODULES:
        return import_module(f"fastdrop.{name}")
    if name in _NAMES:
        return getattr(import_module(f"fastdrop.{_NAMES[name]}"), name)
    raise AttributeError(f"module 'fastdrop' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_MODULES, *_NAMES])
