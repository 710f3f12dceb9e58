"""
Dropout in ten minutes
======================

Dropout switches off a random part of a network in every training step. That is all there is to
it, and still there is much to get wrong: *p* has two meanings, there are two ways to scale, rates
can be too high, and in some places dropout does harm. Below each claim on this page is a cell that
computes it.
"""

# %%
# What is dropout?
# ----------------
# In training, each unit is set to zero with probability *p*, anew for every sample and every step
# [1]_ [2]_. At inference no unit is dropped. Here are eight samples of sixteen units, all of them
# 1:

import functools

import matplotlib.pyplot as plt
import numpy as np

from fastdrop import Key, Sequential, datasets, dropout
from fastdrop.diagrams import draw_effect
from fastdrop.layers import (
    Batch,
    BatchNormalization,
    Dense,
    DropBlock2d,
    Dropout,
    Dropout2d,
    Input,
    LockedDropout,
)
from fastdrop.layers.effects import effect_of

x = np.ones((8, 16), np.float32)
y = dropout(x, p=0.5, key=Key(42))
print(y)

# %%
# The mask is a function of its key: the same key gives the same mask on every machine and with any
# number of threads. A layer draws the same mask as the function. This is its picture, white where
# units stay:

layer = Dropout(0.5)
from_layer, _ = layer.forward(x, Batch(key=Key(42)))
print("the layer does the same:", np.array_equal(y, from_layer))
# sphinx_gallery_start_ignore
assert np.array_equal(y, from_layer)
# sphinx_gallery_end_ignore

figure, axes = plt.subplots(1, 3, figsize=(9, 2.2), layout="constrained")
for panel, p in zip(axes, (0.2, 0.5, 0.8)):
    effect = effect_of(Dropout(p), (8, 16), Key(42))
    draw_effect(panel, effect)
    panel.set_title(f"p = {p}: {effect.kept.mean():.0%} stay", loc="left")
    panel.set_xlabel("units")
axes[0].set_ylabel("samples")

# %%
# Why is what stays multiplied by two?
# ------------------------------------
# With half of its inputs gone, the next layer gets half of the sum that it will get at inference.
# So something has to be scaled. The first papers left training alone and multiplied the weights by
# 1 - p at inference, which they call weight scaling. Today's libraries multiply what stays by 1 /
# (1 - p) in training and do nothing at inference, which is called *inverted* dropout. Both keep the
# mean the same in training and at inference:

p = 0.8
x = np.ones((100_000, 1), np.float32)
print(f"{'scaling':10} {'in training':>12} {'at inference':>13}")
for mode, name in (("inverted", "inverted"), ("vanilla", "original")):
    layer = Dropout(p, mode=mode)
    in_training, _ = layer.forward(x, Batch(training=True, key=Key(1)))
    at_inference, _ = layer.forward(x, Batch(training=False))
    print(f"{name:10} {in_training.mean():12.3f} {at_inference.mean():13.3f}")
    # sphinx_gallery_start_ignore
    assert abs(in_training.mean() / at_inference.mean() - 1) < 0.05
    # sphinx_gallery_end_ignore

# %%
# The two differ in size, by 1 - p. So a learning rate, a weight decay or a bound on the weights
# that was found for one of them does not fit the other.

# %%
# What do p, rate and keep probability mean?
# ------------------------------------------
# In fastdrop and PyTorch *p*, in Keras and JAX (Flax) *rate*, is the probability of **dropping**.
# The paper of 2014 [2]_ writes *p* for the probability of **keeping**, and so did ``keep_prob`` of
# TensorFlow 1. ``keep_prob=0.75`` is ``p=0.25``:

keep_prob = 0.75
for layer in (Dropout(1 - keep_prob), Dropout(rate=1 - keep_prob)):
    kept = effect_of(layer, (100_000, 1), Key(1)).kept
    print(f"{layer!r:30} keeps {kept.mean():.3f}")

# %%
# Does it help?
# -------------
# It helps a network that can learn its data by heart, with all mistakes in them. Here are 400
# handwritten digits to learn from, and 1397 others for the test. Whoever labelled the 400 was
# careless: a fifth of their labels were drawn by lot. The network has 256 and 256 hidden units.

