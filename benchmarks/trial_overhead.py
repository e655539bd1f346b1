"""The overhead of a trial beyond its measurement, and how the time of ask and tell grows with the number of trials.

    python benchmarks/trial_overhead.py [--rounds 3] [--trials 1000] [--sampler random]

The first part measures and scores the demo's default config in processes that are forked and spawned alternately.
`start` is the time from the request for a process until it starts to load the pipe. `end` is the time from its outcome
on the disk until the process and its children are gone. `score` is the whole second process, which scores the pictures.
When forked, start and end together should take at most 1 s. The ratio of latencies should be 1 within the noise: then a
forked process measures the same as a fresh one.

The second part runs a study of made-up outcomes, without processes. It prints what one ask and tell take around the
10th trial, the 100th and so on, in milliseconds of CPU time (and of the clock, which other processes disturb). The time
should stay constant. It grows with samplers that read all trials, such as tpe.
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
from autotune.workload import WorkloadRequest

WINDOW = 10  # a figure is the median of this many trials


def demo_target(folder: Path) -> Target:
    pipeline = resolve("demo")
    request = WorkloadRequest(prompts=default_prompts(pipeline).first(4), steps=8)
    return probe(folder, pipeline, find_device("cpu"), request)


def measure(folder: Path, target: Target, isolation: Isolation) -> tuple[Measurement, float, float]:
    """(measurement, seconds of its end, seconds of scoring)."""
    job = MeasureJob(target=target, values=dict(complete({})), pictures=True)
    answer = isolate.run(folder, job, timeout_s=1800, env=OFFLINE, isolation=isolation)
    ended = time.time() - (folder / "outcome.json").stat().st_mtime
    if isinstance(answer, Failure):
        sys.exit(f"the demo can't be measured: {answer.reason}")
    images = str(folder / "images")
    score = ScoreJob(images=images, baseline=images, prompts=target.workload.prompts, scorer=target.pipeline.scorer)
    begun = time.monotonic()
    scored = isolate.run(folder / "score", score, timeout_s=1800, env=OFFLINE, isolation=isolation)
    if isinstance(scored, Failure):
        sys.exit(f"its pictures can't be scored: {scored.reason}")
    return Measurement.parse(answer, "the outcome"), ended, time.monotonic() - begun


def compare_isolations(folder: Path, target: Target, rounds: int) -> None:
    latencies: dict[str, list[float]] = {how: [] for how in ISOLATIONS}
    starts: dict[str, list[float]] = {how: [] for how in ISOLATIONS}
    for number in range(rounds + 1):
        for how in ISOLATIONS if number % 2 else ISOLATIONS[::-1]:
            measurement, end_s, score_s = measure(folder / f"{how}-{number}", target, how)
            start_s = measurement.start_s or 0.0
            first = " (the fork server loads the libraries)" if number == 0 and how == "fork" else ""
            print(
                f"round {number}, {measurement.isolation}: start {start_s:.2f} s, end {end_s:.2f} s, "
                f"score {score_s:.2f} s; load {measurement.load_s:.2f} s, call {measurement.latency_s:.3f} s, "
                f"peak {measurement.peak_memory_bytes / 2**20:.0f} MiB{first}",
                flush=True,
            )
            if number:
                latencies[how].append(measurement.latency_s)
                starts[how].append(start_s + end_s)
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
        proposal = study.ask()
        if proposal is None:
            break
        study.tell(made_up(measured, *proposal, draw))
        seconds.append((time.process_time() - begun[0], time.perf_counter() - begun[1]))
    for number in (10, 30, 100, 300, 1000, 3000):
        if number <= len(seconds):
            cpu, clock = (statistics.median(times) for times in zip(*seconds[number - WINDOW : number], strict=True))
            print(f"{sampler}, trial {number}: {1e3 * cpu:.1f} ms to ask and tell ({1e3 * clock:.1f} by the clock)")


def made_up(measured: object, number: int, config: Config, origin: str, draw: random.Random) -> Trial:
    trial: Trial = measured(number, latency_s=draw.uniform(0.5, 2), loss=draw.uniform(0, 1))  # type: ignore[operator]
    return trial.model_copy(update={"values": dict(config), "origin": origin})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="0: no processes")
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--sampler", default="random")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        if arguments.rounds:
            compare_isolations(Path(name), demo_target(Path(name) / "probe"), arguments.rounds)
        growth(Path(name) / "study", arguments.trials, arguments.sampler)


if __name__ == "__main__":
    main()
