"""The sides of training.py: one library per process, each with a training loop in its own idiom.

    python benchmarks/training_sides.py <module> <threads> <folder with MNIST>

All train the same network on the same samples, with Adam and its default arguments, ReLU, and
dropout of p = 0.5 after every hidden layer, and report loss and accuracy. scikit-learn has no
dropout.
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
NONE = "no dropout"


class Point(NamedTuple):
    """The network, and what the masks of dropout are shared by."""

    widths: tuple[int, ...]  # inputs, units of each layer; with one output it learns a number
    batch: int
    masks: str

    @property
    def classes(self):
        """How many classes there are to learn, or 0 if it is a number."""
        return self.widths[-1] if self.widths[-1] > 1 else 0


def name_of(widths):
    return "-".join(map(str, widths))


class Figures(NamedTuple):
    """The figures of one turn: seconds of a timed step, and what it learned, if it reports that."""

    seconds: float
    loss: float | None
    accuracy: float | None


class Fastdrop:
    """`fit`, and only the products that a step of the dense network needs."""

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

        stack = [layers.Input((point.widths[0],))]
        for units in point.widths[1:-1]:
            stack += [layers.Dense(units, activation="relu"), dropout()]
        stack.append(layers.Dense(point.widths[-1], "softmax" if point.classes else None))
        model = Sequential(stack, seed=1)
        compile_like_keras(model, point)
        return partial(self.fit, model, point.batch)

    def fit(self, model, batch, x, y, untimed):
        from fastdrop.callbacks import Callback

        class Clock(Callback):
            # a callback for epochs, because Python runs between batches if one listens to them
            def on_epoch_begin(self, epoch, logs=None):
                self.start = time.perf_counter()

            def on_epoch_end(self, epoch, logs):
                self.seconds = time.perf_counter() - self.start

        first, clock = untimed * batch, Clock()
        model.fit(x[:first], y[:first], batch, verbose=0)
        x, y = x[first:], y[first:]
        figures = model.fit(x, y, batch, verbose=0, callbacks=[clock]).history
        return Figures(
            clock.seconds / math.ceil(len(x) / batch),
            figures["loss"][0],
            figures.get("accuracy", [None])[0],
        )

    def matrices(self, point):
        """Return weight, its gradient, input, output, and their gradients, of each layer."""
        random = np.random.default_rng(1)
        a = [random.random((point.batch, width), np.float32) for width in point.widths]
        d = [random.random((point.batch, width), np.float32) for width in point.widths]
        for number, (inputs, units) in enumerate(pairwise(point.widths)):
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
    """Eager mode, on tensors in memory, which is faster than a DataLoader."""

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
        stack = []
        for inputs, units in pairwise(point.widths):
            stack += [nn.Linear(inputs, units), nn.ReLU(), dropout()]
        model = nn.Sequential(*stack[:-2])
        fused = True if "fused" in side else None
        optimizer = torch.optim.Adam(model.parameters(), fused=fused)
        loss_function = nn.CrossEntropyLoss() if point.classes else nn.MSELoss()
        return partial(self.fit, model, optimizer, loss_function, point)

    def fit(self, model, optimizer, loss_function, point, x, y, untimed):
        import torch

        x, y, batch = torch.from_numpy(x), torch.from_numpy(y), point.batch
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
            if point.classes:
                correct += (logits.argmax(1) == labels).sum()
        loss, accuracy = total.item() / len(x), correct.item() / len(x)
        seconds = (time.perf_counter() - start) / (len(parts) - untimed)
        return Figures(seconds, loss, accuracy if point.classes else None)


class Jax:
    """One jitted function for a step, or for all steps, which gives its state's memory back."""

    sides: ClassVar = {"JAX": (EACH, ONE), "JAX, an epoch in one scan": (EACH, ONE)}

    def __init__(self, threads):
        import jax

        self.name = f"JAX {jax.__version__}"
        self.compiled = set()

    def prepare(self, side, point):
        import jax
        import jax.numpy as jnp

        random = np.random.default_rng(1)
        params = []
        for inputs, units in pairwise(point.widths):
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
            if not point.classes:
                return ((logits - labels) ** 2).mean(), 0
            losses = -jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], axis=1)
            return losses.mean(), (logits.argmax(axis=1) == labels).sum()

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

        def epoch(state, x, y, order):
            def of_rows(state, rows):
                return step(state, x[rows], y[rows]), None

            return jax.lax.scan(of_rows, state, order)[0]

        zero = jnp.zeros(())
        state = [params, zeros, jax.tree.map(jnp.copy, zeros), zero, jax.random.key(1)]
        steps, epoch = jax.jit(step, donate_argnums=0), jax.jit(epoch, donate_argnums=0)
        run = partial(self.scan, epoch) if "scan" in side else partial(self.loop, steps)
        return partial(self.fit, run, state, point, random)

    def fit(self, run, kept, point, random, x, y, untimed):
        import jax
        import jax.numpy as jnp

        order = random.permutation(len(x) // point.batch * point.batch).reshape(-1, point.batch)
        state = (*kept, jnp.zeros(()), jnp.zeros((), jnp.int32))
        state, seconds = run(state, x, y, order[:untimed], order[untimed:])
        *kept[:], total, correct = jax.block_until_ready(state)
        accuracy = float(correct) / order.size if point.classes else None
        return Figures(seconds / len(order[untimed:]), float(total) / order.size, accuracy)

    def loop(self, step, state, x, y, untimed, timed):
        import jax

        for rows in untimed:
            state = step(state, x[rows], y[rows])
        jax.block_until_ready(state)
        start = time.perf_counter()
        for rows in timed:
            state = step(state, x[rows], y[rows])
        jax.block_until_ready(state)
        return state, time.perf_counter() - start

    def scan(self, epoch, state, x, y, untimed, timed):
        import jax

        x, y, untimed, timed = map(jax.numpy.asarray, (x, y, untimed, timed))
        if (epoch, timed.shape) not in self.compiled:
            epoch.lower(state, x, y, timed).compile()  # the call finds the compiled function
            self.compiled.add((epoch, timed.shape))
        state = jax.block_until_ready(epoch(state, x, y, untimed))
        start = time.perf_counter()
        state = jax.block_until_ready(epoch(state, x, y, timed))
        return state, time.perf_counter() - start


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

        stack = [Input((point.widths[0],))]
        for units in point.widths[1:-1]:
            stack.append(layers.Dense(units, activation="relu"))
            stack.append(layers.Dropout(P, (1, units) if point.masks == ONE else None))
        stack.append(layers.Dense(point.widths[-1], "softmax" if point.classes else None))
        model = Sequential(stack)
        compile_like_keras(model, point)
        return partial(self.fit, model, point.batch)

    def fit(self, model, batch, x, y, untimed):
        import keras

        last = math.ceil(len(x) / batch) - 1

        class Clock(keras.callbacks.Callback):
            # the beginning of a batch, as Keras converts its figures for a callback at the end
            def on_train_batch_begin(self, batch, logs=None):
                if batch == untimed:
                    self.start = time.perf_counter()
                if batch == last:
                    self.end = time.perf_counter()

        clock = Clock()
        figures = model.fit(x, y, batch, verbose=0, callbacks=[clock]).history
        seconds = (clock.end - clock.start) / (last - untimed)
        return Figures(seconds, figures["loss"][0], figures.get("accuracy", [None])[0])


class ScikitLearn:
    """`partial_fit`, with one epoch for each call."""

    sides: ClassVar = {"scikit-learn": (NONE,)}

    def __init__(self, threads):
        import sklearn

        self.name = f"scikit-learn {sklearn.__version__}"

    def prepare(self, side, point):
        from sklearn.neural_network import MLPClassifier, MLPRegressor

        kind = MLPClassifier if point.classes else MLPRegressor
        model = kind(
            hidden_layer_sizes=point.widths[1:-1], batch_size=point.batch, alpha=0, random_state=1
        )
        return partial(self.fit, model, point)

    def fit(self, model, point, x, y, untimed):
        named, first = {}, untimed * point.batch
        if point.classes:
            named["classes"] = np.arange(point.classes)
        else:
            y = y.ravel()
        model.partial_fit(x[:first], y[:first], **named)
        x, y = x[first:], y[first:]
        start = time.perf_counter()
        model.partial_fit(x, y)
        seconds = (time.perf_counter() - start) / math.ceil(len(x) / point.batch)
        if point.classes:
            return Figures(seconds, model.loss_, model.score(x, y))
        return Figures(seconds, 2 * model.loss_, None)


# by the module that has to be installed
LIBRARIES = {
    "fastdrop": Fastdrop,
    "torch": PyTorch,
    "keras": Keras,
    "jax": Jax,
    "sklearn": ScikitLearn,
}


def compile_like_keras(model, point):
    if point.classes:
        model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    else:
        model.compile("adam", "mse")


def load(folder, inputs, classes):
    """Return MNIST's training images and labels if they fit, or random samples."""
    if folder.is_dir() and (inputs, classes) == (INPUTS, CLASSES):
        (x, y), _ = load_idx(folder)
        return x.reshape(len(x), -1) / np.float32(255), y.astype(np.int64)
    random = np.random.default_rng(1)
    x = random.random((60000, inputs), np.float32)
    return x, random.integers(classes, size=len(x)) if classes else x[:, :2].sum(1, keepdims=True)


def start(module, threads, folder):
    library = LIBRARIES[module](threads)
    ready, data = {}, {}

    def answer(request):
        """Train a turn's samples: {"side", "point", "turn", "untimed", "steps"} -> figures."""
        widths, batch, masks = request["point"]
        point = Point(tuple(widths), batch, masks)
        samples = (widths[0], point.classes)
        if samples not in data:
            data[samples] = load(folder, *samples)
        x, y = data[samples]
        name = (request["side"], point)
        if name not in ready:
            ready[name] = library.prepare(*name)
        n = point.batch * (request["untimed"] + request["steps"])
        first = request["turn"] * n % max(1, len(x) - n + 1)
        return ready[name](x[first : first + n], y[first : first + n], request["untimed"])

    return {"name": library.name, "sides": library.sides}, answer


if __name__ == "__main__":
    serve(partial(start, sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])))
