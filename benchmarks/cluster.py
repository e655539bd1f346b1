"""What a search on many cards costs the searching process, and how well it keeps the cards busy.

    python benchmarks/cluster.py [--table reports/recorded/sdxl-tiny.parquet] [--workers 1,8,64] [--trials 200]
                                 [--speed 20] [--asked 1000]

The workers sleep as long as the recorded trials took, divided by --speed; asking, telling and writing
the study's folder are the real ones, with the random sampler and with ours. Printed: trials an hour, as a multiple of
those of one worker and as a share of the ideal; then the searching process's own CPU seconds a trial and its memory at
--asked trials. Ray's part is not in it: a task of Ray takes about a second of a core to start, on the worker's machine.
"""

import argparse
import heapq
import resource
import tempfile
import time
from pathlib import Path
from typing import Any

from autotune.cluster.messenger import Done, News, Ready
from autotune.cluster.order import Order, Result
from autotune.cluster.team import Team
from autotune.execution.runner import Runner
from autotune.goal import Budget
from autotune.knobs import complete
from autotune.recordings.parquet import read_table
from autotune.recordings.recording import Recording
from autotune.research.replay.replay import TableSpace
from autotune.study.storage import OnDisk
from autotune.study.study import Study
from autotune.study_folder import StudyFolder
from autotune.tuning.explore import Explorer


class Files(OnDisk):
    """The study's own files, without Optuna's database."""

    database = None


class Sleeping:
    """A Messenger whose workers sleep. `busy_s`: seconds of all workers together."""

    def __init__(self, recording: Recording, space: TableSpace, workers: int, speed: float, folder: Path) -> None:
        self.recording, self.space, self.speed, self.folder, self.busy_s = recording, space, speed, folder, 0.0
        self._ready: list[News] = [Ready(card, f"host-{card // 8}") for card in range(workers)]
        self._ends: list[tuple[float, int, Result]] = []

    def give(self, ticket: int, card: int, order: Order, root: Path) -> None:
        order.model_dump_json()  # as it would travel
        row = self.space.rows[complete(order.values)]
        result = Result(seconds=row.seconds, outcome=self.recording.outcome(row))
        self.busy_s += row.seconds / self.speed
        heapq.heappush(self._ends, (time.monotonic() + row.seconds / self.speed, ticket, result))

    def news(self, timeout_s: float) -> News | None:
        if self._ready:
            return self._ready.pop(0)
        if not self._ends:
            return None
        ends, ticket, result = heapq.heappop(self._ends)
        time.sleep(max(0.0, ends - time.monotonic()))
        files = self.folder / str(ticket)
        files.mkdir(parents=True)
        return Done(ticket, Result.model_validate_json(result.model_dump_json()), files)

    def close(self) -> None:
        """Nothing runs."""


def searched(
    recording: Recording, sampler: str, workers: int, trials: int, speed: float
) -> tuple[float, float, float, int]:
    """(wall seconds, CPU seconds of this process, seconds of all workers, trials) of one search."""
    with tempfile.TemporaryDirectory() as name:
        space, folder = TableSpace(recording), StudyFolder(Path(name) / "study")
        folder.path.mkdir()
        study = Study(folder, recording.record(), space, sampler=sampler, store=Files(folder), parallel=workers > 1)
        sleeping = Sleeping(recording, space, workers, speed, Path(name) / "arriving")
        runner = Runner(folder, recording.header.target, 1800.0)
        explorer: Explorer = Team(sleeping).explorer(folder, study, runner, lambda event: None, reuse=True)
        began, cpu = time.monotonic(), time.process_time()
        explorer.explore(Budget(trials=trials))
        return time.monotonic() - began, time.process_time() - cpu, sleeping.busy_s, len(study.trials)


def main() -> None:
    parser: Any = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", type=Path, default=Path("reports/recorded/sdxl-tiny.parquet"))
    parser.add_argument("--workers", default="1,8,64")
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--speed", type=float, default=20.0)
    parser.add_argument("--asked", type=int, default=1000)
    parser.add_argument("--samplers", default="random,auto")
    options = parser.parse_args()
    recording = read_table(options.table)
    print(f"{options.table.name}, trials {options.speed:g} times as fast as recorded")
    for sampler in options.samplers.split(","):
        for workers in map(int, options.workers.split(",")):
            wall_s, cpu_s, busy_s, trials = searched(recording, sampler, workers, options.trials, options.speed)
            times = busy_s / wall_s  # one worker is busy for busy_s seconds with the same orders
            print(
                f"{sampler:6} {workers:3} workers: {trials} trials in {wall_s:6.1f} s, {times:5.1f} x one worker, "
                f"{times / workers:.2f} of ideal, own CPU {cpu_s / trials * 1e3:.0f} ms a trial",
                flush=True,
            )
    if options.asked:
        _, cpu_s, _, trials = searched(recording, "random", 64, options.asked, 1e6)
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        print(f"{trials} trials: own CPU {cpu_s / trials * 1e3:.0f} ms a trial, peak memory {memory / 2**20:.0f} MiB")


if __name__ == "__main__":
    main()
