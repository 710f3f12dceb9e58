"""A plugin of pytest: Keras's own tests of its layers get ours, see `test_keras_backends.py`."""

import keras.src.layers

import fastdrop.keras.layers

for theirs, ours in fastdrop.keras.layers.LAYERS.items():
    assert getattr(keras.src.layers, theirs.__name__) is theirs
    setattr(keras.src.layers, theirs.__name__, ours)
