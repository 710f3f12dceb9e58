from contextlib import AbstractContextManager
from typing import Any, SupportsIndex, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

def available_isas() -> tuple[str, ...]: ...
def active_isa() -> str: ...
def set_isa(name: str) -> None: ...
def use_isa(name: str) -> AbstractContextManager[None]: ...
def set_num_threads(n: SupportsIndex) -> None: ...
def get_num_threads() -> int: ...
def openmp_version() -> int: ...
def compiler() -> str: ...
def openmp_max_threads() -> int: ...
def set_cache_bytes(n: int) -> None: ...
def cache_bytes() -> int: ...

MEMORY_DTYPES: dict[str, np.dtype[Any]]

def memory(address: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]: ...
def want_huge_pages(address: int, nbytes: int) -> None: ...

class AtMost:
    def __init__(self, n: SupportsIndex) -> None: ...

def lend_threads(path: bytes) -> bool: ...

_Threads: TypeAlias = SupportsIndex | AtMost | None

def identity(x: ArrayLike, out: NDArray[Any] | None) -> NDArray[Any]: ...
def make_mask(
    n: int,
    p: float,
    seed: int,
    call: int,
    offset: int,
    packed: bool,
    num_threads: _Threads,
) -> NDArray[np.uint8]: ...
def masked_scale(
    x: ArrayLike,
    p: float,
    scale: float,
    seed: int,
    call: int,
    axes: tuple[int, ...],
    offset: int,
    out: NDArray[Any] | None,
    return_mask: bool,
    num_threads: _Threads,
) -> Any: ...
def masked_scale_memory(
    x: int,
    y: int,
    n: int,
    dtype: np.dtype[Any],
    p: float,
    scale: float,
    seed: int,
    num_threads: _Threads,
) -> None: ...
def apply_packed(
    x: ArrayLike,
    packed: NDArray[np.uint8],
    scale: float,
    axes: tuple[int, ...],
    out: NDArray[Any] | None,
    num_threads: _Threads,
) -> NDArray[Any]: ...
def masked_add(
    x: ArrayLike,
    residual: NDArray[Any],
    p: float,
    scale: float,
    seed: int,
    call: int,
    axes: tuple[int, ...],
    offset: int,
    out: NDArray[Any] | None,
    num_threads: _Threads,
) -> NDArray[Any]: ...
def masked_pick(
    x: ArrayLike,
    previous: NDArray[Any],
    p: float,
    seed: int,
    call: int,
    axes: tuple[int, ...],
    offset: int,
    out: NDArray[Any] | None,
    num_threads: _Threads,
) -> NDArray[Any]: ...
def masked_alpha(
    x: ArrayLike,
    p: float,
    scale: float,
    shift: float,
    fill: float,
    seed: int,
    call: int,
    axes: tuple[int, ...],
    offset: int,
    out: NDArray[Any] | None,
    num_threads: _Threads,
) -> NDArray[Any]: ...
def normal_noise(
    x: ArrayLike,
    multiply: bool,
    scale: float,
    seed: int,
    call: int,
    offset: int,
    out: NDArray[Any] | None,
    num_threads: _Threads,
) -> NDArray[Any]: ...
def drop_blocks(
    x: ArrayLike,
    block: int,
    gamma: float,
    seed: int,
    call: int,
    offset: int,
    out: NDArray[Any] | None,
    num_threads: _Threads,
) -> NDArray[Any]: ...
def masked_bias(
    x: ArrayLike,
    bias: NDArray[Any],
    relu: bool,
    p: float,
    scale: float,
    seed: int,
    call: int,
    axes: tuple[int, ...],
    offset: int,
    out: NDArray[Any] | None,
    num_threads: _Threads,
) -> NDArray[Any]: ...
def bias_backward(
    dy: ArrayLike,
    y: NDArray[Any] | None,
    relu: bool,
    p: float,
    scale: float,
    seed: int,
    call: int,
    axes: tuple[int, ...],
    offset: int,
    out: NDArray[Any] | None,
    num_threads: _Threads,
) -> tuple[NDArray[Any], NDArray[Any]]: ...
def stream_copy(x: NDArray[Any], out: NDArray[Any], num_threads: _Threads) -> NDArray[Any]: ...

OPS: dict[str, int]

def xla_handler() -> object: ...
def register_tensorflow_op(path: bytes) -> None: ...
def philox(counter: tuple[int, ...] | list[int], seed: int) -> tuple[int, int, int, int]: ...
def fold_in(seed: int, call: int, n: int) -> int: ...
def random_words(n: int, seed: int, call: int, offset: int) -> NDArray[np.uint32]: ...
