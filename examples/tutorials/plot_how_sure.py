"""
How sure is it?
===============

A network always gives an answer, also when it cannot know. This tutorial makes a network say how
sure it is. Then it checks when you can believe that, and when not. You need to know how to train a
network. What dropout does fits in one sentence: it switches off random units, and different ones at
every step.

The idea is simple (Gal and Ghahramani 2016). Leave dropout on after the training, and ask the
network many times. Each time other units are missing. Where these thinned networks agree, the
network is sure; where each makes up an answer of its own, it is not.
"""

# %%
# How do I draw error bars for a curve?
# -------------------------------------
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
# The network has dropout behind each hidden layer. Its rate is small, because half of the units
# are too few to draw a fine curve.

network = [layers.Input((1,))]
for _ in range(2):
    network += [layers.Dense(256, "relu"), layers.Dropout(0.1)]
model = models.Sequential([*network, layers.Dense(1)], seed=1)
model.compile("adam", "mse")
model.fit(x, y, batch_size=64, epochs=200, verbose=0)

# %%
# ``predict_mc`` asks it many times, and returns the mean and the standard deviation of the
# answers. With ``consistent=True`` every sample is one thinned network, asked at all points, so we
# can draw it as a curve.

grid = np.linspace(-6, 8, 281, dtype=np.float32)[:, None]
prediction = model.predict_mc(
    grid, samples=200, seed=1, consistent=True, return_samples=True, verbose=0
)
mean, std = prediction.mean[:, 0], prediction.std[:, 0]

figure, axes = plt.subplots(figsize=(8, 4), layout="constrained")
axes.plot(grid, np.sin(grid), "--", color="#777777", label="the sine")
axes.plot(grid, prediction.samples[:20, :, 0].T, color="#1b6ca8", lw=0.5, alpha=0.5)
axes.fill_between(
    grid[:, 0],
    mean - 2 * std,
    mean + 2 * std,
    color="#1b6ca8",
    alpha=0.2,
    label="mean, 2 deviations",
)
axes.plot(grid, mean, color="#1b6ca8", lw=2, label="mean")
axes.plot(x, y, ".", color="#222222", ms=3, label="data")
axes.set(xlabel="x", ylabel="y", ylim=(-2.5, 2.5), title="Twenty thinned networks, and their mean")
axes.legend(frameon=False, ncols=2)
plt.show()

# %%
# The band follows the data, and becomes wider outside of them. But look at the dashed line: beyond
# x = 5 the network is wrong by far more than the band says, and in the gap the band is hardly
# wider than beside it.

for at in (-2, 2, 7):
    here = np.abs(grid[:, 0] - at).argmin()
    print(f"x = {at:2d}: {mean[here]:+.2f} +- {std[here]:.2f}, the sine is {np.sin(at):+.2f}")
    # sphinx_gallery_start_ignore
    assert (abs(mean[here] - np.sin(at)) > 2 * std[here]) == (at != -2)
    # sphinx_gallery_end_ignore

# %%
# So this is the first lesson: **the band is the network's doubt, not its error.** All thinned
# networks were trained together, and outside of the data they agree on going straight on. Believe
# the band where new data are like the old ones. There it can be checked, which we do next.
#
# How do I get error bars for a new measurement?
# ----------------------------------------------
#
# If you want an interval for the next *measurement*, add the noise of the measurements. Estimate
# it on points that the network has not seen: it is what is left of the squared errors when the
# band's variance is subtracted. Then test the intervals on still other points. ``predict_moments``
# gives nearly the same mean and deviation as many samples, without sampling.


def new_points(n):
    x = rng.uniform(-4, 1, size=(n, 1)).astype(np.float32)
    return x, measure(x)


x_noise, y_noise = new_points(300)
found = model.predict_moments(x_noise)
noise = max(np.mean((found.mean - y_noise) ** 2 - found.std**2), 0.0)

x_test, y_test = new_points(1000)
found = model.predict_moments(x_test)
half = 1.645 * np.sqrt(found.std**2 + noise)  # 90 % of a normal distribution
inside = calibration.interval_coverage(found.mean - half, found.mean + half, y_test)
print(f"noise: {np.sqrt(noise):.3f}; the data were made with 0.1")
print(f"{inside:.0%} of new measurements lie in their 90 % intervals")
# sphinx_gallery_start_ignore
assert 0.86 < inside < 0.95
# sphinx_gallery_end_ignore

