"""Which names in "Parameters" are links, and where they lead.

Sphinx would download each project's list of names; the few that our docstrings have do not change,
and building the site needs no network.
"""

import re
import zlib
from pathlib import Path

# project: its site; by page, the names there, each after its domain and role
PROJECTS = {
    "numpy": (
        "https://numpy.org/doc/stable/",
        {
            "reference/generated/numpy.dtype.html": "py:class numpy.dtype",
            "reference/generated/numpy.memmap.html": "py:class numpy.memmap",
            "reference/generated/numpy.ndarray.html": "py:class numpy.ndarray",
            "glossary.html#term-array_like": "std:term array_like",
        },
    ),
    "python": (
        "https://docs.python.org/3/",
        {
            "library/functions.html#callable": "py:function callable",
            "library/functions.html#float": "py:class float",
            "library/functions.html#int": "py:class int",
            "library/stdtypes.html#boolean-type-bool": "std:label bltin-boolean-values",
            "library/stdtypes.html#dict": "py:class dict",
            "library/stdtypes.html#list": "py:class list",
            "library/stdtypes.html#str": "py:class str",
            "library/stdtypes.html#tuple": "py:class tuple",
            "library/constants.html#False": "py:data False",
            "library/constants.html#None": "py:data None",
            "library/constants.html#True": "py:data True",
            "glossary.html#term-generator": "std:term generator",
            "glossary.html#term-iterable": "std:term iterable",
            "glossary.html#term-sequence": "std:term sequence",
        },
    ),
}
TYPES = {"dtype": "numpy.dtype", "memmap": "numpy.memmap", "ndarray": "numpy.ndarray"}


def write(folder: Path) -> dict[str, tuple[str, str]]:
    """Write each project's list as Sphinx reads it; return them as `intersphinx_mapping`."""
    folder.mkdir(exist_ok=True)
    mapping = {}
    for project, (site, pages) in PROJECTS.items():
        lines = []
        for page, role_and_name in pages.items():
            role, name = role_and_name.split()
            lines.append(f"{name} {role} 1 {page} -\n")
        head = f"# Sphinx inventory version 2\n# Project: {project}\n# Version: \n"
        head += "# The remainder of this file is compressed using zlib.\n"
        path = folder / f"{project}.inv"
        path.write_bytes(head.encode() + zlib.compress("".join(lines).encode()))
        mapping[project] = (site, str(path))
    return mapping


def aliases(api: Path) -> dict[str, str]:
    """Return what a word for a type stands for: NumPy's, and the classes on our API's pages.

    Adapters have layers of the same names, so a word leads to the layer of the trainer.
    """
    found = dict(TYPES)
    for page in sorted(api.glob("*.rst"), reverse=True):
        text = page.read_text()
        module = re.search(r"module:: (\S+)", text)
        if module and not re.match(r"fastdrop\.(jax|keras|sklearn|torch)", module[1]):
            for name in re.findall(r"^   ([A-Z]\w*[a-z]\w*)$", text, flags=re.MULTILINE):
                found[name] = f"{module[1]}.{name}"
    return found
