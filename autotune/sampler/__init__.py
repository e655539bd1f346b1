"""AutoSampler: an Optuna sampler for settings: a few categorical parameters, dear trials, several objectives.

Knows what generic samplers can't: the logarithm of a cost is nearly a sum of the parameters' own effects (additive.py),
faults follow values and pairs of them (faults.py), nothing is worth trying twice. Proposes, among all configs that are
allowed and were not tried, the one that is expected to add most hypervolume (improvement.py), times the probability
that it works and keeps the constraints. Needs numpy alone.

In anyone's study of categorical parameters: `optuna.create_study(directions=[...], sampler=AutoSampler())`. Constraints
are Optuna's own (`trial.set_constraint`); one that is named "failed" marks a trial that came to nothing. Objectives and
constraints of a trial that were told without having been measured are listed in its user attribute "not_measured". Ask
for all parameters before anything that may fail: of a trial that failed without some of them nothing can be learned.
"""

import itertools
import math
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from optuna import Study
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.search_space import IntersectionSearchSpace
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from autotune.sampler.additive import fit
from autotune.sampler.faults import Faults
from autotune.sampler.improvement import expected_improvement, probability_below

Array = Any
Params = Mapping[str, Any]
Pool = Callable[[Sequence[Params]], Sequence[Params]]

FAILED = "failed"  # the constraint that says so
NOT_MEASURED = "not_measured"  # the user attribute with a list of objectives' indices and constraints' names
LEAST = 3  # measured trials before there is anything to learn from
ENUMERATED = (
    20_000  # combinations: so many are looked at one and all; of more, DRAWN at random and the front's neighbours
)
DRAWN = 2_000
MARGIN = 0.1  # of an objective's span on the front: how much worse than its worst still counts
CAUTION = 2  # power of the probability to work: at 1 more trials were lost to faults, and no more was found
FIRST_STEPS, STEPS = 60, 15  # of fitting: the first time, and going on from the last fit


class AutoSampler(BaseSampler):  # type: ignore[misc]
    """See above.

    pool    the allowed configs that were not tried, given the best so far (whose neighbours are worth a look where they
            are too many to list); by default every combination
    silent  an objective's index or a constraint's name -> the parameters that have no effect on it
    fails_count  is a trial told as FAIL the fault of its config? (One with the constraint "failed" above 0 always is.)
    """

    def __init__(
        self,
        *,
        seed: int | None = None,
        pool: Pool | None = None,
        silent: Mapping[int | str, Iterable[str]] | None = None,
        fails_count: bool = True,
    ) -> None:
        self._rng = random.Random(seed)
        self._independent = RandomSampler(seed=seed)
        self._intersection = IntersectionSearchSpace()
        self._pool, self._fails_count = pool, fails_count
        self._silent = {index: frozenset(names) for index, names in (silent or {}).items()}
        self._before: dict[int | str, Array] = {}  # of each model, where its last fit ended

    def silence(self, silent: Mapping[int | str, Iterable[str]]) -> None:
        """From now on these parameters are without effect, and no others."""
        self._silent = {index: frozenset(names) for index, names in silent.items()}
        self._before.clear()

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        space = self._intersection.calculate(study)
        return {n: d for n, d in space.items() if isinstance(d, CategoricalDistribution) and not d.single()}

    def sample_independent(self, study: Study, trial: FrozenTrial, name: str, distribution: BaseDistribution) -> Any:
        return self._independent.sample_independent(study, trial, name, distribution)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: Mapping[str, BaseDistribution]
    ) -> dict[str, Any]:
        """The most promising config; {} where there is too little to learn from."""
        if not search_space:
            return {}
        seen = _Seen(study, search_space, self._fails_count)
        if len(seen.measured) < LEAST:
            return {}
        best = [seen.params(frozen) for frozen in seen.front()]
        allowed = self._pool(best) if self._pool else self._combinations(seen, best)
        if not allowed:
            return {}
        codes = seen.codes(allowed)
        worth = self._worth(seen, codes)
        best_of = np.flatnonzero(worth >= worth.max())
        return dict(allowed[int(self._rng.choice(list(best_of)))])

    def _worth(self, seen: "_Seen", codes: Array) -> Array:
        """Expected added hypervolume, times the probability that it comes to something."""
        values, front, corner = seen.box()
        predicted = [self._predict(d, seen, values[:, d], codes) for d in range(values.shape[1])]
        mean, deviation = (np.stack(columns, axis=1) for columns in zip(*predicted, strict=True))
        worth = expected_improvement(mean, deviation, front, corner)
        for name, overstepped in seen.constraints().items():
            worth = worth * probability_below(*self._predict(name, seen, overstepped, codes), 0.0)
        return worth * Faults(seen.all_codes, seen.failed, seen.counts).works(codes) ** CAUTION

    def _predict(self, name: int | str, seen: "_Seen", values: Array, codes: Array) -> tuple[Array, Array]:
        """Of an objective (its index) or a constraint (its name)."""
        silent = self._silent.get(name, frozenset())
        acts = np.array([parameter not in silent for parameter in seen.names])
        before = self._before.get(name)
        steps = FIRST_STEPS if before is None else STEPS
        known = seen.known(name)
        model = fit(
            seen.measured_codes[known], values[known], counts=seen.counts, acts=acts, before=before, steps=steps
        )
        self._before[name] = model.theta
        return model.predict(codes)

    def _combinations(self, seen: "_Seen", best: Sequence[Params]) -> list[Params]:
        """What was not tried: of few combinations all, of many some."""
        if math.prod(seen.counts) <= ENUMERATED:
            all_codes: Iterable[tuple[int, ...]] = itertools.product(*map(range, seen.counts))
        else:
            drawn = [tuple(self._rng.randrange(count) for count in seen.counts) for _ in range(DRAWN)]
            all_codes = dict.fromkeys([*drawn, *_neighbours(seen.codes(best), seen.counts)])
        tried = {tuple(row) for row in seen.all_codes.tolist()}
        return [
            {n: seen.choices[n][code] for n, code in zip(seen.names, row, strict=True)}
            for row in all_codes
            if row not in tried
        ]


