"""What a model and a history show of themselves: tables, notebooks, pictures."""

import math
import re
import subprocess
import sys
from html.parser import HTMLParser

import numpy as np
import pytest

from fastdrop import Sequential, _html, layers
from fastdrop.callbacks import History, LambdaCallback
from fastdrop.layers import Dense, Dropout, Residual, schedules


def model(**arguments):
    return Sequential(
        [
            layers.Input((6, 6, 8)),
            layers.Dropout2d(0.25, "channels_last"),
            layers.Flatten(),
            layers.DropConnect(16, 0.5, "relu"),
            Residual([Dense(4, "relu"), Dropout(schedules.Linear(0, 0.5, 10)), Dense(16)]),
            layers.GaussianNoise(0.5),
            Dense(1),
        ],
        seed=1,
        **arguments,
    )


def test_summary_without_dropout_is_as_it_was(capsys):
    model().summary()
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["Layer", "(type)", "Output", "shape", "Params"]
    assert len(lines) == 3 + 6 + 1
    assert "Kept" not in lines[0]


def test_summary_with_dropout(capsys):
    shown = model()
    shown.summary(show_dropout=True)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith("Kept in training")
    kept = dict(
        re.findall(r"\((\w+)\).*?  ((?:\d+ %|all).*)$", text)[0]
        for text in lines
        if re.search(r"%|all,", text)
    )
    assert kept == {
        "Dropout2d": "75 % of channels",
        "DropConnect": "50 % of weights",
        "Dropout": "100 % of units",
        "GaussianNoise": "all, with noise",
    }
    shown.step = 5  # of ten, in which p grows to a half
    shown.summary(show_dropout=True)
    assert "75 % of units" in capsys.readouterr().out
    with pytest.raises(ValueError, match="show_dropout: expected True or False, got 'yes'"):
        shown.summary(show_dropout="yes")


@pytest.mark.parametrize(
    "layer",
    [
        layers.Dropout(0.3),
        layers.AlphaDropout(0.3),
        layers.DropBlock2d(0.3),
        layers.DropPath(0.3),
        layers.Zoneout(0.3),
        layers.LockedDropout(0.3),
    ],
    ids=repr,
)
def test_share_kept(layer):
    assert layer.share_kept() == pytest.approx(0.7)
    assert layer.kept().startswith("70 % of ")


def test_share_kept_of_others():
    assert Dense(3).share_kept() is None
    assert Dense(3).kept() == ""
    assert layers.GaussianDropout(0.3).kept() == "all, with noise"
    concrete = layers.ConcreteDropout(3, 0.3)
    assert concrete.share_kept() == pytest.approx(0.7)
    concrete.build((4,), layers.base.Key(1))
    assert concrete.share_kept() == pytest.approx(0.7)
    concrete.params["logit"][:] = 0  # learnt
    assert concrete.share_kept() == 0.5


def test_share_kept_is_what_layers_keep():
    for layer, shape in (
        (Dropout(0.3), (500, 400)),
        (layers.Dropout1d(0.3), (500, 400, 2)),
        (layers.DropPath(0.3), (50_000, 1)),
    ):
        y, _ = layer.forward(np.ones(shape), layers.Batch(key=layers.base.Key(1)))
        assert np.mean(y != 0) == pytest.approx(layer.share_kept(), abs=0.02)


# ---- notebooks ----------------------------------------------------------------------------------


class Checked(HTMLParser):
    """What is in a piece of HTML; tags that are not closed, or not ours, are errors."""

    def __init__(self, text):
        super().__init__()
        self.open, self.cells, self.tags = [], [], set()
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attributes):
        assert tag in {"table", "caption", "thead", "tbody", "tr", "th", "td", "svg", "polyline"}
        if tag != "polyline":
            self.open.append(tag)
        self.tags.add(tag)
        self.cells += [""] if tag in ("td", "th", "caption") else []
        for name, value in attributes:
            assert name in {"style", "scope", "width", "height", "role", "aria-label", "points"} | {
                "fill",
                "stroke",
                "stroke-width",
                "stroke-linecap",
            }
            # light and dark: no colour of its own
            assert not re.search(r"#[0-9a-f]{3}|black|white(?!-)", value), value

    def handle_endtag(self, tag):
        if tag != "polyline":
            assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] in ("td", "th", "caption"):
            self.cells[-1] += data


HOSTILE = "<script>alert('x')</script> & \"quoted\""


def test_model_for_notebooks():
    shown = model(name=HOSTILE)
    shown.layers[0].name = HOSTILE
    found = Checked(shown._repr_html_())
    assert found.cells[0].startswith(f"{HOSTILE}, Total params: ")
    assert f"{HOSTILE} (Dropout2d)" in found.cells
    assert "75 % of channels" in found.cells
    assert any(cell.startswith("  dropout (Dropout)") for cell in found.cells)
    Checked(Sequential()._repr_html_())
    assert "unknown yet" in Checked(Sequential([Dense(3)])._repr_html_()).cells


def trained(epochs=4, **arguments):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(64, 3)), rng.normal(size=(64, 1))
    network = Sequential([Dense(8, "relu"), Dropout(0.5), Dense(1)], seed=1)
    network.compile("adam", "mse", ["mae"])
    return network.fit(x, y, epochs=epochs, verbose=0, **arguments)


