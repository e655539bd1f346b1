"""Compare the samplers on simulated spaces, without any measurement. Prints the README's table.

    python benchmarks/samplers_simulated.py [--worlds 12] [--samplers auto,tpe,nsga2,random] [--jobs 1] [--no-reuse]

A world (`tests/simulated.py`) has costs that multiply, a few pairs of settings that interact, and faults that follow
rules. It has 400 random configs of the demo's space, or of the default space on a GPU; from none to 60 % of them fail.
Every sampler searches each world once (`random` three times) with the same rules and recipes, as a replay of a recorded
space does. The table shows the mean share of the true front's hypervolume after 10, 20 and 40 trials, the median number
of trials to 95 %, and the share of trials that failed.
"""

import argparse
import statistics
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from autotune.recordings.recording import Recording
from autotune.research.replay.convergence import Convergence, convergence_of
from autotune.research.replay.reference_front import ReferenceFront
from autotune.research.replay.replay import replay_once
from autotune.study.space_file import shipped_space_file

BUDGET = 40
MARKS = (10, 20, 40)
ROWS = 400
SHARE = 0.95


def world(number: int) -> Recording:
    """An even world is of the demo's space, an odd one of the default space on a GPU."""
    sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
    from simulated import demo_space, simulated

    which, on_gpu = divmod(number, 2)
    file = shipped_space_file("default.toml" if on_gpu else "demo.toml")
    return simulated(
        100 * (1 + on_gpu) + which,
        space=demo_space(on_gpu=bool(on_gpu)),
        rows=ROWS,
        fault_rules=which % 4,
        recipes={recipe.name: recipe.values for recipe in file.recipes},
    )


def search(number: int, sampler: str, seed: int, reuse: bool) -> Convergence:
    table = world(number)
    trials = replay_once(table, sampler, seed, BUDGET, reuse=reuse)
    return convergence_of(trials, ReferenceFront(table.trials(), table.header.goal), seed)


def row(sampler: str, curves: list[Convergence]) -> str:
    shares = " | ".join(f"{statistics.fmean(curve.at(mark) for curve in curves):.2f}" for mark in MARKS)
    counts = [curve.trials_to(SHARE) for curve in curves]
    middle = statistics.median(float("inf") if count is None else count for count in counts)
    to = f"{middle:g}" if middle < float("inf") else f"not in {BUDGET}"
    lost = sum(curve.faults for curve in curves) / sum(len(curve.found) - 1 for curve in curves)
    return f"| {sampler} | {len(curves)} | {shares} | {to} | {lost:.1%} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--worlds", type=int, default=12)
    parser.add_argument("--samplers", default="auto,tpe,nsga2,random")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--no-reuse", action="store_true")
    arguments = parser.parse_args()
    print("| sampler | searches | " + " | ".join(map(str, MARKS)) + " trials | to 95 % | trials lost to faults |")
    with ProcessPoolExecutor(arguments.jobs, mp_context=get_context("spawn")) as pool:
        for sampler in arguments.samplers.split(","):
            seeds = range(3 if sampler == "random" else 1)
            jobs = [
                pool.submit(search, number, sampler, seed, not arguments.no_reuse)
                for number in range(arguments.worlds)
                for seed in seeds
            ]
            print(row(sampler, [job.result() for job in jobs]), flush=True)


if __name__ == "__main__":
    main()
