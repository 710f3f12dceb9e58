"""What `fit`, `evaluate` and `predict` tell while they run, and to whom: the base of callbacks."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeAlias

from fastdrop._attributes import Declared

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

#: The type of ``logs``: figures by name.
Logs: TypeAlias = dict[str, float]


class Callback(Declared):
    """Base of all callbacks; does nothing.

    Hooks get `logs`, a dict of figures, which may be kept: later batches do not change it. What a
    hook adds to it reaches the callbacks behind.

    Attributes
    ----------
    model : Sequential
        The model that is trained. Set before the first hook.
    params : dict
        "epochs", "verbose", and "steps" (batches) per epoch, None where nobody knows. Set before
        the first hook.
    every_rank : bool
        Where several ranks train together: whether it is called on all of them, and not only on
        rank 0. Epochs' figures in `logs` are the same everywhere.
    """

    model: Any = None
    params: Mapping[str, Any] = {}
    every_rank: bool = False

    def set_model(self, model: Any) -> None:
        """Keep the model, as `model`."""
        self.model = model

    def set_params(self, params: Mapping[str, Any]) -> None:
        """Keep what is known of the call, as `params`."""
        self.params = params

    def on_train_begin(self, logs: Logs | None = None) -> None:
        """Take note that `fit` starts; `logs` is empty."""

    def on_train_end(self, logs: Logs | None = None) -> None:
        """Take note that `fit` ends, be it by an exception; `logs` are the last epoch's."""

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        """Take note that epoch number `epoch`, from 0, starts; `logs` is empty."""

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
        """Take note of the epoch's figures."""

    def on_train_batch_begin(self, batch: int, logs: Logs | None = None) -> None:
        """Take note that batch number `batch` of the epoch starts; `logs` is empty."""
        self.on_batch_begin(batch, logs)

    def on_train_batch_end(self, batch: int, logs: Logs) -> None:
        """Take note of the means over the batches 0 to `batch` of this epoch.

        Over several ranks the loss is that of the whole batches, metrics are those of rank 0's rows
        of them; at the end of the epoch they are those of all rows.
        """
        self.on_batch_end(batch, logs)

    def on_batch_begin(self, batch: int, logs: Logs | None = None) -> None:
        """Do what `on_train_batch_begin` does: another name."""

    def on_batch_end(self, batch: int, logs: Logs) -> None:
        """Do what `on_train_batch_end` does: another name."""

    def on_test_begin(self, logs: Logs | None = None) -> None:
        """Take note that `evaluate` or a validation starts; `logs` is empty."""

    def on_test_end(self, logs: Logs) -> None:
        """Take note that it has ended, with these figures; not told after an exception."""

    def on_test_batch_begin(self, batch: int, logs: Logs | None = None) -> None:
        """Take note that its batch number `batch`, from 0, starts; `logs` is empty."""

    def on_test_batch_end(self, batch: int, logs: Logs) -> None:
        """Take note of the means over its batches 0 to `batch`."""

    def on_predict_begin(self, logs: Logs | None = None) -> None:
        """Take note that `predict` starts; `logs` is empty."""

    def on_predict_end(self, logs: Logs | None = None) -> None:
        """Take note that `predict` has ended; `logs` is empty. Not told after an exception."""

    def on_predict_batch_begin(self, batch: int, logs: Logs | None = None) -> None:
        """Take note that its batch number `batch`, from 0, starts; `logs` is empty."""

    def on_predict_batch_end(self, batch: int, logs: dict[str, Any]) -> None:
        """Take note of a batch's outputs, an array under "outputs"."""


Listener: TypeAlias = tuple[Callback, Callable[..., object]]
HOOKS = tuple(name for name in vars(Callback) if name.startswith("on_"))


class LambdaCallback(Callback):
    """Call functions.

    Parameters
    ----------
    on_epoch_begin, on_epoch_end, on_train_begin, on_train_end, on_train_batch_begin, \
on_train_batch_end : callable, optional
        With the arguments of the methods of `Callback`, `logs` included.
    **hooks : callable
        The same for its other hooks.

    Raises
    ------
    TypeError
        For other names, or what cannot be called.
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


def check_callable(argument: str, value: object) -> None:
    """Refuse what cannot be called."""
    if not callable(value):
        raise TypeError(f"{argument}: expected what can be called, got {value!r}")


def callbacks_of(callbacks: Any) -> list[Callback]:
    """Return the callbacks of the argument `callbacks`.

    Raises
    ------
    TypeError
        When one is no callback, or has a hook that nobody would call.
    """
    given = list(callbacks or ()) if isinstance(callbacks, Iterable | None) else [callbacks]
    if not all(isinstance(callback, Callback) for callback in given):
        raise TypeError(f"callbacks: expected fastdrop callbacks, got {callbacks}")
    for callback in given:
        for name in dir(callback):
            if re.fullmatch(r"on_\w+_(begin|start|end)", name) and name not in HOOKS:
                raise TypeError(
                    f"callbacks: expected no hooks but Callback's, got {name} of "
                    f"{type(callback).__name__}, which nobody would call"
                )
    return given


def all_of(callbacks: Iterable[Callback], hook: str) -> list[Listener]:
    """Return the callbacks, each with its hook of this name."""
    return [(callback, getattr(callback, hook)) for callback in callbacks]


def heard(callbacks: Iterable[Callback], hook: str) -> list[Listener]:
    """Return those whose hook of this name does something: in every batch time counts."""
    other = hook.replace("_train", "")  # which the base's calls
    return [
        (callback, getattr(callback, hook))
        for callback in callbacks
        if _defines(callback, hook) or _defines(callback, other)
    ]


def _defines(callback: Callback, hook: str) -> bool:
    own = getattr(type(callback), hook, None) is not getattr(Callback, hook, None)
    return own or hook in vars(callback)
