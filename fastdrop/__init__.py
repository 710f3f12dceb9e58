"""fastdrop: the fastest, most trustworthy dropout on a CPU, and a small trainer."""

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
from fastdrop.random import Generator, Key, seed

__all__ = [
    "Generator",
    "Key",
    "apply_mask",
    "available_isas",
    "bias_act_dropout",
    "bias_act_dropout_backward",
    "dropout",
    "dropout_add",
    "dropout_mask",
    "get_num_threads",
    "seed",
    "set_num_threads",
    "show_config",
    "use_isa",
]
