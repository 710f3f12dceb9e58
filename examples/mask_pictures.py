"""How a mask is made, as two pictures: where an element's bits lie, and how they decide.

    python examples/mask_pictures.py docs/figures

makes mask_contract.svg and bits.svg. The bits in them are those of a real key.
"""

import argparse
import io
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

import fastdrop
from fastdrop._output import replace_file
from fastdrop.compiled import _core

KEY, P = fastdrop.Key(42), 0.3
ELEMENTS, PLANES = 24, 8  # of the picture of decisions
ELEMENT = 1234  # which the picture of planes follows
INK, GREY, LIGHT, BLUE, ORANGE = "#222222", "#777777", "#dddddd", "#1b6ca8", "#d95f02"


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
    figure, axes = axes_of(9.6, 4.4)
    numbers = np.array([bits_of(i, 32) for i in range(ELEMENTS)])
    digits = digits_of(1 - P, PLANES)
    kept = fastdrop.dropout_mask(ELEMENTS, P, key=KEY)
    decided_in = (numbers != digits_of(1 - P, 32)).argmax(axis=1)
    decided_by = numbers[np.arange(ELEMENTS), decided_in]
    assert np.array_equal(kept, decided_by == 0)  # what the picture says is what the kernels do
    side, left, top = 0.3, 1.75, 3.65
    axes.text(left, top + 0.42, "one column for each element, its random bits from above", color=INK)
    axes.text(0.1, top + 0.42, f"1 - p = {1 - P:g}", color=INK)
    for plane, digit in enumerate(digits):
        y = top - plane * (side + 0.06)
        axes.text(0.1, y + 0.09, f"plane {plane}: digit {digit}", color=INK, fontsize=9)
        for i in range(ELEMENTS):
            before, here = decided_in[i] < plane, decided_in[i] == plane
            colour = (BLUE if kept[i] else ORANGE) if here else "white"
            x = left + i * (side + 0.01)
            if not before:
                axes.add_patch(Rectangle((x, y), side, side, facecolor=colour, edgecolor=GREY))
                text = "white" if here else INK
                axes.text(x + side / 2, y + 0.09, numbers[i, plane], ha="center", color=text)
        left_over = int((decided_in > plane).sum())
        axes.text(left + ELEMENTS * (side + 0.01) + 0.1, y + 0.09, left_over, color=GREY)
    axes.text(left + ELEMENTS * (side + 0.01) + 0.05, top + 0.42, "left", color=GREY)
    y = top - PLANES * (side + 0.06) - 0.12
    axes.text(0.1, y + 0.09, "mask", color=INK, fontweight="bold")
    for i in range(ELEMENTS):
        colour = BLUE if kept[i] else ORANGE
        x = left + i * (side + 0.01)
        axes.add_patch(Rectangle((x, y), side, side, facecolor=colour, edgecolor="white"))
    for x, colour, text in ((left, BLUE, "kept: bit 0, digit 1"), (4.3, ORANGE, "dropped: bit 1, digit 0")):
        axes.add_patch(Rectangle((x, 0.18), 0.2, 0.2, facecolor=colour))
        axes.text(x + 0.28, 0.22, text, color=INK, fontsize=9)
    axes.add_patch(Rectangle((7.0, 0.18), 0.2, 0.2, facecolor="white", edgecolor=GREY))
    axes.text(7.28, 0.22, "undecided: equal", color=INK, fontsize=9)
    return figure


def planes():
    """Draw where the bits of one element lie: in a word of each plane of its tile."""
    figure, axes = axes_of(9.6, 5.0)
    width, height, left, bottom = 0.42, 0.34, 2.5, 1.75
    for plane in (3, 2, 1):  # behind the first
        shift = 0.13 * plane
        axes.add_patch(
            Rectangle(
                (left + shift, bottom + shift),
                16 * width,
                4 * height,
                facecolor="white",
                edgecolor=GREY,
            )
        )
    word, bit = ELEMENT >> 5 & 63, ELEMENT & 31
    for w in range(64):
        x, y = left + (w & 15) * width, bottom + (3 - (w >> 4)) * height
        mine = w == word
        colour = BLUE if mine else "white"
        axes.add_patch(Rectangle((x, y), width, height, facecolor=colour, edgecolor=LIGHT))
        text = "white" if mine else INK
        axes.text(x + width / 2, y + 0.11, w, ha="center", fontsize=8, color=text)
    axes.add_patch(Rectangle((left, bottom), 16 * width, 4 * height, fill=False, edgecolor=INK))
    for row in range(4):
        y = bottom + (3 - row) * height + 0.1
        axes.text(left - 0.1, y, f"output word {row}", ha="right", fontsize=9, color=GREY)
    for column in (0, 1, 15):
        x = left + column * width + width / 2
        axes.text(x, bottom - 0.22, f"{column}", ha="center", fontsize=9, color=GREY)
    axes.text(left + 8 * width, bottom - 0.22, "block of Philox", ha="center", fontsize=9, color=GREY)
    axes.text(
        left + 0.45,
        bottom + 4 * height + 0.48,
        "planes 0, 1, 2, ... of one tile: 64 words of 32 bits = 2048 elements",
        color=INK,
    )
    axes.text(
        0.1,
        4.6,
        f"Philox(counter: block, plane, call; key: seed)  gives four words of 32 bits.   "
        f"Here Key({KEY.seed}), tile {ELEMENT >> 11}.",
        color=INK,
    )
    numbers, digits = bits_of(ELEMENT, 12), digits_of(1 - P, 12)
    decided = next(j for j, (a, b) in enumerate(zip(numbers, digits)) if a != b)
    axes.text(
        0.1,
        1.1,
        f"Element {ELEMENT} is bit {bit} of word {word}. Its random number has one bit from each plane:",
        color=BLUE,
    )
    for row, (name, values) in enumerate((("u", numbers), (f"1 - p = {1 - P:g}", digits))):
        y = 0.72 - 0.27 * row
        axes.text(left - 0.1, y, f"{name} = 0.", ha="right", color=INK)
        for j, value in enumerate(values):
            colour = INK if j < decided else (BLUE if j == decided else GREY)
            weight = "bold" if j == decided else "normal"
            axes.text(left + 0.22 * j, y, value, color=colour, fontweight=weight)
    kept = fastdrop.dropout_mask(ELEMENT + 1, P, key=KEY)[ELEMENT]
    assert kept == (numbers[decided] < digits[decided])
    said = "u is smaller: the element is kept" if kept else "u is larger: the element is dropped"
    axes.text(left + 0.22 * 12 + 0.3, 0.58, f"{said} (decided by plane {decided})", color=BLUE)
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
