"""What is done to an array, whatever the backend."""

from __future__ import annotations

from typing import Any, NamedTuple

from numpy.typing import NDArray

from fastdrop.functional import dropout
from fastdrop.noise import gaussian_dropout, gaussian_noise
from fastdrop.random import Key
from fastdrop.variants import alpha_dropout, alpha_dropout_backward

__all__ = ["DTYPES", "Rule", "key_of", "run"]

DTYPES = ("float16", "bfloat16", "float32", "float64")


class Rule(NamedTuple):
    """A member of the dropout family, with its parameters.

    Attributes
    ----------
    kind : {"dropout", "alpha", "alpha gradient", "gaussian", "noise"}
        Which member it is.
    p : float
        Probability of dropping, or the standard deviation of "noise".
    noise_shape : tuple of (int or None), optional
        The mask's own shape: 1 where a decision is shared, None or the input's length elsewhere.
        If it has fewer axes than the input, the first axes of the input are shared.
    """

    kind: str
    p: float
    noise_shape: tuple[int | None, ...] | None = None

    @property
    def gradient(self) -> Rule | None:
        """The rule for dy, or None if dy is not changed."""
        if self.kind == "noise":
            return None
        return self._replace(kind="alpha gradient") if self.kind == "alpha" else self

    def shared(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return the axes of an input of this shape along which a decision is shared."""
        if self.noise_shape is None:
            return ()
        first = len(shape) - len(self.noise_shape)
        own = (1,) * first + self.noise_shape
        fits = first >= 0 and all(
            length in (None, 1) or length == known for length, known in zip(own, shape)
        )
        if not fits:
            raise ValueError(
                f"noise_shape: expected one that broadcasts to {shape}, got {self.noise_shape}"
            )
        return tuple(axis for axis, length in enumerate(own) if length == 1)


def key_of(seed: int, call: int) -> Key:
    """Return the key of a seed generator's state.

    Torch keeps unsigned integers of 32 bits in signed integers. TensorFlow has 64 bits.
    """
    return Key(*(word & 0xFFFFFFFF if word < 0 else word for word in (seed, call)))


def run(
    x: NDArray[Any],
    rule: Rule,
    key: Key,
    out: NDArray[Any] | None = None,
    num_threads: Any = None,
) -> NDArray[Any]:
    """Apply a rule to a NumPy array.

    Parameters
    ----------
    x : ndarray
        The array.
    rule : Rule
        What to do to it.
    key : Key
        The key of the mask.
    out : ndarray, optional
        Array for the result.
    num_threads : int, optional
        As in `fastdrop.dropout`.

    Returns
    -------
    ndarray
        The result, with the shape and dtype of x.
    """
    more: dict[str, Any] = {"key": key, "out": out, "num_threads": num_threads}
    if rule.kind == "gaussian":
        return gaussian_dropout(x, rule.p, **more)
    if rule.kind == "noise":
        return gaussian_noise(x, rule.p, **more)
    functions = {"alpha": alpha_dropout, "alpha gradient": alpha_dropout_backward}
    function: Any = functions.get(rule.kind, dropout)
    y: NDArray[Any] = function(x, rule.p, shared_axes=rule.shared(x.shape), **more)
    return y
