"""`fastdrop masks`: draws the mask that a layer of the dropout family uses with a key."""

from __future__ import annotations

import argparse
import inspect
import math
import secrets
import shutil
import sys
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from fastdrop import layers
from fastdrop._messages import shown
from fastdrop._output import replace_file
from fastdrop.commands.arguments import Commands, add_command, count, probability
from fastdrop.layers import Array, Layer, Shape
from fastdrop.layers.effects import Effect, effect_of
from fastdrop.random import Key

__all__ = ["FAMILY", "add", "run"]

FAMILY: dict[str, type[Layer]] = {
    name: thing
    for name, thing in sorted(vars(layers).items())
    if isinstance(thing, type) and issubclass(thing, Layer) and thing.is_random
}
# Arguments of layers that are options here, and what they are for the parser.
OPTIONS: dict[str, dict[str, Any]] = {
    "p": {"type": probability, "metavar": "P", "help": "probability of dropping (the layer's own)"},
    "stddev": {"type": float, "metavar": "S", "help": "standard deviation of GaussianNoise (1)"},
    "shared_axes": {
        "metavar": "AXES",
        "help": "axes that share their decisions, such as 1 or 1,2; 0 counts the samples",
    },
    "groups": {"type": count, "metavar": "N", "help": "masks of a batch that shares axis 0"},
    "block_size": {"type": count, "metavar": "N", "help": "side of DropBlock2d's squares"},
    "mode": {
        "choices": ("inverted", "vanilla", "row", "batch"),
        "help": "how Dropout scales (the first two), or what DropPath decides on",
    },
    "data_format": {
        "choices": ("channels_first", "channels_last"),
        "help": "where Dropout1d to 3d have their channels",
    },
    "temperature": {"type": float, "metavar": "T", "help": "ConcreteDropout's"},
}
# Sizes of axes that have no others.
SIZES = {"channels": 4, "depth": 2, "height": 12, "width": 24, "length": 32, "time": 12}
FEATURES = 32
ELEMENTS = 1 << 22  # that can be drawn
ROWS = 400  # of text, at the most

HALVES = {(0, 0): " ", (1, 0): "\N{UPPER HALF BLOCK}", (0, 1): "\N{LOWER HALF BLOCK}"}
HALVES[1, 1] = "\N{FULL BLOCK}"
SHADES = " \N{LIGHT SHADE}\N{MEDIUM SHADE}\N{DARK SHADE}\N{FULL BLOCK}"
ASCII_SHADES = " .:-=+*#%@"


def add(commands: Commands) -> None:
    """Add the command."""
    parser = add_command(
        commands,
        "masks",
        run,
        "draw the mask of a layer",
        "Draw the mask that a layer of the dropout family uses with a key: filled is kept, empty "
        "is dropped. Of noise, draw the factors. It is the very mask that the layer uses in "
        "training with the same key, on every machine.",
        (
            "--layer Dropout2d --p 0.3 --shape 4x16x16 --key 42",
            "--layer Dropout --shared-axes 0 --samples 8 --shape 64 --out mask.png",
        ),
    )
    option = parser.add_argument
    option("--layer", choices=FAMILY, default="Dropout", metavar="NAME", help=_family())
    option(
        "--shape",
        type=_sizes,
        metavar="SIZES",
        help="sizes of the axes of one sample, such as 4x16x16; of WeightDropout, EmbeddingDropout "
        "and DropConnect those of the weights",
    )
    option("--samples", type=count, metavar="N", help="samples of the batch (1; of DropPath 8)")
    option(
        "--key",
        type=_key,
        metavar="SEED[,CALL]",
        help="what the mask is a function of: fastdrop.Key(SEED, CALL) (another one each time)",
    )
    for name, options in OPTIONS.items():
        option(f"--{name.replace('_', '-')}", **options)
    option("--out", type=Path, metavar="FILE", help="draw into a .png file (needs matplotlib)")
    option("--force", action="store_true", help="replace a file that is there")


def _family() -> str:
    return f"one of {', '.join(FAMILY)} (%(default)s)"