images, labels = datasets.load_digits()
images = (images / 16).reshape(len(images), -1).astype(np.float32)
order = np.random.default_rng(0).permutation(len(images))
images, labels = images[order], labels[order]
TRAINING = 400
clean, test = (images[:TRAINING], labels[:TRAINING]), (images[TRAINING:], labels[TRAINING:])
rng = np.random.default_rng(1)
by_lot = rng.random(TRAINING) < 0.2
careless = (clean[0], np.where(by_lot, rng.integers(0, 10, TRAINING), clean[1]))
print(f"{(careless[1] != clean[1]).sum()} of {TRAINING} labels are wrong")
# sphinx_gallery_start_ignore
assert (len(clean[0]), len(test[0])) == (400, 1397)
# sphinx_gallery_end_ignore


def fitted(p_input, p_hidden, seed, units=256, data=careless, **options):
    """Train a network with these rates and return it with its history."""
    model = Sequential(
        [
            Input((64,)),
            Dropout(p_input),
            Dense(units, "relu"),
            Dropout(p_hidden),
            Dense(units, "relu"),
            Dropout(p_hidden),
            Dense(10, "softmax"),
        ],
        seed=seed,
    )
    model.compile("adam", "sparse_categorical_crossentropy", ["accuracy"])
    return model, model.fit(*data, batch_size=64, epochs=40, verbose=0, **options)


@functools.cache
def errors(rates, units=256, labels="careless"):
    """Return the test errors in percent, one for each of three seeds."""
    data = {"careless": careless, "clean": clean}[labels]
    models = (fitted(*rates, seed, units, data)[0] for seed in range(3))
    return np.array([error(model.predict(test[0], verbose=0)) for model in models])


def error(outputs):
    """Return the share of test samples, in percent, whose largest output is the wrong one."""
    return 100 * (outputs.argmax(1) != test[1]).mean()


# %%
# Here are means and standard deviations (sd) over three seeds. Never compare two single runs: seeds
# differ as much as methods do.

KINDS = ("careless", "clean")
for kind in KINDS:
    for name, rates in (("without", (0, 0)), ("with", (0.2, 0.5))):
        found = errors(rates, labels=kind)
        spread = f"(sd {found.std(ddof=1):.2f})"
        print(f"{kind:8} labels, {name:7} dropout: {found.mean():5.2f} % errors {spread}")
# sphinx_gallery_start_ignore
gain = {kind: errors((0, 0), labels=kind) - errors((0.2, 0.5), labels=kind) for kind in KINDS}
assert gain["careless"].mean() > 2
assert gain["clean"].mean() < 0
# sphinx_gallery_end_ignore

# %%
# With clean labels dropout does harm here: there is little to forget, and 40 epochs are short for a
# network with dropout, which learns more slowly. With careless labels the loss shows what happens.
# Without dropout the network learns its samples by heart: the loss of training keeps falling, that
# of validation soon falls no more. With dropout, the loss of training is that of the thinned
# networks, on labels some of which are wrong, so it stays above that of validation, which still
# falls at the end.

figure, axes = plt.subplots(1, 2, figsize=(9, 3), sharey=True, layout="constrained")
for panel, rates, title in zip(axes, ((0, 0), (0.2, 0.5)), ("without dropout", "with dropout")):
    history = fitted(*rates, 0, validation_data=test)[1].history
    for name, colour in (("loss", "#d95f02"), ("val_loss", "#1b6ca8")):
        panel.plot(history[name], color=colour)
        label, epoch = ("training", 12) if name == "loss" else ("validation", 25)
        place, offset = (epoch, history[name][epoch]), (0, 8 if name == "loss" else -14)
        panel.annotate(label, place, offset, color=colour, textcoords="offset points")
    panel.set(title=title, xlabel="epoch", yscale="log")
    # sphinx_gallery_start_ignore
    falls = history["val_loss"][-1] < 0.9 * history["val_loss"][16]
    above = history["loss"][-1] > history["val_loss"][-1]
    assert falls == above == (rates != (0, 0))
    # sphinx_gallery_end_ignore
axes[0].set_ylabel("cross-entropy, nats")

# %%
# Why does it work?
# -----------------
# There are two readings, and both can be computed.
#
# **No unit can rely on another one** [1]_. A unit that only corrects the mistakes of a certain
# other unit is of no use where that one is missing. So drop units of the *trained* networks: the
# network that was trained with dropout hardly minds.

plain, dropped = (fitted(*rates, 0)[0] for rates in ((0, 0), (0.2, 0.5)))


def damaged(model, share):
    """Return the test error in percent when a share of the hidden units is missing."""
    hidden = test[0]
    for number, dense in enumerate(layer for layer in model.layers if isinstance(layer, Dense)):
        gone = share if number else 0
        hidden = dense(dropout(hidden, gone, key=Key(number)))
    return error(hidden)


