"""Put the forward results of docs/bench/bench.json into README.md, between its two markers.

make bench
"""

import json
import re
from pathlib import Path

from fastdrop._output import replace_file
from fastdrop.commands.bench.kernels import PICTURE, RESULTS, table

ROOT = Path(__file__).parents[1]
FOLDER = Path("docs", "bench")
START, END = "<!-- bench: made by benchmarks/readme_table.py -->", "<!-- /bench -->"


def main() -> None:
    found = json.loads((ROOT / FOLDER / RESULTS).read_text())
    threads = max(row["threads"] for row in found["results"])
    found["results"] = [
        row
        for row in found["results"]
        if not row["backward"] and row["threads"] == threads and row["dtype"] == "float32"
    ]
    readme = ROOT / "README.md"
    text = readme.read_text()
    middle = f"{START}\n![ns per element]({FOLDER / PICTURE})\n\n{table(found)}\n{END}"
    new, count = re.subn(
        f"{re.escape(START)}.*?{re.escape(END)}", lambda _: middle, text, flags=re.S
    )
    if count != 1:
        raise SystemExit(f"README.md: expected one pair of markers {START} ... {END}")
    replace_file(readme, new.encode())


if __name__ == "__main__":
    main()
