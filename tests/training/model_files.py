"""Files of models, damaged and crafted: for test_model_files.py and tools/fuzz-model-files.

The format is written down here once more, by docs/reference/file_format.md.
"""

import contextlib
import copy
import json
import zlib
from dataclasses import dataclass

import numpy as np

from fastdrop import initializers, layers, learning_rates, losses, metrics, optimizers
from fastdrop.commands.runs.data import Data
from fastdrop.commands.runs.network import Settings
from fastdrop.commands.runs.results import SECONDS
from fastdrop.commands.train.progress import Progress
from fastdrop.models import Sequential, load_model
from fastdrop.training import files, saving

X, Y = np.eye(4, dtype=np.float32), np.array([0, 1, 0, 1])
DATA = Data("four", "classification", ("a", "b"), X, Y, X, Y, np.arange(len(Y)))
SETTINGS = Settings([4], [0.5], 3, 2, "adam", 0.001, seed=1, seeds=1)
KEY, CHECKSUM, METADATA = "fastdrop", "crc32", "__metadata__"


class Own(layers.Layer):
    """A layer of one's own, which makes its parameters as it likes."""

    def __init__(self, factor=2.0, **kwargs):
        super().__init__(**kwargs)
        self.factor = 1 / factor

    def get_config(self):
        return super().get_config() | {"factor": 1 / self.factor}

    def build(self, input_shape, key):
        if not self.params:
            self.params = {"scale": np.full(input_shape[-1], self.factor, np.float32)}

    def forward(self, x, batch):
        def backward(dy, need_dx=True):
            self.grads = {"scale": (dy * x).sum(axis=0)}
            return dy * self.params["scale"]

        return x * self.params["scale"], backward


class OwnDense(layers.Dense):
    """Changes what its base has made."""

    def build(self, input_shape, key):
        super().build(input_shape, key)
        self.params["bias"][...] = 3


# ---- what is saved ------------------------------------------------------------------------------


def stack():
    return [
        layers.Dense(5, "relu", l2=0.01, kernel_initializer=initializers.RandomNormal(stddev=0.3)),
        layers.BatchNormalization(),
        layers.Residual([layers.LayerNormalization(), OwnDense(5), layers.Dropout(0.2, seed=4)]),
        layers.Dropout(layers.schedules.Linear(0.0, 0.5, 10), shared_axes=(0,), groups=2),
        Own(),
        layers.ConcreteDropout(3, activation="softmax"),
    ]


def model(optimizer, dtype="float32"):
    made = Sequential(stack(), seed=5, dtype=dtype)
    made.compile(
        optimizer,
        losses.SparseCategoricalCrossentropy(),
        ["accuracy"],
        [metrics.SparseTopKCategoricalAccuracy(2, name="top2")],
    )
    rng = np.random.default_rng(0)
    made.fit(rng.normal(size=(20, 4)), rng.integers(0, 3, 20), 10, epochs=1, verbose=0)
    return made


def save_all(folder):
    """Write a file of each kind, and return the files' paths by kind."""
    paths = {}
    for name, optimizer, dtype in (
        ("adam", optimizers.Adam(learning_rates.CosineDecay(0.01, 100)), "float32"),
        ("rmsprop", optimizers.RMSprop(momentum=0.5, centered=True), "float64"),
        ("sgd", optimizers.SGD(0.1, momentum=0.9), "float32"),
    ):
        paths[f"model {name}"] = folder / f"{name}.safetensors"
        model(optimizer, dtype).save(paths[f"model {name}"])
    paths["weights"] = folder / "weights.safetensors"
    model("sgd").save_weights(paths["weights"])
    paths["training"] = folder / "checkpoint.safetensors"
    progress = Progress.begin(DATA, SETTINGS, {})
    progress.model.fit(DATA.x, DATA.y, 2, 2, verbose=0)
    lists = (["loss", "accuracy", "val_loss", "val_accuracy"], SECONDS)
    for kind, names in zip(progress.runs[0][2:], lists, strict=True):
        kind.update({name: [0.5, 0.25] for name in names})
    progress.write(paths["training"])
    return paths


def read_progress(path):
    """Read a checkpoint of the command line, as it goes on with these settings."""
    return Progress.read(path, files.read(path, ("training",)), DATA, SETTINGS, {})


def load(kind, path):
    """Read a file as its kind is read, and return what can be compared."""
    if kind == "weights":
        made = model("sgd")
        before = made.get_weights()
        try:
            made.load_weights(path)
        except ValueError:
            for a, b in zip(before, made.get_weights(), strict=True):
                assert a.tobytes() == b.tobytes(), "weights of a file that was refused"
            raise
        return [array.tobytes() for array in made.get_weights()]
    if kind == "training":
        progress = read_progress(path)
        return json.dumps([progress.facts, progress.runs]), packed(progress.model)
    return packed(load_model(path))


