"""Put what the folders of docs/bench say into the pages that show it, between markers.

    make bench

README.md and the home page get what dropout costs where it was measured beside the frameworks;
docs/bench/README.md gets all machines' forward results, what identifies the machines, and which
tables each has.
"""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from speed_picture import LINES

from fastdrop._output import replace_file
from fastdrop.commands.bench.kernels import RESULTS, size_name
from fastdrop.commands.bench.machine import MACHINE

ROOT = Path(__file__).parents[1]
FOLDER = Path("docs", "bench")
START, END = "<!-- {}: made by benchmarks/readme_table.py -->", "<!-- /{} -->"
SIZES = (1 << 10, 1 << 14, 1 << 20, 1 << 24)
TYPICAL, P = 1 << 20, 0.5  # elements and p of the short table

Cells = dict[float, dict[tuple[str, int, int], dict[str, float]]]


def found_in(folder: Path) -> dict[str, dict[str, Any]]:
    """Return each machine's results."""
    paths = sorted(folder.glob(f"*/{RESULTS}"))
    return {path.parent.name: json.loads(path.read_text()) for path in paths}


def forward(found: dict[str, dict[str, Any]]) -> Cells:
    """Return ns by p, by (machine, threads, elements) and by side: float32, on all threads."""
    cells: Cells = {}
    for machine, results in found.items():
        threads = max(row["threads"] for row in results["results"])
        for row in results["results"]:
            plain = (row["group"], row["backward"], row["dtype"]) == ("dropout", False, "float32")
            if plain and row["threads"] == threads and row["elements"] in SIZES:
                rows = cells.setdefault(row["p"], {})
                name = (machine, threads, row["elements"])
                rows.setdefault(name, {})[row["side"]] = row["ns"]
    return cells


def summary(folder: Path) -> str:
    """Return a short table: times of an element, and how many times fastdrop's they are."""
    lines = [
        f"| ns per element, {size_name(TYPICAL)} float32, p = {P:g} | fastdrop | "
        + " | ".join(name for side, name in LINES.items() if side != "fastdrop")
        + " |",
        "|---|" + "---:|" * len(LINES),
    ]
    for (machine, threads, elements), ns in forward(found_in(folder))[P].items():
        if elements == TYPICAL and ns.keys() >= LINES.keys():
            ours = ns["fastdrop"]
            others = [
                f"{ns[side]:.3g} ({times(ns[side] / ours)})" for side in LINES if side != "fastdrop"
            ]
            place = f"{machine}, {threads} thread{'s' * (threads > 1)}"
            lines.append(f"| {place} | **{ours:.3g}** | {' | '.join(others)} |")
    return "\n".join(lines)


def times(ratio: float) -> str:
    return f"{ratio:.0f} x" if ratio >= 9.5 else f"{ratio:.1f} x"


def speeds(folder: Path) -> str:
    """Return a table for each p (ns per element by machine and size), and versions."""
    found, lines = found_in(folder), []
    for p, rows in sorted(forward(found).items(), reverse=True):
        sides = list(dict.fromkeys(side for ns in rows.values() for side in ns))
        lines += [
            "",
            f"**ns per element, forward, p = {p:g}, float32**",
            "",
            "| machine | threads | elements | " + " | ".join(sides) + " |",
            "|---|---:|---:|" + "---:|" * len(sides),
        ]
        for (machine, threads, elements), ns in rows.items():
            figures = [f"{ns[side]:.3g}" if side in ns else "-" for side in sides]
            page = "bench.md" if (folder / machine / "bench.md").exists() else "README.md"
            name = f"[{machine}]({machine}/{page})"
            lines.append(
                f"| {name} | {threads} | {size_name(elements)} | " + " | ".join(figures) + " |"
            )
    for machine, results in sorted(found.items()):
        lines += ["", f"{machine}: {', '.join(results['libraries'])}."]
        if missing := results.get("missing"):
            lines[-1] += f" Missing: {missing}."
    return "\n".join(lines).strip()


def machines(folder: Path) -> str:
    """Return a table of the machines: their descriptions, and links to their results."""
    fields = ("cpu", "vendor", "family", "model", "stepping", "cpus", "isa")
    lines = [
        f"| machine | {' | '.join(fields)} | caches | results |",
        "|---|" + "---|" * len(fields) + "---|---|",
    ]
    for path in sorted(folder.glob(f"*/{MACHINE}")):
        found, name = json.loads(path.read_text()), path.parent.name
        caches = ", ".join(f"{cache} {kib:g} KiB" for cache, kib in found["caches, KiB"].items())
        pages = [f"[{page.stem}]({name}/{page.name})" for page in sorted(path.parent.glob("*.md"))]
        cells = [str(found.get(field, "-")) for field in fields]
        lines.append(f"| {name} | {' | '.join(cells)} | {caches} | {', '.join(pages)} |")
    return "\n".join(lines)


# what each page has between which markers
PAGES: dict[str, dict[str, Callable[[Path], str]]] = {
    "README.md": {"cost": summary},
    "docs/index.md": {"cost": summary},
    "docs/bench/README.md": {"machines": machines, "speeds": speeds},
}


def put(page: Path, name: str, middle: str) -> None:
    """Put text between the markers of a name in a page."""
    start, end = START.format(name), END.format(name)
    text, count = re.subn(
        f"{re.escape(start)}.*?{re.escape(end)}",
        lambda _: f"{start}\n{middle}\n{end}",
        page.read_text(),
        flags=re.DOTALL,
    )
    if count != 1:
        raise SystemExit(f"{page}: expected one pair of markers {start} ... {end}")
    replace_file(page, text.encode())


def main() -> None:
    for page, parts in PAGES.items():
        for name, make in parts.items():
            put(ROOT / page, name, make(ROOT / FOLDER))


if __name__ == "__main__":
    main()
