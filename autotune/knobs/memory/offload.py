"""offload: the weights stay in host memory and move to the device when they are needed.

"model" moves whole models, "sequential" single layers, "group" prefetches layers on a CUDA stream of its own (see
group_offload).
"""

from typing import TYPE_CHECKING

from autotune.config import Config, Value
from autotune.footprint import Footprint
from autotune.knob import Change, Effect, Knob, Script, Stage
from autotune.knobs.memory._groups import GROUPS, as_source
from autotune.target import Target

if TYPE_CHECKING:
    import torch
    from diffusers import DiffusionPipeline


def why_not(value: Value, target: Target) -> str | None:
    if value != "none" and not target.device.is_gpu:
        return "needs a GPU to offload from"
    if value != "none" and target.device.shares_memory:
        return "saves nothing on a GPU that shares the machine's memory"
    return None


def clash(config: Config, target: Target) -> str | None:
    if config["offload"] in ("sequential", "group") and config["compile"] != "off":
        return f"the hooks of {config['offload']} offloading break compiled graphs"
    if config["offload"] == "group" and config["vae_tiling"]:
        return "group offloading prefetches layers in a fixed order, which VAE tiling breaks"
    return None


def apply(pipe: "DiffusionPipeline", config: Config, device: str) -> Effect:
    import torch

    if config["offload"] == "model":
        pipe.enable_model_cpu_offload(device=device)
    elif config["offload"] == "sequential":
        pipe.enable_sequential_cpu_offload(device=device)
    else:
        pipe.enable_group_offload(torch.device(device), **GROUPS[str(config["group_offload"])])
    models = [m for m in pipe.components.values() if isinstance(m, torch.nn.Module)]
    hooked = [model for model in models if any(map(_has_hook, model.modules()))]
    return Effect(count=len(hooked), what="models offloaded to host memory")


def _has_hook(module: "torch.nn.Module") -> bool:
    """Does a hook of accelerate or of diffusers' group offloading move the weights of this module?"""
    registry = getattr(module, "_diffusers_hook", None)
    grouped = registry is not None and any("group_offloading" in name for name in registry.hooks)
    return grouped or hasattr(module, "_hf_hook")


def weighs(footprint: Footprint, config: Config, target: Target) -> Footprint:
    value = str(config["offload"])
    if value == "group" and config["group_offload"] == "blocks":
        value = "model"  # how large a block is, is not known: it is no larger than its model
    return footprint if value == "none" else footprint.offloaded(value)


def undone_by(value: Value, change: Change) -> str | None:
    moved_apart = change == "save" and value == "sequential"
    return "keeps the weights where diffusers does not find them" if moved_apart else None


def script(config: Config, target: Target) -> Script:
    value = config["offload"]
    if value == "group":
        how = f'torch.device("cuda"), {as_source(str(config["group_offload"]))}'
        return Script(lines=(f"pipe.enable_group_offload({how})",), places=True)
    return Script(lines=(f"pipe.enable_{value}_cpu_offload()",), places=True)


KNOB = Knob(
    name="offload",
    stage=Stage.PLACEMENT,
    values=("none", "model", "sequential", "group"),
    changes_output=False,
    summary="keep weights in host memory",
    why_not=why_not,
    clash=clash,
    apply=apply,
    weighs=weighs,
    undone_by=undone_by,
    script=script,
)
