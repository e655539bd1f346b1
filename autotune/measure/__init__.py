"""Measuring, in the child: warm up until calls agree, time the calls that make the pictures while the device is
watched, then take the memory and the parts of a call, each from calls of their own.

`measure_pipe` knows no knob and no search. The timed calls are full calls of the pipeline, prompt in, PIL picture out.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from PIL import Image

from autotune.errors import UserError
from autotune.measure import health, latency
from autotune.measure.compilation import compilation
from autotune.measure.kernels import attention_kernels, short_call
from autotune.measure.memory import MemoryMeter
from autotune.measure.phases import phases
from autotune.measure.watch import Watch
from autotune.pipelines.inputs import call_arguments
from autotune.workload import Workload

Hopeless = Callable[[Sequence[float], int], bool]
TimeCalls = Callable[[Any, Workload], latency.Sampled[list[Image.Image]]]


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
    watch: Watch,
    *,
    device: str,
    pictures: bool,
    check: Callable[[dict[str, int]], None],
    spot_check: int | None = None,
    dominated: Hopeless | None = None,
    precision: float = 0.0,
) -> tuple[dict[str, Any], list[Image.Image]]:
    """The fields of a Measurement that a built pipe can show, and a picture for each prompt (none if not wanted).

    `check` is called with the attention kernels when the first call is over: it may raise before time is spent. Raises
    latency.NoCleanSamples where the device is not at itself.

    spot_check      the number of the call whose pictures alone are wanted
    dominated  asked after the least number of calls, with their seconds and the peak memory so far; where it says so, no
              more are timed for the pictures' sake, and only the first of them come back
    precision  the standard error of a latency, as a share, that is good enough
    """
    first, *others = (workload.at(shape) for shape in workload.shapes)
    meter.start("first")
    first_call_s = latency.timed(lambda: _one_call(pipe, first), device)[0]
    meter.stop()
    with meter.aside():
        kernels = attention_kernels(pipe, lambda: _one_call(pipe, first, **short_call(pipe)))
    check(kernels)
    so_far = max(peak.device_bytes for peak in meter.peaks.values())
    ask = (lambda samples_s: dominated(samples_s, so_far)) if dominated else None
    timed = partial(_timed_calls, watch=watch, device=device, precision=precision)
    drawn = partial(timed, pictures=pictures, spot_check=spot_check, dominated=ask)
    steady, images = _steady_state(pipe, first, watch, device, drawn)
    also = [_at_another_size(pipe, other, device, partial(timed, pictures=False)) for other in others]
    _meter_run(meter, [partial(_one_call, pipe, one) for one in (first, *others)])
    fields = {
        "first_call_s": first_call_s,
        **steady,
        "also": also,
        **_memory(meter),
        "phases": phases(pipe, lambda: _one_call(pipe, first), device).to_json(),
        "attention_kernels": kernels,
        "compilation": seen.to_json() if (seen := compilation()) else None,
    }
    return fields, images


def _one_call(pipe: Any, workload: Workload, **more: Any) -> list[Image.Image]:
    return call_pipe(pipe, workload, *next(workload.calls()), **more)


def _steady_state(
    pipe: Any,
    workload: Workload,
    watch: Watch,
    device: str,
    time_calls: TimeCalls,
) -> tuple[dict[str, Any], list[Image.Image]]:
    """The fields that the timed calls give, and the pictures that they made."""
    warmup_s = latency.warm_up(lambda: _one_call(pipe, workload), device)
    sampled = time_calls(pipe, workload)
    energy_j, health_then = watch.energy_j(), watch.health()
    fields = {
        "warmup_s": warmup_s,
        "latency_samples_s": sampled.samples_s,
        "stopped_by": sampled.stopped_by,
        "discarded": [one.to_json() for one in sampled.discarded],
        "health": health_then.to_json() if health_then else None,
        "energy_per_picture_j": energy_j / len(sampled.samples_s) / workload.batch if energy_j is not None else None,
    }
    return fields, [image for made in sampled.made for image in made][: len(workload.prompts)]


def _at_another_size(pipe: Any, workload: Workload, device: str, time_calls: TimeCalls) -> dict[str, Any]:
    """The fields of a ShapeCost: what the same built pipe costs at another size."""
    before = compilation()
    first_call_s = latency.timed(lambda: _one_call(pipe, workload), device)[0]
    warmup_s = latency.warm_up(lambda: _one_call(pipe, workload), device)
    sampled = time_calls(pipe, workload)
    after = compilation()
    return {
        "shape": workload.shapes[0].to_json(),
        "first_call_s": first_call_s,
        "warmup_s": warmup_s,
        "latency_samples_s": sampled.samples_s,
        "graphs_added": after.graphs - before.graphs if after and before else 0,
    }


def _timed_calls(
    pipe: Any,
    workload: Workload,
    *,
    watch: Watch,
    device: str,
    precision: float,
    pictures: bool,
    spot_check: int | None = None,
    dominated: Callable[[Sequence[float]], bool] | None = None,
) -> latency.Sampled[list[Image.Image]]:
    """With `pictures`, at least one call for every prompt; with a `spot_check`, that call first, and it alone is wanted."""
    calls, begin = list(workload.calls()), spot_check or 0

    def call(number: int) -> list[Image.Image]:
        return call_pipe(pipe, workload, *calls[(begin + number) % len(calls)])

    wanted = 1 if spot_check is not None else len(calls) if pictures else 0
    return latency.sample(call, watch, wanted=wanted, device=device, dominated=dominated, precision=precision)


def draw(pipe: Any, workload: Workload) -> list[Image.Image]:
    """A picture of every prompt, untimed."""
    images = [image for prompts, seeds in workload.calls() for image in call_pipe(pipe, workload, prompts, seeds)]
    return images[: len(workload.prompts)]


def _meter_run(meter: MemoryMeter, calls: Sequence[Callable[[], object]]) -> None:
    """The memory of the steady state, from untimed calls of its own."""
    meter.start("run")
    for call in calls:
        call()
    meter.stop()


def _memory(meter: MemoryMeter) -> dict[str, Any]:
    """The fields that all phases of the meter give, that of loading among them."""
    return {
        "run_peak_memory_bytes": meter.peaks["run"].device_bytes,
        "peak_memory_bytes": max(peak.device_bytes for peak in meter.peaks.values()),
        "peaks": {phase: peak.to_json() for phase, peak in meter.peaks.items()},
    }


def measure_chain(
    chain: Any, meter: MemoryMeter, watch: Watch, *, device: str
) -> tuple[dict[str, Any], list[Image.Image]]:
    """The fields of a ChainCost, and the pictures of the first timed call. Raises latency.NoCleanSamples."""
    calls = list(chain.workloads[0].calls())

    def call(number: int) -> list[Image.Image]:
        prompts, seeds = calls[number % len(calls)]
        with health.no_silent_nan():
            return list(chain(prompts, seed=seeds[0]))

    meter.start("first")
    first_call_s = latency.timed(lambda: call(0), device)[0]
    meter.stop()
    warmup_s = latency.warm_up(lambda: call(0), device)
    sampled = latency.sample(call, watch, wanted=1, device=device)
    _meter_run(meter, [partial(call, 0)])
    fields = {
        "first_call_s": first_call_s,
        "warmup_s": warmup_s,
        "latency_samples_s": sampled.samples_s,
        "peak_memory_bytes": _memory(meter)["peak_memory_bytes"],
    }
    return fields, sampled.made[0]


def stopwatch() -> Callable[[], float]:
    """Seconds since the call before (or since the start), each time it is called."""
    last = [time.perf_counter()]

    def lap() -> float:
        now = time.perf_counter()
        seconds, last[0] = now - last[0], now
        return seconds

    return lap
