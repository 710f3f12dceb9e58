"""Processes that measure when they are asked to: a line of JSON in, a line of JSON out.

Each library has one to itself, so that no thread pool slows another one's; one that has answered is
stopped until it is asked again, as threads that wait for work may spin for a while.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import TracebackType
from typing import Any

__all__ = ["Peer", "Peers", "serve"]

PR_SET_PDEATHSIG = 1  # linux/prctl.h
LIMIT = 60.0  # seconds for an answer; most take less than one


class Peer:
    """A process that runs `serve`, held to as many CPUs as it is given threads.

    Parameters
    ----------
    name : str
        Of the library.
    arguments : sequence of str
        Of the Python interpreter: what to run.
    threads : int
        Also the number of CPUs.
    environment : mapping of str to str, optional
        Variables besides those of this process.
    """

    def __init__(
        self,
        name: str,
        arguments: Sequence[str],
        threads: int,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.name = name
        cpus = sorted(os.sched_getaffinity(0))[:threads] if hasattr(os, "sched_getaffinity") else []
        variables = {**os.environ, "OMP_NUM_THREADS": str(threads), **(environment or {})}
        # not a pipe, which nobody reads and which would fill up
        self._errors = tempfile.TemporaryFile("w+", errors="replace")  # noqa: SIM115

        def limit() -> None:
            if cpus:
                os.sched_setaffinity(0, cpus)
            if sys.platform == "linux":  # one that is stopped would outlive us
                ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)

        self._process = subprocess.Popen(
            [sys.executable, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            bufsize=1,
            env=variables,
            preexec_fn=limit,
            start_new_session=True,  # Ctrl-C is for this process, which closes the others
        )
        self._started = time.monotonic()
        self._hello: Any = None

    def hello(self) -> Any:
        """Return what the process told first; see `ask`."""
        if self._hello is None:
            self._hello = self._answer(self._started + LIMIT)
        return self._hello

    def ask(self, request: object) -> Any:
        """Send a request and wait for its answer.

        Parameters
        ----------
        request : object
            What JSON can hold.

        Returns
        -------
        object

        Raises
        ------
        ChildProcessError
            When the process ends, with the last line of what it said, or does not answer.
        """
        self.hello()
        assert self._process.stdin
        self._process.send_signal(signal.SIGCONT)
        with contextlib.suppress(BrokenPipeError):  # it has ended: there will be no answer
            print(json.dumps(request), file=self._process.stdin)
        return self._answer(time.monotonic() + LIMIT)

    def close(self) -> None:
        """End the process, whatever it does; it has nothing to lose."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout, self._errors):
            with contextlib.suppress(BrokenPipeError):  # what was not sent
                pipe.close()  # type: ignore[union-attr]

    def _answer(self, deadline: float) -> Any:
        assert self._process.stdout
        wait = max(0, deadline - time.monotonic())
        if not select.select([self._process.stdout], [], [], wait)[0]:
            raise ChildProcessError(f"no answer in {LIMIT:g} s")
        line = self._process.stdout.readline()
        if not line.endswith("\n"):
            status = self._process.wait()
            self._errors.seek(0)
            last = self._errors.read().strip().splitlines()[-1:] or [f"status {status}, no message"]
            printable = "".join(filter(str.isprintable, last[0]))
            raise ChildProcessError(f"it ended: {printable:.120}")
        self._process.send_signal(signal.SIGSTOP)
        return json.loads(line)


class Peers:
    """Processes that take turns; one that fails is left out from then on, with its namesakes.

    Attributes
    ----------
    failures : dict of str to str
        Why, by name.
    """

    def __init__(self) -> None:
        self.failures: dict[str, str] = {}
        self._peers: list[Peer] = []

    def __enter__(self) -> Peers:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for peer in self._peers:
            peer.close()

    def start(
        self,
        name: str,
        arguments: Sequence[str],
        threads: int,
        environment: Mapping[str, str] | None = None,
    ) -> Peer:
        """Start a process; it may say hello later. See `Peer` for the parameters."""
        peer = Peer(name, arguments, threads, environment)
        self._peers.append(peer)
        return peer

    def hello(self, peer: Peer) -> Any:
        """Return what a process told first, or None when it has failed."""
        return self._call(peer, peer.hello)

    def ask(self, peer: Peer, request: object) -> Any:
        """Return a process's answer to a request, or None when it has failed."""
        return self._call(peer, partial(peer.ask, request))

    def _call(self, peer: Peer, call: Callable[[], Any]) -> Any:
        if peer.name in self.failures:
            return None
        try:
            return call()
        except ChildProcessError as error:
            self.failures[peer.name] = str(error)
            for other in self._peers:
                if other.name == peer.name:
                    other.close()
            return None


def serve(start: Callable[[], tuple[Any, Callable[[Any], object]]]) -> None:
    """Say hello and answer requests until there are no more.

    Parameters
    ----------
    start : callable
        Called first; returns what to say and what answers a request.
    """
    answers = os.fdopen(os.dup(1), "w", buffering=1)  # libraries chat on standard output
    os.dup2(2, 1)
    hello, answer = start()
    print(json.dumps(hello), file=answers)
    for line in sys.stdin:
        print(json.dumps(answer(json.loads(line))), file=answers)
