"""What a trial takes beyond its own loading, applying, timing and drawing; and how asking and telling grow with trials.

    python benchmarks/trial_overhead.py [--rounds 3] [--trials 1000] [--sampler random]

First the demo's default config, measured and judged in processes that are forked and spawned in turn. `start`: from the
wish for a process until the pipe is loaded in it. `end`: from its outcome on the disk until all of it is gone. `judge`:
the whole of the second process, which scores the pictures. Start and end together should be at most 1 s when forked.
The ratio of latencies says whether a forked process times what a fresh one does (1 within the noise).

Then a study of made-up outcomes, no process at all: what one ask and tell take around the 10th trial, the 100th ... in
milliseconds of the processor's time (and of the clock's, which a busy machine spoils). The growth should be flat. A
sampler that reads all trials (tpe) grows by itself.
"""

import argparse
import random
import statistics
import sys
import tempfile
import time
from pathlib import Path

from autotune.config import Config
from autotune.devices import find_device
from autotune.execution import isolate
from autotune.execution.probe import probe
from autotune.execution.runner import OFFLINE
from autotune.isolation import ISOLATIONS, Isolation
from autotune.job import MeasureJob, ScoreJob
from autotune.knobs import complete
from autotune.measurement import Measurement
from autotune.pipelines import resolve
from autotune.study.space import make_space
from autotune.study.study import Study
from autotune.study_folder import StudyFolder
from autotune.target import Target
from autotune.trial import Failure, Trial
from autotune.tuning.probe_space import default_prompts, default_space

WINDOW = 10  # trials whose median is told


def demo_target(folder: Path) -> Target:
    pipeline = resolve("demo")
    return probe(folder, pipeline, find_device("cpu"), default_prompts(pipeline).first(4), steps=8)


def measure(folder: Path, target: Target, isolation: Isolation) -> tuple[Measurement, float, float]:
    """The measurement, the seconds of its end, and those of the judging."""
    job = MeasureJob(target=target, values=dict(complete({})), pictures=True)
    answer = isolate.run(folder, job, timeout_s=1800, env=OFFLINE, isolation=isolation)
    ended = time.time() - (folder / "outcome.json").stat().st_mtime
    if isinstance(answer, Failure):
        sys.exit(f"the demo can't be measured: {answer.reason}")
    images = str(folder / "images")
    score = ScoreJob(images=images, baseline=images, prompts=target.workload.prompts, scorer=target.pipeline.scorer)
    begun = time.monotonic()
    judged = isolate.run(folder / "score", score, timeout_s=1800, env=OFFLINE, isolation=isolation)
    if isinstance(judged, Failure):
        sys.exit(f"its pictures can't be judged: {judged.reason}")
    return Measurement.parse(answer, "the outcome"), ended, time.monotonic() - begun


def processes(folder: Path, target: Target, rounds: int) -> None:
    latencies: dict[str, list[float]] = {how: [] for how in ISOLATIONS}
    starts: dict[str, list[float]] = {how: [] for how in ISOLATIONS}
    for number in range(rounds + 1):
        for how in ISOLATIONS if number % 2 else ISOLATIONS[::-1]:
            found, ended, judged = measure(folder / f"{how}-{number}", target, how)
            start_s = found.start_s or 0.0
            first = " (the libraries are loaded for all that follow)" if number == 0 and how == "fork" else ""
            print(
                f"round {number}, {found.isolation}: start {start_s:.2f} s, end {ended:.2f} s, judge {judged:.2f} s; "
                f"load {found.load_s:.2f} s, call {found.latency_s:.3f} s, "
                f"peak {found.peak_memory_bytes / 2**20:.0f} MiB{first}",
                flush=True,
            )
            if number:
                latencies[how].append(found.latency_s)
                starts[how].append(start_s + ended)
    for how in ISOLATIONS:
        print(f"{how}: start and end {statistics.median(starts[how]):.2f} s")
    ratios = [fork / spawn for fork, spawn in zip(latencies["fork"], latencies["spawn"], strict=True)]
    pairs = ", ".join(f"{ratio:.3f}" for ratio in ratios)
    print(f"latency, forked over fresh: {statistics.geometric_mean(ratios):.3f} (pair by pair: {pairs})")


def growth(folder: Path, trials: int, sampler: str) -> None:
    sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
    from conftest import make_target
    from made_up import measured, record

    target = make_target()
    space = make_space(target, default_space(target.pipeline), fix={}, exclude=(), baseline=complete({}))
    about = record(target, space=space.values)
    place = StudyFolder(folder)
    place.create()
    study = Study(place, about, space, sampler=sampler)
    draw = random.Random(0)
    seconds: list[tuple[float, float]] = []
    while len(seconds) < trials:
        begun = time.process_time(), time.perf_counter()
        asked = study.ask()
        if asked is None:
            break
        study.tell(made_up(measured, *asked, draw))
        seconds.append((time.process_time() - begun[0], time.perf_counter() - begun[1]))
    for number in (10, 30, 100, 300, 1000, 3000):
        if number <= len(seconds):
            own, clock = (statistics.median(one) for one in zip(*seconds[number - WINDOW : number], strict=True))
            print(f"{sampler}, trial {number}: {1e3 * own:.1f} ms to ask and tell ({1e3 * clock:.1f} by the clock)")


def made_up(measured: object, number: int, config: Config, origin: str, draw: random.Random) -> Trial:
    trial: Trial = measured(number, latency_s=draw.uniform(0.5, 2), loss=draw.uniform(0, 1))  # type: ignore[operator]
    return trial.model_copy(update={"values": dict(config), "origin": origin})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="0: no processes")
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--sampler", default="random")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        if asked.rounds:
            processes(Path(name), demo_target(Path(name) / "probe"), asked.rounds)
        growth(Path(name) / "study", asked.trials, asked.sampler)


if __name__ == "__main__":
    main()
