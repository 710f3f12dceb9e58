"""What `fastdrop bench` can be told."""

from __future__ import annotations

from fastdrop import get_num_threads
from fastdrop.commands.arguments import (
    Commands,
    add_command,
    add_out,
    count,
    list_of,
    one_of,
    rate,
)
from fastdrop.commands.bench import jax, keras, kernels, torch

__all__ = ["add"]


def add(commands: Commands) -> None:
    """Add the command."""
    parser = add_command(
        commands,
        "bench",
        kernels.run,
        "measure dropout on this machine, beside the frameworks that are installed",
        "Measure fastdrop, a copy, the NumPy idiom and whichever of PyTorch, JAX and "
        "TensorFlow are installed, all in turn, each library in a process of its own: a table on "
        f"the screen, and in --out the files {kernels.TABLE}, {kernels.RESULTS} and "
        f"{kernels.PICTURE} (needs matplotlib). What was measured is kept when it is stopped.",
        ("--sizes 1Mi --p 0.5 --rounds 3 --out bench", "--torch --dtypes float32,bfloat16"),
    )
    option = parser.add_argument
    option(
        "--sizes",
        type=list_of(_elements),
        default="1Ki,16Ki,128Ki,1Mi,16Mi,64Mi",
        metavar="N",
        help="elements (%(default)s)",
    )
    option(
        "--p",
        type=list_of(rate),
        default="0.5,0.1",
        metavar="P",
        help="probabilities of dropping (%(default)s)",
    )
    option(
        "--dtypes",
        type=list_of(one_of("float16", "bfloat16", "float32", "float64")),
        default="float32",
        metavar="NAME",
        help="float16, bfloat16, float32, float64 (%(default)s)",
    )
    option(
        "--threads",
        type=list_of(count),
        default=f"1,{get_num_threads()}" if get_num_threads() > 1 else "1",
        metavar="N",
        help="threads, and CPUs that each library is held to (%(default)s)",
    )
    option(
        "--groups",
        type=list_of(one_of(*kernels.GROUPS)),
        default="dropout",
        metavar="NAME",
        help=f"what to measure: {', '.join(kernels.GROUPS)} (%(default)s)",
    )
    option(
        "--torch",
        action="store_const",
        dest="run",
        const=torch.run,
        help="measure fastdrop.torch beside torch.nn instead, forward and backward, and a training "
        f"step of a transformer; files {torch.TABLE} and {torch.RESULTS}",
    )
    option(
        "--jax",
        action="store_const",
        dest="run",
        const=jax.run,
        help="measure fastdrop.jax beside jax.random.bernoulli instead, and a training step; files "
        f"{jax.TABLE} and {jax.RESULTS}",
    )
    option(
        "--keras",
        action="store_const",
        dest="run",
        const=keras.run,
        help="measure Keras's fit without dropout, with Keras's and with fastdrop.keras's instead, "
        "on each backend that is installed, with all of --threads' CPUs; files "
        f"{keras.TABLE} and {keras.RESULTS}",
    )
    option(
        "--rounds",
        type=count,
        default=5,
        metavar="N",
        help="how often the sides take turns (%(default)s)",
    )
    add_out(parser, "; where it has one for each machine, in this machine's")


def _elements(text: str) -> int:
    unit = {"Ki": 1 << 10, "Mi": 1 << 20}.get(text[-2:], 1)
    return unit * count(text[:-2] if unit > 1 else text)
