"""What asking for trials while others run costs: replays of recorded spaces with simulated workers.

    python benchmarks/parallel_replay.py [TABLES] [--workers 1,4,8,16] [--seeds 4] [--budget 50] [--worlds 0]
                                         [--unaware]

Each worker is as fast as the recorded device, and trials take their recorded seconds. Printed, as medians over the
seeds: trials and hours until 95 % of the true front's hypervolume were found, the share found after 20 trials, and the
hours of the whole search. --worlds: so many simulated spaces as well, see samplers_simulated.py; the medians are over
all of them, one search each. --unaware: our sampler is not told what is pending; it only does not propose it again.
"""

import argparse
import statistics
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from samplers_simulated import world

from autotune.recordings.parquet import read_table
from autotune.recordings.recording import Recording
from autotune.research.replay.convergence import Convergence
from autotune.research.replay.parallel import parallel_convergence
from autotune.research.replay.reference_front import ReferenceFront
from autotune.sampler import AutoSampler


def median(values: Iterable[float | None]) -> float:
    return statistics.median(float("inf") if value is None else value for value in values)


def unaware(self: AutoSampler, pending: Any, models: Any, observed: Any, values: Any, front: Any) -> Any:
    """In place of AutoSampler._believing."""
    return models, front


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tables", type=Path, nargs="*")
    parser.add_argument("--worlds", type=int, default=0)
    parser.add_argument("--workers", default="1,4,8,16")
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--budget", type=int, default=50)
    parser.add_argument("--unaware", action="store_true")
    options = parser.parse_args()
    if options.unaware:
        AutoSampler._believing = unaware  # type: ignore[method-assign]
    how = ", unaware of what is pending" if options.unaware else ""
    print(f"{options.seeds} seeds, {options.budget} trials{how}")
    counts = list(map(int, options.workers.split(",")))
    for table in options.tables:
        for workers in counts:
            show(table.stem, workers, searched(read_table(table), range(options.seeds), options.budget, workers))
    for workers in counts if options.worlds else ():
        worlds = ((world(number), range(1)) for number in range(options.worlds))
        curves = [curve for each, seeds in worlds for curve in searched(each, seeds, options.budget, workers)]
        show(f"{options.worlds} simulated", workers, curves)


def searched(recording: Recording, seeds: range, budget: int, workers: int) -> list[Convergence]:
    reference = ReferenceFront(recording.trials(), recording.header.goal)
    return parallel_convergence(recording, reference, "auto", seeds, budget, workers)


def show(name: str, workers: int, curves: list[Convergence]) -> None:
    trials = [curve.trials_to(0.95) for curve in curves]
    hours = [
        None if count is None else curve.device_s[count - 1] / 3600 for curve, count in zip(curves, trials, strict=True)
    ]
    print(
        f"{name:16} {workers:2} workers: 95% after {median(trials):5.1f} trials, {median(hours):6.3f} h, "
        f"{median(curve.at(20) for curve in curves):.3f} after 20 trials; whole search "
        f"{median(curve.device_s[-1] / 3600 for curve in curves):6.3f} h",
        flush=True,
    )


if __name__ == "__main__":
    main()
