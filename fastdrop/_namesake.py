"""PyPI's project ``fastdrop`` is another one, a file server whose package has our package's name.

Of two packages of one name a program can import only one, and of two in one folder the later has
overwritten files of the earlier. Where our code runs all the same, it says so
(docs/how-to/install.md).
"""

import os
import sys

_REPAIR = "pip uninstall fastdrop, then pip install --force-reinstall --no-deps fastdrop-nn"


def report() -> None:
    """Log a line where the other project's package is installed, too; ours works."""
    own = os.path.dirname(__file__)
    for entry in sys.path:
        package = f"{entry or '.'}/fastdrop"
        # A file that only the other package has. One `stat` for each entry: a microsecond or two.
        if os.path.exists(f"{package}/server.py"):
            if os.path.samefile(package, own):
                line = f"PyPI's fastdrop, another project, shares files with fastdrop-nn: {_REPAIR}"
            else:
                place = ascii(package)[-80:]
                line = f"fastdrop-nn hides PyPI's fastdrop, another project, in {place}"
            import logging  # not `warnings`: what works must not fail where those are errors

            logging.getLogger("fastdrop").warning("fastdrop: %s (docs/how-to/install.md)", line)
            return


def require_ours() -> None:
    """Raise where ``fastdrop/__init__.py`` is not ours: the other one's, or gone with it."""
    if not hasattr(sys.modules["fastdrop"], "_DISTRIBUTION"):
        raise ImportError(
            "PyPI's fastdrop, another project, hides fastdrop-nn's package or has taken files from "
            f"it: {_REPAIR}"
        )
