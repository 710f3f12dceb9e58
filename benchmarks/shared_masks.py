"""What accuracy does a mask cost that a whole batch shares, and what time does it save?

    python benchmarks/shared_masks.py --data ../shared/data/mnist --out docs/results/mnist.json
    python benchmarks/shared_masks.py --report docs/results/mnist.json ...

The first line trains every variant with every seed on one folder of IDX files, and skips runs that
its JSON file already has. The second line makes docs/explanation/shared_masks.md
and docs/figures/shared_masks.png.
"""

import os

os.environ["OPENBLAS_NUM_THREADS"] = "1"  # so that the CPU time is the time of a step

import argparse
import io
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

import fastdrop
from fastdrop._output import replace_file
from fastdrop.callbacks import Callback
from fastdrop.commands.bench.keep import keep
from fastdrop.datasets import load_idx
from fastdrop.layers import Dense, Dropout, Layer
from fastdrop.models import Sequential

UNITS, BATCH_SIZE = 512, 128
START, END = "<!-- made by benchmarks/shared_masks.py -->", "<!-- /made -->"
VARIANTS: dict[str, dict[str, Any] | None] = {
    "no dropout": None,
    "element-wise": {},
    "4 masks a batch": {"shared_axes": (0,), "groups": 4},
    "2 masks a batch": {"shared_axes": (0,), "groups": 2},
    "1 mask a batch": {"shared_axes": (0,), "groups": 1},
}


