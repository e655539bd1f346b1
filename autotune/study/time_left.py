"""Time left: how long the rest of a search will take, estimated from the trials so far.

A mean, not a median: the estimate is of a sum, and a few trials that compile for minutes make up most of it. Trial 0
counts only while it is the only one: it loads the libraries for all later trials, and it is the slowest config.
"""

import statistics
from collections.abc import Sequence

from autotune.statistics.drift import ANCHOR_EVERY, due
from autotune.trial import Anchor, Trial


def trial_s(trials: Sequence[Trial]) -> float | None:
    """Seconds of one trial; None before the first one."""
    seconds = [trial.seconds for trial in trials[1:]] or [trial.seconds for trial in trials]
    return statistics.fmean(seconds) if seconds else None


def next_s(trials: Sequence[Trial], anchors: Sequence[Anchor]) -> float | None:
    """Seconds of the next trial, and of the anchor before it if one is due; None before the first trial."""
    each = trial_s(trials)
    return None if each is None else each + (_anchor_s(trials, anchors) if due(trials, anchors) else 0.0)


def exploring_s(trials: Sequence[Trial], anchors: Sequence[Anchor], budget: int) -> float | None:
    """Seconds until `budget` trials are done, with the anchors between and after them; None before the first trial."""
    each = trial_s(trials)
    if each is None:
        return None
    budget = max(budget, len(trials))
    last = max((anchor.before for anchor in anchors), default=0)
    between = (budget - 1 - last) // ANCHOR_EVERY  # anchors, see drift.due
    after = budget > max(last, 1)
    return (budget - len(trials)) * each + (between + after) * _anchor_s(trials, anchors)


def confirming_s(trials: Sequence[Trial], anchors: Sequence[Anchor], rounds: int) -> float | None:
    """Seconds of so many rounds, each with a run of the pick and one of the baseline; None before the first trial."""
    each = trial_s(trials)
    return None if each is None else rounds * (each + _anchor_s(trials, anchors))


def _anchor_s(trials: Sequence[Trial], anchors: Sequence[Anchor]) -> float:
    """Seconds of a run of the baseline: the mean of the anchors, or what trial 0 took."""
    return statistics.fmean(anchor.seconds for anchor in anchors) if anchors else trials[0].seconds
