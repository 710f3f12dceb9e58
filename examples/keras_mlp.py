"""A Keras script for an MLP with dropout, in which only the import lines were changed."""

import numpy as np

from fastdrop.datasets import load_digits
from fastdrop.layers import Dense, Dropout
from fastdrop.models import Sequential

images, labels = load_digits()
x = images.reshape(len(images), -1) / 16
y = np.eye(10)[labels]
x_train, y_train, x_val, y_val = x[:1400], y[:1400], x[1400:], y[1400:]
input_dim, num_classes = x.shape[1], y.shape[1]

model = Sequential()
model.add(Dense(128, activation="relu", input_shape=(input_dim,)))
model.add(Dropout(0.5))
model.add(Dense(64, activation="relu"))
model.add(Dropout(0.5))
model.add(Dense(num_classes, activation="softmax"))

model.compile(optimizer="adam", loss="categorical_crossentropy", metrics=["accuracy"])
model.fit(x_train, y_train, epochs=10, batch_size=32, validation_data=(x_val, y_val))

loss, accuracy = model.evaluate(x_val, y_val, verbose=0)
print(f"validation loss {loss:.4f}, accuracy {accuracy:.4f}")
