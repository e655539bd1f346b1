"""Does a measured latency agree with a plain loop that anybody would write?

    python benchmarks/latency_agrees.py                    # of the untouched demo, call by call in turn
    python benchmarks/latency_agrees.py --apart            # in fresh processes in turn
    python benchmarks/latency_agrees.py best.json          # of an exported config, in fresh processes

In turn, one process holds both the pipe of a plain script and the one that autotune builds, and calls them alternately:
whatever the machine does then disturbs both alike. Apart, plain loop and measurement are fresh processes: they agree as
well as the machine's speed stays what it is. Of an exported config the plain loop calls what autotune.load() returns,
and the figure in the file is printed, too. On a machine that is never idle set AUTOTUNE_BUSY=accept.
"""

import argparse
import json
import math
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from autotune.statistics.verdict import half_width

PLAIN = """
import json, sys, time
import torch

asked = json.loads(sys.argv[1])
if asked["config"]:
    import autotune

    pipe = autotune.load(asked["config"])
else:
    from diffusers import DiffusionPipeline

    pipe = DiffusionPipeline.from_pretrained(asked["folder"], dtype=torch.float32)
pipe.set_progress_bar_config(disable=True)

def call():
    generator = torch.Generator("cpu").manual_seed(asked["seed"])
    if asked["config"]:  # size, steps and guidance are the loaded pipe's own defaults
        return pipe(asked["prompt"], generator=generator).images
    return pipe(
        asked["prompt"],
        width=asked["width"],
        height=asked["height"],
        num_inference_steps=asked["steps"],
        guidance_scale=asked["guidance_scale"],
        generator=generator,
    ).images

for _ in range(5):
    call()
seconds = []
for _ in range(asked["calls"]):
    start = time.perf_counter()
    call()
    seconds.append(time.perf_counter() - start)
print(json.dumps(seconds))
"""
CALLS = 20
PAIRS = 40  # of calls in turn


def interleave() -> list[float]:
    """The logarithms of ours over plain, of calls in turn in this process."""
    import torch
    from diffusers import DiffusionPipeline

    from autotune import demo
    from autotune.building import build
    from autotune.knobs import complete
    from autotune.measure import call_pipe, latency
    from autotune.pipelines import resolve
    from autotune.tuning.probe_space import default_prompts
    from autotune.workload import Workload

    pipeline = resolve("demo")
    prompt = default_prompts(pipeline).texts[0]
    workload = Workload(prompts=(prompt,), width=64, height=64, steps=20, guidance_scale=4.0)
    plain_pipe = DiffusionPipeline.from_pretrained(demo.PIPELINE, dtype=torch.float32)
    built = build.load(pipeline, complete({}), "cpu")
    build.apply(built, complete({}), workload, "cpu")
    for pipe in (plain_pipe, built):
        pipe.set_progress_bar_config(disable=True)

    def plain_s() -> float:
        start = time.perf_counter()
        generator = torch.Generator("cpu").manual_seed(0)
        plain_pipe(prompt, width=64, height=64, num_inference_steps=20, guidance_scale=4.0, generator=generator)
        return time.perf_counter() - start

    def ours_s() -> float:
        with torch.no_grad():
            return latency.timed(lambda: call_pipe(built, workload, [prompt], [0]), "cpu")[0]

    logs = []
    for number in range(-3, PAIRS):  # the first ones warm up
        first, second = (plain_s, ours_s) if number % 2 else (ours_s, plain_s)
        a, b = first(), second()
        ours, theirs = (b, a) if number % 2 else (a, b)
        if number >= 0:
            logs.append(math.log(ours / theirs))
    return logs


def show_in_turn() -> None:
    logs = interleave()
    middle, half = statistics.fmean(logs), half_width(logs)
    low, high, median = math.exp(middle - half), math.exp(middle + half), math.exp(statistics.median(logs))
    print(f"autotune's over the plain loop's, {PAIRS} calls each in turn: median of the ratios {median:.4f}")
    print(f"their mean {math.exp(middle):.4f} (95 % interval {low:.4f} to {high:.4f})")
    print("they agree within 1%" if abs(median - 1) <= 0.01 else "they do NOT agree within 1%")


def plain(target: object, config: str | None) -> list[float]:
    """The seconds of the plain loop's calls."""
    from autotune import demo

    workload = target.workload
    asked = {
        "config": config,
        "folder": str(demo.PIPELINE),
        "prompt": workload.prompts[0],
        "width": workload.width,
        "height": workload.height,
        "steps": workload.steps,
        "guidance_scale": workload.guidance_scale,
        "seed": workload.seed,
        "calls": CALLS,
    }
    done = subprocess.run([sys.executable, "-c", PLAIN, json.dumps(asked)], capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"the plain loop failed: {done.stderr}")
    return list(json.loads(done.stdout))


def measured(target: object, values: dict[str, object], folder: Path) -> list[float]:
    """The seconds of the calls that autotune times."""
    from autotune.execution import isolate
    from autotune.job import MeasureJob
    from autotune.measurement import Measurement
    from autotune.trial import Failure

    job = MeasureJob(target=target, values=values, pictures=False)
    answer = isolate.run(folder, job, timeout_s=600)
    if isinstance(answer, Failure):
        sys.exit(f"the measurement failed ({answer.cause}): {answer.reason}")
    return list(Measurement.parse(answer, "the outcome").latency_samples_s)


def show(what: str, ours: float, theirs: float) -> None:
    print(f"{what}: plain {theirs * 1e3:.1f} ms, autotune {ours * 1e3:.1f} ms, ratio {ours / theirs:.4f}", flush=True)


def main() -> None:
    from autotune.devices import find_device
    from autotune.execution.probe import probe
    from autotune.knobs import complete
    from autotune.pipelines import resolve
    from autotune.production.tuned_config import TunedConfig
    from autotune.tuning.probe_space import default_prompts
    from autotune.tuning.verify import stored_latency_s

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("config", nargs="?")
    parser.add_argument("--apart", action="store_true")
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    if not (asked.apart or asked.config):
        show_in_turn()
        return
    ours, theirs = [], []
    with tempfile.TemporaryDirectory() as folder:
        if asked.config:
            tuned = TunedConfig.load(asked.config)
            target, values = tuned.target, dict(tuned.config)
        else:
            pipeline = resolve("demo").model_copy(update={"scorer": None})
            target = probe(Path(folder) / "probe", pipeline, find_device("cpu"), default_prompts(pipeline))
            values = dict(complete({}))
        for number in range(asked.rounds):
            theirs.append(plain(target, asked.config))
            ours.append(measured(target, values, Path(folder) / f"round-{number}"))
            show(f"round {number + 1}, medians", *map(statistics.median, (ours[-1], theirs[-1])))
    show("fastest call of all", min(map(min, ours)), min(map(min, theirs)))
    medians = [statistics.median(map(statistics.median, each)) for each in (ours, theirs)]
    show("median of the medians", *medians)
    if asked.config:
        stored_s = statistics.median(stored_latency_s(tuned))
        print(f"the file says {stored_s * 1e3:.1f} ms, the plain loop's ratio to it is {medians[1] / stored_s:.4f}")
    print("they agree within 1%" if abs(medians[0] / medians[1] - 1) <= 0.01 else "they do NOT agree within 1%")


if __name__ == "__main__":
    main()
