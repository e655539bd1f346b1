"""The cost of a search relative to a naive Optuna loop on the same space: the time until both have an equal pick.

    python benchmarks/search_cost.py [--rounds 1] [--budget 24] [--naive-budget 60] [--steps 8] [-o FILE.json]
    python benchmarks/search_cost.py --tables reports/recorded/*.parquet [--seeds 30] [--naive-budget 60] [-o FILE.json]

The naive loop uses Optuna's default sampler (TPE) and a fresh interpreter for each config; it draws every prompt at
full steps and scores all pictures. Ours is `autotune search` with its defaults. Both use the same rules of which
settings go together (without them the naive loop would be slower) and the same quality limit. Neither confirms its
pick. The two run one after the other, in alternating order.

An equal pick has at least (1 - slack) of the speedup over the baseline that the naive loop's last pick has. The figures
are the wall time from the start until a search first had such a pick (infinite where ours never had one), and the ratio
of the two.

One run depends on the luck of its seed. With --tables both search recorded spaces instead, from many seeds. A trial
takes its recorded seconds (measured in forked processes). A trial of the naive loop also takes those of a fresh
interpreter: --fresh-s, or measured at the start, when the machine should be idle. A lower bound for any search is
printed as well: the baseline, followed at once by the config that is cheapest to try among those equal to the naive
loop's pick.
"""

import argparse
import itertools
import json
import math
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from autotune.devices.probe import versions
from autotune.goal import Goal
from autotune.recordings.parquet import read_table
from autotune.recordings.recording import Recording
from autotune.research.replay.reference_front import ReferenceFront
from autotune.research.replay.replay import replay_once
from autotune.study.pareto_front import pick_trial
from autotune.trial import Trial
from autotune.tuning.events import Event, TrialEnded
from autotune.tuning.search import search

SLACK = 0.05  # of the speedup: two processes of one config differ by about this share
KINDS: dict[str, dict[str, Any]] = {
    "naive": {"sampler": "tpe", "isolation": "spawn", "reuse": False},
    "ours": {"sampler": "auto", "isolation": "fork", "reuse": True},
}


class Stopwatch:
    """Listens to a search: `ended` has (seconds since the start, trial) for each trial."""

    def __init__(self) -> None:
        self.started = time.monotonic()
        self.ended: list[tuple[float, Trial]] = []

    def __call__(self, event: Event) -> None:
        if isinstance(event, TrialEnded):
            self.ended.append((time.monotonic() - self.started, event.trial))


def speedups(ended: list[tuple[float, Trial]], goal: Goal) -> list[tuple[float, float]]:
    """(seconds, speedup of the pick over the baseline) after each trial; 0 where there is no pick."""
    baseline = ended[0][1]
    progress = []
    for count, (seconds, _) in enumerate(ended, 1):
        pick = pick_trial([trial for _, trial in ended[:count]], baseline, goal)
        progress.append((seconds, _latency_s(baseline) / _latency_s(pick) if pick else 0.0))
    return progress


def _latency_s(trial: Trial) -> float:
    assert trial.measured
    return trial.measured.latency_s / trial.drift


def first(progress: list[tuple[float, float]], speedup: float) -> tuple[float, float]:
    """(trials, seconds) until a search first had a pick of this speedup; infinite where it never had one."""
    reached = ((count, seconds) for count, (seconds, own) in enumerate(progress, 1) if own >= speedup)
    return next(reached, (math.inf, math.inf))


def run(kind: str, folder: Path, budget: int, steps: int, seed: int) -> list[tuple[float, float]]:
    """speedups() of one search of the demo."""
    listen = Stopwatch()
    result = search(
        "demo",
        budget=budget,
        study=folder,
        steps=steps,
        seed=seed,
        confirm_rounds=0,
        device="cpu",
        listen=listen,
        **KINDS[kind],
    )
    progress = speedups(listen.ended, result.record.goal)
    seconds, speedup = progress[-1]
    print(f"{kind}, seed {seed}: {len(progress)} trials in {seconds:.0f} s, pick {speedup:.2f}x", flush=True)
    return progress


def compare(naive: list[tuple[float, float]], ours: list[tuple[float, float]]) -> dict[str, float]:
    """The figures of one pair of searches."""
    equal = (1 - SLACK) * naive[-1][1]
    figures: dict[str, float] = {"equal_pick_speedup": equal}
    for kind, progress in (("naive", naive), ("ours", ours)):
        trials, seconds = first(progress, equal)
        per_trial_s = progress[-1][0] / len(progress)
        figures |= {f"{kind}_trials": trials, f"{kind}_s": seconds, f"{kind}_s_per_trial": per_trial_s}
    figures["ratio"] = figures["ours_s"] / figures["naive_s"]
    figures["ratio_per_trial"] = figures["ours_s_per_trial"] / figures["naive_s_per_trial"]
    return figures


def fresh_interpreter_s(rounds: int = 3) -> float:
    """The seconds in which a fresh interpreter imports a pipeline class: the median of the rounds."""
    seconds = []
    for _ in range(rounds):
        begun = time.monotonic()
        subprocess.run([sys.executable, "-c", "from diffusers import StableDiffusionPipeline"], check=True)
        seconds.append(time.monotonic() - begun)
    return statistics.median(seconds)


