"""What training.py compares: one library per process, each with a training loop in its own idiom.

    python benchmarks/training_sides.py <module> <threads> <folder with MNIST>

All train the same network on the same samples with Adam and its defaults, ReLU, and dropout of
p = 0.5 behind both hidden layers, and report loss and accuracy.
"""

import math
import sys
import time
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import ClassVar, NamedTuple

import numpy as np

from fastdrop.commands.bench.process import serve
from fastdrop.datasets import load_idx

INPUTS, CLASSES, P = 784, 10, 0.5
EACH, ONE, FOUR = "a mask for each sample", "one mask for the batch", "four masks for the batch"


class Point(NamedTuple):
    """The network, and what dropout's masks are shared by."""

    hidden: int  # units in each of two layers
    batch: int
    masks: str


class Figures(NamedTuple):
    """Of one turn: seconds of a timed step; means over all its steps, where they train."""

    seconds: float
    loss: float | None
    accuracy: float | None


class Fastdrop:
    """`fit`, and the products alone that a step of the dense network needs."""

    sides: ClassVar = {"fastdrop": (EACH, ONE, FOUR), "floor": (EACH,)}

    def __init__(self, threads):
        import fastdrop

        self.name = f"fastdrop {fastdrop.__version__}, NumPy {np.__version__}"

    def prepare(self, side, point):
        if side == "floor":
            return partial(self.products, list(self.matrices(point)), point.batch)
        from fastdrop import layers
        from fastdrop.models import Sequential

        def dropout():
            if point.masks == EACH:
                return layers.Dropout(P)
            return layers.Dropout(P, shared_axes=(0,), groups=4 if point.masks == FOUR else 1)

        model = Sequential(
            [
                layers.Input((INPUTS,)),
                layers.Dense(point.hidden, activation="relu"),
                dropout(),
                layers.Dense(point.hidden, activation="relu"),
                dropout(),
                layers.Dense(CLASSES, activation="softmax"),
            ],
            seed=1,
        )
        model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
        return partial(self.fit, model, point.batch)

    def fit(self, model, batch, x, y, untimed):
        from fastdrop.callbacks import Callback

        class Clock(Callback):
            def on_train_batch_end(self, batch, logs):
                if batch == untimed - 1:
                    self.start = time.perf_counter()
                self.end = time.perf_counter()

        clock = Clock()
        figures = model.fit(x, y, batch, verbose=0, callbacks=[clock]).history
        steps = math.ceil(len(x) / batch) - untimed
        seconds = (clock.end - clock.start) / steps
        return Figures(seconds, figures["loss"][0], figures["accuracy"][0])

    def matrices(self, point):
        """Weight, its gradient, input and output, and their gradients, of each layer."""
        random = np.random.default_rng(1)
        widths = [INPUTS, point.hidden, point.hidden, CLASSES]
        a = [random.random((point.batch, width), np.float32) for width in widths]
        d = [random.random((point.batch, width), np.float32) for width in widths]
        for number, (inputs, units) in enumerate(pairwise(widths)):
            w = random.random((units, inputs), np.float32)
            yield w, np.empty_like(w), *a[number : number + 2], *d[number : number + 2]

    def products(self, layers, batch, x, y, untimed):
        steps = math.ceil(len(x) / batch)
        for step in range(steps):
            if step == untimed:
                start = time.perf_counter()
            for w, _, a, z, _, _ in layers:
                np.matmul(a, w.T, out=z)
            for w, dw, a, _, da, dz in reversed(layers):
                np.matmul(dz.T, a, out=dw)
                if w is not layers[0][0]:
                    np.matmul(dz, w, out=da)
        return Figures((time.perf_counter() - start) / (steps - untimed), None, None)


