"""
How sure is it?
===============

A network always gives an answer, also when it cannot know. This tutorial makes a network say how
sure it is, and then checks whether one can believe it. You need to know how to train a network;
what dropout does is repeated here in one sentence: it switches off random units, other ones at
every step.

The idea is simple (Gal and Ghahramani 2016). Leave dropout on after the training, and ask the
network many times. Each time other units are missing. Where the data have told the network what to
say, all these thinned networks agree. Where the data were silent, each one makes up its own
answer.
"""

# %%
# A curve with a gap
# ------------------
#
# The data are noisy points of a curve. There are none between 1 and 3, and none beyond 5.

import matplotlib.pyplot as plt
import numpy as np

from fastdrop import calibration, layers, models
from fastdrop.datasets import load_digits
from fastdrop.metrics import AUC

rng = np.random.default_rng(0)


def measure(x):
    """What an experiment at x gives: a sine with noise."""
    return np.sin(x) + 0.1 * rng.normal(size=x.shape)


x = rng.uniform(-4, 5, size=(600, 1)).astype(np.float32)
x = x[(x[:, 0] < 1) | (x[:, 0] > 3)]
y = measure(x)

# %%
# The network has dropout behind each hidden layer. Its rate is small: on a curve like this, p =
# 0.5 would smooth away what we want to see.

network = [layers.Input((1,))]
for _ in range(2):
    network += [layers.Dense(256, "relu"), layers.Dropout(0.1)]
model = models.Sequential([*network, layers.Dense(1)], seed=1)
model.compile("adam", "mse")
model.fit(x, y, batch_size=64, epochs=200, verbose=0)

# %%
# ``predict_mc`` asks it 200 times. The result has the mean and the standard deviation of the
# answers, and the answers themselves if we ask for them.

grid = np.linspace(-6, 8, 281, dtype=np.float32)[:, None]
prediction = model.predict_mc(grid, samples=200, seed=1, return_samples=True, verbose=0)
mean, std = prediction.mean[:, 0], prediction.std[:, 0]

figure, axes = plt.subplots(figsize=(8, 4), layout="constrained")
axes.plot(grid, prediction.samples[:20, :, 0].T, color="#1b6ca8", lw=0.5, alpha=0.4)
axes.fill_between(grid[:, 0], mean - 2 * std, mean + 2 * std, color="#1b6ca8", alpha=0.2)
axes.plot(grid, mean, color="#1b6ca8", lw=2)
axes.plot(x, y, ".", color="#222222", ms=3)
axes.set(
    ylim=(-3, 3),
    xlabel="x",
    ylabel="y",
    title="Twenty thinned networks, their mean, and two deviations",
)
plt.show()

# %%
# Where there are points, the band is narrow. It widens in the gap, and more so outside of the
# data: there the thinned networks go on as straight lines, each in its own direction.
#
# Two things to notice. The band is not wide enough to contain the sine everywhere outside of the
# data. Dropout tells *that* the network does not know, but nobody should read the band at x = 7 as
# a probability. And the band is narrower than the cloud of the points, because it does not contain
# their noise.

for at in (-2, 2, 7):
    here = np.abs(grid[:, 0] - at).argmin()
    print(f"x = {at:2d}: {mean[here]:+.2f} +- {std[here]:.2f}, the sine is {np.sin(at):+.2f}")

# %%
# Error bars for a new measurement
# --------------------------------
#
# If you want an interval for the next *measurement*, add the noise of the measurements. It can be
# estimated on points that the network has not seen, as what is left of the squared errors. Then
# test the intervals on still other points. ``predict_moments`` gives the same mean and deviation
# as many samples, without sampling.


def new_points(n):
    x = rng.uniform(-4, 1, size=(n, 1)).astype(np.float32)
    return x, measure(x)


x_noise, y_noise = new_points(300)
found = model.predict_moments(x_noise)
noise = np.mean((found.mean - y_noise) ** 2 - found.std**2)
noise = max(noise, 0.0)

x_test, y_test = new_points(1000)
found = model.predict_moments(x_test)
half = 1.645 * np.sqrt(found.std**2 + noise)  # 90 % of a normal distribution
inside = calibration.interval_coverage(found.mean - half, found.mean + half, y_test)
print(f"noise: {np.sqrt(noise):.3f} (it was made with 0.1)")
print(f"{inside:.0%} of new measurements lie in their 90 % intervals")

# %%
# Without the noise the intervals would contain far fewer:

half = 1.645 * found.std
inside = calibration.interval_coverage(found.mean - half, found.mean + half, y_test)
print(f"{inside:.0%} lie in the intervals of the network's own doubt")

# %%
# Digits that it has never seen
# -----------------------------
#
# Now classes. We train on handwritten digits, but only on 0 to 7, and then show the network all
# ten. It must call an 8 something, because it has no other word. Does it know that it guesses?

images, labels = load_digits()
pixels = images.reshape(len(images), -1).astype(np.float32) / 16
known = labels < 8
train, test = np.arange(len(labels)) < 1000, np.arange(len(labels)) >= 1000

network = [layers.Input((64,))]
for _ in range(2):
    network += [layers.Dense(256, "relu"), layers.Dropout(0.5)]
classifier = models.Sequential([*network, layers.Dense(8, "softmax")], seed=1)
classifier.compile("adam", "sparse_categorical_crossentropy")
classifier.fit(pixels[train & known], labels[train & known].astype(int), epochs=60, verbose=0)

plain = classifier.predict(pixels[test], verbose=0)
asked = classifier.predict_mc(pixels[test], samples=100, seed=1, verbose=0)
is_known, label = known[test], labels[test]
right = is_known & (asked.mean.argmax(axis=1) == label)
print(f"{right[is_known].mean():.1%} of the digits 0 to 7 are recognised")

