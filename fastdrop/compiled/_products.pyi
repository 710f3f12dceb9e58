from typing import Any

from numpy.typing import NDArray

def matmul(a: NDArray[Any], b: NDArray[Any], out: NDArray[Any] | None = None) -> NDArray[Any]: ...
