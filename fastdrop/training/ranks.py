"""Training by several processes at once, with mpi4py. Only this file and sums.py use MPI.

Every process, called a rank, has the whole model and computes its rows of each batch::

    batch of 8 rows    0 1 2 | 3 4 5 | 6 7
    rank                 0   |   1   |  2

A mask is a function of a row's number, so ranks draw the same bits as a single process would. The
sum of the ranks' gradients is the gradient of the batch. An optimiser that gets the same sum on
every rank leaves the same weights on every rank.

The code that makes the communicator imports mpi4py. This file imports it only if it is loaded
already, or if the command line finds that an MPI launcher has started it (`world`).
"""

from __future__ import annotations

import faulthandler
import fcntl
import os
import signal
import stat
import sys
import termios
import threading
import time
import traceback
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from itertools import count
from typing import Any, NoReturn, TypeVar

import numpy as np
from tqdm import tqdm

from fastdrop import _config
from fastdrop._messages import one_line, shown
from fastdrop._serialization import Configurable, serialize
from fastdrop._version import __version__
from fastdrop.compiled._core import get_num_threads, set_num_threads
from fastdrop.layers import Array
from fastdrop.training.batches import Share
from fastdrop.training.network import Network

__all__ = [
    "ALONE",
    "RankError",
    "Ranks",
    "agreed",
    "facts_of",
    "facts_of_model",
    "launched",
    "process",
    "world",
]

_NOTHING = nullcontext()  # any number of blocks may enter it at once

T = TypeVar("T")
E = TypeVar("E", bound=Exception)

PATIENCE = 10  # seconds in which a rank that fails has to report it and to end its callbacks

# Variables in which launchers tell their processes about their number. The first that is set
# counts, which is the nearest launcher's: mpiexec in a Slurm allocation may start fewer processes
# than the allocation has tasks, and srun may have set PMI_SIZE for Open MPI's mpiexec.
LAUNCHERS = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "SLURM_NTASKS")
BLAS_VARIABLES = (
    "BLIS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
)
INSTALL = (
    "install them with pip install 'fastdrop-nn[mpi]' mpich, or mpi4py with your site's MPI "
    "(docs/how-to/mpi.md)"
)


class RankError(RuntimeError):
    """An error on another rank, with that rank's message."""


def _print_traceback(error: BaseException, rank: int) -> int:
    traceback.print_exception(error)
    print(f"rank {rank} has failed, and ends all ranks", file=sys.stderr)
    if isinstance(error, KeyboardInterrupt):
        return 128 + signal.SIGINT
    status = error.code if isinstance(error, SystemExit) else 1
    return status if isinstance(status, int) and status & 255 else 1


# Prints the error of a rank that fails alone, and returns the status with which the rank then ends
# all ranks. The command line replaces this function by its own.
report: Callable[[BaseException, int], int] = _print_traceback


@dataclass
class _Process:
    """What is true of this process with any communicator."""

    cpus_divided: bool = False
    meetings: int = 0  # with other ranks
    rank_0_only: bool = False  # whether this is a callback that the other ranks do not call


process = _Process()