# %%
# For classes a prediction has more than a deviation:
#
# - ``entropy`` is all of the doubt: it is large when the mean of the answers is spread over
#   several classes;
# - ``expected_entropy`` is the doubt that each thinned network has by itself, because the image is
#   unclear;
# - ``mutual_information`` is the rest: how much the thinned networks contradict each other. This
#   is what more data would remove, and what an unknown class should raise.

figure, panels = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained", sharey=True)
certainty = 1 - plain.max(axis=1)
for axes, values, name in (
    (panels[0], certainty, "1 - the plain network's probability"),
    (panels[1], asked.mutual_information, "mutual information, nats"),
):
    bins = np.linspace(0, values.max(), 31)
    axes.hist(values[is_known], bins, color="#1b6ca8", alpha=0.7, label="digits 0 to 7")
    axes.hist(values[~is_known], bins, color="#d95f02", alpha=0.7, label="8 and 9, never seen")
    axes.set(xlabel=name, yscale="log")
panels[0].set_ylabel("images")
panels[1].legend(frameon=False)
plt.show()

# %%
# How well do they separate? The AUC is how likely it is that, of a known and an unknown digit, the
# unknown one has the larger doubt.

for name, values in (
    ("plain network", certainty),
    ("entropy", asked.entropy),
    ("mutual information", asked.mutual_information),
):
    auc = AUC()
    auc.update(values, ~is_known)
    print(f"{name:>20}: {auc.result():.3f}")

# %%
# These are the test images with the largest mutual information:

most = np.argsort(-asked.mutual_information)[:10]
figure, panels = plt.subplots(1, 10, figsize=(9, 1.5), layout="constrained")
for axes, i in zip(panels, most):
    axes.imshow(images[test][i], cmap="gray_r")
    guess = asked.mean[i].argmax()
    axes.set_title(f"is {label[i]}\nsays {guess}", fontsize=9)
    axes.set(xticks=[], yticks=[])
plt.show()

# %%
# Which answers should a person check?
# ------------------------------------
#
# Sort the images by their doubt, let the network answer the most certain ones, and give the others
# to a person. The curve tells what you get: for each share of answered images, the share of wrong
# answers among them. An unknown digit always counts as wrong.

wrong = ~right
curves = {
    "mutual information": calibration.risk_coverage(asked.mutual_information, wrong),
    "entropy": calibration.risk_coverage(asked.entropy, wrong),
    "plain network": calibration.risk_coverage(certainty, wrong),
}
figure, axes = plt.subplots(figsize=(7, 3.6), layout="constrained")
for (name, curve), style in zip(curves.items(), ("-", "--", ":")):
    axes.plot(100 * curve.coverage, 100 * curve.risk, style, lw=2, label=name)
axes.set(xlabel="images that the network answers, %", ylabel="wrong among them, %", ylim=(0, None))
axes.legend(frameon=False)
plt.show()

for name, curve in curves.items():
    at = np.searchsorted(curve.coverage, 0.7)
    print(f"{name:>20}: of the most certain 70 %, {curve.risk[at]:.1%} are wrong")

# %%
# Is it as often right as it says?
# --------------------------------
#
# A network that says 90 % should be right in 90 of 100 cases. The reliability diagram compares the
# two. It is drawn for the digits that the network knows: no calibration can help with classes that
# it has never seen.

diagram = calibration.reliability_diagram(
    asked.mean[is_known], label[is_known].astype(int), bins=10
)
filled = diagram.counts > 0
figure, axes = plt.subplots(figsize=(4, 4), layout="constrained")
axes.plot([0, 1], [0, 1], "--", color="#777777")
axes.plot(diagram.confidence[filled], diagram.accuracy[filled], "o-", color="#1b6ca8")
axes.set(xlabel="confidence", ylabel="accuracy", title=f"calibration error {diagram.error:.3f}")
plt.show()

# %%
# Above the diagonal it is right more often than it says: the mean over many thinned networks is
# careful. If a network of yours lies below, it says too much; :doc:`/how-to/calibration` corrects
# that with one number.
#
# What to remember
# ----------------
#
# - ``predict_mc`` and ``predict_moments`` give error bars to every network that was trained with
#   dropout.
# - They measure the network's doubt. Add the noise of the data for intervals of measurements.
# - Mutual information finds what the network has not learnt; entropy also finds what nobody could
#   tell.
# - Check it on data that you kept apart: intervals by their coverage, probabilities by the
#   reliability diagram, and the order of doubt by the risk-coverage curve.
# - Far away from the data the band says "I do not know", and no more than that. Its width depends
#   on p and on the size of the layers, which you chose, and it need not shrink with more data
#   (Osband 2016). Under a shift of the data, ensembles of several trained networks were found to
#   be better (Ovadia et al. 2019), at the cost of as many trainings.
#
# Read on: :doc:`/how-to/uncertainty` has all that a prediction holds, :doc:`/explanation/moments`
# tells how it works without sampling and where it is wrong, and :doc:`/reference/results` has
# larger experiments.
#
# References
# ----------
#
# - Y. Gal and Z. Ghahramani 2016, Dropout as a Bayesian approximation: representing model
#   uncertainty in deep learning, ICML.
# - I. Osband 2016, Risk versus uncertainty in deep learning: Bayes, bootstrap and the dangers of
#   dropout, NIPS workshop on Bayesian deep learning.
# - Y. Ovadia et al. 2019, Can you trust your model's uncertainty? Evaluating predictive
#   uncertainty under dataset shift, NeurIPS.
