"""Fuzzing in rounds, and the memory that the process holds between them."""

from __future__ import annotations

import ctypes
import gc
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

QUIET: dict[str, Any] = {"deadline": None, "suppress_health_check": list(HealthCheck), "database": None}


def resident_mb() -> float:
    """Memory of this process, without what the allocator holds for later: a leak stays, free lists do not."""
    gc.collect()
    if sys.platform == "linux":
        ctypes.CDLL(None).malloc_trim(0)
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def fuzz_in_rounds(
    inputs: st.SearchStrategy[Any], judge: Callable[[Any], object], *, rounds: int, each: int
) -> tuple[int, list[float]]:
    """Judge inputs; return how many there were, and the memory after each round, MB.

    Hypothesis remembers every input that it has generated until its run ends: a run of 10,000 that does nothing with
    them grows by 200 MB. So there are several runs, and memory is measured between them.
    """
    count, memory = 0, []
    for number in range(rounds):

        @seed(number)
        @settings(max_examples=each, **QUIET)
        @given(inputs)
        def run(content: Any) -> None:
            nonlocal count
            count += 1
            judge(content)

        run()
        del run
        memory.append(resident_mb())
    return count, memory


def growth_mb(memory: list[float]) -> float:
    """From the second round to the last: the first ones fill caches that every process fills once."""
    return memory[-1] - memory[1]
