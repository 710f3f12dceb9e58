"""convert and revert: fastdrop in the layers of one model."""

import copy
import functools

import pytest

torch = pytest.importorskip("torch", reason="needs PyTorch")

from torch import nn

import fastdrop.torch as fnn

ALL = [
    nn.Dropout,
    nn.Dropout1d,
    nn.Dropout2d,
    nn.Dropout3d,
    nn.AlphaDropout,
    nn.FeatureAlphaDropout,
]


class OwnDropout(nn.Dropout):
    pass


def test_every_layer_and_back():
    model = nn.Sequential(*[kind(0.1 * i, bool(i % 2)) for i, kind in enumerate(ALL)], OwnDropout())
    model[1].eval()
    before = repr(model)
    layers = list(model)
    assert fnn.convert(model) == [str(i) for i in range(6)]
    assert [type(layer) for layer in model] == [
        *[getattr(fnn, kind.__name__) for kind in ALL],
        OwnDropout,
    ]
    assert repr(model) == before
    assert [layer.training for layer in model] == [True, False, *[True] * 5]
    assert all(a is b for a, b in zip(layers, model))
    assert fnn.convert(model) == []
    assert fnn.revert(model) == [str(i) for i in range(6)]
    assert [type(layer) for layer in model] == [*ALL, OwnDropout]


def test_shared_nested_hooked_and_alone():
    shared = nn.Dropout(0.5)
    calls = []
    shared.register_forward_hook(lambda *_: calls.append(1))
    model = nn.ModuleDict({"a": nn.Sequential(nn.Linear(3, 3), shared), "b": shared})
    assert fnn.convert(model) == ["a.1"]
    assert type(model["b"]) is fnn.Dropout
    assert model["a"][1] is model["b"]
    model["b"](torch.ones(3))
    assert calls
    alone = nn.Dropout(0.25)
    assert fnn.convert(alone) == [""]
    assert type(alone) is fnn.Dropout
    assert type(copy.deepcopy(alone)) is fnn.Dropout


def test_transformers():
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(16, 2, 32, 0.5, batch_first=True)
    model = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
    own = copy.deepcopy(model)
    names = fnn.convert(model)
    assert names == [f"layers.{i}.{name}" for i in (0, 1) for name in ("dropout", *BEHIND)]
    x = torch.randn(3, 5, 16)
    y = model(x)
    assert y.isfinite().all()
    y.sum().backward()
    for mode in (torch.enable_grad, torch.inference_mode):  # the latter takes the fast path
        with mode():
            torch.testing.assert_close(model.eval()(x), own.eval()(x))


BEHIND = ("dropout1", "dropout2")


def test_state_dicts_fit():
    model = nn.Sequential(nn.Linear(3, 3), nn.Dropout())
    state = model.state_dict()
    fnn.convert(model)
    assert list(model.state_dict()) == list(state)
    model.load_state_dict(state)


# ---- what convert says ---------------------------------------------------------------------------


def wrapped(function):
    """As transformers wraps many a forward."""

    @functools.wraps(function)
    def wrapper(*arguments):
        return function(*arguments)

    return wrapper


class Functional(nn.Module):
    """Holds a number, as BART's layers do."""

    def __init__(self, p):
        super().__init__()
        self.activation_dropout = p

    def forward(self, x):
        return nn.functional.dropout(x, self.activation_dropout, self.training)


class Hidden(nn.Module):
    """Nothing tells from outside that it drops."""

    def forward(self, x):
        return nn.functional.dropout(x, 0.1, self.training)


class Handing(nn.Module):
    """Hands its layer's p to attention, as BERT and GPT-2 do."""

    def __init__(self):
        super().__init__()
        self.dropout = nn.Dropout(0.1)

    @wrapped
    def forward(self, x):
        p = self.dropout.p if self.training else 0.0
        return nn.functional.scaled_dot_product_attention(x, x, x, dropout_p=p)


class Calling(nn.Module):
    """Calls its layer, as everybody does."""

    def __init__(self):
        super().__init__()
        self.dropout = nn.Dropout(0.1)

    def forward(self, x):
        return self.dropout(x)


class BeitDropPath(nn.Module):
    def __init__(self):
        super().__init__()
        self.drop_prob = 0.1


REPORTS = {  # a module, and of each row whether it is reached, and a part of why
    "layer": (nn.Dropout(0.1), [(True, "was torch.nn.Dropout")]),
    "ours": (fnn.Dropout2d(0.1), [(True, "was fastdrop's before")]),
    "subclass": (OwnDropout(), [(False, "OwnDropout is a subclass")]),
    "attention": (nn.MultiheadAttention(4, 2, 0.1), [(False, "calls functions: dropout=0.1")]),
    "attention without": (nn.MultiheadAttention(4, 2), [(True, "drops nothing: dropout=0")]),
    "recurrent": (nn.LSTM(3, 3, 2, dropout=0.5), [(False, "LSTM drops in C++: dropout=0.5")]),
    "number": (Functional(0.25), [(False, "calls functions: activation_dropout=0.25")]),
    "number, 0": (Functional(0.0), [(True, "drops nothing: activation_dropout=0")]),
    "hidden": (Hidden(), [(False, "Hidden calls dropout")]),
    "handing": (Handing(), [(False, "hands dropout.p"), (True, "was torch.nn.Dropout")]),
    "calling": (Calling(), [(True, "was torch.nn.Dropout")]),
    "path": (BeitDropPath(), [(True, "costs what a copy costs")]),
    "nothing": (nn.Linear(3, 3), []),
}


@pytest.mark.parametrize("case", REPORTS)
def test_report(case):
    module, expected = REPORTS[case]
    report = fnn.convert(nn.Sequential(copy.deepcopy(module)))
    assert isinstance(report, list)
    assert all(row.module.startswith("0") for row in report.rows)
    assert len(report.rows) == len(expected)
    for row, (reached, why) in zip(report.rows, expected):
        assert row.reached == reached
        assert why in row.why
        assert row.to_do == ("nothing" if reached else "fastdrop.torch.enable()")
    lines = str(report).splitlines()
    if not expected:
        assert "no dropout was found" in str(report)
        assert "enable()" in str(report)
        return
    assert lines[0].split() == ["module", "reached", "why", "what", "to", "do"]
    assert len(lines) == 1 + len(expected)
    assert all(row.why in line for row, line in zip(report.rows, lines[1:]))


def test_report_is_a_list_of_names():
    report = fnn.convert(nn.Sequential(nn.Dropout(), nn.Linear(2, 2), nn.Dropout2d()))
    assert report == ["0", "2"]
    assert repr(report) == "['0', '2']"
    assert fnn.convert(nn.Dropout()) == [""]
    assert "(the model)" in str(fnn.convert(nn.Dropout()))
    assert copy.copy(report) == report


@pytest.mark.parametrize("change", [fnn.convert, fnn.revert])
@pytest.mark.parametrize("model", [3, None, nn.Dropout, [nn.Dropout()]])
def test_what_is_no_module(change, model):
    with pytest.raises(TypeError, match=r"^model: expected a torch\.nn\.Module, got \w+$"):
        change(model)
