"""`fastdrop report`: a page about a run that `fastdrop train` has made."""

from __future__ import annotations

import argparse
from pathlib import Path

from fastdrop._messages import about
from fastdrop._output import replace_file

__all__ = ["NAME", "check", "run", "write"]

NAME = "report.html"
HEAD = 1024  # bytes in which a report says that it is one


def run(arguments: argparse.Namespace) -> None:
    """Write the report of the run in a folder.

    Parameters
    ----------
    arguments : argparse.Namespace
        What the command line's parser for ``report`` gave.

    Raises
    ------
    ValueError, OSError
        For a folder without results, and a place where no report can be written.
    ImportError
        Without Jinja2 or Pillow.
    """
    if not arguments.folder.is_dir():
        raise FileNotFoundError(
            about(arguments.folder, "expected a folder that fastdrop train wrote")
        )
    out = arguments.out or arguments.folder / NAME
    check(out, arguments.force)
    missing = write(arguments.folder, out)
    for line in missing:
        arguments.console.tell(line)
    arguments.console.result(f"written: {out}", {"report": str(out), "missing": missing})


def check(out: Path, force: bool = False) -> None:
    """Find out now whether a report can be written: before hours of training, say.

    Raises
    ------
    ImportError
        Without Jinja2 or Pillow.
    ValueError, OSError
        When it would replace what is no report, or its folder is not there.
    """
    try:
        from fastdrop.commands.report import images, page
    except ImportError as error:
        raise ImportError(
            f"a report needs Jinja2 and Pillow: pip install 'fastdrop-nn[report]' ({error})"
        ) from None
    del images
    if str(out) == "-":
        raise ValueError("a report: expected a file to write it to, got -, standard output")
    if out.is_dir():
        raise IsADirectoryError(about(out, "expected a file for the report, got a folder"))
    if not out.parent.is_dir():
        raise FileNotFoundError(about(out.parent, "expected an existing folder for the report"))
    if out.is_file() and not force:
        with out.open("rb") as file:
            head = file.read(HEAD)
        if head and page.GENERATOR.encode() not in head:
            raise ValueError(
                about(out, "expected a report or no file, got another; --force replaces it")
            )


def write(folder: Path, out: Path) -> list[str]:
    """Write the report of the run in a folder, whole or not at all.

    Returns
    -------
    list of str
        What is missing in it and why.
    """
    from fastdrop.commands.report.composition import compose
    from fastdrop.commands.report.evidence import gather
    from fastdrop.commands.report.page import render

    evidence = gather(folder)
    replace_file(out, render(compose(evidence)))
    return evidence.missing
