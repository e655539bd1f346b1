"""offload: the weights stay in host memory and move to the device when they are needed.

"model" moves whole models, "sequential" single layers, "group" prefetches layers on a CUDA stream of its own (see
group_offload). "text_encoders" does the same with the text encoders alone: they run once a call, so that their weights
need not lie on the device while the denoiser runs. All else stays there. Their transfer is part of each call's latency.
Not yet seen on a GPU: "text_encoders".
"""

from typing import TYPE_CHECKING

from autotune.config import Config, Value
from autotune.footprint import Footprint
from autotune.knob import Change, Effect, Knob, Script, Stage
from autotune.knobs.memory._groups import DISK, as_source, group_offload
from autotune.pipelines import parts
from autotune.pipelines.adapters.encoding import bytes_of
from autotune.target import Target

if TYPE_CHECKING:
    import torch
    from diffusers import DiffusionPipeline


def why_not(value: Value, target: Target) -> str | None:
    if value != "none" and not target.device.is_gpu:
        return "needs a GPU to offload from"
    if value != "none" and target.device.shares_memory:
        return "saves nothing on a GPU that shares the machine's memory"
    if value == "text_encoders" and not target.pipeline.known.text_encoders:
        return f"{target.pipeline.known.class_name} has no text encoder"
    return None


def clash(config: Config, target: Target) -> str | None:
    if config["offload"] in ("sequential", "group") and config["compile"] != "off":
        return f"the hooks of {config['offload']} offloading break compiled graphs"
    if config["offload"] == "sequential" and target.pipeline.known.sequential_fault:
        return target.pipeline.known.sequential_fault
    compiled = (config["compile"], *str(config.get("compile_encoders", "none")).split("+"))
    if config["offload"] == "text_encoders" and {"everything", "text_encoder"} & {*map(str, compiled)}:
        return "the hooks of offloading break the compiled graphs of the text encoders"
    if config["offload"] == "group" and config["vae_tiling"]:
        return "group offloading prefetches layers in a fixed order, which VAE tiling breaks"
    return None


def apply(pipe: "DiffusionPipeline", config: Config, device: str) -> Effect:
    import torch

    models = {name: part for name, part in pipe.components.items() if isinstance(part, torch.nn.Module)}
    if config["offload"] == "model":
        pipe.enable_model_cpu_offload(device=device)
    elif config["offload"] == "sequential":
        pipe.enable_sequential_cpu_offload(device=device)
    else:
        only = parts.text_encoders(pipe) if config["offload"] == "text_encoders" else models
        group_offload(pipe, device, str(config["group_offload"]), models.keys() - only.keys())
    hooked = [model for model in models.values() if any(map(_has_hook, model.modules()))]
    if config["offload"] == "text_encoders":
        held = sum(bytes_of(weight) for model in hooked for weight in model.parameters())
        return Effect(count=len(hooked), what=f"text encoders offloaded to host memory, {held:,} bytes of weights")
    return Effect(count=len(hooked), what="models offloaded to host memory")


def _has_hook(module: "torch.nn.Module") -> bool:
    """Does a hook of accelerate or of diffusers' group offloading move the weights of this module?"""
    registry = getattr(module, "_diffusers_hook", None)
    grouped = registry is not None and any("group_offloading" in name for name in registry.hooks)
    return grouped or hasattr(module, "_hf_hook")


def weighs(footprint: Footprint, config: Config, target: Target) -> Footprint:
    value, only = str(config["offload"]), None
    if value == "text_encoders":
        value, only = "group", target.pipeline.known.text_encoders
    if value == "group" and config["group_offload"] == "blocks":
        value = "model"  # how large a block is, is not known: it is no larger than its model
    return footprint if value == "none" else footprint.offloaded(value, only)


def undone_by(value: Value, change: Change) -> str | None:
    moved_apart = change == "save" and value == "sequential"
    return "keeps the weights where diffusers does not find them" if moved_apart else None


def script(config: Config, target: Target) -> Script:
    value, traits = config["offload"], target.pipeline.known
    if value in ("model", "sequential"):
        return Script(lines=(f"pipe.enable_{value}_cpu_offload()",), places=True)
    groups = str(config["group_offload"])
    if groups == DISK:
        return Script(why_not="each model needs a folder of its own for its files, which autotune makes and removes")
    if value == "group":
        how = f'torch.device("cuda"), {as_source(groups)}'
        return Script(lines=(f"pipe.enable_group_offload({how})",), places=True)
    lines = (
        f"others = [name for name in pipe.components if name not in {traits.text_encoders}]",
        f'pipe.enable_group_offload(torch.device("cuda"), {as_source(groups)}, exclude_modules=others)',
    )
    return Script(lines=lines, places=True)


KNOB = Knob(
    name="offload",
    stage=Stage.PLACEMENT,
    values=("none", "text_encoders", "model", "sequential", "group"),
    nearest={"text_encoders": ("group",)},
    changes_output=False,
    summary="keep weights in host memory",
    why_not=why_not,
    clash=clash,
    apply=apply,
    weighs=weighs,
    undone_by=undone_by,
    script=script,
)
