"""AutoSampler: an Optuna sampler for few expensive trials, categorical and ordered parameters, several objectives.

It uses what generic samplers don't know:

- The logarithm of a cost is nearly a sum of the parameters' own effects (additive.py).
- Failures follow single values and pairs of values (faults.py).
- No config is worth trying twice.

Of all allowed, untried configs it proposes the one with the largest expected hypervolume improvement (improvement.py),
times the probability that the trial works and keeps the constraints. Five options refine this:

- `primary`: every third proposal has the largest expected improvement of these objectives alone. The config that is
  used in the end lies at an end of the front, where it adds little hypervolume.
- `cost`: a config that is expensive to try must promise more.
- `ceilings`: a config that surely exceeds a ceiling (ceiling.py) is proposed only when nothing else is left.
- `earlier`: trials of earlier studies count as far as their effects resemble those of this study (observations.py).
- `pending`: trials that run now count as if each had turned out as predicted.

Parameters are categorical, whole numbers or real ones. The effect of a number is smooth, and numbers are proposed from
a grid that is refined around the best ones.

It works in any Optuna study and needs only numpy:

    optuna.create_study(directions=[...], sampler=AutoSampler())

Constraints are Optuna's (`trial.set_constraint`). A trial whose constraint "failed" is above 0 counts as failed. If a
trial was told objectives or constraints that were not measured, its user attribute "not_measured" lists them. Suggest
all parameters before anything that may fail: nothing is learned from a failed trial that lacks some of them.
"""

import itertools
import math
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from optuna import Study
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.search_space import IntersectionSearchSpace
from optuna.trial import FrozenTrial

from autotune.sampler.additive import Additive, fit
from autotune.sampler.arrays import Bools, Codes, Floats
from autotune.sampler.ceiling import Ceiling, Excluded, surely_over, truncated
from autotune.sampler.faults import Faults
from autotune.sampler.improvement import expected_improvement, probability_below
from autotune.sampler.observations import FAILED, NOT_MEASURED, Observations, TransferredTrial, with_points

__all__ = ["FAILED", "NOT_MEASURED", "AutoSampler", "Ceiling", "Excluded", "TransferredTrial"]

Params = Mapping[str, Any]
Candidates = Callable[[Sequence[Params]], Sequence[Params]]
Predicted = tuple[Floats, Floats]  # mean and standard deviation, one of each per config

LEAST = 3  # measured trials that are needed before anything is learned
ENUMERATED = 20_000  # up to so many combinations, all are candidates
DRAWN = 2_000  # of a larger space: so many random ones, and the neighbours of the front
CAUTION = 2  # power of the probability to work. With 1, more trials failed and nothing better was found
PRIMARY_EVERY = 3  # proposals, of which one improves the primary objectives alone
LIKELY = 0.5  # probability to count from which a pending trial stands on the front
COST_WEIGHT = 0.5  # power of a trial's expected cost. With 1, cheap configs were tried for too long
COST = -1  # the key of the cost's model, among the objectives' indices and the constraints' names
FIRST_STEPS, STEPS = 60, 15  # of a fit: the first one, and one that starts from the last fit


