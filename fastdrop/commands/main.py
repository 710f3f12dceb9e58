"""The command line: its commands, and how their arguments are read."""

from __future__ import annotations

import argparse
import io
import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, TypeVar

from fastdrop import __version__, get_num_threads
from fastdrop._messages import one_line
from fastdrop.commands import info, masks, train
from fastdrop.commands.bench import jax as bench_jax
from fastdrop.commands.bench import keras as bench_keras
from fastdrop.commands.bench import kernels
from fastdrop.commands.bench import torch as bench_torch
from fastdrop.optimizers import OPTIMIZERS
from fastdrop.training import ranks

__all__ = ["main"]

N = TypeVar("N", int, float)
T = TypeVar("T")
if TYPE_CHECKING:
    Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    argv : sequence of str, optional
        Arguments; those of the process by default.

    Returns
    -------
    int
        Exit status: 0, 2 for bad input (said on stderr), 130 when interrupted.

    Raises
    ------
    SystemExit
        From argparse, with status 2 for wrong options and 0 for ``--help``; from ``bench`` when a
        signal stops it, with 128 and the signal's number.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # files' names
    arguments = _parser().parse_args(argv)
    ranks.report = lambda error, rank: _explain(arguments, error, f"rank {rank}: ")
    try:
        arguments.run(arguments)
    except (Exception, KeyboardInterrupt) as error:
        return _explain(arguments, error)
    return 0


def _explain(arguments: argparse.Namespace, error: BaseException, place: str = "") -> int:
    """Say in a line what is wrong, and return the exit status; what is no user's mistake raises."""
    name = f"fastdrop {arguments.command}"
    if isinstance(error, KeyboardInterrupt):
        print(one_line(f"{name}: interrupted{arguments.advice(arguments)}"), file=sys.stderr)
        return 130
    if isinstance(error, MemoryError):
        print(one_line(f"{name}: error: {place}out of memory: {error}"), file=sys.stderr)
    elif isinstance(error, ValueError | OSError | ImportError | ranks.RankError):
        print(one_line(f"{name}: error: {place}{error}"), file=sys.stderr)
    else:
        raise error
    return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("fastdrop", description="Dropout on a CPU.")
    parser.add_argument("--version", action="version", version=f"fastdrop {__version__}")
    parser.set_defaults(advice=lambda arguments: "")
    commands = parser.add_subparsers(required=True, metavar="command", dest="command")
    _add_train(commands)
    _add_bench(commands)
    masks.add_parser(commands)
    _add_info(commands)
    return parser


def _add_train(commands: Commands) -> None:
    parser = commands.add_parser(
        "train",
        help="train a network with dropout and without, and compare",
        description="Train the same network twice, with dropout and without, and compare: a table "
        f"on the screen, and in --out the files {train.PICTURE} (needs matplotlib), "
        f"{train.RESULTS}, {' and '.join(train.MODELS)}, which fastdrop.load_model reads.",
    )
    parser.set_defaults(run=train.run, advice=train.advice)
    add = parser.add_argument
    add(
        "--data",
        type=Path,
        metavar="PATH",
        help="a folder of MNIST's IDX files, an .npz file with x, y[, x_val, y_val], or a .csv "
        "file; bytes are divided by 255, CSV columns standardised; without a validation part a "
        "fifth of the samples becomes one (default: the embedded digits)",
    )
    add("--label", metavar="NAME", help="label column of a .csv, of words or whole numbers (label)")
    add(
        "--hidden",
        type=_list_of(_count),
        default="512,512",
        metavar="UNITS",
        help="sizes of the hidden layers (%(default)s)",
    )
    add(
        "--dropout",
        type=_probability,
        default=0.5,
        metavar="P",
        help="probability of dropping, behind every hidden layer (%(default)s)",
    )
    add("--epochs", type=_count, metavar="N", help="(100 on the embedded digits, otherwise 10)")
    add("--batch-size", type=_count, default=128, metavar="N", help="(%(default)s)")
    add("--optimizer", choices=sorted(OPTIMIZERS), default="adam", help="(%(default)s)")
    add("--lr", type=_positive, metavar="RATE", help="learning rate (the optimiser's default)")
    add(
        "--seed",
        type=_seed,
        default=0,
        metavar="N",
        help="fixes weights, masks, the order of samples and the split (%(default)s)",
    )
    add(
        "--resume",
        action="store_true",
        help=f"go on from the checkpoint in --out, {train.CHECKPOINT}, which is written after "
        "every epoch; all other settings have to be the same as before",
    )
    _add_out(parser)


