"""Denoising steps. "workload" is the number that the workload asks for; a space file offers fewer. Quality decides."""

from typing import Any

from autotune.config import Config, Value
from autotune.knob import Knob, Script, Stage
from autotune.target import Target


def also(value: Value) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def why_not(value: Value, target: Target) -> str | None:
    if value == target.workload.steps:
        return "is the workload's own number"
    return None


def call(value: Value, pipe: Any) -> dict[str, Any]:
    return {} if value == "workload" else {"num_inference_steps": value}


def script(config: Config, target: Target) -> Script:
    return Script(call={"num_inference_steps": str(config["steps"])})


KNOB = Knob(
    name="steps",
    stage=Stage.CALL,
    values=("workload",),
    changes_output=True,
    summary="denoising steps",
    in_graphs=lambda value: "any",  # a step is a step
    also=also,
    why_not=why_not,
    call=call,
    script=script,
)
