"""``python -m fastdrop``: the command line."""

import sys

from fastdrop.cli import main

sys.exit(main())
