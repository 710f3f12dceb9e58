"""A search over dropout, width and learning rate of a network for a table, and its picture.

    python examples/sklearn_search.py --jobs 2 --out docs/figures/sklearn_search.png

On a Dask cluster, the same search is

    with joblib.parallel_config("dask"): search.fit(X, y)

while a `dask.distributed.Client` is open. ``--dask`` opens one on this machine.
"""

import argparse
import contextlib
import sys
from pathlib import Path

import joblib
import numpy as np
from scipy.stats import loguniform, uniform
from sklearn.datasets import load_digits
from sklearn.model_selection import RandomizedSearchCV, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler

from fastdrop.sklearn import MLPClassifier

NET = "mlpclassifier__"
SPACE = {
    f"{NET}dropout": uniform(0, 0.8),
    f"{NET}hidden_layer_sizes": [(width, width) for width in (32, 64, 128, 256)],
    f"{NET}learning_rate_init": loguniform(3e-4, 1e-2),
}


def search_of(candidates, epochs, jobs, seed=0):
    """Return the search, which has not run yet."""
    net = MLPClassifier(max_iter=epochs, tol=0, n_iter_no_change=epochs, random_state=seed)
    pipe = make_pipeline(MinMaxScaler(), net)
    return RandomizedSearchCV(pipe, SPACE, n_iter=candidates, cv=3, n_jobs=jobs, random_state=seed)


def picture(search, path):
    """Draw the score of each candidate by its dropout and its width."""
    from matplotlib.figure import Figure

    results = search.cv_results_
    dropout = np.array(results[f"param_{NET}dropout"], float)
    width = np.array([sizes[0] for sizes in results[f"param_{NET}hidden_layer_sizes"]])
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    for marker, units in zip("os^D", sorted(set(width))):
        chosen = width == units
        axes.errorbar(
            dropout[chosen],
            100 * results["mean_test_score"][chosen],
            100 * results["std_test_score"][chosen] / np.sqrt(search.n_splits_),
            fmt=marker,
            label=f"two layers of {units}",
        )
    axes.set(xlabel="dropout", ylabel="accuracy of 3-fold cross-validation, %")
    axes.legend()
    figure.savefig(path, dpi=120)


@contextlib.contextmanager
def backend(dask):
    """Return the place where jobs run: joblib's processes or, with Dask, its workers."""
    if not dask:
        yield
        return
    from dask.distributed import Client

    with Client(n_workers=2, threads_per_worker=1), joblib.parallel_config("dask"):
        yield


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--candidates", type=int, default=60)
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument(
        "--dask", action="store_true", help="by a cluster of Dask's on this machine"
    )
    parser.add_argument("--out", type=Path, help="the picture; none by default")
    given = parser.parse_args(arguments)
    X, y = load_digits(return_X_y=True)
    X_train, X_test, y_train, y_test = train_test_split(X, y, random_state=0, stratify=y)
    search = search_of(given.candidates, given.epochs, given.jobs)
    with backend(given.dask):
        search.fit(X_train, y_train)
    for name, value in search.best_params_.items():
        print(f"{name.removeprefix(NET)}: {value}")
    print(f"cross-validation: {search.best_score_:.4f}, test: {search.score(X_test, y_test):.4f}")
    if given.out:
        picture(search, given.out)
        print(f"written: {given.out}")


if __name__ == "__main__":
    sys.exit(main())
