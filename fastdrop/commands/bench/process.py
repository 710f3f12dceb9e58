"""Processes that measure when they are asked to: a line of JSON in, a line of JSON out.

Each library has one to itself, so that no thread pool slows another one's; one that has answered is
stopped until it is asked again, as threads that wait for work may spin for a while.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from typing import Any

__all__ = ["Peer", "serve"]

PR_SET_PDEATHSIG = 1  # linux/prctl.h


class Peer:
    """A process that runs `serve`, held to as many CPUs as it is given threads.

    Parameters
    ----------
    arguments : sequence of str
        Of the Python interpreter: what to run.
    threads : int
        Also the number of CPUs.
    environment : mapping of str to str, optional
        Variables besides those of this process.

    Attributes
    ----------
    hello : object
        What the process told first.

    Raises
    ------
    ChildProcessError
        When the process ends; with the last line of what it said.
    """

    def __init__(
        self, arguments: Sequence[str], threads: int, environment: Mapping[str, str] | None = None
    ) -> None:
        cpus = sorted(os.sched_getaffinity(0))[:threads] if hasattr(os, "sched_getaffinity") else []
        variables = {**os.environ, "OMP_NUM_THREADS": str(threads), **(environment or {})}
        # not a pipe, which nobody reads and which would fill up
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115

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
        )
        self.hello = self._answer()

    def ask(self, request: object) -> Any:
        """Send a request and wait for its answer."""
        assert self._process.stdin
        self._process.send_signal(signal.SIGCONT)
        print(json.dumps(request), file=self._process.stdin)
        return self._answer()

    def close(self) -> None:
        """Let the process end."""
        self._process.send_signal(signal.SIGCONT)
        self._process.communicate()
        self._errors.close()

    def _answer(self) -> Any:
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line:
            status = self._process.wait()
            self._errors.seek(0)
            last = self._errors.read().strip().splitlines()[-1:] or [f"status {status}, no message"]
            raise ChildProcessError(f"a side of the benchmark ended: {last[0]}")
        self._process.send_signal(signal.SIGSTOP)
        return json.loads(line)


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
