"""Does a network know that it was not trained on this? Fashion-MNIST against MNIST's digits.

    python examples/fashion_uncertainty.py --out docs/results/fashion_uncertainty.json
    python examples/fashion_uncertainty.py --report docs/results/fashion_uncertainty.json

The first line trains networks with dropout on Fashion-MNIST. They predict its test images and
MNIST's in four ways: by the plain softmax, by the softmax with a temperature that was fitted on
held-out images, by the mean of Monte-Carlo samples, and by moments, without sampling. It also draws
pictures of the last network beside the JSON file. The second line puts the table into
docs/reference/results.md.
"""

import argparse
import io
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastdrop import calibration
from fastdrop._output import replace_file
from fastdrop.datasets import load_idx
from fastdrop.layers import Dense, Dropout, Input
from fastdrop.metrics import AUC
from fastdrop.models import Sequential
from fastdrop.uncertainty import entropy

CLASSES = ["T-shirt", "Trouser", "Pullover", "Dress", "Coat"]
CLASSES += ["Sandal", "Shirt", "Sneaker", "Bag", "Boot"]
HELD_OUT = 6  # one sixth of the training images is for finding the temperature
START, END = "<!-- made by examples/fashion_uncertainty.py -->", "<!-- /made -->"
# the names of the figures that the table has, and how they are written
FIGURES = {
    "wrong": ("wrong, %", "{:.2f}"),
    "nll": ("-log p", "{:.3f}"),
    "ece": ("ECE", "{:.3f}"),
    "aurc": ("risk-coverage area", "{:.4f}"),
    "auroc_entropy": ("AUROC, entropy", "{:.3f}"),
    "auroc_mutual_information": ("AUROC, mutual information", "{:.3f}"),
    "seconds": ("seconds", "{:.1f}"),
}


class Answers:
    """Probabilities of the classes of some images, and how uncertain they are."""

    def __init__(self, mean: NDArray, mutual_information: NDArray | None = None) -> None:
        self.mean = mean
        self.entropy = entropy(mean, "softmax")
        self.mutual_information = mutual_information


def train(x: NDArray, y: NDArray, args: argparse.Namespace, seed: int) -> Sequential:
    layers = [Input(x.shape[1:])]
    for _ in range(2):
        layers += [Dense(args.units, "relu"), Dropout(args.p)]
    model = Sequential([*layers, Dense(10, "softmax")], seed=seed)
    model.compile("adam", "sparse_categorical_crossentropy", ["accuracy"])
    model.fit(x, y, 128, args.epochs, verbose=2)
    return model


def answer(
    model: Sequential, images: NDArray, temperature: float, args: argparse.Namespace
) -> dict[str, tuple[Answers, float]]:
    """Predict in each way, and measure the seconds that it takes."""

    def logits(x: NDArray) -> NDArray:
        return np.log(np.maximum(model.predict(x, verbose=0), np.finfo(np.float32).tiny))

    def sampled() -> Answers:
        found = model.predict_mc(images, args.samples, seed=1, verbose=0)
        return Answers(found.mean, found.mutual_information)

    def moments() -> Answers:
        found = model.predict_moments(images)
        return Answers(found.mean, found.mutual_information)

    ways = {
        "softmax": lambda: Answers(model.predict(images, verbose=0).astype(np.float64)),
        "softmax, temperature": lambda: Answers(
            calibration.apply_temperature(logits(images).astype(np.float64), temperature)
        ),
        f"Monte-Carlo, {args.samples} samples": sampled,
        "moments": moments,
    }
    answers = {}
    for name, way in ways.items():
        start = time.perf_counter()
        answers[name] = way(), time.perf_counter() - start
    return answers


def auroc(inside: NDArray, outside: NDArray) -> float:
    """Return how likely an image of the other set has the larger score."""
    metric = AUC()
    scores = np.concatenate([inside, outside])
    metric.update(scores, np.arange(len(scores)) >= len(inside))
    return metric.result()


