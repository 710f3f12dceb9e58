"""`fastdrop masks`: what is drawn is the mask, and what cannot be drawn is told in a line."""

import io
import json
import re
import sys

import numpy as np
import pytest

from fastdrop import Key, dropout_mask, layers
from fastdrop.commands.main import main
from fastdrop.commands.masks import FAMILY

PNG = b"\x89PNG\r\n\x1a\n"


class Terminal(io.TextIOWrapper):
    def __init__(self, encoding):
        super().__init__(io.BytesIO(), encoding)

    def text(self):
        self.flush()
        return self.buffer.getvalue().decode(self.encoding)


@pytest.fixture
def masks(monkeypatch, tmp_path):
    """Run ``fastdrop masks`` in a terminal of this encoding and width; return what is printed."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments, encoding="ascii", columns=80):
        monkeypatch.setenv("COLUMNS", str(columns))
        terminal = Terminal(encoding)
        monkeypatch.setattr(sys, "stdout", terminal)
        assert main(["masks", *map(str, arguments)]) == 0
        return terminal.text().splitlines()

    return run


def test_a_channel_is_whole_or_gone(masks):
    title, kept, places, *picture = masks(
        *("--layer", "Dropout2d", "--p", 0.3, "--shape", "4x16x16", "--key", 42)
    )
    mask = dropout_mask((1, 4, 16, 16), 0.3, key=Key(42), shared_axes=(2, 3))
    assert title == "Dropout2d(0.3), Key(seed=42, call=0)"
    assert kept == (
        f"kept: {mask.mean():.2%} of 1,024 elements of shape 1x4x16x16 (1 - p = 70.00%)"
    )
    assert re.findall(r"\[0, \d\]", places) == [f"[0, {channel}]" for channel in range(4)]
    line = "  ".join(("#" if kept else ".") * 16 for kept in mask[0, :, 0, 0])
    assert picture == [line] * 16


def signs(mask, shown="#"):
    return ["".join(shown if kept else "." for kept in row) for row in mask]


def test_elements_of_samples(masks):
    options = ("--p", 0.25, "--shape", 40, "--samples", 6, "--key", "7,3")
    mask = dropout_mask((6, 40), 0.25, key=Key(7, 3))
    assert masks(*options)[2:] == signs(mask)
    blocks = masks(*options, encoding="utf-8")[2:]
    halves = {" ": (0, 0), "▀": (1, 0), "▄": (0, 1), "█": (1, 1)}
    drawn = np.array([[halves[sign] for sign in line.ljust(40)] for line in blocks])
    np.testing.assert_array_equal(drawn.transpose(0, 2, 1).reshape(6, 40), mask)


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252"])
def test_no_blocks_where_the_encoding_has_none(masks, encoding):
    lines = masks("--shape", "4x9", "--key", 1, encoding=encoding)
    assert lines[2:] == signs(dropout_mask((1, 4, 9), 0.5, key=Key(1))[0])


def test_shared_axes_and_groups(masks):
    options = ("--shape", 30, "--samples", 4, "--key", 5, "--shared-axes", 0)
    (line,) = signs(dropout_mask((4, 30), 0.5, key=Key(5), shared_axes=0))
    assert masks(*options)[2:] == [line] * 4
    first, second = signs(dropout_mask((2, 30), 0.5, key=Key(5)))
    assert masks(*options, "--groups", 2)[2:] == [first, first, second, second]


@pytest.mark.parametrize("encoding", ["ascii", "utf-8"])
def test_noise_is_shades(masks, encoding):
    shades = {"ascii": " .:-=+*#%@", "utf-8": " ░▒▓█"}[encoding]
    options = ("--layer", "GaussianDropout", "--p", 0.3, "--shape", "5x40", "--key", 9)
    _, said, *picture = masks(*options, encoding=encoding)
    y, _ = layers.GaussianDropout(0.3).forward(np.ones((1, 5, 40)), layers.Batch(key=Key(9)))
    assert said.startswith("kept: all of 200 elements")
    assert f"factors: mean {y.mean():.3f}, deviation {y.std():.3f}" in said
    levels = np.array([[shades.index(sign) for sign in line.ljust(40)] for line in picture])
    order = np.argsort(y[0], axis=None)
    assert (np.diff(levels.ravel()[order]) >= 0).all()
    assert levels.min() == 0
    assert levels.max() == len(shades) - 1


@pytest.mark.parametrize("name", FAMILY)
def test_each_layer_as_it_is(masks, name, tmp_path, capsys):
    out = tmp_path / "mask.png"
    title, said = masks("--layer", name, "--key", 1, "--out", out)
    assert title.startswith(f"{name}(")
    assert title.endswith("Key(seed=1, call=0)")
    assert said.startswith("kept: ")
    assert f"written: {out}" in capsys.readouterr().err
    assert out.read_bytes().startswith(PNG)
    assert len(masks("--layer", name, "--key", 1)) > 3


def test_the_family_is_what_layers_export():
    random = {name for name in layers.__all__ if getattr(vars(layers)[name], "is_random", False)}
    assert set(FAMILY) == random


def test_another_key_each_time_which_is_told(masks):
    first, second = masks("--shape", 64), masks("--shape", 64)
    assert first[0] != second[0]
    seed = first[0].partition("seed=")[2].partition(",")[0]
    assert masks("--shape", 64, "--key", seed) == first


def test_what_is_too_wide_is_cut_and_told(masks):
    lines = masks("--shape", "3x100", "--key", 1, columns=30)
    mask = dropout_mask((1, 3, 100), 0.5, key=Key(1))[0]
    assert lines[2:5] == signs(mask[:, :30])
    assert lines[5:] == ["(cut to 30 columns and 400 lines; --out draws all of it)"]
    assert max(map(len, masks("--shape", "9x3x7", "--key", 1, columns=30)[2:])) <= 30
    assert len(masks("--shape", "2000x3", "--key", 1)) == 403


def test_a_picture_has_the_mask():
    from matplotlib.figure import Figure

    from fastdrop.diagrams import draw_effect
    from fastdrop.layers.effects import effect_of

    axes = Figure().subplots()
    effect = effect_of(layers.Dropout2d(0.5), (3, 4, 5, 6), Key(1))
    draw_effect(axes, effect)
    sheet = np.asarray(axes.images[0].get_array().filled(np.nan))
    assert sheet.shape == (3 * 6 - 1, 4 * 7 - 1)
    assert np.isnan(sheet).sum() == sheet.size - effect.kept.size
    for sample in range(3):
        for channel in range(4):
            part = sheet[6 * sample :, 7 * channel :][:5, :6]
            np.testing.assert_array_equal(part, effect.kept[sample, channel])


NOT_OF_THE_FAMILY = "argument --layer: expected one of AlphaDropout, "
NOT_A_KEY = "argument --key: expected SEED or SEED,CALL, whole numbers in [0, 2**64), got "
NOT_A_P = "argument --p: expected a probability in [0, 1], got "
NOT_A_SHAPE = "argument --shape: expected sizes such as 4x16x16, got "
TOO_LARGE = "argument --shape: expected up to 8 sizes above 0 and 4,194,304 elements to draw, got "
BAD = {
    "unknown layer": ("--layer Dropuot2d", "got 'Dropuot2d'; did you mean Dropout2d?"),
    "Keras's name": ("--layer SpatialDropout2D", "'; did you mean Dropout2d?"),
    "no random layer": ("--layer Dense", NOT_OF_THE_FAMILY),
    "nothing alike": ("--layer qqq", NOT_OF_THE_FAMILY),
    "p above 1": ("--p 1.5", f"{NOT_A_P}'1.5'"),
    "p below 0": ("--p=-0.1", f"{NOT_A_P}'-0.1'"),
    "p NaN": ("--p nan", f"{NOT_A_P}'nan'"),
    "p a word": ("--p half", f"{NOT_A_P}'half'"),
    "p = 1": ("--layer GaussianDropout --p 1", "error: --p: expected 0 <= p < 1, got 1"),
    "p = 0": ("--layer ConcreteDropout --p 0", "error: --p: expected 0 < p < 1"),
    "rank": (
        "--layer Dropout2d --shape 16x16",
        "error: --shape: expected channels x height x width for Dropout2d, got 16x16",
    ),
    "weights' rank": (
        "--layer DropConnect --shape 16",
        "error: --shape: expected units x inputs for DropConnect, got 16",
    ),
    "no channels": ("--layer LockedDropout --shape 3", "expected time x features for Locked"),
    "shape": ("--shape axb", f"{NOT_A_SHAPE}'axb'"),
    "no shape": ("--shape=", f"{NOT_A_SHAPE}''"),
    "negative size": ("--shape=-4", f"{NOT_A_SHAPE}'-4'"),
    "huge number": (f"--shape {'9' * 5000}", NOT_A_SHAPE),
    "size 0": ("--shape 4x0", f"{TOO_LARGE}'4x0'"),
    "huge": ("--shape 100000x100000", f"{TOO_LARGE}'100000x100000'"),
    "many axes": (f"--shape {'x'.join('1' * 40)}", TOO_LARGE),
    "huge batch": ("--shape 1000 --samples 10000", "--samples: expected 4,194,304 elements"),
    "key too large": (f"--key {2**64}", f"{NOT_A_KEY}'{2**64}'"),
    "call too large": (f"--key 1,{2**64}", f"{NOT_A_KEY}'1,{2**64}'"),
    "key negative": ("--key=-1", f"{NOT_A_KEY}'-1'"),
    "key of three": ("--key 1,2,3", f"{NOT_A_KEY}'1,2,3'"),
    "key of words": ("--key abc", f"{NOT_A_KEY}'abc'"),
    "no samples": ("--samples 0", "argument --samples: expected a whole number in [1, 2**31)"),
    "samples of weights": ("--layer WeightDropout --samples 3", "--samples: expected none for W"),
    "another layer's option": (
        "--block-size 3",
        "error: --block-size: expected it with DropBlock2d, got Dropout, which takes none",
    ),
    "block too large": (
        "--layer DropBlock2d --shape 1x4x4",
        "error: --block-size: expected at most 4 on maps of 4 x 4, got 7",
    ),
    "mode": ("--mode upside", "argument --mode: expected one of inverted, vanilla"),
    "other mode": ("--mode row", "error: --mode: expected 'inverted' or 'vanilla', got 'row'"),
    "axis": ("--shared-axes 7", "error: --shared-axes: expected axes of a 3-d array, got 7"),
    "axes": ("--shared-axes a", "error: --shared-axes: expected axes such as 1,2, got 'a'"),
    "groups": ("--groups 2", "error: --groups: expected 0 in shared_axes"),
    "data format": ("--layer Dropout2d --data-format last", "argument --data-format: expected one"),
    "deviation": ("--layer GaussianNoise --stddev=-1", "error: --stddev: expected a finite number"),
    "p of noise": ("--layer GaussianNoise --p 0.5", "error: --p: expected it with "),
    "no PNG": ("--out mask.jpg", "--out: expected a name that ends in .png, got mask.jpg"),
    "there already": (
        "--out there.png",
        "error: --out: expected a file that is not there yet, or --force, got there.png",
    ),
    "a folder": ("--out folder.png --force", "error: --out: expected a file, got the folder"),
    "no folder": ("--out no/mask.png", "error: --out: expected a file in a folder that is there"),
    "force without a file": ("--force", "error: --force: expected it with --out"),
    "unknown option": ("--sahpe 4", "error: unknown option --sahpe; did you mean --shape?"),
}


def status_of(arguments):
    try:
        return main(["masks", *arguments])
    except SystemExit as end:
        return end.code


@pytest.mark.parametrize(("arguments", "message"), BAD.values(), ids=BAD)
def test_bad_input(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there.png").write_text("mine")
    (tmp_path / "folder.png").mkdir()
    before = sorted(tmp_path.iterdir())
    assert status_of(arguments.split()) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = captured.err.splitlines()
    assert line.startswith("fastdrop masks: error: ")
    assert message in line
    assert len(line) <= 200
    assert sorted(tmp_path.iterdir()) == before
    assert (tmp_path / "there.png").read_text() == "mine"


def test_as_json(masks):
    facts = json.loads("".join(masks("--json", "--layer", "Dropout", "--p", 0.25, "--key", "7,3")))
    kept = dropout_mask((1, 12, 24), 0.25, key=Key(7, 3)).mean()
    assert facts == {
        "layer": "Dropout(0.25)",
        "key": {"seed": 7, "call": 3},
        "shape": [1, 12, 24],
        "kept": pytest.approx(kept),
        "expected": 0.75,
    }


def test_force_replaces(masks, tmp_path):
    out = tmp_path / "mask.png"
    out.write_text("mine")
    masks("--out", out, "--force")
    assert out.read_bytes().startswith(PNG)


def test_without_matplotlib(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "matplotlib.axes", None)
    monkeypatch.delitem(sys.modules, "fastdrop.diagrams", raising=False)
    assert main(["masks", "--out", str(tmp_path / "mask.png")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "needs matplotlib: pip install 'fastdrop-nn[plot]'" in line
    assert main(["masks"]) == 0
