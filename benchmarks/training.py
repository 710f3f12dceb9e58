"""How fast the trainer is, against the bare products of a step and against the frameworks.

    python benchmarks/training.py --data ../shared/data/mnist --out docs/bench

One run: every library in a process of its own on all CPUs, all but one stopped, taking turns. A
turn trains some dozens of batches; the ratios are those within a round, their medians and quartiles
are told. Writes training.md and training.json.
"""

import argparse
import importlib.util
import json
import os
import statistics
from pathlib import Path

from training_sides import EACH, FOUR, LIBRARIES, ONE, Figures, Point

from fastdrop._output import make_writable, write
from fastdrop.commands.bench.kernels import machine
from fastdrop.commands.bench.process import Peer

ROOT = Path(__file__).parents[1]
TABLE, RESULTS = "training.md", "training.json"
FRAMEWORKS = {"PyTorch": ("PyTorch", "PyTorch, fused Adam"), "Keras": ("Keras",), "JAX": ("JAX",)}

# hidden units, batch, fastdrop's masks, the frameworks' masks
ROWS = [
    (1024, 128, EACH, EACH),
    (256, 64, EACH, EACH),
    (1024, 128, ONE, ONE),
    (1024, 128, ONE, EACH),
    (1024, 128, FOUR, EACH),
]


class Sides:
    """All processes, and what each of them can train."""

    def __init__(self, data, libraries, threads):
        self.peers, self.names = [], []
        script = str(Path(__file__).with_name("training_sides.py"))
        for module in libraries:
            peer = Peer([script, module, str(threads), str(data)], threads)
            self.peers.append(peer)
            self.names.append(peer.hello["name"])

    def of(self, hidden, batch):
        """Yield (process, side, point) for a network."""
        for peer in self.peers:
            for side, masks in peer.hello["sides"].items():
                for mask in masks:
                    if any((hidden, batch) == row[:2] and mask in row[2:] for row in ROWS):
                        yield peer, side, Point(hidden, batch, mask)

    def close(self):
        for peer in self.peers:
            peer.close()


def measure(data, libraries, threads, rounds, steps, untimed):
    """Return machine, libraries and every turn's figures by network, masks and side."""
    sides = Sides(data, libraries, threads)
    found = {
        "machine": machine(),
        "libraries": sides.names,
        "data": data.name if data.is_dir() else "random numbers",
        "settings": {"threads": threads, "rounds": rounds, "steps": steps, "untimed": untimed},
        "results": [],
    }
    try:
        for hidden, batch in dict.fromkeys(row[:2] for row in ROWS):
            chosen = list(sides.of(hidden, batch))
            turns = {(side, point): [] for _, side, point in chosen}
            for turn in range(rounds):
                for peer, side, point in chosen:
                    request = {"turn": turn, "steps": steps, "untimed": untimed}
                    figures = peer.ask({"side": side, "point": point, **request})
                    turns[side, point].append(Figures(*figures))
            for (side, point), figures in turns.items():
                found["results"].append(
                    {
                        **point._asdict(),
                        "side": side,
                        "us": [turn.seconds * 1e6 for turn in figures],
                        "loss": [turn.loss for turn in figures],
                        "accuracy": [turn.accuracy for turn in figures],
                    }
                )
    finally:
        sides.close()
    return found


def quartiles(values):
    if len(values) < 2:
        return values * 3
    return statistics.quantiles(values, n=4, method="inclusive")


def ratio(numerators, denominators):
    """Median and quartiles of the ratios within each round, and the median as text."""
    low, middle, high = quartiles([a / b for a, b in zip(numerators, denominators)])
    return f"{middle:.2f} ({low:.2f} - {high:.2f})"


def table(found):
    """Format what `measure` returned as Markdown."""
    us = {
        (row["hidden"], row["batch"], row["masks"], row["side"]): row["us"]
        for row in found["results"]
    }
    settings, host = found["settings"], found["machine"]
    lines = [
        f"{host['cpu']}, {host['cpus']} CPUs, {host['isa']}; {host['system']}; "
        + ", ".join(found["libraries"])
        + f". {settings['threads']} threads, data: {found['data']}, {settings['rounds']} rounds "
        f"of {settings['steps']} timed steps; medians, and quartiles of the ratios in a round.",
        "",
        "| network, batch | fastdrop's masks | us a step | times the floor "
        "| the others' masks " + "".join(f"| times {name}'s speed " for name in FRAMEWORKS) + "|",
        "|---|---|---:|---:|---|" + "---:|" * len(FRAMEWORKS),
    ]
    for hidden, batch, own, others in ROWS:
        fastdrop = us[hidden, batch, own, "fastdrop"]
        cells = [
            f"784-{hidden}-{hidden}-10, {batch}",
            own,
            f"{statistics.median(fastdrop):.0f}",
            ratio(fastdrop, us[hidden, batch, EACH, "floor"]),
            others,
        ]
        for sides in FRAMEWORKS.values():
            measured = [us[key] for side in sides if (key := (hidden, batch, others, side)) in us]
            fastest = min(measured, key=statistics.median, default=None)
            cells.append(ratio(fastest, fastdrop) if fastest else "not installed")
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", "| network, batch | side | masks | us a step | loss | accuracy |"]
    lines += ["|---|---|---|---:|---:|---:|"]
    for row in found["results"]:
        loss, accuracy = row["loss"][-1], row["accuracy"][-1]
        figures = " | " if loss is None else f"{loss:.3f} | {accuracy:.2%}"
        lines.append(
            f"| 784-{row['hidden']}-{row['hidden']}-10, {row['batch']} | {row['side']} "
            f"| {row['masks']} | {statistics.median(row['us']):.0f} | {figures} |"
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
    make_writable(arguments.out)
    libraries = [module for module in LIBRARIES if importlib.util.find_spec(module)]
    found = measure(
        arguments.data,
        libraries,
        arguments.threads,
        arguments.rounds,
        arguments.steps,
        arguments.untimed,
    )
    text = table(found)
    print(text)
    write(arguments.out / TABLE, f"{text}\n".encode())
    write(arguments.out / RESULTS, json.dumps(found, indent=1).encode())


if __name__ == "__main__":
    main()
