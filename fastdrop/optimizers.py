"""Optimisers: rules that change parameters in place, given their gradients.

The formulas are those of Keras. Each update is one pass over parameter, gradient and state in
compiled code, and its results depend neither on the instruction set nor on the number of threads.
Numbers below the normal range (1.2e-38 in float32) count as 0 in it, as in TensorFlow and JAX.
Otherwise the states of dead units would stay among these numbers for ever, and processors are many
times slower on them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar

import numpy as np

from fastdrop._checks import check_flag, check_mapping, check_number, checked_count, lookup
from fastdrop._messages import one_line, shown
from fastdrop._serialization import Configurable
from fastdrop.compiled._train import STATES, ProductGradient, update
from fastdrop.layers.base import Array, PartialGradient, WeightRule
from fastdrop.learning_rates import (
    LearningRate,
    checked_learning_rate,
    learning_rate_at,
    learning_rate_config,
)

__all__ = ["SGD", "Adam", "AdamW", "Optimizer", "RMSprop", "get"]

CLIPS = "clipnorm", "clipvalue", "global_clipnorm"


def _number(argument: str, value: Any) -> float:
    check_number(argument, value)
    return float(value)


def _above_zero(argument: str, value: Any) -> float:
    check_number(argument, value, above_zero=True)
    return float(value)


def _below_one(argument: str, value: Any) -> float:
    check_number(argument, value, below=1)
    return float(value)


def _updates(argument: str, value: Any) -> int:
    """Return a number of updates, with which formulas compute as with a float."""
    updates = checked_count(argument, value, least=0)
    if updates >= 1 << 63:
        raise ValueError(f"{argument}: expected fewer than 2^63, got {shown(value)}")
    return updates


def _flag(argument: str, value: Any) -> bool:
    check_flag(argument, value)
    return bool(value)


def _states(argument: str, value: Any) -> dict[str, Any]:
    check_mapping(argument, value)
    return value if type(value) is dict else dict(value)


def _or_none(check: Callable[[str, Any], Any]) -> Callable[[str, Any], Any]:
    return lambda argument, value: None if value is None else check(argument, value)


class Optimizer(Configurable):
    """Base class of all optimisers.

    Parameters
    ----------
    learning_rate : float or callable
        A number of at least 0, or a callable of the number of the update (counted from 0) that
        returns such a number (see `fastdrop.learning_rates`). It may be assigned between updates.
    clipnorm : float, optional
        Above 0. The gradient of a parameter is scaled down to this Euclidean norm where its norm is
        larger, each parameter by itself.
    clipvalue : float, optional
        Above 0. Each element of a gradient is clipped to [-clipvalue, clipvalue].
    global_clipnorm : float, optional
        Above 0. All gradients are scaled down together where their common norm is larger.
    weight_decay : float, optional
        At least 0. Before the update, learning_rate weight_decay w is subtracted from every
        parameter w, even from biases.

    Attributes
    ----------
    model : Sequential or None
        The model whose parameters the optimiser updates, once the model is compiled.
    iterations : int
        Number of updates so far.
    state : dict of str to dict of str to ndarray
        The arrays that the rule keeps for each parameter, by the parameter's name and by their own
        names. An update depends on `state`, `iterations`, its arguments and the constructor's
        arguments only. So training goes on bit for bit where `state` and `iterations` are restored.

    Raises
    ------
    TypeError, ValueError
        When an argument does not fit its description, or more than one way to clip is given; also
        when it is assigned later, as `iterations` and `state` may be.
    """

    renamed: ClassVar = {
        **dict.fromkeys(("apply", "apply_gradients", "stateless_apply", "update_step"), "update"),
        **dict.fromkeys(("build", "finalize_variable_values", "scale_loss")),
        **dict.fromkeys(("load_own_variables", "save_own_variables")),
    }

    model: object
    iterations: int
    state: dict[str, dict[str, Array]]
    _rules: ClassVar[Iterable[str]] = STATES  # the names that `_step` may return
    _checks: ClassVar[Mapping[str, Callable[[str, Any], Any]]] = {
        **dict.fromkeys(CLIPS, _or_none(_above_zero)),
        "weight_decay": _or_none(_number),
        "iterations": _updates,
        "state": _states,
    }

    def __init__(
        self,
        learning_rate: LearningRate,
        clipnorm: float | None = None,
        clipvalue: float | None = None,
        global_clipnorm: float | None = None,
        weight_decay: float | None = None,
    ) -> None:
        self.learning_rate = learning_rate
        self.clipnorm, self.clipvalue = clipnorm, clipvalue
        self.global_clipnorm = global_clipnorm
        self.weight_decay = weight_decay
        self.model, self.iterations, self.state = None, 0, {}

    def __setattr__(self, name: str, value: Any) -> None:
        check = self._checks.get(name)
        if check is not None:
            value = check(name, value)
        if name in CLIPS and value is not None:
            clips = {clip: vars(self).get(clip) for clip in CLIPS} | {name: value}
            if [*clips.values()].count(None) < 2:
                raise ValueError(
                    f"{', '.join(CLIPS)}: expected at most one of them, "
                    f"got {', '.join(map(str, clips.values()))}"
                )
        super().__setattr__(name, value)

    @property
    def learning_rate(self) -> LearningRate:
        """The number or callable that was given or assigned."""
        return self._learning_rate

    @learning_rate.setter
    def learning_rate(self, learning_rate: LearningRate) -> None:
        self._learning_rate = checked_learning_rate(learning_rate)

    @property
    def current_learning_rate(self) -> float:
        """The learning rate of the next update, as a number."""
        return learning_rate_at(self._learning_rate, self.iterations)

    def follow(self, rate: float) -> None:
        """Take over the learning rate of another rank. A schedule that agrees with it is kept.

        Parameters
        ----------
        rate : float
            The other rank's learning rate for the next update.
        """
        if rate != self.current_learning_rate:
            self.learning_rate = rate

    def state_of(self, params: Mapping[str, Array]) -> dict[str, dict[str, Array]]:
        """Return the state, without arrays for parameters that do not exist any more.

        Parameters
        ----------
        params : mapping of str to ndarray
            The parameters that exist.

        Returns
        -------
        dict of str to dict of str to ndarray
            The part of `state` that the next update needs.

        Raises
        ------
        TypeError
            When `params` is no mapping.
        """
        check_mapping("params", params)
        everything = not self._updates_by_rule
        return {name: s for name, s in self.state.items() if everything or name in params}

    def restore(
        self,
        params: Mapping[str, Array],
        iterations: int,
        state: Mapping[str, Mapping[str, Array]],
    ) -> None:
        """Take over the progress of another optimiser of this class.

        Parameters
        ----------
        params : mapping of str to ndarray
            The parameters to update.
        iterations : int
            The other optimiser's number of updates.
        state : mapping of str to mapping of str to ndarray
            The other optimiser's state.

        Raises
        ------
        TypeError, ValueError
            When an argument does not fit its description, or the rule keeps no such arrays for
            these parameters. Then nothing is changed. Whether the state of a class with an `update`
            of its own fits is not checked.
        """
        check_mapping("params", params)
        iterations = _updates("iterations", iterations)
        check_mapping("state", state)
        for name, arrays in state.items():
            check_mapping(f"state[{shown(name)}]", arrays)
        if self._updates_by_rule:
            for name, arrays in state.items():
                self._check_state(name, params.get(name), arrays)
        self.iterations = iterations
        self.state = {name: dict(arrays) for name, arrays in state.items()}

    def _check_state(self, name: str, param: Array | None, arrays: Mapping[str, Array]) -> None:
        named = shown(name)
        if param is None:
            raise ValueError(f"optimizer: expected states of parameters, got some of {named}")
        # The class may have used another of its rules before an argument was assigned.
        kept = [set(STATES[rule]) for rule in self._rules]
        explained = set[str]().union(*(names for names in kept if names <= arrays.keys()))
        if explained != arrays.keys():
            got = one_line(", ".join(map(str, arrays)), 60)
            raise ValueError(
                f"optimizer: expected the states of {type(self).__name__} for {named}, got {got}"
            )
        for part, array in arrays.items():
            for value in (param, array):
                if not isinstance(value, np.ndarray):
                    raise TypeError(
                        f"optimizer: expected arrays for {named}, got {type(value).__name__}"
                    )
            if array.shape != param.shape or array.dtype != param.dtype:
                raise ValueError(
                    f"optimizer: expected {param.dtype} of shape {param.shape} as {part!r} of "
                    f"{named}, got {array.dtype} {array.shape}"
                )

    def update(
        self,
        params: Mapping[str, Array],
        grads: Mapping[str, Array | PartialGradient | ProductGradient],
        rules: Mapping[str, WeightRule] | None = None,
    ) -> None:
        """Change every array of `params` in place by the gradient of the same name.

        Parameters
        ----------
        params : mapping of str to ndarray
            Arrays of float32 or float64, writeable and C-contiguous.
        grads : mapping of str to ndarray, PartialGradient or ProductGradient
            The gradients by the same names, with the shapes and dtypes of their parameters. With
            `clipnorm` or `global_clipnorm`, a gradient cannot be a `ProductGradient`.
        rules : mapping of str to WeightRule, optional
            Rules for some of the names. The gradient of the penalties, l1 sign(w) + 2 l2 w, is
            added to the parameter's gradient before it is clipped. `max_norm` holds after the
            update.

        Raises
        ------
        TypeError, ValueError
            When an argument does not fit the others or its description. Then nothing is changed.

        Notes
        -----
        `clipnorm` and `global_clipnorm` need the norm first, which takes one more pass over the
        gradients.
        """
        rate = self._learning_rate
        if callable(rate):
            rate = self.current_learning_rate
        name, constants = self._step(rate)
        # Before the update, so that an interrupt right after it finds it. To check the name and the
        # number would take long beside a small update.
        object.__setattr__(self, "iterations", self.iterations + 1)
        try:
            update(
                params,
                grads,
                rules,
                self.state,
                name,
                constants,
                (self.weight_decay or 0.0) * rate,
                self.clipnorm,
                self.clipvalue,
                self.global_clipnorm,
            )
        except Exception as refusal:  # of an argument, so nothing has changed
            self.iterations -= 1
            refusal.args = (one_line(refusal),)  # names are of any length
            raise

    @property
    def takes_products(self) -> bool:
        """Whether gradients may be products: the class has no own `update`, and needs no norms."""
        return self._updates_by_rule and self.clipnorm is None and self.global_clipnorm is None

    @property
    def _updates_by_rule(self) -> bool:
        return getattr(self.update, "__func__", None) is Optimizer.update

    def _step(self, rate: float) -> tuple[str, dict[str, float]]:
        """Return the name of the next update's loop and its constants, see `_train.update`."""
        raise NotImplementedError

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments for JSON, which make an equal optimiser.

        Returns
        -------
        dict
            The arguments by name.

        Raises
        ------
        ValueError
            When the learning rate is a callable that is not one of `fastdrop.learning_rates`.
        """
        return super().get_config() | {"learning_rate": learning_rate_config(self._learning_rate)}


class SGD(Optimizer):
    """Stochastic gradient descent, with or without momentum.

    Parameters
    ----------
    learning_rate : float or callable
        As for `Optimizer`.
    momentum : float
        Share of the last update that is added to the next one, in [0, 1).
    nesterov : bool
        Whether to look ahead along the momentum, in the form of Sutskever et al. [1]_.
    clipnorm, clipvalue, global_clipnorm, weight_decay
        As for `Optimizer`.

    References
    ----------
    .. [1] Sutskever et al. 2013, On the importance of initialization and momentum in deep learning,
       ICML.
    """

    _rules = ("sgd", "momentum", "nesterov")
    _checks: ClassVar = {**Optimizer._checks, "momentum": _below_one, "nesterov": _flag}

    def __init__(
        self,
        learning_rate: LearningRate = 0.01,
        momentum: float = 0.0,
        nesterov: bool = False,
        *,
        clipnorm: float | None = None,
        clipvalue: float | None = None,
        global_clipnorm: float | None = None,
        weight_decay: float | None = None,
    ) -> None:
        super().__init__(learning_rate, clipnorm, clipvalue, global_clipnorm, weight_decay)
        self.momentum, self.nesterov = momentum, nesterov

    def _step(self, rate: float) -> tuple[str, dict[str, float]]:
        if not self.momentum:
            return "sgd", {"rate": rate}
        name = "nesterov" if self.nesterov else "momentum"
        return name, {"rate": rate, "momentum": self.momentum}


class Adam(Optimizer):
    """Adam [1]_, in the form of Keras: epsilon is added to the root before the bias is corrected.

    Parameters
    ----------
    learning_rate : float or callable
        As for `Optimizer`.
    beta_1, beta_2 : float
        Decay of the means of the gradient and of its square, in [0, 1).
    epsilon : float
        What is added to the root, above 0.
    clipnorm, clipvalue, global_clipnorm, weight_decay
        As for `Optimizer`.

    References
    ----------
    .. [1] Kingma and Ba 2015, Adam: a method for stochastic optimization, ICLR; the formula just
       before section 2.1.
    """

    _rules = ("adam",)
    _checks: ClassVar = {
        **Optimizer._checks,
        **dict.fromkeys(("beta_1", "beta_2"), _below_one),
        "epsilon": _above_zero,
    }

    def __init__(
        self,
        learning_rate: LearningRate = 0.001,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-7,
        *,
        clipnorm: float | None = None,
        clipvalue: float | None = None,
        global_clipnorm: float | None = None,
        weight_decay: float | None = None,
    ) -> None:
        super().__init__(learning_rate, clipnorm, clipvalue, global_clipnorm, weight_decay)
        self.beta_1, self.beta_2, self.epsilon = beta_1, beta_2, epsilon

    def _step(self, rate: float) -> tuple[str, dict[str, float]]:
        t = self.iterations + 1
        return "adam", {
            "rate": rate * math.sqrt(1 - self.beta_2**t) / (1 - self.beta_1**t),
            "gain": 1 - self.beta_1,
            "square_gain": 1 - self.beta_2,
            "epsilon": self.epsilon,
        }


class AdamW(Adam):
    """Adam with decoupled weight decay [1]_, which is 0.004 by default.

    Parameters
    ----------
    learning_rate, weight_decay, beta_1, beta_2, epsilon, clipnorm, clipvalue, global_clipnorm
        As for `Adam`.

    References
    ----------
    .. [1] Loshchilov and Hutter 2019, Decoupled weight decay regularization, ICLR.
    """

    def __init__(
        self,
        learning_rate: LearningRate = 0.001,
        weight_decay: float = 0.004,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-7,
        *,
        clipnorm: float | None = None,
        clipvalue: float | None = None,
        global_clipnorm: float | None = None,
    ) -> None:
        super().__init__(
            learning_rate,
            beta_1,
            beta_2,
            epsilon,
            clipnorm=clipnorm,
            clipvalue=clipvalue,
            global_clipnorm=global_clipnorm,
            weight_decay=weight_decay,
        )


class RMSprop(Optimizer):
    """RMSprop [1]_: divide the gradient by the root of the mean of its square.

    Parameters
    ----------
    learning_rate : float or callable
        As for `Optimizer`.
    rho : float
        Decay of the mean, in [0, 1).
    momentum : float
        Share of the last update that is added to the next one, in [0, 1).
    epsilon : float
        What is added under the root, above 0.
    centered : bool
        Whether to divide by the root of the gradient's variance, not of its mean square.
    clipnorm, clipvalue, global_clipnorm, weight_decay
        As for `Optimizer`.

    References
    ----------
    .. [1] Hinton 2012, Neural networks for machine learning, lecture 6e.
    """

    _rules = ("rmsprop", "rmsprop_momentum", "rmsprop_centered", "rmsprop_centered_momentum")
    _checks: ClassVar = {
        **Optimizer._checks,
        **dict.fromkeys(("rho", "momentum"), _below_one),
        "epsilon": _above_zero,
        "centered": _flag,
    }

    def __init__(
        self,
        learning_rate: LearningRate = 0.001,
        rho: float = 0.9,
        momentum: float = 0.0,
        epsilon: float = 1e-7,
        centered: bool = False,
        *,
        clipnorm: float | None = None,
        clipvalue: float | None = None,
        global_clipnorm: float | None = None,
        weight_decay: float | None = None,
    ) -> None:
        super().__init__(learning_rate, clipnorm, clipvalue, global_clipnorm, weight_decay)
        self.rho, self.momentum = rho, momentum
        self.epsilon, self.centered = epsilon, centered

    def _step(self, rate: float) -> tuple[str, dict[str, float]]:
        name = "rmsprop" + "_centered" * self.centered + "_momentum" * (self.momentum > 0)
        return name, {
            "rate": rate,
            "momentum": self.momentum,
            "keep": self.rho,
            "square_gain": 1 - self.rho,
            "epsilon": self.epsilon,
        }


OPTIMIZERS: dict[str, Callable[..., Optimizer]] = {
    "adam": Adam,
    "adamw": AdamW,
    "rmsprop": RMSprop,
    "sgd": SGD,
}


def get(optimizer: str | Optimizer) -> Optimizer:
    """Return an optimiser as it is, or a new one for its name.

    Parameters
    ----------
    optimizer : str or Optimizer
        A name in `OPTIMIZERS`, in upper or lower case, or an optimiser.

    Returns
    -------
    Optimizer
        The optimiser that is given, or a new one with the default arguments.

    Raises
    ------
    ValueError
        When the name is unknown.
    """
    if isinstance(optimizer, Optimizer):
        return optimizer
    name = optimizer.lower() if isinstance(optimizer, str) else optimizer
    return lookup("optimizer", name, OPTIMIZERS)()
