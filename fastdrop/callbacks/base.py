"""The base of callbacks, whose hooks `fit`, `evaluate` and `predict` call while they run."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeAlias

from fastdrop._attributes import Declared
from fastdrop._messages import shown

__all__ = [
    "Callback",
    "LambdaCallback",
    "Listener",
    "Logs",
    "all_of",
    "callbacks_of",
    "check_callable",
    "heard",
]

Logs: TypeAlias = dict[str, float]


class Callback(Declared):
    """Base class of all callbacks. On its own it does nothing.

    Hooks get `logs`, a dict of figures. A hook may keep it, because later batches do not change it.
    What a hook adds to it reaches the callbacks that come later.

    Attributes
    ----------
    model : Sequential
        The model that is trained. It is set before the first hook is called.
    params : dict
        "epochs", "verbose", and "steps", the batches in an epoch, or None if that is not known. It
        is set before the first hook is called.
    every_rank : bool
        Whether the callback is called on all ranks that train together, and not only on rank 0. The
        figures of epochs in `logs` are the same on all of them.
    """

    model: Any = None
    params: Mapping[str, Any] = {}
    every_rank: bool = False

    def set_model(self, model: Any) -> None:
        """Keep the model as the attribute `model`.

        Parameters
        ----------
        model : Sequential
            The model that is trained.
        """
        self.model = model

    def set_params(self, params: Mapping[str, Any]) -> None:
        """Keep what is known about the call as the attribute `params`.

        Parameters
        ----------
        params : mapping
            "epochs", "steps" and "verbose".
        """
        self.params = params

    def on_train_begin(self, logs: Logs | None = None) -> None:
        """Act when `fit` starts. `logs` is empty."""

    def on_train_end(self, logs: Logs | None = None) -> None:
        """Act when `fit` ends, even by an exception. `logs` are those of the last epoch."""

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        """Act when epoch number `epoch`, counted from 0, starts. `logs` is empty."""

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
        """Act when an epoch ends. `logs` has its figures."""

    def on_train_batch_begin(self, batch: int, logs: Logs | None = None) -> None:
        """Act when batch number `batch` of the epoch starts. `logs` is empty."""
        self.on_batch_begin(batch, logs)

    def on_train_batch_end(self, batch: int, logs: Logs) -> None:
        """Act when a batch ends. `logs` has the means over the batches 0 to `batch` of this epoch.

        With several ranks the loss is that of the whole batches, but metrics are those of rank 0's
        rows. At the end of the epoch they are those of all rows.
        """
        self.on_batch_end(batch, logs)

    def on_batch_begin(self, batch: int, logs: Logs | None = None) -> None:
        """Do what `on_train_batch_begin` does. This is another name for it."""

    def on_batch_end(self, batch: int, logs: Logs) -> None:
        """Do what `on_train_batch_end` does. This is another name for it."""

    def on_test_begin(self, logs: Logs | None = None) -> None:
        """Act when `evaluate` or a validation starts. `logs` is empty."""

    def on_test_end(self, logs: Logs) -> None:
        """Act when `evaluate` or a validation has ended without an exception, with its figures."""

    def on_test_batch_begin(self, batch: int, logs: Logs | None = None) -> None:
        """Act when batch number `batch` of `evaluate`, counted from 0, starts. `logs` is empty."""

    def on_test_batch_end(self, batch: int, logs: Logs) -> None:
        """Act when a batch of `evaluate` ends. `logs` has the means over batches 0 to `batch`."""

    def on_predict_begin(self, logs: Logs | None = None) -> None:
        """Act when `predict` starts. `logs` is empty."""

    def on_predict_end(self, logs: Logs | None = None) -> None:
        """Act when `predict` has ended without an exception. `logs` is empty."""

    def on_predict_batch_begin(self, batch: int, logs: Logs | None = None) -> None:
        """Act when batch number `batch` of `predict`, counted from 0, starts. `logs` is empty."""

    def on_predict_batch_end(self, batch: int, logs: dict[str, Any]) -> None:
        """Act when a batch of `predict` ends. `logs` has its outputs, an array, as "outputs"."""


Listener: TypeAlias = tuple[Callback, Callable[..., object]]
HOOKS = tuple(name for name in vars(Callback) if name.startswith("on_"))


class LambdaCallback(Callback):
    """Call functions.

    Parameters
    ----------
    on_epoch_begin, on_epoch_end, on_train_begin, on_train_end, on_train_batch_begin, \
on_train_batch_end : callable, optional
        Functions that take the arguments of the methods of `Callback`, with `logs`.
    **hooks : callable
        The same for its other hooks.

    Raises
    ------
    TypeError
        When a name is not that of a hook, or an object cannot be called.
    """

    def __init__(
        self,
        on_epoch_begin: Callable[[int, Logs], object] | None = None,
        on_epoch_end: Callable[[int, Logs], object] | None = None,
        on_train_begin: Callable[[Logs], object] | None = None,
        on_train_end: Callable[[Logs], object] | None = None,
        on_train_batch_begin: Callable[[int, Logs], object] | None = None,
        on_train_batch_end: Callable[[int, Logs], object] | None = None,
        **hooks: Callable[..., object],
    ) -> None:
        given = {name: value for name, value in locals().items() if name.startswith("on_")}
        for name, function in (given | hooks).items():
            if name not in HOOKS:
                raise TypeError(f"{name}: expected one of Callback's hooks")
            if function is not None:
                check_callable(name, function)
                setattr(self, name, function)

    def _arguments(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name in HOOKS}


def check_callable(argument: str, value: object) -> None:
    """Refuse an object that cannot be called."""
    if not callable(value):
        raise TypeError(f"{argument}: expected what can be called, got {shown(value)}")


def callbacks_of(callbacks: Any) -> list[Callback]:
    """Return the callbacks of the argument `callbacks`.

    Raises
    ------
    TypeError
        When one of them is not a callback, or has a hook that nothing calls.
    """
    if not isinstance(callbacks, Iterable):
        callbacks = () if callbacks is None else (callbacks,)
    given = list(callbacks)
    if not all(isinstance(callback, Callback) for callback in given):
        raise TypeError(f"callbacks: expected fastdrop callbacks, got {shown(callbacks)}")
    for callback in given:
        for name in dir(callback):
            if re.fullmatch(r"on_\w+_(begin|start|end)", name) and name not in HOOKS:
                raise TypeError(
                    f"callbacks: expected no hooks but Callback's, got {name} of "
                    f"{type(callback).__name__}, which nothing calls"
                )
    return given


def all_of(callbacks: Iterable[Callback], hook: str) -> list[Listener]:
    """Return the callbacks, each with its hook of this name."""
    return [(callback, getattr(callback, hook)) for callback in callbacks]


def heard(callbacks: Iterable[Callback], hook: str) -> list[Listener]:
    """Return the callbacks whose hook of this name does something, because batches cost time."""
    other = hook.replace("_train", "")  # the hook that the base class calls
    return [
        (callback, getattr(callback, hook))
        for callback in callbacks
        if _defines(callback, hook) or _defines(callback, other)
    ]


def _defines(callback: Callback, hook: str) -> bool:
    own = getattr(type(callback), hook, None) is not getattr(Callback, hook, None)
    return own or hook in vars(callback)
