"""``python -m fastdrop``: the command line."""

import sys

from fastdrop.cli import command

sys.exit(command())
