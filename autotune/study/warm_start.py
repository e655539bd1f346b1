"""WarmStart: what earlier studies of the same pipeline family tell about a new study.

Two things come of them. The configs that did best in them are tried right after the baseline, before the recipes: a
recipe is for every device and pipeline, these were measured on this family. They are few, so a misleading study costs
little. And AutoSampler takes each earlier study as a task of its own (sampler/additive.py), which counts as far as its
effects turn out to be similar to this study's.
"""

import math
import statistics
from collections.abc import Sequence

from autotune.config import Config
from autotune.errors import UserError
from autotune.goal import Goal
from autotune.knobs import complete
from autotune.sampler import FAILED, TransferredTrial
from autotune.statistics.hypervolume import volume
from autotune.study.earlier import EarlierStudy, EarlierTrial
from autotune.study.optuna_view import Parameters
from autotune.study.pareto_front import objectives, violations
from autotune.study.space import SearchSpace
from autotune.trial import Trial

LEAST = 2  # trials that worked in an earlier study: with one there is nothing to compare
FIRST = 5  # configs that are tried first
MOST = 200  # trials of all earlier studies together that the sampler takes: each makes it slower
MARGIN = 0.1  # of an objective's span: how much worse than the worst still counts (as in replay/reference_front.py)

Point = tuple[float, ...]


def fitting(studies: Sequence[EarlierStudy], space: SearchSpace) -> tuple[EarlierStudy, ...]:
    """The studies, without trials that have a value outside this space. Raises UserError if too few are left."""
    kept = []
    for study in studies:
        trials = tuple(trial for trial in study.trials if is_in_space(trial, space))
        if sum(trial.worked for trial in trials) < LEAST:
            raise UserError(
                f"--warm-start {study.name!r}: fewer than {LEAST} configs that worked in it are in this space; leave "
                "it out, or search the same knobs."
            )
        kept.append(study.model_copy(update={"trials": trials}))
    return tuple(kept)


def is_in_space(trial: EarlierTrial, space: SearchSpace) -> bool:
    """Are all values of this trial in the space? Rules between values are not checked."""
    if not all(space.offers(name, value) for name, value in trial.values.items()):
        return False
    config, parameters = complete(trial.values), Parameters(space.free, space.ranges)
    return space.config(parameters.values(parameters.of(config))) == config


class WarmStart:
    """Earlier studies in the terms of a study that has a baseline.

    told   the trials of each earlier study, for AutoSampler
    first  the configs to try first: the allowed ones that keep the limits and together cover the most hypervolume
    """

    def __init__(self, studies: Sequence[EarlierStudy], space: SearchSpace, goal: Goal, baseline: Trial) -> None:
        self.studies, self.space, self.goal, self.baseline = studies, space, goal, baseline
        self.parameters = Parameters(space.free, space.ranges)
        most = MOST // max(1, len(studies))
        told = [[self._transferred(study, trial, ratios) for trial, ratios in self._ratios(study)] for study in studies]
        self.told = [_thinned(trials, most) for trials in told]
        self.first = _best(self._points(told))

    def _ratios(self, study: EarlierStudy) -> list[tuple[EarlierTrial, tuple[float, float]]]:
        """Each trial with its (latency, memory) relative to the config that is the baseline of this study.

        If the earlier study has no such trial, they are relative to its own baseline.
        """
        same = (trial for trial in study.trials if trial.worked and complete(trial.values) == self.baseline.config)
        base = next(same, None)
        latency, memory = (base.latency or 1.0, base.memory or 1.0) if base else (1.0, 1.0)
        return [(trial, ((trial.latency or 1.0) / latency, (trial.memory or 1.0) / memory)) for trial in study.trials]

    def _transferred(self, study: EarlierStudy, trial: EarlierTrial, ratios: tuple[float, float]) -> TransferredTrial:
        """The trial as it would be here if its ratios to the baseline were the same."""
        params = self.parameters.of(complete(trial.values))
        if not trial.worked:
            return TransferredTrial(params, None, {FAILED: 1.0})
        *latencies_s, memory_bytes, _ = self._baseline_objectives()
        judged = self.baseline.measured.quality if self.baseline.measured else None
        comparable = judged is not None and judged.metric == study.metric
        loss = trial.loss if comparable and trial.loss is not None else math.nan
        values = (*(latency_s * ratios[0] for latency_s in latencies_s), memory_bytes * ratios[1], loss)
        return TransferredTrial(params, values, violations(values, self.goal))

    def _points(self, told: Sequence[Sequence[TransferredTrial]]) -> dict[Config, Point]:
        """Config -> (log latency, log memory, loss), the mean over the studies. The baseline comes first.

        Only allowed configs that keep the limits.
        """
        points: dict[Config, list[Point]] = {self.baseline.config: [_point(self._baseline_objectives())]}
        for trial in (trial for trials in told for trial in trials if trial.values):
            config = self.space.config(self.parameters.values(trial.params))
            keeps = all(over <= 0 for over in trial.constraints.values())
            if keeps and config != self.baseline.config and not self.space.objection(config):
                points.setdefault(config, []).append(_point(trial.values or ()))
        return {config: tuple(map(statistics.fmean, zip(*each, strict=True))) for config, each in points.items()}

    def _baseline_objectives(self) -> tuple[float, ...]:
        return objectives(self.baseline, self.baseline, self.goal.minimise)


def _point(values: Sequence[float]) -> Point:
    *latencies_s, memory_bytes, loss = values
    return math.log(sum(latencies_s)), math.log(max(memory_bytes, 1.0)), loss


def _best(points: dict[Config, Point]) -> list[Config]:
    """Up to FIRST configs, chosen greedily: each one adds the most hypervolume to those before it.

    The first point is the baseline, which counts as chosen and is not returned.
    """
    columns = list(zip(*points.values(), strict=True))
    spans = [(min(column), (max(column) - min(column)) * (1 + MARGIN) or 1.0) for column in columns]
    scaled = {c: [(x - low) / span for x, (low, span) in zip(p, spans, strict=True)] for c, p in points.items()}
    baseline, *others = scaled
    chosen: list[Config] = []
    while others and len(chosen) < FIRST:
        have = [scaled[config] for config in (baseline, *chosen)]
        volumes = [volume([*have, scaled[config]]) for config in others]
        if max(volumes) <= volume(have) * (1 + 1e-9):
            break
        chosen.append(others.pop(volumes.index(max(volumes))))
    return chosen


def _thinned(told: list[TransferredTrial], most: int) -> list[TransferredTrial]:
    """At most so many, spread evenly over the list; the first is among them."""
    if len(told) <= most:
        return told
    return [told[index * len(told) // most] for index in range(most)]
