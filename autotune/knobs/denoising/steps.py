"""steps: the number of denoising steps. "workload": that of the workload; a space file can offer fewer."""

from typing import TYPE_CHECKING, Any

from autotune.config import Config, Value
from autotune.knob import Knob, Script, Stage
from autotune.pipelines.call import steps_of, steps_values
from autotune.target import Target

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline


def also(value: Value) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def why_not(value: Value, target: Target) -> str | None:
    if value == target.workload.steps:
        return "is the workload's number of steps"
    return None


def call(value: Value, pipe: "DiffusionPipeline") -> dict[str, Any]:
    return steps_values(pipe, value) if isinstance(value, int) else {}


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
    in_graphs=lambda value: "any",  # the number of steps is not part of compiled graphs
    also=also,
    why_not=why_not,
    call=call,
    script=script,
)
