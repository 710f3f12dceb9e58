"""Dropout against scikit-learn's weight penalty, each tuned by the same search.

    python examples/sklearn_dropout.py fashion-500 --data ../shared/data --out docs/results

Both sides have the same network, the same optimiser and number of epochs, and as many candidates:
nine values of `alpha` for scikit-learn's perceptron, and for ours nine rates of `dropout` with
`input_dropout`, or nine of `dropout` with `alpha`, no dropout among them. The best candidate is
trained again on all of the training part, and tested once. Which is best is told by each of five
fifths of it or, of 5000 images, by one. Each seed draws other images, or takes another of the
published splits.

The script goes on where its files end. `--table` prints the results so far. OPENBLAS_NUM_THREADS=1
saves scikit-learn the threads that wait for each other in such small products.
"""

import argparse
import json
import sys
import time
import warnings
from pathlib import Path

import numpy as np
from sklearn import neural_network
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import root_mean_squared_error
from sklearn.model_selection import KFold, ShuffleSplit

import fastdrop.sklearn
from fastdrop.datasets import load_idx

UCI = {"boston": "bostonHousing", "concrete": "concrete", "energy": "energy", "yacht": "yacht"}
ALPHAS = [1e-5, 1e-4, 1e-3, 1e-2, 0.1, 0.3, 1.0, 3.0, 10.0]
CLASSIFYING = [
    {"dropout": p, "input_dropout": q}
    for p, q in [(0.0, 0.0), *((p, q) for q in (0.0, 0.2) for p in (0.1, 0.25, 0.4, 0.5))]
]
# The targets have little noise, so p is small, as in Gal and Ghahramani's grid, or 0.
# Beside dropout, alpha wants to be small, too. scikit-learn's default is the first.
REGRESSING = [{"dropout": p, "alpha": a} for p in (0.0, 0.01, 0.05) for a in (1e-4, 1e-3, 1e-2)]
FOLDS = 5
LARGE = "fashion-5000"  # a single fifth of which tells the best
SETTINGS = {
    "fashion-500": {"hidden_layer_sizes": (256, 256), "max_iter": 150, "batch_size": 50},
    "fashion-5000": {"hidden_layer_sizes": (256, 256), "max_iter": 40, "batch_size": 100},
    # Gal and Ghahramani's: with fewer epochs at a higher rate the networks hardly overfit.
    "uci": {"hidden_layer_sizes": (50,), "max_iter": 4000, "batch_size": 128},
}


def data_of(name, folder, seed):
    """Return X_train, X_test, y_train, y_test, and the factor of y."""
    if name in UCI:
        return _uci(folder / "uci" / UCI[name], seed)
    count = int(name.partition("-")[2])
    (x, y), (x_test, y_test) = load_idx(folder / "fashion-mnist")
    chosen = np.random.default_rng(seed).choice(len(x), count, replace=False)
    x, x_test = (
        (images.reshape(len(images), -1) / 255).astype(np.float32) for images in (x[chosen], x_test)
    )
    return x, x_test, y[chosen], y_test, 1.0


def _uci(folder, split):
    data = np.loadtxt(folder / "data.txt")
    features = np.loadtxt(folder / "index_features.txt", dtype=int)
    target = int(np.loadtxt(folder / "index_target.txt"))
    train, test = (
        np.loadtxt(folder / f"index_{part}_{split}.txt", dtype=int) for part in ("train", "test")
    )
    deviation = np.where(data[train].std(axis=0), data[train].std(axis=0), 1)
    data = (data - data[train].mean(axis=0)) / deviation
    x, y = data[:, features], data[:, target]
    return x[train], x[test], y[train], y[test], deviation[target]


def error_of(net, x, y, scale):
    """Return the per cent of wrong labels, or the root of the mean squared error."""
    if hasattr(net, "classes_"):
        return 100 * (1 - net.score(x, y))
    return scale * root_mean_squared_error(y, net.predict(x))


def sides_of(name, seed):
    """Return the candidates of each side."""
    kind = "MLPRegressor" if name in UCI else "MLPClassifier"
    settings = SETTINGS.get(name, SETTINGS["uci"])
    same = {"tol": 0, "n_iter_no_change": settings["max_iter"], "random_state": seed} | settings
    theirs, ours = (getattr(p, kind)(**same) for p in (neural_network, fastdrop.sklearn))
    tuned = REGRESSING if name in UCI else CLASSIFYING
    return {
        "scikit-learn": [clone(theirs).set_params(alpha=alpha) for alpha in ALPHAS],
        "fastdrop": [clone(ours).set_params(**values) for values in tuned],
    }


