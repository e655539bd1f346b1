"""Observations: the trials of a study and of earlier ones, as arrays to fit models to."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from optuna import Study
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from autotune.sampler.arrays import Bools, Codes, Floats, Ints
from autotune.sampler.scale import Scale

Params = Mapping[str, Any]

FAILED = "failed"  # the constraint that marks a failed trial where it is above 0
NOT_MEASURED = "not_measured"  # the user attribute that lists the indices of objectives and the names of constraints
MARGIN = 0.1  # of an objective's span on the front: how much worse than its worst value still counts


@dataclass(frozen=True)
class TransferredTrial:
    """A trial of an earlier study, in the terms of this one. Only differences within its own study are used.

    values       the objectives as they might be here, NaN where unknown; None: the trial failed
    constraints  the constraints that follow from the values
    """

    params: Params
    values: tuple[float, ...] | None
    constraints: Mapping[str, float]


class Observations:
    """A row per trial. The measured trials of this study come first (task 0), then those of each earlier study.

    names, choices, counts  the parameters, their values, the number of their values; of a number no values and 0
    scales                  the numbers among the parameters
    measured, failures      trials of this study
    transferred             trials of earlier studies that worked; `transferred_failures`: those that failed
    tasks                   of each measured row: 0 for this study, 1, 2 ... for the earlier ones (see additive.py)
    codes_measured          measured rows x parameters: the index of each value, or a number's position on its scale
    codes_told              the same of all trials of this study, failures included
    """

    def __init__(
        self,
        study: Study,
        space: Mapping[str, BaseDistribution],
        *,
        fails_count: bool = True,
        earlier: Sequence[Sequence[TransferredTrial]] = (),
        conditions: Mapping[str, tuple[str, Any]] | None = None,
    ) -> None:
        """`conditions` as in AutoSampler; one whose other parameter is not in the space is void."""
        self.names = sorted(space)
        beside = {name: on for name, on in (conditions or {}).items() if on[0] in space}
        numbers = [name for name in self.names if not isinstance(space[name], CategoricalDistribution)]
        self.scales = {name: Scale(name, space[name], beside.get(name)) for name in numbers}
        self.choices = {name: () if name in self.scales else space[name].choices for name in self.names}
        self.counts = [len(self.choices[name]) for name in self.names]
        self._codes = {name: {v: i for i, v in enumerate(self.choices[name])} for name in self.names}
        self.signs = np.array([-1.0 if d == StudyDirection.MAXIMIZE else 1.0 for d in study.directions])
        states = (TrialState.COMPLETE, TrialState.FAIL) if fails_count else (TrialState.COMPLETE,)
        told = [t for t in study.get_trials(deepcopy=False, states=states) if self.is_in_space(t.params)]
        self.measured = [t for t in told if t.state == TrialState.COMPLETE and t.constraints.get(FAILED, 0.0) <= 0]
        known = {t.number for t in self.measured}
        self.failures = [t for t in told if t.number not in known]
        groups = [[trial for trial in group if self.is_in_space(trial.params)] for group in earlier]
        self.transferred_failures = [trial for group in groups for trial in group if trial.values is None]
        worked = [(task, trial) for task, group in enumerate(groups, 1) for trial in group if trial.values is not None]
        self.transferred = [trial for _, trial in worked]
        self.tasks = np.array([0] * len(self.measured) + [task for task, _ in worked], dtype=int)
        self.codes_told = self.codes([t.params for t in told])
        self.codes_measured = self.codes([t.params for t in [*self.measured, *self.transferred]])
        values = [t.values for t in self.measured] + [trial.values for trial in self.transferred]
        self._raw = np.array(values).reshape(len(values), len(self.signs)) * self.signs

    def is_in_space(self, params: Params) -> bool:
        """Has every parameter one of its values here?"""
        return all(name in params and self._is_value(name, params[name]) for name in self.names)

    def _is_value(self, name: str, value: Any) -> bool:
        return self.scales[name].contains(value) if name in self.scales else value in self._codes[name]

    @property
    def own(self) -> Bools:
        """Is each measured row a trial of this study?"""
        own: Bools = self.tasks == 0
        return own

    def params(self, trial: FrozenTrial) -> Params:
        return {name: trial.params[name] for name in self.names}

    def codes(self, configs: Sequence[Params]) -> Codes:
        """configs x parameters: the index of each value, or a number's position on its scale."""
        columns = [
            [self.scales[name].position(config) for config in configs]
            if name in self.scales
            else [codes[config[name]] for config in configs]
            for name, codes in self._codes.items()
        ]
        kind = float if self.scales else int
        return np.array(columns, dtype=kind).reshape(len(self.names), len(configs)).T

    def known(self, name: int | str) -> Bools:
        """Is this objective or constraint measured, in each measured row? If it is in none, all count as told."""
        own = [name not in t.user_attrs.get(NOT_MEASURED, ()) for t in self.measured]
        known = np.array([*own, *(True for _ in self.transferred)], dtype=bool)
        return known if known.any() else ~known

    def attribute(self, name: str) -> Floats:
        """This user attribute (a number above 0) of each measured row; NaN where it is missing."""
        own = [t.user_attrs.get(name, math.nan) for t in self.measured]
        return np.array([*own, *(math.nan for _ in self.transferred)], dtype=float)

    def _feasible(self) -> Bools:
        rows = [t.constraints for t in self.measured] + [trial.constraints for trial in self.transferred]
        return np.array([all(v <= 0 for v in row.values()) for row in rows], dtype=bool)

    def front(self) -> list[FrozenTrial]:
        """The measured trials of this study that keep the constraints and that no other one dominates."""
        feasible = np.flatnonzero(self._feasible()[self.own])
        return [self.measured[i] for i in feasible[_undominated(self._raw[feasible])]]

    def transformed(self, index: int, values: Floats) -> Floats:
        """Values of an objective as they are modelled.

        The logarithm, if all known values are above 0. Otherwise values far larger than those that keep the constraints
        are compressed.
        """
        known = self._raw[:, index]
        known = known[np.isfinite(known)]
        if (known > 0).all():
            return np.log(values)
        kept = self._raw[self._feasible(), index]
        kept = kept[np.isfinite(kept)]
        return _compressed(values, float(np.abs(kept if len(kept) else known).max()))

    def box(self) -> tuple[Floats, Floats, Floats]:
        """(values, front, corner), all minimised, as modelled.

        values  measured rows x objectives
        front   points x objectives: the front of this study
        corner  a value per objective: what is worse than it does not count
        """
        values = np.stack([self.transformed(d, self._raw[:, d]) for d in range(self._raw.shape[1])], axis=1)
        own, feasible = values[self.own], self._feasible()[self.own]
        front = own[feasible][_undominated(own[feasible])]
        low, high = (own[feasible] if feasible.any() else own).min(axis=0), own.max(axis=0)
        if len(front):
            # The first trial is the user's own config: any improvement on it in one objective counts.
            high = np.maximum(front.max(axis=0), np.minimum(own[0], high))
        span = np.where(high > low, high - low, np.maximum(np.nanstd(values, axis=0), 1e-6))
        return values, front, high + MARGIN * span

    def constraints(self) -> dict[str, Floats]:
        """Constraint -> its violation in each measured row, compressed. Without those that no row violates."""
        rows = [t.constraints for t in self.measured] + [trial.constraints for trial in self.transferred]
        names = sorted({n for t in self.measured for n in t.constraints} - {FAILED})
        columns = {n: np.array([row.get(n, 0.0) for row in rows]) for n in names}
        return {
            n: _compressed(column, float(np.nanmedian(np.abs(column))))
            for n, column in columns.items()
            if (column > 0).any()
        }


def _compressed(values: Floats, scale: float) -> Floats:
    """Linear near 0, logarithmic far from it."""
    return np.arcsinh(values / scale) if scale > 0 else values


def with_points(front: Floats, points: Floats) -> Floats:
    """A front, points x objectives, with further points: those of both that no other dominates."""
    both = np.concatenate([front, points])
    return both[_undominated(both)]


def _undominated(values: Floats) -> Ints:
    """The indices of the rows that no other row equals or beats in every column; of equal rows the first."""
    kept: list[int] = []
    for i in np.lexsort(values.T[::-1]):
        if not any((values[j] <= values[i]).all() for j in kept):
            kept.append(int(i))
    return np.array(sorted(kept), dtype=int)
