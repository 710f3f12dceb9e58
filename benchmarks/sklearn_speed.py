"""What an epoch costs: our estimators and scikit-learn's, by default and in two jobs at once.

python benchmarks/sklearn_speed.py --data ../shared/data --out docs/bench

The notes above the table say what is measured.
"""

import argparse
import itertools
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
from fastdrop.compiled import _products
from fastdrop.compiled._train import submatrix
from fastdrop.datasets import load_idx
from fastdrop.optimizers import Adam

SIDES = {"scikit-learn": neural_network, "fastdrop": fastdrop.sklearn}
HIDDEN = [(50,), (64, 64), (512, 512)]
UCI = ("bostonHousing", "concrete", "energy", "yacht")
MATMULS = {"NumPy's products": np.matmul, "fastdrop's products": _products.matmul}
BATCH = 200  # the estimators' own choice
NOTES = """\
Both train the same networks on the same data, in turns, with the same random states; so they reach
the same weights, as the scores show (of the test parts, means over the seeds). float64 unless a row
says otherwise, batches of 200, `tol=0`; medians.

"least" is the time of what no epoch can do without, and of nothing else: its matrix products, by
NumPy or by fastdrop, whichever takes less; the rows of its batches, copied in a random order; and
Adam's updates, by fastdrop. "at most" is scikit-learn's time divided by it. Both are measured, too:
where an epoch has hardly more to do, its ratio may come out above.

Two jobs at once are joblib's `n_jobs=2`, with a thread each. Their times are the processor's, so
they leave out what others on the machine take of it, but not of its memory. "at once / one by one"
compares a job beside another with one on its own, as a share of the time of both: it is 0.5 if
neither job hinders the other. What it is for the least is the machine's doing.
"""
SPIN = 0.15  # seconds after which OpenBLAS's threads leave the cores to what is measured next
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


def fit(side, hidden, epochs, table, seed, clock=time.perf_counter):
    """Return the seconds of an epoch, and a function of the score for the test part."""
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
        start = clock()
        net.fit(x, y)
    return (clock() - start) / epochs, lambda: net.score(x_test, y_test)


def least(matmul, hidden, epochs, table, clock=time.perf_counter):
    """Return the seconds of what an epoch cannot do without, with products by `matmul`."""
    x, y = np.ascontiguousarray(table[0]), table[2]
    units = x.shape[1], *hidden, 1 if y.dtype.kind == "f" else len(np.unique(y))
    rng = np.random.default_rng(0)

    def arrays(*shapes):
        return [rng.normal(size=shape).astype(x.dtype) for shape in shapes]

    pairs = list(itertools.pairwise(units))
    weights, gradients = arrays(*pairs), arrays(*pairs)
    params, grads = dict(zip(map(str, pairs), weights)), dict(zip(map(str, pairs), gradients))
    outputs, adam = arrays(*((BATCH, width) for width in units)), Adam()
    order = rng.permutation(len(x))
    start = clock()
    for first in [*range(0, len(x), BATCH)] * epochs:
        rows = order[first : first + BATCH]
        a = [values[: len(rows)] for values in outputs]
        submatrix(x, rows, None, a[0])
        for i, weight in enumerate(weights):
            matmul(a[i], weight, out=a[i + 1])
        for i in reversed(range(len(weights))):
            matmul(a[i].T, a[i + 1], out=gradients[i])
            if i:
                matmul(a[i + 1], weights[i].T, out=a[i])
        adam.update(params, grads)
    return (clock() - start) / epochs


def job(side, hidden, epochs, table, seed):
    """Return the processor's seconds for an epoch, or for the least of it."""
    if side in MATMULS:
        return least(MATMULS[side], hidden, epochs, table, time.process_time)
    return fit(side, hidden, epochs, table, seed, time.process_time)[0]


def epochs_for(hidden, table):
    """Return how many epochs take about half a second, and make what a fit takes once small."""
    x = table[0]
    operations = 6 * len(x) * sum(a * b for a, b in zip((x.shape[1], *hidden), (*hidden, 10)))
    return int(np.clip(16e9 // operations, 3, 200))


def measure(name, table, hidden, seeds, parallel):
    """Return a row of the table, of epochs in turns: first by default, then in jobs."""
    epochs = epochs_for(hidden, table)
    default = {side: [] for side in (*SIDES, *MATMULS)}
    jobs, alone = ({side: [] for side in default} for _ in range(2))
    scores = {side: [] for side in SIDES}
    for seed in range(seeds):
        for side in default:
            time.sleep(SPIN)
            if side in MATMULS:
                default[side].append(least(MATMULS[side], hidden, epochs, table))
                continue
            took, score = fit(side, hidden, epochs, table, seed)
            default[side].append(took)
            scores[side].append(score())
        for side in default:
            one = delayed(job)(side, hidden, epochs, table, seed)
            jobs[side] += parallel([one, one])
            if side != "scikit-learn":
                alone[side] += parallel([one])
    cells = []
    for seconds in (default, jobs):
        theirs, ours, *both = (1000 * statistics.median(seconds[side]) for side in default)
        cells += [f"{theirs:.2f}", f"{ours:.2f}", f"**{theirs / ours:.1f}**"]
        cells += [f"{min(both):.2f}", f"{theirs / min(both):.1f}"]
    fastest = min(MATMULS, key=lambda side: statistics.median(jobs[side]))
    for side in ("fastdrop", fastest):
        took = statistics.median(jobs[side]) / statistics.median(alone[side])
        cells.append(f"{took / 2:.2f}")
    cells += [f"{statistics.mean(scores[side]):.4f}" for side in SIDES]
    return f"| {name} | {', '.join(map(str, hidden))} | {' | '.join(cells)} |"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder with fashion-mnist and uci")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--only", nargs="*", help="data sets of the table; all by default")
    add_out(parser)
    given = parser.parse_args()
    of_each = "scikit-learn, ms an epoch | fastdrop | ratio | least | at most"
    head = (
        f"{NOTES}\n| data | hidden | {of_each} | two jobs at once: {of_each} "
        "| fastdrop, at once / one by one | least, at once / one by one "
        "| scikit-learn, score | fastdrop |"
        f"\n|---|---{'|---:' * 14}|"
    )
    with Parallel(n_jobs=2, batch_size=1) as parallel:  # else both short jobs go to one process
        parallel(delayed(job)(side, (4,), 1, _tiny(), 0) for side in SIDES)  # starts both
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
