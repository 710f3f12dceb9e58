"""What an epoch costs: our estimators and scikit-learn's, by default and in two jobs at once.

python benchmarks/sklearn_speed.py --data ../shared/data --out docs/bench

Both train the same networks on the same data, in turns, with the same random states. So they reach
the same weights, as the scores in the table show. Two jobs at once are joblib's ``n_jobs=2``, with
a thread each. "at once / one by one" is 0.5 if neither job hinders the other.
"""

import argparse
import statistics
import sys
import time
import warnings
from functools import partial
from pathlib import Path

import numpy as np
from joblib import Parallel, delayed
from rows import add_out, keep_rows
from sklearn import neural_network
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import train_test_split

import fastdrop.sklearn
from fastdrop.datasets import load_idx

SIDES = {"scikit-learn": neural_network, "fastdrop": fastdrop.sklearn}
HIDDEN = [(50,), (64, 64), (512, 512)]
UCI = ("bostonHousing", "concrete", "energy", "yacht")
IMAGES = 6000  # of Fashion-MNIST's 60 000, because an epoch's time is proportional to them


def tables(folder):
    """Return X_train, X_test, y_train, y_test by name, without sets that are not in the folder."""
    digits = load_digits(return_X_y=True)
    found = {"digits": train_test_split(digits[0] / 16, digits[1], random_state=0)}
    if folder and (folder / "fashion-mnist").is_dir():
        (x, y), (x_test, y_test) = load_idx(folder / "fashion-mnist")
        x, x_test = (images.reshape(len(images), -1) / 255 for images in (x, x_test))
        found["Fashion-MNIST"] = x[:IMAGES], x_test, y[:IMAGES], y_test
        found["Fashion-MNIST, float32"] = (
            x[:IMAGES].astype(np.float32),
            x_test.astype(np.float32),
            y[:IMAGES],
            y_test,
        )
    for name in UCI:
        if folder and (folder / "uci" / name).is_dir():
            found[name] = uci(folder / "uci" / name)
    return found


def uci(folder, split=0):
    """Return the parts of a UCI set, standardised by the training part."""
    data = np.loadtxt(folder / "data.txt")
    features = np.loadtxt(folder / "index_features.txt", dtype=int)
    target = int(np.loadtxt(folder / "index_target.txt"))
    train, test = (
        np.loadtxt(folder / f"index_{part}_{split}.txt", dtype=int) for part in ("train", "test")
    )
    data = (data - data[train].mean(axis=0)) / data[train].std(axis=0)
    return (
        data[train][:, features],
        data[test][:, features],
        data[train, target],
        data[test, target],
    )


def fit(side, hidden, epochs, table, seed):
    """Return the seconds of an epoch and the score for the test part."""
    x, x_test, y, y_test = table
    kind = "MLPRegressor" if y.dtype.kind == "f" else "MLPClassifier"
    net = getattr(SIDES[side], kind)(
        hidden_layer_sizes=hidden,
        max_iter=epochs,
        tol=0,
        n_iter_no_change=epochs,
        random_state=seed,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        start = time.perf_counter()
        net.fit(x, y)
    return (time.perf_counter() - start) / epochs, net.score(x_test, y_test)


def epochs_for(hidden, table):
    """Return how many epochs take some tenths of a second."""
    x = table[0]
    operations = 6 * len(x) * sum(a * b for a, b in zip((x.shape[1], *hidden), (*hidden, 10)))
    return int(np.clip(4e9 // operations, 2, 100))


def measure(name, table, hidden, seeds, parallel):
    """Return a row of the table, of epochs in turns: first by default, then two at once."""
    epochs = epochs_for(hidden, table)
    seconds = {(side, jobs): [] for side in SIDES for jobs in (1, 2)}
    alone = []  # seconds of a job that has the cores to itself, with as many threads as it has then
    scores = {side: [] for side in SIDES}
    for seed in range(seeds):
        for side in SIDES:
            took, score = fit(side, hidden, epochs, table, seed)
            seconds[side, 1].append(took)
            scores[side].append(score)
        for side in SIDES:
            both = parallel(delayed(fit)(side, hidden, epochs, table, seed) for _ in range(2))
            seconds[side, 2] += [took for took, _ in both]
        alone += [parallel([delayed(fit)("fastdrop", hidden, epochs, table, seed)])[0][0]]
    cells = []
    for jobs in (1, 2):
        theirs, ours = (1000 * statistics.median(seconds[side, jobs]) for side in SIDES)
        cells += [f"{theirs:.2f}", f"{ours:.2f}", f"**{theirs / ours:.1f}**"]
    cells.append(f"{statistics.median(seconds['fastdrop', 2]) / statistics.median(alone) / 2:.2f}")
    cells += [f"{statistics.mean(scores[side]):.4f}" for side in SIDES]
    return f"| {name} | {', '.join(map(str, hidden))} | {epochs} | {' | '.join(cells)} |"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder with fashion-mnist and uci")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--only", nargs="*", help="names of data sets; all by default")
    add_out(parser)
    given = parser.parse_args()
    head = (
        "| data | hidden | epochs a fit | scikit-learn, ms an epoch | fastdrop | ratio "
        "| scikit-learn, two jobs at once | fastdrop | ratio | fastdrop, at once / one by one "
        "| scikit-learn, score | fastdrop |"
        "\n|---|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|"
    )
    with Parallel(n_jobs=2) as parallel:
        parallel(delayed(fit)(side, (4,), 1, _tiny(), 0) for side in SIDES)  # starts the jobs
        rows = [
            (f"{name}, {hidden}", partial(measure, name, table, hidden, given.seeds, parallel))
            for name, table in tables(given.data).items()
            if not given.only or name in given.only
            for hidden in HIDDEN
        ]
        return keep_rows([(head, rows)], "sklearn.md", given.out)


def _tiny():
    x = np.random.default_rng(0).normal(size=(20, 3))
    return x, x, x[:, 0], x[:, 0]


if __name__ == "__main__":
    sys.exit(main())
