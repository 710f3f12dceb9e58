"""Digits with wrong labels, a problem that shows what dropout does: the data of `make demo`.

    python examples/noisy_digits.py digits.npz
    fastdrop train --data digits.npz ...

400 of the embedded digits to train on, of which every fourth has another digit's label, as happens
where labels are typed by hand; and 397 by other writers, with their right labels, to validate on. A
network that is large enough learns the wrong labels by heart, which dropout makes hard.
"""

import argparse
from pathlib import Path

import numpy as np

from fastdrop.datasets import load_digits

TRAINING, VALIDATION = 400, 397
WRONG = 0.25  # of the training labels


def main() -> None:
    """Write the data."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("out", type=Path)
    out = parser.parse_args().out
    x, y = load_digits()
    x = (x / 16).astype(np.float32)
    rng = np.random.default_rng(0)
    labels = y[:TRAINING].copy()
    wrong = rng.choice(TRAINING, int(WRONG * TRAINING), replace=False)
    labels[wrong] = (labels[wrong] + rng.integers(1, 10, len(wrong))) % 10
    out.parent.mkdir(parents=True, exist_ok=True)
    np.savez(out, x=x[:TRAINING], y=labels, x_val=x[-VALIDATION:], y_val=y[-VALIDATION:])


if __name__ == "__main__":
    main()
