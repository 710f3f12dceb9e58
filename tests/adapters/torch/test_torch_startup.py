"""FASTDROP_TORCH=1 and python -m fastdrop.torch: programs that know nothing of fastdrop."""

import os
import py_compile
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="needs PyTorch")

import _fastdrop_startup
import fastdrop
from fastdrop.torch.__main__ import USAGE

PROGRAM = """\
import importlib.util, subprocess, sys
importlib.util.find_spec("torch")  # a look, not an import
import torch
ours = "_Elements" in str(torch.nn.functional.dropout(torch.ones(3, requires_grad=True)).grad_fn)
print(__name__, sys.argv[1:], ours, flush=True)
if "child" in sys.argv:
    subprocess.run([sys.executable, __file__, "of", "it"], check=True)
"""


@pytest.fixture(scope="module")
def python(tmp_path_factory):
    """An interpreter whose environment has fastdrop as a wheel installs it."""
    installed = Path(sysconfig.get_path("purelib"), "_fastdrop_startup.pth")
    if installed.exists():
        return sys.executable
    source = Path(_fastdrop_startup.__file__).with_suffix(".pth")
    if not source.exists():
        pytest.skip("neither an installed wheel nor a checkout")
    folder = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    site = next(folder.glob("lib/python*/site-packages"))
    shutil.copytree(
        Path(fastdrop.__file__).parent,
        site / "fastdrop",
        ignore=shutil.ignore_patterns("__pycache__"),
    )
    for path in (source, source.with_suffix(".py"), source.with_name("_fastdrop_command.py")):
        shutil.copy(path, site)
    others = Path(pytest.importorskip("torch").__file__).parents[1]
    # a line of code, and before fastdrop's: the folder's own .pth files are not to be read
    (site / "0_others.pth").write_text(f"import sys; sys.path.append({str(others)!r})\n")
    return str(folder / "bin" / "python")


@pytest.fixture
def run(python, tmp_path):
    script = tmp_path / "program.py"
    script.write_text(PROGRAM)

    def run(*arguments, value=None, warnings="error"):
        environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
        environment.pop("FASTDROP_TORCH", None)
        if value is not None:
            environment["FASTDROP_TORCH"] = value
        return subprocess.run(
            [python, "-W", warnings, *arguments],
            env=environment,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )

    return run


@pytest.mark.parametrize(("value", "ours"), [("1", True), ("0", False), ("", False), (None, False)])
def test_variable(run, value, ours):
    found = run("program.py", "a", "--b", value=value)
    assert (found.stdout, found.stderr) == (f"__main__ ['a', '--b'] {ours}\n", "")


def test_variable_that_nobody_understands(run):
    found = run("program.py", value="yes", warnings="default")
    assert found.stdout == "__main__ [] False\n"
    assert "FASTDROP_TORCH: expected 1 or 0, got 'yes'" in found.stderr


def test_variable_where_enable_refuses(run, tmp_path):
    (tmp_path / "old.py").write_text(
        "import sys, _fastdrop_startup\n"
        "sys.modules['fastdrop.torch.enable'] = None\n"  # as if it could not be imported
        "exec(open('program.py').read())\n"
    )
    found = run("old.py", value="1", warnings="default")
    assert found.stdout == "__main__ [] False\n"
    assert "PyTorch's own dropout stays" in found.stderr


@pytest.mark.parametrize("how", [["program.py"], ["-m", "program"]])
@pytest.mark.parametrize("value", [None, "1"])
def test_command(run, how, value):
    found = run("-m", "fastdrop.torch", *how, "child", "--b", value=value)
    assert found.returncode == 0, found.stderr
    assert found.stdout == "__main__ ['child', '--b'] True\n__main__ ['of', 'it'] True\n"


@pytest.mark.parametrize(
    ("arguments", "status", "line"),
    [
        ([], 2, USAGE),
        (["-m"], 2, USAGE),
        (["--help"], 0, USAGE),
        (["--unknown"], 2, USAGE),
        (["missing.py"], 2, "fastdrop.torch: no such file: 'missing.py'"),
        (["-m", "missing"], 2, "fastdrop.torch: no such module: 'missing'"),
        (["-m", "missing.too"], 2, "fastdrop.torch: no such module: 'missing.too'"),
        (["-m", "json"], 2, "fastdrop.torch: no such module: 'json'"),  # has no __main__
        (["-m", ""], 2, "fastdrop.torch: no such module: ''"),
    ],
)
def test_command_without_a_program(run, arguments, status, line):
    found = run("-m", "fastdrop.torch", *arguments)
    assert (found.returncode, found.stderr) == (status, f"{line}\n")


PLACES = """\
import atexit, os, pickle, sys
class Thing: pass
os.chdir("/")
print(os.path.isabs(__file__), os.path.exists(__file__), __package__, sys.argv)
print([os.path.basename(path) for path in sys.path[:2]], os.path.isabs(sys.path[0]))
atexit.register(lambda: print(type(pickle.loads(pickle.dumps(Thing()))).__name__))
"""


@pytest.mark.parametrize("options", [[], ["-P"], ["-E"]])
def test_the_program_sees_what_it_sees_from_python(run, tmp_path, options):
    if options == ["-P"] and sys.version_info < (3, 11):
        pytest.skip("new in Python 3.11")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "places.py").write_text(PLACES)
    program = [os.path.join("sub", "places.py"), "a"]
    expected = run(*options, *program)
    assert expected.stdout.startswith("True True None")
    found = run(*options, "-m", "fastdrop.torch", *program)
    assert (found.stdout, found.stderr) == (expected.stdout, expected.stderr)


@pytest.mark.parametrize("kind", ["folder", "archive", "compiled"])
def test_programs_that_are_not_text(run, tmp_path, kind):
    (tmp_path / "folder").mkdir()
    shutil.copy(tmp_path / "program.py", tmp_path / "folder" / "__main__.py")
    shutil.make_archive(str(tmp_path / "archive"), "zip", tmp_path / "folder")
    py_compile.compile(str(tmp_path / "program.py"), str(tmp_path / "compiled.pyc"))
    name = {"folder": "folder", "archive": "archive.zip", "compiled": "compiled.pyc"}[kind]
    found = run("-m", "fastdrop.torch", name, "a")
    assert (found.stdout, found.stderr) == ("__main__ ['a'] True\n", "")


def test_modules_whose_package_cannot_be_imported(run, tmp_path):
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "__init__.py").write_text("import missing")
    (tmp_path / "package" / "module.py").write_text("")
    found = run("-m", "fastdrop.torch", "-m", "package.module")
    assert "No module named 'missing'" in found.stderr


def test_nothing_is_imported_without_pytorch(run):
    found = run("-c", "import sys; print('numpy' in sys.modules)", value="1")
    assert (found.stdout, found.stderr) == ("False\n", "")
