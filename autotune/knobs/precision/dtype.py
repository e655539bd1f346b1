"""The number format of the weights and of the arithmetic.

The default is float32, said aloud: left out, diffusers loads its own models in float32, while transformers takes
whatever a checkpoint was saved in. SDXL's VAE overflows in float16: its pipeline casts it to float32 and back itself.
"""

from typing import Any

from autotune.config import Config, Value
from autotune.knob import Effect, Knob, Script, Stage
from autotune.pipelines import parts
from autotune.target import Target

TORCH_NAMES = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}


def why_not(value: Value, target: Target) -> str | None:
    device = target.device
    if value == "fp16" and device.kind == "cpu":
        return "diffusers does not support float16 on a CPU"
    if value == "bf16" and device.kind == "cuda" and not device.at_least(8):
        return "needs compute capability 8.0; below it bfloat16 is emulated"
    return None


def load(value: Value) -> dict[str, Any]:
    import torch

    return {"dtype": getattr(torch, TORCH_NAMES[str(value)])}


def apply(pipe: Any, config: Config, device: str) -> Effect:
    """Changes nothing: a pipe keeps the format that it was loaded in. Counts the denoiser's weights that have it."""
    import torch

    denoiser = parts.denoiser(pipe)
    wanted = getattr(torch, TORCH_NAMES[str(config["dtype"])])
    count = sum(p.numel() for p in denoiser.parameters() if p.dtype == wanted)
    return Effect(count=count, what=f"weights of the denoiser in {TORCH_NAMES[str(config['dtype'])]}")


def script(config: Config, target: Target) -> Script:
    return Script(load={"dtype": f"torch.{TORCH_NAMES[str(config['dtype'])]}"})


KNOB = Knob(
    name="dtype",
    stage=Stage.WEIGHTS,
    values=("fp32", "fp16", "bf16"),
    changes_output=True,
    rounds=True,
    summary="number format of weights and arithmetic",
    nearest={"fp16": ("bf16",)},  # not the other way round: what was made for bfloat16's range overflows in float16
    why_not=why_not,
    load=load,
    apply=apply,
    script=script,
)
