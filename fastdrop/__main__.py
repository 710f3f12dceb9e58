"""``python -m fastdrop``: the command line."""

import sys

from _fastdrop_command import main

sys.exit(main())
