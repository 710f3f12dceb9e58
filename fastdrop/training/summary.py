"""A network as text: the table of its layers, and the call that makes an equal one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from fastdrop import _html
from fastdrop._typed import typed
from fastdrop.layers import Input, Layer, Residual
from fastdrop.layers.base import Shape, batch_shape, shapes_between
from fastdrop.training.network import Network

__all__ = ["as_call", "as_html", "as_text"]

HEADER = ("Layer (type)", "Output shape", "Params")
KEPT = "Kept in training"
WIDTH = 100  # of a line of `as_call`, from which on each layer has one of its own


class Line(NamedTuple):
    """A layer's line in the table, in words."""

    layer: str
    shape: str
    params: str
    kept: str


def as_text(network: Network, show_dropout: bool) -> str:
    """Return the table that `Sequential.summary` prints."""
    form, rule = "{:<32} {:<24} {:>12}".format, "-" * 70
    rows = [Line(*HEADER, KEPT), *_lines(network, inside=show_dropout)]
    texts = [form(*row[:3]) for row in rows]
    if show_dropout:
        texts = [f"{text}  {row.kept}".rstrip() for text, row in zip(texts, rows)]
        rule += "-" * (2 + max(len(row.kept) for row in rows))
    return "\n".join([texts[0], rule, *texts[1:], rule, *_totals(network)])


def as_html(network: Network) -> str:
    """Return the table with what dropout keeps, for notebooks."""
    caption = ", ".join([network.name, *_totals(network)])
    return _html.table(caption, (*HEADER, KEPT), _lines(network, inside=True))


def as_call(name: str, network: Network) -> str:
    """Return the call of the class `name` that makes a model of the same layers and seed.

    Weights that were trained are not in it, nor is what `compile` chose.
    """
    items: list[Layer | Input] = [*network.layers]
    if network.input_shape is not None and not (items and network.layers[0].input_shape):
        items.insert(0, Input(network.input_shape))
    layers = [typed(item) for item in items]
    options = [f"seed={network.seed}"]
    if network.dtype.name != "float32":
        options.append(f"dtype={network.dtype.name!r}")
    if network.name != Network.name:
        options.append(f"name={network.name!r}")
    line = f"{name}([{', '.join(layers)}], {', '.join(options)})"
    if len(line) <= WIDTH:
        return line
    return "\n".join(
        [f"{name}(", "    [", *(f"        {x}," for x in layers), "    ],"]
        + [f"    {x}," for x in options]
        + [")"]
    )


def _lines(network: Network, inside: bool) -> Iterator[Line]:
    """Give a line for each layer; also for those inside others, if asked for."""
    layers: Sequence[Layer] = network.layers
    yield from _lines_of(layers, network.input_shape, network.step, inside, "")


def _lines_of(
    layers: Sequence[Layer], input_shape: Shape | None, step: int, inside: bool, indent: str
) -> Iterator[Line]:
    shapes: Sequence[Shape | None] = [None] * (len(layers) + 1)
    if input_shape is not None:
        shapes = shapes_between(layers, input_shape)
    for layer, before, after in zip(layers, shapes, shapes[1:]):
        shape = "unknown yet" if after is None else batch_shape(after)
        params = f"{sum(param.size for param in layer.params.values()):,}"
        title = f"{indent}{layer.name} ({type(layer).__name__})"
        yield Line(title, shape, params if not indent else f"({params})", layer.kept(step))
        if inside and isinstance(layer, Residual):
            yield from _lines_of(layer.layers, before, step, inside, indent + "  ")


def _totals(network: Network) -> list[str]:
    total = sum(param.size for param in network.params().values())
    trained = (p.size for layer in network.layers for p in layer.trainable_params.values())
    trainable = sum(trained)
    return [f"Total params: {total:,}"] + [f"Trainable params: {trainable:,}"] * (trainable < total)
