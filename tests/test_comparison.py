"""README's table beside other libraries says what these do, where they are installed."""

import importlib
import inspect
import re

import extras
import numpy as np
import pages
import pytest

import fastdrop

pytestmark = pytest.mark.skipif(not pages.README.exists(), reason="not in a checkout")
P, SIZE = 0.5, 4096
LIBRARIES = {
    "fastdrop": "fastdrop",
    "PyTorch": "torch",
    "Keras 3": "keras",
    "Flax": "flax",
    "scikit-learn": "sklearn",
}
NOT_CHECKED = ("Is called from", "Runs on GPUs")  # there may be none


def rows():
    """The cells of the table, by row and library."""
    lines = [line for line in pages.README.read_text().splitlines() if line.startswith("|")]
    start = next(n for n, line in enumerate(lines) if "| oneDNN |" in line)
    names, _, *rest = ([cell.strip() for cell in line[1:-1].split("|")] for line in lines[start:])
    return {cells[0]: dict(zip(names[1:], cells[1:])) for cells in rest}


def drop(library, x):
    """An array with some elements dropped, as a user of a library drops them."""
    if library == "fastdrop":
        return fastdrop.dropout(x, P, key=fastdrop.Key(1))
    if library == "torch":
        import torch

        return torch.nn.functional.dropout(torch.from_numpy(x), P).numpy()
    if library == "keras":
        import keras

        return keras.ops.convert_to_numpy(keras.layers.Dropout(P, seed=1)(x, training=True))
    from flax import nnx

    return np.asarray(nnx.Dropout(P, rngs=nnx.Rngs(1))(x))


def has_dropout(library):
    if library != "sklearn":
        return "yes" if (drop(library, np.ones(SIZE, np.float32)) == 0).any() else "no"
    from sklearn.neural_network import MLPClassifier

    return "yes" if any("dropout" in name for name in MLPClassifier().get_params()) else "no"


def infinity(library):
    with np.errstate(invalid="ignore"):
        y = drop(library, np.full(SIZE, np.inf, np.float32))
    return "yes" if (y == 0).any() and not np.isnan(y).any() else "no"


def bytes_kept(library):
    if library == "fastdrop":
        x = np.ones(SIZE, np.float32)
        y, dx = drop(library, x), fastdrop.dropout(x, P, key=fastdrop.Key(1))
        np.testing.assert_array_equal(y, dx)  # the key is enough
        return "0"
    if library == "torch":
        import torch

        kept = []
        with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x) or x, lambda x: x):
            torch.nn.functional.dropout(torch.ones(SIZE, requires_grad=True), P)
        return str(round(sum(x.nbytes for x in kept) / SIZE))
    import jax
    from flax import nnx

    layer, key = nnx.Dropout(P), jax.random.key(1)

    def dropped(x):
        return layer(x, deterministic=False, rngs=key)

    _, backward = jax.vjp(dropped, np.ones(SIZE, np.float32))
    kept = sum(np.asarray(leaf).nbytes for leaf in jax.tree.leaves(backward))
    return str(round(kept / SIZE))


def own_state(library):
    if library == "torch":
        import torch

        return yes_if("generator", torch.nn.functional.dropout)
    x = np.ones(SIZE, np.float32)  # two layers or calls that were given the same seed
    return "yes" if np.array_equal(drop(library, x), drop(library, x)) else "no"


def yes_if(argument, function):
    return "yes" if argument in inspect.signature(function).parameters else "no"


def part_of_a_batch(library):
    if library == "fastdrop":
        x, key = np.ones((8, 16), np.float32), fastdrop.Key(1)
        part = fastdrop.dropout(x[5:], P, key=key, offset=5 * 16)
        np.testing.assert_array_equal(part, fastdrop.dropout(x, P, key=key)[5:])
        return "yes"
    modules = {"torch": "torch.nn", "keras": "keras.layers", "flax": "flax.nnx"}
    return yes_if("offset", importlib.import_module(modules[library]).Dropout)


def many_outputs(library):
    if library == "fastdrop":
        return "yes" if hasattr(fastdrop.Sequential, "predict_mc") else "no"
    modules = {"torch": "torch.nn", "keras": "keras", "flax": "flax.nnx"}
    library = importlib.import_module(modules[library])
    model = getattr(library, "Model", None) or library.Module
    return "yes" if any("mc" in name.split("_") for name in dir(model)) else "no"


CHECKS = {
    "Has dropout": has_dropout,
    "A dropped infinity becomes 0": infinity,
    "Bytes kept for each element, to compute the gradient": bytes_kept,
    "A layer or a call can have a random state of its own": own_state,
    "A part of a batch gets its part of the batch's mask": part_of_a_batch,
    "Many outputs with dropout, in one call": many_outputs,
}


def test_every_row_is_checked():
    assert {*rows()} == {*CHECKS, *NOT_CHECKED}


@pytest.mark.parametrize("row", CHECKS)
@pytest.mark.parametrize("library", LIBRARIES)
def test_a_cell(row, library):
    said = rows()[row][library]
    if said in ("-", "not measured"):
        pytest.skip(said)
    if library == "Keras 3" and extras.KERAS_BACKEND != "tensorflow":
        pytest.skip("the table is of Keras on TensorFlow")
    if lacking := extras.missing([LIBRARIES[library]]):
        pytest.skip(f"needs {', '.join(lacking)}")
    assert CHECKS[row](LIBRARIES[library]) == re.sub(r"\W", "", said)
