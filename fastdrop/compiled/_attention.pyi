from typing import Any, SupportsIndex, TypeAlias

from numpy.typing import ArrayLike, NDArray

from fastdrop.compiled._core import AtMost

_Threads: TypeAlias = SupportsIndex | AtMost | None

def softmax_dropout(
    x: ArrayLike,
    mask: NDArray[Any] | None,
    causal: bool,
    p: float,
    scale: float,
    seed: int,
    call: int,
    offset: int,
    out: NDArray[Any] | None,
    num_threads: _Threads,
) -> NDArray[Any]: ...
def softmax_dropout_backward(
    dy: ArrayLike,
    scores: NDArray[Any],
    mask: NDArray[Any] | None,
    causal: bool,
    p: float,
    scale: float,
    seed: int,
    call: int,
    offset: int,
    out: NDArray[Any] | None,
    num_threads: _Threads,
) -> NDArray[Any]: ...
def has_products() -> bool: ...
def attention(
    q: NDArray[Any],
    k: NDArray[Any],
    v: NDArray[Any],
    mask: NDArray[Any] | None,
    causal: bool,
    p: float,
    keep_scale: float,
    scale: float,
    seed: int,
    out: NDArray[Any],
    num_threads: _Threads,
) -> None: ...
def attention_backward(
    dout: NDArray[Any],
    q: NDArray[Any],
    k: NDArray[Any],
    v: NDArray[Any],
    mask: NDArray[Any] | None,
    causal: bool,
    p: float,
    keep_scale: float,
    scale: float,
    seed: int,
    dq: NDArray[Any],
    dk: NDArray[Any],
    dv: NDArray[Any],
    num_threads: _Threads,
) -> None: ...
