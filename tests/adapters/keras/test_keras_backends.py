"""fastdrop.keras on each of Keras's backends, in a process of its own; and what is no Keras 3."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from idx_files import idx
from places import EXAMPLES

BACKENDS = ("torch", "jax", "tensorflow")
IDX_STEMS = [
    f"{part}-{kind}"
    for part in ("train", "t10k")
    for kind in ("images-idx3-ubyte", "labels-idx1-ubyte")
]
HERE = Path(__file__).parent
TESTS = HERE.parents[1]

pytestmark = pytest.mark.skipif(not find_spec("keras"), reason="needs Keras")


def run(arguments, backend, **more):
    if not find_spec(backend):
        pytest.skip(f"needs {backend}")
    names = {"KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3", **more}
    path = os.pathsep.join(filter(None, [str(TESTS), str(HERE), os.environ.get("PYTHONPATH", "")]))
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        env={**os.environ, **names, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("backend", "cases"),
    [
        *((backend, "backend_cases.py") for backend in BACKENDS),
        ("tensorflow", "tensorflow_cases.py"),
    ],
)
def test_cases(backend, cases):
    arguments = ["-m", "pytest", "-p", "no:cacheprovider", "-c", os.devnull, "--rootdir", HERE]
    result = run([*arguments, "-q", "-x", HERE / cases], backend)
    assert result.returncode == 0, result.stdout[-5000:] + result.stderr[-1000:]
    assert " passed" in result.stdout


@pytest.mark.slow
@pytest.mark.parametrize("backend", BACKENDS)
def test_kerass_own_tests_of_its_layers(backend, tmp_path):
    """Those that its package brings, with our layers in place of Keras's."""
    folder = Path(find_spec("keras").origin).parent / "src" / "layers" / "regularization"
    files = [*folder.glob("*dropout_test.py"), *folder.glob("gaussian_noise_test.py")]
    if not files:
        pytest.skip("this Keras comes without its tests")
    arguments = ["-m", "pytest", "-p", "in_keras_place", "-p", "no:cacheprovider", "-c", os.devnull]
    result = run([*arguments, "--rootdir", tmp_path, "-q", *files], backend)
    assert result.returncode == 0, result.stdout[-5000:] + result.stderr[-1000:]
    assert len(files) == 5
    assert " passed" in result.stdout


MASKS = """
import hashlib, keras, numpy as np, fastdrop.keras as fkeras
x = np.ones((40, 30), np.float32)
layers = [fkeras.Dropout(0.1, seed=5), fkeras.AlphaDropout(0.1, seed=5)]
layers += [fkeras.GaussianDropout(0.1, seed=5), fkeras.GaussianNoise(0.1, seed=5)]
for layer in layers:
    for _ in range(3):
        y = keras.ops.convert_to_numpy(layer(x, training=True))
        print(hashlib.sha256(y.tobytes()).hexdigest())
"""


@pytest.mark.slow
def test_masks_are_the_same_on_all_backends():
    found = [run(["-c", MASKS], backend).stdout for backend in BACKENDS if find_spec(backend)]
    assert len(found[0].split()) == 12
    assert len(set(found)) == 1


WRONG = {
    "none": (
        "sys.modules['keras'] = None",
        "fastdrop.keras needs Keras: pip install 'fastdrop-nn[",
    ),
    "2": (
        "import types; keras = types.ModuleType('keras'); keras.__version__ = '2.15.0'; "
        "sys.modules['keras'] = keras",
        "fastdrop.keras needs Keras 3.10 or later, got 2.15.0",
    ),
    "legacy": (
        "import os, keras; keras.backend.backend = lambda: 'tensorflow'; "
        "os.environ['TF_USE_LEGACY_KERAS'] = '1'",
        "fastdrop.keras needs Keras 3, but TF_USE_LEGACY_KERAS makes tf.keras Keras 2",
    ),
    "backend": (
        "import keras; keras.backend.backend = lambda: 'openvino'",
        "fastdrop.keras needs Keras's backend torch, jax or tensorflow, got openvino",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_no_keras_or_another_one(name):
    change, message = WRONG[name]
    backend = next(filter(find_spec, BACKENDS), BACKENDS[0])
    result = run(["-c", f"import sys; {change}; import fastdrop.keras"], backend)
    last = result.stderr.strip().splitlines()[-1]
    assert last.startswith(f"ImportError: {message}")
    assert len(last) <= 213


@pytest.mark.slow
@pytest.mark.skipif(not EXAMPLES.exists(), reason="not in a checkout")
@pytest.mark.parametrize("backend", BACKENDS)
def test_scripts_of_which_only_an_import_was_changed(backend, tmp_path):
    """The second one on images that are easy: bright where their number says."""
    if not find_spec("tensorflow"):
        pytest.skip("needs tensorflow")
    rng = np.random.default_rng(0)
    for (images, labels), n in zip((IDX_STEMS[:2], IDX_STEMS[2:]), (600, 200)):
        numbers = rng.integers(0, 10, n).astype(np.uint8)
        x = rng.integers(0, 60, (n, 28, 28)).astype(np.uint8)
        x[np.arange(n), 2 * numbers] += 150
        (tmp_path / images).write_bytes(idx(x))
        (tmp_path / labels).write_bytes(idx(numbers))
    for command, least in ((["keras3_mlp.py"], 0.8), (["keras3_fashion.py", tmp_path], 0.9)):
        result = run([EXAMPLES / command[0], *command[1:]], backend)
        assert result.returncode == 0, result.stderr[-2000:]
        assert float(result.stdout.split()[-1]) > least
