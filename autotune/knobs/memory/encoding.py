"""encoding: the prompts of the workload are encoded once, and the text encoders are dropped.

"once" is for a fixed list of prompts: a call with any other is refused, and no call encodes anything. The encoders are
on the device before the rest of the pipe is, so that both never lie there together. As a service that takes any prompt
can't do with it, "once" is available only where a space file or --fix names it. `offload=text_encoders` is for all.
Not yet seen on a GPU.
"""

from dataclasses import replace
from typing import TYPE_CHECKING

from autotune.config import Config, Value
from autotune.footprint import Footprint
from autotune.knob import Change, Effect, Knob, Script, Stage
from autotune.pipelines import parts
from autotune.pipelines.adapters.encoding import drop, encode_all
from autotune.pipelines.running import workload_for
from autotune.target import Target

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline


def why_not(value: Value, target: Target) -> str | None:
    traits = target.pipeline.known
    if value == "each_call":
        return None
    if not traits.text_encoders:
        return f"{traits.class_name} has no text encoder"
    if not traits.encodes_apart:
        return f"{traits.class_name} calls its text encoders outside of encode_prompt, or with more than words"
    return None


def clash(config: Config, target: Target) -> str | None:
    if config["encoding"] == "each_call":
        return None
    compiled = (config["compile"], *str(config.get("compile_encoders", "none")).split("+"))
    if config["offload"] == "text_encoders":
        return "encoding=once drops the text encoders, and leaves none to offload"
    if {"everything", "text_encoder"} & {*map(str, compiled)}:
        return "encoding=once drops the text encoders, and leaves none to compile"
    return None


def apply(pipe: "DiffusionPipeline", config: Config, device: str) -> Effect:
    workload, encoders = workload_for(pipe), parts.text_encoders(pipe).values()
    assert workload is not None, "a pipe that is built knows its workload"
    for encoder in encoders:
        encoder.to(device)
    encoded = encode_all(pipe, workload)
    freed = drop(encoders) if len(encoded) else 0
    if config["offload"] == "none":
        pipe.to(device)
    return Effect(count=freed, what=f"bytes of text encoders freed, after {len(encoded)} calls of encode_prompt")


def weighs(footprint: Footprint, config: Config, target: Target) -> Footprint:
    if config["encoding"] == "each_call":
        return footprint
    encoders = target.pipeline.known.text_encoders
    return replace(footprint, parts=tuple(part for part in footprint.parts if part.component.name not in encoders))


def undone_by(value: Value, change: Change) -> str | None:
    return "has dropped the text encoders" if change in ("save", "lora") else None


def script(config: Config, target: Target) -> Script:
    return Script(why_not="the prompts are known only where they are drawn; autotune keeps what encode_prompt gave")


KNOB = Knob(
    name="encoding",
    stage=Stage.PLACEMENT,  # before `offload`, whose hooks then find no text encoders
    values=("each_call",),
    also=lambda value: value == "once",
    changes_output=False,
    summary="when prompts are encoded",
    why_not=why_not,
    clash=clash,
    apply=apply,
    weighs=weighs,
    undone_by=undone_by,
    script=script,
)
