"""Disturbance: what was wrong with the device while calls were timed, and whether the user accepts it."""

import os
from typing import Literal, NamedTuple


class Disturbance(NamedTuple):
    why: Literal["throttled", "contended"]
    reason: str  # a sentence's worth


def accepts_any() -> bool:
    """Has the user said that this machine is never idle, and that numbers from it will do?"""
    return os.environ.get("AUTOTUNE_BUSY") == "accept"