def packed(made):
    """A model's configuration and arrays."""
    config, arrays = saving.pack(made.network)
    return json.dumps(config), sorted((n, a.dtype, a.shape, a.tobytes()) for n, a in arrays.items())


# ---- the format ---------------------------------------------------------------------------------


@dataclass
class Content:
    """A file, taken to pieces."""

    metadata: dict
    header: dict  # what is under KEY in the metadata
    entries: dict  # name: dtype, shape, data_offsets
    data: bytes

    @classmethod
    def of(cls, content):
        size = int.from_bytes(content[:8], "little")
        entries = json.loads(content[8 : 8 + size])
        metadata = entries.pop(METADATA)
        return cls(metadata, json.loads(metadata[KEY]), entries, content[8 + size :])

    def bytes_of(self, name):
        start, end = self.entries[name]["data_offsets"]
        return self.data[start:end]

    def removed(self, name):
        """Remove an array, and return its bytes."""
        arrays = {name: self.bytes_of(name) for name in self.entries}
        removed = arrays.pop(name)
        del self.entries[name]
        self.data = b"".join(arrays.values())
        end = 0
        for kept, content in arrays.items():
            start, end = end, end + len(content)
            self.entries[kept]["data_offsets"] = [start, end]
        return removed

    def checksum(self, text):
        form = self.header.get("format")
        checksum = zlib.crc32((json.dumps(self.header["config"]) if form == 1 else text).encode())
        for name, entry in sorted(self.entries.items()):
            if form != 1:
                described = json.dumps([name, entry["dtype"], entry["shape"]])
                checksum = zlib.crc32(described.encode(), checksum)
            checksum = zlib.crc32(self.bytes_of(name), checksum)
        return checksum

    def whole(self, raw=None):
        """The bytes of a file with the right checksum; `raw` replaces text in its JSON."""
        raw = raw or {}

        def dumped(value):
            text = json.dumps(value)
            for mark, token in raw.items():
                text = text.replace(json.dumps(mark), token)
            return text

        metadata = dict(self.metadata)
        try:
            if self.header.get("format") == 1:
                self.header[CHECKSUM] = self.checksum("")
                metadata[KEY] = dumped(self.header)
            else:
                metadata[KEY] = dumped(self.header)
                metadata[CHECKSUM] = str(self.checksum(metadata[KEY]))
        except (KeyError, TypeError, ValueError, AttributeError):  # of no use as a file
            metadata[KEY] = dumped(self.header)
        head = dumped({METADATA: metadata, **self.entries}).encode()
        head += b" " * (-len(head) % 8)
        return len(head).to_bytes(8, "little") + head + self.data


def as_format_1(content):
    """The same in a file of format 1."""
    pieces = Content.of(content)
    del pieces.metadata[CHECKSUM]
    pieces.header["format"] = 1
    return pieces.whole()


# ---- damage -------------------------------------------------------------------------------------


def damage(content, rng):
    """Some bytes changed, removed, doubled, exchanged, cut off or put behind."""
    whole = bytearray(content)
    # Half of it in the header, of which there is less.
    header = 8 + int.from_bytes(content[:8], "little")
    end = min(len(whole), header if rng.random() < 0.5 else len(whole))
    start, length = rng.randrange(end), rng.choice((1, 1, 2, 8, 40, 500))
    kind = rng.randrange(8)
    if kind < 3:
        for _ in range(rng.choice((1, 1, 2, 5))):
            whole[rng.randrange(end)] ^= 1 << rng.randrange(8)
    elif kind == 3:
        whole[start : start + length] = rng.randbytes(length)
    elif kind == 4:
        whole[start : start + length] = bytes(length)
    elif kind == 5:
        whole[start:start] = whole[start : start + length]
    elif kind == 6:
        del whole[start : rng.choice((start + length, len(whole)))]
    else:
        other = rng.randrange(end)
        a, b = whole[start : start + length], whole[other : other + length]
        whole[start : start + length], whole[other : other + length] = b, a
    return bytes(whole)


def nested(depth):
    inner = {"class_name": "Dense", "config": {"units": 5}}
    for _ in range(depth):
        inner = {"class_name": "Residual", "config": {"layers": [inner]}}
    return inner


