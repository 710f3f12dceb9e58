"""What other projects' sites call the names that our docstrings link to.

Sphinx would download each project's whole list; these few names do not change, and building the
site needs no network.
"""

import zlib
from pathlib import Path

NUMPY, PYTHON = "https://numpy.org/doc/stable/", "https://docs.python.org/3/"
SKLEARN = "https://scikit-learn.org/stable/"
TORCH = "https://docs.pytorch.org/docs/stable/"

# project: its site, and (name, role, page) of each
PROJECTS = {
    "numpy": (
        NUMPY,
        [
            *(
                (f"numpy.{name}", "class", f"reference/generated/numpy.{name}.html")
                for name in ("dtype", "memmap", "ndarray")
            ),
        ],
    ),
}
# words of our docstrings, and the full names they stand for
ALIASES = {"ndarray": "numpy.ndarray", "dtype": "numpy.dtype", "memmap": "numpy.memmap"}


def write(folder: Path) -> dict[str, tuple[str, str]]:
    """Write a list for each project; return them as `intersphinx_mapping`."""
    folder.mkdir(exist_ok=True)
    mapping = {}
    for project, (site, names) in PROJECTS.items():
        lines = [f"{name} py:{role} 1 {page} -\n" for name, role, page in names]
        head = f"# Sphinx inventory version 2\n# Project: {project}\n# Version: \n"
        head += "# The remainder of this file is compressed using zlib.\n"
        path = folder / f"{project}.inv"
        path.write_bytes(head.encode() + zlib.compress("".join(lines).encode()))
        mapping[project] = (site, str(path))
    return mapping
