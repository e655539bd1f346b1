"""Does a measured latency agree with that of a plain timing loop?

    python benchmarks/latency_agrees.py                    # the untouched demo, with interleaved calls
    python benchmarks/latency_agrees.py --apart            # the untouched demo, in interleaved fresh processes
    python benchmarks/latency_agrees.py best.json          # an exported config, in interleaved fresh processes
    python benchmarks/latency_agrees.py --device cuda      # the demo on a GPU (an exported config has its own device)

With interleaved calls, one process holds the pipe of a plain script and the pipe that autotune builds, and calls them
alternately, so that a disturbance affects both alike. With fresh processes the agreement is limited by the drift of the
machine. The exit status is 1 where they do not agree. For an exported config the plain loop calls the pipe that
autotune.load() returns, and the latency in the file is printed as well. On a machine that is never idle set
AUTOTUNE_BUSY=accept.
"""

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from autotune.statistics.verdict import half_width

if TYPE_CHECKING:
    from autotune.config import Value
    from autotune.device import Device
    from autotune.target import Target

PLAIN = """
import json, sys, time
import torch

options = json.loads(sys.argv[1])
if options["config"]:
    import autotune

    pipe = autotune.load(options["config"])
else:
    from diffusers import DiffusionPipeline

    pipe = DiffusionPipeline.from_pretrained(options["folder"], dtype=torch.float32).to(options["device"])
pipe.set_progress_bar_config(disable=True)

def call():
    generator = torch.Generator("cpu").manual_seed(options["seed"])
    if options["config"]:  # size, steps and guidance are the loaded pipe's own defaults
        return pipe(options["prompt"], generator=generator).images
    return pipe(
        options["prompt"],
        width=options["width"],
        height=options["height"],
        num_inference_steps=options["steps"],
        guidance_scale=options["guidance_scale"],
        generator=generator,
    ).images

for _ in range(5):
    call()
seconds = []
for _ in range(options["calls"]):
    start = time.perf_counter()
    call()
    seconds.append(time.perf_counter() - start)
print(json.dumps(seconds))
"""
CALLS = 20
PAIRS = 160  # of interleaved calls. On two cores of a virtual machine the interval is +-0.4 to 0.6%, of 40 +-1.1%
WITHIN = 0.01


def interleave(device: "Device", pairs: int) -> list[float]:
    """The logarithms of autotune's seconds over the plain loop's, one for each pair of calls in this process."""
    from autotune.devices import environment

    os.environ.update(environment(device))  # as a child sees it, before anything can ask CUDA
    import torch
    from diffusers import DiffusionPipeline

    from autotune import demo
    from autotune.building import build
    from autotune.knobs import complete
    from autotune.measure import call_pipe, latency
    from autotune.pipelines import resolve
    from autotune.tuning.probe_space import default_prompts
    from autotune.workload import Workload

    pipeline, name = resolve("demo"), device.torch_name
    prompt = default_prompts(pipeline).texts[0]
    workload = Workload(prompts=(prompt,), width=64, height=64, steps=20, guidance_scale=4.0)
    plain_pipe = DiffusionPipeline.from_pretrained(demo.PIPELINE, dtype=torch.float32).to(name)
    built = build.load(pipeline, complete({}), name)
    build.apply(built, complete({}), workload, name)
    for pipe in (plain_pipe, built):
        pipe.set_progress_bar_config(disable=True)

    def plain_s() -> float:
        start = time.perf_counter()
        generator = torch.Generator("cpu").manual_seed(0)
        plain_pipe(prompt, width=64, height=64, num_inference_steps=20, guidance_scale=4.0, generator=generator)
        return time.perf_counter() - start

    def ours_s() -> float:
        with torch.no_grad():
            return latency.timed(lambda: call_pipe(built, workload, [prompt], [0]), name)[0]

    logs = []
    for number in range(-3, pairs):  # the first three warm up
        first, second = (plain_s, ours_s) if number % 2 else (ours_s, plain_s)
        first_s, second_s = first(), second()
        ours, plain = (second_s, first_s) if number % 2 else (first_s, second_s)
        if number >= 0:
            logs.append(math.log(ours / plain))
    return logs


