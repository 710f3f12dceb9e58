"""What `fastdrop report` can be told."""

from __future__ import annotations

from pathlib import Path

from fastdrop.commands.arguments import Commands, add_command
from fastdrop.commands.report.command import NAME, run
from fastdrop.commands.runs.results import RESULTS

__all__ = ["add"]


def add(commands: Commands) -> None:
    """Add the command."""
    parser = add_command(
        commands,
        "report",
        run,
        "write a page that shows what dropout did in a run",
        "Write one HTML file about what fastdrop train has left in a folder: how both networks "
        "learned, whether the difference is luck, where they fail, what dropout leaves inside. It "
        f"needs no network to be read. The folder's {RESULTS}, its models and the data that it "
        "names are read again.",
        ("digits", "digits --out digits.html"),
    )
    parser.add_argument(
        "folder", type=Path, metavar="RUN", help="the folder that was fastdrop train's --out"
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help=f"({NAME} in the folder)")
    parser.add_argument(
        "--force", action="store_true", help="replace the file also where it is no report"
    )
