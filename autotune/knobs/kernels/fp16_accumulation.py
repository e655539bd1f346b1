"""fp16_accumulation: float16 matrix products add their partial sums in float16 instead of float32.

Tensor cores of consumer GPUs do that twice as fast. Sums of large numbers may overflow. The setting is one of the
process (torch.backends.cuda.matmul.allow_fp16_accumulation), and concerns products of float16 alone. Not yet seen on a
GPU.
"""

from typing import TYPE_CHECKING

from autotune.config import Config, Value
from autotune.knob import Effect, Knob, Script, Stage
from autotune.target import Target

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline


def why_not(value: Value, target: Target) -> str | None:
    return target.device.capability_fault(7) if value else None


def clash(config: Config, target: Target) -> str | None:
    if config["fp16_accumulation"] and config["dtype"] != "fp16":
        return f"nothing is multiplied in float16 with dtype={config['dtype']}, so fp16_accumulation would not act"
    return None


def apply(pipe: "DiffusionPipeline", config: Config, device: str) -> Effect:
    import torch

    products = torch.backends.cuda.matmul
    products.allow_fp16_accumulation = True
    return Effect(count=int(products.allow_fp16_accumulation), what="kind of matrix products, which add in float16")


def script(config: Config, target: Target) -> Script:
    return Script(lines=("torch.backends.cuda.matmul.allow_fp16_accumulation = True",))


KNOB = Knob(
    name="fp16_accumulation",
    stage=Stage.WEIGHTS,
    values=(False, True),
    changes_output=True,
    rounds=True,
    summary="float16 products add up in float16",
    why_not=why_not,
    clash=clash,
    apply=apply,
    script=script,
)