def _add_bench(commands: Commands) -> None:
    parser = commands.add_parser(
        "bench",
        help="measure dropout on this machine, beside the frameworks that are installed",
        description="Measure fastdrop, a copy, the NumPy idiom and whichever of PyTorch, JAX and "
        "TensorFlow are installed, all in turn, each library in a process of its own: a table on "
        f"the screen, and in --out the files {kernels.TABLE}, {kernels.RESULTS} and "
        f"{kernels.PICTURE} (needs matplotlib). What was measured is kept when it is stopped.",
    )
    parser.set_defaults(run=kernels.run)
    add = parser.add_argument
    add(
        "--sizes",
        type=_list_of(_elements),
        default="1Ki,16Ki,128Ki,1Mi,16Mi,64Mi",
        metavar="N",
        help="elements (%(default)s)",
    )
    add(
        "--p",
        type=_list_of(_rate),
        default="0.5,0.1",
        metavar="P",
        help="probabilities of dropping (%(default)s)",
    )
    add(
        "--dtypes",
        type=_list_of(_dtype),
        default="float32",
        metavar="NAME",
        help="float16, bfloat16, float32, float64 (%(default)s)",
    )
    add(
        "--threads",
        type=_list_of(_count),
        default=f"1,{get_num_threads()}" if get_num_threads() > 1 else "1",
        metavar="N",
        help="threads, and CPUs that each library is held to (%(default)s)",
    )
    add(
        "--groups",
        type=lambda text: text.split(","),
        default="dropout",
        metavar="NAME",
        help=f"what to measure: {', '.join(kernels.GROUPS)} (%(default)s)",
    )
    add(
        "--torch",
        action="store_const",
        dest="run",
        const=bench_torch.run,
        help="measure fastdrop.torch beside torch.nn instead, forward and backward, and a training "
        f"step of a transformer; files {bench_torch.TABLE} and {bench_torch.RESULTS}",
    )
    add(
        "--jax",
        action="store_const",
        dest="run",
        const=bench_jax.run,
        help="measure fastdrop.jax beside jax.random.bernoulli instead, and a training step; files "
        f"{bench_jax.TABLE} and {bench_jax.RESULTS}",
    )
    add(
        "--keras",
        action="store_const",
        dest="run",
        const=bench_keras.run,
        help="measure Keras's fit without dropout, with Keras's and with fastdrop.keras's instead, "
        "on each backend that is installed, with all of --threads' CPUs; files "
        f"{bench_keras.TABLE} and {bench_keras.RESULTS}",
    )
    add(
        "--rounds",
        type=_count,
        default=5,
        metavar="N",
        help="how often the sides take turns (%(default)s)",
    )
    _add_out(parser, "; where it has one for each machine, in this machine's")


def _add_info(commands: Commands) -> None:
    parser = commands.add_parser(
        "info",
        help="tell what fastdrop uses on this machine",
        description="Tell what fastdrop uses on this machine and why: instruction set, threads, "
        "OpenMP, BLAS and MPI libraries, environment variables.",
    )
    parser.set_defaults(run=info.run)


def _add_out(parser: argparse.ArgumentParser, more: str = "") -> None:
    parser.add_argument(
        "--out",
        type=Path,
        default=Path(),
        metavar="DIR",
        help=f"folder for the results, made if missing (the current one){more}",
    )


def _count(text: str) -> int:
    return _number(text, int, lambda value: 1 <= value < 2**31, "a whole number in [1, 2**31)")


def _list_of(kind: Callable[[str], T]) -> Callable[[str], list[T]]:
    return lambda text: [kind(item) for item in text.split(",")]


def _elements(text: str) -> int:
    unit = {"Ki": 1 << 10, "Mi": 1 << 20}.get(text[-2:], 1)
    return unit * _count(text[:-2] if unit > 1 else text)


def _dtype(text: str) -> str:
    if text not in ("float16", "bfloat16", "float32", "float64"):
        raise argparse.ArgumentTypeError(
            f"expected float16, bfloat16, float32 or float64, got {text!r}"
        )
    return text


def _rate(text: str) -> float:
    return _number(text, float, lambda value: 0 < value < 1, "a probability between 0 and 1")


def _seed(text: str) -> int:
    return _number(text, int, lambda value: 0 <= value < 2**64, "a whole number in [0, 2**64)")


def _probability(text: str) -> float:
    return _number(text, float, lambda value: 0 <= value <= 1, "a probability in [0, 1]")


def _positive(text: str) -> float:
    return _number(text, float, lambda value: 0 < value < math.inf, "a number above 0")


def _number(text: str, kind: Callable[[str], N], valid: Callable[[N], bool], expected: str) -> N:
    try:
        value = kind(text)
        if valid(value):
            return value
    except ValueError:
        pass
    raise argparse.ArgumentTypeError(f"expected {expected}, got {text!r}")
