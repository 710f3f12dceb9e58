"""The package as it is installed, built and cleaned away; and beside PyPI's project fastdrop."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from places import ROOT

import _fastdrop_command
import fastdrop

PACKAGE = Path(fastdrop.__file__).parent
CHECKOUT = pytest.mark.skipif(not (ROOT / "Makefile").exists(), reason="not in a checkout")
PUBLIC = (
    "calibration",
    "callbacks",
    "datasets",
    "diagrams",
    "functional",
    "initializers",
    "layers",
    "learning_rates",
    "losses",
    "metrics",
    "models",
    "noise",
    "optimizers",
    "random",
    "softmax",
    "uncertainty",
    "variants",
)
THEIRS = {  # what matters of fastdrop 0.1.0
    "__init__.py": "from .server import run_server\n__version__ = '0.1.0'\n",
    "__main__.py": "from .cli import main\nmain()\n",
    "cli.py": "def main():\n    print('theirs')\n",
    "server.py": "def run_server(): pass\n",
}


def install(site, *projects):
    """Put files of `projects` into a folder as pip does, the later over those of the earlier."""
    package = site / "fastdrop"
    for project in projects:
        if project == "ours":
            ignore = shutil.ignore_patterns("__pycache__")
            shutil.copytree(PACKAGE, package, ignore=ignore, dirs_exist_ok=True)
            shutil.copy(_fastdrop_command.__file__, site)
            libraries = PACKAGE.with_name("fastdrop_nn.libs")  # which a wheel brings
            if libraries.exists():
                shutil.copytree(libraries, site / libraries.name, dirs_exist_ok=True)
        elif project == "theirs":
            package.mkdir(parents=True, exist_ok=True)
            for name, text in THEIRS.items():
                (package / name).write_text(text)
        else:
            for name in THEIRS:
                (package / name).unlink()


def python(places, *arguments):
    """Run an interpreter that finds packages in `places` first."""
    path = os.pathsep.join(map(str, places))
    return subprocess.run(
        [sys.executable, "-W", "error", *arguments],
        env=os.environ | {"PYTHONPATH": path},
        cwd=places[0],
        capture_output=True,
        text=True,
        timeout=60,
    )


def one_line(text):
    """The only line of a text, which is short enough for a terminal."""
    (line,) = text.splitlines()
    assert len(line) <= 200
    assert line.isprintable()
    return line


@pytest.mark.parametrize("module", ["fastdrop", "fastdrop.models"])
def test_theirs_then_ours(tmp_path, module):
    install(tmp_path, "theirs", "ours")
    result = python([tmp_path], "-c", f"import {module}, fastdrop; print(fastdrop.Key(1).seed)")
    assert result.stdout == "1\n"
    assert "shares files with fastdrop-nn: pip uninstall fastdrop, then" in one_line(result.stderr)


def test_theirs_then_ours_on_the_command_line(tmp_path):
    install(tmp_path, "theirs", "ours")
    result = python([tmp_path], "-m", "fastdrop", "--version")
    assert result.stdout.splitlines()[0] == f"fastdrop {fastdrop.__version__}"
    assert "shares files" in one_line(result.stderr)


@pytest.mark.parametrize("history", [("ours", "theirs"), ("theirs", "ours", "theirs gone")])
def test_files_of_ours_are_lost(tmp_path, history):
    if history[-1] == "theirs gone" and str(PACKAGE.parent) in sys.path:
        pytest.skip("a folder without __init__.py gives way to the package that is installed")
    install(tmp_path, *history)
    code = f"""
import importlib
for name in {PUBLIC}:
    try:
        importlib.import_module(f"fastdrop.{{name}}")
    except ImportError as error:
        print(error)
