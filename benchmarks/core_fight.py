"""Which settings make threads fight for cores while a network trains?

    python benchmarks/core_fight.py --data ../shared/data/mnist --out docs/bench

Each setting trains with `fit`, in processes that take turns, on an idle machine and beside busy
processes. docs/explanation/threads.md has the conclusions.
"""

import argparse
import contextlib
import os
import signal
import statistics
import subprocess
import sys
from pathlib import Path

from rows import add_out
from training import ROOT
from training_sides import CLASSES, EACH, INPUTS, Figures, Point, name_of

from fastdrop.commands.bench.keep import keep
from fastdrop.commands.bench.machine import results_folder
from fastdrop.commands.bench.process import Peers

TABLE = "core_fight.md"
SETTINGS = [
    "",
    "OPENBLAS_THREAD_TIMEOUT=4",
    "FASTDROP_NUM_THREADS=1",
    "OMP_WAIT_POLICY=active",
    "OPENBLAS_NUM_THREADS=1",
]
BUSY = (0, 1, 6)  # how many processes do nothing but occupy a core
SPIN = "import os; parent = os.getppid()\nwhile os.getppid() == parent: pass"
THREADS = os.cpu_count()
NETWORKS = [
    Point((INPUTS, 1024, 1024, CLASSES), 128, EACH),
    Point((INPUTS, 256, 256, CLASSES), 64, EACH),
]


class Turns:
    """A process for each setting, busy processes, and microseconds of a step in each turn."""

    def __init__(self, peers, data, steps, untimed):
        script = str(Path(__file__).with_name("training_sides.py"))
        self.peers, self.settings = peers, {"steps": steps, "untimed": untimed}
        self.started = {
            setting: peers.start(
                setting or "as it is",
                [script, "fastdrop", str(THREADS), str(data)],
                THREADS,
                dict(variable.split("=") for variable in setting.split()),
            )
            for setting in SETTINGS
        }
        self.others = [
            subprocess.Popen([sys.executable, "-c", SPIN], start_new_session=True)
            for _ in range(max(BUSY))
        ]
        self.us = {}  # by (setting, network, busy)

    def measure(self, point, turn):
        network, busy = point
        for number, other in enumerate(self.others):
            other.send_signal(signal.SIGCONT if number < busy else signal.SIGSTOP)
        for setting, peer in self.started.items():
            request = {"side": "fastdrop", "point": network, "turn": turn - 1, **self.settings}
            if figures := self.peers.ask(peer, request):
                us = self.us.setdefault((setting, network, busy), [])
                us.append(Figures(*figures).seconds * 1e6)

    def close(self):
        for other in self.others:
            other.kill()
            other.wait()


def measure(data, rounds, steps, untimed, out=None):
    """Print a table, write it to a folder, and return a description of what has failed."""
    title = f"Medians of {rounds} rounds of {steps} steps; in brackets the slowest round.\n\n"
    with Peers() as peers, contextlib.closing(Turns(peers, data, steps, untimed)) as turns:
        plan = [
            (f"{name_of(network.widths)} beside {busy}", (network, busy))
            for network in NETWORKS
            for busy in BUSY
        ]

        def files(missing):
            return {TABLE: title + table(turns.us)} if turns.us else {}

        return keep(plan, rounds, turns.measure, files, out, peers.failures)


def table(us):
    """Format microseconds as Markdown: the median, and that of the slowest round."""
    lines = [
        "| environment "
        + "".join(
            f"| {name_of(n.widths)}, batch {n.batch}, us, beside {busy} busy processes "
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
                turns = us.get((setting, network, busy))
                cells.append(
                    f"{statistics.median(turns):.0f} (at most {max(turns):.0f})" if turns else "-"
                )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data" / "mnist")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=30, help="timed ones in each turn")
    parser.add_argument("--untimed", type=int, default=5, help="steps before them")
    add_out(parser)
    arguments = parser.parse_args()
    out = arguments.out and results_folder(arguments.out, (TABLE,))
    return measure(arguments.data, arguments.rounds, arguments.steps, arguments.untimed, out)


if __name__ == "__main__":
    sys.exit(main())
