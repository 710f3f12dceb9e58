"""Optimisers: rules that change parameters in place, given their gradients."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np

from fastdrop.layers import Array

__all__ = ["SGD", "Adam"]


class Optimizer:
    """Base of all optimisers.

    Parameters
    ----------
    learning_rate : float
        Greater than 0; may be changed between updates.

    Attributes
    ----------
    model : Sequential or None
        Whose parameters it updates, once compiled.
    iterations : int
        Number of updates so far.
    state : dict of str to dict of str to ndarray
        For each parameter's name, the arrays that the rule keeps for it, by their names.

    Raises
    ------
    ValueError
        When an argument is outside its range.
    """

    def __init__(self, learning_rate: float) -> None:
        _check_range("learning_rate", learning_rate, 0, math.inf)
        self.learning_rate = learning_rate
        self.model: object = None
        self.iterations = 0
        self.state: dict[str, dict[str, Array]] = {}

    def update(self, params: Mapping[str, Array], grads: Mapping[str, Array]) -> None:
        """Change every array of `params` in place by its gradient, the one of the same name.

        Parameters
        ----------
        params, grads : mapping of str to ndarray
            Floats; equal names, shapes and dtypes in both.
        """
        self.iterations += 1
        for name, param in params.items():
            self._update_one(param, grads[name], self.state.setdefault(name, {}))

    def _update_one(self, param: Array, grad: Array, state: dict[str, Array]) -> None:
        raise NotImplementedError


class SGD(Optimizer):
    """Stochastic gradient descent, with momentum if asked for.

    Parameters
    ----------
    learning_rate : float
        Greater than 0.
    momentum : float
        In [0, 1).
    nesterov : bool
        Whether to look ahead along the momentum, in the form of Sutskever et al. [1]_.

    References
    ----------
    .. [1] Sutskever et al. 2013, On the importance of initialization and momentum in deep learning,
       ICML.
    """

    def __init__(
        self, learning_rate: float = 0.01, momentum: float = 0.0, nesterov: bool = False
    ) -> None:
        super().__init__(learning_rate)
        _check_range("momentum", momentum, 0, 1, closed=True)
        self.momentum = momentum
        self.nesterov = nesterov

    def _update_one(self, param: Array, grad: Array, state: dict[str, Array]) -> None:
        step = grad * -self.learning_rate
        if self.momentum:
            if not state:
                state["velocity"] = np.zeros_like(param)
            velocity = state["velocity"]
            velocity *= self.momentum
            velocity += step
            step = step + self.momentum * velocity if self.nesterov else velocity
        param += step


class Adam(Optimizer):
    """Adam [1]_, in Keras's form: epsilon is added to the root before its bias is corrected.

    Parameters
    ----------
    learning_rate : float
        Greater than 0.
    beta_1, beta_2 : float
        Decay of the means of the gradient and of its square, in [0, 1).
    epsilon : float
        Greater than 0.

    References
    ----------
    .. [1] Kingma and Ba 2015, Adam: a method for stochastic optimization, ICLR; the formula just
       before section 2.1.
    """

    def __init__(
        self,
        learning_rate: float = 0.001,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-7,
    ) -> None:
        super().__init__(learning_rate)
        _check_range("beta_1", beta_1, 0, 1, closed=True)
        _check_range("beta_2", beta_2, 0, 1, closed=True)
        _check_range("epsilon", epsilon, 0, math.inf)
        self.beta_1 = beta_1
        self.beta_2 = beta_2
        self.epsilon = epsilon

    def _update_one(self, param: Array, grad: Array, state: dict[str, Array]) -> None:
        if not state:
            state.update(m=np.zeros_like(param), v=np.zeros_like(param))
        m, v = state["m"], state["v"]
        t = self.iterations
        alpha = self.learning_rate * math.sqrt(1 - self.beta_2**t) / (1 - self.beta_1**t)
        # One temporary for everything: these arrays do not fit in the nearer caches.
        temporary = grad * (1 - self.beta_1)
        m *= self.beta_1
        m += temporary
        np.multiply(grad, grad, out=temporary)
        temporary *= 1 - self.beta_2
        v *= self.beta_2
        v += temporary
        np.sqrt(v, out=temporary)
        temporary += self.epsilon
        np.divide(m, temporary, out=temporary)
        temporary *= alpha
        param -= temporary


def _check_range(
    argument: str, value: float, low: float, high: float, closed: bool = False
) -> None:
    """Refuse a value outside (low, high), or [low, high) when `closed`."""
    if isinstance(value, str) or not (low < value < high or (closed and value == low)):
        bracket = "[" if closed else "("
        raise ValueError(f"{argument}: expected a number in {bracket}{low}, {high}), got {value!r}")


OPTIMIZERS: dict[str, Callable[..., Optimizer]] = {"adam": Adam, "sgd": SGD}