def run(arguments: argparse.Namespace) -> None:
    """Print the layer, its key and what it keeps, and draw its mask: here or into a file.

    Parameters
    ----------
    arguments : argparse.Namespace
        Of the command line, see `add`.

    Raises
    ------
    ValueError
        When an argument does not fit the others or its description.
    OSError
        When the file is there already, or cannot be written.
    ImportError
        When there is no matplotlib to draw a file.
    """
    cls, out = FAMILY[arguments.layer], arguments.out
    shape = _shape_of(cls, arguments)
    given = _arguments_of(cls, shape, arguments)
    try:
        layer = _fitting(cls(**given), shape)
    except ValueError as error:
        raise _of_option(error) from None
    key = Key(secrets.randbits(32)) if arguments.key is None else arguments.key
    if out is not None:
        _check_out(out, arguments.force)
        from fastdrop.diagrams import render_effect
    elif arguments.force:
        raise ValueError("--force: expected it with --out, got no file to replace")
    effect = effect_of(layer, shape, key)
    title, said = f"{layer!r}, {key!r}", _said(layer, effect)
    if out is not None:
        replace_file(out, render_effect(effect, title, said))
        arguments.console.tell(f"written: {out}")
    lines = [title, said]
    if out is None and not arguments.json:
        blocks = _has_blocks(getattr(sys.stdout, "encoding", None))
        lines += _drawn(effect, shutil.get_terminal_size().columns, blocks)
    facts = {"layer": repr(layer), "key": key._asdict(), "shape": list(shape)}
    facts |= {"kept": _share(layer, effect), "expected": layer.share_kept()}
    arguments.console.result("\n".join(lines), facts)


def _key(text: str) -> Key:
    words = text.split(",")
    try:
        if len(words) <= 2:
            return Key(*map(int, words))
    except ValueError:
        pass
    raise argparse.ArgumentTypeError(
        f"expected SEED or SEED,CALL, whole numbers in [0, 2**64), got {shown(text)}"
    )


def _sizes(text: str) -> Shape:
    """Read the sizes of a sample's axes."""
    sizes = text.lower().replace("\N{MULTIPLICATION SIGN}", "x").replace(",", "x").split("x")
    if not all(size.isascii() and size.isdecimal() and len(size) < 20 for size in sizes):
        raise argparse.ArgumentTypeError(f"expected sizes such as 4x16x16, got {shown(text)}")
    shape = tuple(map(int, sizes))
    if len(shape) > 8 or 0 in shape or math.prod(shape) > ELEMENTS:
        raise argparse.ArgumentTypeError(
            f"expected up to 8 sizes above 0 and {ELEMENTS:,} elements to draw, got {shown(text)}"
        )
    return shape


def _takes_weights(cls: type[Layer]) -> bool:
    """Tell whether what the layer drops are weights, which all samples share."""
    return issubclass(cls, layers.WeightDropout | layers.DropConnect)


def _shape_of(cls: type[Layer], arguments: argparse.Namespace) -> Shape:
    """Return the shape of the batch, or of the weights."""
    axes, shape, samples = _axes_of(cls, arguments.data_format), arguments.shape, arguments.samples
    if shape is None:
        shape = tuple(SIZES.get(axis, FEATURES) for axis in axes or ("height", "width"))
    elif axes is not None and len(shape) != len(axes):
        got = "x".join(map(str, shape))
        raise ValueError(f"--shape: expected {' x '.join(axes)} for {cls.__name__}, got {got}")
    if _takes_weights(cls):
        if samples is not None:
            raise ValueError(f"--samples: expected none for {cls.__name__}, which drops weights")
        return shape
    if samples is None:
        samples = 8 if cls is layers.DropPath else 1  # which takes a decision for each
    if samples * math.prod(shape) > ELEMENTS:
        raise ValueError(f"--samples: expected {ELEMENTS:,} elements at most, got {samples}")
    return (samples, *shape)


def _axes_of(cls: type[Layer], data_format: str | None) -> tuple[str, ...] | None:
    """Return the names of the axes of `--shape`, where there have to be so many."""
    if issubclass(cls, layers.DropConnect):
        return ("units", "inputs")
    if issubclass(cls, layers.EmbeddingDropout):
        return ("words", "features")
    axes: tuple[str, ...] | None = getattr(cls, "sample_axes", None)
    space = getattr(cls, "space", None)
    if space is not None:
        axes = (*space, "channels") if data_format == "channels_last" else ("channels", *space)
    return axes


