"""Ceilings: an objective's limit that a trial may not live to overstep, such as a card's memory.

Such a trial fails and says no more than "at least so much". That is taken as a normal value cut off below the limit,
with the mean and the variance that the others lead to expect of it: a censored observation.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from optuna.trial import FrozenTrial

Array = Any

SURE = 1.645  # standard deviations: below the predicted value less so many it lies in one case of twenty
NEAR_MISS = 0.05  # of the limit: what may be so little above it is tried. Sums of effects are right to some percents
FAR = 6.0  # deviations beyond which the tail of a normal distribution is its asymptote


@dataclass(frozen=True)
class Ceiling:
    """An objective above 0, to be minimised, must stay at or below `limit`.

    hit   is this failed trial known to have failed because it needed more?
    name  the constraint that says of measured trials what the ceiling says of all
    """

    limit: float
    hit: Callable[[FrozenTrial], bool]
    name: str | None = None


@dataclass(frozen=True)
class Beyond:
    """What a ceiling has kept from being proposed, at the last question. Predictions, not measurements.

    count  configs that are predicted to need more than the limit, even if the prediction errs
    of     so many allowed and new ones were looked at
    least  the smallest of their predicted values
    """

    count: int
    of: int
    least: float


def surely_over(mean: Array, deviation: Array, limit: float) -> Array:
    """Of logarithms predicted: is even the lower bound of the prediction more than a near miss?"""
    return mean - SURE * deviation > math.log(limit * (1 + NEAR_MISS))


def cut_off(mean: Array, deviation: Array, limit: float) -> tuple[Array, Array]:
    """(mean, variance) of normal values of which it is known that they lie above the limit."""
    pairs = [_above((limit - m) / d) for m, d in zip(mean, deviation, strict=True)]
    shift, shrink = (np.array(column) for column in zip(*pairs, strict=True))
    return mean + deviation * shift, deviation**2 * shrink


def _above(z: float) -> tuple[float, float]:
    """(mean, variance) of a standard normal value above z."""
    if z > FAR:
        return z + 1 / z, 1 / z**2
    tail = math.erfc(z / math.sqrt(2)) / 2
    mean = math.exp(-(z**2) / 2) / math.sqrt(2 * math.pi) / tail
    return mean, max(1 + z * mean - mean**2, 1e-3)
