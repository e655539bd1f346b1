"""guidance_cutoff: classifier-free guidance for the first share of the steps only.

A guided step runs the denoiser on a batch of double size, with and without the prompt. Late steps without guidance cost
half and change the picture little.

The knob uses the pipeline's callback at the end of a step, as diffusers' own cut-off callbacks do. Those keep one
picture of the batch, this one keeps all. The share is taken of the steps of each call, whatever their number.
"""

from typing import TYPE_CHECKING, Any

from autotune.config import Config, Range, Value
from autotune.knob import Effect, Knob, Script, Stage
from autotune.knobs.denoising._schedulers import scheduler_of
from autotune.target import Target

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

# The tensors that guidance doubles and a callback may change. Their second half is the one with the prompt.
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
GUIDED = (  # pipelines in which guidance doubles nothing else, and which take these tensors back from the callback
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
        return f"{traits.class_name} is not among the pipelines whose guidance can end early"
    if traits.guided_above is None:
        return traits.guidance_fault or f"{traits.class_name} never runs its denoiser without the prompt"
    if target.pipeline.ip_adapter is not None:
        return "the IP-Adapter's picture is encoded for guided steps, and no callback can change that"
    scale = target.workload.guidance_scale
    if scale is None or scale <= traits.guided_above:
        given = "unknown" if scale is None else f"{scale:g}"
        return f"the workload has no guidance to end: its guidance scale is {given}"
    if target.steps_run < 2:
        return "a call of one step has no later step that could be unguided"
    return None


def clash(config: Config, target: Target) -> str | None:
    graphs = config.get("compile_mode") in ("reduce-overhead", "max-autotune")
    if config["guidance_cutoff"] != 1.0 and graphs and scheduler_of(config, target) == "PNDMScheduler":
        return "PNDM keeps the denoiser's output of a step without guidance, which the next CUDA graph overwrites"
    return None


def call(value: Value, pipe: "DiffusionPipeline") -> dict[str, Any]:
    if value == 1.0:
        return {}
    names = [name for name in getattr(pipe, "_callback_tensor_inputs", ()) if name in ("latents", *DOUBLED)]
    return {"callback_on_step_end": Cutoff(float(value)), "callback_on_step_end_tensor_inputs": names}


class Cutoff:
    """The callback that ends guidance after this share of a call's steps, and at least one step."""

    def __init__(self, share: float) -> None:
        self.share = share

    def __call__(self, pipe: "DiffusionPipeline", step: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        done, steps = step + 1, pipe.num_timesteps
        if done < max(1, round(self.share * steps)) or done == steps or not pipe.do_classifier_free_guidance:
            return tensors
        pipe._guidance_scale = 1.0
        pipe.unguided_steps = getattr(pipe, "unguided_steps", 0) + steps - done
        doubled = 2 * len(tensors["latents"])
        return tensors | {name: _with_prompt(value, doubled) for name, value in tensors.items() if name in DOUBLED}


def _with_prompt(value: Any, doubled: int) -> Any:
    """The half with the prompt of a tensor for `doubled` pictures, or of each in a list (one for each ControlNet)."""
    if isinstance(value, list):
        return [_with_prompt(one, doubled) for one in value]
    return value.chunk(2)[1] if value is not None and len(value) == doubled else value


def verify(pipe: "DiffusionPipeline", config: Config, kernels: dict[str, int]) -> Effect:
    return Effect(count=getattr(pipe, "unguided_steps", 0), what="steps without guidance, so far")


def script(config: Config, target: Target) -> Script:
    names = [name for name in target.pipeline.known.callback_tensors if name in ("latents", *DOUBLED)]
    doubled = tuple(name for name in names if name != "latents")
    several = (
        "        if isinstance(tensors[name], list):  # a tensor for each ControlNet",
        "            tensors[name] = [one.chunk(2)[1] for one in tensors[name]]",
        "            continue",
    )
    lines = (
        "def end_guidance(pipe, step, timestep, tensors):",
        "    done, steps = step + 1, pipe.num_timesteps",
        f"    early = done < max(1, round({config['guidance_cutoff']} * steps))",
        "    if early or done == steps or not pipe.do_classifier_free_guidance:",
        "        return tensors",
        "    pipe._guidance_scale = 1.0",
        '    twice = 2 * len(tensors["latents"])',
        f"    for name in {doubled}:  # the second half is the one with the prompt",
        *(several if target.pipeline.known.control_pictures > 1 else ()),
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
    in_graphs=lambda value: value == 1.0,  # below 1, the batch of half size has a graph, too
    ranges=lambda target: (Range(low=0.2, high=0.9),),
    also=also,
    why_not=why_not,
    clash=clash,
    call=call,
    verify=verify,
    reads_kernels=False,
    script=script,
)