class Ranks:
    """The processes that train one model together.

    Parameters
    ----------
    comm : mpi4py.MPI.Intracomm, optional
        The communicator of the processes. Without it this process is alone, and all of the methods
        do next to nothing.

    Attributes
    ----------
    rank, size : int
        The number of this process, from 0, and the number of processes.
    share : Share
        The rows of every batch that belong to this rank.

    Raises
    ------
    TypeError
        When `comm` is not a communicator of mpi4py.
    ValueError
        When MPI and the launcher disagree about the number of processes.
    """

    def __init__(self, comm: Any = None) -> None:
        self._comm = comm
        self._mpi: Any = sys.modules.get("mpi4py.MPI")
        self.rank, self.size = 0, 1
        if comm is not None:
            if self._mpi is None or not isinstance(comm, self._mpi.Intracomm) or not comm:
                raise TypeError(
                    "comm: expected a communicator of mpi4py, such as mpi4py.MPI.COMM_WORLD, "
                    f"got {shown(comm)} of {type(comm).__module__}"
                )
            _check_world_size(self._mpi.COMM_WORLD.Get_size())
            self.rank, self.size = comm.Get_rank(), comm.Get_size()
        self.share = Share(self.rank, self.size)
        self._flags = np.zeros(2, np.bool_)
        self._digests = np.zeros(self.size, np.int64)
        self._noted: BaseException | None = None  # the last error, and whether all ranks have it
        self._shared = self.size == 1
        self._status = 1  # the status to end with

    @property
    def alone(self) -> bool:
        """Whether this process was given no communicator."""
        return self._comm is None

    def broadcast(self, value: T) -> T:
        """Return the value that rank 0 has, which must be one that can be pickled."""
        return value if self.size == 1 else self._comm.bcast(value)

    def broadcast_flags(self, *flags: bool) -> tuple[bool, ...]:
        """Return rank 0's flags, at most two: like `broadcast`, but in half the time, 1 us."""
        if self.size == 1:
            return flags
        self._flags[: len(flags)] = flags
        self._comm.Bcast(self._flags)
        process.meetings += 1
        return tuple(self._flags[: len(flags)].tolist())

    def gather(self, value: T) -> list[T]:
        """Return all ranks' values, which can be pickled, on rank 0, and [] on the others."""
        return [value] if self.size == 1 else self._comm.gather(value) or []

    def sum(self, array: Array) -> Array:
        """Make `array` the sum of all ranks' arrays, and return it."""
        if self._comm is not None:
            self._comm.Allreduce(self._mpi.IN_PLACE, array)
        return array

    def together(self, place: str) -> AbstractContextManager[None]:
        """Raise an error in this block on all ranks, as a `RankError` on the others."""
        return self._together(place) if self.size > 1 else _NOTHING

    @contextmanager
    def _together(self, place: str) -> Iterator[None]:
        error = None
        try:
            yield
        except Exception as raised:
            error = raised
        self._agree(place, {}, error)

    def check_same(self, place: str, facts: Mapping[str, Any]) -> None:
        """Refuse facts, on all ranks, if they are not the same on all of them.

        Parameters
        ----------
        place : str
            Where in the program this is.
        facts : mapping
            What must be the same.

        Raises
        ------
        ValueError
            When facts differ. The message names the first that differs, and a rank.
        """
        if self.size > 1:
            self._agree(place, dict(_leaves("", facts)))

    def same_batches(
        self, batches: Iterator[T], facts: Callable[[], Mapping[str, Any]], title: str
    ) -> Iterator[T]:
        """Yield the batches of an epoch, each as soon as all ranks are known to have the same.

        Parameters
        ----------
        batches : iterator
            The batches. It raises ValueError if this rank's data are wrong, which all ranks then
            learn.
        facts : callable
            Returns what ranks must have in common about the last batch: numbers, texts, tuples.
        title : str
            The name of the epoch, for messages.

        Yields
        ------
        object
            A batch.

        Raises
        ------
        RankError, ValueError
            On all ranks, when one rank has other data than the others, or no more.
        """
        for number in count(1):
            own: Mapping[str, Any] = {}
            batch, error = None, None
            try:
                batch = next(batches, None)
                own = {"samples": "no batch"} if batch is None else facts()
            except ValueError as raised:
                error = raised
            place = f"batch {number} of {title}"
            self._agree(place, own, error, f" of {place}", "; all ranks need the same data")
            if batch is None:
                return
            yield batch

    def share_weights(self, place: str, arrays: Iterable[Array]) -> None:
        """Copy rank 0's arrays to the others where they differ; all ranks have the same shapes."""
        arrays = list(arrays)
        if self.size > 1 and self._meet(place, _crc32(arrays)):
            for array in arrays:
                self._comm.Bcast(array)

    def _agree(
        self,
        place: str,
        facts: Mapping[str, Any],
        error: Exception | None = None,
        what: str = "",
        advice: str = "",
    ) -> None:
        """Raise an error on all ranks if one of them has an error, or if facts differ."""
        if error is not None:
            facts = {"error": f"{error}" or type(error).__name__}
        told = self._meet(place, facts) or []
        for rank, others in enumerate(told):
            if error is None and "error" in others:
                error = RankError(one_line(f"rank {rank}: {others['error']}"))
        if error is not None:
            raise agreed(error)
        first, *rest = (dict(_leaves("", facts)) for facts in told or [{}])
        for rank, own in enumerate(rest, 1):
            for name in [*first, *own]:
                if first.get(name) != own.get(name):
                    expected, got = (one_line(facts.get(name), 30) for facts in (first, own))
                    message = (
                        f"{one_line(name, 60)}{what}: expected the same on every rank, "
                        f"got {expected} on rank 0 and {got} on rank {rank}{advice}"
                    )
                    raise agreed(ValueError(one_line(message)))

    def _meet(self, place: str, facts: T) -> list[T] | None:
        """Return all ranks' facts if they are not the same on all ranks, else None.

        Ranks wait for each other here, for any purpose, before anything that depends on the place.
        So a rank that has gone another way is found out, and waits for nobody.

        Raises
        ------
        ValueError
            On all ranks, when they are at different places.
        """
        self._digests[self.rank] = zlib.crc32(f"{place}: {facts}".encode(errors="replace"))
        self._comm.Allgather(self._mpi.IN_PLACE, self._digests)
        process.meetings += 1
        if len(set(self._digests.tolist())) == 1:
            return None
        told = self._comm.allgather((place, facts))
        for rank, (other, _) in enumerate(told):
            if other != told[0][0]:
                raise agreed(
                    ValueError(
                        "comm: expected all ranks at the same place, "
                        f"got rank 0 at {told[0][0]} and rank {rank} at {other}"
                    )
                )
        return [facts for _, facts in told]

    def ending_together(self, name: str = "a block") -> AbstractContextManager[None]:
        """Let no rank leave this block alone: an error on one rank ends all of them at once.

        The others may be waiting for this rank's part of a sum, where they cannot be told. An error
        that all of them raise, see `agreed`, is raised as usual, and so is every error of a process
        that is alone.
        """
        return _NOTHING if self.alone else self._ending_together(name)

    @contextmanager
    def _ending_together(self, name: str) -> Iterator[None]:
        try:
            if process.rank_0_only and self.size > 1:
                raise ValueError(
                    f"comm: expected {name} on all ranks, got it in a callback that only rank 0 "
                    "calls; every_rank = True lets all of them call it"
                )
            divided = process.cpus_divided
            if self._meet(f"the start of {name}", divided) or not divided:
                self._divide_cpus()
            yield
            self._meet(f"the end of {name}", None)
        except BaseException as error:
            try:
                self.note(error)
            finally:
                if not self._shared:
                    self._end()
            raise

    def note(self, error: BaseException) -> None:
        """Take note of an error that will leave `ending_together`.

        An error that not all ranks have is reported now. Then callbacks may end as usual, but not
        take for ever, because they may wait for another rank.
        """
        if self.size == 1 or error is self._noted:
            return
        # An error that a callback catches, and raises again after a meeting, is no longer shared.
        shared = getattr(error, "on_all_ranks", None) == process.meetings
        self._shared = shared and (self._noted is None or self._shared)
        self._noted = error
        if self._shared:
            return
        try:
            with suppress(OSError, RuntimeError, ValueError):  # no such file, or no more threads
                # The last resort, if not even the timer comes to its end.
                faulthandler.dump_traceback_later(PATIENCE + 5, exit=True, file=2)
                timer = threading.Timer(PATIENCE, self._end)
                timer.daemon = True
                timer.start()
            with suppress(ValueError):  # not in the main thread
                signal.signal(signal.SIGINT, signal.SIG_IGN)
            if isinstance(error, KeyboardInterrupt) and self.rank > 0:
                time.sleep(1)  # all ranks are interrupted, and rank 0 reports it
            with tqdm.external_write_mode():  # on a line of its own, without a progress bar
                self._status = report(error, self.rank)
        except BaseException:
            self._status = _print_traceback(error, self.rank)

    def _end(self) -> NoReturn:
        """End all ranks, and do not return, although `MPI_Abort` may, before the launcher acts."""
        try:
            for stream in filter(None, (sys.stdout, sys.stderr)):
                with suppress(OSError, ValueError):  # closed
                    stream.flush()
            _wait_until_read()
        finally:
            try:
                self._comm.Abort(self._status)
            finally:
                os._exit(self._status)

    def _divide_cpus(self) -> None:
        """Leave this rank its share of the node's CPUs, for our threads and for those of BLAS."""
        with self.together("the libraries"):
            try:
                from threadpoolctl import ThreadpoolController
            except ImportError as error:
                raise ImportError(
                    "comm: expected threadpoolctl beside mpi4py: pip install 'fastdrop-nn[mpi]' "
                    f"({error})"
                ) from None
        process.cpus_divided = True
        cpus = _config.cpus()
        node = self._comm.Split_type(self._mpi.COMM_TYPE_SHARED)
        users = node.allgather(cpus)
        node.Free()
        threads = fair_share(cpus, users, _config.cgroup_cpus())
        if _config.threads_of_environment() is None:
            set_num_threads(min(threads, get_num_threads()))
        if not any(name in os.environ for name in BLAS_VARIABLES):
            for library in ThreadpoolController().select(user_api="blas").lib_controllers:
                library.set_num_threads(min(threads, library.get_num_threads()))


