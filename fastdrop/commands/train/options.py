"""What `fastdrop train` can be told."""

from __future__ import annotations

import argparse
from pathlib import Path

from fastdrop.commands.arguments import (
    Commands,
    add_command,
    add_out,
    count,
    list_of,
    positive,
    seed,
)
from fastdrop.commands.runs.results import MODELS, PICTURE, RESULTS
from fastdrop.commands.train.progress import CHECKPOINT
from fastdrop.commands.train.run import advice, run
from fastdrop.optimizers import OPTIMIZERS

__all__ = ["add"]


def add(commands: Commands) -> None:
    """Add the command."""
    parser = add_command(
        commands,
        "train",
        run,
        "train a network with dropout and without, and compare",
        "Train the same network without dropout and with each rate, once for each seed, and "
        "compare: a table and a conclusion on the screen, and in --out the files "
        f"{PICTURE} (needs matplotlib), {RESULTS}, {' and '.join(MODELS)}, which "
        "fastdrop.load_model reads.",
        (
            "--out digits",
            "--data table.csv --label species --dropout 0.1,0.3,0.5 --seeds 5 --out species",
        ),
    )
    parser.set_defaults(advice=advice)
    option = parser.add_argument
    option(
        "--data",
        type=Path,
        metavar="PATH",
        help="a folder of MNIST's IDX files, an .npz file with x, y[, x_val, y_val], or a .csv "
        "file; bytes are divided by 255, CSV columns standardised; without a validation part a "
        "fifth of the samples becomes one (default: the embedded digits)",
    )
    option(
        "--label", metavar="NAME", help="label column of a .csv, of words or whole numbers (label)"
    )
    option(
        "--hidden",
        type=list_of(count),
        default="512,512",
        metavar="UNITS",
        help="sizes of the hidden layers (%(default)s)",
    )
    option(
        "--dropout",
        type=_rates,
        default="0.5",
        metavar="P",
        help="probability of dropping, behind every hidden layer, or several with commas between "
        "them (%(default)s)",
    )
    option("--epochs", type=count, metavar="N", help="(100 on the embedded digits, otherwise 10)")
    option("--batch-size", type=count, default=128, metavar="N", help="(%(default)s)")
    option("--optimizer", choices=sorted(OPTIMIZERS), default="adam", help="(%(default)s)")
    option("--lr", type=positive, metavar="RATE", help="learning rate (the optimiser's default)")
    option(
        "--seed",
        type=seed,
        default=0,
        metavar="N",
        help="fixes weights, masks, the order of samples and the split (%(default)s)",
    )
    option(
        "--seeds",
        type=count,
        default=1,
        metavar="N",
        help="train with so many seeds, from --seed on, to tell what dropout does from luck; the "
        "split stays that of the first (%(default)s)",
    )
    option(
        "--resume",
        action="store_true",
        help=f"go on from the checkpoint in --out, {CHECKPOINT}, which is written after "
        "every epoch, but not more than once a second; all other settings have to be the same",
    )
    option("--force", action="store_true", help="replace what another run has left in --out")
    add_out(parser)


def _rates(text: str) -> list[float]:
    """Read rates that differ; without dropout is trained anyway."""
    rates = []
    for item in text.split(","):
        try:
            p = float(item)
        except ValueError:
            p = -1.0
        if not 0 < p <= 1:
            raise argparse.ArgumentTypeError(
                f"expected probabilities in (0, 1], got {item!r} (0 is compared with anyway)"
            )
        if p in rates:
            raise argparse.ArgumentTypeError(f"expected each rate once, got {text!r}")
        rates.append(p)
    return rates
