"""compile_mode: torch.compile's mode: how much Inductor tunes, and whether CUDA graphs launch the kernels."""

from typing import TYPE_CHECKING

from autotune.config import Config, Value
from autotune.knob import Effect, Knob, Stage
from autotune.knobs.compilation._encoders import PICTURE, TEXT, chosen
from autotune.target import Target

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

CUDA_GRAPHS = ("reduce-overhead", "max-autotune")


def why_not(value: Value, target: Target) -> str | None:
    if value in CUDA_GRAPHS and not target.device.is_nvidia:
        return "uses CUDA graphs, which need an NVIDIA GPU"
    processors = target.device.multiprocessors
    if str(value).startswith("max-autotune") and processors is not None and processors < 68:
        return f"Inductor tunes matrix products on GPUs with 68 multiprocessors or more; this GPU has {processors}"
    return None


def clash(config: Config, target: Target) -> str | None:
    mode = config.get("compile_mode")
    if mode != "default" and config["compile"] == "trace":
        return "torch.jit.trace has no modes"
    if mode not in CUDA_GRAPHS:
        return None
    if config["offload"] not in ("none", "text_encoders"):
        return "CUDA graphs do not support offloading, which moves the weights at every call"
    fp16_vae = target.pipeline.known.vae_upcasts_fp16 and config["dtype"] == "fp16" and config["vae"] == "own"
    if fp16_vae and (config["compile"] in ("denoiser+vae", "everything") or PICTURE in chosen(config)):
        return "this VAE is cast to float32 and back at every call, so its CUDA graph would be recorded at every call"
    if target.pipeline.known.controlnet_class and config["compile"] == "regional":
        return "with a ControlNet, CUDA graphs need marks where a step begins, which regional compilation does not set"
    if config["compile"] == "regional":
        return "the CUDA graph of each region overwrites the output of the one before, which the next one reads"
    return _kept_output(config, target)


def _kept_output(config: Config, target: Target) -> str | None:
    """Why a CUDA graph would overwrite what the pipeline reads later, as it was seen in a rehearsed call."""
    traits, workload = target.pipeline.known, target.workload
    compiled = {*traits.denoisers, *(["controlnet"] if traits.controlnet_class else [])}
    if TEXT in chosen(config):
        compiled |= set(traits.text_encoders)
    above, scale = traits.guided_above, workload.guidance_scale
    guided = above is not None and (scale is None or scale > above)
    kinds = {guided, guided and config["guidance_cutoff"] == 1.0}  # after the cut-off, steps are not guided
    for kept in traits.kept_outputs:
        in_use = config["scheduler"] == "own" or not kept.by_scheduler
        in_use = in_use and (workload.negative_prompt is not None or not kept.negative)
        if in_use and kept.guided in kinds and {kept.model, kept.after} <= compiled:
            reader = "the scheduler" if kept.by_scheduler else traits.class_name
            again = f"{kept.after} again" if kept.model == kept.after else kept.after
            return f"{reader} reads the output of {kept.model} after it called {again}, whose CUDA graph overwrites it"
    return None


def verify(pipe: "DiffusionPipeline", config: Config, kernels: dict[str, int]) -> Effect:
    """CUDA graphs that were captured. Inductor runs a graph without them where it can't, and says so in a counter."""
    from torch._dynamo.utils import counters

    from autotune.devices.cuda_graphs import captured, skipped

    if config["compile_mode"] not in CUDA_GRAPHS:
        return Effect(count=counters["stats"]["unique_graphs"], what="graphs compiled in this mode")
    count, why = skipped()
    reasons = f", {count} skipped" + (f" ({'; '.join(why)})" if why else "") if count else ""
    return Effect(count=captured(), what=f"CUDA graphs captured{reasons}")


KNOB = Knob(
    name="compile_mode",
    stage=Stage.COMPILE,
    modifies="compile",
    values=("default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs"),
    changes_output=False,
    nearest={"max-autotune": ("max-autotune-no-cudagraphs", "reduce-overhead")},
    summary="how hard torch.compile tries",
    why_not=why_not,
    clash=clash,
    verify=verify,
    reads_kernels=False,
)