print("hidden units gone   errors without dropout   errors with dropout")
for share in (0, 0.25, 0.5, 0.75):
    print(f"{share:17.0%} {damaged(plain, share):22.1f} % {damaged(dropped, share):19.1f} %")
# sphinx_gallery_start_ignore
lost = [damaged(model, 0.25) - damaged(model, 0) for model in (plain, dropped)]
assert lost[1] < 2
assert lost[0] > 2 * lost[1]
# sphinx_gallery_end_ignore

# %%
# **It trains many networks at once**, which share their weights: each mask leaves another thinned
# network, and inference with all units approximates the mean of their answers. The paper of 2014
# (section 7.5) averages the thinned networks and finds that scaling the weights is about as good:

print(f"all units at once: {error(dropped.predict(test[0], verbose=0)):.2f} % errors")
for samples in (1, 10, 50):
    mean = dropped.predict_mc(test[0], samples, seed=1, verbose=0).mean
    print(f"mean of {samples:2} thinned networks: {error(mean):.2f} %")

# %%
# How far the thinned networks disagree also tells how sure the network is [3]_.

# %%
# Which rate should I take?
# -------------------------
# Half of the hidden units and a fifth of the inputs: that is the advice of 2012 and 2014, and a
# good start. The curve is flat around its minimum, and steep where too few units are left.

rates = (0, 0.2, 0.4, 0.6, 0.8)
found = np.array([errors((0.2 * (p > 0), p)) for p in rates])
figure, axes = plt.subplots(figsize=(6, 3), layout="constrained")
axes.errorbar(rates, found.mean(1), found.std(1, ddof=1), fmt="o-", color="#1b6ca8", capsize=3)
axes.set(xlabel="p of hidden units", ylabel="test errors, %", ylim=(0, None))
axes.set_title("mean and standard deviation of three seeds", loc="left", fontsize=9)
print("best p:", rates[int(found.mean(1).argmin())])
# sphinx_gallery_start_ignore
assert np.ptp(found.mean(1)[1:4]) < 2
assert found.mean(1)[4] > found.mean(1).min() + 2
# sphinx_gallery_end_ignore

# %%
# Dropout makes the network smaller, so the paper advises a larger one: if n units would do without
# dropout, take n / (1 - p). It also advises larger learning rates with a bound on the weights
# (``Dense(..., max_norm=3)``), and training takes more epochs, two to three times as many.

# %%
# Where do I put it?
# ------------------
# - Behind the activation of hidden layers, in front of the next ``Dense``.
# - On inputs with a small p, or not at all: no other part of the network knows what is dropped
#   there.
# - Never behind the last layer: its outputs are the answer.
#
# A wrong place costs more than a wrong rate. Here are the errors with p = 0.5 in one place only:

for place, rates in (("hidden layers", (0, 0.5)), ("inputs", (0.5, 0))):
    print(f"p = 0.5 on the {place}: {errors(rates).mean():.2f} % errors")
# sphinx_gallery_start_ignore
worse = errors((0.5, 0)).mean() - errors((0, 0.5)).mean()
assert worse > np.ptp(found.mean(1)[1:4])
# sphinx_gallery_end_ignore

# %%
# What about batch normalisation?
# -------------------------------
# Put dropout behind the last batch normalisation, not in front of one. In training the
# normalisation sees what dropout made, with its larger variance, and keeps the moving mean of that.
# At inference the variance is smaller, and what was kept does not fit (Li et al. 2018 [4]_,
# "variance shift"):

rng = np.random.default_rng(0)
activations = np.maximum(rng.normal(size=(20_000, 8)), 0).astype(np.float32)
norm = BatchNormalization(momentum=0.0)
for p in (0, 0.2, 0.5):
    before = Dropout(p)
    norm.forward(before.forward(activations, Batch(key=Key(3)))[0])  # a step of training
    outputs = norm(before(activations))
    print(f"p = {p} in front of it: variance {outputs.var():.2f} at inference, 1 in training")

# %%
# The paper that brought batch normalisation (Ioffe and Szegedy 2015) found that dropout could be
# left out or reduced with it. Wide residual networks (Zagoruyko and Komodakis 2016) still gain from
# it inside their blocks, and there it stands between normalisations: so measure.

# %%
# What about convolutions?
# ------------------------
# Neighbouring pixels of a map say nearly the same. If single pixels are dropped, their neighbours
# tell what was there, and little is lost. So drop whole channels (Tompson et al. 2015) or squares
# (Ghiasi et al. 2018, DropBlock):

