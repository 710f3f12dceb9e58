from typing import Any

from numpy.typing import NDArray

def mean_loss(
    name: str,
    outputs: NDArray[Any],
    y: NDArray[Any],
    weights: NDArray[Any] | None,
    delta: float,
) -> tuple[float, NDArray[Any]] | None: ...
def are_classes(y: NDArray[Any], output_shape: tuple[int, ...]) -> bool: ...
def count_hits(outputs: object, y: object) -> int | None: ...
def are_finite(x: NDArray[Any]) -> bool: ...
def softmax_cross_entropy(
    logits: NDArray[Any], y: NDArray[Any]
) -> tuple[NDArray[Any], NDArray[Any]]: ...
def softmax_of(z: NDArray[Any], out: NDArray[Any]) -> bool: ...
def activation_of(name: str, z: NDArray[Any], out: NDArray[Any] | None) -> NDArray[Any] | None: ...
def activation_gradient_of(name: str, dy: NDArray[Any], y: NDArray[Any]) -> NDArray[Any] | None: ...
def add_samples(
    samples: NDArray[Any],
    terms: NDArray[Any] | None,
    sums: NDArray[Any],
    entropies: NDArray[Any] | None,
    votes: NDArray[Any] | None,
    anew: bool,
) -> None: ...
def statistics_of(
    sums: NDArray[Any],
    entropies: NDArray[Any] | None,
    votes: NDArray[Any] | None,
    count: int,
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any] | None, NDArray[Any] | None]: ...
