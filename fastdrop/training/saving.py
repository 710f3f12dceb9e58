"""What files of models hold: a network as a configuration and arrays, and the way back.

The arrays are the weights by their names ("0.weight"), and those of an optimiser, whose names start
with "optimizer/" and the name of the parameter ("optimizer/0.weight/m").
"""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike
from typing import Any

import numpy as np

from fastdrop._checks import check_keys, is_count
from fastdrop._messages import one_line_about, shown
from fastdrop._serialization import check_can_be_read, deserialize, serialize
from fastdrop.layers import Array
from fastdrop.losses import Loss
from fastdrop.metrics import Metric
from fastdrop.optimizers import Optimizer
from fastdrop.training.files import OPTIMIZER
from fastdrop.training.network import Network

__all__ = ["load_weights", "pack", "pack_weights", "unpack"]


def pack_weights(network: Network) -> dict[str, Array]:
    """Return the weights, in the type that the network computes with."""
    return {name: np.asarray(a, network.dtype) for name, a in network.weights().items()}


def pack(network: Network) -> tuple[dict[str, Any], dict[str, Array]]:
    """Return everything that is needed to go on, as a configuration and arrays, see `unpack`.

    Raises
    ------
    ValueError
        When a layer or another part holds what cannot be read again, or when layers have weights
        for an input shape that the network does not know.
    """
    if network.input_shape is None and network.weights():
        raise ValueError(
            "model: expected a built one, got layers with weights in a model whose input shape is "
            "not known yet; fit it, or call build(input_shape)"
        )
    check_can_be_read([network.layers, network.loss, network.metrics, network.weighted_metrics])
    if network.optimizer is not None:
        check_can_be_read(network.optimizer)
    config: dict[str, Any] = {
        "model": network.get_config(),
        "epoch": network.epoch,
        "step": network.step,
        "compiled": None,
    }
    arrays = pack_weights(network)
    if network.optimizer is not None and network.loss is not None:
        config["compiled"] = {
            "optimizer": serialize(network.optimizer),
            "iterations": network.optimizer.iterations,
            "loss": serialize(network.loss),
            "metrics": [serialize(metric) for metric in network.metrics],
            "weighted_metrics": [serialize(metric) for metric in network.weighted_metrics],
        }
        for name, state in network.optimizer.state_of(network.params()).items():
            for part, array in state.items():
                if "/" in part:
                    raise ValueError(
                        f"optimizer: expected a state's name without /, got {shown(part)}"
                    )
                arrays[f"{OPTIMIZER}{name}/{part}"] = array
    return config, arrays


def unpack(
    path: str | PathLike[str], config: Mapping[str, Any], arrays: Mapping[str, Array]
) -> Network:
    """Make a network from what `pack` returned. It takes the arrays over.

    Parameters
    ----------
    path : path
        The file that was read, for messages.
    config : mapping
        The configuration.
    arrays : mapping of str to ndarray
        The arrays by name.

    Returns
    -------
    Network
        The network.

    Raises
    ------
    ValueError
        When the arguments are not as `pack` makes them.
    """
    with one_line_about(path):
        check_keys("config", config, ["model", "epoch", "step", "compiled"])
        weights, state = _weights(arrays), _optimizer_state(arrays)
        network = Network.from_config(config["model"], weights)
        network.epoch = _check_number("epoch", config["epoch"])
        network.step = _check_number("step", config["step"])
        if config["compiled"] is not None:
            _compile(network, config["compiled"], state)
        elif state:
            raise ValueError("expected no arrays of an optimiser where there is none, got some")
    return network


def load_weights(path: str | PathLike[str], network: Network, arrays: Mapping[str, Array]) -> None:
    """Set a network's weights from a file's arrays.

    Raises
    ------
    ValueError
        When they belong to another network. Then nothing is changed.
    """
    with one_line_about(path):
        network.take_over(_weights(arrays))


def _compile(
    network: Network, compiled: Mapping[str, Any], state: Mapping[str, Mapping[str, Array]]
) -> None:
    keys = ["optimizer", "iterations", "loss", "metrics", "weighted_metrics"]
    check_keys("compiled", compiled, keys)
    metrics, weighted_metrics = (
        [deserialize(name, metric, Metric) for metric in compiled[name]] for name in keys[3:]
    )
    optimizer = deserialize("optimizer", compiled["optimizer"], Optimizer)
    loss = deserialize("loss", compiled["loss"], Loss)
    network.compile(optimizer, loss, metrics, weighted_metrics)
    iterations = _check_number("iterations", compiled["iterations"])
    optimizer.restore(network.params(), iterations, state)


def _weights(arrays: Mapping[str, Array]) -> dict[str, Array]:
    return {name: array for name, array in arrays.items() if not name.startswith(OPTIMIZER)}


def _optimizer_state(arrays: Mapping[str, Array]) -> dict[str, dict[str, Array]]:
    state: dict[str, dict[str, Array]] = {}
    for name, array in arrays.items():
        if name.startswith(OPTIMIZER):
            param, _, part = name.removeprefix(OPTIMIZER).rpartition("/")
            state.setdefault(param, {})[part] = array
    return state


def _check_number(argument: str, value: Any) -> int:
    """Return a count that still has room to grow."""
    if not is_count(value, least=0) or value >= 1 << 63:
        raise ValueError(
            f"{argument}: expected a whole number from 0 to 2**63 - 1, got {shown(value)}"
        )
    return int(value)