def _arguments_of(cls: type[Layer], shape: Shape, arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the layer's arguments that the options give."""
    given = {name: getattr(arguments, name) for name in OPTIONS}
    given = {name: value for name, value in given.items() if value is not None}
    parameters = inspect.signature(cls).parameters
    for name in given:
        if name not in parameters:
            takers = [each for each in FAMILY if name in inspect.signature(FAMILY[each]).parameters]
            raise ValueError(
                f"--{name.replace('_', '-')}: expected it with {' or '.join(takers[:3])}, "
                f"got {cls.__name__}, which takes none"
            )
    if "shared_axes" in given:
        given["shared_axes"] = _axes(given["shared_axes"])
    if cls is layers.GaussianNoise:
        given.setdefault("stddev", 1.0)
    if "units" in parameters:
        given["units"] = shape[0] if _takes_weights(cls) else 1
    return given


def _axes(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(axis) for axis in text.split(","))
    except ValueError:
        raise ValueError(f"--shared-axes: expected axes such as 1,2, got {shown(text)}") from None


def _check_out(out: Path, force: bool) -> None:
    if out.suffix.lower() != ".png":
        raise ValueError(f"--out: expected a name that ends in .png, got {out}")
    if out.is_dir():
        raise ValueError(f"--out: expected a file, got the folder {out}")
    if out.exists() and not force:
        raise ValueError(f"--out: expected a file that is not there yet, or --force, got {out}")
    if not out.parent.is_dir():
        raise ValueError(f"--out: expected a file in a folder that is there, got {out}")


def _fitting(layer: Layer, shape: Shape) -> Layer:
    """Return the layer, which can take such a batch."""
    if not isinstance(layer, layers.DropConnect):
        layer.output_shape(shape[1:])
    return layer


def _of_option(error: ValueError) -> ValueError:
    """Return what a layer says of an argument as what is wrong with an option."""
    argument, _, text = str(error).partition(": ")
    option = argument.replace("_", "-") if argument in OPTIONS else "shape"
    return ValueError(f"--{option}: {text if argument in OPTIONS else error}")


def _share(layer: Layer, effect: Effect) -> float:
    """Return the share that was kept; `ConcreteDropout` keeps parts of elements."""
    if effect.kept is not None:
        return float(effect.kept.mean())
    share = layer.share_kept()
    return 1.0 if share is None else float(effect.values.mean() * share)


def _said(layer: Layer, effect: Effect) -> str:
    """Return the share that was kept, or how much noise there is, in a line."""
    values, share = effect.values, layer.share_kept()
    count = f"{values.size:,} elements of shape {'x'.join(map(str, values.shape))}"
    if share is not None:
        parts = ", by parts" if effect.kept is None else ""
        more = "; squares overlap" if isinstance(layer, layers.DropBlock2d) else ""
        return f"kept: {_share(layer, effect):.2%} of {count}{parts} (1 - p = {share:.2%}{more})"
    kind = "added" if isinstance(layer, layers.GaussianNoise) else "factors"
    return f"kept: all of {count}; {kind}: mean {values.mean():.3f}, deviation {values.std():.3f}"


def _has_blocks(encoding: str | None) -> bool:
    """Tell whether what is printed may have blocks and shades in it."""
    try:
        (SHADES + "".join(HALVES.values())).encode(encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def _drawn(effect: Effect, width: int, blocks: bool) -> Iterator[str]:
    """Give the lines of the picture, as wide as they may be; what does not fit is told."""
    maps = effect.maps()
    map_width = min(maps.shape[-1], width)
    lines = _all_lines(effect, maps[..., :width], blocks, width)
    yield from islice(lines, ROWS)
    if maps.shape[-1] > width or next(lines, None) is not None:
        yield f"(cut to {map_width} columns and {ROWS} lines; --out draws all of it)"


def _all_lines(effect: Effect, maps: Array, blocks: bool, width: int) -> Iterator[str]:
    """Give the lines of all maps, as many beside each other as there is room for."""
    rows, columns, _, map_width = maps.shape
    places = effect.places() if rows * columns > 1 else [""]
    cell = min(width, max(map_width, *map(len, places)))
    beside = max(1, (width + 2) // (cell + 2))
    for row in range(rows):
        for start in range(0, columns, beside):
            part = range(start, min(start + beside, columns))
            if rows * columns > 1:
                yield _side_by_side([places[row * columns + column] for column in part], cell)
            images = [_lines(maps[row, column], effect.kept is not None, blocks) for column in part]
            yield from (_side_by_side(pieces, cell) for pieces in zip(*images))


def _side_by_side(texts: Iterable[str], cell: int) -> str:
    return "  ".join(text[:cell].ljust(cell) for text in texts).rstrip()


def _lines(image: Array, is_mask: bool, blocks: bool) -> list[str]:
    """Return an image as text: two rows of a mask in a line of half blocks, or shades."""
    image = image[: 2 * ROWS]
    there = np.isfinite(image)
    if not is_mask:
        shades = SHADES if blocks else ASCII_SHADES
        low, high = image[there].min(), image[there].max()
        levels = np.nan_to_num((image - low) / ((high - low) or 1)) * (len(shades) - 1)
        return ["".join(shades[level] for level in row) for row in np.rint(levels).astype(int)]
    bits = np.nan_to_num(image).astype(int)
    if not blocks:
        signs = np.where(there, np.where(bits, "#", "."), " ")
        return ["".join(row) for row in signs]
    bits = np.pad(bits, ((0, len(bits) % 2), (0, 0)))
    return [
        "".join(HALVES[upper, lower] for upper, lower in zip(above, below))
        for above, below in zip(bits[::2].tolist(), bits[1::2].tolist())
    ]
