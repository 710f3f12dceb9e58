"""Files of arrays and a configuration, in the format safetensors: data only, nothing is executed.

The configuration is JSON under the name "fastdrop" in the file's metadata:

    {"format": 1, "version": "0.1.0", "kind": "model", "crc32": 123, "config": {...}}

where crc32 is that of the configuration's text and the arrays' bytes, in the order of their names.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from fastdrop._output import replace_file
from fastdrop._serialization import check_can_be_read, deserialize, serialize
from fastdrop._version import __version__
from fastdrop.layers import Array
from fastdrop.losses import Loss
from fastdrop.metrics import Metric
from fastdrop.optimizers import Optimizer
from fastdrop.training.network import NOT_BUILT, Network

__all__ = ["pack", "read", "set_weights", "unpack", "write"]

FORMAT = 1
KEY = "fastdrop"


def write(
    path: str | PathLike[str], kind: str, config: Mapping[str, Any], arrays: Mapping[str, Array]
) -> None:
    """Write a file, so that under its name there is the whole of it or what was there before.

    Parameters
    ----------
    path : path
    kind : str
        What the file is, for `read`.
    config : mapping
        What JSON can hold.
    arrays : mapping of str to ndarray
        Of any numeric dtype.

    Raises
    ------
    ValueError
        When JSON cannot hold the configuration.
    OSError
        When the file cannot be written.
    """
    from safetensors.numpy import save

    _check_plain(kind, config)
    dense = {name: np.asarray(array, order="C") for name, array in arrays.items()}
    header = {
        "format": FORMAT,
        "version": __version__,
        "kind": kind,
        "crc32": _crc32(config, dense),
        "config": config,
    }
    replace_file(path, save(dense, {KEY: json.dumps(header)}))


def read(
    path: str | PathLike[str], kinds: Sequence[str]
) -> tuple[dict[str, Any], dict[str, Array]]:
    """Read a file that `write` wrote.

    Parameters
    ----------
    path : path
    kinds : sequence of str
        What the file may be.

    Returns
    -------
    config : dict
    arrays : dict of str to ndarray

    Raises
    ------
    ValueError
        When the file is damaged, of another kind, or of another version of the format.
    OSError
        When it cannot be read.
    """
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"path: expected an existing file, got {path}")
    try:
        with safe_open(path, "np") as file:
            try:
                header = json.loads((file.metadata() or {})[KEY])
                version, kind, config = header["format"], header["kind"], header["config"]
            except (KeyError, RecursionError, TypeError, ValueError):
                raise ValueError(
                    f"{path}: expected a file that fastdrop has saved, got another safetensors file"
                ) from None
            arrays = {name: np.array(file.get_tensor(name)) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(f"{path}: expected a whole safetensors file: {error}") from None
    if version != FORMAT:
        raise ValueError(
            f"{path}: expected format {FORMAT}, got {version}, of fastdrop {header.get('version')}"
        )
    if kind not in kinds:
        raise ValueError(f"{path}: expected a file of {' or '.join(kinds)}, got one of {kind}")
    if header.get("crc32") != _crc32(config, arrays):
        raise ValueError(f"{path}: expected the bytes that were saved, got a damaged file")
    return config, arrays


def pack(network: Network) -> tuple[dict[str, Any], dict[str, Array]]:
    """Return all that is needed to go on, as a configuration and arrays, see `unpack`.

    Raises
    ------
    ValueError
        When a layer or the like holds what cannot be read again.
    """
    check_can_be_read([network.layers, network.loss, network.metrics, network.weighted_metrics])
    if network.optimizer is not None:
        check_can_be_read(network.optimizer)
    config: dict[str, Any] = {
        "model": network.get_config(),
        "epoch": network.epoch,
        "step": network.step,
        "compiled": None,
    }
    arrays = network.weights()
    if network.optimizer is not None and network.loss is not None:
        config["compiled"] = {
            "optimizer": serialize(network.optimizer),
            "iterations": network.optimizer.iterations,
            "loss": serialize(network.loss),
            "metrics": [serialize(metric) for metric in network.metrics],
            "weighted_metrics": [serialize(metric) for metric in network.weighted_metrics],
        }
        arrays |= {
            f"optimizer/{name}/{part}": array
            for name, state in network.optimizer.state.items()
            for part, array in state.items()
        }
    return config, arrays


def unpack(
    path: str | PathLike[str], config: Mapping[str, Any], arrays: Mapping[str, Array]
) -> Network:
    """Make a network of what `pack` returned.

    Parameters
    ----------
    path : path
        Where it was read, for messages.
    config : mapping
    arrays : mapping of str to ndarray

    Raises
    ------
    ValueError
        When they are not as `pack` makes them.
    """
    try:
        network = Network.from_config(config["model"])
        network.epoch, network.step = config["epoch"], config["step"]
        compiled = config["compiled"]
        if compiled is not None:
            metrics, weighted_metrics = (
                [deserialize("metrics", metric, Metric) for metric in compiled[name]]
                for name in ("metrics", "weighted_metrics")
            )
            optimizer = deserialize("optimizer", compiled["optimizer"], Optimizer)
            optimizer.iterations = compiled["iterations"]
            loss = deserialize("loss", compiled["loss"], Loss)
            network.compile(optimizer, loss, metrics, weighted_metrics)
            for name, array in arrays.items():
                if name.startswith("optimizer/"):
                    _, param, part = name.split("/")
                    optimizer.state.setdefault(param, {})[part] = array
    except (KeyError, TypeError, AttributeError) as error:  # not as `pack` writes it
        raise ValueError(f"{path}: expected a saved model, got {error!r}") from error
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    set_weights(path, network, arrays)
    return network


def set_weights(path: str | PathLike[str], network: Network, arrays: Mapping[str, Array]) -> None:
    """Set a network's weights from a file's arrays.

    Raises
    ------
    ValueError
        When they are another network's; nothing is changed then.
    """
    names = network.weights()
    own = {name: array for name, array in arrays.items() if not name.startswith("optimizer/")}
    if set(own) != set(names):
        name = min(set(own) ^ set(names))
        has = "has" if name in own else "lacks"
        raise ValueError(
            f"{path}: expected the weights of a model with the same layers, got a file that "
            f"{has} {name!r}" + ("" if network.input_shape else NOT_BUILT)
        )
    try:
        network.set_weights([own[name] for name in names])
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _crc32(config: Mapping[str, Any], arrays: Mapping[str, Array]) -> int:
    checksum = zlib.crc32(json.dumps(config).encode())
    for name in sorted(arrays):
        checksum = zlib.crc32(arrays[name].tobytes(), checksum)
    return checksum


def _check_plain(argument: str, value: Any) -> None:
    """Refuse what JSON cannot hold, and name it."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            _check_plain(f"{argument}.{key}", item)
    elif isinstance(value, list | tuple):
        for i, item in enumerate(value):
            _check_plain(f"{argument}[{i}]", item)
    elif not isinstance(value, str | int | float | None):
        raise ValueError(
            f"{argument}: expected numbers, text and lists, which a file can hold, got {value!r}"
        )
