"""Compare our sampler with BoTorch's qLogNEHVI on recorded spaces, by the rules of `autotune replay`.

    pip install botorch
    python benchmarks/opponents.py reports/recorded/*.parquet [--samplers auto,tpe,qlognehvi] [--seeds 10] [--budget 60]

qLogNEHVI (Ament et al., 2023, Unexpected Improvements to Expected Improvement for Bayesian Optimization) gets what it
is made for: a Gaussian process for each objective over the one-hot coded settings, the logarithms of latency and
memory, the baseline and the recipes first. Its acquisition is evaluated at every config of the table that was not
tried, and the best is taken, so that it never proposes what the table does not have. A trial that failed has the
worst values of the others, as for Optuna's samplers. For each table and sampler are printed: the median number of
trials to 90 % of the true front's hypervolume with the quartiles, the mean share after 10, 20 and 40 trials with its
95 % interval, and the seconds of a proposal.
"""

import argparse
import math
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, TrialState

from autotune.config import Config
from autotune.recordings.parquet import read_table
from autotune.recordings.recording import Recording
from autotune.research.replay.convergence import Convergence, convergence_of
from autotune.research.replay.reference_front import ReferenceFront
from autotune.research.replay.replay import TableSpace, replay_once
from autotune.statistics.paired import paired
from autotune.study import proposals
from autotune.study import study as studies

MARKS = (10, 20, 40)
SHARE = 0.9
SAMPLES = 64  # of the posterior, for the expectation
LEAST = 4  # measured trials before a model is fitted


class QLogNEHVI(optuna.samplers.BaseSampler):  # type: ignore[misc]
    """Takes the untried config of the table with the largest acquisition. `attach` tells it of both."""

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
        left = [config for config in self.space.rows if config not in self.tried()]
        if len(done) < LEAST or not left:
            return {}
        started = time.monotonic()
        chosen = left[self._best([t.params for t in done], [t.values for t in done], left)]
        self.asked_s.append(time.monotonic() - started)
        return {name: chosen.get(name, search_space[name].choices[0]) for name in search_space}

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


class Attached(proposals.ValidProposals):
    """Hands the space, and what was tried, to a sampler that wants to know."""

    def __init__(self, inner: Any, space: Any, tried: Callable[[], set[Config]]) -> None:
        super().__init__(inner, space, tried)
        if isinstance(inner, QLogNEHVI):
            inner.attach(space, tried)


def _told(value: float) -> bool:
    return math.isfinite(value) and value < 1e29


def _log(value: float, index: int) -> float:
    """Latency and memory as logarithms; the quality loss, the last objective, as it is."""
    return math.log(value) if index < 2 else value


def search(
    table: Recording, front: ReferenceFront, sampler: str, seed: int, budget: int
) -> tuple[Convergence, list[float]]:
    made: list[QLogNEHVI] = []
    usual = proposals.make_sampler

    def make(name: str, seed: int, **options: Any) -> optuna.samplers.BaseSampler:
        if name != "qlognehvi":
            return usual(name, seed, **options)
        made.append(QLogNEHVI(seed))
        return made[-1]

    studies.make_sampler, studies.ValidProposals = make, Attached  # type: ignore[assignment,misc]
    trials = replay_once(table, sampler, seed, budget)
    return convergence_of(trials, front, seed), [second for each in made for second in each.asked_s]


def row(table: str, sampler: str, curves: Sequence[Convergence], asked_s: Sequence[float]) -> str:
    counts = [curve.trials_to(SHARE) or math.inf for curve in curves]
    low, middle, high = statistics.quantiles(counts, n=4) if len(counts) > 1 else counts * 3
    shares = []
    for mark in MARKS:
        found = paired([curve.at(mark) for curve in curves])
        within = "" if found.half_width is None else f" +-{found.half_width:.2f}"
        shares.append(f"{found.mean:.2f}{within}")
    took = f"{statistics.median(asked_s):.2f}" if asked_s else ""
    return f"| {table} | {sampler} | {len(curves)} | {middle:g} ({low:g} to {high:g}) | {' | '.join(shares)} | {took} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tables", nargs="+", type=Path)
    parser.add_argument("--samplers", default="auto,tpe,qlognehvi")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--budget", type=int, default=60)
    given = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    print("| table | sampler | searches | to 90 % | at 10 | at 20 | at 40 trials | seconds a proposal |")
    print("|---|---|--:|--:|--:|--:|--:|--:|")
    for path in given.tables:
        table = read_table(path)
        front = ReferenceFront(table.trials(), table.header.goal)
        for sampler in given.samplers.split(","):
            found = [search(table, front, sampler, seed, given.budget) for seed in range(given.seeds)]
            print(row(path.stem, sampler, [c for c, _ in found], [s for _, of in found for s in of]), flush=True)


if __name__ == "__main__":
    main()
