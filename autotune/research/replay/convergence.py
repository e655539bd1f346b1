"""What replayed searches have found, trial by trial, and what many of one sampler say together."""

import statistics
from collections.abc import Sequence

from autotune.frozen_model import FrozenModel
from autotune.research.replay.reference_front import ReferenceFront
from autotune.trial import NOT_THE_CONFIG, Failure, Trial

MARKS = (10, 20, 40, 100)  # trials, at which the curves are told
SHARES = (0.9, 0.95)  # of the true front's hypervolume, and how many trials it takes
PICK = 0.95  # of the speed of the fastest config that keeps the limits: two processes of one config differ by so much


class Convergence(FrozenModel):
    """One replayed search: after each trial, what it has found, and the device seconds that it took."""

    seed: int
    found: tuple[float, ...]  # of the true front's hypervolume; 0: the baseline alone, 1: the true front
    picks: tuple[float, ...]  # the pick's speed, as a share of that of the fastest config that keeps the limits
    device_s: tuple[float, ...]
    faults: int  # trials that came to nothing, by the config's fault

    def trials_to(self, share: float) -> int | None:
        """How many trials it took to find this share; None where it never did."""
        return next((count for count, found in enumerate(self.found, 1) if found >= share), None)

    def trials_to_pick(self, share: float = PICK) -> int | None:
        """How many trials it took to a pick so near the fastest; None where it never came."""
        return next((count for count, found in enumerate(self.picks, 1) if found >= share), None)

    def at(self, trials: int) -> float:
        """The share after so many trials, or after the last one."""
        return self.found[min(trials, len(self.found)) - 1]


class Replayed(FrozenModel):
    """What one sampler did with one table."""

    table: str
    sampler: str
    curves: tuple[Convergence, ...]

    def median_trials_to(self, share: float) -> float | None:
        """Over the seeds; None where half of them never found so much."""
        return _median([curve.trials_to(share) for curve in self.curves])

    def median_trials_to_pick(self) -> float | None:
        """Over the seeds; None where half of them never had it."""
        return _median([curve.trials_to_pick() for curve in self.curves])

    def median_at(self, trials: int) -> float:
        return statistics.median(curve.at(trials) for curve in self.curves)

    @property
    def fault_share(self) -> float:
        """Of all trials but the baseline's."""
        trials = sum(len(curve.found) - 1 for curve in self.curves)
        return sum(curve.faults for curve in self.curves) / trials if trials else 0.0


def _median(counts: Sequence[int | None]) -> float | None:
    median = statistics.median(float("inf") if count is None else count for count in counts)
    return None if median == float("inf") else median


def convergence_of(trials: Sequence[Trial], reference: ReferenceFront, seed: int) -> Convergence:
    """What a search of this seed has found, judged by the recording's reference."""
    faults, seconds = 0, list[float]()
    for trial in trials:
        seconds.append(trial.seconds + (seconds[-1] if seconds else 0.0))
        faults += isinstance(trial.outcome, Failure) and trial.outcome.cause not in NOT_THE_CONFIG
    found, picks = tuple(reference.shares(trials)), tuple(reference.picks(trials))
    return Convergence(seed=seed, found=found, picks=picks, device_s=tuple(seconds), faults=faults)
