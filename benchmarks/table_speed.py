"""How long does a table take from a file to an epoch, and from a file to predictions (Linux)?

    python benchmarks/table_speed.py --out docs/bench

Half of each table's columns are words, of 20 kinds; the target is a number. Training begins where
`TableModel.fit` is called, and has read, looked at and encoded the table when its first epoch
begins. An epoch is one of a network of 128-64 with dropout, its validation in it; the median of
those after the first. `fastdrop predict` is timed as a whole, Python's start in it. Memory is the
peak of a process of its own beyond what it had with its libraries loaded; beside it the file.
docs/how-to/tables.md has what it should be.
"""

import argparse
import re
import statistics
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np
from rows import add_out, keep_rows

TABLE = "table_speed.md"
TRAIN_ROWS, TRAIN_COLUMNS = 100_000, 30
PREDICT_ROWS, PREDICT_COLUMNS = (100_000, 1_000_000), 20
KINDS, WRITTEN_AT_ONCE = 20, 50_000
MIB = 2**20
HEAD = [
    "| rows | columns | file, MiB | until the first epoch, s | an epoch, s | memory, MiB "
    "| memory over the file |\n" + "|---:" * 7 + "|",
    "| rows | columns | how | file, MiB | predict, s | rows a second | memory, MiB "
    "| memory over the file |\n|---:|---:|---|" + "---:|" * 5,
]


def write_table(path, rows, columns, seed=0):
    """Write a CSV file, half of whose columns are words."""
    import pyarrow as pa
    from pyarrow import csv

    random = np.random.default_rng(seed)
    words = pa.array([f"word {kind}" for kind in range(KINDS)])
    writer = None
    for start in range(0, rows, WRITTEN_AT_ONCE):
        count = min(WRITTEN_AT_ONCE, rows - start)
        numbers = random.normal(size=(columns - columns // 2, count)).round(4)
        kinds = random.integers(KINDS, size=(columns // 2, count))
        price = numbers.sum(axis=0) + np.sin(kinds).sum(axis=0) + random.normal(0, 0.5, count)
        made = {f"number {i}": each for i, each in enumerate(numbers)}
        made |= {f"kind {i}": words.take(pa.array(each)) for i, each in enumerate(kinds)}
        block = pa.record_batch(made | {"price": price.round(3)})
        writer = writer or csv.CSVWriter(path, block.schema)
        writer.write_batch(block)
    writer.close()


def status(field):
    """A figure of this process, in bytes."""
    kib = re.search(rf"{field}:\s*(\d+) kB", Path("/proc/self/status").read_text())[1]
    return int(kib) * 1024


def warm():
    """Load all libraries, and return the memory that they take."""
    from fastdrop import TableModel

    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "small.csv"
        write_table(path, 200, 4)
        TableModel(epochs=1).fit(path, "price", verbose=0).predict(path)
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    return status("VmRSS")


def measure_training(path, epochs):
    """Return seconds until the first epoch and of one, and the peak in bytes."""
    from fastdrop import TableModel
    from fastdrop.callbacks import Callback

    times = []

    class Watch(Callback):
        def on_epoch_begin(self, epoch, logs=None):
            times.append(time.perf_counter())

        def on_train_end(self, logs=None):
            times.append(time.perf_counter())

    idle = warm()
    begin = time.perf_counter()
    model = TableModel((128, 64), epochs=epochs)
    model.fit(path, "price", verbose=0, callbacks=Watch())
    model.save(path.with_suffix(".safetensors"))
    epoch = statistics.median(np.diff(times)[1:])
    return times[0] - begin, epoch, status("VmHWM") - idle


def measure_prediction(path, model, options):
    """Return seconds of the command, and the peak in bytes of the same in a process that waits."""
    out = path.with_name("predictions.csv")
    arguments = ["predict", str(model), str(path), "--out", str(out), "--force", "--quiet"]
    begin = time.perf_counter()
    subprocess.run([sys.executable, "-m", "fastdrop", *arguments, *options], check=True)
    seconds = time.perf_counter() - begin
    code = "import sys, table_speed; table_speed.print_peak(sys.argv[1:])"
    output = subprocess.run(
        [sys.executable, "-c", code, *arguments, *options],
        cwd=Path(__file__).parent,
        stdout=subprocess.PIPE,
        check=True,
    ).stdout
    return seconds, int(output.split()[-1])


def print_peak(arguments):
    from fastdrop.commands.main import main as fastdrop

    idle = warm()
    fastdrop(arguments)
    print(status("VmHWM") - idle)


def training_row(folder, rows, columns, epochs):
    path = folder / "training.csv"
    write_table(path, rows, columns)
    until, epoch, peak = in_a_process("measure_training", path, epochs)
    size = path.stat().st_size
    return (
        f"| {rows} | {columns} | {size / MIB:.1f} | {until:.2f} | {epoch:.2f} | {peak / MIB:.0f} "
        f"| {peak / size:.2f} |"
    )


def prediction_row(folder, rows, columns, options):
    model = folder / "model.csv"
    if not model.with_suffix(".safetensors").exists():
        write_table(model, min(rows, 20_000), columns)
        in_a_process("measure_training", model, 3)
    path = folder / f"{rows}.csv"
    if not path.exists():
        write_table(path, rows, columns, seed=1)
    seconds, peak = measure_prediction(path, model.with_suffix(".safetensors"), options)
    size = path.stat().st_size
    how = " ".join(options) or "plain"
    return (
        f"| {rows} | {columns} | {how} | {size / MIB:.1f} | {seconds:.2f} | {rows / seconds:.0f} "
        f"| {peak / MIB:.0f} | {peak / size:.2f} |"
    )


def in_a_process(name, path, *arguments):
    """Call a function of this file in a new process, and return the numbers that it returns."""
    code = (
        f"import pathlib, table_speed; "
        f"print(*table_speed.{name}(pathlib.Path({str(path)!r}), *{arguments!r}))"
    )
    output = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parent,
        stdout=subprocess.PIPE,
        check=True,
        text=True,
    ).stdout
    return [float(number) for number in output.split()]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_out(parser)
    parser.add_argument("--scale", type=float, default=1, help="of the numbers of rows")
    arguments = parser.parse_args()
    rows = int(TRAIN_ROWS * arguments.scale)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        train = [(f"{rows} rows", partial(training_row, folder, rows, TRAIN_COLUMNS, 5))]
        predict = [
            (
                f"{count} rows, {options}",
                partial(
                    prediction_row, folder, int(count * arguments.scale), PREDICT_COLUMNS, options
                ),
            )
            for count in PREDICT_ROWS
            for options in ([], ["--moments"], ["--mc", "10"])
            if count == PREDICT_ROWS[0] or not options
        ]
        return keep_rows(list(zip(HEAD, (train, predict))), TABLE, arguments.out)


if __name__ == "__main__":
    sys.exit(main())
