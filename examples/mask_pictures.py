"""How a mask is made, as two pictures: where an element's bits lie, and how they decide.

    python examples/mask_pictures.py docs/figures

makes mask_contract.svg and bits.svg. The bits in them are those of a real key.
"""

import argparse
import io
from functools import partial
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

import fastdrop
from fastdrop._output import replace_file
from fastdrop.compiled import _core

KEY, P = fastdrop.Key(42), 0.3
ELEMENTS = 24  # of the picture of decisions
ELEMENT = 1208  # which the picture of planes follows
INK, GREY, LIGHT = "#222222", "#777777", "#dddddd"
COLOURS = "#d95f02", "#1b6ca8"  # dropped, kept


def bits_of(element, planes):
    """The first binary digits of an element's random number, by the mask contract."""
    word, block = element >> 5 & 63, 16 * (element >> 11) + (element >> 5 & 15)
    words = [
        _core.philox((block, plane << 16, KEY.call, 0), KEY.seed)[word >> 4]
        for plane in range(planes)
    ]
    return [word >> (element & 31) & 1 for word in words]


def digits_of(probability, planes):
    """The first binary digits of the probability of keeping."""
    threshold = round(probability * 2**32)
    return [threshold >> (31 - plane) & 1 for plane in range(planes)]


def axes_of(width, height):
    figure = Figure(figsize=(width, height), facecolor="white")
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, width), ylim=(0, height))
    axes.set_axis_off()
    return figure, axes


def decisions():
    """Draw plane after plane: which elements a binary digit decides, and which it leaves."""
    numbers = np.array([bits_of(i, 32) for i in range(ELEMENTS)])
    kept = fastdrop.dropout_mask(ELEMENTS, P, key=KEY).astype(int)
    decided_in = (numbers != digits_of(1 - P, 32)).argmax(axis=1)
    decided_by = numbers[np.arange(ELEMENTS), decided_in]
    assert np.array_equal(kept, decided_by == 0)  # what the picture says is what the kernels do
    digits = digits_of(1 - P, decided_in.max() + 1)
    side, step, left, right = 0.3, 0.36, 1.75, 9.3
    top = 1.0 + step * len(digits)
    figure, axes = axes_of(9.6, top + 0.9)
    write = partial(axes.text, color=INK, fontsize=9)
    write(0.1, top + 0.5, f"1 - p = {1 - P:g} = 0.{''.join(map(str, digits_of(1 - P, 8)))}...")
    write(left + 1.2, top + 0.5, "one column for each element: its random bits, from above")
    write(9.55, top + 0.5, "undecided", ha="right", color=GREY)
    for plane, digit in enumerate(digits):
        y = top - plane * step
        write(0.1, y + 0.09, f"plane {plane}: digit {digit}")
        write(right, y + 0.09, (decided_in > plane).sum(), ha="center", color=GREY)
        for i in np.flatnonzero(decided_in >= plane):
            here = decided_in[i] == plane
            colour = COLOURS[kept[i]] if here else "white"
            x = left + i * (side + 0.01)
            axes.add_patch(Rectangle((x, y), side, side, facecolor=colour, edgecolor=GREY))
            colour = "white" if here else INK
            write(x + side / 2, y + 0.09, numbers[i, plane], ha="center", color=colour)
    y = top - len(digits) * step - 0.1
    write(0.1, y + 0.09, "the mask", fontweight="bold")
    for i in range(ELEMENTS):
        x = left + i * (side + 0.01)
        axes.add_patch(Rectangle((x, y), side, side, facecolor=COLOURS[kept[i]]))
    legend = ("kept: bit 0, digit 1", COLOURS[1]), ("dropped: bit 1, digit 0", COLOURS[0])
    for x, (said, colour) in zip((left, 4.3, 7.0), (*legend, ("undecided: equal", "white"))):
        axes.add_patch(Rectangle((x, 0.18), 0.2, 0.2, facecolor=colour, edgecolor=GREY))
        write(x + 0.28, 0.22, said)
    return figure


def planes():
    """Draw where the bits of one element lie: in a word of each plane of its tile."""
    figure, axes = axes_of(9.6, 4.3)
    write = partial(axes.text, color=INK, fontsize=9)
    width, height, left, bottom = 0.41, 0.34, 1.6, 1.75
    size = 16 * width, 4 * height
    for shift in (0.39, 0.26, 0.13):  # the planes behind the first
        corner = left + shift, bottom + shift
        axes.add_patch(Rectangle(corner, *size, facecolor="white", edgecolor=GREY))
    word, bit = ELEMENT >> 5 & 63, ELEMENT & 31
    for w in range(64):
        x, y = left + (w & 15) * width, bottom + (3 - (w >> 4)) * height
        colours = (COLOURS[1], "white") if w == word else ("white", INK)
        axes.add_patch(Rectangle((x, y), width, height, facecolor=colours[0], edgecolor=LIGHT))
        write(x + width / 2, y + 0.11, w, ha="center", fontsize=8, color=colours[1])
    axes.add_patch(Rectangle((left, bottom), *size, fill=False, edgecolor=INK))
    for row in range(4):
        y = bottom + (3 - row) * height + 0.1
        write(left - 0.1, y, f"output word {row}", ha="right", color=GREY)
    for column, said in ((0, "block 0"), (1, "1"), (15, "block 15")):
        x = left + (column + 0.5) * width
        write(x, bottom - 0.22, said, ha="center", color=GREY, fontsize=8)
    y = bottom + size[1] + 0.47
    write(
        left + 0.4,
        y,
        "planes 0, 1, 2, ... of a tile: 16 blocks of 4 words of 32 bits = 2048 elements",
    )
    write(
        left - 0.1,
        y + 0.4,
        f"Philox, with the seed {KEY.seed} as its key, makes four words of the counter "
        "(block, plane, call)",
    )
    numbers, digits = bits_of(ELEMENT, 12), digits_of(1 - P, 12)
    decided = [a == b for a, b in zip(numbers, digits)].index(False)
    kept = int(fastdrop.dropout_mask(ELEMENT + 1, P, key=KEY)[ELEMENT])
    assert kept == (numbers[decided] < digits[decided])
    write(
        0.1,
        1.08,
        f"Element {ELEMENT} is bit {bit} of word {word}. Its random number u has one bit from each "
        "plane:",
        color=COLOURS[1],
    )
    for y, name, values in ((0.7, "u", numbers), (0.42, f"1 - p = {1 - P:g}", digits)):
        write(left - 0.1, y, f"{name} = 0.", ha="right", fontsize=10)
        for j, value in enumerate(values):
            colour, weight = (COLOURS[kept], "bold") if j == decided else (GREY, "normal")
            write(left + 0.2 * j, y, value, color=colour, fontweight=weight, fontsize=10)
    said = "u is smaller: the element is kept" if kept else "u is larger: the element is dropped"
    write(left + 2.8, 0.56, f"{said}. Plane {decided} decides.", color=COLOURS[kept])
    return figure


def main(folder):
    matplotlib.rcParams.update({"svg.hashsalt": "fastdrop", "svg.fonttype": "path"})
    folder.mkdir(parents=True, exist_ok=True)
    for name, draw in {"mask_contract": planes, "bits": decisions}.items():
        file = io.BytesIO()
        draw().savefig(file, format="svg", metadata={"Date": None})
        replace_file(folder / f"{name}.svg", file.getvalue())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="where the pictures go")
    main(parser.parse_args().folder)
