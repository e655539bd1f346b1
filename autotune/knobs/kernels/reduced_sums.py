"""reduced_sums: may cuBLAS add partial sums of split matrix products in 16 bits? torch's default is that it may.

"off" makes it add them in float32: more exact, and slower where products are split. The setting is one of the process
(torch.backends.cuda.matmul.allow_fp16_reduced_precision_reduction and that of bfloat16). Not yet seen on a GPU.
"""

from typing import TYPE_CHECKING

from autotune.config import Config, Value
from autotune.knob import Effect, Knob, Script, Stage
from autotune.target import Target

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

SETTINGS = {
    "fp16": "allow_fp16_reduced_precision_reduction",
    "bf16": "allow_bf16_reduced_precision_reduction",
}


def why_not(value: Value, target: Target) -> str | None:
    if value == "on" or target.device.is_nvidia:
        return None
    return "is a setting of cuBLAS, which needs an NVIDIA GPU"


def clash(config: Config, target: Target) -> str | None:
    if config["reduced_sums"] != "on" and config["dtype"] not in SETTINGS:
        return f"no partial sums are in 16 bits with dtype={config['dtype']}, so reduced_sums would not act"
    return None


def apply(pipe: "DiffusionPipeline", config: Config, device: str) -> Effect:
    import torch

    products, name = torch.backends.cuda.matmul, SETTINGS[str(config["dtype"])]
    setattr(products, name, False)
    return Effect(count=int(not getattr(products, name)), what=f"kind of matrix products, {name} is off")


def script(config: Config, target: Target) -> Script:
    if config["dtype"] not in SETTINGS:
        return Script(why_not=f"no partial sums are in 16 bits with dtype={config['dtype']}")
    return Script(lines=(f"torch.backends.cuda.matmul.{SETTINGS[str(config['dtype'])]} = False",))


KNOB = Knob(
    name="reduced_sums",
    stage=Stage.WEIGHTS,
    values=("on", "off"),
    changes_output=True,
    rounds=True,
    summary="partial sums of products in 16 bits",
    why_not=why_not,
    clash=clash,
    apply=apply,
    script=script,
)
