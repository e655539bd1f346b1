"""Compare our sampler with c-TPE, HEBO, SMAC3 and BoTorch's qLogNEHVI, on recorded and on simulated spaces.

    pip install botorch HEBO smac optunahub     (of the benchmark, not of autotune)
    python benchmarks/opponents.py reports/recorded/*.parquet [--samplers auto,tpe,qlognehvi] [--seeds 10] [--budget 60]
    python benchmarks/opponents.py --worlds 12 [--samplers auto,tpe,qlognehvi] [--budget 40]

A table is searched once for each seed, each simulated world of samplers_simulated.py once.

All get the same: the baseline and the recipes first, then proposals that the table has; one that it lacks, or that was
tried, is asked for again, and after thirty a random row is taken. A trial that failed has the worst values of the
others. Each is used as it is meant to be used, but for HEBO's number of generations:

qlognehvi  a Gaussian process for each objective over the one-hot settings, the logarithms of latency and memory (Ament
           et al., 2023, Unexpected Improvements to Expected Improvement for Bayesian Optimization). Its acquisition is
           evaluated at every row of the table that was not tried
hebo       GeneralBO, HEBO's optimizer for several objectives; eight suggestions are asked for at once. It searches its
           model for 20 generations of 100, not for 200, which take minutes: the recorded tables have at most 112 rows
smac       SMAC3's hyperparameter facade (random forest) with ParEGO for several objectives. Its acquisition, too, is
           evaluated at every row of the table that was not tried, as a table lacks most of what it would propose
ctpe       c-TPE (Watanabe and Hutter, 2023), of OptunaHub, or of a local copy (--optunahub FOLDER). It has one
           objective: it is given the latency, and the limit on quality as its constraint, and finds a front by
           chance

For each table and sampler are printed: the median number of trials to 90 % of the true front's hypervolume with the
quartiles, the mean share after 10, 20 and 40 trials with its 95 % interval (a bootstrap over the searches), how many
searches had the pick, after how many trials (median), and the seconds of a proposal.
"""

import argparse
import math
import statistics
import tempfile
import time
from abc import abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, TrialState
from samplers_simulated import world
from scipy.stats import bootstrap

from autotune.config import Config
from autotune.recordings.parquet import read_table
from autotune.recordings.recording import Recording
from autotune.research.replay.convergence import Convergence, convergence_of
from autotune.research.replay.reference_front import ReferenceFront
from autotune.research.replay.replay import TableSpace, replay_once
from autotune.study import proposals
from autotune.study import study as studies

MARKS = (10, 20, 40)
SHARE = 0.9
SAMPLES = 64  # of the posterior, for the expectation
LEAST = 4  # measured trials before a model is fitted
SUGGESTIONS = 8  # of HEBO at once
GENERATIONS = 20  # of HEBO's search of its model, of 100 each: with its own 200, a proposal takes three minutes
LEAST_SEARCHES = 5  # for an interval
NEVER = 10**9  # trials; between two infinities there is no quartile