def searched(candidates, data, parts):
    """Search for the best candidate; return its test error, and what was chosen and how.

    `parts` splits the training part into what is trained on and what candidates are judged by.
    """
    x, x_test, y, y_test, scale = data
    start = time.process_time()
    parts = list(parts.split(x))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        errors = [
            [error_of(net.fit(x[a], y[a]), x[b], y[b], scale) for a, b in parts]
            for net in candidates
        ]
        best = clone(candidates[int(np.argmin(np.mean(errors, axis=1)))]).fit(x, y)
    seconds = time.process_time() - start
    tuned = ("alpha", "dropout", "input_dropout")
    return {
        "error": error_of(best, x_test, y_test, scale),
        "chosen": {k: v for k, v in best.get_params().items() if k in tuned},
        "parts": len(parts),
        "seconds": seconds,
    }


def parts_of(run):
    """Return how many parts told the best candidate; older files do not say."""
    return run["fastdrop"].get("parts", 1)


def table(folder):
    """Return the table of all files in a folder."""
    lines = [
        "| data | what | seeds | chosen on | scikit-learn, tuned alpha | fastdrop, tuned dropout "
        "| difference | lower, equal in | minutes, both searches |",
        "|---|---|---:|---|---:|---:|---:|---:|---:|",
    ]
    for name in ("fashion-500", "fashion-5000", *UCI):
        path = folder / f"sklearn_dropout_{name}.json"
        if not path.exists():
            continue
        runs = json.loads(path.read_text())
        errors = np.array([[run[side]["error"] for side in run] for run in runs])
        minutes = [sum(run[side]["seconds"] for run in runs) / 60 for side in runs[0]]
        difference = errors[:, 1] - errors[:, 0]
        digits = 2 if name.startswith("fashion") else 3
        spread = ""  # one seed has none
        if len(runs) > 1:
            spread = f" ± {difference.std(ddof=1) / np.sqrt(len(runs)):.{digits}f}"
        theirs, ours = (f"{value:.{digits}f}" for value in errors.mean(axis=0))
        shown = difference.round(digits)
        what = "test error, %" if digits == 2 else "test RMSE"
        parts = parts_of(runs[0])
        chosen_on = "a fifth" if parts == 1 else f"{parts} fifths"
        lines.append(
            f"| {name} | {what} | {len(runs)} | {chosen_on} | {theirs} | {ours} "
            f"| {difference.mean():+.{digits}f}{spread} "
            f"| {(shown < 0).sum()}, {(shown == 0).sum()} of {len(runs)} "
            f"| {minutes[0]:.1f}, {minutes[1]:.1f} |"
        )
    return "\n".join(lines)


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", nargs="?", choices=["fashion-500", "fashion-5000", *UCI])
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, help="more or fewer than usual")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--table", action="store_true")
    given = parser.parse_args(arguments)
    path = given.out / f"sklearn_dropout_{given.name}.json"
    runs = json.loads(path.read_text()) if path.exists() else []
    if any(parts_of(run) != (1 if given.name == LARGE else FOLDS) for run in runs):
        parser.error(f"{path}: expected results of this search, got older ones: move them away")
    for seed in range(len(runs), given.seeds if given.name else 0):
        data = data_of(given.name, given.data, seed)
        sides = sides_of(given.name, seed)
        if given.epochs:
            for net in (net for nets in sides.values() for net in nets):
                net.set_params(max_iter=given.epochs)
        parts = KFold(FOLDS, shuffle=True, random_state=seed)
        if given.name == LARGE:
            parts = ShuffleSplit(1, test_size=0.2, random_state=seed)
        runs.append({side: searched(nets, data, parts) for side, nets in sides.items()})
        print(
            given.name, seed, *((s, round(r["error"], 4), r["chosen"]) for s, r in runs[-1].items())
        )
        path.write_text(json.dumps(runs, indent=1) + "\n")
    if given.table:
        print(table(given.out))


if __name__ == "__main__":
    sys.exit(main())
