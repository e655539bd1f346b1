"""Measure: latency, memory, phases and pictures of a built pipe, taken in a child process.

This room knows no knob. measure_pipe() warms up until calls agree. It then times the calls that draw the pictures,
while the device is watched. Memory and phases come from further calls. The profiler comes last, because it slows the
process down for good. Every call is a full call of the workload: prompt in, PIL picture out.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from PIL import Image

from autotune.errors import UserError
from autotune.measure import health, latency
from autotune.measure.compilation import compilation
from autotune.measure.kernels import Profiled, profile_steps
from autotune.measure.memory import MemoryMeter, largest
from autotune.measure.phases import PARTS, announced, phases
from autotune.measure.watch import Watch
from autotune.measurement import Phases
from autotune.pictures.video import Picture, Video
from autotune.pipelines.inputs import call_arguments
from autotune.workload import Workload

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

    from autotune.pipelines.chain import Chain

Images = list[Picture]
Dominated = Callable[[Sequence[float], int], bool]  # (seconds of the first calls, peak memory in bytes so far)
Check = Callable[[dict[str, int] | None], None]  # (attention kernels, or None while they are not known)
RESULTS = ("images", "image", "frames")  # where a pipe's output has its pictures (Kandinsky 5 has `image`) or clips
WarmUp = Callable[[Callable[[], object]], list[float]]
TimeCalls = Callable[["DiffusionPipeline", Workload], latency.Sampled[Images]]


def call_pipe(
    pipe: "DiffusionPipeline",
    workload: Workload,
    prompts: list[str],
    seeds: list[int],
    given: Mapping[str, Sequence[Image.Image]] | None = None,
    **more: Any,
) -> Images:
    """Call the pipe once. Returns one picture or clip for each prompt.

    given  argument name -> pictures that the pipe starts from, in place of the built-in ones
    more   further arguments of the call

    Raises BrokenOutput for NaN pixels, UserError where the pipeline does not return pictures.
    """
    arguments = call_arguments(pipe, workload, prompts, seeds, given) | more
    with health.no_silent_nan():
        output = pipe(**arguments, output_type="pil")
    return pictures_of(pipe, output, workload)


def pictures_of(pipe: "DiffusionPipeline", output: Any, workload: Workload) -> Images:
    """The pictures or clips in the output of a call. Raises UserError where there are none."""
    images = next((getattr(output, name) for name in RESULTS if hasattr(output, name)), None)
    if images is None:
        name, kind = type(pipe).__name__, type(output).__name__
        raise UserError(f"{name} returns {kind} instead of pictures, so autotune can't tune it.")
    return list(images) if workload.frames is None else [Video(tuple(frames)) for frames in images]


def measure_pipe(
    pipe: "DiffusionPipeline",
    workload: Workload,
    meter: MemoryMeter,
    watch: Watch,
    *,
    device: str,
    pictures: bool,
    check: Check,
    spot_check: int | None = None,
    dominated: Dominated | None = None,
    precision: float = 0.0,
    timing_s: float | None = None,
    breakdown: bool = True,
    began: float | None = None,
) -> tuple[dict[str, Any], Images]:
    """The fields of a Measurement that come from calling the pipe, and the pictures that the timed calls drew.

    device      torch's name of the device
    pictures    time at least one call for each prompt, and return a picture for each
    check       called after the warm-up with None, and at the end with the attention kernels: it raises if the config
                can't be right
    spot_check  time this call of the workload first, and return its pictures only
    dominated   called once, after LEAST_CALLS calls that don't scatter. True ends the timing: the pictures drawn so far
                are returned, and no others
    precision   the standard error of a latency, as a share, that is good enough
    timing_s    seconds of the warm-up, and of timed calls beyond those that draw pictures; None: as usual
    breakdown   also time the parts of a call, and profile its first steps
    began       when this process was asked for (time.monotonic): disturbed calls are taken again for as long as a new
                process would need to get here; None: they are not

    Raises latency.NoCleanSamples where the device was disturbed for too long, and whatever `check` raises.
    """
    first, *others = (workload.at(shape) for shape in workload.shapes)
    meter.start("first")
    first_call_s = latency.timed(lambda: one_call(pipe, first), device)[0]
    meter.stop()
    peak_bytes = max(peak.device_bytes for peak in meter.peaks.values())
    stop = (lambda samples_s: dominated(samples_s, peak_bytes)) if dominated else None
    time_calls = partial(_time_calls, watch=watch, device=device, precision=precision, budget_s=timing_s, began=began)
    time_pictures = partial(time_calls, pictures=pictures, spot_check=spot_check, dominated=stop)
    warm_up = partial(latency.warm_up, device=device, budget_s=timing_s)
    steady, images = _steady_state(pipe, first, watch, warm_up, time_pictures, check)
    also = [_at_another_size(pipe, other, device, warm_up, partial(time_calls, pictures=False)) for other in others]
    parts = phases(pipe, lambda: one_call(pipe, first), device) if breakdown else None
    with announced(pipe, meter.start):
        _meter_run(meter, "denoising", [partial(one_call, pipe, size) for size in (first, *others)])
    meter.peaks["run"] = largest(meter.peaks[part] for part in PARTS if part in meter.peaks)
    profiled = profile_steps(pipe, lambda: one_call(pipe, first)) if breakdown else None
    check(profiled.kernels if profiled else None)
    fields = {
        "first_call_s": first_call_s,
        **steady,
        "also": also,
        **_memory(meter),
        **(_breakdown(parts, profiled) if parts and profiled else {"attention_kernels": {}}),
        "compilation": compiled.to_json() if (compiled := compilation()) else None,
    }
    return fields, images


def _breakdown(parts: Phases, profiled: Profiled) -> dict[str, Any]:
    phases_and_device = parts.model_copy(update={"early_step_device_s": profiled.device_s})
    return {"phases": phases_and_device.to_json(), "attention_kernels": profiled.kernels}


def one_call(pipe: "DiffusionPipeline", workload: Workload) -> Images:
    """The first call of the workload. Returns its pictures."""
    return call_pipe(pipe, workload, *next(workload.calls()))


def _steady_state(
    pipe: "DiffusionPipeline", workload: Workload, watch: Watch, warm_up: WarmUp, time_calls: TimeCalls, check: Check
) -> tuple[dict[str, Any], Images]:
    """Warm up, check and time calls. Returns fields of the Measurement, and the pictures that were drawn."""
    warmup_s = warm_up(lambda: one_call(pipe, workload))
    check(None)
    sampled = time_calls(pipe, workload)
    energy_j, device_health = watch.energy_j(), watch.health()
    fields = {
        "warmup_s": warmup_s,
        "latency_samples_s": sampled.samples_s,
        "stopped_by": sampled.stopped_by,
        "discarded": [call.to_json() for call in sampled.discarded],
        "health": device_health.to_json() if device_health else None,
        "energy_per_picture_j": energy_j / len(sampled.samples_s) / workload.batch if energy_j is not None else None,
    }
    return fields, [image for images in sampled.results for image in images][: len(workload.prompts)]


def _at_another_size(
    pipe: "DiffusionPipeline", workload: Workload, device: str, warm_up: WarmUp, time_calls: TimeCalls
) -> dict[str, Any]:
    """The fields of a ShapeCost: the cost of the same pipe at another size."""
    before = compilation()
    first_call_s = latency.timed(lambda: one_call(pipe, workload), device)[0]
    warmup_s = warm_up(lambda: one_call(pipe, workload))
    sampled = time_calls(pipe, workload)
    after = compilation()
    return {
        "shape": workload.shapes[0].to_json(),
        "first_call_s": first_call_s,
        "warmup_s": warmup_s,
        "latency_samples_s": sampled.samples_s,
        "graphs_added": after.graphs - before.graphs if after and before else 0,
    }


def _time_calls(
    pipe: "DiffusionPipeline",
    workload: Workload,
    *,
    watch: Watch,
    device: str,
    precision: float,
    budget_s: float | None,
    began: float | None,
    pictures: bool,
    spot_check: int | None = None,
    dominated: Callable[[Sequence[float]], bool] | None = None,
) -> latency.Sampled[Images]:
    """Time calls of the workload in turn.

    pictures    time each call of the workload at least once, and return their pictures
    spot_check  begin with this call, and return its pictures only
    """
    calls, start = list(workload.calls()), spot_check or 0

    def call(number: int) -> Images:
        return call_pipe(pipe, workload, *calls[(start + number) % len(calls)])

    keep = 1 if spot_check is not None else len(calls) if pictures else 0
    options: dict[str, Any] = {"dominated": dominated, "precision": precision, "budget_s": budget_s}
    patience_s = time.monotonic() - began if began is not None else 0.0
    return latency.sample(call, watch, keep=keep, device=device, patience_s=patience_s, **options)


def draw(pipe: "DiffusionPipeline", workload: Workload) -> Images:
    """Draw a picture of each prompt. Nothing is timed."""
    images = [image for prompts, seeds in workload.calls() for image in call_pipe(pipe, workload, prompts, seeds)]
    return images[: len(workload.prompts)]


def _meter_run(meter: MemoryMeter, phase: str, calls: Sequence[Callable[[], object]]) -> None:
    """Meter the memory of the steady state. The calls are not timed. Each begins in this phase."""
    meter.release()
    for call in calls:
        meter.start(phase)
        call()
    meter.stop()


def _memory(meter: MemoryMeter) -> dict[str, Any]:
    """The memory fields of a Measurement, from all phases of the meter, loading included."""
    return {
        "run_peak_memory_bytes": meter.peaks["run"].device_bytes,
        "peak_memory_bytes": max(peak.device_bytes for peak in meter.peaks.values()),
        "peaks": {phase: peak.to_json() for phase, peak in meter.peaks.items()},
    }


def measure_chain(chain: "Chain", meter: MemoryMeter, watch: Watch, *, device: str) -> tuple[dict[str, Any], Images]:
    """The fields of a ChainCost, and the pictures of the first timed call. Raises latency.NoCleanSamples."""
    calls = list(chain.workloads[0].calls())

    def call(number: int) -> Images:
        prompts, seeds = calls[number % len(calls)]
        with health.no_silent_nan():
            return list(chain(prompts, seed=seeds[0]))

    meter.start("first")
    first_call_s = latency.timed(lambda: call(0), device)[0]
    meter.stop()
    warmup_s = latency.warm_up(lambda: call(0), device)
    sampled = latency.sample(call, watch, keep=1, device=device)
    _meter_run(meter, "run", [partial(call, 0)])
    fields = {
        "first_call_s": first_call_s,
        "warmup_s": warmup_s,
        "latency_samples_s": sampled.samples_s,
        "peak_memory_bytes": _memory(meter)["peak_memory_bytes"],
    }
    return fields, sampled.results[0]


def stopwatch() -> Callable[[], float]:
    """A function that returns the seconds since its previous call, or since it was made."""
    last = [time.perf_counter()]

    def lap() -> float:
        now = time.perf_counter()
        seconds, last[0] = now - last[0], now
        return seconds

    return lap
