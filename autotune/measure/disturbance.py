"""Disturbance: why a timed call can't be trusted, and whether the user accepts such calls."""

import os
from typing import Literal, NamedTuple


class Disturbance(NamedTuple):
    """The device slowed itself down ("throttled"), or others used it ("contended"), while a call was timed.

    reason   in words, for the log and the report
    settled  the device has changed for good: the calls before don't count either, those that follow do
    """

    why: Literal["throttled", "contended"]
    reason: str
    settled: bool = False


def accepts_any() -> bool:
    """Does the user accept disturbed and noisy calls (AUTOTUNE_BUSY=accept), on a machine that is never idle?"""
    return os.environ.get("AUTOTUNE_BUSY") == "accept"
