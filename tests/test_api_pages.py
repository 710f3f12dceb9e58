"""Every public name is on exactly one page of docs/reference/api, and no page has another name."""

import ast
import re
from collections import Counter
from functools import cache

import pytest
from places import ROOT

PACKAGE = ROOT / "fastdrop"
PAGES = ROOT / "docs" / "reference" / "api"
pytestmark = pytest.mark.skipif(not PAGES.exists(), reason="not in a checkout")
ADAPTERS = ("jax", "keras", "sklearn", "torch")
INTERNAL = (  # not for users, and what of them is for users is in `fastdrop`
    "commands",
    "compiled",
    "functional",
    "noise",
    "random",
    "softmax",
    "training",
    "variants",
)
IN_ADAPTERS = ("jax.equinox", "jax.linen", "jax.nnx", "torch.functional")  # others are internal
IN_ROOMS = ("layers.effects", "layers.schedules")


@cache
def statements(module):
    """What a module's source has at its top, also below `if TYPE_CHECKING`."""
    path = PACKAGE.joinpath(*module.split(".")[1:])
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    found = ast.parse(path.read_text()).body
    return [*found, *(inner for node in found if isinstance(node, ast.If) for inner in node.body)]


@cache
def public_modules():
    """Names of all modules whose `__all__` is for users."""
    rooms = {
        path.stem
        for path in PACKAGE.iterdir()
        if (path / "__init__.py").exists() or path.suffix == ".py"
    }
    rooms = {room for room in rooms if not room.startswith("_")} - set(INTERNAL)
    return ["fastdrop", *sorted(f"fastdrop.{name}" for name in (*rooms, *IN_ADAPTERS, *IN_ROOMS))]


def public_names(module):
    """What a module has in `__all__`, but modules that have pages of their own."""
    for node in statements(module):
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", None) == "__all__":
            names = ast.literal_eval(node.value)
            return [name for name in names if f"{module}.{name}" not in public_modules()]
    return []


@cache
def origin(module, name):
    """The lowest module without an underscore that a name comes from, and the name there."""
    for node in statements(module):
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("fastdrop"):
            for alias in node.names:
                if (alias.asname or alias.name) == name and "._" not in node.module:
                    return origin(node.module, alias.name)
    return module, name


def documented():
    """The names of all pages: their module, their name."""
    for page in sorted(PAGES.glob("*.rst")):
        module = None
        for line in page.read_text().splitlines():
            if found := re.match(r"\.\. module:: (\S+)", line):
                module = found[1]
            elif module and (found := re.match(r"(?:   |\.\. py:data:: )(\w+)$", line)):
                yield module, found[1]


@pytest.mark.parametrize("module", public_modules() if PAGES.exists() else [])
def test_every_public_name_is_on_one_page(module):
    places = Counter(origin(*name) for name in documented())
    wrong = {name: places[origin(module, name)] for name in public_names(module)}
    assert not {name: times for name, times in wrong.items() if times != 1}


def test_pages_have_public_names_only():
    public = {origin(module, name) for module in public_modules() for name in public_names(module)}
    assert [name for name in documented() if origin(*name) not in public] == []


def test_docstrings_refer_to_names_that_have_a_page():
    known = {name for _, name in documented()}
    for path in PACKAGE.rglob("*.py"):
        if not path.is_relative_to(PACKAGE / "training"):  # which has no pages
            referred = re.findall(r"[Aa]s\s+for\s+`([A-Z]\w+)", path.read_text())
            assert {*referred} <= known, path


def test_every_page_is_in_the_list():
    listed = re.findall(r"^   (\w+)$", (PAGES / "index.rst").read_text(), flags=re.MULTILINE)
    assert sorted(listed) == sorted(
        page.stem for page in PAGES.glob("*.rst") if page.stem != "index"
    )


def test_the_public_modules_are_found():
    assert {"fastdrop.layers", "fastdrop.torch.functional", "fastdrop.models"} <= {
        *public_modules()
    }
    assert "predict_mc" in public_names("fastdrop.torch")
    assert origin("fastdrop", "dropout") == ("fastdrop.functional", "dropout")
