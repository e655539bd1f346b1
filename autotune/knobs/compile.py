"""torch.compile: of the denoiser, of the denoiser and the VAE's decoder, or of the denoiser's repeated blocks only.

Regional compilation makes one graph for each kind of block and reuses it: nearly the same speed, a fraction of the time
to compile. Shapes are static: a production call of another size compiles again. Graphs must be whole (`fullgraph`)
except under model offload, whose hooks can't be captured.
"""

from typing import Any

from autotune.config import Config, Value
from autotune.knob import Effect, Knob, Stage
from autotune.target import Target

FLAGS: dict[str, dict[str, Any]] = {
    "default": {},
    "fast_diffusion": {
        "conv_1x1_as_mm": True,
        "coordinate_descent_tuning": True,
        "coordinate_descent_check_all_directions": True,
        "epilogue_fusion": False,
        "force_fuse_int_mm_with_mul": True,
    },
}


def why_not(value: Value, target: Target) -> str | None:
    if value != "off" and target.device.compile_fault:
        return target.device.compile_fault
    if value == "regional" and not target.pipeline.known.repeated_blocks:
        return f"{target.pipeline.known.denoiser_class} names no repeated blocks"
    if value == "denoiser+vae" and target.pipeline.known.vae_class is None:
        return f"{target.pipeline.known.class_name} has no VAE"
    return None


def clash(config: Config, target: Target) -> str | None:
    if config["compile"] == "off":
        return None
    if config["compile"] != "regional" and config["tome_ratio"]:
        return "token merging's hook breaks the graph of a whole denoiser; regional compilation goes with it"
    if config["dtype"] == "bf16" and target.device.kind == "cuda" and not target.device.at_least(8):
        return "Inductor skips bfloat16 below compute capability 8.0"
    return None


def apply(pipe: Any, config: Config, device: str) -> Effect:
    import torch

    # A mode and options can't be given together, so the mode is spelled out as the options that it stands for.
    mode, flags = str(config["compile_mode"]), FLAGS[str(config["inductor_flags"])]
    options = {**(torch._inductor.list_mode_options(mode) if mode != "default" else {}), **flags}
    how: dict[str, Any] = {"fullgraph": config["offload"] == "none", "dynamic": False, "options": options or None}
    denoiser = pipe.unet
    if config["compile"] == "regional":
        # By base classes too: token merging derives a class of its own from each block's.
        kinds = set(denoiser._repeated_blocks)
        blocks = [m for m in denoiser.modules() if kinds & {cls.__name__ for cls in type(m).__mro__}]
    else:
        blocks = [denoiser]
    for block in blocks:
        block.compile(**how)
    if config["compile"] == "denoiser+vae":
        pipe.vae.decode = torch.compile(pipe.vae.decode, **how)
        return Effect(count=2, what="modules to compile")
    return Effect(count=len(blocks), what="modules to compile")


def verify(pipe: Any, config: Config, kernels: dict[str, int]) -> Effect:
    """How many graphs were really made, and how often one broke."""
    from torch._dynamo.utils import counters

    breaks = sum(counters["graph_break"].values())
    return Effect(count=counters["stats"]["unique_graphs"], what=f"graphs compiled, {breaks} graph breaks")


KNOB = Knob(
    name="compile",
    stage=Stage.COMPILE,
    values=("off", "regional", "denoiser", "denoiser+vae"),
    changes_output=False,
    summary="which parts torch.compile compiles",
    why_not=why_not,
    clash=clash,
    apply=apply,
    verify=verify,
)
