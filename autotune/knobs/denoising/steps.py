"""steps: the number of denoising steps. "workload": that of the workload; a space file can offer fewer."""

from typing import TYPE_CHECKING, Any

from autotune.config import Config, Value
from autotune.knob import Knob, Script, Stage
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
    return {} if value == "workload" else {"num_inference_steps": value}


def script(config: Config, target: Target) -> Script:
    return Script(call={"num_inference_steps": str(config["steps"])})


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
