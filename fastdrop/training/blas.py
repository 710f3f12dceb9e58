"""Matrix products by NumPy's own BLAS, on the threads that the rest of a training step runs on.

The BLAS in NumPy's wheels is OpenBLAS. Its threads spin for 0.1 s after each product and let nobody
else have their cores, so here its functions are called on one thread each, on parts of a product.
With another BLAS `matmul` is NumPy's.
"""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

import numpy as np

from fastdrop.compiled._train import after_fork_in_child, matmul, use_blas

__all__ = ["NAME", "matmul"]

# What the functions are called in the wheels since NumPy 1.26, and before.
_NAMES = [
    ("scipy_cblas_{}gemm64_", "scipy_openblas_{}_num_threads64_"),
    ("cblas_{}gemm64_", "openblas_{}_num_threads64_"),
]


def _find() -> str | None:
    """Find NumPy's OpenBLAS, and return the name of its file."""
    package = Path(np.__file__).parent
    for folder in (package.with_name("numpy.libs"), package / ".dylibs"):
        for path in sorted(folder.glob("*openblas64*")):
            library = ctypes.CDLL(str(path))  # NumPy has loaded it: this is only its handle
            for product, threads in _NAMES:
                names = [product.format("s"), product.format("d")]
                names += [threads.format("get"), threads.format("set")]
                if all(hasattr(library, name) for name in names):
                    functions = (getattr(library, name) for name in names)
                    use_blas(*(ctypes.cast(f, ctypes.c_void_p).value or 0 for f in functions))
                    return path.name
    return None


NAME = _find()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=after_fork_in_child)
