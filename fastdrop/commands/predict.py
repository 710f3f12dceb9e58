"""`fastdrop predict`: what a model of a table says of other rows."""

from __future__ import annotations

import argparse
import itertools
from pathlib import Path

from fastdrop._messages import about, one_line
from fastdrop.commands.arguments import Commands, add_command, count, seed

__all__ = ["add", "run"]

STANDARD = "-"


def add(commands: Commands) -> None:
    """Add the command."""
    parser = add_command(
        commands,
        "predict",
        run,
        "predict the rows of a table with a model that train made",
        "Read a table, predict each of its rows with a model that fastdrop train or "
        "fastdrop.TableModel made of a table, and write a table: a column prediction, of classes "
        "also their probabilities. The table needs the columns that the model was trained on, in "
        "any order. It is read and written some rows at a time, however long it is.",
        (
            "model-with-dropout.safetensors new.csv --out predictions.csv",
            "model-with-dropout.safetensors new.csv --mc 100 --out predictions.csv",
            "model-with-dropout.safetensors - < new.csv | head",
        ),
    )
    option = parser.add_argument
    option("model", type=Path, metavar="MODEL", help="a file of a model")
    option(
        "table",
        metavar="TABLE",
        help="a file of CSV, TSV (gzipped, too) or Parquet, or - for standard input",
    )
    option(
        "--out",
        default=STANDARD,
        metavar="FILE",
        help="a .csv, .tsv or .parquet file, there once it is whole (standard output, as CSV)",
    )
    option("--force", action="store_true", help="replace the file if it exists")
    ways = parser.add_mutually_exclusive_group()
    ways.add_argument(
        "--mc",
        type=count,
        metavar="N",
        help="predict with N dropout masks and tell the uncertainty: std, and the interval of 95 "
        "%% from low to high",
    )
    ways.add_argument(
        "--moments",
        action="store_true",
        help="tell the uncertainty without sampling: quicker, and roughly what --mc tells",
    )
    option("--seed", type=seed, metavar="N", help="fixes the masks of --mc (0)")


def run(arguments: argparse.Namespace) -> None:
    """Predict each row of a table, some rows at a time, and write what is predicted.

    Parameters
    ----------
    arguments : argparse.Namespace
        Of the command line.

    Raises
    ------
    ValueError, OSError, ImportError
        For a model, a table or an output that do not serve; nothing is written then.
    """
    from fastdrop.tables import TableModel
    from fastdrop.tables.reading import source_of
    from fastdrop.tables.writing import check_output, writing

    out, console = arguments.out, arguments.console
    if arguments.json and out == STANDARD:
        raise ValueError("--json: expected it with --out FILE, got standard output, which is CSV")
    if arguments.force and out == STANDARD:
        raise ValueError("--force: expected it with --out FILE, got no file to replace")
    if arguments.seed is not None and arguments.mc is None:
        raise ValueError("--seed: expected it with --mc, got no masks to fix")
    check_output(out, arguments.force)
    model = TableModel.load(arguments.model)
    source = source_of(arguments.table)
    extra = [name for name in model.check_columns(source) if name != model.target.name]
    if extra:
        names = one_line(", ".join(extra), 120)
        console.tell(about(source.name, f"left aside, as the model does not use them: {names}"))
    predictor = model.predictor(
        mc=arguments.mc, moments=arguments.moments, seed=arguments.seed or 0
    )
    blocks = predictor.blocks(model.rows(source))
    first = next(blocks, None)  # of which most faults are, before a word is written
    if first is None:
        raise ValueError(about(source.name, "expected rows below the header, got none"))
    rows = 0
    with writing(out, predictor.schema) as write:
        for block in itertools.chain([first], blocks):
            write(block)
            rows += block.num_rows
    if out != STANDARD:
        facts = {"out": out, "rows": rows, "columns": predictor.schema.names}
        console.result(f"{out}: {rows} rows predicted", facts)
