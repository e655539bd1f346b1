"""Paired: what the differences of pairs say of their mean, and how small a difference so many pairs can show.

Baseline and candidate draw the same prompts from the same noise, so that only the differences of the pairs scatter. The
intervals are a studentised bootstrap's: it keeps its level where a few pairs differ much and most hardly at all.
"""

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from autotune.frozen_model import FrozenModel
from autotune.measurement import Quality

RESAMPLES = 4000
DETECTABLE_IN_SDS = 1.645 + 0.842  # one-sided 5 %, power 80 %: that many standard errors are seen
EQUAL = 1e-9  # differences that lie this near to each other scatter by the rounding of their subtraction alone


class Paired(FrozenModel):
    """Differences of pairs, positive where the candidate is worse, in the metric's own units.

    A bound is None where so few pairs bound nothing (one pair never does). The bounds are of the mean.
    """

    n: int
    mean: float
    low: float | None  # of the two-sided 95 % interval
    high: float | None
    lower: float | None  # one-sided, 95 %: the mean is at least this
    upper: float | None  # one-sided, 95 %: the mean is at most this
    smallest_detectable: float | None  # the mean that a one-sided test at 5 % sees four times in five

    @property
    def is_detectable(self) -> bool:
        """Is the candidate worse, beyond what chance gives one time in twenty?"""
        return self.lower is not None and self.lower > EQUAL

    @property
    def is_gain(self) -> bool:
        """Is it better, beyond what chance gives one time in twenty?"""
        return self.upper is not None and self.upper < -EQUAL

    @property
    def half_width(self) -> float | None:
        """Half the width of the two-sided interval, which need not lie evenly around the mean."""
        return None if self.low is None or self.high is None else (self.high - self.low) / 2

    @property
    def as_change(self) -> str:
        """The drop as a change of the score, with its 95 % interval: "-0.12 (-0.20 to -0.04)"."""
        if self.low is None or self.high is None:
            return f"{0.0 - self.mean:+.2f} (too few pairs for an interval)"
        return f"{0.0 - self.mean:+.2f} ({0.0 - self.high:+.2f} to {0.0 - self.low:+.2f})"

    def may_exceed(self, limit: float) -> bool:
        """Can the mean be above this limit? A guard says no only where the one-sided 95 % bound says so."""
        return self.upper is None or self.upper > limit


def paired(differences: Sequence[float]) -> Paired:
    """The statistics of these differences (baseline minus candidate where higher is better).

    The same differences give the same bounds: the bootstrap is seeded. Raises ValueError for no pair, or one that is
    not finite.
    """
    return _paired(tuple(map(float, differences)))


def paired_drop(mine: Quality, baseline: Quality) -> Paired:
    """The mean drop of quality with its bounds, and the smallest drop that so many prompts show; units as in drops().

    Raises UserError where the two were judged by different scorers.
    """
    return paired(mine.drops(baseline))


@lru_cache(maxsize=4096)
def _paired(differences: tuple[float, ...]) -> Paired:
    n = len(differences)
    if n == 0 or not all(map(math.isfinite, differences)):
        raise ValueError(f"{n} differences, which must be at least one, and finite: {differences[:5]}")
    mean = math.fsum(differences) / n
    if n == 1:
        return Paired(n=1, mean=mean, low=None, high=None, lower=None, upper=None, smallest_detectable=None)
    if max(differences) - min(differences) <= EQUAL:
        return Paired(n=n, mean=mean, low=mean, high=mean, lower=mean, upper=mean, smallest_detectable=0.0)
    sd = math.sqrt(math.fsum((d - mean) ** 2 for d in differences) / (n - 1))
    error = sd / math.sqrt(n)
    deviates = _studentised([(d - mean) / sd for d in differences])
    low, lower, upper, high = (_bound(mean - t * error) for t in _quantiles(deviates, (0.975, 0.95, 0.05, 0.025)))
    detectable = DETECTABLE_IN_SDS * error
    return Paired(n=n, mean=mean, low=low, high=high, lower=lower, upper=upper, smallest_detectable=detectable)


def _bound(value: float) -> float | None:
    """JSON has no infinity."""
    return value if math.isfinite(value) else None


def _studentised(standard: Sequence[float]) -> Any:
    """The t of each resample of differences with mean 0 and standard deviation 1, sorted: mean over standard error.

    A resample of equal values has no standard error; its t is infinite, which leaves a bound of few pairs open.
    """
    import numpy as np

    n = len(standard)
    values, shares = np.asarray(standard), _shares(n)
    means = shares @ values
    variances = np.maximum(shares @ values**2 - means**2, 0) * n / (n - 1)
    errors = np.sqrt(variances / n)
    with np.errstate(divide="ignore", invalid="ignore"):
        deviates = np.where(variances > 1e-12, means / errors, np.sign(means) * np.inf)
    return np.sort(np.nan_to_num(deviates, nan=0.0, posinf=np.inf, neginf=-np.inf))


@lru_cache(maxsize=2)
def _shares(n: int) -> Any:
    """How much of each resample each pair makes up: RESAMPLES x n, seeded."""
    import numpy as np

    return np.random.default_rng(0).multinomial(n, [1 / n] * n, size=RESAMPLES) / n


def _quantiles(deviates: Any, levels: Sequence[float]) -> list[float]:
    """Of sorted values; between two of them, the one further from 0, so that no bound is too narrow."""
    last = len(deviates) - 1
    return [float(deviates[math.ceil(p * last) if p > 0.5 else math.floor(p * last)]) for p in levels]
