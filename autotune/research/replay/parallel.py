"""Parallel replay: a search of a recorded table with several simulated workers, each as fast as the recorded device."""

import heapq
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from autotune.cluster.cards import Card
from autotune.cluster.crew import Crew
from autotune.cluster.explore import ParallelExplorer
from autotune.cluster.messenger import Done, News, Ready
from autotune.cluster.order import Order, Result
from autotune.cluster.waiting import Work
from autotune.goal import Budget
from autotune.recordings.recording import Recording
from autotune.research.replay.convergence import Convergence, convergence_of
from autotune.research.replay.reference_front import ReferenceFront
from autotune.research.replay.replay import TableRunner, TableSpace
from autotune.study.reuse_plan import plan_reuse
from autotune.study.storage import InMemory
from autotune.study.study import Study
from autotune.study_folder import StudyFolder
from autotune.trial import Trial

NOWHERE = Path("replay")  # nothing is ever written to it


class SimulatedWorkers:
    """A Messenger whose workers take the recorded seconds of the clock `now_s`, and no time of anyone's."""

    def __init__(self, workers: int) -> None:
        self.now_s = 0.0
        self._ready: list[News] = [Ready(card, "simulated") for card in range(workers)]
        self._ends: list[tuple[float, int, Result]] = []

    def ends(self, ticket: int, result: Result) -> None:
        heapq.heappush(self._ends, (self.now_s + result.seconds, ticket, result))

    def give(self, ticket: int, card: int, order: Order, root: Path) -> None:
        raise AssertionError("a replay gives no orders")

    def news(self, timeout_s: float) -> News | None:
        if self._ready:
            return self._ready.pop(0)
        if not self._ends:
            return None
        self.now_s, ticket, result = heapq.heappop(self._ends)
        return Done(ticket, result, NOWHERE)

    def close(self) -> None:
        """Nothing runs."""


class ParallelReplay(ParallelExplorer):
    """The loop of a search on several cards, on a table. There are no anchors: a table has no drift."""

    table: TableRunner
    simulated: SimulatedWorkers

    def is_due(self, card: Card) -> bool:
        return False

    def start(self, ticket: int, card: Card, work: Work) -> None:
        trials, record, before_s = self.study.trials, self.study.record, self.table.now_s
        reuse = plan_reuse(work.number, work.config, trials, [], record, card=card.name) if work.number else None
        outcome = self.table.run(NOWHERE, work.config, pictures=True, earlier=trials, reuse=reuse)
        self.simulated.ends(ticket, Result(seconds=self.table.now_s - before_s, outcome=outcome))

    def keep(self, files: Path, place: Path) -> None:
        """There are none."""


def replay_parallel(
    recording: Recording, sampler: str, seed: int, budget: int, workers: int
) -> tuple[list[Trial], list[float]]:
    """(the trials in the order in which they ended, when each ended in seconds) of one search of this table."""
    space, folder, simulated = TableSpace(recording), StudyFolder(NOWHERE), SimulatedWorkers(workers)
    study = Study(
        folder,
        recording.record(),
        space,
        recipes=recording.header.recipes,
        sampler=sampler,
        seed=seed,
        store=InMemory(),
        parallel=workers > 1,
    )
    ended, ended_s = list[int](), list[float]()

    def listen(event: Any) -> None:
        trial = getattr(event, "trial", None)
        if isinstance(trial, Trial):
            ended.append(trial.number)
            ended_s.append(simulated.now_s)

    runner: Any = TableRunner(recording, space)
    explorer = ParallelReplay(folder, study, runner, listen, crew=Crew(simulated), clock=lambda: simulated.now_s)
    explorer.table, explorer.simulated = runner, simulated
    explorer.explore(Budget(trials=budget))
    by_number = {trial.number: trial for trial in study.trials}
    return [by_number[number] for number in ended], ended_s


def parallel_convergence(
    recording: Recording, reference: ReferenceFront, sampler: str, seeds: Sequence[int], budget: int, workers: int
) -> list[Convergence]:
    """The convergence of a search with so many workers, from each seed, over the hours that it takes."""
    found = []
    for seed in seeds:
        trials, ended_s = replay_parallel(recording, sampler, seed, budget, workers)
        found.append(convergence_of(trials, reference, seed, ended_s))
    return found
