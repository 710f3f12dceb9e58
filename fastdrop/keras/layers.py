"""Keras's layers with fastdrop's kernels.

The state of a layer's seed generator is (seed, number of calls). The n-th call of a layer with seed
s has the mask of ``fastdrop.Key(s, n)``. The state is saved with the layer's variables.
"""

from __future__ import annotations

import importlib
from typing import Any

import keras
import numpy as np

from fastdrop.keras.rules import DTYPES, Rule

__all__ = ["LAYERS"]

_backend: Any = importlib.import_module(f"fastdrop.keras.on_{keras.backend.backend()}")
_register = keras.saving.register_keras_serializable("fastdrop")

_STATE = "seed_generator_state"  # its name in files


def _on_cpu(x: Any) -> bool:
    """Tell whether kernels can take it: JAX's run everywhere, and TensorFlow fetches arrays."""
    return keras.backend.backend() != "torch" or x.device.type in ("cpu", "meta")


def _as_tuple(noise_shape: Any) -> tuple[int | None, ...] | None:
    """Return a tuple, or None; some layers of some versions of Keras keep what they were given."""
    try:
        return None if noise_shape is None else tuple(noise_shape)
    except TypeError:
        raise TypeError(
            f"noise_shape: expected a tuple of lengths, 1 and None, got {noise_shape!r:.80}"
        ) from None


class _Masked:
    """What all of these layers share. It stands before Keras's own class."""

    rate: float
    seed_generator: Any

    @property
    def supports_jit(self) -> bool:
        """Whether XLA can compile the layer."""
        return bool(_backend.SUPPORTS_JIT and self.__dict__.get("supports_jit", True))

    @supports_jit.setter
    def supports_jit(self, value: bool) -> None:
        """Keep what Keras's own class sets, in case `revert` restores that class."""
        self.__dict__["supports_jit"] = value

    def _rule(self, inputs: Any) -> Rule:
        raise NotImplementedError

    def call(self, inputs: Any, training: Any = False) -> Any:
        """Apply the layer as Keras's own class does.

        Parameters
        ----------
        inputs, training
            As for Keras's own layer.

        Returns
        -------
        tensor
            As from Keras's own layer, with a mask of fastdrop's.
        """
        dtype = keras.backend.standardize_dtype(inputs.dtype)
        if not training or dtype not in DTYPES or not _on_cpu(inputs):
            return super().call(inputs, training=training)  # type: ignore[misc]
        rule = self._rule(inputs)
        if rule.p == 0:
            return inputs
        return _backend.apply(inputs, rule, self.seed_generator.next())

    def save_own_variables(self, store: Any) -> None:
        """Save the variables and the seed generator's state, which Keras's own layer omits.

        Parameters
        ----------
        store
            Where Keras saves the layer's variables.
        """
        super().save_own_variables(store)  # type: ignore[misc]
        if hasattr(self, "seed_generator"):
            state = keras.ops.convert_to_numpy(self.seed_generator.state).astype(np.int64)
            store[_STATE] = np.where(state < 0, state & 0xFFFFFFFF, state)  # as in `key_of`

    def load_own_variables(self, store: Any) -> None:
        """Load the variables, and the state if the file has it; Keras's own layers save none.

        Parameters
        ----------
        store
            Where Keras has saved the layer's variables.
        """
        rest = {name: store[name] for name in store.keys() if name != _STATE}  # noqa: SIM118
        super().load_own_variables(rest)  # type: ignore[misc]
        if hasattr(self, "seed_generator") and _STATE in store.keys():  # noqa: SIM118
            state = np.asarray(store[_STATE], np.int64)
            if keras.backend.backend() != "tensorflow":  # 32 bits, which are signed on torch
                dtype = keras.backend.standardize_dtype(self.seed_generator.state.dtype)
                state = state.astype(np.uint32).view(dtype)
            self.seed_generator.state.assign(state)


@_register
class Dropout(_Masked, keras.layers.Dropout):
    """Dropout of single elements, like `keras.layers.Dropout`.

    Parameters
    ----------
    rate : float
        Probability of dropping an element.
    noise_shape : tuple of (int or None), optional
        The mask's shape: 1 where a decision is shared, None or the input's length elsewhere.
    seed : int, optional
        The n-th call of the layer has the mask of ``fastdrop.Key(seed, n)``.
    **kwargs
        As in Keras.
    """

    def _rule(self, inputs: Any) -> Rule:
        return Rule("dropout", self.rate, _as_tuple(self.noise_shape))


class _Spatial(_Masked):
    """Base of layers that drop whole channels."""

    def _rule(self, inputs: Any) -> Rule:
        first = getattr(self, "data_format", "channels_last") == "channels_first"
        between = (1,) * (len(inputs.shape) - 2)
        shape = (None, None, *between) if first else (None, *between, None)
        return Rule("dropout", self.rate, shape)


@_register
class SpatialDropout1D(_Spatial, keras.layers.SpatialDropout1D):
    """Dropout of whole channels of series, like `keras.layers.SpatialDropout1D`; see `Dropout`."""


@_register
class SpatialDropout2D(_Spatial, keras.layers.SpatialDropout2D):
    """Dropout of whole channels of images, like `keras.layers.SpatialDropout2D`; see `Dropout`."""


@_register
class SpatialDropout3D(_Spatial, keras.layers.SpatialDropout3D):
    """Dropout of whole channels of volumes, like `keras.layers.SpatialDropout3D`; see `Dropout`."""


@_register
class AlphaDropout(_Masked, keras.layers.AlphaDropout):
    """Dropout for SELU networks, like `keras.layers.AlphaDropout`; see `Dropout`."""

    def _rule(self, inputs: Any) -> Rule:
        return Rule("alpha", self.rate, _as_tuple(self.noise_shape))


@_register
class GaussianDropout(_Masked, keras.layers.GaussianDropout):
    """Multiplication by Gaussian noise, like `keras.layers.GaussianDropout`; see `Dropout`."""

    def _rule(self, inputs: Any) -> Rule:
        return Rule("gaussian", self.rate)


@_register
class GaussianNoise(_Masked, keras.layers.GaussianNoise):
    """Addition of Gaussian noise, like `keras.layers.GaussianNoise`; see `Dropout`."""

    def _rule(self, inputs: Any) -> Rule:
        return Rule("noise", self.stddev)


# our classes by Keras's
LAYERS: dict[type, type] = {
    getattr(keras.layers, layer.__name__): layer
    for layer in (
        Dropout,
        SpatialDropout1D,
        SpatialDropout2D,
        SpatialDropout3D,
        AlphaDropout,
        GaussianDropout,
        GaussianNoise,
    )
}
