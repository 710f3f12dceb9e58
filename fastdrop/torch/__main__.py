"""python -m fastdrop.torch script.py args: run a program unchanged, with fastdrop's dropout.

Its child processes, such as those of torchrun, get FASTDROP_TORCH=1.
"""

from __future__ import annotations

import importlib.util
import io
import os
import pkgutil
import runpy
import sys
import types

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
    path = os.path.abspath(program[0])  # as programs find it in __file__, wherever they go
    if not (_is_module(program[0]) if by_name else os.path.exists(path)):
        what = "module" if by_name else "file"
        print(f"fastdrop.torch: no such {what}: {program[0]!r:.150}", file=sys.stderr)
        raise SystemExit(2)

    from _fastdrop_command import end_of_beginning
    from fastdrop.torch import enable

    end_of_beginning()
    enable()
    os.environ["FASTDROP_TORCH"] = "1"
    sys.argv[:] = [*program, *arguments[by_name + 1 :]]
    if by_name:
        runpy.run_module(program[0], run_name="__main__", alter_sys=True)
        return
    if not getattr(sys.flags, "safe_path", False):  # new in Python 3.11
        sys.path[0] = os.path.dirname(os.path.realpath(path))
    _run_file(path)


def _run_file(path: str) -> None:
    """Run a file, or a folder or archive with a __main__.py, as python would."""
    if pkgutil.get_importer(path) or path.endswith(".pyc"):
        runpy.run_path(path, run_name="__main__")
        return
    # runpy would change sys.argv[0], and put another __main__ back while threads still run
    module = sys.modules["__main__"] = types.ModuleType("__main__")
    module.__file__ = path
    with io.open_code(path) as file:
        code = compile(file.read(), path, "exec", dont_inherit=True)
    exec(code, vars(module))


def _is_module(name: str) -> bool:
    """Tell whether there is a module to run, which may be a package with a __main__."""
    try:
        spec = importlib.util.find_spec(name)
        if spec and spec.submodule_search_locations is not None:
            spec = importlib.util.find_spec(f"{name}.__main__")
    except (ModuleNotFoundError, ValueError) as error:
        missing = getattr(error, "name", None) or name  # ValueError: of no name at all
        if not f"{name}.".startswith(f"{missing}."):
            raise  # from an import in a package above
        return False
    return spec is not None


if __name__ == "__main__":
    main(sys.argv[1:])
