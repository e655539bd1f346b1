"""Ceiling: an objective's limit above which a trial may fail, such as the memory of a GPU.

A trial that failed at a ceiling has no value: only "more than the limit" is known. The model takes it as a censored
observation, with the mean and variance of the predicted normal distribution truncated below the limit.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from optuna.trial import FrozenTrial

from autotune.sampler.arrays import Bools, Floats

SURE = 1.645  # standard deviations: the value lies further below its predicted mean in one case of twenty
NEAR_MISS = 0.05  # of the limit: configs predicted so little above it are tried, since models err by some percent
FAR = 6.0  # standard deviations from which the tail of a normal distribution is replaced by its asymptote


@dataclass(frozen=True)
class Ceiling:
    """A limit of an objective that is minimised and above 0: at or below it, trials don't fail for lack of it.

    limit  in the objective's units
    hit    did this failed trial fail because it needed more than the limit?
    name   the constraint that states the same limit for measured trials: the sampler then uses the ceiling alone
    """

    limit: float
    hit: Callable[[FrozenTrial], bool]
    name: str | None = None


@dataclass(frozen=True)
class Excluded:
    """The candidates that a ceiling excluded from the last proposal. Predictions, not measurements.

    count  candidates predicted to need more than the limit, even at the lower end of the prediction
    of     all candidates: allowed, untried configs
    least  the smallest predicted value of the excluded ones, in the objective's units
    """

    count: int
    of: int
    least: float


def surely_over(mean: Floats, deviation: Floats, limit: float) -> Bools:
    """Is even the lower end of each prediction above the limit by more than a near miss?

    mean, deviation  of predicted logarithms, one per config
    limit            not a logarithm
    """
    over: Bools = mean - SURE * deviation > math.log(limit * (1 + NEAR_MISS))
    return over


def truncated(mean: Floats, deviation: Floats, limit: float) -> tuple[Floats, Floats]:
    """(mean, variance) of normal values that are known to lie above the limit, in the same units."""
    pairs = [_above((limit - m) / d) for m, d in zip(mean, deviation, strict=True)]
    shift, shrink = (np.array(column) for column in zip(*pairs, strict=True))
    return mean + deviation * shift, deviation**2 * shrink


def _above(z: float) -> tuple[float, float]:
    """(mean, variance) of a standard normal value that lies above z."""
    if z > FAR:
        return z + 1 / z, 1 / z**2
    tail = math.erfc(z / math.sqrt(2)) / 2
    mean = math.exp(-(z**2) / 2) / math.sqrt(2 * math.pi) / tail
    return mean, max(1 + z * mean - mean**2, 1e-3)
