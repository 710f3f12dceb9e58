"""NumPy's threads and ours take turns at every layer: which settings make them quarrel?

    python benchmarks/core_fight.py --data ../shared/data/mnist

Trains with `fit` under each setting, in processes that take turns, on an idle machine and beside
busy processes. docs/threads.md has the results and what follows.
"""

import argparse
import os
import signal
import statistics
import subprocess
import sys
from pathlib import Path

from training import ROOT
from training_sides import EACH, Figures, Point

from fastdrop.commands.bench.process import Peer

SETTINGS = [
    "",
    "OPENBLAS_THREAD_TIMEOUT=4",
    "FASTDROP_NUM_THREADS=1",
    "OMP_WAIT_POLICY=active",
    "OPENBLAS_NUM_THREADS=1",
]
BUSY = (0, 1, 6)  # processes that do nothing but take a core
THREADS = os.cpu_count()
NETWORKS = [Point(1024, 128, EACH), Point(256, 64, EACH)]


def measure(data, rounds, steps, untimed):
    """Return microseconds of a step in each round by (setting, network, busy)."""
    script = str(Path(__file__).with_name("training_sides.py"))
    peers = {
        setting: Peer(
            [script, "fastdrop", str(THREADS), str(data)],
            THREADS,
            dict(variable.split("=") for variable in setting.split()),
        )
        for setting in SETTINGS
    }
    others = [
        subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(max(BUSY))
    ]
    found = {}
    try:
        for network in NETWORKS:
            for turn in range(rounds):
                for busy in BUSY:
                    for number, other in enumerate(others):
                        other.send_signal(signal.SIGCONT if number < busy else signal.SIGSTOP)
                    for setting, peer in peers.items():
                        request = {"turn": turn, "steps": steps, "untimed": untimed}
                        figures = Figures(
                            *peer.ask({"side": "fastdrop", "point": network, **request})
                        )
                        us = found.setdefault((setting, network, busy), [])
                        us.append(figures.seconds * 1e6)
    finally:
        for other in others:
            other.kill()
            other.wait()
        for peer in peers.values():
            peer.close()
    return found


def table(found):
    """Format what `measure` returned as Markdown: medians, and the slowest round's."""
    lines = [
        "| environment "
        + "".join(
            f"| 784-{n.hidden}-{n.hidden}-10, batch {n.batch}, us, beside {busy} busy processes "
            for n in NETWORKS
            for busy in BUSY
        )
        + "|",
        "|---|" + "---:|" * len(BUSY) * len(NETWORKS),
    ]
    for setting in SETTINGS:
        cells = [f"`{setting}`" if setting else "as it is"]
        for network in NETWORKS:
            for busy in BUSY:
                us = found[setting, network, busy]
                cells.append(f"{statistics.median(us):.0f} (at most {max(us):.0f})")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data" / "mnist")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=30, help="timed ones in each turn")
    parser.add_argument("--untimed", type=int, default=5, help="steps before them")
    arguments = parser.parse_args()
    print(table(measure(arguments.data, arguments.rounds, arguments.steps, arguments.untimed)))


if __name__ == "__main__":
    main()