class PyTorch:
    """Eager, on tensors in memory, which is faster than a DataLoader."""

    sides: ClassVar = {"PyTorch": (EACH, ONE), "PyTorch, fused Adam": (EACH, ONE)}

    def __init__(self, threads):
        import torch

        torch.set_num_threads(threads)
        torch.manual_seed(1)
        self.name = f"PyTorch {torch.__version__}"

    def prepare(self, side, point):
        import torch
        from torch import nn

        class SharedDropout(nn.Module):
            def forward(self, x):
                return x * nn.functional.dropout(torch.ones(1, x.shape[1]), P, self.training)

        dropout = SharedDropout if point.masks == ONE else partial(nn.Dropout, P)
        model = nn.Sequential(
            nn.Linear(INPUTS, point.hidden),
            nn.ReLU(),
            dropout(),
            nn.Linear(point.hidden, point.hidden),
            nn.ReLU(),
            dropout(),
            nn.Linear(point.hidden, CLASSES),
        )
        fused = True if "fused" in side else None
        optimizer = torch.optim.Adam(model.parameters(), fused=fused)
        return partial(self.fit, model, optimizer, point.batch)

    def fit(self, model, optimizer, batch, x, y, untimed):
        import torch

        x, y = torch.from_numpy(x), torch.from_numpy(y)
        loss_function = torch.nn.CrossEntropyLoss()
        total, correct = torch.zeros(()), torch.zeros((), dtype=torch.int64)
        parts = torch.randperm(len(x)).split(batch)
        for step, rows in enumerate(parts):
            if step == untimed:
                start = time.perf_counter()
            images, labels = x[rows], y[rows]
            optimizer.zero_grad()
            logits = model(images)
            loss = loss_function(logits, labels)
            loss.backward()
            optimizer.step()
            total += loss.detach() * len(rows)
            correct += (logits.argmax(1) == labels).sum()
        loss, accuracy = total.item() / len(x), correct.item() / len(x)
        seconds = (time.perf_counter() - start) / (len(parts) - untimed)
        return Figures(seconds, loss, accuracy)


class Jax:
    """One jitted function for the whole step, which gives its state's memory back."""

    sides: ClassVar = {"JAX": (EACH, ONE)}

    def __init__(self, threads):
        import jax

        self.name = f"JAX {jax.__version__}"

    def prepare(self, side, point):
        import jax
        import jax.numpy as jnp

        widths = [INPUTS, point.hidden, point.hidden, CLASSES]
        random = np.random.default_rng(1)
        params = []
        for inputs, units in pairwise(widths):
            limit = (6 / (inputs + units)) ** 0.5
            w = random.uniform(-limit, limit, (inputs, units)).astype(np.float32)
            params.append((jnp.asarray(w), jnp.zeros(units)))
        zeros = jax.tree.map(jnp.zeros_like, params)

        def dropout(key, x):
            shape = (1, x.shape[1]) if point.masks == ONE else x.shape
            return jnp.where(jax.random.bernoulli(key, 1 - P, shape), x / (1 - P), 0)

        def loss_of(params, key, images, labels):
            h = images
            for (w, b), layer_key in zip(params[:-1], jax.random.split(key, len(params) - 1)):
                h = dropout(layer_key, jax.nn.relu(h @ w + b))
            w, b = params[-1]
            logits = h @ w + b
            losses = -jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], axis=1)
            return losses.mean(), (logits.argmax(axis=1) == labels).sum()

        @partial(jax.jit, donate_argnums=0)
        def step(state, images, labels):
            params, m, v, t, key, total, correct = state
            key, now = jax.random.split(key)
            (loss, hits), grads = jax.value_and_grad(loss_of, has_aux=True)(
                params, now, images, labels
            )
            t += 1
            rate = 0.001 * jnp.sqrt(1 - 0.999**t) / (1 - 0.9**t)
            m = jax.tree.map(lambda m, g: m + 0.1 * (g - m), m, grads)
            v = jax.tree.map(lambda v, g: v + 0.001 * (g * g - v), v, grads)
            params = jax.tree.map(lambda w, m, v: w - rate * m / (jnp.sqrt(v) + 1e-7), params, m, v)
            return params, m, v, t, key, total + loss * len(labels), correct + hits

        zero = jnp.zeros(())
        state = [params, zeros, jax.tree.map(jnp.copy, zeros), zero, jax.random.key(1)]
        return partial(self.fit, step, state, point.batch, random)

    def fit(self, step, kept, batch, random, x, y, untimed):
        import jax
        import jax.numpy as jnp

        order = random.permutation(len(x))
        state = (*kept, jnp.zeros(()), jnp.zeros((), jnp.int32))
        for number, start_row in enumerate(range(0, len(x), batch)):
            if number == untimed:
                jax.block_until_ready(state)
                start = time.perf_counter()
            rows = order[start_row : start_row + batch]
            state = step(state, x[rows], y[rows])
        *kept[:], total, correct = jax.block_until_ready(state)
        seconds = (time.perf_counter() - start) / (number + 1 - untimed)
        return Figures(seconds, float(total) / len(x), float(correct) / len(x))


