"""Sides that take turns in one process: ratios within a run are results, single times are not."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TypeAlias

__all__ = ["Times", "take_turns"]

SECONDS = 0.1  # of measuring, for each side in each round

Times: TypeAlias = dict[str, list[float]]  # seconds of calls, by what was called


def take_turns(steps: Mapping[str, Callable[[], object]], times: Times) -> None:
    """Give each step SECONDS, and an untimed call in its first turn.

    Parameters
    ----------
    steps : dict
        Functions by name.
    times : dict
        Gets the seconds of their calls, by name.
    """
    for side, step in steps.items():
        if side not in times:
            step()
    for side, step in steps.items():
        end = time.perf_counter() + SECONDS
        while True:
            start = time.perf_counter()
            step()
            now = time.perf_counter()
            times.setdefault(side, []).append(now - start)
            if now >= end:
                break