def figures(inside: Answers, outside: Answers, y: NDArray, seconds: float) -> dict[str, Any]:
    wrong = inside.mean.argmax(axis=1) != y
    right = np.maximum(inside.mean[np.arange(len(y)), y], np.finfo(np.float64).tiny)
    knows = inside.mutual_information is not None
    return {
        "wrong": 100 * float(wrong.mean()),
        "nll": float(-np.log(right).mean()),
        "ece": calibration.expected_calibration_error(inside.mean, y),
        "aurc": calibration.risk_coverage(inside.entropy, wrong).area,
        "auroc_entropy": auroc(inside.entropy, outside.entropy),
        "auroc_mutual_information": auroc(inside.mutual_information, outside.mutual_information)
        if knows
        else None,
        "seconds": seconds,
    }


def measure(args: argparse.Namespace) -> None:
    (x, y), (x_test, y_test) = load_idx(args.fashion)
    _, (digits, _) = load_idx(args.mnist)
    x, y = x[: args.images], y[: args.images].astype(np.int64)
    x_test, y_test = x_test[: args.images], y_test[: args.images].astype(np.int64)
    digits = digits[: len(x_test)]
    x, clothes, others = (
        a.reshape(len(a), -1).astype(np.float32) / 255 for a in (x, x_test, digits)
    )
    kept = len(x) - len(x) // HELD_OUT
    runs = []
    for seed in range(1, args.seeds + 1):
        model = train(x[:kept], y[:kept], args, seed)
        held_out = model.predict(x[kept:], verbose=0)
        temperature = calibration.fit_temperature(np.log(np.maximum(held_out, 1e-37)), y[kept:])
        inside = answer(model, clothes, temperature, args)
        outside = answer(model, others, temperature, args)
        for way, (answers, seconds) in inside.items():
            found = figures(answers, outside[way][0], y_test, seconds + outside[way][1])
            runs.append({"way": way, "seed": seed, "temperature": temperature, **found})
    settings = {name: getattr(args, name) for name in ("units", "p", "epochs", "samples")}
    result = {**settings, "images": kept, "test_images": len(clothes), "runs": runs}
    if args.out:
        replace_file(args.out, f"{json.dumps(result, indent=1)}\n".encode())
        draw(args.out, x_test, y_test, digits, inside, outside)
    print(table(result))


def draw(
    out: Path,
    x: NDArray,
    y: NDArray,
    digits: NDArray,
    inside: dict[str, tuple[Answers, float]],
    outside: dict[str, tuple[Answers, float]],
) -> None:
    """Draw the pictures that lie beside the JSON file."""
    try:
        from fastdrop.diagrams import render_reliability, render_risk_coverage
    except ImportError as error:
        print(f"no pictures: {error}", file=sys.stderr)
        return
    diagrams, curves = {}, {}
    for way, (answers, _) in inside.items():
        diagrams[way] = calibration.reliability_diagram(answers.mean, y)
        wrong = answers.mean.argmax(axis=1) != y
        curves[f"{way}: entropy"] = calibration.risk_coverage(answers.entropy, wrong)
        if answers.mutual_information is not None:
            curve = calibration.risk_coverage(answers.mutual_information, wrong)
            curves[f"{way}: mutual information"] = curve
    sampled = next(way for way in inside if way.startswith("Monte-Carlo"))
    title = "Fashion-MNIST's test images"
    pictures = {
        "reliability": render_reliability(diagrams, title),
        "risk": render_risk_coverage(curves, title, "share of wrong classes"),
        "images": render_images(
            {
                "Fashion-MNIST": (x, y, inside[sampled][0]),
                "digits": (digits, None, outside[sampled][0]),
            }
        ),
    }
    for name, picture in pictures.items():
        replace_file(out.with_name(f"{out.stem}_{name}.png"), picture)


