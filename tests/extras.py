"""Which libraries a module or an example needs, and which of them are not installed."""

import ast
import os
import sys
from importlib.util import find_spec

KERAS_BACKEND = os.environ.get("KERAS_BACKEND", "tensorflow")
NEEDED = {  # by packages and modules, what they import
    "fastdrop.commands.report": ["jinja2", "PIL"],
    "fastdrop.commands.train.pictures": ["matplotlib"],
    "fastdrop.diagrams": ["matplotlib"],
    "fastdrop.jax": ["jax"],
    "fastdrop.jax.equinox": ["equinox"],
    "fastdrop.jax.linen": ["flax"],
    "fastdrop.jax.nnx": ["flax"],
    "fastdrop.keras": [KERAS_BACKEND, "keras"],
    "fastdrop.keras.on_jax": ["jax"],
    "fastdrop.keras.on_tensorflow": ["tensorflow"],
    "fastdrop.keras.on_torch": ["torch"],
    "fastdrop.sklearn": ["sklearn"],
    "fastdrop.TableModel": ["pyarrow"],
    "fastdrop.tables": ["pyarrow"],
    "fastdrop.torch": ["torch"],
    "keras": [KERAS_BACKEND],
}


def imported(code):
    """The modules that code imports, with their packages' names, wherever in it."""
    names = set()
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def libraries(modules):
    """The libraries that modules are of, and those that the modules of ours need."""
    found = {name.partition(".")[0] for name in modules} - set(sys.stdlib_module_names)
    for package, needed in NEEDED.items():
        if any(f"{name}.".startswith(f"{package}.") for name in modules):
            found |= set(needed)
    return found


def missing(modules):
    """The libraries that modules need and that are not installed, in order."""
    return sorted(name for name in libraries(modules) if find_spec(name) is None)
