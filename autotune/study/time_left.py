"""How long what is left of a search will take, from how long what was done has taken.

A mean, not a median: it is a sum that is asked for, and a few trials that compile for minutes are most of it. Trial 0
counts only while it is the only one: the libraries are loaded in it for all that follow, and it is the slowest config.
"""

import statistics
from collections.abc import Sequence

from autotune.statistics.drift import ANCHOR_EVERY, due
from autotune.trial import Anchor, Trial


def trial_s(trials: Sequence[Trial]) -> float | None:
    """Seconds of a trial; None where there was none yet."""
    seconds = [trial.seconds for trial in trials[1:]] or [trial.seconds for trial in trials]
    return statistics.fmean(seconds) if seconds else None


def next_s(trials: Sequence[Trial], anchors: Sequence[Anchor]) -> float | None:
    """Seconds of the next trial, and of the baseline's run before it where one is due; None where nobody knows."""
    one = trial_s(trials)
    return None if one is None else one + (_anchor_s(trials, anchors) if due(trials, anchors) else 0.0)


def exploring_s(trials: Sequence[Trial], anchors: Sequence[Anchor], budget: int) -> float | None:
    """Seconds until so many trials are done, and the runs of the baseline between and after them; None: not known."""
    one = trial_s(trials)
    if one is None:
        return None
    budget = max(budget, len(trials))
    last = max((anchor.before for anchor in anchors), default=0)
    between = (budget - 1 - last) // ANCHOR_EVERY  # see drift.due
    after = budget > max(last, 1)
    return (budget - len(trials)) * one + (between + after) * _anchor_s(trials, anchors)


def confirming_s(trials: Sequence[Trial], anchors: Sequence[Anchor], rounds: int) -> float | None:
    """Seconds of so many rounds, in each of which the pick and the baseline are measured again; None: not known."""
    one = trial_s(trials)
    return None if one is None else rounds * (one + _anchor_s(trials, anchors))


def _anchor_s(trials: Sequence[Trial], anchors: Sequence[Anchor]) -> float:
    """Seconds of a run of the baseline: as those between the trials, or as trial 0 took."""
    return statistics.fmean(anchor.seconds for anchor in anchors) if anchors else trials[0].seconds