def render_images(sets: dict[str, tuple[NDArray, NDArray | None, Answers]]) -> bytes:
    """Draw the images that a network is most and least certain of, as a PNG file."""
    from matplotlib.figure import Figure

    across, rows = 10, []
    for name, (images, labels, answers) in sets.items():
        order = np.argsort(answers.entropy, kind="stable")
        rows.append((f"{name}:\nmost certain", images, labels, answers, order[:across]))
        rows.append((f"{name}:\nleast certain", images, labels, answers, order[: -across - 1 : -1]))
    figure = Figure(figsize=(1.25 * across + 1, 1.75 * len(rows)), dpi=110, layout="constrained")
    panels = figure.subplots(len(rows), across)
    for (name, images, labels, answers, chosen), line in zip(rows, panels):
        line[0].set_ylabel(name, fontsize=11)
        for image, panel in zip(chosen, line):
            best = answers.mean[image].argmax()
            said = f"{CLASSES[best]} {answers.mean[image, best]:.0%}"
            wrong = labels is not None and labels[image] != best
            said += f"\nis a {CLASSES[labels[image]]}" if wrong else ""
            panel.imshow(images[image], cmap="gray_r", vmin=0, vmax=255)
            panel.set_title(said, fontsize=9, color="#b2182b" if wrong else "black")
            panel.set(xticks=[], yticks=[])
    file = io.BytesIO()
    figure.savefig(file, format="png", metadata={"Software": None})
    return file.getvalue()


def table(result: dict[str, Any]) -> str:
    """Return means over the seeds, with the least and the most if there are several."""
    runs = result["runs"]
    ways = list(dict.fromkeys(run["way"] for run in runs))
    temperatures = [run["temperature"] for run in runs if run["way"] == ways[0]]
    lines = [
        f"784-{result['units']}-{result['units']}-10, p = {result['p']:g}, {result['images']} "
        f"training images, {result['epochs']} epochs, {len(temperatures)} seeds: means (least - "
        f"most). {result['test_images']} test images of each set. Temperatures: "
        f"{', '.join(f'{t:.2f}' for t in temperatures)}.",
        "",
        f"| | {' | '.join(title for title, _ in FIGURES.values())} |",
        "|---|" + "---:|" * len(FIGURES),
    ]
    for way in ways:
        cells = []
        for figure, (_, form) in FIGURES.items():
            values = [run[figure] for run in runs if run["way"] == way]
            if None in values:
                cells.append("-")
                continue
            cell = form.format(statistics.mean(values))
            if len(values) > 1:
                cell += f" ({form.format(min(values))} - {form.format(max(values))})"
            cells.append(cell)
        lines.append(f"| {way} | {' | '.join(cells)} |")
    return "\n".join(lines)


def report(result: Path, document: Path) -> None:
    """Put the table between the two marks in a file."""
    before, _, rest = document.read_text().partition(START)
    _, _, after = rest.partition(END)
    text = f"{before}{START}\n{table(json.loads(result.read_text()))}\n{END}{after}"
    replace_file(document, text.encode())


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    data = "folder of the IDX files of {}"
    parser.add_argument(
        "--fashion", default="../shared/data/fashion-mnist", help=data.format("Fashion-MNIST")
    )
    parser.add_argument("--mnist", default="../shared/data/mnist", help=data.format("MNIST"))
    parser.add_argument("--units", type=int, default=512, help="of each hidden layer")
    parser.add_argument("--p", type=float, default=0.5)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--samples", type=int, default=100, help="of Monte-Carlo")
    parser.add_argument("--seeds", type=int, default=3, help="networks, with the seeds 1, 2, ...")
    parser.add_argument("--images", type=int, help="the first ones only, for a quick look")
    parser.add_argument("--out", type=Path, help="JSON file for the result; pictures beside it")
    parser.add_argument("--report", type=Path, metavar="JSON", help="write the table")
    parser.add_argument("--document", type=Path, default=Path("docs", "reference", "results.md"))
    args = parser.parse_args(argv)
    sys.stdout.reconfigure(line_buffering=True)  # so that a log file gets its lines at once
    try:
        if args.report:
            report(args.report, args.document)
        else:
            measure(args)
    except (OSError, ValueError) as error:
        sys.exit(f"fashion_uncertainty.py: {error}")


if __name__ == "__main__":
    main()
