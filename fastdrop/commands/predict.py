"""`fastdrop predict`: what a model of a table says of other rows."""

from __future__ import annotations

import argparse
import os
import sys

from fastdrop._messages import one_line

__all__ = ["run"]


def run(arguments: argparse.Namespace) -> None:
    """Predict each row of a table, some rows at a time, and write what is predicted.

    Parameters
    ----------
    arguments : argparse.Namespace
        What the command line's parser for ``predict`` gave.

    Raises
    ------
    ValueError, OSError, ImportError
        For a model, a table or an output that do not serve; nothing is written then.
    """
    from fastdrop.tables import TableModel
    from fastdrop.tables.reading import STANDARD, source_of
    from fastdrop.tables.writing import check_output, writing

    check_output(arguments.out, arguments.force)
    model = TableModel.load(arguments.model)
    source = source_of(arguments.table)
    extra = [name for name in model.check_columns(source) if name != model.target.name]
    if extra:
        told = one_line(", ".join(extra), 120)
        print(f"{source.name}: left aside, as the model does not know them: {told}", file=sys.stderr)
    predictor = model.predictor(mc=arguments.mc, moments=arguments.moments, seed=arguments.seed)
    rows = 0
    try:
        with writing(arguments.out, predictor.schema) as write:
            for block in predictor.blocks(model.rows(source)):
                write(block)
                rows += block.num_rows
            if not rows:
                raise ValueError(f"{source.name}: expected rows below the header, got none")
    except BrokenPipeError:  # whoever read has enough
        if arguments.out == STANDARD:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return
    if arguments.out != STANDARD:
        print(f"written: {arguments.out}, {rows} rows")
