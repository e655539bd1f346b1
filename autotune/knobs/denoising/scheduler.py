"""The scheduler, which takes the steps from noise to picture. A better one needs fewer of them; the knob `steps` says
how many. It is made from the configuration of the pipeline's own, so it draws from the same noise levels.
"""

from typing import Any

from autotune.config import Config, Value
from autotune.knob import Effect, Knob, Script, Stage
from autotune.knobs.denoising._schedulers import CLASSES, own_scheduler
from autotune.pipelines import parts
from autotune.target import Target

FLOW = ("unipc", "dpm++_2m")  # those that know the straight paths of flow-matching models
THRESHOLD = ("unipc", "dpm++_2m")  # models of pixels need it; DDIM goes on with the noise from before it


def why_not(value: Value, target: Target) -> str | None:
    traits = target.pipeline.known
    if value == "own":
        return None
    if CLASSES[str(value)] == own_scheduler(target):
        return "is the pipeline's own"
    if traits.flow_matching:
        if value not in FLOW:
            return f"{CLASSES[str(value)]} can't step a flow-matching model"
        if value == "dpm++_2m" and "Flux" in traits.class_name:
            return f"{CLASSES[str(value)]} does not take the shift that {traits.class_name} gives"
        return None
    if CLASSES[str(value)] not in traits.compatible_schedulers and not target.pipeline.scheduler:
        return f"{CLASSES[str(value)]} is not among the schedulers that can step {traits.class_name}"
    if traits.vae_class is None and value not in THRESHOLD:
        return f"{CLASSES[str(value)]} does not keep pixels in their range, as this model's thresholding does"
    return None


def apply(pipe: Any, config: Config, device: str) -> Effect:
    import diffusers

    own, kind = pipe.scheduler, CLASSES[str(config["scheduler"])]
    pipe.scheduler = getattr(diffusers, kind).from_config(_configuration(pipe))
    changed = type(pipe.scheduler).__name__ == kind != type(own).__name__
    return Effect(count=int(changed), what=f"scheduler exchanged, {type(own).__name__} for {kind}")


def _configuration(pipe: Any) -> dict[str, Any]:
    """The configuration of the own scheduler, and what it does not say or says for itself alone."""
    own = dict(pipe.scheduler.config)
    if "FlowMatch" in type(pipe.scheduler).__name__:
        return own | {"use_flow_sigmas": True, "prediction_type": "flow_prediction", "flow_shift": own["shift"]}
    if parts.vae(pipe) is not None:
        return {"clip_sample": False, **own}  # DDIM clips by itself, but latents have no such range
    # A variance that the model has learned is for DDPM's noise: with "fixed_small" the pipeline cuts it off.
    return own | ({"variance_type": "fixed_small"} if "learned" in str(own.get("variance_type")) else {})


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
        return Script(why_not="what a model of pixels has learned of its variance is read off its own scheduler")
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