def show_interleaved(device: "Device", pairs: int) -> int:
    logs = interleave(device, pairs)
    middle, half = statistics.fmean(logs), half_width(logs)
    low, high, median = math.exp(middle - half), math.exp(middle + half), math.exp(statistics.median(logs))
    print(f"autotune's over the plain loop's, {pairs} interleaved calls each: median of the ratios {median:.4f}")
    print(f"their mean {math.exp(middle):.4f} (95 % interval {low:.4f} to {high:.4f})")
    return say_agreement(low, high)


def say_agreement(low: float, high: float) -> int:
    """The exit status. low, high: the ratio's interval. Too wide an interval is neither agreement nor disagreement."""
    if low > 1 + WITHIN or high < 1 - WITHIN:
        print("they do NOT agree within 1%")
        return 1
    agree = low >= 1 - WITHIN and high <= 1 + WITHIN
    print("they agree within 1%" if agree else "the interval is too wide to tell 1%")
    return 0


def plain(target: "Target", config: str | None) -> list[float]:
    """The seconds of the plain loop's calls."""
    from autotune import demo
    from autotune.devices import environment

    workload = target.workload
    options = {
        "config": config,
        "folder": str(demo.PIPELINE),
        "prompt": workload.prompts[0],
        "width": workload.width,
        "height": workload.height,
        "steps": workload.steps,
        "guidance_scale": workload.guidance_scale,
        "seed": workload.seed,
        "calls": CALLS,
        "device": target.device.torch_name,
    }
    command = [sys.executable, "-c", PLAIN, json.dumps(options)]
    seen = {**os.environ, **({} if config else environment(target.device))}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=seen)
    if done.returncode:
        sys.exit(f"the plain loop failed: {done.stderr}")
    return list(json.loads(done.stdout))


def measured(target: "Target", values: dict[str, "Value"], folder: Path) -> list[float]:
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


def show(what: str, ours: float, plain: float) -> None:
    print(f"{what}: plain {plain * 1e3:.1f} ms, autotune {ours * 1e3:.1f} ms, ratio {ours / plain:.4f}", flush=True)


def main() -> int:
    from autotune.devices import find_device
    from autotune.execution.probe import probe
    from autotune.knobs import complete
    from autotune.pipelines import resolve
    from autotune.production.tuned_config import TunedConfig
    from autotune.tuning.probe_space import default_prompts
    from autotune.tuning.verify import stored_latency_s
    from autotune.workload import WorkloadRequest

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("config", nargs="?")
    parser.add_argument("--apart", action="store_true")
    parser.add_argument("--pairs", type=int, default=PAIRS)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    if arguments.rounds < 2 or arguments.pairs < 2:
        parser.error("an interval needs two rounds, or two pairs, at least")
    if not (arguments.apart or arguments.config):
        return show_interleaved(find_device(arguments.device), arguments.pairs)
    ours, plain_s = [], []
    with tempfile.TemporaryDirectory() as folder:
        if arguments.config:
            tuned = TunedConfig.load(arguments.config)
            target, values = tuned.target, dict(tuned.config)
        else:
            pipeline = resolve("demo").model_copy(update={"scorer": None})
            request = WorkloadRequest(prompts=default_prompts(pipeline))
            target = probe(Path(folder) / "probe", pipeline, find_device(arguments.device), request)
            values = dict(complete({}))
        for number in range(arguments.rounds):
            plain_s.append(plain(target, arguments.config))
            ours.append(measured(target, values, Path(folder) / f"round-{number}"))
            show(f"round {number + 1}, medians", *map(statistics.median, (ours[-1], plain_s[-1])))
    show("fastest call", min(map(min, ours)), min(map(min, plain_s)))
    medians = [statistics.median(map(statistics.median, each)) for each in (ours, plain_s)]
    show("median of the medians", *medians)
    if arguments.config:
        stored_s = statistics.median(stored_latency_s(tuned))
        print(f"the file says {stored_s * 1e3:.1f} ms, the plain loop's ratio to it is {medians[1] / stored_s:.4f}")
    ratios = [math.log(statistics.median(a) / statistics.median(b)) for a, b in zip(ours, plain_s, strict=True)]
    middle, half = statistics.fmean(ratios), half_width(ratios)
    low, high = math.exp(middle - half), math.exp(middle + half)
    print(f"mean of the rounds' ratios {math.exp(middle):.4f} (95 % interval {low:.4f} to {high:.4f})")
    return say_agreement(low, high)


if __name__ == "__main__":
    sys.exit(main())
