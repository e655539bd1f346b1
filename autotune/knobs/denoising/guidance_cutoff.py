"""Classifier-free guidance for the first part of the steps only. Each guided step runs the denoiser on a batch twice as
large, with and without the prompt; late steps change little by it, and cost half without it.

Through the pipeline's callback at the end of a step, as diffusers' own cut-off callbacks do it; those keep one picture
of the batch, this keeps all. The share is of the steps of the call at hand, whatever their number.
"""

from typing import Any

from autotune.config import Config, Value
from autotune.knob import Effect, Knob, Script, Stage
from autotune.knobs.denoising._schedulers import scheduler_of
from autotune.target import Target

# What guidance doubles, of what a callback may change. Halved: the second half is the one with the prompt.
DOUBLED = (
    "prompt_embeds",
    "pooled_prompt_embeds",
    "add_text_embeds",
    "add_time_ids",
    "mask",
    "masked_image_latents",
    "image",
    "control_image",
)
GUIDED = (  # pipelines in which this is all that guidance doubles, and which take it back from the callback
    "StableDiffusionPipeline",
    "StableDiffusionImg2ImgPipeline",
    "StableDiffusionInpaintPipeline",
    "StableDiffusionControlNetPipeline",
    "StableDiffusionControlNetImg2ImgPipeline",
    "StableDiffusionXLPipeline",
    "StableDiffusionXLImg2ImgPipeline",
    "StableDiffusionXLInpaintPipeline",
    "StableDiffusionXLControlNetPipeline",
    "StableDiffusionXLControlNetImg2ImgPipeline",
    "StableDiffusion3Pipeline",
)


def also(value: Value) -> bool:
    return isinstance(value, float) and 0 < value < 1


def why_not(value: Value, target: Target) -> str | None:
    traits = target.pipeline.known
    if value == 1.0:
        return None
    if not traits.callback_tensors:
        return f"{traits.class_name} has no callback at the end of a step"
    if traits.class_name not in GUIDED:
        return f"{traits.class_name} is not among the pipelines whose guidance can be dropped half-way"
    if target.workload.guidance_scale <= 1:
        return f"with guidance {target.workload.guidance_scale:g} there is none to drop"
    return None


def clash(config: Config, target: Target) -> str | None:
    graphs = config.get("compile_mode") in ("reduce-overhead", "max-autotune")
    if config["guidance_cutoff"] != 1.0 and graphs and scheduler_of(config, target) == "PNDMScheduler":
        return "without guidance PNDM keeps the denoiser's own output, which the next CUDA graph overwrites"
    return None


def call(value: Value, pipe: Any) -> dict[str, Any]:
    if value == 1.0:
        return {}
    names = [name for name in getattr(pipe, "_callback_tensor_inputs", ()) if name in ("latents", *DOUBLED)]
    return {"callback_on_step_end": Cutoff(float(value)), "callback_on_step_end_tensor_inputs": names}


class Cutoff:
    """The callback: ends guidance after this share of a call's steps, but never before the first one is done."""

    def __init__(self, share: float) -> None:
        self.share = share

    def __call__(self, pipe: Any, step: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        done, steps = step + 1, pipe.num_timesteps
        if done < max(1, round(self.share * steps)) or done == steps or not pipe.do_classifier_free_guidance:
            return tensors
        pipe._guidance_scale = 1.0
        pipe.unguided_steps = getattr(pipe, "unguided_steps", 0) + steps - done
        doubled = 2 * len(tensors["latents"])
        halved = {n: t.chunk(2)[1] for n, t in tensors.items() if n in DOUBLED and t is not None and len(t) == doubled}
        return tensors | halved


def verify(pipe: Any, config: Config, kernels: dict[str, int]) -> Effect:
    return Effect(count=getattr(pipe, "unguided_steps", 0), what="steps without guidance, so far")


def script(config: Config, target: Target) -> Script:
    names = [name for name in target.pipeline.known.callback_tensors if name in ("latents", *DOUBLED)]
    doubled = tuple(name for name in names if name != "latents")
    lines = (
        "def end_guidance(pipe, step, timestep, tensors):",
        "    done, steps = step + 1, pipe.num_timesteps",
        f"    early = done < max(1, round({config['guidance_cutoff']} * steps))",
        "    if early or done == steps or not pipe.do_classifier_free_guidance:",
        "        return tensors",
        "    pipe._guidance_scale = 1.0",
        '    twice = 2 * len(tensors["latents"])',
        f"    for name in {doubled}:  # the second half is the one with the prompt",
        "        if tensors[name] is not None and len(tensors[name]) == twice:",
        "            tensors[name] = tensors[name].chunk(2)[1]",
        "    return tensors",
    )
    call = {"callback_on_step_end": "end_guidance", "callback_on_step_end_tensor_inputs": repr(names)}
    return Script(lines=lines, call=call)


KNOB = Knob(
    name="guidance_cutoff",
    stage=Stage.CALL,
    values=(1.0, 0.8, 0.6, 0.4),
    changes_output=True,
    summary="share of the steps that are guided",
    in_graphs=lambda value: value == 1.0,  # if not, half the batch has a graph, too, however late it is called
    also=also,
    why_not=why_not,
    clash=clash,
    call=call,
    verify=verify,
    script=script,
)
