"""Warm start: what earlier studies of the same family are worth here.

They order the first trials, and our sampler sees all of theirs as a task of its own (sampler/additive.py), whose shape
counts for as much as it turns out to be like this study's. Those that did best there come right after the baseline,
before the recipes: a recipe is for every device and pipeline, they were measured on this family. There are few of them,
so that an earlier study that misleads costs little.
"""

import math
import statistics
from collections.abc import Sequence

from autotune.config import Config
from autotune.errors import UserError
from autotune.goal import Goal
from autotune.knobs import complete
from autotune.sampler import FAILED, Earlier
from autotune.statistics.hypervolume import volume
from autotune.study.candidates import as_params
from autotune.study.earlier import EarlierStudy, EarlierTrial
from autotune.study.pareto_front import objectives, violations
from autotune.study.space import SearchSpace
from autotune.trial import Trial

LEAST = 2  # trials that worked: one has no shape
FIRST = 5  # trials that they order
MOST = 200  # trials of all earlier studies together that the sampler sees: it thinks longer with each
MARGIN = 0.1  # of an objective's span: how much worse than the worst of the best still counts, as in reference.py

Point = tuple[float, ...]


def fitting(studies: Sequence[EarlierStudy], space: SearchSpace) -> tuple[EarlierStudy, ...]:
    """The studies with those of their trials whose values are all in this space. Raises UserError where too few are."""
    found = []
    for study in studies:
        trials = tuple(trial for trial in study.trials if is_here(trial, space))
        if sum(trial.worked for trial in trials) < LEAST:
            raise UserError(
                f"--warm-start {study.name!r}: fewer than {LEAST} configs that worked in it are in this space; leave "
                "it away, or search the same knobs."
            )
        found.append(study.model_copy(update={"trials": trials}))
    return tuple(found)


def is_here(trial: EarlierTrial, space: SearchSpace) -> bool:
    """Can the search propose this config, as far as its values go?"""
    if not all(name in space.values and value in space.values[name] for name, value in trial.values.items()):
        return False
    config = complete(trial.values)
    return space.config(as_params(config, space.free)) == config


class WarmStart:
    """Earlier studies in the terms of a study that has a baseline.

    told   what our sampler is told of each
    first  the allowed configs that together are the best of what keeps the limits, the one that adds most first
    """

    def __init__(self, studies: Sequence[EarlierStudy], space: SearchSpace, goal: Goal, baseline: Trial) -> None:
        self.studies, self.space, self.goal, self.baseline = studies, space, goal, baseline
        most = MOST // max(1, len(studies))
        said = [[self._told(study, one, ratios) for one, ratios in self._beside(study)] for study in studies]
        self.told = [_some(group, most) for group in said]
        self.first = _best(self._points(said))

    def _beside(self, study: EarlierStudy) -> list[tuple[EarlierTrial, tuple[float, float]]]:
        """Each trial with its (latency, memory) over this study's baseline config: where the earlier one has no such
        trial, over its own baseline."""
        same = (one for one in study.trials if one.worked and complete(one.values) == self.baseline.config)
        base = next(same, None)
        over = (base.latency or 1.0, base.memory or 1.0) if base else (1.0, 1.0)
        return [(one, ((one.latency or 1.0) / over[0], (one.memory or 1.0) / over[1])) for one in study.trials]

    def _told(self, study: EarlierStudy, trial: EarlierTrial, ratios: tuple[float, float]) -> Earlier:
        """As it might be here, if it is to this baseline what it was to its own."""
        params = as_params(complete(trial.values), self.space.free)
        if not trial.worked:
            return Earlier(params, None, {FAILED: 1.0})
        *latencies_s, memory_bytes, _ = objectives(self.baseline, self.baseline, self.goal.minimise)
        judged = self.baseline.measured.quality if self.baseline.measured else None
        comparable = judged is not None and judged.metric == study.metric
        loss = trial.loss if comparable and trial.loss is not None else math.nan
        values = (*(latency_s * ratios[0] for latency_s in latencies_s), memory_bytes * ratios[1], loss)
        return Earlier(params, values, violations(values, self.goal))

    def _points(self, told: Sequence[Sequence[Earlier]]) -> dict[Config, Point]:
        """Config -> (log latency, log memory, loss) as told, the mean over the studies; what keeps the limits."""
        found: dict[Config, list[Point]] = {self.baseline.config: [_point(self._own())]}
        for one in (one for group in told for one in group if one.values):
            config = self.space.config(one.params)
            keeps = all(over <= 0 for over in one.constraints.values())
            if keeps and config != self.baseline.config and not self.space.objection(config):
                found.setdefault(config, []).append(_point(one.values or ()))
        return {config: tuple(map(statistics.fmean, zip(*points, strict=True))) for config, points in found.items()}

    def _own(self) -> tuple[float, ...]:
        return objectives(self.baseline, self.baseline, self.goal.minimise)


def _point(values: Sequence[float]) -> Point:
    *latencies_s, memory_bytes, loss = values
    return math.log(sum(latencies_s)), math.log(max(memory_bytes, 1.0)), loss


def _best(points: dict[Config, Point]) -> list[Config]:
    """FIRST of them that leave most volume behind beside the first one, each next the one that adds most."""
    columns = list(zip(*points.values(), strict=True))
    spans = [(min(column), (max(column) - min(column)) * (1 + MARGIN) or 1.0) for column in columns]
    scaled = {c: [(x - low) / span for x, (low, span) in zip(p, spans, strict=True)] for c, p in points.items()}
    baseline, *others = scaled
    chosen: list[Config] = []
    while others and len(chosen) < FIRST:
        have = [scaled[config] for config in (baseline, *chosen)]
        gains = [volume([*have, scaled[config]]) for config in others]
        if max(gains) <= volume(have) * (1 + 1e-9):
            break
        chosen.append(others.pop(gains.index(max(gains))))
    return chosen


def _some(told: list[Earlier], most: int) -> list[Earlier]:
    """At most so many: evenly from the whole, the first of them among them."""
    if len(told) <= most:
        return told
    return [told[index * len(told) // most] for index in range(most)]
