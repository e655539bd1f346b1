"""Measuring, in the child: warm up until calls agree, time the calls that make the pictures, watch memory apart.

`measure_pipe` knows no knob and no search. The timed calls are full calls of the pipeline, prompt in, PIL picture out.
"""

import time
from collections.abc import Callable
from functools import partial
from typing import Any

from PIL import Image

from autotune.measure import health, latency
from autotune.measure.kernels import attention_kernels
from autotune.measure.memory import MemoryMeter
from autotune.workload import Workload


def call_pipe(pipe: Any, prompts: list[str], seeds: list[int]) -> list[Image.Image]:
    """One call of the pipe. The noise comes from CPU generators, so that it is the same on every device."""
    import torch

    generators = [torch.Generator("cpu").manual_seed(seed) for seed in seeds]
    with health.no_silent_nan():
        return list(pipe(prompt=prompts, generator=generators, output_type="pil").images)


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
    calls = list(workload.calls())
    meter.start("first")
    first_call_s = latency.timed(lambda: call_pipe(pipe, *calls[0]), device)[0]
    meter.stop()
    kernels = attention_kernels(pipe, workload)
    check(kernels)
    meter.start("run")
    warmup_s = latency.warm_up(lambda: call_pipe(pipe, *calls[0]), device)
    wanted = calls if pictures else calls[: latency.LEAST_CALLS]
    samples_s, images = _timed_calls(pipe, wanted, device)
    meter.stop()
    fields = {
        "first_call_s": first_call_s,
        "warmup_s": warmup_s,
        "latency_samples_s": samples_s,
        "run_peak_memory_bytes": meter.peaks["run"],
        "peak_memory_bytes": max(meter.peaks.values()),
        "attention_kernels": kernels,
    }
    return fields, images[: len(workload.prompts)] if pictures else []


def _timed_calls(
    pipe: Any, calls: list[tuple[list[str], list[int]]], device: str
) -> tuple[list[float], list[Image.Image]]:
    """Every call once, and again from the start until there are LEAST_CALLS. Pictures of the first round only."""
    samples_s: list[float] = []
    images: list[Image.Image] = []
    while len(samples_s) < max(len(calls), latency.LEAST_CALLS):
        prompts, seeds = calls[len(samples_s) % len(calls)]
        seconds, made = latency.timed(partial(call_pipe, pipe, prompts, seeds), device)
        if len(samples_s) < len(calls):
            images += made
        samples_s.append(seconds)
    return samples_s, images


def stopwatch() -> Callable[[], float]:
    """Seconds since the call before (or since the start), each time it is called."""
    last = [time.perf_counter()]

    def lap() -> float:
        now = time.perf_counter()
        seconds, last[0] = now - last[0], now
        return seconds

    return lap
