"""
Faster by dropping: one mask for a batch
========================================

Dropout usually costs time: a mask has to be drawn and applied. Where a whole batch shares one
mask, it saves time instead. A unit that is dropped for all samples need not be computed at all, and
with *p* = 0.5 a product between two such layers is a quarter of the work. This page shows how that
is switched on, what it gains, and what it costs.
"""

# %%
# What is shared?
# ---------------
# With ``shared_axes=(0,)`` all samples of a batch have the same mask, a new one in every step. With
# ``groups=g`` the batch has g masks, each for an equal part of the samples. Samples are rows here,
# units are columns, white is what stays:

import time

import matplotlib.pyplot as plt
import numpy as np

from fastdrop import Key, Sequential, datasets, set_num_threads
from fastdrop.diagrams import draw_effect
from fastdrop.layers import Dense, Dropout, Input
from fastdrop.layers.effects import effect_of

KINDS = {
    "element-wise": {},
    "4 masks": {"shared_axes": (0,), "groups": 4},
    "2 masks": {"shared_axes": (0,), "groups": 2},
    "1 mask": {"shared_axes": (0,)},
}
figure, axes = plt.subplots(1, 4, figsize=(10, 2.6), layout="constrained")
for panel, (name, options) in zip(axes, KINDS.items()):
    draw_effect(panel, effect_of(Dropout(0.5, **options), (16, 24), Key(42)))
    panel.set_title(name, loc="left")
    panel.set_xlabel("units")
axes[0].set_ylabel("samples")

# %%
# How do I switch it on?
# ----------------------
# These arguments are all that it takes. A model notices by itself that such a layer stands between
# ``Dense`` layers, and multiplies only the rows and columns of the weights that the mask keeps.


def network(options, inputs, units, seed=0):
    """Return a compiled network with two hidden layers and this kind of dropout behind them."""
    layers = [Input((inputs,))]
    for _ in range(2):
        layers += [Dense(units, "relu"), Dropout(0.5, **options)]
    model = Sequential([*layers, Dense(10, "softmax")], seed=seed)
    model.compile("adam", "sparse_categorical_crossentropy", ["accuracy"])
    return model


network(KINDS["1 mask"], 784, 1024).summary(show_dropout=True)

# %%
# How much faster is it?
# ----------------------
# Here is the time of a training step with batches of 128, on one core of the machine that built
# this page. It is processor time, and the networks take turns, so that other programs disturb
# little. "None" is the same network without dropout.

set_num_threads(1)
rng = np.random.default_rng(0)
STEPS = 6
x = rng.normal(size=(STEPS * 128, 784)).astype(np.float32)
y = rng.integers(0, 10, len(x))
models = {"none": network({}, 784, 1024)}
for layer in models["none"].layers[1::2]:
    layer.p = 0.0
models |= {name: network(options, 784, 1024) for name, options in KINDS.items()}
times = {name: [] for name in models}
for _ in range(6):
    for name, model in models.items():
        start = time.process_time()
        model.fit(x, y, batch_size=128, verbose=0)
        times[name].append((time.process_time() - start) / STEPS)
step = {name: 1000 * np.median(found[1:]) for name, found in times.items()}
for name, milliseconds in step.items():
    print(f"{name:13} {milliseconds:5.1f} ms a step, {milliseconds / step['none']:.2f} of none")
# sphinx_gallery_start_ignore
assert step["1 mask"] < step["2 masks"] < step["4 masks"]
assert step["1 mask"] < 0.8 * step["none"]
# sphinx_gallery_end_ignore

# %%
# More masks mean smaller products, and for each mask its part of the weights has to be gathered. So
# few masks and large batches gain most.

# %%
# What does it cost in accuracy?
# ------------------------------
# The samples of a step no longer disagree by their masks, so the gradient has more noise. Whether
# that matters depends on the data. Here are 400 digits to learn from, with a fifth of their labels
# drawn by lot, and 1397 digits for the test:

images, labels = datasets.load_digits()
images = (images / 16).reshape(len(images), -1).astype(np.float32)
order = rng.permutation(len(images))
images, labels = images[order], labels[order]
by_lot = rng.random(400) < 0.2
given = np.where(by_lot, rng.integers(0, 10, 400), labels[:400])
train, test = (images[:400], given), (images[400:], labels[400:])

found = {}
for name, options in {"none": None, **KINDS}.items():
    errors = []
    for seed in range(4):
        model = network(options or {}, 64, 256, seed)
        if options is None:
            for layer in model.layers[1::2]:
                layer.p = 0.0
        model.fit(*train, batch_size=64, epochs=40, verbose=0)
        errors.append(100 * (model.predict(test[0], verbose=0).argmax(1) != test[1]).mean())
    found[name] = np.mean(errors), np.std(errors, ddof=1)
    print(f"{name:13} {found[name][0]:.2f} % errors (standard deviation {found[name][1]:.2f})")
# sphinx_gallery_start_ignore
assert max(found[name][0] for name in KINDS) < found["none"][0]
# sphinx_gallery_end_ignore

# %%
# Both in one picture: to the left is faster, below is better. The bars are standard deviations over
# four seeds; kinds whose bars overlap cannot be told apart by these runs.

figure, axes = plt.subplots(figsize=(6.5, 3.4), layout="constrained")
for name, (mean, deviation) in found.items():
    axes.errorbar(step[name], mean, deviation, fmt="o", capsize=3)
    below = -12 if name == "element-wise" else 4
    axes.annotate(name, (step[name], mean), (6, below), textcoords="offset points")
axes.set(xlabel="ms for a training step of 784-1024-1024-10", ylabel="test errors on digits, %")
axes.set_xlim(0, 1.25 * max(step.values()))
axes.spines[["top", "right"]].set_visible(False)

# %%
# When is it worth it?
# --------------------
# - When the products take most of the time: hidden layers of some hundreds of units or more.
# - When training is long enough that noise averages out. In ten epochs of Fashion-MNIST, fewer
#   masks make a network less accurate; on MNIST all kinds are alike. The tables are in
#   :doc:`/explanation/shared_masks`.
# - When you can try it: the change is one argument. Start with ``groups=4`` and go down.
#
# Graham, Reizenstein, Robinson 2015 (Efficient batchwise dropout training using submatrices)
# measure the same gain on GPUs and call it *batchwise* dropout.
