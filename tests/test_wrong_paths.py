"""Every function that opens a file says in one line what is wrong with its path."""

import os
import re
import subprocess
import sys

import numpy as np
import pytest

from fastdrop import Sequential, datasets, load_model
from fastdrop.callbacks import CSVLogger, ModelCheckpoint
from fastdrop.layers import Dense, Input

TABLE = {"size": np.arange(40.0) ** 2, "price": np.arange(40) + 0.5}


@pytest.fixture(scope="module")
def model():
    model = Sequential([Input((2,)), Dense(1)])
    model.compile("sgd", "mean_squared_error")
    return model


def fitted(model, callback):
    model.fit(np.zeros((4, 2)), np.zeros((4, 1)), verbose=0, callbacks=callback)


def table_model(model):
    pytest.importorskip("pyarrow", reason="pyarrow is not installed: the extra tables")
    from fastdrop import TableModel

    return TableModel(hidden=(2,), epochs=1).fit(TABLE, "price", verbose=0)


def estimator(model):
    pytest.importorskip("sklearn", reason="scikit-learn is not installed")
    from fastdrop.sklearn import MLPRegressor

    return MLPRegressor(hidden_layer_sizes=(2,), max_iter=1).fit(np.zeros((4, 2)), np.arange(4.0))


SAVE = {
    "model": lambda model, path: model.save(path),
    "weights": lambda model, path: model.save_weights(path),
    "table model": lambda model, path: table_model(model).save(path),
    "estimator": lambda model, path: estimator(model).save(path),
    "CSVLogger": lambda model, path: fitted(model, CSVLogger(path)),
    "checkpoint": lambda model, path: fitted(model, ModelCheckpoint(path)),
}
LOAD = {
    "model": lambda model, path: load_model(path),
    "weights": lambda model, path: model.load_weights(path),
    "table model": lambda model, path: type(table_model(model)).load(path),
    "estimator": lambda model, path: loaded(path),
    "CSV": lambda model, path: datasets.load_csv(path),
    "NPZ": lambda model, path: datasets.load_npz(path),
    "IDX": lambda model, path: datasets.load_idx(path),
}


def loaded(path):
    pytest.importorskip("sklearn", reason="scikit-learn is not installed")
    from fastdrop.sklearn import load

    return load(path)


WRONG_TO_SAVE = {
    "no folder": lambda folder: folder / "none" / "file",
    "a file's": lambda folder: folder / "text" / "file",
    "a folder": lambda folder: folder,
    "full disk": lambda folder: "/dev/full",
}


@pytest.mark.filterwarnings("ignore:Stochastic Optimizer")
@pytest.mark.parametrize("wrong", WRONG_TO_SAVE)
@pytest.mark.parametrize("way", SAVE)
def test_saving(tmp_path, model, way, wrong):
    if way == "checkpoint" and wrong == "no folder":
        pytest.skip("a checkpoint makes it")
    path = WRONG_TO_SAVE[wrong](tmp_path)
    if not os.path.exists("/dev/full"):
        pytest.skip("no /dev/full here")
    (tmp_path / "text").write_text("mine")
    with pytest.raises(OSError, match=r"expected a file|No space left") as error:
        SAVE[way](model, path)
    message = str(error.value)
    if wrong == "full disk":
        assert message == "[Errno 28] No space left on device: '/dev/full'"
    else:
        what = "the folder" if wrong == "a folder" else "existing folder, got"
        assert re.match(rf"(path|filename|filepath): expected a file.* {what} ", message)
        assert message.endswith(str(path))
    assert [each.name for each in tmp_path.iterdir()] == ["text"]
    assert (tmp_path / "text").read_text() == "mine"


WRONG_TO_LOAD = {
    "nothing": None,
    "a folder": None,
    "empty": b"",
    "two bytes": b"ab",
    "CSV": b"size,price\n1,2\n",
    "text": b"Dear Sir or Madam",
    "ELF": b"\x7fELF\x02\x01\x01\x00\x00\x00",
    "its beginning": (1000).to_bytes(8, "little") + b'{"__metadata__": {',
    "a long header": (1 << 40).to_bytes(8, "little") + b'{"__metadata__": {',
}


@pytest.mark.filterwarnings("ignore:Stochastic Optimizer")
@pytest.mark.parametrize("wrong", WRONG_TO_LOAD)
@pytest.mark.parametrize("way", LOAD)
def test_loading(tmp_path, model, way, wrong):
    path = tmp_path if wrong == "a folder" else tmp_path / "file"
    if WRONG_TO_LOAD[wrong] is not None:
        path.write_bytes(WRONG_TO_LOAD[wrong])
    with pytest.raises((ValueError, OSError)) as error:
        LOAD[way](model, path)
    message = str(error.value)
    assert path.name in message
    assert ": expected " in message
    assert "Errno" not in message
    assert "\n" not in message
    assert len(message) <= 200
    if way in ("model", "weights", "table model", "estimator") and path.is_file():
        assert re.search("expected a file that fastdrop has saved|expected a whole", message)


def test_a_module_that_is_run_says_what_it_needs():
    """Python imports the package before the module, and would end with a traceback."""
    code = (
        "import runpy, sys; sys.modules['torch'] = None; sys.argv = ['-m']; "
        "sys.orig_argv = ['python', '-m', 'fastdrop.torch']; "
        "runpy.run_module('fastdrop.torch', run_name='__main__', alter_sys=True)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 2
    (line,) = result.stderr.splitlines()
    assert line.startswith("fastdrop: error: fastdrop.torch needs PyTorch: pip install")
    assert result.stdout == ""
