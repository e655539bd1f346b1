"""ReferenceFront: the true Pareto front of a recorded space, and the share of it that a search has found.

The share is a hypervolume, scaled to 0 for the baseline alone and 1 for the true front. Only configs that keep the
limits of the goal count. The hypervolume lies in a box that spans each objective from its best to its worst value on
the true front and the baseline. Latency and memory are taken as logarithms, so that a factor counts the same
everywhere. A tenth of each span is added at the bad end, so that a config which is best in one objective only counts
as well.
"""

import math
from collections.abc import Sequence

from autotune.goal import Goal
from autotune.knobs import complete
from autotune.statistics.hypervolume import volume
from autotune.study.pareto_front import keeps, objectives
from autotune.trial import Trial

MARGIN = 0.1  # of the span of an objective

Point = tuple[float, ...]  # one value for each objective, less is better


class ReferenceFront:
    """The front of all trials of a recording; the first trial is the baseline."""

    def __init__(self, trials: Sequence[Trial], goal: Goal) -> None:
        self.baseline, self.goal = trials[0], goal
        self._known = {complete(trial.values): self._point(trial) for trial in trials}
        self.front = front({point for point in self._known.values() if point is not None})
        columns = list(zip(*self.front, self._logs(self.baseline), strict=True))
        self.lows = [min(column) for column in columns]
        self.spans = [max(column) - min(column) for column in columns]
        self.least = self._volume([p] if (p := self._point(self.baseline)) is not None else [])
        self.most = self._volume(self.front)
        self._allowed_s = {complete(t.values): objectives(t, self.baseline)[0] for t in trials if self._point(t)}
        self._least_s = min(self._allowed_s.values(), default=0.0)

    def shares(self, trials: Sequence[Trial]) -> list[float]:
        """The share found after each trial.

        A trial counts with the objectives that the recording has for its config, because the quality of the trial
        itself may come from another trial.
        """
        best: list[Point] = []
        shares, share = [], self.share([])
        for trial in trials:
            point = self._known.get(trial.config) if trial.judged else None
            if point is not None and not any(_covers(old, point) for old in best):
                best = [old for old in best if not _covers(point, old)] + [point]
                share = self.share(best)
            shares.append(share)
        return shares

    def picks(self, trials: Sequence[Trial]) -> list[float]:
        """The speed of the pick after each trial, as a share of the speed of the fastest config that keeps the limits.

        0 as long as no trial keeps the limits.
        """
        shares, pick_s = [], math.inf
        for trial in trials:
            if trial.judged:
                pick_s = min(pick_s, self._allowed_s.get(trial.config, math.inf))
            shares.append(self._least_s / pick_s)
        return shares

    def share(self, points: Sequence[Point]) -> float:
        """The share that these points have found; 1 where nothing is better than the baseline."""
        if self.most <= self.least:
            return 1.0
        return (self._volume(sorted(points)) - self.least) / (self.most - self.least)

    def _volume(self, points: Sequence[Point]) -> float:
        """The hypervolume of these points in the box, without the objectives in which the box has no width."""
        wide = [i for i, span in enumerate(self.spans) if span > 0]
        scaled = [[(p[i] - self.lows[i]) / (self.spans[i] * (1 + MARGIN)) for i in wide] for p in sorted(points)]
        return volume(scaled) if wide else 0.0

    def _point(self, trial: Trial) -> Point | None:
        """The objectives of a trial; None where it failed, was stopped early or breaks a limit."""
        if trial.judged is None or not keeps(trial, self.baseline, self.goal):
            return None
        return self._logs(trial)

    def _logs(self, trial: Trial) -> Point:
        *latencies_s, memory_bytes, loss = objectives(trial, self.baseline, self.goal.minimise)
        return *(math.log(latency_s) for latency_s in latencies_s), math.log(max(memory_bytes, 1)), loss


def front(points: set[Point]) -> list[Point]:
    """The points that no other one covers."""
    kept: list[Point] = []
    for point in sorted(points):
        if not any(_covers(old, point) for old in kept):  # in sorted order no point covers an earlier one
            kept.append(point)
    return kept


def _covers(a: Point, b: Point) -> bool:
    """Is a at least as good as b in every objective?"""
    return all(x <= y for x, y in zip(a, b, strict=True))
