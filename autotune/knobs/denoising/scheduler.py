"""scheduler: the scheduler that takes the steps from noise to picture. A better one needs fewer steps.

The new scheduler gets the configuration of the pipeline's own, so it has the same noise levels. The knob `steps` sets
the number of steps.
"""

from typing import TYPE_CHECKING

from autotune.config import Config, Value
from autotune.knob import Effect, Knob, Script, Stage
from autotune.knobs.denoising._schedulers import CLASSES, own_scheduler
from autotune.pipelines.rehearsal.schedulers import configuration
from autotune.target import Target

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

FLOW = ("unipc", "dpm++_2m")  # the schedulers that support flow-matching models
THRESHOLD = ("unipc", "dpm++_2m")  # the schedulers for models of pixels, which need thresholding


def why_not(value: Value, target: Target) -> str | None:
    traits = target.pipeline.known
    if value == "own":
        return None
    if CLASSES[str(value)] == own_scheduler(target):
        return "is the pipeline's own scheduler"
    if str(value) in traits.scheduler_faults:
        return traits.scheduler_faults[str(value)]
    if traits.flow_matching:
        if value not in FLOW:
            return f"{CLASSES[str(value)]} does not support flow-matching models"
        return None
    if CLASSES[str(value)] not in traits.compatible_schedulers and not target.pipeline.scheduler:
        return f"{CLASSES[str(value)]} is not among the schedulers compatible with {traits.class_name}"
    if traits.vae_class is None and value not in THRESHOLD:
        return f"{CLASSES[str(value)]} does not keep pixels in their range, which this model needs"
    return None


def apply(pipe: "DiffusionPipeline", config: Config, device: str) -> Effect:
    import diffusers

    own, kind = pipe.scheduler, CLASSES[str(config["scheduler"])]
    pipe.scheduler = getattr(diffusers, kind).from_config(configuration(pipe))
    changed = type(pipe.scheduler).__name__ == kind != type(own).__name__
    return Effect(count=int(changed), what=f"scheduler replaced, {type(own).__name__} by {kind}")


def script(config: Config, target: Target) -> Script:
    if config["scheduler"] == "own":
        return Script()
    kind, own = CLASSES[str(config["scheduler"])], "**pipe.scheduler.config"
    if target.pipeline.known.flow_matching:
        made = f'{{{own}, "use_flow_sigmas": True, "prediction_type": "flow_prediction"}}'
        made = made.replace("}", ', "flow_shift": pipe.scheduler.config["shift"]}')
    elif target.pipeline.known.vae_class is not None:
        made = f'{{"clip_sample": False, {own}}}'
    else:
        return Script(why_not="for a model of pixels, the variance type is known only when its scheduler is loaded")
    return Script(imports=(f"from diffusers import {kind}",), lines=(f"pipe.scheduler = {kind}.from_config({made})",))


KNOB = Knob(
    name="scheduler",
    stage=Stage.WEIGHTS,
    values=("own", *CLASSES),
    changes_output=True,
    summary="which scheduler takes the steps",
    why_not=why_not,
    apply=apply,
    script=script,
)
