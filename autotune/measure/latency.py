"""Latency: the wall clock around whole calls, with the device synchronised on both sides.

Calls before the steady state are kept apart: the first (it compiles, tunes kernels, fills caches) and the warm-up.
"""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

LEAST_CALLS = 5  # timed calls, whatever the number of prompts
WARMUP_AGREES = 0.03  # two calls in a row that differ by less than this share are steady
WARMUP_MOST_CALLS = 5


def synchronise(device: str) -> None:
    """Wait until the device has done all that was asked of it."""
    if device.startswith("cuda"):
        import torch

        torch.cuda.synchronize(device)


def timed(call: Callable[[], T], device: str) -> tuple[float, T]:
    """(seconds, what the call returned)."""
    synchronise(device)
    start = time.perf_counter()
    result = call()
    synchronise(device)
    return time.perf_counter() - start, result


def warm_up(call: Callable[[], object], device: str) -> list[float]:
    """Call until two calls in a row agree, at most WARMUP_MOST_CALLS times. Returns every call's seconds."""
    seconds = [timed(call, device)[0]]
    while len(seconds) < WARMUP_MOST_CALLS:
        seconds.append(timed(call, device)[0])
        if abs(seconds[-1] / seconds[-2] - 1) < WARMUP_AGREES:
            break
    return seconds
