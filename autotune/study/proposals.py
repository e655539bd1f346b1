"""Proposals: Optuna's samplers by name, and the wrapper that keeps their proposals allowed and new."""

from collections.abc import Callable, Sequence
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, GPSampler, NSGAIISampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial, TrialState

from autotune.config import Config, Value
from autotune.errors import UserError, nearest
from autotune.study.optuna_view import Parameters
from autotune.study.space import SearchSpace

SAMPLERS = ("auto", "tpe", "random", "nsga2", "gp")
ATTEMPTS = 30  # proposals of a sampler, before a random config is taken instead


def check_sampler(name: str) -> str:
    """The name itself. Raises UserError if there is no such sampler."""
    if name not in SAMPLERS:
        raise UserError(f"unknown sampler {name!r}: {nearest(name, SAMPLERS)}")
    return name


class ValidProposals(BaseSampler):  # type: ignore[misc]
    """Asks another sampler until a proposal is allowed and new; after ATTEMPTS takes the fallback.

    tried     returns the configs that are not new
    queued    the config that comes next, without asking the sampler
    fallback  an allowed, new config, drawn at random
    """

    def __init__(self, inner: BaseSampler, space: SearchSpace, tried: Callable[[], set[Config]]) -> None:
        self._inner, self._space, self._tried = inner, space, tried
        self._parameters = Parameters(space.free, space.ranges)
        self.queued: Config | None = None
        self.fallback: Config | None = None

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return self._parameters.distributions()

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        if self.queued is not None:
            return self._parameters.of(self.queued)
        tried = self._tried()
        for _ in range(ATTEMPTS):
            proposal = self._inner.sample_relative(study, trial, search_space)
            if not proposal:
                break  # too few trials to learn from
            config = self._space.config(self._parameters.values(self._parameters.rounded(proposal)))
            if config not in tried and not self._space.objection(config):
                return self._parameters.of(config)
        assert self.fallback is not None
        return self._parameters.of(self.fallback)

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, name: str, distribution: BaseDistribution
    ) -> Value:
        raise AssertionError(f"{name} was not sampled with the others")

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        self._inner.before_trial(study, trial)

    def after_trial(
        self, study: optuna.Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None
    ) -> None:
        self._inner.after_trial(study, trial, state, values)


def make_sampler(name: str, seed: int, *, parallel: bool = False) -> BaseSampler:
    """Optuna's own sampler of this name, with every choice that matters written out.

    parallel  trials run at the same time: TPE takes those that have not ended for bad ones. The others know no such
              option; for them, what has not ended is only not proposed again
    """
    if name == "tpe":
        # Univariate TPE proposes a config for ever once it has failed. 5 start-up trials do, since recipes come first.
        return TPESampler(multivariate=True, constant_liar=parallel, n_startup_trials=5, seed=seed)
    if name == "nsga2":
        return NSGAIISampler(population_size=10, seed=seed)
    if name == "gp":
        return GPSampler(n_startup_trials=5, seed=seed, warn_independent_sampling=False)
    return RandomSampler(seed=seed)
