"""steps: the number of denoising steps. "workload": that of the workload; a space file can offer fewer.

In a space file, `steps = ["workload", "range"]` searches all numbers from a quarter of the workload's.

With a strength below 1 (image-to-image) a call runs fewer steps than it is given: what runs is the effect.
"""

import math
from typing import TYPE_CHECKING, Any

from autotune.config import Config, Range, Value
from autotune.knob import Effect, Knob, Script, Stage
from autotune.pipelines.call import steps_of, steps_values
from autotune.target import Target

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline


def also(value: Value) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def why_not(value: Value, target: Target) -> str | None:
    if value == target.workload.steps:
        return "is the workload's number of steps"
    if isinstance(value, int) and target.steps_run_of(value) < 1:
        given = target.pipeline.known.default_strength if target.strength is None else target.strength
        return f"leaves no step at strength {given:g}"
    return None


def ranges(target: Target) -> tuple[Range, ...]:
    """From a quarter of the workload's steps, which are the preset's, to one step less than these.

    Less than a quarter draws another picture: a pipeline for so few steps is another checkpoint.
    """
    most = target.workload.steps - 1
    least = max(1, math.ceil(target.workload.steps / 4))
    return (Range(low=least, high=most),) if least < most else ()


def call(value: Value, pipe: "DiffusionPipeline") -> dict[str, Any]:
    return steps_values(pipe, value) if isinstance(value, int) else {}


def verify(pipe: "DiffusionPipeline", config: Config, kernels: dict[str, int]) -> Effect:
    """The steps of the last call that ran: a call that starts from a picture leaves out the first ones."""
    run = getattr(pipe, "_num_timesteps", None)
    if run is None:
        steps = config["steps"]
        assert isinstance(steps, int), "the default is not verified"
        return Effect(count=steps, what="denoising steps requested")
    return Effect(count=run, what="denoising steps a call")


def script(config: Config, target: Target) -> Script:
    traits, steps = target.pipeline.known, config["steps"]
    assert isinstance(steps, int), "the default has no script"
    call = steps_of(steps, traits.call_arguments, traits.default_steps)
    return Script(call={name: repr(value) for name, value in call.items()})


KNOB = Knob(
    name="steps",
    stage=Stage.CALL,
    values=("workload",),
    changes_output=True,
    summary="number of denoising steps",
    ranges=ranges,
    in_graphs=lambda value: "any",  # the number of steps is not part of compiled graphs
    also=also,
    why_not=why_not,
    call=call,
    verify=verify,
    reads_kernels=False,
    script=script,
)