VALUES = [
    *(None, True, False, -1, 0, 1, 2, 3, 4, 5, 7, 2.5, 5.0, 1e308, 1e-320, -0.0),
    *(3 * 10**8, 2**31, 2**62, 2**63, 2**64, 10**30, -(2**63), 10**4000),
    *("", "a", "ä\n\x1b[31m", "\ud800", "x" * 5000, "0", "0.weight", "Dense", "float64", "/"),
    *([], [1], [0], [-1], [1, 2, 3], [5] * 40, [2**62] * 30, [3 * 10**8, 3 * 10**8], [[]], [True]),
    *({}, {"a": 1}, {"units": 5}, {"schedule": "Late", "p": 1, "steps": 10**18}),
    *({"class_name": name, "config": {}} for name in ("ReLU", "Adam", "Own", "Accuracy", "None")),
    {"class_name": "Dense", "config": {"units": 300_000_000}},
    {"class_name": "OwnDense", "config": {"units": 5}},
    {"class_name": "Own", "config": {"factor": 0}},
    {"class_name": "BatchNormalization", "config": {"epsilon": 1e-3}},
    *(nested(depth) for depth in (1, 20, 60)),
]
RAW = [
    *("NaN", "Infinity", "-Infinity", "1e999", "-1e999", "9" * 5000, '{"a": 1, "a": 1}', "", "[1,"),
    *("[" * 3000, "[" * 100_000 + "]" * 100_000, '{"a":' * 200 + "1" + "}" * 200, "1.0", "0x1"),
    '{"class_name": "Residual", "config": {"layers": [' * 300 + "]}}" * 300,
    *("1e2", "\x00", "'a'", "// a\n1", '"\\u0000"', "[1] ", "True"),
]
TYPES = (
    "F32",
    "F64",
    "I32",
    "I64",
    "U8",
    "BOOL",
    "F16",
    "BF16",
    "F8_E4M3",
    "C64",
    "f32",
    "",
    5,
    None,
)


def places(value, place=()):
    """The ways to all that is in nested dicts and lists."""
    if place:
        yield place
    if isinstance(value, dict | list):
        for key in value if isinstance(value, dict) else range(len(value)):
            yield from places(value[key], (*place, key))


def craft(content, rng):
    """A file that holds something else, with the right checksum."""
    pieces = copy.deepcopy(Content.of(content))
    raw = {}
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        kind = rng.randrange(10)
        if kind < 4:
            _change(pieces.header, rng, raw)
        elif kind == 4:
            _change(pieces.entries, rng, raw)
        elif kind == 5:
            _change(pieces.metadata, rng, raw)
        elif kind < 8 and pieces.entries:
            with contextlib.suppress(AttributeError, KeyError, TypeError, ValueError):
                _change_array(pieces, rng)  # whose entries may be anything by now
        elif kind == 8:
            pieces.data = damage(pieces.data or b"\0", rng)
        else:
            pieces.data = pieces.data.replace(rng.randbytes(1), rng.randbytes(1))
    return pieces.whole(raw)


def _change(value, rng, raw):
    """Put something else at a place in JSON, or away, or there once more under another name."""
    ways = list(places(value))
    if not ways:
        return
    *way, last = rng.choice(ways)
    for key in way:
        value = value[key]
    kind = rng.randrange(8)
    if kind < 4:
        value[last] = json.loads(json.dumps(rng.choice(VALUES)))
    elif kind < 6:
        raw[f"mark {len(raw)}"] = rng.choice(RAW)
        value[last] = f"mark {len(raw) - 1}"
    elif kind == 6:
        del value[last]
    elif isinstance(value, dict):
        value[rng.choice(("a", f"{last}2", "name", "trainable", "layers"))] = value[last]
    else:
        value.append(value[last])


def _change_array(pieces, rng):
    """Give an array another name, type or shape, or exchange two, or put one away or there."""
    name, other = rng.choice(list(pieces.entries)), rng.choice(list(pieces.entries))
    entry = pieces.entries[name]
    kind = rng.randrange(7)
    if kind == 0:
        entry["dtype"] = rng.choice(TYPES)
    elif kind == 1:
        entry["shape"] = rng.choice(([*entry["shape"], 1], entry["shape"][::-1], [], [2**62, 0]))
    elif kind == 2:
        pieces.entries[name], pieces.entries[other] = pieces.entries[other], entry
    elif kind == 3:
        text = bytearray(name.encode())
        text[rng.randrange(len(text))] ^= 1
        pieces.entries[text.decode(errors="replace")] = pieces.entries.pop(name)
    elif kind == 4:
        there = pieces.entries[other]["data_offsets"]
        entry["data_offsets"] = rng.choice((there, [0, 0], [0, 2**62], [4, 8], [-4, 4], [0.0, 4]))
    elif kind == 5:
        pieces.removed(name)
    else:
        size = len(pieces.data)
        new = rng.choice(
            ("9.weight", "optimizer/0.weight/w", "optimizer/9.weight/m", "a", "0.a", "")
        )
        place = [size, size + 4]
        pieces.entries[new] = {"dtype": "F32", "shape": [1], "data_offsets": place}
        pieces.data += bytes(4)


# ---- what has to come of it ---------------------------------------------------------------------


def outcome(kind, path):
    """What `load` returned, or None where it refused the file as it should."""
    try:
        return load(kind, path)
    except ValueError as error:
        message = str(error)
    assert str(path) in message, message
    assert len(message) <= 200, message
    assert message.isprintable(), message
    assert "MemoryError" not in message, message
    return None
