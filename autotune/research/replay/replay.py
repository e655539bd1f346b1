"""replay(): searches of recorded spaces, at no cost, to compare samplers by.

A replayed search is a real one, whose runner looks its outcomes up in the table and whose clock goes on by the recorded
seconds. What it may propose is what the table has. There are no anchors: the table's latencies are without drift.
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
from autotune.recordings.earlier_studies import Found, read_earlier
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


class TableSpace(SearchSpace):
    """The configs of a table. What it has not is not allowed, whatever the rules say today."""

    def __init__(self, recording: Recording) -> None:
        super().__init__(recording.header.target, {})
        self.values = recording.header.space
        # The knobs may have become more since: a recorded config has their defaults.
        self.rows = {complete(row.values): row for row in recording.rows}
        self._configs = list(self.rows)

    def objection(self, config: Config) -> str | None:
        if config not in self.rows:
            return "it was not recorded"
        if not self.no_effect:
            return None
        idle = next((pair for pair in config.items() if pair in self.no_effect), None)
        return f"{idle[0]}={idle[1]} had no effect here" if idle else None

    @property
    def is_listable(self) -> bool:
        return True

    def all_configs(self) -> Iterator[Config]:
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
    """Says of a config what was measured, and how long that took. A `Runner` without processes."""

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
        row = self.space.rows[config]
        outcome, seconds = self.recording.outcome(row), row.seconds
        if reuse is not None and isinstance(outcome, Measurement):
            outcome, seconds = reused(row, outcome, reuse, earlier, self.calls)
        self.now_s += seconds
        return outcome

    def clock(self) -> float:
        return self.now_s


class Replay(Explorer):
    """The loop of a search on a table."""

    def anchor(self, *, last: bool = False) -> None:
        """A table has no drift."""


def replay_once(
    recording: Recording,
    sampler: str,
    seed: int,
    budget: int,
    *,
    earlier: Sequence[Found] = (),
    reuse: bool = True,
) -> list[Trial]:
    """The trials of a search of this table. Raises UserError.

    earlier  the studies that it is started warm by
    reuse   is it spared what a search is? See sparing.py
    """
    for one in earlier:
        one.check_family(recording.header.target)
    space = TableSpace(recording)
    runner = TableRunner(recording, space)
    folder = StudyFolder(Path("replay"))  # nothing is ever written to it
    study = Study(
        folder,
        recording.record().model_copy(update={"warm_start": fitting([one.study for one in earlier], space)}),
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
def _read_earlier(paths: tuple[Path, ...]) -> list[Found]:
    return read_earlier(paths)


def _job(
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
    """Every sampler on every table, from so many seeds. Raises UserError for what can't be read or is unknown.

    jobs    processes that share the work
    warm_start  studies or other tables that every search is started warm by
    reuse  are the searches spared what a search is? See sparing.py
    listen  hears how many of how many searches are done
    """
    for sampler in samplers:
        check_sampler(sampler)
    for table in tables:
        if table.resolve() in [path.resolve() for path in warm_start]:
            raise UserError(f"--warm-start {table.name!r} is the table that is searched: it would know the answer.")
        _read(table)
    warm = tuple(warm_start)
    asked = [
        (table, sampler, seed, budget, warm, reuse) for table in tables for sampler in samplers for seed in range(seeds)
    ]
    curves: dict[tuple[str, str], list[Convergence]] = {}
    for done, (table_name, sampler, curve) in enumerate(_each(asked, jobs), 1):
        curves.setdefault((table_name, sampler), []).append(curve)
        listen(done, len(asked))
    return [Replayed(table=table, sampler=sampler, curves=tuple(found)) for (table, sampler), found in curves.items()]


def _each(
    asked: Sequence[tuple[Path, str, int, int, tuple[Path, ...], bool]], jobs: int
) -> Iterator[tuple[str, str, Convergence]]:
    """In the order asked, each search in one of the processes."""
    if jobs == 1:
        yield from (_job(*one) for one in asked)
        return
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # the processes share the cores among themselves
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        yield from pool.map(_job, *zip(*asked, strict=True))


def heads(tables: Sequence[Path]) -> Mapping[str, tuple[Header, int]]:
    """Table -> what it is of, and how many rows it has."""
    found = {}
    for table in tables:
        recording, _ = _read(table)
        found[str(table)] = (recording.header, len(recording.rows))
    return found


def check_replay(seeds: int, budget: int, jobs: int) -> None:
    """Raises UserError."""
    for name, number in {"--seeds": seeds, "--budget": budget, "--jobs": jobs}.items():
        if number < 1:
            raise UserError(f"{name} {number}: give at least 1.")
