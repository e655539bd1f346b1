"""What a search costs beside the loop that one would write: the same space, in turn, until both hold an equal pick.

    python benchmarks/search_cost.py [--rounds 1] [--budget 24] [--naive-budget 60] [--steps 8] [-o FILE.json]
    python benchmarks/search_cost.py --tables reports/recorded/*.parquet [--seeds 30] [--naive-budget 60] [-o FILE.json]

The naive loop: Optuna's default sampler (TPE), a fresh interpreter for each config, every prompt drawn at full steps
and scored for each. Ours: `autotune search` with its defaults. Both keep the same rules of what goes together (a naive
loop that did not would lose more), the same limits of quality, and neither confirms its pick.

An equal pick is one whose speedup over its own baseline is at least (1 - slack) of the naive loop's last one. Told is
the wall time from the start until a search first held one, infinite where ours never did, and the ratio of the two.

A run has the luck of its seed in it. With --tables both search recorded spaces instead, from many seeds: a trial takes
the seconds that were recorded of it (measured in forked processes), the naive loop's also those of a fresh interpreter:
--fresh-s, or measured here at the start, for which the machine should be idle. Told is also what no search could do
better: to try the baseline, and then at once the config that is equal to the naive loop's pick and the quickest to try.
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

SLACK = 0.05  # of the speedup: two processes of one config differ by about so much
KINDS: dict[str, dict[str, Any]] = {
    "naive": {"sampler": "tpe", "isolation": "spawn", "reuse": False},
    "ours": {"sampler": "auto", "isolation": "fork", "reuse": True},
}


class Stopwatch:
    """Hears the trials of a search: after how many seconds which were there."""

    def __init__(self) -> None:
        self.started = time.monotonic()
        self.ended: list[tuple[float, Trial]] = []

    def __call__(self, event: Event) -> None:
        if isinstance(event, TrialEnded):
            self.ended.append((time.monotonic() - self.started, event.trial))


def speedups(ended: list[tuple[float, Trial]], goal: Goal) -> list[tuple[float, float]]:
    """(seconds, the speedup over the baseline of the pick that was held then), trial by trial."""
    baseline = ended[0][1]
    found = []
    for count, (seconds, _) in enumerate(ended, 1):
        pick = pick_trial([trial for _, trial in ended[:count]], baseline, goal)
        found.append((seconds, _latency_s(baseline) / _latency_s(pick) if pick else 0.0))
    return found


def _latency_s(trial: Trial) -> float:
    assert trial.measured
    return trial.measured.latency_s / trial.drift


def first(found: list[tuple[float, float]], speedup: float) -> tuple[float, float]:
    """(after how many trials, after how many seconds) a search first held such a pick; infinite where it never did."""
    held = ((count, seconds) for count, (seconds, one) in enumerate(found, 1) if one >= speedup)
    return next(held, (math.inf, math.inf))


def run(kind: str, folder: Path, budget: int, steps: int, seed: int) -> list[tuple[float, float]]:
    listen = Stopwatch()
    made = search(
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
    found = speedups(listen.ended, made.record.goal)
    print(f"{kind}, seed {seed}: {len(found)} trials in {found[-1][0]:.0f} s, pick {found[-1][1]:.2f}x", flush=True)
    return found


def compare(naive: list[tuple[float, float]], ours: list[tuple[float, float]]) -> dict[str, float]:
    equal = (1 - SLACK) * naive[-1][1]
    told: dict[str, float] = {"equal_pick_speedup": equal}
    for kind, found in (("naive", naive), ("ours", ours)):
        trials, seconds = first(found, equal)
        told |= {f"{kind}_trials": trials, f"{kind}_s": seconds, f"{kind}_s_per_trial": found[-1][0] / len(found)}
    told["ratio"] = told["ours_s"] / told["naive_s"]
    told["ratio_per_trial"] = told["ours_s_per_trial"] / told["naive_s_per_trial"]
    return told


def fresh_interpreter_s(rounds: int = 3) -> float:
    """What a fresh interpreter takes until it has what a pipeline needs, the median."""
    seconds = []
    for _ in range(rounds):
        begun = time.monotonic()
        subprocess.run([sys.executable, "-c", "from diffusers import StableDiffusionPipeline"], check=True)
        seconds.append(time.monotonic() - begun)
    return statistics.median(seconds)


def replayed(
    recording: Recording, ruler: ReferenceFront, seed: int, budgets: dict[str, int], fresh_s: float
) -> dict[str, float]:
    """Picks are judged by what the table says of them, not by the calls that a search would have timed."""
    found = {}
    for kind, how in KINDS.items():
        trials = replay_once(recording, how["sampler"], seed, budgets[kind], reuse=how["reuse"])
        each_s = [trial.seconds + (fresh_s if kind == "naive" else 0.0) for trial in trials]
        shares = ruler.picks(trials)
        found[kind] = [
            (seconds, share / shares[0]) for seconds, share in zip(itertools.accumulate(each_s), shares, strict=True)
        ]
    told = compare(found["naive"], found["ours"])
    baseline, *others = recording.trials()
    equal = [t for t in others if ruler.picks([t])[0] / ruler.picks([baseline])[0] >= told["equal_pick_speedup"]]
    told["least_s"] = baseline.seconds + min(trial.seconds for trial in equal)
    return told | {"least_ratio": told["least_s"] / told["naive_s"]}


def of_tables(tables: list[Path], seeds: int, budgets: dict[str, int], fresh_s: float | None) -> dict[str, Any]:
    fresh_s = fresh_interpreter_s() if fresh_s is None else fresh_s
    print(f"a fresh interpreter takes {fresh_s:.1f} s")
    rounds = {}
    for table in tables:
        recording = read_table(table)
        ruler = ReferenceFront(recording.trials(), recording.header.goal)
        found = [replayed(recording, ruler, seed, budgets, fresh_s) for seed in range(seeds)]
        rounds[table.name] = found
        print(f"\n{table.name}: {seeds} seeds, an equal pick is {middle(found, 'equal_pick_speedup'):.2f}x")
        for kind in KINDS:
            trials, seconds, each_s = (middle(found, f"{kind}_{word}") for word in ("trials", "s", "s_per_trial"))
            print(f"  {kind}: {trials:g} trials, {seconds / 60:.1f} min, {each_s:.0f} s a trial")
        ratios = sorted(one["ratio"] for one in found)  # infinite where ours never got there
        low, median, high = (ratios[place * (seeds - 1) // 4] for place in (1, 2, 3))
        print(f"  time to an equal pick, ours over naive: {median:.2f} (quartiles {low:.2f}, {high:.2f})")
        print(f"  who knew it beforehand over naive: {middle(found, 'least_ratio'):.2f}")
        print(f"  time of a trial, ours over naive: {middle(found, 'ratio_per_trial'):.2f}", flush=True)
    return {"fresh_interpreter_s": fresh_s, "tables": rounds}


def middle(found: list[dict[str, float]], word: str) -> float:
    return statistics.median(one[word] for one in found)


def live(count: int, budgets: dict[str, int], steps: int) -> dict[str, Any]:
    rounds = []
    with tempfile.TemporaryDirectory() as name:
        for seed in range(count):
            found = {}
            for kind in ("naive", "ours") if seed % 2 == 0 else ("ours", "naive"):
                found[kind] = run(kind, Path(name) / f"{kind}-{seed}", budgets[kind], steps, seed)
            rounds.append(compare(found["naive"], found["ours"]))
            print("  ".join(f"{word} {number:.3g}" for word, number in rounds[-1].items()), flush=True)
    for word, what in (("ratio", "wall time to an equal pick"), ("ratio_per_trial", "wall time of a trial")):
        print(f"{what}, ours over naive: {middle(rounds, word):.2f} (median)")
    return {"rounds": rounds}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--budget", type=int, default=24, help="trials of ours")
    parser.add_argument("--naive-budget", type=int, default=60, help="trials of the naive loop")
    parser.add_argument("--steps", type=int, default=8, help="of the workload")
    parser.add_argument("-o", "--output", type=Path, help="the figures as JSON")
    parser.add_argument("--tables", type=Path, nargs="+", help="recorded spaces to search in place of the demo")
    parser.add_argument("--seeds", type=int, default=30, help="searches of each table by each of the two")
    parser.add_argument("--fresh-s", type=float, help="what a fresh interpreter takes; by default it is measured")
    asked = parser.parse_args()
    budgets = {"naive": asked.naive_budget, "ours": asked.budget}
    tables = asked.tables
    told = (
        of_tables(tables, asked.seeds, budgets, asked.fresh_s) if tables else live(asked.rounds, budgets, asked.steps)
    )
    if asked.output:
        told = {"command": " ".join(["python", *sys.argv]), "versions": versions(), **told}
        asked.output.write_text(json.dumps(told, indent=2) + "\n")


if __name__ == "__main__":
    main()