"""
    lines = python([tmp_path], "-c", code).stdout.splitlines()
    assert len(lines) == len(PUBLIC)
    for line in lines:
        assert "hides fastdrop-nn's package or has taken files" in one_line(line)


def test_public_modules_are_all_there():
    found = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or path.is_dir()}
    private = {"commands", "compiled", "training", "data", "jax", "keras", "sklearn", "torch"}
    private |= {"tables"}  # needs its extra, as the adapters do
    assert sorted(name for name in found - private if name[0] != "_") == sorted(PUBLIC)


def test_no_file_of_ours_looks_like_theirs():
    assert not {"auth.py", "cli.py", "server.py", "uploader.py", "web"} & set(os.listdir(PACKAGE))


def test_ours_first_on_the_path(tmp_path):
    ours, theirs = tmp_path / "a", tmp_path / ("ü" * 100)
    install(ours, "ours")
    install(theirs, "theirs")
    result = python([ours, theirs], "-c", "import fastdrop; print(fastdrop.Key(1).seed)")
    assert result.stdout == "1\n"
    assert "hides PyPI's fastdrop, another project, in " in one_line(result.stderr)


def test_the_line_can_be_switched_off(tmp_path):
    install(tmp_path, "theirs", "ours")
    code = "import logging; logging.getLogger('fastdrop').setLevel('ERROR'); import fastdrop"
    assert python([tmp_path], "-c", code).stderr == ""


def test_theirs_first_on_the_path(tmp_path):
    ours, theirs = tmp_path / "a", tmp_path / "b"
    install(ours, "ours")
    install(theirs, "theirs")
    result = python([theirs, ours], "-c", "import _fastdrop_command as c; print(c.main())")
    assert result.returncode == 2
    assert "Python imports another project's fastdrop, " in one_line(result.stderr)


def test_alone_nothing_is_said(tmp_path):
    install(tmp_path, "ours")
    assert python([tmp_path], "-c", "import fastdrop").stderr == ""


@CHECKOUT
def test_messages_name_our_extras():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    sources = "".join(path.read_text() for path in PACKAGE.rglob("*.py"))
    named = set(re.findall(r"'fastdrop-nn\[(\w+)\]'", sources))
    adapters = {"jax", "keras", "sklearn", "torch"}
    assert named == adapters | {"bfloat16", "completion", "mpi", "plot", "report", "tables"}
    assert named <= extras.keys()
    assert not re.search(r"pip install (?!'?fastdrop-nn|-e \.|--force|flax|equinox)", sources)


TOOLS = {"setuptools": "77.0.3", "Cython": "3.1.0", "numpy": "2.0.0rc1"}
OLD = [
    ({"setuptools": "76.1.0"}, "setuptools>=77, got 76.1.0"),
    ({"Cython": "3.0.12"}, "Cython>=3.1, got 3.0.12"),
    ({"numpy": "1.26.4"}, "numpy>=2, got 1.26.4"),
    ({"Cython": None}, "Cython>=3.1, got none"),
    ({"setuptools": "9.1", "numpy": "1.9"}, "setuptools>=77, got 9.1; numpy>=2, got 1.9"),
]


@CHECKOUT
@pytest.mark.parametrize("command", ["build_ext --inplace", "-q develop"])
@pytest.mark.parametrize(("installed", "message"), OLD, ids=lambda value: str(value)[:30])
def test_old_tools_build_nothing(tmp_path, installed, message, command):
    for name in ("setup.py", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    for name, version in (TOOLS | installed).items():
        if version:
            info = tmp_path / f"{name}-{version}.dist-info"
            info.mkdir()
            (info / "METADATA").write_text(f"Name: {name}\nVersion: {version}\n")
    before = sorted(os.listdir(tmp_path))
    code = f"""
import sys
from pathlib import Path
sys.path = [entry for entry in sys.path if "site-packages" not in entry]
sys.argv[1:] = {command.split()}
exec(Path("setup.py").read_text())
"""
    result = python([tmp_path], "-c", code)
    assert result.returncode == 1
    assert one_line(result.stderr) == (
        f"fastdrop: building needs {message}: pip install 'setuptools>=77' 'Cython>=3.1' 'numpy>=2'"
    )
    assert sorted(os.listdir(tmp_path)) == before


@CHECKOUT
def test_a_wheel_has_every_package():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    folders = [path.parent for path in (ROOT / "fastdrop").rglob("__init__.py")]
    assert sorted(settings["packages"]) == sorted(
        ".".join(folder.relative_to(ROOT).parts) for folder in folders
    )


MADE = (
    ".hypothesis/examples/a",
    ".mypy_cache/a",
    ".pytest_cache/a",
    ".ruff_cache/a",
    ".venv-installed/bin/python",
    ".venv-newest-jax/bin/python",
    ".venv/bin/python",
    "__pycache__/_fastdrop_command.cpython-311.pyc",
    "benchmarks/__pycache__/a.pyc",
    "build/wheels/tools/a",
    "demo/training.png",
    "docs/_inventories/numpy.inv",
    "docs/reference/api/generated/fastdrop.Key.rst",
    "docs/sg_execution_times.rst",
    "docs/tutorials/index.rst",
    "dist/fastdrop_nn-1-cp311-abi3-manylinux_2_17_x86_64.whl",
    "examples/__pycache__/a.pyc",
    "fastdrop/__pycache__/a.pyc",
    "fastdrop/compiled/_core.abi3.so",
    "fastdrop/compiled/_chain.c",
    "fastdrop/compiled/_core.c",
    "fastdrop/compiled/_train.c",
    "fastdrop/compiled/_train.cpython-314t-x86_64-linux-gnu.so",
    "fastdrop/layers/__pycache__/a.pyc",
    "fastdrop_nn.egg-info/PKG-INFO",
    "tests/.hypothesis/a",
    "tests/masks/__pycache__/a.pyc",
)
NOT_MADE = (
    ".benchmarks/a",
    ".venv-mine/bin/python",
    "data/__pycache__/a.pyc",
    "docs/bench/README.md",
    "docs/reference/api/fastdrop.rst",
    "fastdrop/compiled/__init__.py",
    "fastdrop/compiled/mine.so",
    "fastdrop/compiled/pool.c",
    "mine.egg-info/PKG-INFO",
    "results/model.safetensors",
)


@CHECKOUT
def test_make_clean(tmp_path):
    shutil.copy(ROOT / "Makefile", tmp_path)
    for name in (*MADE, *NOT_MADE):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    clean(tmp_path)
    left = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert left == {"Makefile", *NOT_MADE}
    tracked = {"benchmarks", "examples", "fastdrop", "tests"}
    assert set(os.listdir(tmp_path)) == {name.split("/")[0] for name in left} | tracked


@CHECKOUT
def test_make_clean_removes_the_folder_of_pytest_benchmark(tmp_path):
    shutil.copy(ROOT / "Makefile", tmp_path)
    for name in ("benchmarks", "examples", "fastdrop", "tests", ".benchmarks"):
        (tmp_path / name).mkdir()
    clean(tmp_path)
    assert not (tmp_path / ".benchmarks").exists()


def clean(folder):
    subprocess.run(["make", "clean"], cwd=folder, check=True, capture_output=True)
