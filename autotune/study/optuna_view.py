"""OptunaView: a trial as Optuna is told of it: objectives, constraints and user attributes."""

import statistics
from collections.abc import Sequence
from functools import cached_property
from typing import Any

from autotune.sampler import FAILED, NOT_MEASURED
from autotune.study.pareto_front import costs, host_bytes, objectives, violations, worst_place_levels
from autotune.study.record import Record
from autotune.study.reuse_plan import picture_key
from autotune.trial import Failure, Trial


class OptunaView:
    """One trial as Optuna sees it. `trials[0]` is the baseline."""

    def __init__(self, trial: Trial, trials: Sequence[Trial], record: Record) -> None:
        self.trial, self.trials, self.record = trial, trials, record

    @cached_property
    def values(self) -> list[float]:
        """The objectives. Optuna needs a number for each, so some are made up:

        - A failed trial gets the worst values of the others; its violated constraint ranks it last.
        - A trial that was stopped early (it is dominated whatever its quality) gets the quality loss of trials that
          draw the same pictures, or the median of all. `attributes` tells AutoSampler that it was not measured.
        """
        baseline, minimise = self.trials[0], self.record.goal.minimise
        if self.trial.judged:
            return list(objectives(self.trial, baseline, minimise))
        judged = [t for t in self.trials if t.judged]
        known = [objectives(t, baseline, minimise) for t in judged]
        if not self.trial.measured:
            return [max(column) for column in zip(*known, strict=True)]
        key = picture_key(self.trial.config)
        same = [values[-1] for t, values in zip(judged, known, strict=True) if picture_key(t.config) == key]
        return [*costs(self.trial, minimise), statistics.median(same or [values[-1] for values in known])]

    @property
    def constraints(self) -> dict[str, float]:
        """Optuna's constraints: 0 or less holds. Every trial has all of them, since the GP sampler fails otherwise."""
        failed = 0.0 if self.trial.measured else 1.0
        others = worst_place_levels(self.trial), host_bytes(self.trial)
        return {FAILED: failed, **violations(self.values, self.record.goal, *others)}

    @property
    def attributes(self) -> dict[str, Any]:
        """User attributes: what a reader of study.db sees of a trial, and what AutoSampler needs."""
        failure = self.trial.outcome if isinstance(self.trial.outcome, Failure) else None
        stopped = self.trial.measured.stopped if self.trial.measured else None
        of_pictures = [name for name in self.constraints if name in ("max_quality_drop", "max_worst_place")]
        missing = {NOT_MEASURED: [self.record.latencies + 1, *of_pictures]} if stopped else {}
        memory = {"memory": failure.memory} if failure and failure.memory else {}
        return {
            "config": dict(self.trial.config),
            "origin": self.trial.origin,
            "outcome": failure.cause if failure else "stopped" if stopped else "measured",
            "reason": failure.reason if failure else stopped or "",
            "seconds": self.trial.seconds,
            **memory,
            **missing,
        }
