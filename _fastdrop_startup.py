"""What FASTDROP_TORCH=1 does: `fastdrop.torch.enable` as soon as a program has imported PyTorch.

Python reads `_fastdrop_startup.pth` in each process that it starts, and that imports this where the
variable is set. It lies beside the package: a module in it would import NumPy in each process.
"""

import importlib.abc
import importlib.machinery
import os
import sys
import warnings
from collections.abc import Sequence
from types import ModuleType
from typing import Any

VARIABLE = "FASTDROP_TORCH"


def begin() -> None:
    """Wait for PyTorch if the variable says so; warn where it says what nobody understands."""
    value = os.environ.get(VARIABLE, "")
    if value == "1":
        if not any(isinstance(finder, _Finder) for finder in sys.meta_path):  # some read it twice
            sys.meta_path.insert(0, _Finder())
    elif value not in ("", "0"):
        warnings.warn(f"{VARIABLE}: expected 1 or 0, got {value!r:.100}", stacklevel=2)


class _Finder(importlib.abc.MetaPathFinder):
    """Finds PyTorch where others find it, and lets `enable` follow its import."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name != "torch":
            return None
        for finder in sys.meta_path:
            spec = None if finder is self else finder.find_spec(name, path, target)
            if spec:
                if spec.loader:
                    spec.loader = _Loader(spec.loader, self)
                return spec
        return None


class _Loader(importlib.abc.Loader):
    """Another loader, and `enable` behind it."""

    def __init__(self, loader: Any, finder: _Finder) -> None:
        self._loader = loader
        self._finder = finder

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        module: ModuleType | None = self._loader.create_module(spec)
        return module

    def exec_module(self, module: ModuleType) -> None:
        assert module.__spec__
        module.__spec__.loader = module.__loader__ = self._loader
        self._loader.exec_module(module)
        sys.meta_path.remove(self._finder)
        try:
            from fastdrop.torch.enable import enable  # the package itself may be on its way

            enable()
        except (ImportError, RuntimeError) as error:  # the program is no worse than without
            warnings.warn(f"{VARIABLE}: PyTorch's own dropout stays: {error!s:.140}", stacklevel=2)
