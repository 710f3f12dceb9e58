"""Adapters are documented from their sources: the libraries that they adapt to need not be there.

After the tutorials have run, each adapter's modules give way to outlines of themselves: its classes
and functions with signatures and docstrings, and nothing that is executed. So the site is the same
with and without PyTorch, JAX, Keras and scikit-learn.
"""

import ast
import sys
from pathlib import Path
from types import ModuleType

import fastdrop

PACKAGE = Path(fastdrop.__file__).parent
ADAPTERS = ("jax", "keras", "sklearn", "torch")
KEPT = {"classmethod", "property", "staticmethod"}  # decorators


class Shown:
    """A default that signatures show as its source has it."""

    def __init__(self, text):
        self.text = text

    def __repr__(self):
        return self.text


def outline(module):
    """The definitions of a module's source, without what they do."""
    classes = {node.name for node in module.body if isinstance(node, ast.ClassDef)}
    return [
        ast.parse("from __future__ import annotations").body[0],
        *(outline_of(node, classes) for node in definitions(module)),
    ]


def definitions(node):
    return [child for child in node.body if isinstance(child, ast.FunctionDef | ast.ClassDef)]


def outline_of(node, classes):
    """A class with its methods, or a function, of which the docstring is all that is left."""
    doc = ast.get_docstring(node, clean=False)
    body = [ast.Expr(ast.Constant(doc))] if doc else [ast.Pass()]
    if isinstance(node, ast.ClassDef):
        bases = [base for base in node.bases if getattr(base, "id", None) in classes]
        body += [outline_of(child, classes) for child in definitions(node)]
        return ast.ClassDef(node.name, bases, [], body, [], type_params=[])
    given = node.args
    given.defaults = list(map(shown, given.defaults))
    given.kw_defaults = [default and shown(default) for default in given.kw_defaults]
    kept = [each for each in node.decorator_list if getattr(each, "id", None) in KEPT]
    return ast.FunctionDef(node.name, given, body, kept, node.returns, type_params=[])


def shown(default):
    return ast.Call(ast.Name("Shown", ast.Load()), [ast.Constant(ast.unparse(default))], [])


def replace_modules(app):
    for path in (path for name in ADAPTERS for path in (PACKAGE / name).glob("*.py")):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        name = ".".join(parts).removesuffix(".__init__")
        tree = ast.parse(path.read_text())
        module = ModuleType(name, ast.get_docstring(tree))
        module.__file__, module.Shown = str(path), Shown
        if path.stem == "__init__":
            module.__path__ = [str(path.parent)]
            module.__all__ = next(map(ast.literal_eval, assigned(tree, "__all__")))
        code = ast.fix_missing_locations(ast.Module(outline(tree), []))
        exec(compile(code, str(path), "exec"), module.__dict__)
        sys.modules[name] = module
    for name in ADAPTERS:
        package = sys.modules[f"fastdrop.{name}"]
        setattr(fastdrop, name, package)
        for each, module in list(sys.modules.items()):
            if each.rpartition(".")[0] == package.__name__:
                setattr(package, each.rpartition(".")[2], module)
        for node in ast.parse(Path(package.__file__).read_text()).body:
            if isinstance(node, ast.ImportFrom) and node.module.startswith(package.__name__):
                for alias in node.names:
                    if alias.name in package.__all__:
                        setattr(package, alias.name, getattr(sys.modules[node.module], alias.name))


def assigned(tree, name):
    return [
        node.value
        for node in tree.body
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", None) == name
    ]


def setup(app):
    app.connect("builder-inited", replace_modules)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
