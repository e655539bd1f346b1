"""Goal: what is minimised (latency, memory, quality loss), what must hold, and which of the front is picked.

Budget: what a search may take.
"""

import re
from dataclasses import dataclass
from typing import Literal

from autotune.errors import UserError
from autotune.frozen_model import FrozenModel

Pick = Literal["fastest", "smallest", "balanced"]
PICKS: tuple[Pick, ...] = ("fastest", "smallest", "balanced")
Minimise = Literal["sum", "each"]

_SIZES = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 2**10, "mib": 2**20, "gib": 2**30}
_DURATIONS = {"ms": 0.001, "": 1.0, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}


class Goal(FrozenModel):
    """Limits a config must keep to be picked. `max_quality_drop` is in the units of the study's quality metric.

    Where the workload has several sizes, the latency that is minimised and limited is the sum over all of them, or with
    `minimise` "each" every size's own: as many objectives, and the slowest must keep `max_latency_s`.
    """

    minimise: Minimise = "sum"
    max_vram_bytes: int | None = None
    max_latency_s: float | None = None
    max_quality_drop: float

    def violations(self, latency_s: float, peak_memory_bytes: int, quality_loss: float) -> dict[str, float]:
        """Limit -> by which share it is overstepped; 0 or less holds. These are Optuna's constraint values.

        `latency_s` is the largest of the latencies that are minimised.
        """
        found = {"max_quality_drop": quality_loss - self.max_quality_drop}
        if self.max_vram_bytes is not None:
            found["max_vram"] = peak_memory_bytes / self.max_vram_bytes - 1
        if self.max_latency_s is not None:
            found["max_latency"] = latency_s / self.max_latency_s - 1
        return found


@dataclass(frozen=True, kw_only=True)
class Budget:
    """What a search may take.

    trials           of the whole study, the baseline among them
    time_s           no trial is started that would end later; None: no limit
    trial_timeout_s  the longest that one trial may take
    """

    trials: int = 50
    time_s: float | None = None
    trial_timeout_s: float = 1800.0

    def __post_init__(self) -> None:
        if self.trials < 1:
            raise UserError(f"the budget is {self.trials} trials; give at least 1, which is the baseline.")


def read_minimise(word: str) -> Minimise:
    """Raises UserError for what is neither "sum" nor "each"."""
    if word == "sum":
        return "sum"
    if word == "each":
        return "each"
    raise UserError(f"--minimise takes sum or each, not {word!r}.")


def read_bytes(text: str) -> int:
    """`8GB` -> 8 000 000 000, `8GiB` -> 8 589 934 592."""
    return int(_read(text, _SIZES, "a size such as 8GB or 500MiB", within=(1, 1e18)))


def read_seconds(text: str) -> float:
    """`90`, `90s`, `1.5m`, `2h`, `250ms` -> seconds."""
    return _read(text, _DURATIONS, "a duration such as 30s, 10m or 2h", within=(1e-6, 1e9))


def _read(text: str, units: dict[str, float] | dict[str, int], what: str, *, within: tuple[float, float]) -> float:
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-zA-Z]*)\s*", text)
    value = float(match[1]) * units.get(match[2].lower(), 0) if match else 0.0
    if not within[0] <= value <= within[1]:  # outside, somebody's finger slipped
        raise UserError(f"{text!r} is not {what}.")
    return value
