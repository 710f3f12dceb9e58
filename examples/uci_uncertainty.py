"""Monte-Carlo dropout and moments on the UCI regression sets of Gal and Ghahramani 2016.

    python examples/uci_uncertainty.py --processes 2
    python examples/uci_uncertainty.py --report

The protocol is that of the paper's code (Dropout as a Bayesian approximation, ICML 2016; its
corrected grid search of 2018): one hidden layer of 50 ReLU, dropout before every layer, even on the
input, Adam, batches of 128, 4000 epochs. p and the precision tau are chosen on the last fifth of
the training rows, in the split's random order, by the log-likelihood of 10 000 samples. Then the
network is trained again on all training rows, and only then looks at the split's test rows, once.
The first line stores its measurements in docs/results, split by split, and goes on where it was
stopped. The second line puts the tables into docs/reference/results.md.
"""

import argparse
import json
import math
import os
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastdrop import set_num_threads
from fastdrop._output import replace_file
from fastdrop.layers import Dense, Dropout, Input
from fastdrop.models import Sequential
from fastdrop.uncertainty import Prediction

P = (0.005, 0.01, 0.05, 0.1)
LENGTH_SCALE = 0.01
BATCH = 128
# By set: the folder, the grid of tau, and the published RMSE and log-likelihood.
SETS = {
    "boston": ("bostonHousing", (0.1, 0.15, 0.2), 2.90, -2.40),
    "concrete": ("concrete", (0.025, 0.05, 0.075), 4.82, -2.93),
    "energy": ("energy", (0.25, 0.5, 0.75), 0.54, -1.21),
    "yacht": ("yacht", (0.25, 0.5, 0.75), 0.67, -1.25),
}
START, END = "<!-- made by examples/uci_uncertainty.py -->", "<!-- /made -->"


class Scaled:
    """A network for standardised rows, which predicts in the labels' own units."""

    def __init__(
        self, x: NDArray, y: NDArray, p: float, tau: float, epochs: int, seed: int
    ) -> None:
        self.mean, self.std = x.mean(axis=0), x.std(axis=0)
        self.std[self.std == 0] = 1
        self.y_mean, self.y_std = y.mean(), y.std()
        l2 = LENGTH_SCALE**2 * (1 - p) / (2 * len(x) * tau)
        layers = [Input(x.shape[1:]), Dropout(p), Dense(50, "relu", l2=l2), Dropout(p)]
        self.model = Sequential([*layers, Dense(1, l2=l2)], seed=seed)
        self.model.compile("adam", "mse")
        self.model.fit(self.scaled(x), (y - self.y_mean) / self.y_std, BATCH, epochs, verbose=0)

    def scaled(self, x: NDArray) -> NDArray:
        return ((x - self.mean) / self.std).astype(np.float32)

    def samples(self, x: NDArray, samples: int, seed: int) -> Prediction:
        return self.unscaled(
            self.model.predict_mc(
                self.scaled(x), samples, seed=seed, return_samples=True, verbose=0
            )
        )

    def moments(self, x: NDArray) -> Prediction:
        return self.unscaled(self.model.predict_moments(self.scaled(x)))

    def unscaled(self, prediction: Prediction) -> Prediction:
        samples = prediction.samples
        return Prediction(
            prediction.activation,
            prediction.mean * self.y_std + self.y_mean,
            prediction.std * self.y_std,
            samples=None if samples is None else samples * self.y_std + self.y_mean,
        )


def figures(prediction: Prediction, y: NDArray, tau: float) -> dict[str, float]:
    error = prediction.mean[:, 0] - y
    return {
        "rmse": math.sqrt(np.square(error).mean()),
        "log_likelihood": prediction.log_likelihood(y, tau),
    }


def nearness(prediction: Prediction, many: Prediction) -> dict[str, float]:
    """How close a prediction is to that of many samples."""
    ratio = prediction.std / many.std
    return {
        "correlation": float(np.corrcoef(prediction.std.ravel(), many.std.ravel())[0, 1]),
        "median ratio": float(np.median(ratio)),
        "deviation of std": float(np.sqrt(np.square(np.log(ratio)).mean())),
        "error of mean": float((np.abs(prediction.mean - many.mean) / many.std).mean()),
    }


def load(folder: Path, split: int) -> tuple[NDArray, NDArray, NDArray, NDArray]:
    """Return the rows and labels to train on, and those to test on."""
    data = np.loadtxt(folder / "data.txt")
    features, target, train, test = (
        np.loadtxt(folder / f"index_{name}.txt").astype(int)
        for name in ("features", "target", f"train_{split}", f"test_{split}")
    )
    x, y = data[:, features], data[:, target].ravel()
    return x[train], y[train], x[test], y[test]