# %%
# Without the noise the intervals would contain far fewer:

half = 1.645 * found.std
inside = calibration.interval_coverage(found.mean - half, found.mean + half, y_test)
print(f"{inside:.0%} lie in the band of the network's own doubt")
# sphinx_gallery_start_ignore
assert inside < 0.8
# sphinx_gallery_end_ignore

# %%
# Does it notice what it has never seen?
# --------------------------------------
#
# Let us turn to classes. We train on the handwritten digits 0 to 7, and then show the network three
# kinds of strangers: the digits 8 and 9, digits in white on black, and digits that lie on their
# side. It has to call them something. Does it notice?

images, labels = load_digits()
pictures = images.astype(np.float32) / 16
train, known = np.arange(len(labels)) < 1000, labels < 8


def flat(pictures):
    return pictures.reshape(len(pictures), -1)


network = [layers.Input((64,))]
for _ in range(2):
    network += [layers.Dense(256, "relu"), layers.Dropout(0.5)]
classifier = models.Sequential([*network, layers.Dense(8, "softmax")], seed=1)
classifier.compile("adam", "sparse_categorical_crossentropy")
classifier.fit(
    flat(pictures[train & known]), labels[train & known].astype(int), epochs=60, verbose=0
)

familiar, truth = pictures[~train & known], labels[~train & known].astype(int)
shown = {
    "0 to 7": familiar,
    "8 and 9": pictures[~train & ~known],
    "white on black": 1 - familiar,
    "on their side": np.rot90(familiar, axes=(1, 2)),
}

# %%
# A prediction of classes has more than a deviation:
#
# - ``entropy`` is all of the doubt: it is large when the mean of the answers is spread over
#   several classes;
# - ``expected_entropy`` is the doubt that each thinned network has by itself, because the image is
#   unclear;
# - ``mutual_information`` is the difference, how much the thinned networks contradict each other.
#   More data would remove it.
#
# We compare them with the doubt of the plain network, which is asked once, without dropout.

doubts = {}
for name, strangers in shown.items():
    plain = classifier.predict(flat(strangers), verbose=0)
    asked = classifier.predict_mc(flat(strangers), samples=100, seed=1, verbose=0)
    doubts[name] = {
        "plain: 1 - probability": 1 - plain.max(axis=1),
        "entropy": asked.entropy,
        "mutual information": asked.mutual_information,
    }

figure, panels = plt.subplots(2, 4, figsize=(9, 4), layout="constrained", height_ratios=(1, 2))
for (name, strangers), (above, below) in zip(shown.items(), panels.T):
    above.imshow(np.hstack(strangers[:3]), cmap="gray_r", vmin=0, vmax=1)
    above.set(xticks=[], yticks=[], title=name)
    values = doubts[name]["plain: 1 - probability"], doubts[name]["mutual information"]
    below.hist(values, np.linspace(0, 0.8, 17), density=True, color=("#d95f02", "#1b6ca8"))
    below.set(yscale="log", ylim=(0.05, 20), xlabel="doubt")
panels[1][0].set_ylabel("density")
panels[1][0].legend(["plain network", "mutual information"], frameon=False, fontsize=8)
plt.show()

# %%
# How well does the doubt tell strangers from the digits 0 to 7? The AUC is how likely it is that,
# of one of each, the stranger has the larger doubt. 1 is perfect, and 0.5 is a coin.

aucs = {}
print(f"{'':24}" + "".join(f"{name:>16}" for name in list(shown)[1:]))
for kind, usual in doubts["0 to 7"].items():
    row = f"{kind:24}"
    for name in list(shown)[1:]:
        auc = AUC()
        values = np.concatenate([usual, doubts[name][kind]])
        auc.update(values, np.arange(len(values)) >= len(usual))
        aucs[kind, name] = auc.result()
        row += f"{aucs[kind, name]:16.2f}"
    print(row)
