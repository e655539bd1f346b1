"""dtype: the number format of the weights and of the arithmetic.

The default, float32, is passed explicitly: without it, diffusers loads its models in float32, but transformers in the
format of the checkpoint. A processor without instructions for bfloat16 takes many times as long in it: the probe times
both, and a search leaves it out. SDXL's VAE overflows in float16; its pipeline casts it to float32 and back by itself.
"""

from typing import TYPE_CHECKING, Any

from autotune.config import Config, Value
from autotune.footprint import Footprint
from autotune.knob import Effect, Knob, Script, Stage
from autotune.pipelines import parts
from autotune.target import Target

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

TORCH_NAMES = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}
BYTES = {"fp32": 4, "fp16": 2, "bf16": 2}


def why_not(value: Value, target: Target) -> str | None:
    if value == "fp16" and not target.device.is_gpu:
        return "diffusers does not support float16 on a CPU"
    fault = target.device.capability_fault(8) if target.device.is_nvidia else None
    if value == "bf16" and fault:
        return f"{fault}, which would emulate bfloat16"
    return None


def not_worth_trying(value: Value, target: Target) -> str | None:
    return target.device.bfloat16_fault if value == "bf16" else None


def load(value: Value) -> dict[str, Any]:
    import torch

    return {"dtype": getattr(torch, TORCH_NAMES[str(value)])}


def apply(pipe: "DiffusionPipeline", config: Config, device: str) -> Effect:
    """Change nothing, as the pipe was loaded in this format. Counts the denoiser's weights that have it."""
    import torch

    dtype = getattr(torch, TORCH_NAMES[str(config["dtype"])])
    weights = [p for denoiser in parts.denoisers(pipe).values() for p in denoiser.parameters()]
    count = sum(p.numel() for p in weights if p.dtype == dtype)
    return Effect(count=count, what=f"weights of the denoiser in {TORCH_NAMES[str(config['dtype'])]}")


def weighs(footprint: Footprint, config: Config, target: Target) -> Footprint:
    value = str(config["dtype"])
    return footprint.in_format(value, BYTES[value])


def script(config: Config, target: Target) -> Script:
    return Script(load={"dtype": f"torch.{TORCH_NAMES[str(config['dtype'])]}"})


KNOB = Knob(
    name="dtype",
    stage=Stage.WEIGHTS,
    values=("fp32", "fp16", "bf16"),
    changes_output=True,
    rounds=True,
    summary="number format of weights and arithmetic",
    nearest={"fp16": ("bf16",)},  # not the reverse: values of a bfloat16 model overflow in float16
    why_not=why_not,
    not_worth_trying=not_worth_trying,
    load=load,
    apply=apply,
    weighs=weighs,
    script=script,
)
