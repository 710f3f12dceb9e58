"""How fast the trainer is, compared with the bare products of a step and with the frameworks.

    python benchmarks/training.py --data ../shared/data/mnist --out docs/bench

In one run, every library has a process of its own. They take turns, and all processes but one are
stopped. A turn trains some dozens of batches. The ratios are those within a round, and the table
has their medians and quartiles. This writes training.md and training.json, with what there is if it
is stopped.
"""

import argparse
import importlib.util
import json
import os
import statistics
import sys
from pathlib import Path
from typing import NamedTuple

from training_sides import EACH, FOUR, INPUTS, LIBRARIES, NONE, ONE, Figures, Point, name_of

from fastdrop.commands.bench.keep import keep
from fastdrop.commands.bench.machine import machine, results_folder
from fastdrop.commands.bench.process import Peers

ROOT = Path(__file__).parents[1]
TABLE, RESULTS = "training.md", "training.json"
# column, module, sides
FRAMEWORKS = [
    ("PyTorch", "torch", ("PyTorch", "PyTorch, fused Adam")),
    ("Keras", "keras", ("Keras",)),
    ("JAX", "jax", ("JAX",)),
    ("JAX scan", "jax", ("JAX, an epoch in one scan",)),
    ("scikit-learn", "sklearn", ("scikit-learn",)),
]
SMALL = 8  # times as many steps if one takes next to no time


class Row(NamedTuple):
    """A network, the number of threads (0: all), and whether its masks are compared."""

    widths: tuple[int, ...]
    batch: int
    threads: int
    own: str
    others: str


LARGE = (784, 1024, 1024, 10)
ROWS = [
    Row((13, 50, 1), 128, 1, EACH, EACH),
    Row((64, 64, 64, 1), 64, 1, EACH, EACH),
    Row((64, 256, 256, 1), 64, 1, EACH, EACH),
    Row((784, 256, 256, 10), 64, 0, EACH, EACH),
    Row(LARGE, 128, 0, EACH, EACH),
    Row(LARGE, 128, 0, ONE, ONE),
    Row(LARGE, 128, 0, ONE, EACH),
    Row(LARGE, 128, 0, FOUR, EACH),
]


class Turns:
    """All libraries' processes, and the figures of their turns."""

    def __init__(self, peers, data, libraries, settings):
        script = str(Path(__file__).with_name("training_sides.py"))
        self.peers, self.data, self.libraries, self.settings = peers, data, libraries, settings
        self.rows = [row._replace(threads=row.threads or settings["threads"]) for row in ROWS]
        self.networks = list(dict.fromkeys(row[:3] for row in self.rows))
        self.started = {
            threads: [
                peers.start(module, [script, module, str(threads), str(data)], threads)
                for module in libraries
            ]
            for threads in {threads for _, _, threads in self.networks}
        }
        self.names = {}
        self.figures = {}  # of each round, by network, masks and side

    def sides(self, network):
        """Yield (process, side, masks) for a network."""
        wanted = {mask for row in self.rows if row[:3] == network for mask in row[3:]} | {NONE}
        for peer in self.started[network[2]]:
            hello = self.peers.hello(peer) or {"name": None, "sides": {}}
            self.names[peer.name] = hello["name"]
            for side, masks in hello["sides"].items():
                for mask in masks:
                    if mask in wanted:
                        yield peer, side, mask

    def measure(self, network, number):
        """Let every side train. A round has the figures of all sides, or of none."""
        widths, batch, _ = network
        steps = self.settings["steps"] * (SMALL if widths[-1] == 1 else 1)
        request = {"turn": number - 1, "steps": steps, "untimed": self.settings["untimed"]}
        found = {}
        for peer, side, mask in self.sides(network):
            point = Point(widths, batch, mask)
            if figures := self.peers.ask(peer, {"side": side, "point": point, **request}):
                found[*network, mask, side] = Figures(*figures)
        for name, figures in found.items():
            self.figures.setdefault(name, []).append(figures)

    def found(self, missing):
        return {
            "machine": machine(),
            "modules": self.libraries,
            "libraries": [name for name in self.names.values() if name],
            "data": self.data.name if self.data.is_dir() else "random numbers",
            "settings": self.settings,
            "missing": missing,
            "results": [
                {
                    "widths": widths,
                    "batch": batch,
                    "threads": threads,
                    "masks": masks,
                    "side": side,
                    "us": [turn.seconds * 1e6 for turn in figures],
                    "loss": [turn.loss for turn in figures],
                    "accuracy": [turn.accuracy for turn in figures],
                }
                for (widths, batch, threads, masks, side), figures in self.figures.items()
            ],
        }

    def files(self, missing):
        if not self.figures:
            return {}
        found = self.found(missing)
        return {TABLE: table(found, self.rows), RESULTS: json.dumps(found, indent=1)}


