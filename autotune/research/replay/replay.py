"""replay(): run searches on recorded tables instead of a device, to compare samplers.

A replayed search uses the study, the sampler and the loop of a real search. Only its runner differs: it looks outcomes
up in the table, and advances the clock by the recorded seconds. The sampler can propose only configs of the table.
There are no anchors, because the latencies in a table are already corrected for drift.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import lru_cache
from multiprocessing import get_context
from pathlib import Path
from random import Random

from autotune.config import Config
from autotune.errors import UserError
from autotune.execution.runner import Outcome
from autotune.goal import Budget
from autotune.knobs import complete
from autotune.measurement import Measurement
from autotune.recordings.earlier_studies import WarmStartStudy, read_earlier
from autotune.recordings.parquet import read_table
from autotune.recordings.recording import Header, Recording
from autotune.research.replay.convergence import Convergence, Replayed, convergence_of
from autotune.research.replay.reference_front import ReferenceFront
from autotune.research.replay.reuse import reused
from autotune.reuse import Reuse
from autotune.study.proposals import check_sampler
from autotune.study.space import SearchSpace
from autotune.study.storage import InMemory
from autotune.study.study import Study
from autotune.study.warm_start import fitting
from autotune.study_folder import StudyFolder
from autotune.trial import Trial
from autotune.tuning.explore import Explorer

Search = tuple[Path, str, int, int, tuple[Path, ...], bool]  # the arguments of _search()


class TableSpace(SearchSpace):
    """The search space of a table: exactly its configs, whatever the rules of the knobs say today."""

    def __init__(self, recording: Recording) -> None:
        super().__init__(recording.header.target, {})
        self.values, self.ranges = recording.header.space, recording.header.ranges
        # A knob that was added after the recording is at its default.
        self.rows = {complete(row.values): row for row in recording.rows}
        self._configs = list(self.rows)

    def objection(self, config: Config) -> str | None:
        if config not in self.rows:
            return "it was not recorded"
        if not (dropped := self.dropped):
            return None
        pair = next((pair for pair in config.items() if pair in dropped), None)
        return self.why_dropped(*pair) if pair else None

    @property
    def is_listable(self) -> bool:
        return True

    def all_configs(self) -> Iterator[Config]:
        """The configs of the table that are still allowed."""
        return (config for config in self.rows if not self.objection(config))

    def random(self, rng: Random, tried: Iterable[Config], attempts: int = 20) -> Config | None:
        seen = set(tried)
        for _ in range(attempts):
            config = rng.choice(self._configs)
            if config not in seen and not self.objection(config):
                return config
        left = [config for config in self.all_configs() if config not in seen]
        return rng.choice(left) if left else None


class TableRunner:
    """A `Runner` without processes: it returns the recorded outcome of a config and adds its seconds to the clock."""

    def __init__(self, recording: Recording, space: TableSpace) -> None:
        self.recording, self.space, self.now_s = recording, space, 0.0
        self.calls = len(list(recording.header.target.workload.calls()))

    def run(
        self,
        place: Path,
        config: Config,
        *,
        pictures: bool,
        earlier: Sequence[Trial],
        reuse: Reuse | None = None,
    ) -> Outcome:
        row = self.space.rows[complete(config)]  # the baseline of a table knows no later knob
        outcome, seconds = self.recording.outcome(row), row.seconds
        if reuse is not None and isinstance(outcome, Measurement):
            outcome, seconds = reused(row, outcome, reuse, earlier, self.calls)
        self.now_s += seconds
        return outcome

    def clock(self) -> float:
        return self.now_s


class Replay(Explorer):
    """The loop of a search, on a table."""

    def anchor(self, *, last: bool = False) -> None:
        """Does nothing: the latencies of a table have no drift."""


def replay_once(
    recording: Recording,
    sampler: str,
    seed: int,
    budget: int,
    *,
    earlier: Sequence[WarmStartStudy] = (),
    reuse: bool = True,
) -> list[Trial]:
    """The trials of one search of this table. The same seed gives the same trials.

    budget   the number of trials, baseline included
    earlier  studies whose results warm-start the search
    reuse    skip work as a real search does, see reuse.py

    Raises UserError where an earlier study is of another family of pipelines.
    """
    for found in earlier:
        found.check_family(recording.header.target)
    space = TableSpace(recording)
    runner = TableRunner(recording, space)
    folder = StudyFolder(Path("replay"))  # nothing is ever written to it
    study = Study(
        folder,
        recording.record().model_copy(update={"warm_start": fitting([found.study for found in earlier], space)}),
        space,
        recipes=recording.header.recipes,
        sampler=sampler,
        seed=seed,
        store=InMemory(),
    )
    Replay(folder, study, runner, lambda event: None, clock=runner.clock, reuse=reuse).explore(Budget(trials=budget))
    return study.trials


@lru_cache(maxsize=4)
def _read(table: Path) -> tuple[Recording, ReferenceFront]:
    recording = read_table(table)
    return recording, ReferenceFront(recording.trials(), recording.header.goal)


@lru_cache(maxsize=4)
def _read_earlier(paths: tuple[Path, ...]) -> list[WarmStartStudy]:
    return read_earlier(paths)


def _search(
    table: Path, sampler: str, seed: int, budget: int, warm_start: tuple[Path, ...], reuse: bool
) -> tuple[str, str, Convergence]:
    recording, reference = _read(table)
    trials = replay_once(recording, sampler, seed, budget, earlier=_read_earlier(warm_start), reuse=reuse)
    return str(table), sampler, convergence_of(trials, reference, seed)


def replay(
    tables: Sequence[Path],
    *,
    samplers: Sequence[str],
    seeds: int = 30,
    budget: int = 100,
    jobs: int = 1,
    warm_start: Sequence[Path] = (),
    reuse: bool = True,
    listen: Callable[[int, int], None] = lambda done, of: None,
) -> list[Replayed]:
    """Search every table with every sampler, from each seed.

    seeds       the number of searches of a table with a sampler
    budget      the number of trials of a search
    jobs        the number of processes
    warm_start  studies or other tables that warm-start every search
    reuse       skip work as a real search does, see reuse.py
    listen      is called with (searches done, all searches)

    Raises UserError for a table that can't be read, an unknown sampler, and a table that is warm-started by itself.
    """
    for sampler in samplers:
        check_sampler(sampler)
    for table in tables:
        if table.resolve() in [path.resolve() for path in warm_start]:
            raise UserError(
                f"--warm-start {table.name!r} is the table that is searched: the search would start with its results."
            )
        _read(table)
    warm = tuple(warm_start)
    searches = [
        (table, sampler, seed, budget, warm, reuse) for table in tables for sampler in samplers for seed in range(seeds)
    ]
    curves: dict[tuple[str, str], list[Convergence]] = {}
    for done, (table_name, sampler, curve) in enumerate(_run(searches, jobs), 1):
        curves.setdefault((table_name, sampler), []).append(curve)
        listen(done, len(searches))
    return [Replayed(table=table, sampler=sampler, curves=tuple(of)) for (table, sampler), of in curves.items()]


def _run(searches: Sequence[Search], jobs: int) -> Iterator[tuple[str, str, Convergence]]:
    """(table, sampler, convergence) of each search, in the given order."""
    if jobs == 1:
        yield from (_search(*search) for search in searches)
        return
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # the processes share the cores
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        yield from pool.map(_search, *zip(*searches, strict=True))


def heads(tables: Sequence[Path]) -> Mapping[str, tuple[Header, int]]:
    """Table -> its header and the number of its rows."""
    heads_of = {}
    for table in tables:
        recording, _ = _read(table)
        heads_of[str(table)] = (recording.header, len(recording.rows))
    return heads_of


def check_replay(seeds: int, budget: int, jobs: int) -> None:
    """Raises UserError where a number is less than 1."""
    for name, number in {"--seeds": seeds, "--budget": budget, "--jobs": jobs}.items():
        if number < 1:
            raise UserError(f"{name} {number}: give at least 1.")
