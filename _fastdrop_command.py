"""How the command line starts, as ``fastdrop`` and as ``python -m fastdrop``.

It lies beside the package: a module in it would come after all that the package imports, NumPy
first. Until all is imported, Ctrl-C and what a user can mend end in one line from here.
"""

import os
import signal
import sys

_excepthook = sys.excepthook  # Python's, or a site's own


def begin() -> None:
    """End in one line on Ctrl-C and on what a user can mend, until `end_of_beginning`."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # not ignored, as by nohup
        signal.signal(signal.SIGINT, _interrupted)
    sys.excepthook = _explain


def end_of_beginning() -> None:
    """Leave both to who takes over: the command line, or a user's program."""
    sys.excepthook = _excepthook
    if signal.getsignal(signal.SIGINT) is _interrupted:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def main() -> int:
    """Import the command line and run it.

    Returns
    -------
    int
        Exit status: 0, or 2 for bad input (said on stderr). Ctrl-C ends the process with 130.
    """
    begin()
    from fastdrop.commands import main as command_line

    status = 130
    try:
        end_of_beginning()
        status = command_line.main()
    except KeyboardInterrupt:  # before or after what a command does
        _end(130, "fastdrop: interrupted")
    if status == 130:  # maybe in an import: Python's end is no place for half a module
        _end(status)
    return status


def _end(status: int, line: str | None = None) -> None:
    """Leave at once: nothing is to be undone, and no exception to be caught on its way."""
    try:
        if line is not None:
            print(line, file=sys.stderr, flush=True)
        if sys.stdout is not None:
            sys.stdout.flush()
    finally:
        os._exit(status)


def _interrupted(signum: int, frame: object) -> None:
    _end(130, "fastdrop: interrupted")


def _explain(kind: type[BaseException], error: BaseException, traceback: object) -> None:
    if not isinstance(error, ImportError | ValueError):
        _excepthook(kind, error, error.__traceback__)
        return
    package = sys.modules.get("fastdrop")
    if package and not hasattr(package, "_DISTRIBUTION"):
        place = ascii(os.path.dirname(package.__file__ or ""))[-50:]
        error = ImportError(
            f"Python imports another project's fastdrop, {place}: pip uninstall fastdrop, then "
            "pip install --force-reinstall --no-deps fastdrop-nn"
        )
    _end(2, f"fastdrop: error: {error}")
