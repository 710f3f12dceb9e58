"""Dropout for recurrent networks and embeddings."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any

import numpy as np

from fastdrop._checks import as_numbers, checked_p
from fastdrop._quiet import underflowing_both_ways
from fastdrop.layers.base import Array, Backward, Shape
from fastdrop.layers.batch import Batch
from fastdrop.layers.dropout import Dropout, RandomLayer, Rule
from fastdrop.layers.schedules import Rate, p_or_rate
from fastdrop.random import Key
from fastdrop.variants import zoneout, zoneout_backward

__all__ = ["EmbeddingDropout", "LockedDropout", "WeightDropout", "Zoneout"]


class LockedDropout(Dropout):
    """Dropout with one mask for all time steps of a sequence (variational dropout) [1]_ [2]_.

    x has the shape (samples, time, features). It may hold inputs, outputs or recurrent states of an
    RNN. The layer is the same as ``Dropout(p, shared_axes=(1,))``.

    Parameters
    ----------
    p : float or callable
        Probability of dropping a feature of a sample, in [0, 1], or a schedule of it; by default
        0.5.
    rate : float or callable, optional
        Keras's name for `p`.
    seed, input_shape, name
        As for `Layer`.

    Raises
    ------
    TypeError
        When both `p` and `rate` are given.
    ValueError
        When `p` is outside [0, 1], or x has another number of axes.

    References
    ----------
    .. [1] Gal and Ghahramani 2016, A theoretically grounded application of dropout in recurrent
       neural networks, NIPS.
    .. [2] Merity, Keskar, Socher 2018, Regularizing and optimizing LSTM language models, ICLR.
    """

    sample_axes = ("time", "features")
    decides_on = "features"

    def __init__(
        self,
        p: Rate | None = None,
        *,
        rate: Rate | None = None,
        seed: int | None = None,
        input_shape: Iterable[int] | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(
            p, rate=rate, seed=seed, shared_axes=(1,), input_shape=input_shape, name=name
        )


class WeightDropout(Dropout):
    """Dropout of a recurrent weight matrix, with one mask for all samples and time steps [1]_.

    The layer takes the weights instead of a batch. Call it once per sequence, use the result at
    every time step, and send the gradient back through it.

    Parameters
    ----------
    p : float or callable
        Probability of dropping a weight, in [0, 1], or a schedule of it; by default 0.5.
    rate : float or callable, optional
        Keras's name for `p`.
    seed, name
        As for `Layer`.

    Raises
    ------
    TypeError
        When both `p` and `rate` are given.
    ValueError
        When `p` is outside [0, 1].

    References
    ----------
    .. [1] Merity, Keskar, Socher 2018, Regularizing and optimizing LSTM language models, ICLR.

    Examples
    --------
    >>> import numpy as np
    >>> from fastdrop.layers import WeightDropout
    >>> drop = WeightDropout(0.5, seed=1)
    >>> recurrent, x = np.eye(3, dtype=np.float32), np.ones((5, 2, 3), np.float32)
    >>> weight, backward = drop.forward(recurrent)
    >>> h = np.zeros((2, 3), np.float32)
    >>> for x_t in x:
    ...     h = np.tanh(x_t + h @ weight.T)
    >>> drecurrent = backward(np.ones_like(weight))     # takes the gradient of the dropped weights
    >>> drecurrent.shape
    (3, 3)
    """

    decides_on = "weights"

    def __init__(
        self,
        p: Rate | None = None,
        *,
        rate: Rate | None = None,
        seed: int | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(p, rate=rate, seed=seed, name=name)

    def _rules(self, shape: Shape, key: Key, row: int, rows: int) -> tuple[Rule, Rule]:
        return super()._rules(shape, key, 0, rows)  # all samples share the weights


class EmbeddingDropout(WeightDropout):
    """Dropout of whole rows of an embedding: a word is dropped wherever it occurs [1]_ [2]_.

    The layer takes the embedding, of shape (vocabulary, features), instead of a batch.

    Parameters
    ----------
    p : float or callable
        Probability of dropping a word, in [0, 1], or a schedule of it; by default 0.1.
    rate : float or callable, optional
        Keras's name for `p`.
    seed, name
        As for `Layer`.

    Raises
    ------
    TypeError
        When both `p` and `rate` are given.
    ValueError
        When `p` is outside [0, 1], or the embedding has another number of axes.

    References
    ----------
    .. [1] Gal and Ghahramani 2016, A theoretically grounded application of dropout in recurrent
       neural networks, NIPS.
    .. [2] Merity, Keskar, Socher 2018, Regularizing and optimizing LSTM language models, ICLR.

    Examples
    --------
    >>> import numpy as np
    >>> from fastdrop.layers import EmbeddingDropout
    >>> embedding, tokens = np.ones((6, 2), np.float32), np.array([[0, 1, 1], [5, 0, 4]])
    >>> table, backward = EmbeddingDropout(0.5, seed=1).forward(embedding)
    >>> x = table[tokens]
    >>> dtable = np.zeros_like(table)
    >>> np.add.at(dtable, tokens, np.ones_like(x))
    >>> dembedding = backward(dtable)
    >>> x.shape, dembedding.shape
    ((2, 3, 2), (6, 2))
    """

    sample_axes = ("features",)
    decides_on = "words"

    def __init__(
        self,
        p: Rate | None = None,
        *,
        rate: Rate | None = None,
        seed: int | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(p_or_rate(p, rate, 0.1), seed=seed, name=name)
        self.shared_axes = (1,)


class Zoneout(RandomLayer):
    """Keep the previous value of a state with probability p [1]_.

    In training y = x where the mask keeps x, and `previous` elsewhere. At inference y is the mean,
    (1 - p) x + p previous.

    Parameters
    ----------
    p : float
        Probability of keeping the previous value, in [0, 1]; by default 0.1.
    rate : float, optional
        Keras's name for `p`.
    seed, input_shape, name
        As for `Layer`.

    Raises
    ------
    TypeError
        When both `p` and `rate` are given.
    ValueError
        When `p` is outside [0, 1].

    References
    ----------
    .. [1] Krueger et al. 2017, Zoneout: regularizing RNNs by randomly preserving hidden
       activations, ICLR.

    Examples
    --------
    >>> import numpy as np
    >>> from fastdrop.layers import Zoneout
    >>> zoneout, x = Zoneout(0.1, seed=1), np.ones((5, 2, 3), np.float32)
    >>> h, tape = np.zeros((2, 3), np.float32), []
    >>> for x_t in x:
    ...     h, backward = zoneout.forward(np.tanh(x_t + h), previous=h)
    ...     tape.append(backward)
    >>> dnew, dprevious = tape[-1](np.ones_like(h))
    """

    decides_on = "new states"

    def __init__(
        self,
        p: float | None = None,
        *,
        rate: float | None = None,
        seed: int | None = None,
        input_shape: Iterable[int] | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(seed=seed, input_shape=input_shape, name=name)
        self.p = checked_p(p_or_rate(p, rate, 0.1))

    @underflowing_both_ways
    def forward(
        self,
        x: Array,
        batch: Batch = Batch(),
        *,
        previous: Array | None = None,
    ) -> tuple[Array, Backward]:
        """Return the next state and the function that propagates gradients back.

        Parameters
        ----------
        x : ndarray, (samples, ...)
            The new state.
        batch : Batch
            As for `Layer.forward`.
        previous : ndarray, optional
            The old state, with the shape and dtype of x; zeros by default.

        Returns
        -------
        y : ndarray
            The next state.
        backward : callable
            ``backward(dy) -> (dx, dprevious)``, or only dx where no previous state was given.
        """
        p, old = self.p, np.zeros_like(x) if previous is None else as_numbers("previous", previous)
        if not batch.training:
            y = x * (1 - p) + old * p

            def gradients(dy: Array) -> tuple[Array, Array]:
                return dy * (1 - p), dy * p

        else:
            mask: dict[str, Any] = {
                "p": p,
                "key": self.key_of(batch),
                "offset": batch.offset(x),
            }
            y, gradients = zoneout(x, old, **mask), partial(zoneout_backward, **mask)
        if previous is None:
            return y, lambda dy: gradients(dy)[0]
        return y, gradients
