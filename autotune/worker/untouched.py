"""Untouched: call a pipe as diffusers loads it, where a baseline failed, and look for the nearest call that works.

No setting is applied but the number format. So a fault of the checkpoint itself is told apart from one of autotune.
"""

import copy
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from autotune.building import build
from autotune.config import Config, Value
from autotune.job import UntouchedJob
from autotune.knobs import complete, find_knob
from autotune.measure import health, pictures_of
from autotune.pipelines import call
from autotune.pipelines.inputs import call_arguments, picture_arguments
from autotune.target import Target

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline


class Calls(NamedTuple):
    """Prompts and seeds of one call, and until when it may be tried in other ways, by time.monotonic()."""

    target: Target
    prompts: list[str]
    seeds: list[int]
    end: float


class Way(NamedTuple):
    """Another way to make the call. `words` are said where it works."""

    words: str
    arguments: Mapping[str, Any] = MappingProxyType({})
    without: str | None = None  # the component that is left out
    setting: tuple[str, Value] | None = None  # the knob that is set


def run_untouched_job(job: UntouchedJob, folder: Path) -> dict[str, Any]:
    """`seen`: what is wrong with the untouched pipe's output, as a clause; None: nothing. `works`: what helps."""
    target, end = job.target, time.monotonic() + job.budget_s
    dtype = job.values.get("dtype", find_knob("dtype").default)
    pipe = load(target, dtype)
    for prompts, seeds in target.workload.calls():
        calls = Calls(target, prompts, seeds, end)
        seen = fault_of(pipe, calls)
        if seen is not None:
            return {"seen": seen, "works": what_works(pipe, calls, dtype)}
        if not job.all_prompts or time.monotonic() > end:
            break
    return {"seen": None, "works": None}


def load(target: Target, dtype: Value) -> "DiffusionPipeline":
    """The pipe as diffusers loads it, in this number format, on the device."""
    config: Config = complete({"dtype": dtype})
    pipe = build.load(target.pipeline, config, target.device.torch_name, local_files_only=True)
    pipe.set_progress_bar_config(disable=True)
    return pipe.to(target.device.torch_name)


def fault_of(pipe: "DiffusionPipeline", calls: Calls, **more: Any) -> str | None:
    """What is wrong with the pictures of this call, as a clause; None: nothing. Raises where memory is too small."""
    import torch

    workload, output = calls.target.workload, None
    arguments = call_arguments(pipe, workload, calls.prompts, calls.seeds) | call.workload_values(pipe, workload)
    if isinstance(negative := arguments.get("negative_prompt"), str):
        arguments["negative_prompt"] = [negative] * len(calls.prompts)
    try:
        with torch.no_grad(), health.no_silent_nan():
            output = pipe(**(arguments | more), output_type="pil")
        health.check_pictures(
            pictures_of(pipe, output, workload),
            width=workload.width,
            height=workload.height,
            may_be_flat=calls.target.pipeline.weights == "random",
            made_from=list(zip(calls.prompts, calls.seeds, strict=True)),
            one_start=bool(picture_arguments(pipe)),
        )
    except health.BrokenOutput as error:
        censored = sum(map(bool, getattr(output, "nsfw_content_detected", None) or ()))
        return f"{error}" + (f", as its safety_checker has censored {censored} of them" if censored else "")
    except Exception as error:  # of any pipeline: what it says is the answer
        if isinstance(error, MemoryError) or "memory" in str(error).lower():
            raise
        return f"{type(error).__name__}: {next(iter(str(error).splitlines()), 'no message')}"
    return None


def what_works(pipe: "DiffusionPipeline", calls: Calls, dtype: Value) -> str | None:
    """The first way in which this call draws sound pictures, in words; None: none was found in time."""
    for way in ways(pipe, calls.target, dtype):
        if time.monotonic() > calls.end:
            return None
        if fault_of(_changed(pipe, way, calls.target), calls, **way.arguments) is None:
            return way.words
    return None


def ways(pipe: "DiffusionPipeline", target: Target, dtype: Value) -> Iterator[Way]:
    """The ways to try, those that change least first."""
    if getattr(pipe, "safety_checker", None) is not None:
        how = "without its safety_checker (a function of your own builds it so: --factory FILE.py:make --run-code)"
        yield Way(how, without="safety_checker")
    steps = target.workload.steps
    for other in dict.fromkeys((steps + 1, 2 * steps, target.pipeline.known.default_steps)):
        if other != steps:
            yield Way(f"with --steps {other}", call.steps_values(pipe, other))
    for name, own in (("scheduler", "own"), ("dtype", dtype)):
        for value in find_knob(name).values:
            if value != own and find_knob(name).why_not(value, target) is None:
                yield Way(f"with --baseline {name}={value}", setting=(name, value))


def _changed(pipe: "DiffusionPipeline", way: Way, target: Target) -> "DiffusionPipeline":
    """The pipe for this way: another one where a part of it is changed."""
    if way.setting is not None and way.setting[0] == "dtype":
        return load(target, way.setting[1])
    other = copy.copy(pipe)
    if way.without is not None:
        vars(other)[way.without] = None
    if way.setting is not None:
        name, value = way.setting
        apply = find_knob(name).apply
        assert apply is not None, f"{name} changes a loaded pipe"
        apply(other, complete({name: value}), target.device.torch_name)
    return other
