"""Draw what dropout costs on each machine whose folder in docs/bench has the frameworks' times.

    make figures

docs/figures/speed_<machine>.svg, and speed_<machine>_dark.svg for pages with a dark background.
"""

import argparse
import io
import json
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.figure import Figure

from fastdrop._output import replace_file
from fastdrop.commands.bench.kernels import RESULTS, size_name

ROOT = Path(__file__).parents[1]
# sides of the results, as the picture names them
LINES = {
    "TensorFlow": "TensorFlow",
    "JAX threefry": "JAX",
    "PyTorch": "PyTorch",
    "NumPy": "NumPy, by hand",
    "fastdrop": "fastdrop",
    "copy": "a plain copy",
}
SHADES = {"light": ("#ffffff", "#222222", "#1b6ca8"), "dark": ("#131416", "#dddddd", "#6cb6f0")}
COLORS = {"TensorFlow": "#e07b39", "JAX threefry": "#3fa796", "PyTorch": "#d6493f"}
GAP = 1.8  # least ratio of two labels' heights


def curves(results: dict[str, Any]) -> tuple[int, dict[str, dict[int, float]]]:
    """Return the number of threads, and ns by elements of each side: forward, p = 0.5, float32."""
    threads = max(row["threads"] for row in results["results"])
    found: dict[str, dict[int, float]] = {side: {} for side in LINES}
    for row in results["results"]:
        plain = (row["group"], row["backward"], row["dtype"]) == ("dropout", False, "float32")
        if plain and (row["p"], row["threads"]) == (0.5, threads) and row["side"] in LINES:
            found[row["side"]][row["elements"]] = row["ns"]
    return threads, found


def heights(ends: dict[str, float]) -> dict[str, float]:
    """Return where each line's label stands: beside its end, but apart from the one below."""
    found: dict[str, float] = {}
    least = 0.0
    for side in sorted(ends, key=ends.__getitem__):
        found[side] = max(ends[side], least)
        least = found[side] * GAP
    return found


def draw(name: str, results: dict[str, Any], shade: str) -> bytes:
    """Return an SVG file."""
    paper, ink, ours = SHADES[shade]
    threads, found = curves(results)
    figure = Figure(figsize=(6, 4.4), layout="constrained", facecolor=paper)
    axis = figure.subplots()
    axis.set_facecolor(paper)
    last = max(max(line) for line in found.values())
    labels = heights({side: line[last] for side, line in found.items()})
    for side, line in found.items():
        color = ours if side == "fastdrop" else COLORS.get(side, ink)
        style = {"linestyle": "--"} if side == "copy" else {}
        width = 3 if side == "fastdrop" else 1.6
        axis.plot(list(line), list(line.values()), color=color, linewidth=width, **style)
        weight = "bold" if side == "fastdrop" else "normal"
        place = (last * 1.5, labels[side])
        axis.text(*place, LINES[side], color=color, va="center", fontsize=11, weight=weight)
    axis.set_xscale("log", base=2)
    axis.set_yscale("log")
    sizes = sorted(found["fastdrop"])
    axis.set_xticks(sizes, [size_name(n) for n in sizes])
    axis.set_xticks([], minor=True)
    axis.set_yticks([0.1, 1, 10, 100, 1000], ["0.1", "1", "10", "100", "1000"])
    axis.set_ylim(0.06, 1200)  # the same for all machines
    axis.set_xlabel("elements of the array")
    threads_name = f"{threads} thread{'s' * (threads > 1)}"
    axis.set_title(f"{name}, {threads_name}: ns per element", loc="left", fontsize=12, color=ink)
    axis.grid(alpha=0.2, which="major")
    axis.tick_params(colors=ink, which="both")
    axis.xaxis.label.set_color(ink)
    axis.spines[["top", "right"]].set_visible(False)
    axis.spines[["bottom", "left"]].set_color(ink)
    file = io.BytesIO()
    with rc_context({"svg.hashsalt": name}):  # the same file from the same figures
        figure.savefig(file, format="svg", facecolor=paper, metadata={"Date": None})
    return file.getvalue()


def main(folder: Path, out: Path) -> None:
    for path in sorted(folder.glob(f"*/{RESULTS}")):
        name, results = path.parent.name, json.loads(path.read_text())
        if not all(curves(results)[1].values()):
            continue  # a machine without the frameworks' times
        for shade, ending in (("light", ""), ("dark", "_dark")):
            replace_file(out / f"speed_{name}{ending}.svg", draw(name, results, shade))


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__).parse_args()
    main(ROOT / "docs" / "bench", ROOT / "docs" / "figures")
