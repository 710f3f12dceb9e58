"""Where the checkout and the data that lie beside it are."""

from pathlib import Path

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"
DATA = ROOT.parent / "shared" / "data"  # not a part of the repository: tests skip without it
