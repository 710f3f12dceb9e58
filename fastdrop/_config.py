"""Loads the compiled module with the settings that fit this process, and reports them."""

from __future__ import annotations

import math
import os
import re
from pathlib import Path
from typing import Any

from fastdrop._checks import check_choice
from fastdrop._messages import shown
from fastdrop._version import __version__


def loaded_libraries(names: str) -> set[str]:
    """Return the paths of the loaded libraries whose names match the regular expression `names`."""
    try:
        maps = _read("/proc/self/maps")
    except OSError:
        return set()
    return set(re.findall(rf"/.*/lib(?:{names})\b[^/\n]*", maps))


def _read(path: str | Path) -> str:
    return os.fsdecode(Path(path).read_bytes())  # file names may be in any encoding


def listed(libraries: set[str]) -> str:
    """Return the result of `loaded_libraries` as a text to read."""
    if not os.path.exists("/proc/self/maps"):
        return "unknown, as there is no /proc"
    return ", ".join(sorted(libraries)) or "none"


def _load_core() -> Any:
    """Import the compiled module.

    Where the user makes OpenMP bind its threads, libgomp also binds the thread that loads it to one
    CPU. That thread starts the threads of NumPy and our own, which may run afterwards where they
    could run before.
    """
    import numpy  # noqa: F401  (its BLAS counts the CPUs while it is loaded)

    usable = cpus()
    try:
        from fastdrop.compiled import _core
    except ImportError as error:
        if any(Path(__file__).parent.glob("compiled/_core.*.so")):
            raise
        folder = Path(__file__).parents[1]
        raise ImportError(
            f"fastdrop is not built: run 'pip install -e .' in {folder} first ({error})"
        ) from None
    finally:
        if cpus() != usable:
            os.sched_setaffinity(0, usable)
    return _core


def cgroup_cpus() -> float:
    """Return how many CPUs this process's control group may use; infinity without a quota."""
    limit = math.inf
    try:
        groups = [line.split(":", 2) for line in _read("/proc/self/cgroup").splitlines()]
    except OSError:
        return limit
    for _, controllers, path in groups:
        names: tuple[str, ...]
        if controllers == "":
            root, names = Path("/sys/fs/cgroup"), ("cpu.max",)
        elif "cpu" in controllers.split(","):
            root, names = Path("/sys/fs/cgroup/cpu"), ("cpu.cfs_quota_us", "cpu.cfs_period_us")
        else:
            continue
        own = root / path.lstrip("/")
        for folder in (own, *own.parents):  # a quota also limits the groups below
            try:
                quota, period = " ".join((folder / name).read_text() for name in names).split()
            except (OSError, ValueError):
                continue
            if quota not in ("max", "-1"):
                limit = min(limit, float(quota) / float(period))
    return limit


def cpus() -> set[int]:
    """Return the numbers of the CPUs that this process may run on."""
    try:
        return os.sched_getaffinity(0)
    except AttributeError:  # macOS
        return set(range(os.cpu_count() or 1))


def threads_of_environment() -> tuple[int, str] | None:
    """Return how many threads the environment asks for, and by which variable, or None."""
    own = os.environ.get("FASTDROP_NUM_THREADS", "").strip()
    if own:
        if not re.fullmatch(r"[1-9]\d{0,4}", own):
            raise ValueError(
                f"FASTDROP_NUM_THREADS: expected a number in [1, 99999], got {shown(own)}"
            )
        return int(own), f"FASTDROP_NUM_THREADS={own}"
    openmp = re.match(r"\s*(\d{1,9})", os.environ.get("OMP_NUM_THREADS", ""))  # may be a list
    if openmp and int(openmp[1]) > 0:
        return int(openmp[1]), f"OMP_NUM_THREADS={os.environ['OMP_NUM_THREADS']}"
    return None


def _default_threads() -> tuple[int, str]:
    """Return how many threads calls use by default, and what determines that."""
    asked = threads_of_environment()
    if asked is not None:
        return asked
    machine, usable, quota = os.cpu_count() or 1, len(cpus()), cgroup_cpus()
    if quota < usable:
        return max(1, math.ceil(quota)), f"the control group's quota of {quota:g} CPUs"
    if usable < machine:
        return usable, f"this process's affinity: {usable} of {machine} CPUs"
    return usable, f"all {usable} CPUs" if usable > 1 else "the only CPU"


def _cache_bytes() -> int:
    """Return how much of the last-level cache this process can expect: 16 MiB per CPU at most.

    A virtual machine with 2 CPUs of a large host is told the size of the host's cache, but others
    use most of that. If the system tells nothing, the size counts as 32 MiB.
    """
    sizes = [0]
    for file in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size"):
        try:
            number = re.match(r"(\d+)([KM])", file.read_text())
        except OSError:
            continue
        if number:
            sizes.append(int(number[1]) << {"K": 10, "M": 20}[number[2]])
    return min(max(sizes) or 32 << 20, (16 << 20) * len(cpus()))


def _choose_isa(core: Any) -> None:
    wanted = os.environ.get("FASTDROP_ISA", "").strip()
    if wanted and wanted not in core.available_isas():
        available = ", ".join(core.available_isas())
        raise ValueError(f"FASTDROP_ISA: expected one of {available}, got {shown(wanted)}")
    if wanted:
        core.set_isa(wanted)


_core = _load_core()
_choose_isa(_core)
_initial_threads, _threads_from = _default_threads()
_core.set_num_threads(_initial_threads)
_initial_threads = _core.get_num_threads()  # the compiled module may have a lower limit
_core.set_cache_bytes(_cache_bytes())


def _threads() -> tuple[int, str]:
    """Return how many threads large arrays get by default now, and what determines that."""
    wanted, limit = _core.get_num_threads(), _core.openmp_max_threads()
    if limit >= wanted:
        return wanted, _threads_from if wanted == _initial_threads else "set_num_threads"
    if not _core.openmp_version():
        return 1, "built without OpenMP"
    return limit, f"OpenMP allows no more (omp_get_max_threads), out of {wanted}"


def show_config(mode: str = "stdout") -> dict[str, Any] | None:
    """Print how fastdrop is built and what it uses on this machine.

    Parameters
    ----------
    mode : {"stdout", "dicts"}
        Whether to print the settings, or to return them as a dictionary.

    Returns
    -------
    dict or None
        The settings by name with "dicts", else None.

    Raises
    ------
    ValueError
        When `mode` is unknown.
    """
    check_choice("mode", mode, "stdout", "dicts")
    date = _core.openmp_version()
    openmp = f"{date // 100}-{date % 100:02}" if date else "none: built for one thread"
    threads, threads_from = _threads()
    config = {
        "version": __version__,
        "compiler": _core.compiler(),
        "isa": _core.active_isa(),
        "available isas": ", ".join(_core.available_isas()),
        "OpenMP": openmp,
        "threads": threads,
        "threads from": threads_from,
        "OpenMP libraries in this process": listed(loaded_libraries("gomp|iomp5|omp")),
    }
    if mode == "dicts":
        return config
    width = max(map(len, config))
    for name, value in config.items():
        print(f"{name:{width}}  {value}")
    return None
