"""fastdrop: the fastest, most trustworthy dropout on a CPU, and a small trainer."""

from importlib import import_module
from types import ModuleType

__version__ = "0.1.0.dev0"

from fastdrop._config import show_config
from fastdrop._core import (
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
from fastdrop.variants import (
    alpha_dropout,
    alpha_dropout_backward,
    drop_block2d,
    drop_path,
    feature_alpha_dropout,
    zoneout,
    zoneout_backward,
)

__all__ = [
    "Generator",
    "Key",
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
    "seed",
    "set_num_threads",
    "show_config",
    "use_isa",
    "zoneout",
    "zoneout_backward",
]

_MODULES = (
    "callbacks",
    "datasets",
    "initializers",
    "layers",
    "learning_rates",
    "losses",
    "metrics",
    "models",
    "optimizers",
)


def __getattr__(name: str) -> ModuleType:
    """Import the trainer's modules when they are first used: `fastdrop.layers`, ..."""
    if name in _MODULES:
        return import_module(f"fastdrop.{name}")
    raise AttributeError(f"module 'fastdrop' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_MODULES])
