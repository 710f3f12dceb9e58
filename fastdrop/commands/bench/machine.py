"""Which machine this is: what benchmarks say of it, and its folder beside other machines'."""

from __future__ import annotations

import json
import os
import platform
import re
from pathlib import Path
from typing import Any

from fastdrop._output import make_writable, replace_file
from fastdrop.compiled import _core

__all__ = ["MACHINE", "machine", "name_of", "results_folder"]

MACHINE = "machine.json"

# vendor, family, models: how AMD's and Intel's programming references name them
_ARCHITECTURES = [
    ("AuthenticAMD", 23, range(0x30), "Zen"),
    ("AuthenticAMD", 23, range(0x30, 0x100), "Zen2"),
    ("AuthenticAMD", 25, (*range(0x10, 0x20), *range(0x60, 0x80), *range(0xA0, 0xB0)), "Zen4"),
    ("AuthenticAMD", 25, range(0x100), "Zen3"),
    ("AuthenticAMD", 26, range(0x100), "Zen5"),
    ("GenuineIntel", 6, (0x55,), "Skylake server"),
    ("GenuineIntel", 6, (0x6A, 0x6C), "Ice Lake server"),
    ("GenuineIntel", 6, (0x8F,), "Sapphire Rapids"),
    ("GenuineIntel", 6, (0xCF,), "Emerald Rapids"),
    ("GenuineIntel", 6, (0xAD, 0xAE), "Granite Rapids"),
]
# what /proc/cpuinfo calls it on x86 and on Arm
_NUMBERS = {
    "family": ("cpu family", "CPU architecture"),
    "model": ("model", "CPU part"),
    "stepping": ("stepping", "CPU revision"),
}


def machine() -> dict[str, Any]:
    """Return what a benchmark's reader has to know of this machine.

    Returns
    -------
    dict
        "cpu" (its name), and where the system tells "vendor", "family", "model" and "stepping";
        "cpus", "isa" (which fastdrop uses), "caches, KiB" by name, "system".
    """
    told = _cpuinfo()
    found: dict[str, Any] = {
        "cpu": told.get("model name") or platform.processor() or platform.machine()
    }
    if vendor := told.get("vendor_id") or told.get("CPU implementer"):
        found["vendor"] = vendor
    for field, names in _NUMBERS.items():
        for text in (told[name] for name in names if name in told):
            found[field] = int(text, 0)
    return {
        **found,
        "cpus": os.cpu_count(),
        "isa": _core.active_isa(),
        "caches, KiB": _caches(),
        "system": f"{platform.system()}, Python {platform.python_version()}",
    }


def _cpuinfo() -> dict[str, str]:
    """The first processor's lines of /proc/cpuinfo."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return {}
    lines = [line.split(":", 1) for line in text.partition("\n\n")[0].splitlines() if ":" in line]
    return {name.strip(): value.strip() for name, value in lines}


def _caches() -> dict[str, int]:
    """Sizes of the caches of the first processor, as far as the system tells."""
    sizes = {}
    for folder in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        try:
            level, kind, size = (
                (folder / name).read_text().strip() for name in ("level", "type", "size")
            )
        except OSError:
            continue
        letter = {"Data": "d", "Instruction": "i"}.get(kind, "")
        sizes[f"L{level}{letter}"] = int(size.removesuffix("K"))
    return sizes


def name_of(found: dict[str, Any]) -> str:
    """Name a machine after its processor.

    Parameters
    ----------
    found : dict
        What `machine` returned.

    Returns
    -------
    str
        Vendor, line of products where its name tells, and architecture: "amd-epyc-zen4",
        "intel-sapphire-rapids". Where the architecture is not known, the processor's name, family
        and model.

    Examples
    --------
    >>> name_of({"cpu": "AMD EPYC", "vendor": "AuthenticAMD", "family": 25, "model": 17})
    'amd-epyc-zen4'
    >>> name_of({"cpu": "Neoverse-N1", "family": 8, "model": 3340})
    'neoverse-n1-family-8-model-3340'
    """
    for vendor, family, models, architecture in _ARCHITECTURES:
        known = (found.get("vendor"), found.get("family")) == (vendor, family)
        if known and found.get("model") in models:
            line = re.match(r"AMD \w+|\w+", found["cpu"])
            name = f"{line[0] if line else vendor} {architecture}"
            break
    else:
        numbers = [f"{field} {found[field]}" for field in ("family", "model") if field in found]
        name = " ".join([found["cpu"], *numbers])
    return re.sub(r"(\((r|tm)\)|[^a-z0-9])+", "-", name.lower()).strip("-")


def results_folder(out: Path, files: tuple[str, ...] = ()) -> Path:
    """Return the folder that results belong in, made if missing.

    Parameters
    ----------
    out : Path
        What the user says.
    files : tuple of str
        Names of files that are going to be written to it.

    Returns
    -------
    Path
        `out`, but where it has folders of machines, each with a file `MACHINE`, the one of this
        machine, with such a file.

    Raises
    ------
    OSError
        If it cannot be written.
    """
    if not any(out.glob(f"*/{MACHINE}")):
        make_writable(out, files)
        return out
    found = machine()
    folder = out / name_of(found)
    make_writable(folder, (*files, MACHINE))
    replace_file(folder / MACHINE, f"{json.dumps(found, indent=1)}\n".encode())
    return folder
