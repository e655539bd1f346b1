"""Paired: the mean of paired differences, its confidence interval, its smallest detectable value.

Baseline and candidate draw the same prompts from the same noise, so only the differences within pairs scatter. The
intervals come from a studentised bootstrap, which keeps its level where a few pairs differ much and most hardly at all.
"""

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

from autotune.frozen_model import FrozenModel
from autotune.measurement import Quality

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

RESAMPLES = 4000
DETECTABLE_IN_SDS = 1.645 + 0.842  # standard errors that a one-sided test at 5 % sees with a power of 80 %
EQUAL = 1e-9  # differences that are this close differ only by the rounding of their subtraction
ROUNDING = 0.001  # of a score: what one level of 255 in a few pixels does to a CLIP score (0.00005 seen, mean of 16)
MANY = 16  # pairs, from which on a bound lies within what they show: an interval of so many equal ones has no width


class Paired(FrozenModel):
    """Differences of pairs, positive where the candidate is worse, in the metric's own units.

    Bounds are of the mean. A bound is None if there are too few pairs for one; of a single pair all are.

    n                    the number of pairs
    low, high            the two-sided 95 % interval
    lower, upper         the one-sided 95 % bounds: the mean is at least `lower`; the mean is at most `upper`
    smallest_detectable  the mean that a one-sided test at 5 % detects four times in five
    """

    n: int
    mean: float
    low: float | None
    high: float | None
    lower: float | None
    upper: float | None
    smallest_detectable: float | None

    @property
    def is_detectable(self) -> bool:
        """Is the candidate worse, beyond what chance gives one time in twenty, and by more than rounding?"""
        return self.lower is not None and self.lower > ROUNDING

    @property
    def is_gain(self) -> bool:
        """Is it better, beyond what chance gives one time in twenty, and by more than rounding?"""
        return self.upper is not None and self.upper < -ROUNDING

    @property
    def half_width(self) -> float | None:
        """Half the width of the two-sided interval, which need not be symmetric around the mean."""
        return None if self.low is None or self.high is None else (self.high - self.low) / 2

    @property
    def as_change(self) -> str:
        """The drop as a change of the score, with its 95 % interval: "-0.12 (-0.20 to -0.04)"."""
        if self.low is None or self.high is None:
            return f"{0.0 - self.mean:+.2f} (too few pairs for an interval)"
        return f"{0.0 - self.mean:+.2f} ({0.0 - self.high:+.2f} to {0.0 - self.low:+.2f})"

    def may_exceed(self, limit: float) -> bool:
        """Can the mean be above this limit? False only if the one-sided 95 % bound excludes it."""
        return self.upper is None or self.upper > limit


def paired(differences: Sequence[float]) -> Paired:
    """The statistics of these differences: baseline minus candidate, for a score where higher is better.

    The bootstrap is seeded: the same differences give the same bounds. Raises ValueError if there is no difference, or
    one that is not finite.
    """
    return _paired(tuple(map(float, differences)))


def paired_drop(candidate: Quality, baseline: Quality) -> Paired:
    """The mean drop of quality with its bounds, in the units of Quality.drops().

    Raises UserError if the two were judged by different scorers.
    """
    return paired(candidate.drops(baseline))


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
    bounds = [mean - t * error for t in _quantiles(deviates, (0.975, 0.95, 0.05, 0.025))]
    if n >= MANY:  # where a few of many pairs differ, most resamples are equal: they say nothing, and t knows no end
        bounds = [min(max(bound, min(differences)), max(differences)) for bound in bounds]
    low, lower, upper, high = map(_bound, bounds)
    detectable = DETECTABLE_IN_SDS * error
    return Paired(n=n, mean=mean, low=low, high=high, lower=lower, upper=upper, smallest_detectable=detectable)


def _bound(value: float) -> float | None:
    """None for an infinite bound, since JSON has no infinity."""
    return value if math.isfinite(value) else None


def _studentised(standard: Sequence[float]) -> "NDArray[np.float64]":
    """The sorted t (mean over standard error) of each of RESAMPLES resamples.

    A resample of equal values has no standard error. Its t is infinite, which leaves a bound of fewer than MANY pairs
    open.

    standard  differences with mean 0 and standard deviation 1
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
def _shares(n: int) -> "NDArray[np.float64]":
    """RESAMPLES x n: the share of each pair in each resample. The draws are seeded."""
    import numpy as np

    return np.random.default_rng(0).multinomial(n, [1 / n] * n, size=RESAMPLES) / n


def _quantiles(deviates: "NDArray[np.float64]", levels: Sequence[float]) -> list[float]:
    """Quantiles of sorted values. Between two values, the one further from the median: no bound is too narrow."""
    last = len(deviates) - 1
    return [float(deviates[math.ceil(p * last) if p > 0.5 else math.floor(p * last)]) for p in levels]