def quartiles(values):
    if len(values) < 2:
        return values * 3
    return statistics.quantiles(values, n=4, method="inclusive")


def ratio(numerators, denominators):
    """Return median and quartiles of the ratios within each round as text, or "-" without any."""
    if not numerators or not denominators:
        return "-"
    low, middle, high = quartiles([a / b for a, b in zip(numerators, denominators)])
    return f"{middle:.2f} ({low:.2f} - {high:.2f})"


def table(found, rows):
    """Format the results as Markdown."""
    us = {
        (tuple(row["widths"]), row["batch"], row["threads"], row["masks"], row["side"]): row["us"]
        for row in found["results"]
    }
    settings, host = found["settings"], found["machine"]
    lines = [
        f"{host['cpu']}, {host['cpus']} CPUs, {host['isa']}; {host['system']}; "
        + ", ".join(found["libraries"])
        + f". Data: {found['data']} where there are {INPUTS} inputs. Turns of {settings['steps']} "
        f"timed steps, of {SMALL} times as many with one output; medians, and quartiles of the "
        "ratios in a round. The floor is the products alone; scikit-learn has no dropout.",
        "",
        "| network, batch | threads | fastdrop's masks | us a step | times the floor "
        "| the others' masks "
        + "".join(f"| times {name}'s speed " for name, _, _ in FRAMEWORKS)
        + "|",
        "|---|---:|---|---:|---:|---|" + "---:|" * len(FRAMEWORKS),
    ]
    for widths, batch, threads, own, others in rows:
        network = (widths, batch, threads)
        fastdrop, floor = us.get((*network, own, "fastdrop")), us.get((*network, EACH, "floor"))
        cells = [
            f"{name_of(widths)}, {batch}",
            str(threads),
            own,
            f"{statistics.median(fastdrop):.0f}" if fastdrop else "-",
            ratio(fastdrop, floor),
            others,
        ]
        for _, module, sides in FRAMEWORKS:
            measured = [
                us[key]
                for side in sides
                for mask in (others, NONE)
                if (key := (*network, mask, side)) in us
            ]
            fastest = min(measured, key=statistics.median, default=None)
            there = module in found["modules"]
            cells.append(ratio(fastest, fastdrop) if there else "not installed")
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", "| network, batch | threads | side | masks | us a step | loss | accuracy |"]
    lines += ["|---|---:|---|---|---:|---:|---:|"]
    for row in found["results"]:
        loss, accuracy = row["loss"][-1], row["accuracy"][-1]
        lines.append(
            f"| {name_of(row['widths'])}, {row['batch']} | {row['threads']} | {row['side']} "
            f"| {row['masks']} | {statistics.median(row['us']):.0f} "
            f"| {'' if loss is None else f'{loss:.3f}'} "
            f"| {'' if accuracy is None else f'{accuracy:.2%}'} |"
        )
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data" / "mnist")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "bench")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="and CPUs, each")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=50, help="timed ones in each turn")
    parser.add_argument("--untimed", type=int, default=10, help="steps before them")
    arguments = parser.parse_args()
    out = results_folder(arguments.out, (TABLE, RESULTS))
    libraries = [module for module in LIBRARIES if importlib.util.find_spec(module)]
    settings = {name: getattr(arguments, name) for name in ("threads", "steps", "untimed")}
    with Peers() as peers:
        turns = Turns(peers, arguments.data, libraries, settings)
        steps = [
            (f"{name_of(network[0])} (batch {network[1]})", network) for network in turns.networks
        ]
        return keep(steps, arguments.rounds, turns.measure, turns.files, out, peers.failures)


if __name__ == "__main__":
    sys.exit(main())
