"""The MNIST experiment of the dropout paper: 3 x 1024 ReLU, dropout on inputs and hidden layers.

    python examples/srivastava_mnist.py --dropout bernoulli --max-norm 2 --out result.json
    python examples/srivastava_mnist.py --report docs/results/srivastava_*.json

Srivastava et al. 2014, Dropout: a simple way to prevent neural networks from overfitting, JMLR
15:1929, tables 2 and 10, appendix B.1. The first line trains on all 60 000 images of the four IDX
files of MNIST in --data, and looks at the test images once, after the last epoch. With --validate
it tests on the last sixth of the training images instead, and trains on the others. The second line
puts results into the table of docs/reference/results.md.
"""

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from fastdrop import learning_rates
from fastdrop._output import replace_file
from fastdrop.callbacks import Callback, ModelCheckpoint
from fastdrop.datasets import load_idx
from fastdrop.layers import Dense, Dropout, GaussianDropout, Input, Layer
from fastdrop.models import Sequential, load_model
from fastdrop.optimizers import SGD

P_INPUT, P_HIDDEN = 0.2, 0.5
DROPOUTS = {"bernoulli": Dropout, "gaussian": GaussianDropout}
# By dropout and whether there is a max-norm: the row of the table, and the paper's error in %.
ROWS = {
    ("none", False): ("no dropout", "1.60 (2 x 800, logistic)"),
    ("none", True): ("max-norm", ""),
    ("bernoulli", False): ("dropout", "1.25"),
    ("bernoulli", True): ("dropout and max-norm", "1.06"),
    ("gaussian", False): ("Gaussian dropout", ""),
    ("gaussian", True): ("Gaussian dropout and max-norm", "0.95 (2 x 1024)"),
}
START, END = "<!-- made by examples/srivastava_mnist.py -->", "<!-- /made -->"


def make_model(args: argparse.Namespace, inputs: int, updates: int) -> Sequential:
    layers: list[Layer | Input] = [Input((inputs,))]
    for units, p in ((1024, P_INPUT), (1024, P_HIDDEN), (1024, P_HIDDEN), (10, P_HIDDEN)):
        bound = args.max_norm or None
        if args.dropout != "none":
            layers.append(DROPOUTS[args.dropout](p))
            # The paper's c bounds weights for unscaled inputs, which are 1 - p times ours.
            bound = bound and bound * (1 - p)
        layers.append(Dense(units, "softmax" if units == 10 else "relu", max_norm=bound))
    model = Sequential(layers, seed=args.seed)
    decay = learning_rates.CosineDecay(args.learning_rate, decay_steps=updates)
    model.compile(
        SGD(decay, momentum=args.momentum), "sparse_categorical_crossentropy", ["accuracy"]
    )
    return model


def resume(model: Sequential, checkpoint: Path) -> Sequential:
    """Return the model of the checkpoint, if it comes from a run with the same options."""
    saved = load_model(checkpoint)
    for a, b in ((saved, model), (saved.optimizer, model.optimizer)):
        if a.get_config() != b.get_config():
            raise ValueError(f"--checkpoint: {checkpoint} is of a run with other options")
    return saved


def train(args: argparse.Namespace) -> dict[str, Any]:
    """Train one network and return the result."""
    (x, y), (x_test, y_test) = load_idx(args.data)
    if args.validate:
        kept = len(x) * 5 // 6
        (x, x_test), (y, y_test) = np.split(x, [kept]), np.split(y, [kept])
    x, y = x[: args.samples], y[: args.samples]
    x, x_test = (a.reshape(len(a), -1).astype(np.float32) / 255 for a in (x, x_test))
    model = make_model(args, x.shape[1], updates=args.epochs * -(-len(x) // args.batch_size))
    callbacks: list[Callback] = []
    if args.checkpoint:
        callbacks.append(ModelCheckpoint(args.checkpoint))
        if args.checkpoint.exists():
            model = resume(model, args.checkpoint)
    start = time.perf_counter()
    model.fit(
        x,
        y,
        args.batch_size,
        args.epochs,
        verbose=2,
        callbacks=callbacks,
        initial_epoch=model.epoch,
    )
    seconds = time.perf_counter() - start
    wrong = int((model.predict(x_test, verbose=0).argmax(axis=1) != y_test).sum())
    options = ("dropout", "max_norm", "learning_rate", "momentum", "batch_size", "epochs", "seed")
    return {name: getattr(args, name) for name in options} | {
        "validate": args.validate,
        "images": len(x),
        "updates": model.optimizer.iterations,
        "minutes": round(seconds / 60, 1),
        "wrong": wrong,
        "error_percent": 100 * wrong / len(y_test),
    }


def report(results: list[dict[str, Any]], document: Path) -> None:
    """Put a table of results between the two marks in a file."""
    lines = [
        "| network | test error, % | paper, % | epochs | updates | seed | minutes | options |",
        "|---|---:|---:|---:|---:|---:|---:|---|",
    ]
    order = list(ROWS)
    kinds = [(result["dropout"], result["max_norm"] > 0) for result in results]
    for kind, result in sorted(zip(kinds, results), key=lambda pair: order.index(pair[0])):
        name, paper = ROWS[kind]
        options = "--dropout {dropout} --max-norm {max_norm:g} --epochs {epochs} --seed {seed}"
        lines.append(
            f"| {name} | {result['error_percent']:.2f} | {paper} | {result['epochs']} "
            f"| {result['updates']} | {result['seed']} | {result['minutes']:.0f} "
            f"| `{options.format(**result)}` |"
        )
    before, _, rest = document.read_text().partition(START)
    _, _, after = rest.partition(END)
    replace_file(document, "\n".join([before + START, *lines, END + after]).encode())


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="../shared/data/mnist", help="folder of the IDX files")
    parser.add_argument("--dropout", choices=["none", *DROPOUTS], default="bernoulli")
    parser.add_argument("--max-norm", type=float, default=2.0, help="the paper's c, 0 for none")
    parser.add_argument("--learning-rate", type=float, default=0.03, help="at the start")
    parser.add_argument("--momentum", type=float, default=0.95)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--epochs", type=int, default=150)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--samples", type=int, help="train on the first images only")
    parser.add_argument("--validate", action="store_true", help="leave the test images alone")
    parser.add_argument("--checkpoint", type=Path, help="saved every epoch; where it exists, go on")
    parser.add_argument("--out", type=Path, help="JSON file for the result")
    parser.add_argument("--report", type=Path, nargs="+", metavar="JSON", help="write the table")
    parser.add_argument("--document", type=Path, default=Path("docs", "reference", "results.md"))
    args = parser.parse_args(argv)
    sys.stdout.reconfigure(line_buffering=True)  # so that a log file gets its lines at once
    try:
        if args.report:
            report([json.loads(path.read_text()) for path in args.report], args.document)
            return
        result = train(args)
        print(f"{result['wrong']} images wrong, error {result['error_percent']:.2f} %")
        if args.out:
            replace_file(args.out, f"{json.dumps(result, indent=1)}\n".encode())
    except (OSError, ValueError) as error:
        sys.exit(f"srivastava_mnist.py: {error}")


if __name__ == "__main__":
    main()