shape = (1, 6, 24, 24)
kinds = (Dropout(0.3), Dropout2d(0.3), DropBlock2d(0.3, block_size=7))
figure, axes = plt.subplots(1, 3, figsize=(9, 2.6), layout="constrained")
for panel, layer in zip(axes, kinds):
    draw_effect(panel, effect_of(layer, shape, Key(7)))
    panel.set_title(repr(layer), loc="left", fontsize=9)

# %%
# How well can a dropped pixel be guessed from the pixels around it that were kept? Take smooth
# random maps and guess by the mean of the 3 x 3 pixels around. The number is the share of the
# variance that stays unknown.

noise = rng.normal(size=(200, 6, 24, 24))
kernel = np.exp(-(np.linspace(-2, 2, 9) ** 2))
for axis in (2, 3):
    noise = np.apply_along_axis(np.convolve, axis, noise, kernel, mode="same")
maps = noise / noise.std()


def around(a):
    """Return the sums over the 3 x 3 pixels around each."""
    padded = np.pad(a, ((0, 0), (0, 0), (1, 1), (1, 1)))
    return sum(padded[..., i : i + 24, j : j + 24] for i in range(3) for j in range(3))


for layer in kinds:
    kept = effect_of(layer, maps.shape, Key(7)).kept
    guess = around(maps * kept) / np.maximum(around(kept.astype(float)), 1)
    unknown = ((maps - guess)[~kept] ** 2).mean() / maps[~kept].var()
    print(f"{layer!r:35} {unknown:.2f} of the variance is gone")

# %%
# Early convolutions have few weights and want little dropout or none; the paper of 2014 still
# gained by a small p there (table 3, SVHN).

# %%
# What about recurrent networks?
# ------------------------------
# A new mask at every step of time wears out what the state remembers: after T steps a unit has
# survived with probability (1 - p)^T. Gal and Ghahramani 2016 [5]_ take one mask for all steps of a
# sequence (``LockedDropout``, and ``WeightDropout`` for recurrent weights). Of a memory that would
# keep its value for ever, this much is left after 20 steps:

p, steps = 0.2, 20
memory = np.ones((1, steps, 5000), np.float32)
for name, layer in (("new masks", Dropout(p)), ("one mask", LockedDropout(p))):
    kept = effect_of(layer, memory.shape, Key(5)).kept[0]
    print(f"{name}: {kept.all(axis=0).mean():.1%} of the units")
print(f"1 - p = {1 - p:.1%}, (1 - p)^{steps} = {(1 - p) ** steps:.1%}")

# %%
# When should I not use it?
# -------------------------
# - When the network is too small for its data: it underfits, and dropout makes it smaller.

for units in (8, 256):
    none, half = (errors(rates, units=units).mean() for rates in ((0, 0), (0.2, 0.5)))
    print(f"{units:3} hidden units: {none:5.2f} % errors without dropout, {half:5.2f} % with it")
    # sphinx_gallery_start_ignore
    assert (half > none) == (units == 8)
    # sphinx_gallery_end_ignore

# %%
# - When there is plenty of data, each sample is seen once or twice, and nothing can be learnt by
#   heart: large language models are often trained without dropout (Chowdhery et al. 2022, PaLM:
#   none in pre-training, 0.1 in fine-tuning). Liu et al. 2023 drop only early in training, to
#   underfit less: ``Dropout(schedules.Early(0.1, steps=1000))``.
# - When there is so little data that the network learns it by heart with dropout, too (2014,
#   section 6.4: nothing gained with 100 samples of MNIST).
# - In front of batch normalisation, see above.
# - On the outputs.

# %%
# What should I remember?
# -----------------------
# Start with 0.5 behind hidden ``Dense`` layers, 0.2 on inputs, channels or squares in convolutions,
# one mask for a sequence, nothing in front of batch normalisation. Then try half and twice the rate
# with three seeds each, and look at the curve. ``fastdrop masks`` draws any layer's mask on a
# terminal.
#
# .. [1] Hinton, Srivastava, Krizhevsky, Sutskever, Salakhutdinov 2012, Improving neural networks by
#    preventing co-adaptation of feature detectors, arXiv 1207.0580.
# .. [2] Srivastava, Hinton, Krizhevsky, Sutskever, Salakhutdinov 2014, Dropout: a simple way to
#    prevent neural networks from overfitting, JMLR 15:1929.
# .. [3] Gal, Ghahramani 2016, Dropout as a Bayesian approximation, ICML.
# .. [4] Li, Chen, Hu, Yang 2018, Understanding the disharmony between dropout and batch
#    normalization by variance shift, arXiv 1801.05134.
# .. [5] Gal, Ghahramani 2016, A theoretically grounded application of dropout in recurrent neural
#    networks, NIPS.
