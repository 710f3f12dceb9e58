"""Another project on PyPI, the file server ``fastdrop``, has a package of the same name as ours.

A program can import only one of two packages with the same name. If both are installed in one
folder, the later one has overwritten files of the earlier one. If our code runs nevertheless, it
reports the other one (docs/how-to/install.md).
"""

import os
import sys

_REPAIR = "pip uninstall fastdrop, then pip install --force-reinstall --no-deps fastdrop-nn"


def report() -> None:
    """Log a line if the other project's package is installed as well; ours works."""
    own = os.path.dirname(__file__)
    for entry in sys.path:
        package = f"{entry or '.'}/fastdrop"
        # A file that only the other package has. One `stat` per entry takes a microsecond or two.
        if os.path.exists(f"{package}/server.py"):
            if os.path.samefile(package, own):
                line = f"PyPI's fastdrop, another project, shares files with fastdrop-nn: {_REPAIR}"
            else:
                place = ascii(package)[-80:]
                line = f"fastdrop-nn hides PyPI's fastdrop, another project, in {place}"
            import logging  # not `warnings`: nothing may fail where warnings are errors

            logging.getLogger("fastdrop").warning("fastdrop: %s (docs/how-to/install.md)", line)
            return


def require_ours() -> None:
    """Raise ImportError if ``fastdrop/__init__.py`` belongs to the other project, or is gone."""
    if not hasattr(sys.modules["fastdrop"], "_DISTRIBUTION"):
        raise ImportError(
            "PyPI's fastdrop, another project, hides fastdrop-nn's package or has taken files from "
            f"it: {_REPAIR}"
        )
