from collections.abc import Mapping
from typing import Any, TypeGuard

import numpy as np
from numpy.typing import NDArray

from fastdrop.compiled._sparse import SparseRows

STATES: Mapping[str, tuple[str, ...]]

class Layouts:
    def __init__(self, arrays: dict[str, NDArray[Any]], written: bool = False) -> None: ...
    def check(self) -> None: ...

class Watched:
    def __init__(self, layers: list[Any], settings: list[tuple[Any, str]]) -> None: ...
    def is_still(self, layers: list[Any]) -> bool: ...

def are_batch(
    x: Any, y: Any, dtype: np.dtype, shape: tuple[int, ...] | None
) -> TypeGuard[NDArray[Any]]: ...

class ProductGradient:
    a: NDArray[Any]
    b: NDArray[Any] | SparseRows
    out: NDArray[Any]
    def __init__(
        self,
        a: NDArray[Any],
        b: NDArray[Any] | SparseRows,
        out: NDArray[Any],
    ) -> None: ...

def update(
    params: Mapping[str, NDArray[Any]],
    grads: Mapping[str, Any],
    rules: Mapping[str, Any] | None,
    state: dict[str, dict[str, NDArray[Any]]],
    optimizer: str,
    constants: dict[str, float],
    decay: float = 0,
    clipnorm: float | None = None,
    clipvalue: float | None = None,
    global_clipnorm: float | None = None,
) -> None: ...
def sum_of_squares(a: NDArray[Any]) -> float: ...
def submatrix(
    matrix: NDArray[Any],
    rows: NDArray[Any] | None,
    columns: NDArray[Any] | None,
    out: NDArray[Any],
) -> None: ...

class RowsAhead:
    def finish(self) -> NDArray[Any]: ...

def rows_ahead(matrix: NDArray[Any], rows: NDArray[Any], out: NDArray[Any]) -> RowsAhead | None: ...