ALONE = Ranks()


def fair_share(cpus: set[int], users: Sequence[set[int]], quota: float) -> int:
    """Return how many threads a rank gets that may run on `cpus`.

    A CPU is divided among the ranks that may run on it. If a launcher has bound each rank to CPUs
    of its own, nothing is divided.

    Parameters
    ----------
    cpus : set of int
        The CPUs that the rank may run on.
    users : sequence of set of int
        The same for each rank of the node, with this rank.
    quota : float
        How many CPUs all of them together may use at a time.

    Returns
    -------
    int
        The number of threads, at least 1.
    """
    share = sum(1 / sum(cpu in others for others in users) for cpu in cpus)
    return max(1, int(min(share, quota / len(users)) + 1e-6))


def _wait_until_read() -> None:
    """Wait, at most a second, until the launcher has read what this process has printed.

    MPICH's launcher passes nothing on once it is told to end all ranks. Without this function, the
    message of a failure was lost in one of five runs.
    """
    end = time.monotonic() + 1
    for stream in (1, 2):
        with suppress(OSError):  # closed
            # Only a pipe tells how much of it is unread. A terminal or a file loses nothing.
            while stat.S_ISFIFO(os.fstat(stream).st_mode) and time.monotonic() < end:
                if not any(fcntl.ioctl(stream, termios.FIONREAD, bytes(4))):
                    break
                time.sleep(0.001)