def test_history_for_notebooks():
    history = trained(validation_split=0.25)
    found = Checked(history._repr_html_())
    assert found.cells[0] == "History, epochs: 4"
    assert {"loss", "mae", "val_loss", "val_mae"} < set(found.cells)
    assert "polyline" in found.tags
    row = found.cells[found.cells.index("loss") :][:5]
    losses = history.history["loss"]
    assert row[1:3] == [f"{losses[0]:.4g}", f"{losses[-1]:.4g}"]
    assert row[3] == f"{min(losses):.4g} (epoch {losses.index(min(losses)) + 1})"
    assert row[4] == f"{max(losses):.4g} (epoch {losses.index(max(losses)) + 1})"


def history_of(**figures):
    history = History()
    for epoch in range(max(map(len, figures.values()))):
        history.on_epoch_end(epoch, {n: v[epoch] for n, v in figures.items() if epoch < len(v)})
    return history


STRANGE = {
    "one epoch": {"loss": [0.5]},
    "constant": {"loss": [0.5, 0.5, 0.5]},
    "NaN": {"loss": [0.5, math.nan, 0.25], "val_loss": [math.nan] * 3},
    "infinite": {"loss": [math.inf, 1.0, -math.inf]},
    "ends NaN": {"loss": [0.5, math.nan], "val_loss": [0.25, math.nan]},
    "huge": {"loss": [1.7e308, -1.7e308]},
    "whole numbers": {"loss": [3, 2, 1]},
    "hostile": {HOSTILE: [1.0, 2.0], f"val_{HOSTILE}": [2.0, 3.0], "$x_{$": [1.0, 2.0]},
    "not numbers": {"loss": [0.5, 0.25], "note": ["good", "bad"]},
    "shorter": {"learning_rate": [0.1], "loss": [0.5, 0.25, 0.125]},
    "long": {"loss": list(np.linspace(1, 0, 5000))},
    "many": {f"m{i}": [1.0, 2.0] for i in range(7)},
}


@pytest.mark.parametrize("figures", STRANGE.values(), ids=STRANGE)
def test_strange_histories(figures):
    pytest.importorskip("matplotlib")
    history = history_of(**figures)
    found = Checked(history._repr_html_())
    for name, values in figures.items():
        assert (name in found.cells) == (not isinstance(values[0], str))
    assert repr(history).isprintable()
    assert history.plot()._repr_png_().startswith(b"\x89PNG")


def test_a_long_curve_has_few_points():
    text = _html.curve(list(np.linspace(0, 1, 100_000)))
    assert len(text) < 5000


def test_history_shows_the_last_epoch():
    assert repr(History()) == "History()"
    assert repr(history_of(loss=[0.5, 0.25])) == "<History of 2 epochs, the last one loss: 0.2500>"


def test_empty_history():
    Checked(History()._repr_html_())
    pytest.importorskip("matplotlib")
    with pytest.raises(ValueError, match="history: expected at least one epoch, got none"):
        History().plot()


# ---- the picture --------------------------------------------------------------------------------


def test_plot():
    pytest.importorskip("matplotlib")
    from matplotlib.figure import Figure

    history = trained(
        validation_split=0.25,
        callbacks=[LambdaCallback(on_epoch_end=lambda epoch, logs: logs.update(rate=0.1))],
    )
    figure = history.plot()
    assert isinstance(figure, Figure)
    panels = {axes.get_title(loc="left"): axes for axes in figure.axes}
    assert list(panels) == ["loss", "mae", "rate"]
    for name in ("loss", "mae"):
        training, validation = panels[name].lines
        assert list(training.get_xdata()) == [1, 2, 3, 4]
        np.testing.assert_array_equal(training.get_ydata(), history.history[name])
        np.testing.assert_array_equal(validation.get_ydata(), history.history[f"val_{name}"])
        labels = {text.get_text(): text.get_color() for text in panels[name].texts}
        assert labels == {
            "training": training.get_color(),
            "validation": validation.get_color(),
        }
    assert len(panels["rate"].lines) == 1
    assert not panels["rate"].texts


@pytest.mark.parametrize("distance", [0, 1e-9, 0.01, 1])
def test_labels_do_not_cover_each_other(distance):
    pytest.importorskip("matplotlib")
    figure = history_of(loss=[1.0, 0.5], val_loss=[1.0, 0.5 + distance]).plot()
    figure.draw_without_rendering()
    one, other = (text.get_window_extent() for text in figure.axes[0].texts)
    assert not one.overlaps(other)


def test_plot_in_a_process_without_a_display_and_without_pyplot(tmp_path):
    pytest.importorskip("matplotlib")
    code = """
import sys
from fastdrop.callbacks import History
history = History()
history.on_epoch_end(0, {"loss": 1.0})
history.plot().savefig(sys.argv[1])
assert "matplotlib.pyplot" not in sys.modules
"""
    picture = tmp_path / "history.png"
    environment = {"MPLBACKEND": "TkAgg", "PATH": "", "PYTHONPATH": ":".join(sys.path)}
    subprocess.run([sys.executable, "-c", code, picture], env=environment, check=True)
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_plot_without_matplotlib(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.axes", None)
    monkeypatch.delitem(sys.modules, "fastdrop.callbacks.curves", raising=False)
    with pytest.raises(ImportError, match=r"pip install 'fastdrop-nn\[plot\]'") as caught:
        history_of(loss=[1.0]).plot()
    assert "\n" not in str(caught.value)
