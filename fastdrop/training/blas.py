"""Matrix products by NumPy's own BLAS, on the threads that also run the rest of a training step.

The BLAS in NumPy's wheels is OpenBLAS. Its threads spin for 0.1 s after each product and keep their
cores from everybody else. So here its functions are called on one thread each, on parts of a
product. With another BLAS, `matmul` is NumPy's.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from fastdrop.compiled._train import after_fork_in_child, matmul, use_blas

__all__ = ["NAME", "matmul"]


def _find() -> str | None:
    """Find NumPy's OpenBLAS, and return the name of its file, or None."""
    package = Path(np.__file__).parent
    for folder in (package.with_name("numpy.libs"), package / ".dylibs"):
        for path in sorted(folder.glob("*openblas64*")):
            if use_blas(os.fsencode(path)):
                return path.name
    return None


NAME = _find()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=after_fork_in_child)