def replayed(
    recording: Recording, front: ReferenceFront, seed: int, budgets: dict[str, int], fresh_s: float
) -> dict[str, float]:
    """The figures of one pair of replayed searches.

    A pick counts with the latency in the table, not with that of the calls which a search would have timed.
    """
    progress = {}
    for kind, how in KINDS.items():
        trials = replay_once(recording, how["sampler"], seed, budgets[kind], reuse=how["reuse"])
        each_s = [trial.seconds + (fresh_s if kind == "naive" else 0.0) for trial in trials]
        shares = front.picks(trials)
        progress[kind] = [
            (seconds, share / shares[0]) for seconds, share in zip(itertools.accumulate(each_s), shares, strict=True)
        ]
    figures = compare(progress["naive"], progress["ours"])
    baseline, *others = recording.trials()
    equal = [t for t in others if front.picks([t])[0] / front.picks([baseline])[0] >= figures["equal_pick_speedup"]]
    figures["least_s"] = baseline.seconds + min(trial.seconds for trial in equal)
    return figures | {"least_ratio": figures["least_s"] / figures["naive_s"]}


def compare_on_tables(tables: list[Path], seeds: int, budgets: dict[str, int], fresh_s: float | None) -> dict[str, Any]:
    """Replay both on each table; prints the medians and returns all figures."""
    fresh_s = fresh_interpreter_s() if fresh_s is None else fresh_s
    print(f"a fresh interpreter takes {fresh_s:.1f} s")
    rounds = {}
    for table in tables:
        recording = read_table(table)
        front = ReferenceFront(recording.trials(), recording.header.goal)
        figures = [replayed(recording, front, seed, budgets, fresh_s) for seed in range(seeds)]
        rounds[table.name] = figures
        print(f"\n{table.name}: {seeds} seeds, an equal pick is {median_of(figures, 'equal_pick_speedup'):.2f}x")
        for kind in KINDS:
            trials, seconds, each_s = (median_of(figures, f"{kind}_{word}") for word in ("trials", "s", "s_per_trial"))
            print(f"  {kind}: {trials:g} trials, {seconds / 60:.1f} min, {each_s:.0f} s a trial")
        ratios = sorted(of_seed["ratio"] for of_seed in figures)  # infinite where ours never had an equal pick
        low, median, high = (ratios[place * (seeds - 1) // 4] for place in (1, 2, 3))
        print(f"  time to an equal pick, ours over naive: {median:.2f} (quartiles {low:.2f}, {high:.2f})")
        print(f"  lower bound for any search, over naive: {median_of(figures, 'least_ratio'):.2f}")
        print(f"  time of a trial, ours over naive: {median_of(figures, 'ratio_per_trial'):.2f}", flush=True)
    return {"fresh_interpreter_s": fresh_s, "tables": rounds}


def median_of(rounds: list[dict[str, float]], word: str) -> float:
    return statistics.median(figures[word] for figures in rounds)


def compare_live(count: int, budgets: dict[str, int], steps: int) -> dict[str, Any]:
    """Search the demo with both, `count` times; prints and returns the figures."""
    rounds = []
    with tempfile.TemporaryDirectory() as name:
        for seed in range(count):
            progress = {}
            for kind in ("naive", "ours") if seed % 2 == 0 else ("ours", "naive"):
                progress[kind] = run(kind, Path(name) / f"{kind}-{seed}", budgets[kind], steps, seed)
            rounds.append(compare(progress["naive"], progress["ours"]))
            print("  ".join(f"{word} {number:.3g}" for word, number in rounds[-1].items()), flush=True)
    for word, what in (("ratio", "wall time to an equal pick"), ("ratio_per_trial", "wall time of a trial")):
        print(f"{what}, ours over naive: {median_of(rounds, word):.2f} (median)")
    return {"rounds": rounds}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--budget", type=int, default=24, help="trials of ours")
    parser.add_argument("--naive-budget", type=int, default=60, help="trials of the naive loop")
    parser.add_argument("--steps", type=int, default=8, help="of the workload")
    parser.add_argument("-o", "--output", type=Path, help="the figures as JSON")
    parser.add_argument("--tables", type=Path, nargs="+", help="recorded spaces to search instead of the demo")
    parser.add_argument("--seeds", type=int, default=30, help="searches of each table by each of the two")
    parser.add_argument("--fresh-s", type=float, help="seconds of a fresh interpreter; default: measured")
    arguments = parser.parse_args()
    budgets = {"naive": arguments.naive_budget, "ours": arguments.budget}
    tables = arguments.tables
    if tables:
        figures = compare_on_tables(tables, arguments.seeds, budgets, arguments.fresh_s)
    else:
        figures = compare_live(arguments.rounds, budgets, arguments.steps)
    if arguments.output:
        figures = {"command": " ".join(["python", *sys.argv]), "versions": versions(), **figures}
        arguments.output.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