def measure(folder: Path, name: str, split: int, epochs: int, samples: int) -> dict[str, Any]:
    """Return the results for a split's test rows."""
    set_num_threads(1)
    start = time.perf_counter()
    x, y, x_test, y_test = load(folder / SETS[name][0], split)
    kept = len(x) - len(x) // 5
    best = (-math.inf, 0.0, 0.0)
    for p, tau in product(P, SETS[name][1]):
        network = Scaled(x[:kept], y[:kept], p, tau, epochs, split)
        likelihood = network.samples(x[kept:], samples, split).log_likelihood(y[kept:], tau)
        best = max(best, (likelihood, p, tau))
    _, p, tau = best
    network = Scaled(x, y, p, tau, epochs, split)
    many, hundred = (network.samples(x_test, n, split + k) for n, k in ((samples, 0), (100, 100)))
    moments = network.moments(x_test)
    return {
        "set": name,
        "split": split,
        "epochs": epochs,
        "samples": samples,
        "p": p,
        "tau": tau,
        "mc": figures(many, y_test, tau),
        "moments": figures(moments, y_test, tau),
        "moments against samples": nearness(moments, many),
        "100 samples against samples": nearness(hundred, many),
        "seconds": round(time.perf_counter() - start, 1),
    }


def run(args: argparse.Namespace) -> None:
    for name in args.sets:
        if not (args.data / SETS[name][0]).is_dir():
            raise ValueError(f"--data: expected a folder with {SETS[name][0]}, got {args.data}")
    todo = []
    for split, name in product(range(args.splits), args.sets):
        known = {result["split"] for result in results_of(args, name)}
        if split not in known:
            todo.append((name, split))
    for result in measured(args, todo):
        results = [*results_of(args, result["set"]), result]
        results.sort(key=lambda each: each["split"])
        text = json.dumps(results, indent=1)
        replace_file(file_of(args, result["set"]), f"{text}\n".encode())
        print(result["set"], result["split"], result["mc"], f"{result['seconds']} s")


def measured(args: argparse.Namespace, todo: list[tuple[str, int]]) -> Iterator[dict[str, Any]]:
    """Yield the results of sets and splits as they come."""
    options = (args.epochs, args.samples)
    if args.processes == 1:
        yield from (measure(args.data, *each, *options) for each in todo)
        return
    with ProcessPoolExecutor(args.processes) as pool:
        futures = [pool.submit(measure, args.data, *each, *options) for each in todo]
        yield from (future.result() for future in as_completed(futures))


def file_of(args: argparse.Namespace, name: str) -> Path:
    return args.out / f"uci_{name}.json"


def results_of(args: argparse.Namespace, name: str) -> list[dict[str, Any]]:
    """Return what has been measured with these options."""
    path = file_of(args, name)
    found = json.loads(path.read_text()) if path.exists() else []
    return [r for r in found if (r["epochs"], r["samples"]) == (args.epochs, args.samples)]


def report(args: argparse.Namespace) -> None:
    """Put the tables between the two marks in a file."""
    lines = [
        "| set | splits | RMSE, samples | moments | published "
        "| log-likelihood, samples | moments | published | minutes |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    near = [
        "| set | against 10 000 samples | correlation of std | median of its ratio "
        "| deviation of std, % | error of mean, std |",
        "|---|---|---:|---:|---:|---:|",
    ]
    for name, (_, _, *published) in SETS.items():
        results = results_of(args, name)
        if not results:
            continue
        cells = [name, str(len(results))]
        for figure, value in zip(("rmse", "log_likelihood"), published):
            cells += [summary([r[way][figure] for r in results]) for way in ("mc", "moments")]
            cells.append(f"{value:.2f}")
        minutes = sum(r["seconds"] for r in results) / 60
        lines.append(f"| {' | '.join(cells)} | {minutes:.0f} |")
        for way in ("moments", "100 samples"):
            measured = [r[f"{way} against samples"] for r in results]
            means = {key: float(np.mean([m[key] for m in measured])) for key in measured[0]}
            near.append(
                f"| {name} | {way} | {means['correlation']:.3f} | {means['median ratio']:.2f} "
                f"| {100 * means['deviation of std']:.1f} | {means['error of mean']:.3f} |"
            )
    before, _, rest = args.document.read_text().partition(START)
    _, _, after = rest.partition(END)
    made = "\n".join([START, *lines, "", *near, END])
    replace_file(args.document, f"{before}{made}{after}".encode())


def summary(values: list[float]) -> str:
    """Return mean and standard error."""
    error = np.std(values, ddof=1) / math.sqrt(len(values)) if len(values) > 1 else math.nan
    return f"{np.mean(values):.2f} ± {error:.2f}"


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data/uci"))
    parser.add_argument("--out", type=Path, default=Path("docs", "results"))
    parser.add_argument("--document", type=Path, default=Path("docs", "reference", "results.md"))
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--splits", type=int, default=20, help="how many, from the first")
    parser.add_argument("--epochs", type=int, default=4000)
    parser.add_argument("--samples", type=int, default=10_000)
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    parser.add_argument("--report", action="store_true", help="write the tables")
    args = parser.parse_args(argv)
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    try:
        report(args) if args.report else run(args)
    except (OSError, ValueError) as error:
        sys.exit(f"uci_uncertainty.py: {error}")


if __name__ == "__main__":
    main()