class Opponent(optuna.samplers.BaseSampler):  # type: ignore[misc]
    """Proposes from LEAST measured trials on; before, nothing. `attach` tells it of the table and of what was tried."""

    def __init__(self, seed: int) -> None:
        self.seed, self.asked_s = seed, list[float]()

    def attach(self, space: TableSpace, tried: Callable[[], set[Config]]) -> None:
        self.space, self.tried = space, tried

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return {}

    def sample_independent(self, *_: Any) -> Any:
        raise AssertionError("every setting is sampled with the others")

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        done = [t for t in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)) if all(map(_told, t.values))]
        if len(done) < LEAST:
            return {}
        started = time.monotonic()
        proposal = self.propose(done, trial, search_space)
        self.asked_s.append(time.monotonic() - started)
        return proposal

    @abstractmethod
    def propose(
        self, done: Sequence[FrozenTrial], trial: FrozenTrial, space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """The settings of the next trial; {}: none."""


class QLogNEHVI(Opponent):
    """Takes the untried config of the table with the largest acquisition."""

    def propose(
        self, done: Sequence[FrozenTrial], trial: FrozenTrial, space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        left = [config for config in self.space.rows if config not in self.tried()]
        if not left:
            return {}
        chosen = left[self._best([t.params for t in done], [t.values for t in done], left)]
        return {name: chosen.get(name, space[name].choices[0]) for name in space}

    def _best(self, tried: Sequence[Any], values: Sequence[Sequence[float]], left: Sequence[Config]) -> int:
        import torch
        from botorch.acquisition.multi_objective.logei import qLogNoisyExpectedHypervolumeImprovement
        from botorch.fit import fit_gpytorch_mll
        from botorch.models import ModelListGP, SingleTaskGP
        from botorch.models.transforms import Standardize
        from botorch.sampling.normal import SobolQMCNormalSampler
        from gpytorch.mlls import SumMarginalLogLikelihood

        torch.manual_seed(self.seed)
        x = torch.tensor([self._coded(params) for params in tried], dtype=torch.double)
        y = -torch.tensor([[_log(v, i) for i, v in enumerate(of)] for of in values], dtype=torch.double)
        models = [SingleTaskGP(x, y[:, i : i + 1], outcome_transform=Standardize(1)) for i in range(y.shape[1])]
        model = ModelListGP(*models)
        fit_gpytorch_mll(SumMarginalLogLikelihood(model.likelihood, model))
        acquisition = qLogNoisyExpectedHypervolumeImprovement(
            model=model,
            ref_point=(y.min(0).values - 0.1 * (y.max(0).values - y.min(0).values)).tolist(),
            X_baseline=x,
            prune_baseline=True,
            sampler=SobolQMCNormalSampler(torch.Size([SAMPLES]), seed=self.seed),
        )
        candidates = torch.tensor([self._coded(config) for config in left], dtype=torch.double)
        with torch.no_grad():
            worth = torch.cat([acquisition(part.unsqueeze(1)) for part in candidates.split(64)])
        return int(worth.argmax())

    def _coded(self, values: Any) -> list[float]:
        """One-hot. A knob that does not act in a config is at its first value."""
        return [
            float(values.get(name, choices[0]) == choice)
            for name, choices in self.space.free.items()
            for choice in choices
        ]


class Hebo(Opponent):
    """HEBO's optimizer for several objectives. Settings are told by the places of their values."""

    told = 0
    optimizer: Any = None

    def propose(
        self, done: Sequence[FrozenTrial], trial: FrozenTrial, space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        import pandas as pd
        from hebo.design_space.design_space import DesignSpace
        from hebo.optimizers.general import GeneralBO

        if self.optimizer is None:
            np.random.seed(self.seed)
            self.free = [name for name, of in space.items() if len(of.choices) > 1]
            coded = [{"name": n, "type": "cat", "categories": list(range(len(space[n].choices)))} for n in self.free]
            options = {"num_obj": len(done[0].values), "rand_sample": LEAST, "evo_iters": GENERATIONS}
            self.optimizer = GeneralBO(DesignSpace().parse(coded), **options)
            self.waiting = list[dict[str, Any]]()
        if self.told < len(done):
            new, self.told = done[self.told :], len(done)
            rows = pd.DataFrame([{n: space[n].choices.index(t.params[n]) for n in self.free} for t in new])
            self.optimizer.observe(rows, np.array([[_log(v, i) for i, v in enumerate(t.values)] for t in new]))
            self.waiting = self.optimizer.suggest(SUGGESTIONS).to_dict("records")
        if not self.waiting:
            return {}
        places = self.waiting.pop(0)
        return {n: d.choices[int(places.get(n, 0))] for n, d in space.items()}


class Smac(Opponent):
    """SMAC3, which seeks its acquisition's maximum among the untried configs of the table.

    Beside them it proposes configs at random, as always. One that the table lacks stays without an answer.
    """

    told = 0
    facade: Any = None

    def propose(
        self, done: Sequence[FrozenTrial], trial: FrozenTrial, space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        from ConfigSpace import Categorical, Configuration, ConfigurationSpace
        from smac import HyperparameterOptimizationFacade as Facade
        from smac import Scenario
        from smac.acquisition.maximizer.abstract_acquisition_maximizer import AbstractAcquisitionMaximizer
        from smac.main.exceptions import ConfigurationSpaceExhaustedException
        from smac.multi_objective.parego import ParEGO
        from smac.runhistory.dataclasses import TrialInfo, TrialValue

        if self.facade is None:
            settings = ConfigurationSpace(seed=self.seed)
            settings.add([Categorical(n, list(range(len(d.choices)))) for n, d in space.items() if len(d.choices) > 1])
            objectives = [f"objective {i}" for i in range(len(done[0].values))]
            self.folder = tempfile.TemporaryDirectory()  # as long as this sampler lives
            where, how = Path(self.folder.name), {"deterministic": True, "n_trials": 10_000, "seed": self.seed}
            scenario = Scenario(settings, objectives=objectives, output_directory=where, **how)
            start = Facade.get_initial_design(scenario, n_configs=0)
            rules = {"multi_objective_algorithm": ParEGO(scenario), "initial_design": start, "logging_level": False}
            table, tried = self.space, self.tried

            class Rows(AbstractAcquisitionMaximizer):  # type: ignore[misc]
                def _maximize(self, previous_configs: list[Any], n_points: int) -> list[tuple[float, Any]]:
                    left = [config for config in table.rows if config not in tried()]
                    untried = [Configuration(settings, values=placed(config)) for config in left]
                    return self._sort_by_acquisition_value(untried) if untried else []

            def placed(config: Config) -> dict[str, int]:
                return {n: space[n].choices.index(config.get(n, space[n].choices[0])) for n in settings}

            rules["acquisition_maximizer"] = Rows(settings, Facade.get_acquisition_function(scenario), seed=self.seed)
            self.facade = Facade(scenario, lambda config, seed: 0.0, overwrite=True, **rules)
        for one in done[self.told :]:
            own = self.facade.scenario.configspace
            values = {n: space[n].choices.index(one.params[n]) for n in own}
            cost = [_log(v, i) for i, v in enumerate(one.values)]
            trial_info = TrialInfo(Configuration(own, values=values), seed=0)
            self.facade.tell(trial_info, TrialValue(cost=cost), save=False)  # proposals that are not told stay open
        self.told = len(done)
        try:
            asked = dict(self.facade.ask().config)
        except ConfigurationSpaceExhaustedException:  # it proposes nothing twice, and the table lacks some of it
            return {}
        return {n: d.choices[int(asked.get(n, 0))] for n, d in space.items()}


class CTpe(Opponent):
    """c-TPE: the smallest latency that keeps the constraints of the search."""

    hub: str | None = None  # a copy of OptunaHub's registry
    sampler: Any = None

    def propose(
        self, done: Sequence[FrozenTrial], trial: FrozenTrial, space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        import optunahub

        if self.sampler is None:
            how = {"package": "samplers/ctpe"}
            module = (
                optunahub.load_local_module(registry_root=self.hub, **how) if self.hub else optunahub.load_module(**how)
            )
            self.sampler = module.cTPESampler(constraints_func=lambda _: (0.0,), n_startup_trials=LEAST, seed=self.seed)
        study = optuna.create_study()
        for one in done:
            attributes = {"constraints": tuple(one.constraints.values())}
            kept = {"params": one.params, "distributions": one.distributions, "system_attrs": attributes}
            study.add_trial(optuna.trial.create_trial(value=_log(one.values[0], 0), **kept))
        return dict(self.sampler.sample_relative(study, trial, space))


OPPONENTS: dict[str, type[Opponent]] = {"qlognehvi": QLogNEHVI, "hebo": Hebo, "smac": Smac, "ctpe": CTpe}


class Attached(proposals.ValidProposals):
    """Hands the space, and what was tried, to a sampler that wants to know."""

    def __init__(self, inner: Any, space: Any, tried: Callable[[], set[Config]]) -> None:
        super().__init__(inner, space, tried)
        if isinstance(inner, Opponent):
            inner.attach(space, tried)


def _told(value: float) -> bool:
    return math.isfinite(value) and value < 1e29


def _log(value: float, index: int) -> float:
    """Latency and memory as logarithms; the quality loss, the last objective, as it is."""
    return math.log(value) if index < 2 else value


def search(table: Recording, sampler: str, seed: int, budget: int) -> tuple[Convergence, list[float]]:
    """How one search went, and the seconds of its proposals."""
    made: list[Opponent] = []
    usual = proposals.make_sampler

    def make(name: str, seed: int, **options: Any) -> optuna.samplers.BaseSampler:
        if name not in OPPONENTS:
            return usual(name, seed, **options)
        made.append(OPPONENTS[name](seed))
        return made[-1]

    studies.make_sampler, studies.ValidProposals = make, Attached  # type: ignore[assignment,misc]
    trials = replay_once(table, sampler, seed, budget)
    front = ReferenceFront(table.trials(), table.header.goal)
    return convergence_of(trials, front, seed), [second for each in made for second in each.asked_s]


def share(values: Sequence[float]) -> str:
    """The mean, with its 95 % interval."""
    if len(values) < LEAST_SEARCHES:
        return f"{statistics.fmean(values):.2f}"
    found = bootstrap((values,), np.mean, method="percentile", rng=np.random.default_rng(0)).confidence_interval
    return f"{statistics.fmean(values):.2f} ({found.low:.2f} to {found.high:.2f})"


def row(table: str, sampler: str, curves: Sequence[Convergence], asked_s: Sequence[float]) -> str:
    counts = [curve.trials_to(SHARE) or NEVER for curve in curves]
    quartiles = statistics.quantiles(counts, n=4) if len(counts) > 1 else counts * 3
    low, middle, high = (math.inf if count >= NEVER / 100 else count for count in quartiles)
    shares = []
    for mark in MARKS:
        shares.append(share([curve.at(mark) for curve in curves]))
    picks = [curve.trials_to_pick() for curve in curves]
    had = [count for count in picks if count is not None]
    pick = f"{len(had)} of {len(picks)}" + (f", {statistics.median(had):g}" if had else "")
    took = f"{statistics.median(asked_s):.2f}" if asked_s else ""
    cells = [table, sampler, str(len(curves)), f"{middle:g} ({low:g} to {high:g})", *shares, pick, took]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tables", nargs="*", type=Path)
    parser.add_argument("--samplers", default="auto,tpe,qlognehvi,hebo,smac,ctpe")
    parser.add_argument("--seeds", type=int, default=10, help="searches of a table")
    parser.add_argument("--worlds", type=int, default=0, help="simulated spaces, each searched once")
    parser.add_argument("--budget", type=int, default=60)
    parser.add_argument("--optunahub", help="a local copy of OptunaHub's registry, its folder `package`")
    given = parser.parse_args()
    CTpe.hub = given.optunahub
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    print(
        "| space | sampler | searches | to 90 % | at 10 | at 20 | at 40 trials | the pick, after | seconds a proposal |"
    )
    print("|---|---|--:|--:|--:|--:|--:|---|--:|")
    spaces = [(path.stem, [(read_table(path), seed) for seed in range(given.seeds)]) for path in given.tables]
    if given.worlds:
        spaces.append(("simulated", [(world(number), 0) for number in range(given.worlds)]))
    for name, searches in spaces:
        for sampler in given.samplers.split(","):
            found = [search(table, sampler, seed, given.budget) for table, seed in searches]
            print(row(name, sampler, [c for c, _ in found], [s for _, of in found for s in of]), flush=True)


if __name__ == "__main__":
    main()
