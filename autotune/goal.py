"""Goal: the objectives that are minimised and the limits that must hold. Budget: what a search may take.

The objectives are latency, peak memory and quality loss. `Pick` says which config of the Pareto front is exported.
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
    """The limits that a config must keep to be picked, and how latency becomes an objective.

    minimise          the latency objective of a workload with several sizes. "sum": the sum over all sizes, which must
                      keep `max_latency_s`. "each": one objective per size; the slowest must keep `max_latency_s`.
    max_vram_bytes    of the peak memory; None: no limit
    max_ram_bytes     of the host's memory, at the peak of the process; None: no limit
    max_latency_s     of one call; None: no limit
    max_quality_drop  of the mean quality loss against the baseline, in the units of the study's quality metric
    max_worst_place_levels
                      of the worst cell, row or column of any picture (see measure/metrics/worst_place.py), in levels of
                      0 to 255; None: no limit
    """

    minimise: Minimise = "sum"
    max_vram_bytes: int | None = None
    max_ram_bytes: int | None = None
    max_latency_s: float | None = None
    max_quality_drop: float
    max_worst_place_levels: float | None = None

    def violations(
        self,
        latency_s: float,
        peak_memory_bytes: int,
        quality_loss: float,
        worst_place_levels: float | None = None,
        host_bytes: int | None = None,
    ) -> dict[str, float]:
        """Optuna's constraint values: limit -> the excess. The limit holds where the value is 0 or less.

        The excess is a share of the limit; that of max_quality_drop is in the units of the quality metric.

        latency_s                       the largest of the latency objectives
        worst_place_levels, host_bytes  None: not known, which violates nothing
        """
        excess = {"max_quality_drop": quality_loss - self.max_quality_drop}
        if self.max_vram_bytes is not None:
            excess["max_vram"] = peak_memory_bytes / self.max_vram_bytes - 1
        if self.max_ram_bytes is not None:
            excess["max_ram"] = (self.max_ram_bytes if host_bytes is None else host_bytes) / self.max_ram_bytes - 1
        if self.max_latency_s is not None:
            excess["max_latency"] = latency_s / self.max_latency_s - 1
        if self.max_worst_place_levels is not None:
            known = self.max_worst_place_levels if worst_place_levels is None else worst_place_levels
            excess["max_worst_place"] = known / self.max_worst_place_levels - 1
        return excess


@dataclass(frozen=True, kw_only=True)
class Budget:
    """What a search may take. Raises UserError where that is less than the baseline's trial.

    trials           the number of trials of the whole study, the baseline included
    time_s           seconds: no trial starts that would end later than this; None: no limit
    trial_timeout_s  seconds after which a trial is stopped
    trial_timing_s   seconds of a run's warm-up, and of timed calls beyond those that draw its pictures; None: as usual
    """

    trials: int = 50
    time_s: float | None = None
    trial_timeout_s: float = 1800.0
    trial_timing_s: float | None = None

    def __post_init__(self) -> None:
        if self.trials < 1:
            raise UserError(f"the budget is {self.trials} trials; give at least 1, which is the baseline.")


def read_minimise(word: str) -> Minimise:
    """Raises UserError for any word but "sum" and "each"."""
    if word == "sum":
        return "sum"
    if word == "each":
        return "each"
    raise UserError(f"--minimise takes sum or each, not {word!r}.")


def read_levels(levels: float | None) -> float | None:
    """The limit of the worst place. Raises UserError unless it is None, or above 0 and at most 255."""
    if levels is not None and not 0 < levels <= 255:
        raise UserError(f"the most difference of a place is {levels}; give levels above 0, of at most 255.")
    return levels


def read_bytes(text: str) -> int:
    """`8GB` -> 8 000 000 000, `8GiB` -> 8 589 934 592. Raises UserError, also below 1 MB: `12` lacks its unit."""
    return int(_read(text, _SIZES, "a size such as 8GB or 500MiB", within=(1e6, 1e18)))


def read_seconds(text: str) -> float:
    """`90`, `90s`, `1.5m`, `2h`, `250ms` -> seconds. Raises UserError."""
    return _read(text, _DURATIONS, "a duration such as 30s, 10m or 2h", within=(1e-6, 1e9))


def _read(text: str, units: dict[str, float] | dict[str, int], what: str, *, within: tuple[float, float]) -> float:
    """A number with a unit. Raises UserError, calling it `what`, where it is malformed or outside of `within`."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-zA-Z]*)\s*", text)
    value = float(match[1]) * units.get(match[2].lower(), 0) if match else 0.0
    if not within[0] <= value <= within[1]:  # outside is a typing error
        raise UserError(f"{text!r} is not {what}.")
    return value
