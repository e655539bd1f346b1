"""Does a measured latency agree with a plain loop that anybody would write?

    python benchmarks/latency_agrees.py [best.json] [--rounds 3]

Of the untouched demo the plain loop knows diffusers alone; of an exported config it calls what autotune.load() returns,
and the figure in the file is printed, too. Plain loop and measurement take turns, each in a fresh process. Printed are
both medians of each round and their ratio; that of all rounds should be within 1 % of 1. On a machine that is never
idle set AUTOTUNE_BUSY=accept, and expect the ratio to scatter as the machine does.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

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
    return pipe(
        asked["prompt"],
        width=asked["width"],
        height=asked["height"],
        num_inference_steps=asked["steps"],
        guidance_scale=asked["guidance_scale"],
        generator=torch.Generator("cpu").manual_seed(asked["seed"]),
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
    from autotune import isolate
    from autotune.job import MeasureJob
    from autotune.trial import Failure, Measurement

    job = MeasureJob(target=target, values=values, pictures=False)
    answer = isolate.run(folder, job, timeout_s=600)
    if isinstance(answer, Failure):
        sys.exit(f"the measurement failed ({answer.cause}): {answer.reason}")
    return list(Measurement.parse(answer, "the outcome").latency_samples_s)


def show(what: str, ours: float, theirs: float) -> None:
    print(f"{what}: plain {theirs * 1e3:.1f} ms, autotune {ours * 1e3:.1f} ms, ratio {ours / theirs:.4f}", flush=True)


def main() -> None:
    from autotune.device import find_device
    from autotune.knobs import complete
    from autotune.pipelines import resolve
    from autotune.probe import default_prompts, probe
    from autotune.tuned import TunedConfig
    from autotune.verify import stored_latency_s

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("config", nargs="?")
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
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