# sphinx_gallery_start_ignore
asked_once, asked_often = ("plain: 1 - probability", "mutual information")
gained = {name: aucs[asked_often, name] - aucs[asked_once, name] for name in list(shown)[1:]}
assert abs(gained["8 and 9"]) < 0.04
assert aucs[asked_once, "8 and 9"] > 0.85
assert gained["white on black"] > 0.1
assert max(aucs[kind, "on their side"] for kind in (asked_once, asked_often)) < 0.5
# sphinx_gallery_end_ignore

# %%
# Three strangers, three lessons:
#
# - **8 and 9** look like mixtures of other digits. The plain network hesitates already, and
#   dropout adds nothing.
# - **White on black** is where dropout pays: the plain network is often sure of nonsense, but its
#   thinned networks contradict each other.
# - **Digits on their side** fool both. The network takes them for one and the same digit, and its
#   thinned networks agree: to them, what lies is the bar of a 4. No doubt of this kind can replace
#   a look at the data.

lying = classifier.predict(flat(shown["on their side"]), verbose=0).argmax(axis=1)
print(f"{np.mean(lying == 4):.0%} of the digits on their side are called 4")
# sphinx_gallery_start_ignore
assert np.mean(lying == 4) > 0.9
# sphinx_gallery_end_ignore

# %%
# Which answers should a person check?
# ------------------------------------
#
# Most doubt in practice is not about strangers but about unclear cases. Sort the digits 0 to 7 by
# their entropy, let the network answer the most certain ones, and give the others to a person. The
# curve tells what you get: for each share of answered images, the share of wrong answers among
# them.

asked = classifier.predict_mc(flat(familiar), samples=100, seed=1, verbose=0)
wrong = asked.mean.argmax(axis=1) != truth
curve = calibration.risk_coverage(asked.entropy, wrong)

figure, axes = plt.subplots(figsize=(7, 3.6), layout="constrained")
axes.plot(100 * curve.coverage, 100 * curve.risk, color="#1b6ca8", lw=2)
axes.axhline(100 * wrong.mean(), color="#777777", ls="--", label="in any order")
axes.set(xlabel="images that the network answers, %", ylabel="wrong among them, %", ylim=(0, None))
axes.legend(frameon=False)
plt.show()

for share in (1, 0.9, 0.8):
    at = min(np.searchsorted(curve.coverage, share), len(curve.risk) - 1)
    print(f"it answers {share:.0%}: {curve.risk[at]:.1%} of the answers are wrong")
# sphinx_gallery_start_ignore
assert curve.risk[at] < wrong.mean() / 2
# sphinx_gallery_end_ignore

# %%
# Is it right as often as it says?
# --------------------------------
#
# A network that says 90 % should be right in 90 of 100 cases. The reliability diagram compares the
# two.

diagram = calibration.reliability_diagram(asked.mean, truth, bins=10)
filled = diagram.counts > 0
figure, axes = plt.subplots(figsize=(4, 4), layout="constrained")
axes.plot([0, 1], [0, 1], "--", color="#777777")
axes.plot(diagram.confidence[filled], diagram.accuracy[filled], "o-", color="#1b6ca8")
axes.set(xlabel="confidence", ylabel="accuracy", title=f"calibration error {diagram.error:.3f}")
plt.show()

# %%
# Where the points lie above the diagonal, the network is right more often than it says; where they
# lie below, it says too much. :doc:`/how-to/calibration` corrects that with one number.
#
# What should I remember?
# -----------------------
#
# - ``predict_mc`` and ``predict_moments`` give error bars to every network that was trained with
#   dropout.
# - They measure the network's doubt. For intervals of measurements, add the noise of the data.
# - Check them on data that you kept apart: intervals by their coverage, probabilities by the
#   reliability diagram, and the order of the doubt by the risk-coverage curve.
# - Sometimes mutual information finds strangers that the plain network does not. Sometimes neither
#   does.
# - Do not extrapolate. The width of the band depends on p and on the size of the layers, which you
#   chose, and need not shrink with more data (Osband 2016). When the data shift, ensembles of
#   several trained networks were found to be better (Ovadia et al. 2019), at the cost of as many
#   trainings.
#
# Read on: :doc:`/how-to/uncertainty` lists all that a prediction holds, :doc:`/explanation/moments`
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
