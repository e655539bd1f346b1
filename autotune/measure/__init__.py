"""Measuring, in the child: warm up until calls agree, time the calls that make the pictures, watch memory apart.

`measure_pipe` knows no knob and no search. The timed calls are full calls of the pipeline, prompt in, PIL picture out.
"""

import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from PIL import Image

from autotune.errors import UserError
from autotune.measure import health, latency
from autotune.measure.compilation import compilation
from autotune.measure.kernels import attention_kernels, short_call
from autotune.measure.memory import MemoryMeter
from autotune.pipelines.inputs import call_arguments
from autotune.workload import Workload


def call_pipe(
    pipe: Any,
    workload: Workload,
    prompts: list[str],
    seeds: list[int],
    given: Mapping[str, Image.Image] | None = None,
    **more: Any,
) -> list[Image.Image]:
    """One call of the pipe. `given`: pictures to start from instead of ours, by the name of the argument.

    Raises BrokenOutput for NaN pixels, UserError where what comes out is no pictures.
    """
    arguments = call_arguments(pipe, workload, prompts, seeds, given) | more
    with health.no_silent_nan():
        output = pipe(**arguments, output_type="pil")
    if not hasattr(output, "images"):
        raise UserError(f"{type(pipe).__name__} makes {type(output).__name__}, no pictures, so autotune can't tune it.")
    return list(output.images)


def measure_pipe(
    pipe: Any,
    workload: Workload,
    meter: MemoryMeter,
    *,
    device: str,
    pictures: bool,
    check: Callable[[dict[str, int]], None],
) -> tuple[dict[str, Any], list[Image.Image]]:
    """The fields of a Measurement that a built pipe can show, and a picture for each prompt (none if not wanted).

    `check` is called with the attention kernels when the first call is over: it may raise before time is spent.
    """
    first, *others = (workload.at(shape) for shape in workload.shapes)
    meter.start("first")
    first_call_s = latency.timed(lambda: _one_call(pipe, first), device)[0]
    meter.stop()
    kernels = attention_kernels(pipe, lambda: _one_call(pipe, first, **short_call(pipe)))
    check(kernels)
    meter.start("run")
    warmup_s = latency.warm_up(lambda: _one_call(pipe, first), device)
    samples_s, images = _timed_calls(pipe, first, device, pictures=pictures)
    also = [_at_another_size(pipe, other, device) for other in others]
    meter.stop()
    fields = {
        "first_call_s": first_call_s,
        "warmup_s": warmup_s,
        "latency_samples_s": samples_s,
        "also": also,
        "run_peak_memory_bytes": meter.peaks["run"],
        "peak_memory_bytes": max(meter.peaks.values()),
        "attention_kernels": kernels,
        "compilation": seen.to_json() if (seen := compilation()) else None,
    }
    return fields, images


def _one_call(pipe: Any, workload: Workload, **more: Any) -> list[Image.Image]:
    return call_pipe(pipe, workload, *next(workload.calls()), **more)


def _at_another_size(pipe: Any, workload: Workload, device: str) -> dict[str, Any]:
    """The fields of a ShapeCost: what the same built pipe costs at another size."""
    before = compilation()
    first_call_s = latency.timed(lambda: _one_call(pipe, workload), device)[0]
    warmup_s = latency.warm_up(lambda: _one_call(pipe, workload), device)
    samples_s, _ = _timed_calls(pipe, workload, device, pictures=False)
    after = compilation()
    return {
        "shape": workload.shapes[0].to_json(),
        "first_call_s": first_call_s,
        "warmup_s": warmup_s,
        "latency_samples_s": samples_s,
        "graphs_added": after.graphs - before.graphs if after and before else 0,
    }


def _timed_calls(
    pipe: Any, workload: Workload, device: str, *, pictures: bool
) -> tuple[list[float], list[Image.Image]]:
    """LEAST_CALLS calls; with `pictures`, at least one for every prompt, and the pictures of the first round."""
    calls = list(workload.calls())
    wanted = max(len(calls), latency.LEAST_CALLS) if pictures else latency.LEAST_CALLS
    samples_s: list[float] = []
    images: list[Image.Image] = []
    for number in range(wanted):
        prompts, seeds = calls[number % len(calls)]
        seconds, made = latency.timed(partial(call_pipe, pipe, workload, prompts, seeds), device)
        samples_s.append(seconds)
        images += made if pictures and number < len(calls) else []
    return samples_s, images[: len(workload.prompts)]


def draw(pipe: Any, workload: Workload) -> list[Image.Image]:
    """A picture of every prompt, untimed."""
    images = [image for prompts, seeds in workload.calls() for image in call_pipe(pipe, workload, prompts, seeds)]
    return images[: len(workload.prompts)]


def measure_chain(chain: Any, meter: MemoryMeter, *, device: str) -> tuple[dict[str, Any], list[Image.Image]]:
    """The fields of a ChainCost, and the pictures of the last call."""
    calls = list(chain.workloads[0].calls())

    def call(number: int) -> list[Image.Image]:
        prompts, seeds = calls[number % len(calls)]
        with health.no_silent_nan():
            return list(chain(prompts, seed=seeds[0]))

    meter.start("first")
    first_call_s = latency.timed(lambda: call(0), device)[0]
    meter.start("run")
    warmup_s = latency.warm_up(lambda: call(0), device)
    timed = [latency.timed(partial(call, number), device) for number in range(latency.LEAST_CALLS)]
    meter.stop()
    fields = {
        "first_call_s": first_call_s,
        "warmup_s": warmup_s,
        "latency_samples_s": [seconds for seconds, _ in timed],
        "peak_memory_bytes": max(meter.peaks.values()),
    }
    return fields, timed[-1][1]


def stopwatch() -> Callable[[], float]:
    """Seconds since the call before (or since the start), each time it is called."""
    last = [time.perf_counter()]

    def lap() -> float:
        now = time.perf_counter()
        seconds, last[0] = now - last[0], now
        return seconds

    return lap
