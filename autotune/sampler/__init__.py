"""AutoSampler: an Optuna sampler for settings: a few categorical parameters, dear trials, several objectives.

Knows what generic samplers can't: the logarithm of a cost is nearly a sum of the parameters' own effects (additive.py),
faults follow values and pairs of them (faults.py), nothing is worth trying twice. Proposes, among all configs that are
allowed and were not tried, the one that is expected to add most hypervolume (improvement.py), times the probability
that it works and keeps the constraints. Where a `lead` is named, every third proposal is the one that is expected to
better its best by most: the config that is used in the end lies at an end of the front, where hypervolume is little.
Where a `cost` is named, what is dear to try must promise more. What surely lies beyond a ceiling (ceiling.py) is not
proposed while anything else is left. Trials of earlier studies count for what their shape is worth here (seen.py).
Needs numpy alone.

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
from optuna.trial import FrozenTrial

from autotune.sampler.additive import Additive, fit
from autotune.sampler.ceiling import Beyond, Ceiling, cut_off, surely_over
from autotune.sampler.faults import Faults
from autotune.sampler.improvement import expected_improvement, probability_below
from autotune.sampler.seen import FAILED, NOT_MEASURED, Earlier, Seen

__all__ = ["FAILED", "NOT_MEASURED", "AutoSampler", "Beyond", "Ceiling", "Earlier"]

Array = Any
Params = Mapping[str, Any]
Pool = Callable[[Sequence[Params]], Sequence[Params]]

LEAST = 3  # measured trials before there is anything to learn from
ENUMERATED = (
    20_000  # combinations: so many are looked at one and all; of more, DRAWN at random and the front's neighbours
)
DRAWN = 2_000
CAUTION = 2  # power of the probability to work: at 1 more trials were lost to faults, and no more was found
LEAD_EVERY = 3  # proposals: one of so many seeks the lead's best
DEAR = 0.5  # power of what a trial takes: at 1 what is cheap was tried too long
COST = -1  # the cost's place among the models: no objective's index, no constraint's name
FIRST_STEPS, STEPS = 60, 15  # of fitting: the first time, and going on from the last fit


class AutoSampler(BaseSampler):  # type: ignore[misc]
    """See above.

    pool    the allowed configs that were not tried, given the best so far (whose neighbours are worth a look where they
            are too many to list); by default every combination
    silent  an objective's index or a constraint's name -> the parameters that have no effect on it
    fails_count  is a trial told as FAIL the fault of its config? (One with the constraint "failed" above 0 always is.)
    ceilings     an objective's index -> the limit that its trials may not live to overstep
    earlier      the trials of each earlier study; asked for at every question
    primary      the objectives (indices) whose best matters most: of several, their mean as the models see them
    cost         the user attribute that says what a trial took, such as its seconds

    `beyond` says what the ceilings kept away at the last question, by objective.
    """

    def __init__(
        self,
        *,
        seed: int | None = None,
        pool: Pool | None = None,
        silent: Mapping[int | str, Iterable[str]] | None = None,
        fails_count: bool = True,
        ceilings: Mapping[int, Ceiling] | None = None,
        earlier: Callable[[], Sequence[Sequence[Earlier]]] = lambda: (),
        primary: Sequence[int] = (),
        cost: str | None = None,
    ) -> None:
        self._rng = random.Random(seed)
        self._independent = RandomSampler(seed=seed)
        self._intersection = IntersectionSearchSpace()
        self._pool, self._fails_count, self._earlier = pool, fails_count, earlier
        self._silent = {index: frozenset(names) for index, names in (silent or {}).items()}
        self._ceilings, self._primary, self._cost = dict(ceilings or {}), list(primary), cost
        self.beyond: dict[int, Beyond] = {}
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
        seen = Seen(study, search_space, fails_count=self._fails_count, earlier=self._earlier())
        if len(seen.measured) < (1 if seen.earlier else LEAST):
            return {}
        best = [seen.params(frozen) for frozen in seen.front()]
        allowed = self._pool(best) if self._pool else self._combinations(seen, best)
        if not allowed:
            return {}
        worth = self._worth(seen, seen.codes(allowed))
        best_of = np.flatnonzero(worth >= worth.max())
        return dict(allowed[int(self._rng.choice(list(best_of)))])

    def _worth(self, seen: Seen, codes: Array) -> Array:
        """Expected improvement, times the probability that it comes to something; -1 beyond a ceiling."""
        values, front, corner = seen.box()
        models = [self._objective(d, seen, values[:, d]) for d in range(values.shape[1])]
        predicted = [model.predict(codes) for model in models]
        mean, deviation = (np.stack(columns, axis=1) for columns in zip(*predicted, strict=True))
        leads = bool(self._primary) and len(front) > 0 and len(seen.codes_told) % LEAD_EVERY == LEAD_EVERY - 1
        if leads:
            worth = self._lead_improvement(mean, deviation, front)
        else:
            worth = expected_improvement(mean, deviation, front, corner)
        works = self._works(seen, codes)
        for d, ceiling in self._ceilings.items():
            fits = probability_below(*predicted[d], math.log(ceiling.limit))
            works = works * (fits**CAUTION if leads else fits)  # to better the lead, too much of this costs nothing
        covered = {ceiling.name for ceiling in self._ceilings.values()}
        for name, overstepped in seen.constraints().items():
            if name not in covered:
                worth = worth * probability_below(*self._fit(name, seen, overstepped).predict(codes), 0.0)
        worth = worth / self._dearness(seen, codes)
        return np.where(self._too_much(seen, predicted), -1.0, worth * works**CAUTION)

    def _dearness(self, seen: Seen, codes: Array) -> Array:
        """By how much more a config must promise than another one, for what its trial is expected to cost."""
        costs = seen.attribute(self._cost) if self._cost else np.array([])
        if np.isfinite(costs).sum() < LEAST:
            return np.ones(len(codes))  # too few to learn from
        mean, _ = self._fit(COST, seen, np.log(costs)).predict(codes)
        return np.exp(DEAR * mean)

    def _lead_improvement(self, mean: Array, deviation: Array, front: Array) -> Array:
        """By how much each config is expected to better the lead's best, which is on the front of all objectives."""
        one = mean[:, self._primary].mean(axis=1, keepdims=True)
        doubt = np.sqrt((deviation[:, self._primary] ** 2).sum(axis=1, keepdims=True)) / len(self._primary)
        best = front[:, self._primary].mean(axis=1).min()
        return expected_improvement(one, doubt, np.empty((0, 1)), np.array([best]))

    def _too_much(self, seen: Seen, predicted: Sequence[tuple[Array, Array]]) -> Array:
        """Which configs surely lie beyond a ceiling: by what this study has measured, whatever earlier ones say."""
        over, self.beyond = np.zeros(len(predicted[0][0]), dtype=bool), {}
        for d, ceiling in self._ceilings.items() if len(seen.measured) >= LEAST else ():
            mine = surely_over(*predicted[d], ceiling.limit)
            if mine.any() and not mine.all():
                least = math.exp(float(predicted[d][0][mine].min()))
                self.beyond[d] = Beyond(int(mine.sum()), len(mine), least)
            over |= mine
        return over

    def _works(self, seen: Seen, codes: Array) -> Array:
        """The probability that it does not fail. Who has hit a ceiling is no evidence of other faults."""
        hits = {t.number for ceiling in self._ceilings.values() for t in seen.failures if ceiling.hit(t)}
        return Faults.of(seen, hits).works(codes)

    def _objective(self, index: int, seen: Seen, values: Array) -> Additive:
        """The model of an objective; of one with a ceiling, those who hit it count as cut off below it."""
        model = self._fit(index, seen, values)
        ceiling = self._ceilings.get(index)
        hits = [t for t in seen.failures if ceiling.hit(t)] if ceiling else []
        if ceiling is None or not hits:
            return model
        codes = seen.codes([t.params for t in hits])
        guessed, doubt = cut_off(*model.predict(codes), math.log(ceiling.limit))
        return self._fit(index, seen, values, also=(codes, guessed, doubt))

    def _fit(
        self, name: int | str, seen: Seen, values: Array, also: tuple[Array, Array, Array] | None = None
    ) -> Additive:
        """The model of an objective (its index) or a constraint (its name). `also`: codes, values and their doubt."""
        silent = self._silent.get(name, frozenset())
        acts = np.array([parameter not in silent for parameter in seen.names])
        before = self._before.get(name)
        steps = FIRST_STEPS if before is None else STEPS
        known = np.isfinite(values) & seen.known(name)
        codes, doubt, tasks = seen.codes_measured[known], np.zeros(known.sum()), seen.tasks[known]
        values = values[known]
        if also:
            codes, values = np.concatenate([codes, also[0]]), np.concatenate([values, also[1]])
            doubt, tasks = np.concatenate([doubt, also[2]]), np.append(tasks, [0] * len(also[1]))
        model = fit(codes, values, counts=seen.counts, acts=acts, before=before, steps=steps, doubt=doubt, tasks=tasks)
        self._before[name] = model.theta
        return model

    def _combinations(self, seen: Seen, best: Sequence[Params]) -> list[Params]:
        """What was not tried: of few combinations all, of many some."""
        if math.prod(seen.counts) <= ENUMERATED:
            all_codes: Iterable[tuple[int, ...]] = itertools.product(*map(range, seen.counts))
        else:
            drawn = [tuple(self._rng.randrange(count) for count in seen.counts) for _ in range(DRAWN)]
            all_codes = dict.fromkeys([*drawn, *_neighbours(seen.codes(best), seen.counts)])
        tried = {tuple(row) for row in seen.codes_told.tolist()}
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