class StepTimes(Callback):
    """CPU seconds of every training step, which other users of the machine hardly change."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def on_epoch_begin(self, epoch: int, logs: object = None) -> None:
        self._last = time.process_time()

    def on_train_batch_end(self, batch: int, logs: object) -> None:
        now = time.process_time()
        self.seconds.append(now - self._last)
        self._last = now


def make_model(variant: str, p_input: float, p_hidden: float, seed: int) -> Sequential:
    arguments = VARIANTS[variant]

    def dropout(p: float) -> list[Layer]:
        return [] if arguments is None else [Dropout(p, **arguments)]

    layers = [
        *dropout(p_input),
        Dense(UNITS, "relu"),
        *dropout(p_hidden),
        Dense(UNITS, "relu"),
        *dropout(p_hidden),
        Dense(10, "softmax"),
    ]
    model = Sequential(layers, seed=seed)
    model.compile("adam", "sparse_categorical_crossentropy", ["accuracy"])
    return model


def train(args: argparse.Namespace) -> None:
    try:
        (x, y), (x_test, y_test) = load_idx(args.data)
    except (OSError, ValueError) as error:
        sys.exit(f"--data: {error}")
    fastdrop.set_num_threads(1)
    x, y = x[: args.samples], y[: args.samples]
    x, x_test = (a.reshape(len(a), -1).astype(np.float32) / 255 for a in (x, x_test))
    out = Path(args.out)
    runs = json.loads(out.read_text()) if out.exists() else []
    done = {(run["variant"], run["p"], run["seed"]) for run in runs}
    steps: list[tuple[str, tuple[str, str, int]]] = []
    for seed in range(1, args.seeds + 1):
        for variant in args.variants:
            p = "-" if VARIANTS[variant] is None else f"{args.p[0]:g} / {args.p[1]:g}"
            if (variant, p, seed) not in done:
                steps.append((f"{variant} with seed {seed}", (variant, p, seed)))

    def measure(step: tuple[str, str, int], number: int) -> None:
        variant, p, seed = step
        model, times = make_model(variant, *args.p, seed), StepTimes()
        model.fit(x, y, BATCH_SIZE, args.epochs, verbose=0, callbacks=[times])
        loss, accuracy = model.evaluate(x_test, y_test, verbose=0)
        run = {
            "data": Path(args.data).name,
            "variant": variant,
            "p": p,
            "seed": seed,
            "epochs": args.epochs,
            "images": len(x),
            "test_accuracy": accuracy,
            "test_loss": loss,
            "train_loss": model.history.history["loss"][-1],
            "step_ms": 1000 * statistics.median(times.seconds),
        }
        runs.append(run)
        replace_file(out, f"{json.dumps(runs, indent=1)}\n".encode())

    if steps:
        keep(steps, 1, measure, lambda missing: {"table": table(grouped(runs))} if runs else {})


Runs = dict[tuple[str, str, str], list[dict[str, Any]]]


def grouped(runs: list[dict[str, Any]]) -> Runs:
    groups: Runs = {}
    for run in runs:
        groups.setdefault((run["data"], run["variant"], run["p"]), []).append(run)
    return groups


def report(paths: list[str], folder: Path) -> None:
    """Put the runs of JSON files into the table of shared_masks.md, and draw shared_masks.png."""
    runs = grouped([run for path in paths for run in json.loads(Path(path).read_text())])
    document = folder / "explanation" / "shared_masks.md"
    before, _, rest = document.read_text().partition(START)
    _, _, after = rest.partition(END)
    replace_file(document, f"{before}{START}\n{table(runs)}\n{END}{after}".encode())
    (folder / "figures").mkdir(exist_ok=True)
    draw(runs, folder / "figures" / "shared_masks.png")


def table(runs: Runs) -> str:
    lines = [
        "| data | dropout | p of inputs / hidden | seeds | test accuracy, % | sd | step, ms |",
        "|---|---|---|---:|---:|---:|---:|",
    ]
    for (data, variant, p), group in runs.items():
        mean, sd = mean_sd(group)
        lines.append(
            f"| {data} | {variant} | {p} | {len(group)} | {mean:.2f} | {sd:.2f} "
            f"| {step_ms(group):.2f} |"
        )
    return "\n".join(lines)


def draw(runs: Runs, path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    sets = list(dict.fromkeys(data for data, _, _ in runs))
    rates = list(dict.fromkeys(p for _, variant, p in runs if VARIANTS[variant] is not None))
    figure, panels = plt.subplots(
        1, len(sets), figsize=(6 * len(sets), 4.8), squeeze=False, layout="constrained"
    )
    for data, panel in zip(sets, panels[0]):
        for (found, variant, p), group in runs.items():
            if found != data:
                continue
            mean, sd = mean_sd(group)
            color = f"C{list(VARIANTS).index(variant)}"
            marker = "os^D"[rates.index(p) % 4] if p in rates else "X"
            times = [run["step_ms"] for run in group]
            panel.plot(times, percent(group), ".", color=color, alpha=0.4)
            panel.errorbar(
                step_ms(group),
                mean,
                sd,
                fmt=marker,
                color=color,
                capsize=4,
                label=variant if VARIANTS[variant] is None else f"{variant}, p {p}",
            )
        panel.set(title=data, xlabel="time of a training step on one thread, ms")
        panel.set_xlim(left=0)
        panel.grid(alpha=0.3)
    panels[0][0].set_ylabel("test accuracy after the last epoch, %")
    handles, labels = panels[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=1 + len(sets))
    figure.suptitle("A dot is a seed; markers with bars are mean and standard deviation")
    picture = io.BytesIO()
    figure.savefig(picture, dpi=120, metadata={"Software": None})
    replace_file(path, picture.getvalue())


def percent(group: list[dict[str, Any]]) -> list[float]:
    return [100 * run["test_accuracy"] for run in group]


def mean_sd(group: list[dict[str, Any]]) -> tuple[float, float]:
    values = percent(group)
    return statistics.mean(values), statistics.stdev(values) if len(values) > 1 else 0.0


def step_ms(group: list[dict[str, Any]]) -> float:
    return statistics.median(run["step_ms"] for run in group)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="../shared/data/mnist", help="folder of IDX files")
    parser.add_argument("--out", default="shared_masks.json", help="JSON file of the runs")
    parser.add_argument("--p", type=float, nargs=2, default=(0.2, 0.5), help="of inputs, hidden")
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--samples", type=int, help="train on the first images only")
    parser.add_argument("--report", nargs="+", metavar="JSON", help="write table and picture")
    parser.add_argument("--docs", type=Path, default=Path("docs"), help="folder of the pages")
    args = parser.parse_args(argv)
    if args.report:
        report(args.report, args.docs)
    else:
        train(args)


if __name__ == "__main__":
    main()
