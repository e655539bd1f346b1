"""Drift: a device that warms up or is shared slows every config alike. The baseline, measured again every few trials,
is the anchor that tells by how much; a trial's latency counts as a ratio to the anchors on both sides of it.

The same runs show how far two processes of one config differ here, which is what a single trial's figure is worth.
"""

import math
import statistics
from collections.abc import Iterable, Sequence
from itertools import pairwise

from autotune.trial import Anchor, Trial

ANCHOR_EVERY = 8  # trials, at most
PRIOR_SPREAD = 0.02  # between processes of one config, where no anchor has told yet; counts as PRIOR_WEIGHT anchors
PRIOR_WEIGHT = 2


def due(trials: Sequence[Trial], anchors: Sequence[Anchor]) -> bool:
    """Is it time to measure the baseline again?"""
    return len(trials) - max((anchor.before for anchor in anchors), default=0) >= ANCHOR_EVERY


def corrected(trials: Sequence[Trial], anchors: Sequence[Anchor]) -> list[Trial]:
    """The trials with their `drift`: how much slower than at trial 0 the device was, by the anchors on both sides."""
    if not trials or trials[0].measured is None:
        return list(trials)
    known = [(0.0, 0.0), *slowdowns(trials[0], anchors)]
    return [trial.model_copy(update={"drift": math.exp(_between(known, trial.number))}) for trial in trials]


def drift_at(baseline: Trial, anchors: Sequence[Anchor], number: int) -> float:
    """How much slower than at trial 0 the device is at the trial of this number, as far as the anchors tell by now."""
    return math.exp(_between([(0.0, 0.0), *slowdowns(baseline, anchors)], number))


def slowdowns(baseline: Trial, anchors: Iterable[Anchor]) -> list[tuple[float, float]]:
    """(place among the trials, log of how much slower than trial 0) of each anchor that could be measured."""
    assert baseline.measured is not None
    measured = [(a.before - 0.5, a.measured) for a in anchors if a.measured]
    return [(place, math.log(again.latency_s / baseline.measured.latency_s)) for place, again in measured]


def _between(known: Sequence[tuple[float, float]], place: float) -> float:
    """Straight lines between the known points, level after the last."""
    before = max((point for point in known if point[0] <= place), key=lambda point: point[0])
    after = min((point for point in known if point[0] > place), key=lambda point: point[0], default=before)
    if after[0] == before[0]:
        return before[1]
    share = (place - before[0]) / (after[0] - before[0])
    return before[1] + share * (after[1] - before[1])


def process_spread(baseline: Trial, anchors: Sequence[Anchor]) -> float:
    """The standard deviation, as a share, of one config's latency from process to process, as the anchors show it."""
    assert baseline.measured is not None
    again = [anchor.measured.latency_s for anchor in anchors if anchor.measured]
    return spread_between([baseline.measured.latency_s, *again])


def spread_between(latencies_s: Sequence[float]) -> float:
    """The same of any config's latencies, in the order in which its processes ran.

    From each to the next, so that slow drift is not counted; with few processes PRIOR_SPREAD has its say.
    """
    steps = [(math.log(b / a)) ** 2 / 2 for a, b in pairwise(latencies_s)]
    return math.sqrt((PRIOR_WEIGHT * PRIOR_SPREAD**2 + sum(steps)) / (PRIOR_WEIGHT + len(steps)))


def speedup_interval(trial: Trial, baseline: Trial, spread: float) -> tuple[float, float, float]:
    """(speedup over the baseline, low, high): what one process shows, with 95 % of what processes differ by.

    spread  of one config from process to process, see `process_spread`
    """
    assert trial.measured is not None
    assert baseline.measured is not None
    speedup = baseline.measured.latency_s / (trial.measured.latency_s / trial.drift)
    own = [median_error(m.latency_samples_s) for m in (trial.measured, baseline.measured)]
    half = 1.96 * math.sqrt(2 * spread**2 + sum(error**2 for error in own))
    return speedup, speedup * math.exp(-half), speedup * math.exp(half)


def median_error(samples_s: Sequence[float]) -> float:
    """The standard error of the median, as a share of it, from the interquartile range (normal approximation)."""
    low, middle, high = statistics.quantiles(samples_s, n=4)
    return 1.253 * (high - low) / 1.349 / middle / math.sqrt(len(samples_s))