def agreed(error: E) -> E:
    """Return an error that every rank raises at this point, so that none has to end the others."""
    error.on_all_ranks = process.meetings  # type: ignore[attr-defined]
    return error


def facts_of(network: Network) -> dict[str, Any]:
    """Return what ranks that train this network must have in common, see `Ranks.check_same`."""
    assert network.loss is not None
    assert network.optimizer is not None
    state = [array for arrays in network.optimizer.state.values() for array in arrays.values()]
    return facts_of_model(network) | {
        "loss": serialize(network.loss),
        "metrics": [serialize(metric) for metric in (*network.metrics, *network.weighted_metrics)],
        "optimizer.iterations": network.optimizer.iterations,
        "optimizer's checksum": _crc32(state),
    }


def facts_of_model(network: Network) -> dict[str, Any]:
    """Return those of `facts_of` that do not depend on how the network is trained."""
    return {
        "fastdrop's version": __version__,
        "model": network.get_config(),
        "epoch": network.epoch,
        "step": network.step,
        "weights' checksum": _crc32(network.weights().values()),
    }


def world() -> Any:
    """Return the communicator of all processes that were started together.

    Returns
    -------
    mpi4py.MPI.Intracomm
        MPI's COMM_WORLD.

    Raises
    ------
    ImportError
        When there is no mpi4py or no MPI. The message tells how to install them.
    """
    try:
        from mpi4py import MPI
    except (ImportError, RuntimeError) as error:  # RuntimeError: no library of MPI
        reason = str(error).partition("\n")[0]
        raise ImportError(
            f"training over MPI needs mpi4py and an MPI ({reason}); {INSTALL}"
        ) from None
    return MPI.COMM_WORLD


def launched() -> bool:
    """Tell whether a launcher has started this process as one of several."""
    # SLURM_NTASKS exists in a whole allocation, even for what srun has not started.
    names = (*LAUNCHERS[:2], "SLURM_STEP_NUM_TASKS")
    return any(_number(os.environ.get(name)) > 1 for name in names)


def _check_world_size(size: int) -> None:
    for name in LAUNCHERS:
        if name in os.environ:
            if _number(os.environ[name]) not in (0, size):
                raise ValueError(
                    f"comm: expected a world of {os.environ[name]} processes, as {name} says, got "
                    f"one of {size}: launcher and MPI library do not go together (srun --mpi=pmi2 "
                    "starts MPICH, srun --mpi=pmix Open MPI, mpiexec its own library), or a "
                    "launcher is missing"
                )
            return


def _number(text: str | None) -> int:
    return int(text) if text and text.isdecimal() else 0


def _crc32(arrays: Iterable[Array]) -> int:
    checksum = 0
    for array in arrays:
        checksum = zlib.crc32(np.ascontiguousarray(array).data, checksum)
    return checksum


def _leaves(name: str, value: Any) -> Iterator[tuple[str, str]]:
    """Yield the numbers, texts, ... in nested mappings and lists, each with the path to it."""
    items: Iterable[tuple[Any, Any]]
    if isinstance(value, Configurable):  # its own get_config refuses functions
        value = {"class_name": type(value).__name__, **Configurable.get_config(value)}
    if isinstance(value, Mapping):
        items = value.items()
    elif isinstance(value, list | tuple):
        items = enumerate(value)
    else:
        if not isinstance(value, str | int | float | None):
            # repr may contain an address, which differs from process to process
            value = getattr(value, "__qualname__", type(value).__qualname__)
        yield name, str(value)
        return
    for key, item in items:
        yield from _leaves(f"{name}.{key}" if name else str(key), item)
