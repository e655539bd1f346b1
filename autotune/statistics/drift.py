"""Drift: how much the device slows down during a study, and how much processes of one config differ.

A device that warms up or is shared slows every config alike. So the baseline is measured again every few trials: these
runs are the anchors. The latency of a trial is divided by the drift that the anchors before and after it show. The same
runs show how much two processes of one config differ, which limits what the figure of a single trial is worth.

Where a search uses several cards, each has anchors of its own: a trial counts as a ratio to its own card's baseline.
"""

import math
import statistics
from collections.abc import Iterable, Sequence
from itertools import pairwise

from autotune.trial import Anchor, Trial

ANCHOR_EVERY = 8  # trials, at most
PRIOR_SPREAD = 0.02  # between processes of one config, before any anchor; it counts as PRIOR_WEIGHT anchors
PRIOR_WEIGHT = 2


def due(trials: Sequence[Trial], anchors: Sequence[Anchor]) -> bool:
    """Is it time for another anchor?"""
    upcoming = trials[-1].number + 1 if trials else 0  # there may be gaps below
    return upcoming - max((anchor.before for anchor in anchors), default=0) >= ANCHOR_EVERY


def corrected(trials: Sequence[Trial], anchors: Sequence[Anchor]) -> list[Trial]:
    """The trials with their `drift`: how many times slower the device was than at trial 0.

    `trials[0]` is the baseline. If it was not measured, the trials are returned as they are.
    """
    if not trials or trials[0].measured is None:
        return list(trials)
    known = {card: _known(trials[0], anchors, card) for card in {trial.card for trial in trials}}
    return [trial.model_copy(update={"drift": math.exp(_between(known[trial.card], trial.number))}) for trial in trials]


def drift_at(baseline: Trial, anchors: Sequence[Anchor], number: int, card: str | None = None) -> float:
    """How many times slower than at trial 0 the device is at the trial of this number, by the anchors so far.

    card  on which the trial runs, of a search on several
    """
    return math.exp(_between(_known(baseline, anchors, card), number))


def _known(baseline: Trial, anchors: Sequence[Anchor], card: str | None) -> list[tuple[float, float]]:
    """The card's own slowdowns. Where it was never measured, as fast as at trial 0."""
    own = slowdowns(baseline, (anchor for anchor in anchors if anchor.card == card))
    return own if own and card != baseline.card else [(0.0, 0.0), *own]


def slowdowns(baseline: Trial, anchors: Iterable[Anchor]) -> list[tuple[float, float]]:
    """(position among the trials, log of the latency over that of trial 0) of each anchor that was measured."""
    assert baseline.measured is not None
    measured = [(a.before - 0.5, a.measured) for a in anchors if a.measured]
    return [(position, math.log(again.latency_s / baseline.measured.latency_s)) for position, again in measured]


def _between(known: Sequence[tuple[float, float]], position: float) -> float:
    """Linear interpolation between the known points; constant before the first and after the last."""
    before = max((point for point in known if point[0] <= position), key=lambda point: point[0], default=min(known))
    after = min((point for point in known if point[0] > position), key=lambda point: point[0], default=before)
    if after[0] == before[0]:
        return before[1]
    share = (position - before[0]) / (after[0] - before[0])
    return before[1] + share * (after[1] - before[1])


def process_spread(baseline: Trial, anchors: Sequence[Anchor]) -> float:
    """The standard deviation of the baseline's latency from process to process of one card, as a share."""
    assert baseline.measured is not None
    runs = {baseline.card: [baseline.measured.latency_s]}
    for anchor in anchors:
        if anchor.measured:
            runs.setdefault(anchor.card, []).append(anchor.measured.latency_s)
    return spread_between(*runs.values())


def spread_between(*latencies_s: Sequence[float]) -> float:
    """The standard deviation of a config's latency from process to process, as a share.

    It comes from the differences between successive processes, so slow drift does not count. The fewer processes there
    are, the more PRIOR_SPREAD counts.

    latencies_s  one per process, in the order in which they ran; of several cards, one such sequence each
    """
    steps = [(math.log(b / a)) ** 2 / 2 for own_s in latencies_s for a, b in pairwise(own_s)]
    return math.sqrt((PRIOR_WEIGHT * PRIOR_SPREAD**2 + sum(steps)) / (PRIOR_WEIGHT + len(steps)))


def speedup_interval(trial: Trial, baseline: Trial, spread: float) -> tuple[float, float, float]:
    """(speedup over the baseline, low, high): the 95 % interval of two single processes.

    spread  of one config from process to process, see `process_spread`
    """
    assert trial.measured is not None
    assert baseline.measured is not None
    speedup = baseline.measured.latency_s / (trial.measured.latency_s / trial.drift)
    errors = [median_error(m.latency_samples_s) for m in (trial.measured, baseline.measured)]
    half = 1.96 * math.sqrt(2 * spread**2 + sum(error**2 for error in errors))
    return speedup, speedup * math.exp(-half), speedup * math.exp(half)


def median_error(samples_s: Sequence[float]) -> float:
    """The standard error of the median, as a share of it.

    From the interquartile range, as if the samples were normal. Raises StatisticsError for fewer than two samples.
    """
    low, middle, high = statistics.quantiles(samples_s, n=4)
    return 1.253 * (high - low) / 1.349 / middle / math.sqrt(len(samples_s))
