"""What `fastdrop train` can be told."""

from __future__ import annotations

import argparse
from pathlib import Path

from fastdrop._messages import shown
from fastdrop.commands.arguments import (
    Commands,
    Parser,
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
        "fastdrop.load_model reads; those of a table are for fastdrop predict.",
        (
            "--out digits",
            "table.csv --target price --ignore name --out prices",
            "table.csv --target species --dropout 0.1,0.3,0.5 --seeds 5 --out species",
        ),
    )
    parser.set_defaults(advice=advice)
    option = parser.add_argument
    option(
        "table",
        type=Path,
        nargs="?",
        metavar="TABLE",
        help="what to train on, as --data; mostly a table",
    )
    option(
        "--data",
        type=Path,
        metavar="PATH",
        help="a folder of MNIST's IDX files, an .npz file with x, y[, x_val, y_val], or a table: "
        "CSV, TSV (gzipped, too), Parquet, or - for CSV on standard input; bytes are divided by "
        "255; without a validation part a fifth of the samples becomes one (default: the embedded "
        "digits)",
    )
    _add_roles(parser)
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
    before = parser.add_mutually_exclusive_group().add_argument
    before(
        "--resume",
        action="store_true",
        help=f"go on from the checkpoint in --out, {CHECKPOINT}, which is written after "
        "every epoch, but not more than once a second; all other settings have to be the same",
    )
    before("--force", action="store_true", help="replace what another run has left in --out")
    option(
        "--report",
        type=Path,
        metavar="FILE",
        help="write a page on the results, too, as fastdrop report does",
    )
    add_out(parser)


def _add_roles(parser: Parser) -> None:
    """Add what can be said of a table's columns."""
    option = parser.add_argument_group("of tables").add_argument
    option(
        "--target",
        "--label",
        dest="label",
        metavar="NAME",
        help="the column to predict: words and few whole numbers are classes, other numbers a "
        "regression's (label)",
    )
    option("--task", choices=("classification", "regression"), help="which of them it is")
    option("--weight", metavar="NAME", help="a column of factors of the rows' losses")
    option(
        "--ignore",
        action="extend",
        type=lambda text: text.split(","),
        metavar="NAMES",
        help="columns to leave out, with commas between them",
    )
    option(
        "--group",
        metavar="NAME",
        help="a column: rows with the same in it are all trained on or all validated on",
    )
    option("--time", metavar="NAME", help="a column: the latest rows by it are validated on")
    option(
        "--missing",
        choices=("fill", "error"),
        help="whether what is missing is filled, with a flag beside it, or refused (fill)",
    )


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
                f"expected probabilities in (0, 1], got {shown(item)} (0 is compared with anyway)"
            )
        if p in rates:
            raise argparse.ArgumentTypeError(f"expected each rate once, got {shown(text)}")
        rates.append(p)
    return rates
