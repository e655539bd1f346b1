"""Convergence: what a replayed search has found after each trial; Replayed: the medians over the seeds of a sampler."""

import statistics
from collections.abc import Sequence

from autotune.frozen_model import FrozenModel
from autotune.research.replay.reference_front import ReferenceFront
from autotune.trial import NOT_THE_CONFIG, Failure, Trial

MARKS = (10, 20, 40, 100)  # numbers of trials at which a report shows the shares, where searches are as long
SHARES = (0.9, 0.95)  # shares of the true front's hypervolume; a report shows how many trials each takes
# A pick counts as the fastest from this share of the fastest config's speed on: processes of one config differ as much.
PICK = 0.95


class Convergence(FrozenModel):
    """One replayed search. Each tuple has one value for each trial: the state after that trial.

    found     the share of the true front's hypervolume: 0 for the baseline alone, 1 for the true front
    picks     the speed of the pick, as a share of the speed of the fastest config that keeps the limits
    device_s  the device seconds since the start of the search
    faults    the number of trials that failed because of their config
    """

    seed: int
    found: tuple[float, ...]
    picks: tuple[float, ...]
    device_s: tuple[float, ...]
    faults: int

    def trials_to(self, share: float) -> int | None:
        """How many trials it took to find this share; None: it was never found."""
        return next((count for count, found in enumerate(self.found, 1) if found >= share), None)

    def trials_to_pick(self, share: float = PICK) -> int | None:
        """How many trials it took until the pick had this share of the fastest speed; None: it never had."""
        return next((count for count, pick in enumerate(self.picks, 1) if pick >= share), None)

    def at(self, trials: int) -> float:
        """The share found after this number of trials, or after the last trial where there are fewer."""
        return self.found[min(trials, len(self.found)) - 1]


class Replayed(FrozenModel):
    """All searches of one recorded table with one sampler: one for each seed."""

    table: str
    sampler: str
    curves: tuple[Convergence, ...]

    def median_trials_to(self, share: float) -> float | None:
        """Over the seeds; None where at least half of them never found this share."""
        return _median([curve.trials_to(share) for curve in self.curves])

    def median_trials_to_pick(self) -> float | None:
        """Over the seeds; None where at least half of them never had such a pick."""
        return _median([curve.trials_to_pick() for curve in self.curves])

    def median_at(self, trials: int) -> float:
        """The median share found after this number of trials."""
        return statistics.median(curve.at(trials) for curve in self.curves)

    @property
    def fault_share(self) -> float:
        """The failed trials as a share of all trials except the baselines."""
        trials = sum(len(curve.found) - 1 for curve in self.curves)
        return sum(curve.faults for curve in self.curves) / trials if trials else 0.0


def marks_of(replayed: Sequence[Replayed]) -> tuple[int, ...]:
    """The numbers of trials at which these searches are shown: MARKS, none beyond the end of the longest search."""
    longest = max((len(curve.found) for one in replayed for curve in one.curves), default=MARKS[-1])
    return tuple(sorted({min(mark, longest) for mark in MARKS}))


def _median(counts: Sequence[int | None]) -> float | None:
    median = statistics.median(float("inf") if count is None else count for count in counts)
    return None if median == float("inf") else median


def convergence_of(
    trials: Sequence[Trial], reference: ReferenceFront, seed: int, ended_s: Sequence[float] | None = None
) -> Convergence:
    """The convergence of a search that ran these trials, measured against the reference front of the recording.

    trials   in the order in which they ended
    ended_s  when, since the start of the search; None: they ran one after the other
    """
    faults, seconds = 0, list[float]()
    for trial in trials:
        seconds.append(trial.seconds + (seconds[-1] if seconds else 0.0))
        faults += isinstance(trial.outcome, Failure) and trial.outcome.cause not in NOT_THE_CONFIG
    found, picks = tuple(reference.shares(trials)), tuple(reference.picks(trials))
    return Convergence(seed=seed, found=found, picks=picks, device_s=tuple(ended_s or seconds), faults=faults)
