from collections.abc import Callable
from typing import Any

from numpy.typing import DTypeLike, NDArray

from fastdrop.compiled._sparse import SparseRows

class Link:
    def __init__(
        self,
        width: int,
        weight: NDArray[Any] | None = None,
        bias: NDArray[Any] | None = None,
        names: tuple[str | None, str | None] = (None, None),
        activation: str | Callable[..., Any] = "linear",
        dropout: Any = None,
        seed: int = 0,
        trains: bool = False,
        shared: bool = False,
    ) -> None: ...

class Chain:
    grads: dict[str, Any]
    calls_functions: bool
    takes_sparse: bool
    def __init__(
        self,
        links: list[Link],
        inputs: int,
        dtype: DTypeLike,
        buffers: Callable[..., NDArray[Any]],
        shared: Callable[..., NDArray[Any]] | None,
        rate_at: Callable[[Any, int], float],
        in_parts: Callable[..., Any],
    ) -> None: ...
    def forward(
        self, given: NDArray[Any] | SparseRows, training: bool, step: int, row: int
    ) -> NDArray[Any]: ...
    def sample(
        self, x: NDArray[Any], segments: NDArray[Any], row: int, in_lines: bool
    ) -> NDArray[Any]: ...
    def reseed(self, seeds: list[int]) -> None: ...
    def backward(self, dy: NDArray[Any], need_dx: bool) -> NDArray[Any]: ...
