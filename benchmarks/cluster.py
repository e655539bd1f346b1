"""What a search on many cards costs the searching process, and how well it keeps the cards busy.

    python benchmarks/cluster.py [--table reports/recorded/sdxl-tiny.parquet] [--workers 8,64] [--rounds 5]
                                 [--speed 20] [--asked 1000]

The workers sleep as long as the recorded trials took, divided by --speed; asking, telling and writing the study's
folder are the real ones. Each worker gets --rounds trials. Printed, while there are trials to give: trials an hour as a
multiple of one worker's, and the searching process's own CPU seconds a trial; then its memory and CPU seconds at
--asked trials. Ray's part is not in it: a task of Ray takes about a second of a core to start, on the worker's machine.
"""

import argparse
import heapq
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ask_time import outcome

from autotune.cluster.messenger import Done, News, Ready
from autotune.cluster.order import Order, Result
from autotune.cluster.team import Team
from autotune.config import Config
from autotune.execution.runner import Outcome, Runner
from autotune.goal import Budget
from autotune.knobs import complete
from autotune.recordings.parquet import read_table
from autotune.research.replay.replay import TableSpace
from autotune.study.record import Record
from autotune.study.space import SearchSpace
from autotune.study.storage import OnDisk
from autotune.study.study import Study
from autotune.study_folder import StudyFolder
from autotune.tuning.explore import Explorer
from autotune.tuning.probe_space import probe_space

Became = Callable[[int, Config], tuple[Outcome, float]]  # (number, config) -> (outcome, seconds)


class Files(OnDisk):
    """The study's own files, without Optuna's database."""

    database = None


class Sleeping:
    """A Messenger whose workers sleep.

    idle_s    seconds of all workers between the end of one order and the next one, as long as there are orders
    window_s  seconds from the first order after the baseline to the last one
    """

    def __init__(self, became: Became, workers: int, speed: float, folder: Path) -> None:
        self.became, self.speed, self.folder = became, speed, folder
        self.idle_s, self._began_s, self._last_s = 0.0, 0.0, 0.0
        self._free_since: dict[int, float] = {}
        self._ready: list[News] = [Ready(card, f"host-{card // 8}") for card in range(workers)]
        self._ends: list[tuple[float, int, int, Result]] = []

    @property
    def window_s(self) -> float:
        return self._last_s - self._began_s

    def give(self, ticket: int, card: int, order: Order, root: Path) -> None:
        order.model_dump_json()  # as it would travel
        (outcome, seconds), now = self.became(len(self._free_since), order.config), time.monotonic()
        if ticket > 1:
            self._began_s, self._last_s = self._began_s or now, now
            self.idle_s += now - self._free_since.get(card, now)
        result = Result(seconds=seconds, outcome=outcome)
        heapq.heappush(self._ends, (now + seconds / self.speed, ticket, card, result))

    def news(self, timeout_s: float) -> News | None:
        if self._ready:
            return self._ready.pop(0)
        if not self._ends:
            return None
        ends, ticket, card, result = heapq.heappop(self._ends)
        time.sleep(max(0.0, ends - time.monotonic()))
        if ticket > 1:
            self._free_since[card] = ends
        files = self.folder / str(ticket)
        files.mkdir(parents=True)
        return Done(ticket, Result.model_validate_json(result.model_dump_json()), files)

    def close(self) -> None:
        """Nothing runs."""


def searched(
    record: Record,
    space: SearchSpace,
    became: Became,
    sampler: str,
    workers: int,
    trials: int,
    speed: float,
    *,
    reuse: bool = True,
) -> tuple[float, float, int]:
    """(the share of the time that the workers were busy, CPU seconds of this process, trials) of one search."""
    with tempfile.TemporaryDirectory() as name:
        folder = StudyFolder(Path(name) / "study")
        folder.path.mkdir()
        study = Study(folder, record, space, sampler=sampler, store=Files(folder), parallel=workers > 1)
        sleeping = Sleeping(became, workers, speed, Path(name) / "arriving")
        runner = Runner(folder, record.target, 1800.0)
        explorer: Explorer = Team(sleeping).explorer(folder, study, runner, lambda event: None, reuse=reuse)
        cpu = time.process_time()
        explorer.explore(Budget(trials=trials))
        busy = 1 - sleeping.idle_s / (workers * sleeping.window_s)
        return busy, time.process_time() - cpu, len(study.trials)


def main() -> None:
    parser: Any = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", type=Path, default=Path("reports/recorded/sdxl-tiny.parquet"))
    parser.add_argument("--workers", default="8,64")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--speed", type=float, default=20.0)
    parser.add_argument("--asked", type=int, default=1000)
    parser.add_argument("--samplers", default="random,auto")
    options = parser.parse_args()
    recording = read_table(options.table)
    record, table = recording.record(), TableSpace(recording)

    def recorded(number: int, config: Config) -> tuple[Outcome, float]:
        row = table.rows[complete(config)]
        return recording.outcome(row), row.seconds

    print(f"{options.table.name}, trials {options.speed:g} times as fast as recorded")
    for sampler in options.samplers.split(","):
        for workers in map(int, options.workers.split(",")):
            busy, cpu_s, trials = searched(
                record, TableSpace(recording), recorded, sampler, workers, options.rounds * workers, options.speed
            )
            print(
                f"{sampler:6} {workers:3} workers: {trials} trials, {busy * workers:5.1f} x one worker ({busy:.2f} of "
                f"ideal), own CPU {cpu_s / trials * 1e3:.0f} ms a trial",
                flush=True,
            )
    if options.asked:
        target, space = probe_space("demo", "pretrained", "cpu")
        made_up = record.model_copy(update={"target": target, "space": space.values, "baseline": dict(complete({}))})
        became = lambda number, config: (outcome(number, config), 30.0)  # noqa: E731
        # Nothing is reused: the made-up outcomes have no pictures that could be compared.
        free = searched(made_up, space, became, "random", 64, options.asked, 1e6, reuse=False)
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        print(
            f"{free[2]} trials: own CPU {free[1] / free[2] * 1e3:.0f} ms a trial, peak memory {memory / 2**20:.0f} MiB"
        )


if __name__ == "__main__":
    main()
