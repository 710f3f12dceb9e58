"""python -m fastdrop.torch script.py args: run a program unchanged, with fastdrop's dropout.

Its child processes, such as those of torchrun, get FASTDROP_TORCH=1.
"""

from __future__ import annotations

import os
import runpy
import sys

USAGE = "usage: python -m fastdrop.torch script.py [args], or -m module [args]"


def main(arguments: list[str]) -> None:
    """Run a script or a module as python would.

    Parameters
    ----------
    arguments : list of str
        "script.py", or "-m" and "module", followed by the program's own arguments.

    Raises
    ------
    SystemExit
        With status 2 if there is no such program, else as the program raises it.
    """
    by_name = arguments[:1] == ["-m"]
    program = arguments[by_name : by_name + 1]
    if not program or program[0].startswith("-"):
        print(USAGE, file=sys.stderr)
        raise SystemExit(0 if program in (["-h"], ["--help"]) else 2)
    if not by_name and not os.path.exists(program[0]):
        print(f"fastdrop.torch: no such file: {program[0]!r:.150}", file=sys.stderr)
        raise SystemExit(2)

    from _fastdrop_command import end_of_beginning
    from fastdrop.torch import enable

    end_of_beginning()
    enable()
    os.environ["FASTDROP_TORCH"] = "1"
    sys.argv[:] = [*program, *arguments[by_name + 1 :]]
    if by_name:
        runpy.run_module(program[0], run_name="__main__", alter_sys=True)
    else:
        sys.path[0] = os.path.dirname(os.path.realpath(program[0]))
        runpy.run_path(program[0], run_name="__main__")


if __name__ == "__main__":
    main(sys.argv[1:])
