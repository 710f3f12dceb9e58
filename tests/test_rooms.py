"""The house of `docs/development.md`: a room imports only from rooms on floors below its own."""

import ast
import functools
import re
from fnmatch import fnmatch
from pathlib import Path

import pytest
from places import ROOT

PACKAGE = ROOT / "fastdrop"
DRAWING = ROOT / "docs" / "development.md"
pytestmark = pytest.mark.skipif(not DRAWING.exists(), reason="not in a checkout")


def houses():
    """Each drawing's package and its floors of rooms, from the lowest to the highest."""
    drawings = re.findall(r"```rooms ([\w.]+)\n(.*?)```", DRAWING.read_text(), flags=re.DOTALL)
    # names two spaces apart; more spaces before what is said of them
    return {
        package: [re.split(r"  (?=\S)", re.split(r" {3,}", line)[0]) for line in text.splitlines()][
            ::-1
        ]
        for package, text in drawings
    }


def modules():
    """Every module's name and its file; of a folder's `__init__` the name has that, too."""
    files = [*PACKAGE.rglob("*.py"), *PACKAGE.rglob("*.pyx"), *PACKAGE.rglob("*.pxd")]
    return {
        path: "fastdrop." + ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
        for path in files
    }


@functools.cache
def written(path):
    """The imports of this package in a file, wherever in it: a module, and perhaps a name of it."""
    text = path.read_text()
    if path.suffix != ".py":
        found = re.findall(
            r"^\s*(?:from|import|cimport) (fastdrop[\w.]*)", text, flags=re.MULTILINE
        )
        return {(name, None) for name in found}
    names = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            names |= {(alias.name, None) for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: a relative import"
            names |= {(node.module, alias.name) for alias in node.names}
    return {(module, name) for module, name in names if module.partition(".")[0] == "fastdrop"}


def imports(path, known):
    """Names of the modules of this package that a file imports."""
    inner = ((module, f"{module}.{name}") for module, name in written(path))
    return {whole if whole in known else module for module, whole in inner}


def forbidden(package, floors, files):
    """What is not as the drawing of a package says, a line each."""
    height = {room: floor for floor, rooms in enumerate(floors) for room in rooms}
    known = {name.removesuffix(".__init__") for name in files.values()}

    def room(name):
        """The room of this house that a module is in; None where it is in none."""
        if name == package:
            return "__init__"
        return (
            name.removeprefix(f"{package}.").split(".")[0]
            if name.startswith(f"{package}.")
            else None
        )

    for path, name in files.items():
        own = room(name)
        if own is None or (own == "__init__" and package != "fastdrop"):
            continue  # a package's __init__ is its roof
        if own not in height:
            yield f"{name}: not in the drawing of {package}"
            continue
        for other in imports(path, known):
            theirs = room(other)
            if theirs is not None and theirs != own and height.get(theirs, 99) >= height[own]:
                yield f"{name} ({own}) imports {other} ({theirs})"


def test_the_drawing_is_whole():
    drawn, files = houses(), modules()
    assert drawn["fastdrop"][-1] == ["__main__"]
    for package, floors in drawn.items():
        folder = PACKAGE.joinpath(*package.split(".")[1:])
        rooms = [room for floor in floors for room in floor]
        assert len(set(rooms)) == len(rooms)
        for room in rooms:
            assert (folder / room).is_dir() or (folder / f"{room}.py").exists(), (package, room)
    folders = {path.parent for path in files if path.suffix == ".py"}
    few = 4  # files, in a folder that needs no drawing
    for folder in folders:
        if len(list(folder.glob("*.py"))) > few:
            assert ".".join(folder.relative_to(ROOT).parts) in drawn, folder


@pytest.mark.parametrize("package", houses() if DRAWING.exists() else [])
def test_rooms_import_from_below(package):
    assert not list(forbidden(package, houses()[package], modules()))


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("training/step.py", "from fastdrop.models import Sequential"),
        ("training/step.py", "if TYPE_CHECKING:\n    from fastdrop.models import Sequential"),
        ("training/step.py", "def late():\n    import fastdrop.models"),
        ("layers/base.py", "from fastdrop import losses"),
        ("functional.py", "from fastdrop import dropout"),
        ("noise.py", "import fastdrop.variants"),
        ("training/batches.py", "from fastdrop.training import loop"),
        ("compiled/_train.pyx", "from fastdrop.random import Key"),
        ("unknown.py", "import math"),
    ],
)
def test_a_forbidden_import_is_found(tmp_path, module, line):
    path = tmp_path / Path(module).name
    path.write_text(f"{line}\n")
    files = modules() | {path: "fastdrop." + module.partition(".")[0].replace("/", ".")}
    drawn = houses()
    assert any(list(forbidden(package, floors, files)) for package, floors in drawn.items())


def test_every_compiled_file_is_described():
    rows = re.findall(r"^\| (`[^|]*`) \|", DRAWING.read_text(), flags=re.MULTILINE)
    named = [name for row in rows for name in re.findall(r"`(?:kernels/)?([^`]+)`", row)]
    for path in (PACKAGE / "compiled").rglob("*.[ch]"):
        if not path.with_suffix(".pyx").exists():  # made of that
            assert any(fnmatch(path.name, name) for name in named), path


def test_kernels_know_no_python():
    kernels = PACKAGE / "compiled" / "kernels"
    for path in kernels.iterdir():
        for header in re.findall(r'#\s*include\s+[<"](.*?)[>"]', path.read_text()):
            assert "Python" not in header
            assert "/" not in header.replace("sys/", ""), (path, header)
