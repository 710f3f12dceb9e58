"""A script for Keras 3 and 28 x 28 images, in which only the import of Dropout was changed.

KERAS_BACKEND=torch python keras3_fashion.py FOLDER    # with the four IDX files of Fashion-MNIST
"""

import sys

from tensorflow.keras import layers, models

from fastdrop.datasets import load_idx
from fastdrop.keras import Dropout

if len(sys.argv) != 2:
    sys.exit("usage: python keras3_fashion.py FOLDER")
(x_train, y_train), (x_test, y_test) = load_idx(sys.argv[1])
x_train, x_test = x_train / 255, x_test / 255

model = models.Sequential(
    [
        layers.Input(x_train.shape[1:]),
        layers.Flatten(),
        layers.Dense(512, activation="relu"),
        Dropout(0.5),
        layers.Dense(256, activation="relu"),
        Dropout(0.3),
        layers.Dense(10, activation="softmax"),
    ]
)
model.compile(optimizer="adam", loss="sparse_categorical_crossentropy", metrics=["accuracy"])
model.fit(x_train, y_train, epochs=10, validation_data=(x_test, y_test), verbose=2)

loss, accuracy = model.evaluate(x_test, y_test, verbose=0)
print(f"test loss {loss:.4f}, accuracy {accuracy:.4f}")
