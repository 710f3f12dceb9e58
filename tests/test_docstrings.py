"""The examples in docstrings run, and give what they say."""

import doctest
import importlib
from pathlib import Path

import extras
import pytest

import fastdrop

PACKAGE = Path(fastdrop.__file__).parent
MODULES = sorted(
    "fastdrop." + ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
    for path in PACKAGE.rglob("*.py")
    if path.name not in ("__init__.py", "__main__.py")
)


@pytest.mark.parametrize("name", MODULES)
def test_docstrings(name):
    if lacking := extras.missing([name]):
        pytest.skip(f"needs {', '.join(lacking)}")
    result = doctest.testmod(importlib.import_module(name))
    assert result.failed == 0
