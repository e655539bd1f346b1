"""ReferenceFront: how much of what a recorded space has to offer a search has found.

The box: each objective from the best to the worst among the table's true front and its baseline, latency and memory as
logarithms, so that a factor counts the same everywhere; a tenth of the span is added at the bad end, so that a config
that is best in one thing alone counts, too. Only configs that keep the goal's limits count. The share is the
hypervolume within the box, 0 for the baseline alone and 1 for the true front.
"""

import math
from collections.abc import Sequence

from autotune.goal import Goal
from autotune.knobs import complete
from autotune.statistics.hypervolume import volume
from autotune.study.pareto_front import keeps, objectives
from autotune.trial import Trial

MARGIN = 0.1  # of the span of an objective

Point = tuple[float, ...]


class ReferenceFront:
    """Made of every trial of a recording, the first of them the baseline."""

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
        """After each trial, the share that has been found.

        What a judged trial has found is what the recording says of its config: a search may have taken its quality from
        another.
        """
        best: list[Point] = []
        found, share = [], self.share([])
        for trial in trials:
            point = self._known.get(trial.config) if trial.judged else None
            if point is not None and not any(_covers(old, point) for old in best):
                best = [old for old in best if not _covers(point, old)] + [point]
                share = self.share(best)
            found.append(share)
        return found

    def picks(self, trials: Sequence[Trial]) -> list[float]:
        """After each trial, how near the pick is to the fastest config that keeps the limits: the share of its speed.

        0 as long as no trial keeps the limits.
        """
        found, held_s = [], math.inf
        for trial in trials:
            if trial.judged:
                held_s = min(held_s, self._allowed_s.get(trial.config, math.inf))
            found.append(self._least_s / held_s)
        return found

    def share(self, points: Sequence[Point]) -> float:
        """1 where there is nothing to find beyond the baseline."""
        if self.most <= self.least:
            return 1.0
        return (self._volume(sorted(points)) - self.least) / (self.most - self.least)

    def _volume(self, points: Sequence[Point]) -> float:
        """Objectives in which the box has no width say nothing."""
        wide = [i for i, span in enumerate(self.spans) if span > 0]
        scaled = [[(p[i] - self.lows[i]) / (self.spans[i] * (1 + MARGIN)) for i in wide] for p in sorted(points)]
        return volume(scaled) if wide else 0.0

    def _point(self, trial: Trial) -> Point | None:
        """None of a trial that failed, was stopped or oversteps a limit."""
        if trial.judged is None or not keeps(trial, self.baseline, self.goal):
            return None
        return self._logs(trial)

    def _logs(self, trial: Trial) -> Point:
        *latencies_s, memory_bytes, loss = objectives(trial, self.baseline, self.goal.minimise)
        return *(math.log(latency_s) for latency_s in latencies_s), math.log(max(memory_bytes, 1)), loss


def front(points: set[Point]) -> list[Point]:
    """Those that no other one covers."""
    kept: list[Point] = []
    for point in sorted(points):
        if not any(_covers(old, point) for old in kept):  # what comes later in order never covers what came before
            kept.append(point)
    return kept


def _covers(a: Point, b: Point) -> bool:
    """Is a at least as good as b in everything?"""
    return all(x <= y for x, y in zip(a, b, strict=True))
