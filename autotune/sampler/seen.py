"""What a study and the studies before it have seen so far, in numbers."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from optuna import Study
from optuna.distributions import BaseDistribution
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

Array = Any
Params = Mapping[str, Any]

FAILED = "failed"  # the constraint that says so
NOT_MEASURED = "not_measured"  # the user attribute with a list of objectives' indices and constraints' names
MARGIN = 0.1  # of an objective's span on the front: how much worse than its worst still counts


@dataclass(frozen=True)
class Earlier:
    """A trial of an earlier study, said in this one's terms. Only how it compares with the others of its study counts.

    values       the objectives, as they might be here, NaN where nothing is known; None: it failed
    constraints  those that would follow
    """

    params: Params
    values: tuple[float, ...] | None
    constraints: Mapping[str, float]


class Seen:
    """The trials of this study, and behind them those of each earlier one. Task 0 is this study, see additive.py."""

    def __init__(
        self,
        study: Study,
        space: Mapping[str, BaseDistribution],
        *,
        fails_count: bool = True,
        earlier: Sequence[Sequence[Earlier]] = (),
    ) -> None:
        self.names = sorted(space)
        self.choices = {name: space[name].choices for name in self.names}
        self.counts = [len(self.choices[name]) for name in self.names]
        self._codes = {name: {v: i for i, v in enumerate(self.choices[name])} for name in self.names}
        self.signs = np.array([-1.0 if d == StudyDirection.MAXIMIZE else 1.0 for d in study.directions])
        states = (TrialState.COMPLETE, TrialState.FAIL) if fails_count else (TrialState.COMPLETE,)
        told = [t for t in study.get_trials(deepcopy=False, states=states) if self._is_here(t.params)]
        self.measured = [t for t in told if t.state == TrialState.COMPLETE and t.constraints.get(FAILED, 0.0) <= 0]
        known = {t.number for t in self.measured}
        self.failures = [t for t in told if t.number not in known]
        here = [[one for one in group if self._is_here(one.params)] for group in earlier]
        self.earlier_failed = [one for group in here for one in group if one.values is None]
        worked = [(task, one) for task, group in enumerate(here, 1) for one in group if one.values is not None]
        self.earlier = [one for _, one in worked]
        self.tasks = np.array([0] * len(self.measured) + [task for task, _ in worked], dtype=int)
        self.codes_told = self.codes([t.params for t in told])
        self.codes_measured = self.codes([t.params for t in [*self.measured, *self.earlier]])
        values = [t.values for t in self.measured] + [one.values for one in self.earlier]
        self._raw = np.array(values).reshape(len(values), len(self.signs)) * self.signs

    def _is_here(self, params: Params) -> bool:
        return all(name in params and params[name] in self._codes[name] for name in self.names)

    @property
    def own(self) -> Array:
        """Of each measured row, is it this study's?"""
        return self.tasks == 0

    def params(self, trial: FrozenTrial) -> Params:
        return {name: trial.params[name] for name in self.names}

    def codes(self, configs: Sequence[Params]) -> Array:
        """A row a config, a column a parameter: the index of its value."""
        columns = [[codes[config[name]] for config in configs] for name, codes in self._codes.items()]
        return np.array(columns, dtype=int).reshape(len(self.names), len(configs)).T

    def known(self, name: int | str) -> Array:
        """Of each measured row, is this objective or constraint known? Of none: then all count as they were told."""
        own = [name not in t.user_attrs.get(NOT_MEASURED, ()) for t in self.measured]
        known = np.array([*own, *(True for _ in self.earlier)], dtype=bool)
        return known if known.any() else ~known

    def attribute(self, name: str) -> Array:
        """Of each measured row, this user attribute, a number above 0; NaN where it has none."""
        own = [t.user_attrs.get(name, math.nan) for t in self.measured]
        return np.array([*own, *(math.nan for _ in self.earlier)], dtype=float)

    def _feasible(self) -> Array:
        rows = [t.constraints for t in self.measured] + [one.constraints for one in self.earlier]
        return np.array([all(v <= 0 for v in row.values()) for row in rows], dtype=bool)

    def front(self) -> list[FrozenTrial]:
        """The measured trials of this study that keep the constraints and that no other of them beats."""
        feasible = np.flatnonzero(self._feasible()[self.own])
        return [self.measured[i] for i in feasible[_undominated(self._raw[feasible])]]

    def transformed(self, index: int, values: Array) -> Array:
        """Values of an objective as the models see them: the logarithm of what is always above 0; anything else is
        bent where it is far beyond what keeps the constraints."""
        known = self._raw[:, index]
        known = known[np.isfinite(known)]
        if (known > 0).all():
            return np.log(values)
        kept = self._raw[self._feasible(), index]
        kept = kept[np.isfinite(kept)]
        return _bent(values, float(np.abs(kept if len(kept) else known).max()))

    def box(self) -> tuple[Array, Array, Array]:
        """(each measured row's objectives, this study's front, the corner beyond which nothing counts), minimised."""
        values = np.stack([self.transformed(d, self._raw[:, d]) for d in range(self._raw.shape[1])], axis=1)
        mine, feasible = values[self.own], self._feasible()[self.own]
        front = mine[feasible][_undominated(mine[feasible])]
        low, high = (mine[feasible] if feasible.any() else mine).min(axis=0), mine.max(axis=0)
        if len(front):
            # The first trial is where the user comes from: what is better than that in one thing counts.
            high = np.maximum(front.max(axis=0), np.minimum(mine[0], high))
        span = np.where(high > low, high - low, np.maximum(np.nanstd(values, axis=0), 1e-6))
        return values, front, high + MARGIN * span

    def constraints(self) -> dict[str, Array]:
        """Name -> by how much each measured row oversteps it, bent; those that were never in doubt left away."""
        rows = [t.constraints for t in self.measured] + [one.constraints for one in self.earlier]
        names = sorted({n for t in self.measured for n in t.constraints} - {FAILED})
        columns = {n: np.array([row.get(n, 0.0) for row in rows]) for n in names}
        return {n: _bent(column, np.nanmedian(np.abs(column))) for n, column in columns.items() if (column > 0).any()}


def _bent(values: Array, scale: float) -> Array:
    """Straight near 0, a logarithm far from it."""
    return np.arcsinh(values / scale) if scale > 0 else values


def _undominated(values: Array) -> Array:
    """The indices of the rows that no other row is at least as good as, in everything; the first of equals."""
    kept: list[int] = []
    for i in np.lexsort(values.T[::-1]):
        if not any((values[j] <= values[i]).all() for j in kept):
            kept.append(int(i))
    return np.array(sorted(kept), dtype=int)