class Keras:
    """`fit` as it is, on TensorFlow."""

    sides: ClassVar = {"Keras": (EACH, ONE)}

    def __init__(self, threads):
        import keras
        import tensorflow as tf

        keras.utils.set_random_seed(1)
        self.name = f"Keras {keras.__version__} on TensorFlow {tf.__version__}"

    def prepare(self, side, point):
        from keras import Input, Sequential, layers

        noise_shape = (1, point.hidden) if point.masks == ONE else None
        model = Sequential(
            [
                Input((INPUTS,)),
                layers.Dense(point.hidden, activation="relu"),
                layers.Dropout(P, noise_shape),
                layers.Dense(point.hidden, activation="relu"),
                layers.Dropout(P, noise_shape),
                layers.Dense(CLASSES, activation="softmax"),
            ]
        )
        model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
        return partial(self.fit, model, point.batch)

    def fit(self, model, batch, x, y, untimed):
        import keras

        last = math.ceil(len(x) / batch) - 1

        class Clock(keras.callbacks.Callback):
            # a batch's beginning: Keras converts its figures for whoever wants to know its end
            def on_train_batch_begin(self, batch, logs=None):
                if batch == untimed:
                    self.start = time.perf_counter()
                if batch == last:
                    self.end = time.perf_counter()

        clock = Clock()
        figures = model.fit(x, y, batch, verbose=0, callbacks=[clock]).history
        seconds = (clock.end - clock.start) / (last - untimed)
        return Figures(seconds, figures["loss"][0], figures["accuracy"][0])


# by the module that has to be installed
LIBRARIES = {"fastdrop": Fastdrop, "torch": PyTorch, "keras": Keras, "jax": Jax}


def load(folder):
    """MNIST's training images and labels, or random ones."""
    if folder.is_dir():
        (x, y), _ = load_idx(folder)
        return x.reshape(len(x), -1) / np.float32(255), y.astype(np.int64)
    random = np.random.default_rng(1)
    return random.random((60000, INPUTS), np.float32), random.integers(CLASSES, size=60000)


def start(module, threads, folder):
    library = LIBRARIES[module](threads)
    x, y = load(folder)
    ready, network = {}, None

    def answer(request):
        """Train a turn's samples: {"side", "point", "turn", "untimed", "steps"} -> figures."""
        nonlocal network
        point = Point(*request["point"])
        if point[:2] != network:  # lets go of the last network's arrays
            network = point[:2]
            ready.clear()
        name = (request["side"], point)
        if name not in ready:
            ready[name] = library.prepare(*name)
        n = point.batch * (request["untimed"] + request["steps"])
        first = request["turn"] * n % (len(x) - n + 1)
        return ready[name](x[first : first + n], y[first : first + n], request["untimed"])

    return {"name": library.name, "sides": library.sides}, answer


if __name__ == "__main__":
    serve(partial(start, sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])))
