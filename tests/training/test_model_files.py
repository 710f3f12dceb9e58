"""Files of models, damaged and crafted: an error of one line, or what was saved."""

import os
import random
import re
import time
import tracemalloc
from contextlib import contextmanager
from pathlib import Path

import model_files
import numpy as np
import pytest
from model_files import Content, Own, OwnDense
from safetensors.numpy import load_file, save_file

from fastdrop import initializers, layers, optimizers
from fastdrop.commands.main import main
from fastdrop.commands.train.progress import CHECKPOINT
from fastdrop.models import Sequential, load_model
from fastdrop.training import files

FORMAT_1 = Path(__file__).parent / "format_1"  # written by the last release that wrote it
X = np.eye(4, dtype=np.float32)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A file of each kind, of either format: name, kind and path."""
    folder = tmp_path_factory.mktemp("saved")
    kinds = {name: (name.split()[0], path) for name, path in model_files.save_all(folder).items()}
    for name, (kind, path) in list(kinds.items()):
        first = folder / f"{path.stem}-1"
        first.write_bytes(model_files.as_format_1(path.read_bytes()))
        kinds[f"{name}, format 1"] = kind, first
    return kinds


@contextmanager
def little(megabytes=20, seconds=2):
    """Neither memory nor time is used up."""
    tracemalloc.start()
    start = time.process_time()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < megabytes << 20
        assert time.process_time() - start < seconds
    finally:
        tracemalloc.stop()


def refusal(kind, path):
    """What is said of a file, behind its name."""
    with little(), pytest.raises(ValueError, match=r"^/") as error:
        model_files.load(kind, path)
    message = str(error.value)
    assert message.startswith(f"{path}: ")
    assert len(message) <= 200
    assert message.isprintable()
    return message.removeprefix(f"{path}: ")


# What was saved


@pytest.mark.parametrize("name", ["model adam", "model rmsprop", "weights", "training"])
def test_the_format_is_as_written_down(saved, name):
    content = saved[name][1].read_bytes()
    pieces = Content.of(content)
    assert list(pieces.header) == ["format", "version", "kind", "config"]
    assert pieces.metadata[model_files.CHECKSUM] == str(
        pieces.checksum(pieces.metadata[model_files.KEY])
    )
    arrays = load_file(saved[name][1])
    assert {n: a.tobytes() for n, a in arrays.items()} == {n: pieces.bytes_of(n) for n in arrays}


def test_what_was_saved_is_read_in_both_formats(saved):
    for name, (kind, path) in saved.items():
        if "format 1" not in name:
            assert model_files.load(kind, path) == model_files.load(*saved[f"{name}, format 1"])


def test_nothing_is_drawn_when_a_file_is_read(saved, monkeypatch):
    for cls in initializers.INITIALIZERS.values():
        monkeypatch.setattr(cls, "__call__", lambda self, shape, key: 1 / 0)
    made = Sequential([layers.Dense(4, "relu"), layers.BatchNormalization()])
    with pytest.raises(ZeroDivisionError):
        made.predict(X, verbose=0)
    for name in ("training", "training, format 1", "model adam", "model rmsprop, format 1"):
        model_files.load(*saved[name])


def test_a_build_of_ones_own_does_not_change_what_is_read(tmp_path):
    for stack in ([OwnDense(4, input_dim=4)], [layers.Residual([OwnDense(4)], input_shape=(4,))]):
        made = Sequential([*stack, Own()], seed=0)
        made.set_weights([np.full(w.shape, 7.0) for w in made.get_weights()])
        made.save(tmp_path / "model")
        loaded = load_model(tmp_path / "model")
        assert all((weights == 7).all() for weights in loaded.get_weights())
        np.testing.assert_array_equal(loaded.predict(X, verbose=0), made.predict(X, verbose=0))


def test_arrays_of_another_order_of_bytes_come_back(tmp_path):
    arrays = {"a": np.arange(6, dtype=">f4").reshape(2, 3), "b": np.arange(3, dtype=">u2")}
    files.write(tmp_path / "file", "test", {}, arrays)
    _, loaded = files.read(tmp_path / "file", ["test"])
    for name, array in arrays.items():
        assert loaded[name].dtype.isnative
        np.testing.assert_array_equal(loaded[name], array)


def test_many_layers_are_read_quickly(tmp_path):
    stack = [layers.Dense(2, name="same") if n % 3 == 0 else layers.ReLU() for n in range(300)]
    made = Sequential([layers.Input((2,)), *stack], seed=0)
    assert [layer.name for layer in made.layers[:4]] == ["same", "relu", "relu_1", "same_1"]
    made.save(tmp_path / "model")
    start = time.process_time()
    loaded = load_model(tmp_path / "model")
    assert time.process_time() - start < 1  # 12 seconds when layers were added one by one
    assert [layer.name for layer in loaded.layers] == [layer.name for layer in made.layers]


RULES = {
    "momentum that came": (lambda: optimizers.SGD(0.1), {"momentum": 0.9}),
    "momentum that went": (lambda: optimizers.SGD(0.1, momentum=0.9), {"momentum": 0.0}),
    "centred later": (lambda: optimizers.RMSprop(0.1), {"centered": True}),
    "with momentum no more": (
        lambda: optimizers.RMSprop(0.1, momentum=0.5, centered=True),
        {"momentum": 0.0, "centered": False},
    ),
}


@pytest.mark.parametrize(("optimizer", "later"), RULES.values(), ids=list(RULES))
def test_a_rule_that_was_changed_goes_on(tmp_path, optimizer, later):
    made = Sequential([layers.Dense(2)], seed=0)
    made.compile(optimizer(), "mse")
    made.fit(X, X[:, :2], epochs=2, verbose=0)
    for name, value in later.items():
        setattr(made.optimizer, name, value)
    made.save(tmp_path / "model")
    loaded = load_model(tmp_path / "model")
    for each in (made, loaded):
        each.fit(X, X[:, :2], epochs=2, verbose=0)
    for a, b in zip(made.get_weights(), loaded.get_weights(), strict=True):
        assert a.tobytes() == b.tobytes()


def test_states_of_parameters_that_are_gone_are_left_out(tmp_path):
    made = Sequential([layers.Dense(2)], seed=0)
    made.compile("adam", "mse")
    made.fit(X, X[:, :2], verbose=0)
    made.optimizer.state["7.weight"] = made.optimizer.state["0.weight"]
    made.save(tmp_path / "model")
    assert set(load_model(tmp_path / "model").optimizer.state) == {"0.weight", "0.bias"}


def test_names_with_slashes(tmp_path):
    class Slashes(layers.Layer):
        def build(self, input_shape, key):
            if not self.params:
                self.params = {"a/b": np.ones(input_shape[-1], np.float32)}

        def forward(self, x, batch):
            def backward(dy, need_dx=True):
                self.grads = {"a/b": (dy * x).sum(axis=0)}
                return dy

            return x * self.params["a/b"], backward

    made = Sequential([Slashes()], seed=0)
    made.compile("adam", "mse")
    made.fit(X, X[::-1], verbose=0)
    made.save(tmp_path / "model")
    assert model_files.packed(load_model(tmp_path / "model")) == model_files.packed(made)
    made.optimizer.state["0.a/b"]["c/d"] = np.ones(4)
    with pytest.raises(ValueError, match="optimizer: expected a state's name without /, got 'c/d'"):
        made.save(tmp_path / "model")


# Format 1


@pytest.mark.parametrize("name", ["model", "float64"])
def test_models_of_format_1_go_on(name):
    path = FORMAT_1 / f"{name}.safetensors"
    made, arrays = load_model(path), load_file(path)
    assert (made.epoch, made.step) == ((2, 4) if name == "model" else (1, 2))
    assert made.optimizer.iterations == made.step
    weights = dict(zip(made.network.weights(), made.get_weights(), strict=True))
    state = {
        f"optimizer/{name}/{part}": array
        for name, parts in made.optimizer.state.items()
        for part, array in parts.items()
    }
    assert arrays.keys() == weights.keys() | state.keys()
    for each, array in (weights | state).items():
        assert array.dtype == arrays[each].dtype
        assert array.tobytes() == arrays[each].tobytes()
    assert [layer.trainable for layer in made.layers] == [
        n != 4 or name == "float64" for n in range(6)
    ]
    made.fit(np.ones((8, 6)), np.arange(8) % 3, verbose=0)


def test_weights_of_format_1():
    made = load_model(FORMAT_1 / "float64.safetensors")
    expected = made.get_weights()
    made.set_weights([np.zeros_like(weights) for weights in expected])
    made.load_weights(FORMAT_1 / "weights.safetensors")
    for a, b in zip(made.get_weights(), expected, strict=True):
        assert a.tobytes() == b.tobytes()


def test_a_checkpoint_of_an_earlier_command_line_is_refused(tmp_path, capsys):
    content = (FORMAT_1 / "checkpoint.safetensors").read_bytes()
    (tmp_path / CHECKPOINT).write_bytes(content)
    assert main(["train", "--out", str(tmp_path), "--resume"]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert f"{CHECKPOINT}: checkpoint: expected a dict of facts, runs, model" in error
    assert (tmp_path / CHECKPOINT).read_bytes() == content


# Damage


@pytest.mark.parametrize("name", ["weights", "training"])
def test_no_bit_can_be_changed(saved, tmp_path, name):
    kind, original = saved[name]
    content, path = original.read_bytes(), tmp_path / "file"
    for place in range(0, len(content), 1 if kind == "weights" else 7):
        changed = bytearray(content)
        changed[place] ^= 1 << place % 8
        path.write_bytes(changed)
        try:
            files.read(path, [kind])
        except ValueError:
            continue
        pytest.fail(f"byte {place}, {content[place : place + 1]!r}")


@pytest.mark.parametrize("how", ["damage", "craft"])
@pytest.mark.parametrize("form", ["", ", format 1"])
def test_files_that_are_not_as_they_were(saved, tmp_path, how, form):
    """A little of tools/fuzz-model-files."""
    rng, path = random.Random(how + form), tmp_path / "file"
    refused = read = 0
    for name in ("model adam", "model rmsprop", "model sgd", "weights", "training"):
        kind, original = saved[name + form]
        for _ in range(60):
            path.write_bytes(getattr(model_files, how)(original.read_bytes(), rng))
            made = model_files.outcome(kind, path)
            refused += made is None
            read += made is not None
            if how == "damage" and made is not None:
                assert made == model_files.load(kind, original)
    assert refused > 200
    assert read > 20 or how == "damage"


# Crafted files


def at(*way, value):
    """Set what is at a place in the configuration of a model."""

    def change(pieces):
        *places, last = way
        inner = pieces.header["config"]
        for place in places:
            inner = inner[place]
        inner[last] = value

    return change


def entry(name, **changed):
    return lambda pieces: pieces.entries[name].update(changed)


def renamed(name, other):
    def change(pieces):
        pieces.entries[other] = pieces.entries.pop(name)

    return change


LAYER = "model", "layers", 0, "config"
SGD = "compiled", "optimizer", "config"
CRAFTED = {
    **{
        f"{name} {value!r}": (at(*way, name, value=value), f"{name}: expected")
        for way, name in (
            *(((), "epoch"), ((), "step")),
            *((("compiled",), "iterations"), (("model",), "seed")),
        )
        for value in (True, 2.0, -1, None, "1", [1])
    },
    "epoch of 64 bits": (at("epoch", value=2**63), "epoch: expected a whole number from 0"),
    "step of more": (at("step", value=10**30), "^JSON: expected whole numbers"),
    "seed of more": (at("model", "seed", value=2**64), r"JSON\.config\.model\.seed: expected"),
    "units": (at(*LAYER, "units", value=300_000_000), "to have the shape of x"),
    "units of the last": (
        at("model", "layers", 5, "config", "units", value=300_000_000),
        "'weight' of shape .300000000, 5., got shape .3, 5.",
    ),
    "units true": (at(*LAYER, "units", value=True), "units: expected a whole number, got True"),
    "units 5.0": (at(*LAYER, "units", value=5.0), "units: expected a whole number, got 5.0"),
    "units -5": (at(*LAYER, "units", value=-5), "units: expected a whole number of at least 1"),
    "bias": (at(*LAYER, "use_bias", value="no"), "use_bias: expected True or False, got 'no'"),
    "no bias": (at(*LAYER, "use_bias", value=False), "has '0.bias'"),
    "name": (at(*LAYER, "name", value=7), "name: expected text or None, got 7"),
    "frozen": (at(*LAYER, "trainable", value=0), "trainable: expected True or False, got 0"),
    "l2": (at(*LAYER, "l2", value=True), "l2: expected a number, got True"),
    "class": (at("model", "layers", 0, "class_name", value="System"), "got 'System'"),
    "no layers": (at("model", "layers", value=[]), "has '0.bias'"),
    "input": (at("model", "input_shape", value=[300_000_000]), "of shape .5, 300000000., got"),
    "input of 40 axes": (at("model", "input_shape", value=[2**62] * 40), "shape: expected a tuple"),
    "no input": (at("model", "input_shape", value=None), "input shape is not known"),
    "dtype": (at("model", "dtype", value="float64"), "expected float64 of shape"),
    "extra": (at("more", value=1), "config: expected a dict of model, epoch, step, compiled"),
    "extra of a model": (at("model", "more", value=1), "config: expected a dict of seed, dtype"),
    "not compiled": (at("compiled", value=None), "no arrays of an optimiser"),
    "Adam": (at("compiled", "optimizer", value={"class_name": "Adam", "config": {}}), "of Adam"),
    "rate": (at(*SGD, "learning_rate", value=True), "learning_rate: expected a number, got True"),
    "flag": (at(*SGD, "nesterov", value=2), "nesterov: expected True or False, got 2"),
    "metrics": (at("compiled", "metrics", value=[5]), "metrics: expected a dict of class_name"),
    "deep": (
        at("model", "layers", 2, value=model_files.nested(40)),
        "expected JSON of at most 100 levels",
    ),
    "type": (entry("0.weight", dtype="I32"), "expected float32 of shape .5, 4. as '0.weight'"),
    "type of a state": (
        entry("optimizer/0.weight/velocity", dtype="U32"),
        "expected float32 .* as 'velocity' of '0.weight', got uint32",
    ),
    "shape": (entry("0.weight", shape=[4, 5]), "'weight' of shape .5, 4., got shape .4, 5."),
    "shape of a state": (entry("optimizer/0.weight/velocity", shape=[20]), "got float32 .20,"),
    "type that NumPy lacks": (entry("0.bias", dtype="BF16"), "'0.bias': expected a type"),
    "shape of half": (entry("0.weight", shape=[5, 2]), "'0.weight': expected bytes"),
    "shape of true": (entry("5.logit", shape=[True]), "'5.logit': expected a type and a shape"),
    "overlap": (entry("0.bias", data_offsets=[4, 24]), ": expected bytes"),
    "name of a state": (
        renamed("optimizer/0.weight/velocity", "optimizer/0.weight/velocitx"),
        "expected the states of SGD for '0.weight', got velocitx",
    ),
    "parameter of a state": (
        renamed("optimizer/0.weight/velocity", "optimizer/3.weight/velocity"),
        "expected states of parameters, got some of '3.weight'",
    ),
    "name of a weight": (renamed("0.weight", "0.weighu"), "expected an array 'weight'"),
    "name of a weight of one's own": (renamed("4.scale", "4.scalf"), "lacks '4.scale'"),
    "format": (lambda pieces: pieces.header.update(format=3), "a format of at most 2, got 3 of"),
    "format true": (lambda pieces: pieces.header.update(format=True), "got True of fastdrop"),
    "other header": (lambda pieces: pieces.header.update(more=1), "metadata, fastdrop: expected"),
    "other metadata": (
        lambda pieces: pieces.metadata.update(format="pt"),
        "metadata: expected a dict of fastdrop, got one of fastdrop, format",
    ),
    "bytes behind": (lambda p: setattr(p, "data", p.data + b"\0"), "expected a whole safetensors"),
}


@pytest.mark.parametrize("form", ["", ", format 1"])
@pytest.mark.parametrize("what", CRAFTED)
def test_crafted_files(saved, tmp_path, what, form):
    change, message = CRAFTED[what]
    if form and what.startswith("format"):
        pytest.skip("no file of format 1 then")
    pieces = Content.of(saved[f"model sgd{form}"][1].read_bytes())
    change(pieces)
    (tmp_path / "file").write_bytes(pieces.whole())
    said = refusal("model", tmp_path / "file")
    assert re.search(message, said), said


TEXTS = {
    "NaN": ("NaN", "expected finite numbers, got nan"),
    "infinity": ("-Infinity", "expected finite numbers, got -inf"),
    "too large": ("1e999", "expected finite numbers, got inf"),
    "digits": ("9" * 5000, "whole numbers of at most 64 bits"),
    "twice": ('{"a": 1, "a": 1}', "expected each name once"),
    "deep": ("[" * 90 + "]" * 90, "config: expected a dict"),
    "deeper": ("[" * 100 + "]" * 100, "expected JSON of at most 100 levels"),
    "deepest": ("[" * 100_000 + "]" * 100_000, "expected JSON of at most 100 levels"),
    "a deep Residual": (
        '{"class_name": "Residual", "config": {"layers": [' * 300 + "]}}" * 300,
        "expected JSON of at most 100 levels",
    ),
    "no JSON": ("{", "JSON"),
}


@pytest.mark.parametrize(("text", "message"), TEXTS.values(), ids=list(TEXTS))
def test_texts_of_json(saved, tmp_path, text, message):
    pieces = Content.of(saved["model sgd"][1].read_bytes())
    pieces.header["config"]["more"] = "mark"
    (tmp_path / "file").write_bytes(pieces.whole({"mark": text}))
    assert message in refusal("model", tmp_path / "file")


def test_a_name_twice_in_the_header(saved, tmp_path):
    pieces = Content.of(saved["weights"][1].read_bytes())
    pieces.entries["mark"] = pieces.entries["0.bias"]
    (tmp_path / "file").write_bytes(pieces.whole({"mark": '"0.bias"'}))
    assert "expected each name once" in refusal("weights", tmp_path / "file")


def test_headers_that_are_too_long(tmp_path):
    for size in (0, 1, 7, 2**63, files.HEADER + 1):
        path = tmp_path / "file"
        path.write_bytes(size.to_bytes(8, "little") + b"{" + b" " * 64)
        os.truncate(path, 1 << 40)  # as far as the file system is concerned
        assert "with a header of at most" in refusal("weights", path) or size in (0, 1, 7)


@pytest.mark.slow
def test_many_of_everything(tmp_path):
    """Nothing takes time or memory that grows faster than the file."""
    relu = {"class_name": "ReLU", "config": {}}
    metric = [{"class_name": "AUC", "config": {"name": f"{n}"}} for n in range(12_000)]
    config = {"seed": 1, "dtype": "float32", "input_shape": [4], "layers": [relu]}
    compiled = {
        "optimizer": {"class_name": "SGD", "config": {}},
        "iterations": 0,
        "loss": {"class_name": "MeanSquaredError", "config": {}},
        "metrics": metric,
        "weighted_metrics": metric,
    }
    for stack, arrays, how in (
        ([relu] * 20_000, {}, None),
        ([model_files.nested(0)] * 15_000, {}, None),
        ([relu], {}, compiled),
        ([relu], {f"0.{n}": np.zeros(0) for n in range(15_000)}, None),
    ):
        whole = {
            "model": config | {"layers": stack},
            "epoch": 0,
            "step": 0,
            "compiled": how,
        }
        files.write(tmp_path / "file", "model", whole, arrays)
        start = time.process_time()
        model_files.outcome("model", tmp_path / "file")
        assert time.process_time() - start < 15  # minutes if it were quadratic


def test_classes_of_ones_own_may_raise_anything(tmp_path):
    class Raises(layers.Layer):
        error = None

        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            if self.error is not None:
                raise self.error

    Sequential([Raises(input_shape=(4,))]).save(tmp_path / "file")
    for error, text in (
        (OSError(2, "no such file", "words.txt"), "words.txt"),
        (ZeroDivisionError("a\nb"), "ZeroDivisionError"),
        (ValueError("factor: expected \x1b[31m" + "x" * 1000), "factor: expected "),
        (ValueError(), "got ValueError"),
        (RecursionError("deep"), "RecursionError"),
        (UnicodeDecodeError("utf-8", b"a", 0, 1, "no"), "UnicodeDecodeError"),
    ):
        Raises.error = error
        assert text in refusal("model", tmp_path / "file")
    Raises.error = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        load_model(tmp_path / "file")


def test_a_layer_that_was_called_alone(tmp_path):
    """It has weights; a model that was never built cannot say for what input."""
    layer = layers.Dense(2)
    layer(X)
    model, path = Sequential([layer]), tmp_path / "alone.safetensors"
    with pytest.raises(ValueError, match="model: expected a built one"):
        model.save(path)
    assert not path.exists()
    model.build((4,))
    model.save(path)
    assert np.array_equal(load_model(path)(X), model(X))


def test_names_of_files_that_cannot_be_printed(tmp_path):
    for name in ("a\nb\x1b[31m", "x" * 250):
        path = tmp_path / name
        path.write_bytes(b"no model")
        with pytest.raises(ValueError, match=r"^[^\n]{,200}$") as error:
            load_model(path)
        assert str(error.value).isprintable()
        assert name[-9:].replace("\n", " ").replace("\x1b", r"\x1b") in str(error.value)
        assert "expected a file that fastdrop has saved" in str(error.value)


def test_nothing_is_changed_by_weights_that_do_not_fit(tmp_path):
    made = Sequential([layers.Dense(3, input_dim=4), layers.Dense(2)], seed=0, dtype="float64")
    before = made.get_weights()
    for other in (
        Sequential([layers.Dense(3, input_dim=4), layers.Dense(2)], seed=1),
        Sequential([layers.Dense(3, input_dim=4), layers.Dense(1)], seed=1, dtype="float64"),
    ):
        other.save_weights(tmp_path / "file")
        with pytest.raises(ValueError, match=r"file: expected float64 of shape .* as '[01].* got"):
            made.load_weights(tmp_path / "file")
        for a, b in zip(made.get_weights(), before, strict=True):
            assert a.tobytes() == b.tobytes()


def run_of(config):
    return config["runs"][0]


CHECKPOINTS = {
    "no runs": (lambda c, d: c.update(runs=[]), "expected a checkpoint with runs"),
    "runs by name": (lambda c, d: c.update(runs={"a": 1}), "expected a checkpoint with runs"),
    "an empty run": (lambda c, d: c["runs"].append({}), "run: expected a dict of dropout, seed"),
    "another rate": (lambda c, d: run_of(c).update(dropout=0.25), "expected runs .*, got .*0.25"),
    "another seed": (lambda c, d: run_of(c).update(seed="1"), "expected runs .*, got .*'1'"),
    "a run too early": (
        lambda c, d: c["runs"].append({"dropout": 0.5, "seed": 1, "figures": [], "seconds": []}),
        "expected the model of these settings",
    ),
    "too many runs": (lambda c, d: c.update(runs=3 * c["runs"]), "KeyError"),
    "extra": (lambda c, d: c.update(more=1), "checkpoint: expected a dict of facts, runs, model"),
    "facts": (lambda c, d: c["facts"].update(more=1), "facts: expected a dict of hidden"),
    "no facts": (lambda c, d: c.update(facts=None), "facts: expected a dict of hidden"),
    "figure": (lambda c, d: run_of(c)["figures"].remove("loss"), "has 'figures/0/loss"),
    "no figures": (lambda c, d: run_of(c).update(figures=7), "TypeError"),
    "no array": (lambda c, d: run_of(c)["figures"].append("a"), "KeyError"),
    "epochs": (lambda c, d: c["model"].update(epoch=3), "the figures of 3 epochs"),
    "too many epochs": (lambda c, d: c["model"].update(epoch=4), "expected the model of these"),
    "model": (lambda c, d: c["model"]["model"].update(seed=9), "expected the model of these"),
    "loss": (
        lambda c, d: c["model"]["compiled"]["loss"].update(class_name="KLDivergence", config={}),
        "expected the model of these settings",
    ),
    "not compiled": (lambda c, d: c["model"].update(compiled=None), "no arrays of an optimiser"),
    "not finite": (lambda c, d: d["figures/0/loss"].fill(np.nan), "of 2 epochs"),
    "no seconds": (lambda c, d: d["seconds/0/training"].fill(np.inf), "of 2 epochs"),
    "other shape": (lambda c, d: d["figures/0/loss"].resize(1, 2), "expected lists of numbers"),
    "too short": (lambda c, d: d["figures/0/loss"].resize(1), "of 2 epochs"),
    "whole numbers": (
        lambda c, d: d.update({"figures/0/loss": np.ones(2, np.int64)}),
        "expected lists of numbers",
    ),
}


@pytest.mark.parametrize(("change", "message"), CHECKPOINTS.values(), ids=list(CHECKPOINTS))
def test_crafted_checkpoints(saved, tmp_path, change, message):
    config, arrays = files.read(saved["training"][1], ["training"])
    change(config, arrays)
    path = tmp_path / "file"
    files.write(path, "training", config, arrays)
    with pytest.raises(ValueError, match=message) as error:
        model_files.read_progress(path)
    assert str(error.value).startswith(f"{path}: ")
    assert len(str(error.value)) <= 200


# Files of others


def test_nothing_but_a_file_of_ours_is_read(tmp_path):
    for metadata in (None, {"a": "b"}, {"fastdrop": "5"}, {"fastdrop": "{}", "crc32": "0"}):
        save_file({"a": np.ones(3, np.float32)}, tmp_path / "file", metadata)
        assert "expected a file that fastdrop has saved" in refusal("model", tmp_path / "file")
