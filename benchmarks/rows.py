"""Tables whose rows are each measured once, on their own."""

from pathlib import Path

from fastdrop.commands.bench.keep import keep
from fastdrop.commands.bench.machine import results_folder


def add_out(parser):
    parser.add_argument("--out", type=Path, help="folder of the table; none by default")


def keep_rows(tables, file="tables.md", out=None):
    """Measure row after row, print the tables, and write them to a folder; see `keep`.

    A table has a head of two lines of Markdown. For each row it has the text that names it if it is
    missing, and a function that returns it.
    """
    done = [[] for _ in tables]
    steps = [
        (name, (rows, measure))
        for rows, (_, measured) in zip(done, tables)
        for name, measure in measured
    ]

    def files(missing):
        texts = ["\n".join([head, *rows]) for rows, (head, _) in zip(done, tables) if rows]
        return {file: "\n\n".join(texts)} if texts else {}

    def measure(step, number):
        rows, row = step
        rows.append(row())

    return keep(steps, 1, measure, files, out and results_folder(out, (file,)))
