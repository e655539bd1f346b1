"""Progress: the best speed so far and the hypervolume of the front, after each trial of a search."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from autotune.goal import Goal
from autotune.study.pareto_front import keeps, objectives
from autotune.trial import Anchor, Trial

Point = tuple[float, ...]


@dataclass(frozen=True)
class Step:
    """The state after a trial.

    seconds      since the study began: the own time of trials and anchors, without pauses
    speedup      of the fastest config so far that keeps the limits; None: no config did
    hypervolume  the share of the box between the best and the worst values of this study that the trials so far
                 dominate, from 0 to 1
    """

    trial: int
    seconds: float
    speedup: float | None
    hypervolume: float


def progress(trials: Sequence[Trial], anchors: Iterable[Anchor], goal: Goal) -> list[Step]:
    """A step for every trial. Trials that failed or were stopped count as well: they took time."""
    if not trials or trials[0].measured is None:
        return []
    baseline, spent = trials[0], list(anchors)
    scaled = _scaled({t.number: objectives(t, baseline, goal.minimise) for t in trials if t.judged})
    seconds, best, front, volume = 0.0, None, list[Point](), 0.0
    steps = []
    for trial in trials:
        seconds += trial.seconds + sum(anchor.seconds for anchor in spent if anchor.before == trial.number)
        if trial.judged and keeps(trial, baseline, goal):
            latency_s = objectives(trial, baseline)[0]
            best = latency_s if best is None else min(best, latency_s)
        new = scaled.get(trial.number)
        if new is not None and not any(_covers(old, new) for old in front):
            front = [old for old in front if not _covers(new, old)] + [new]
            volume = hypervolume(front)
        speedup = objectives(baseline, baseline)[0] / best if best is not None else None
        steps.append(Step(trial.number, seconds, speedup, volume))
    return steps


def _scaled(found: dict[int, Point]) -> dict[int, Point]:
    """Each objective scaled from 0 (the study's best) to 1 (its worst), without those that all trials share."""
    columns = list(zip(*found.values(), strict=True))
    spans = [(i, min(column), max(column)) for i, column in enumerate(columns) if max(column) > min(column)]
    return {number: tuple((point[i] - low) / (high - low) for i, low, high in spans) for number, point in found.items()}


def _covers(a: Point, b: Point) -> bool:
    """Is a at least as good as b in every objective?"""
    return all(x <= y for x, y in zip(a, b, strict=True))


def hypervolume(points: Sequence[Point]) -> float:
    """The volume that these points dominate, up to the reference point (1, 1 ...). Smaller values are better.

    Computed exactly, by slices along the last objective, which is fast for the few points of a front.
    """
    if not points or not points[0]:
        return 0.0
    if len(points[0]) == 1:
        return max(0.0, 1 - min(point[0] for point in points))
    ordered = sorted(points, key=lambda point: point[-1])
    levels = [*(min(point[-1], 1.0) for point in ordered), 1.0]
    total = 0.0
    for count in range(1, len(ordered) + 1):
        depth = levels[count] - levels[count - 1]
        if depth > 0:
            total += depth * hypervolume(_best([point[:-1] for point in ordered[:count]]))
    return total


def _best(points: list[Point]) -> list[Point]:
    """The points that no other point dominates."""
    unique = list(dict.fromkeys(points))
    return [point for point in unique if not any(other != point and _covers(other, point) for other in unique)]
