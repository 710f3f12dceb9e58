"""Put the results in the folders of docs/bench into README.md and docs/bench/README.md.

    make bench

README.md gets the forward results of every machine's bench.json, on all its threads. The other page
gets the description of each machine, and links to what was measured on it. The text goes between
the markers of each page.
"""

import json
import re
from pathlib import Path

from fastdrop._output import replace_file
from fastdrop.commands.bench.kernels import PICTURE, RESULTS, size_name
from fastdrop.commands.bench.machine import MACHINE

ROOT = Path(__file__).parents[1]
FOLDER = Path("docs", "bench")
START, END = "<!-- bench: made by benchmarks/readme_table.py -->", "<!-- /bench -->"
SIZES = (1 << 10, 1 << 14, 1 << 20, 1 << 24)


def speeds(folder: Path) -> str:
    """Return a picture, a table for each p (ns per element by machine and size), and versions."""
    found = {path.parent.name: json.loads(path.read_text()) for path in folder.glob(f"*/{RESULTS}")}
    cells: dict[float, dict[tuple[str, int, int], dict[str, float]]] = {}
    for machine, results in sorted(found.items()):
        threads = max(row["threads"] for row in results["results"])
        for row in results["results"]:
            plain = (row["group"], row["backward"], row["dtype"]) == ("dropout", False, "float32")
            if plain and row["threads"] == threads and row["elements"] in SIZES:
                rows = cells.setdefault(row["p"], {})
                name = (machine, threads, row["elements"])
                rows.setdefault(name, {})[row["side"]] = row["ns"]
    pictures = sorted(path.parent.name for path in folder.glob(f"*/{PICTURE}"))
    lines = [f"![ns per element on {name}]({FOLDER / name / PICTURE})" for name in pictures[-1:]]
    for p, rows in sorted(cells.items(), reverse=True):
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
            link = f"[{machine}]({FOLDER / machine})"
            lines.append(
                f"| {link} | {threads} | {size_name(elements)} | " + " | ".join(figures) + " |"
            )
    for machine, results in sorted(found.items()):
        lines += ["", f"{machine}: {', '.join(results['libraries'])}."]
        if missing := results.get("missing"):
            lines[-1] += f" Missing: {missing}."
    return "\n".join(lines)


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


def put(page: Path, middle: str) -> None:
    """Put text between the markers of a page."""
    text, count = re.subn(
        f"{re.escape(START)}.*?{re.escape(END)}",
        lambda _: f"{START}\n{middle}\n{END}",
        page.read_text(),
        flags=re.DOTALL,
    )
    if count != 1:
        raise SystemExit(f"{page}: expected one pair of markers {START} ... {END}")
    replace_file(page, text.encode())


def main() -> None:
    put(ROOT / "README.md", speeds(ROOT / FOLDER))
    put(ROOT / FOLDER / "README.md", machines(ROOT / FOLDER))


if __name__ == "__main__":
    main()
