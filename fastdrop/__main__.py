"""``python -m fastdrop``: the command line."""

import sys

from fastdrop.commands.main import main

sys.exit(main())