def _neighbours(codes: Array, counts: Sequence[int]) -> Iterable[tuple[int, ...]]:
    """The configs that differ in one parameter."""
    for row in codes.tolist():
        for k, count in enumerate(counts):
            yield from ((*row[:k], value, *row[k + 1 :]) for value in range(count) if value != row[k])


class _Seen:
    """The study so far, in numbers."""

    def __init__(self, study: Study, space: Mapping[str, BaseDistribution], fails_count: bool) -> None:
        self.names = sorted(space)
        self.choices = {name: space[name].choices for name in self.names}
        self.counts = [len(self.choices[name]) for name in self.names]
        self._codes = {name: {v: i for i, v in enumerate(self.choices[name])} for name in self.names}
        self.signs = np.array([-1.0 if d == StudyDirection.MAXIMIZE else 1.0 for d in study.directions])
        states = (TrialState.COMPLETE, TrialState.FAIL) if fails_count else (TrialState.COMPLETE,)
        told = [t for t in study.get_trials(deepcopy=False, states=states) if self._is_here(t)]
        self.measured = [t for t in told if t.state == TrialState.COMPLETE and t.constraints.get(FAILED, 0.0) <= 0]
        known = {t.number for t in self.measured}
        self.failed = np.array([t.number not in known for t in told], dtype=bool)
        self.all_codes = self.codes([t.params for t in told])
        self.measured_codes = self.all_codes[~self.failed]

    def _is_here(self, trial: FrozenTrial) -> bool:
        return all(name in trial.params and trial.params[name] in self._codes[name] for name in self.names)

    def params(self, trial: FrozenTrial) -> Params:
        return {name: trial.params[name] for name in self.names}

    def codes(self, configs: Sequence[Params]) -> Array:
        """A row a config, a column a parameter: the index of its value."""
        columns = [[codes[config[name]] for config in configs] for name, codes in self._codes.items()]
        return np.array(columns, dtype=int).reshape(len(self.names), len(configs)).T

    def known(self, name: int | str) -> Array:
        """Of each measured trial, was this objective or constraint measured? Of none: then all count as if."""
        known = np.array([name not in t.user_attrs.get(NOT_MEASURED, ()) for t in self.measured], dtype=bool)
        return known if known.any() else ~known

    def _feasible(self) -> Array:
        return np.array([all(v <= 0 for v in t.constraints.values()) for t in self.measured], dtype=bool)

    def front(self) -> list[FrozenTrial]:
        """The measured trials that keep the constraints and that no other of them beats."""
        values = np.array([t.values for t in self.measured]) * self.signs
        feasible = np.flatnonzero(self._feasible())
        return [self.measured[i] for i in feasible[_undominated(values[feasible])]]

    def box(self) -> tuple[Array, Array, Array]:
        """(each measured trial's objectives, the front's, the corner beyond which nothing counts), to be minimised.

        What is always above 0 is taken as its logarithm; anything else is bent where it is far beyond the front.
        """
        raw = np.array([t.values for t in self.measured]) * self.signs
        feasible = self._feasible()
        some = raw[feasible] if feasible.any() else raw
        values = np.stack([_transformed(raw[:, d], some[:, d]) for d in range(raw.shape[1])], axis=1)
        front = values[feasible][_undominated(values[feasible])]
        low, high = (values[feasible] if feasible.any() else values).min(axis=0), values.max(axis=0)
        if len(front):
            # The first trial is where the user comes from: what is better than that in one thing counts.
            worst = np.maximum(front.max(axis=0), np.minimum(values[0], high))
            high = worst
        span = np.where(high > low, high - low, np.maximum(values.std(axis=0), 1e-6))
        return values, front, high + MARGIN * span

    def constraints(self) -> dict[str, Array]:
        """Name -> by how much each measured trial oversteps it, bent; those that were never in doubt left away."""
        names = sorted({n for t in self.measured for n in t.constraints} - {FAILED})
        columns = {n: np.array([t.constraints.get(n, 0.0) for t in self.measured]) for n in names}
        return {n: _bent(column, np.median(np.abs(column))) for n, column in columns.items() if (column > 0).any()}


def _transformed(values: Array, feasible: Array) -> Array:
    if (values > 0).all():
        return np.log(values)
    return _bent(values, max(float(np.abs(feasible).max()), 0.0))


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