class AutoSampler(BaseSampler):  # type: ignore[misc]
    """An Optuna sampler; the module's docstring says how it chooses.

    seed         of all random choices
    candidates   returns the allowed configs that were not tried; default: every combination. It is given the best
                 configs so far, so that in a space that is too large to list it can add their neighbours
    irrelevant   an objective's index or a constraint's name -> the parameters that have no effect on it
    fails_count  is a trial told as FAIL the fault of its config? (One with the constraint "failed" above 0 always is.)
    ceilings     an objective's index -> the limit above which its trials may fail
    earlier      returns the trials of each earlier study; called for every proposal
    primary      the indices of the objectives whose minimum matters most; of several, their mean as modelled
    cost         the user attribute that holds what a trial cost, such as its seconds
    conditions   a number's name -> (a categorical parameter, its value beside which alone the number has an effect)
    lead         the former name of `primary`
    pending      returns the parameters of the trials that run now; `candidates` is to leave them out

    `excluded` holds, by objective, which candidates the ceilings excluded from the last proposal. `leads` says whether
    the last proposal is expected to be better than all others by the primary objectives.
    """

    def __init__(
        self,
        *,
        seed: int | None = None,
        candidates: Candidates | None = None,
        irrelevant: Mapping[int | str, Iterable[str]] | None = None,
        fails_count: bool = True,
        ceilings: Mapping[int, Ceiling] | None = None,
        earlier: Callable[[], Sequence[Sequence[TransferredTrial]]] = lambda: (),
        primary: Sequence[int] = (),
        cost: str | None = None,
        conditions: Mapping[str, tuple[str, Any]] | None = None,
        lead: Sequence[int] = (),
        pending: Callable[[], Sequence[Params]] = lambda: (),
    ) -> None:
        self._rng = random.Random(seed)
        self._independent = RandomSampler(seed=seed)
        self._intersection = IntersectionSearchSpace()
        self._candidates, self._fails_count, self._earlier = candidates, fails_count, earlier
        self._ceilings, self._primary, self._cost = dict(ceilings or {}), list(primary or lead), cost
        self._conditions, self._pending = dict(conditions or {}), pending
        self.excluded: dict[int, Excluded] = {}
        self.leads = False
        self._last_theta: dict[int | str, Floats] = {}  # of each model: where its last fit ended
        self.set_irrelevant(irrelevant or {})

    def set_irrelevant(self, irrelevant: Mapping[int | str, Iterable[str]]) -> None:
        """Replace the parameters without effect. Every model is then fitted from its priors again."""
        self._irrelevant = {name: frozenset(parameters) for name, parameters in irrelevant.items()}
        self._last_theta.clear()

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        space = self._intersection.calculate(study)
        return {name: distribution for name, distribution in space.items() if not distribution.single()}

    def sample_independent(self, study: Study, trial: FrozenTrial, name: str, distribution: BaseDistribution) -> Any:
        return self._independent.sample_independent(study, trial, name, distribution)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: Mapping[str, BaseDistribution]
    ) -> dict[str, Any]:
        """The most promising config; {} while there are too few trials to learn from, or no candidate is left."""
        self.leads = False
        if not search_space:
            return {}
        observed = Observations(
            study,
            search_space,
            fails_count=self._fails_count,
            earlier=self._earlier(),
            conditions=self._conditions,
        )
        if len(observed.measured) < (1 if observed.transferred else LEAST):
            return {}
        best = [observed.params(frozen) for frozen in observed.front()]
        candidates = self._candidates(best) if self._candidates else self._combinations(observed, best)
        if not candidates:
            return {}
        worth, leading = self._acquisition(observed, observed.codes(candidates))
        maxima = np.flatnonzero(worth >= worth.max())
        chosen = int(self._rng.choice(list(maxima)))
        self.leads = bool(leading[chosen])
        return dict(candidates[chosen])

    def _acquisition(self, observed: Observations, codes: Codes) -> tuple[Floats, Bools]:
        """Expected improvement per cost, times the probability that the trial counts; -1 above a ceiling.

        And which configs are likely to count and expected to be better than the front by the primary objectives.
        """
        values, front, corner = observed.box()
        models = [self._objective(d, observed, values[:, d]) for d in range(values.shape[1])]
        pending = observed.codes([params for params in self._pending() if observed.is_in_space(params)])
        if len(pending):
            models, front = self._believing(pending, models, observed, values, front)
        predicted = [model.predict(codes) for model in models]
        mean, deviation = (np.stack(columns, axis=1) for columns in zip(*predicted, strict=True))
        is_turn = (len(observed.codes_told) + len(pending)) % PRIMARY_EVERY == PRIMARY_EVERY - 1
        primary_alone = bool(self._primary) and len(front) > 0 and is_turn
        if primary_alone:
            worth = self._primary_improvement(mean, deviation, front)
        else:
            worth = expected_improvement(mean, deviation, front, corner)
        works = self._works(observed, codes)
        for d, ceiling in self._ceilings.items():
            fits = probability_below(*predicted[d], math.log(ceiling.limit))
            # The improvement of the primary objectives alone does not fall where this objective is large.
            works = works * (fits**CAUTION if primary_alone else fits)
        keeps = self._keeps(observed, codes)
        leading = np.zeros(len(codes), dtype=bool)
        if self._primary and len(front) > 0:
            best = front[:, self._primary].mean(axis=1).min()
            leading = (mean[:, self._primary].mean(axis=1) < best) & (works * keeps > LIKELY)
        worth = worth * keeps / self._cost_penalty(observed, codes)
        return np.where(self._over_ceilings(observed, predicted), -1.0, worth * works**CAUTION), leading

    def _keeps(self, observed: Observations, codes: Codes) -> Floats:
        """The probability that each config keeps the constraints that no ceiling covers."""
        covered, keeps = {ceiling.name for ceiling in self._ceilings.values()}, np.ones(len(codes))
        for name, violation in observed.constraints().items():
            if name not in covered:
                keeps = keeps * probability_below(*self._fit(name, observed, violation).predict(codes), 0.0)
        return keeps

    def _believing(
        self, pending: Codes, models: Sequence[Additive], observed: Observations, values: Floats, front: Floats
    ) -> tuple[list[Additive], Floats]:
        """The models and the front as they will be if each pending config turns out as predicted."""
        points = np.stack([model.predict(pending)[0] for model in models], axis=1)
        fitted = []
        for d, model in enumerate(models):
            codes, guessed, doubt = self._censored(d, observed, model) or (pending[:0], np.zeros(0), np.zeros(0))
            believed = np.concatenate([guessed, points[:, d]]), np.append(doubt, np.zeros(len(pending)))
            rows = (np.concatenate([codes, pending]), *believed)
            fitted.append(self._fit(d, observed, values[:, d], rows, steps=0))  # what was measured sets the variances
        counts = self._works(observed, pending) * self._keeps(observed, pending) > LIKELY
        return fitted, with_points(front, points[counts])

    def _cost_penalty(self, observed: Observations, codes: Codes) -> Floats:
        """The divisor of each config's improvement: a power of the expected cost of its trial."""
        costs = observed.attribute(self._cost) if self._cost else np.array([])
        if np.isfinite(costs).sum() < LEAST:
            return np.ones(len(codes))  # too few to learn from
        mean, _ = self._fit(COST, observed, np.log(costs)).predict(codes)
        return np.exp(COST_WEIGHT * mean)

    def _primary_improvement(self, mean: Floats, deviation: Floats, front: Floats) -> Floats:
        """By how much each config is expected to improve on the front's minimum of the primary objectives."""
        primary = mean[:, self._primary].mean(axis=1, keepdims=True)
        doubt = np.sqrt((deviation[:, self._primary] ** 2).sum(axis=1, keepdims=True)) / len(self._primary)
        best = front[:, self._primary].mean(axis=1).min()
        return expected_improvement(primary, doubt, np.empty((0, 1)), np.array([best]))

    def _over_ceilings(self, observed: Observations, predicted: Sequence[Predicted]) -> Bools:
        """Which configs surely exceed a ceiling. Only once this study has measured trials, whatever earlier ones say.

        Sets `excluded`, unless a ceiling excludes all candidates: then it excludes none.
        """
        over, self.excluded = np.zeros(len(predicted[0][0]), dtype=bool), {}
        for d, ceiling in self._ceilings.items() if len(observed.measured) >= LEAST else ():
            above = surely_over(*predicted[d], ceiling.limit)
            if above.any() and not above.all():
                least = math.exp(float(predicted[d][0][above].min()))
                self.excluded[d] = Excluded(int(above.sum()), len(above), least)
            over |= above
        return over

    def _works(self, observed: Observations, codes: Codes) -> Floats:
        """The probability that each config does not fail. Trials that hit a ceiling are no evidence of other faults."""
        hits = {t.number for ceiling in self._ceilings.values() for t in observed.failures if ceiling.hit(t)}
        return Faults.of(observed, ignore=hits).works(codes)

    def _objective(self, index: int, observed: Observations, values: Floats) -> Additive:
        """The model of an objective. If it has a ceiling, trials that hit it are censored observations above it."""
        model = self._fit(index, observed, values)
        censored = self._censored(index, observed, model)
        return self._fit(index, observed, values, censored) if censored else model

    def _censored(self, index: int, observed: Observations, model: Additive) -> tuple[Codes, Floats, Floats] | None:
        """The trials that hit the objective's ceiling: codes, expected values and their variances. None: none did."""
        ceiling = self._ceilings.get(index)
        hits = [t for t in observed.failures if ceiling.hit(t)] if ceiling else []
        if ceiling is None or not hits:
            return None
        codes = observed.codes([t.params for t in hits])
        return (codes, *truncated(*model.predict(codes), math.log(ceiling.limit)))

    def _fit(
        self,
        name: int | str,
        observed: Observations,
        values: Floats,
        censored: tuple[Codes, Floats, Floats] | None = None,
        *,
        steps: int | None = None,
    ) -> Additive:
        """The model of an objective (by its index), a constraint (by its name) or the cost.

        values    one per measured row; rows without a finite value are left out
        censored  more rows of this study: codes, expected values and their variances
        steps     of the fit; None: FIRST_STEPS, or STEPS where it goes on from the last one
        """
        irrelevant = self._irrelevant.get(name, frozenset())
        acts = np.array([parameter not in irrelevant for parameter in observed.names])
        before = self._last_theta.get(name)
        usual = FIRST_STEPS if before is None else STEPS
        known = np.isfinite(values) & observed.known(name)
        codes, doubt, tasks = observed.codes_measured[known], np.zeros(known.sum()), observed.tasks[known]
        values = values[known]
        if censored:
            codes, values = np.concatenate([codes, censored[0]]), np.concatenate([values, censored[1]])
            doubt, tasks = np.concatenate([doubt, censored[2]]), np.append(tasks, [0] * len(censored[1]))
        model = fit(
            codes,
            values,
            counts=observed.counts,
            acts=acts,
            before=before,
            steps=usual if steps is None else steps,
            doubt=doubt,
            tasks=tasks,
        )
        self._last_theta[name] = model.theta
        return model

    def _combinations(self, observed: Observations, best: Sequence[Params]) -> list[Params]:
        """The untried combinations: all of a small space, a random part of a large one with the best's neighbours.

        Of a number, those on a grid and those around the best's.
        """
        grids = [observed.scales[n].grid() if n in observed.scales else observed.choices[n] for n in observed.names]
        if math.prod(map(len, grids)) <= ENUMERATED:
            found: Iterable[tuple[Any, ...]] = itertools.product(*grids)
            near = _neighbours(observed, best, grids) if observed.scales else ()
        else:
            found = [tuple(grid[self._rng.randrange(len(grid))] for grid in grids) for _ in range(DRAWN)]
            near = _neighbours(observed, best, grids)
        made = [dict(zip(observed.names, row, strict=True)) for row in dict.fromkeys([*found, *near])]
        tried = {tuple(row) for row in observed.codes_told.tolist()}
        return [p for p, row in zip(made, observed.codes(made).tolist(), strict=True) if tuple(row) not in tried]


def _neighbours(
    observed: Observations, best: Sequence[Params], grids: Sequence[Sequence[Any]]
) -> Iterable[tuple[Any, ...]]:
    """The configs that differ from one of these in one parameter."""
    for params in best:
        row = tuple(params[name] for name in observed.names)
        for k, name in enumerate(observed.names):
            values = [*grids[k], *(observed.scales[name].around(params) if name in observed.scales else ())]
            yield from ((*row[:k], value, *row[k + 1 :]) for value in values if value != row[k])
