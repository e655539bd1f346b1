"""tf32: where float32 arithmetic is rounded to TF32 (10 bits of mantissa) on tensor cores.

"convolutions" is torch's default, "off" is true float32, "on" rounds matrix products as well.

These settings belong to the process, not to the pipe: they change other models in the process, too. They are set by
torch's older names only, because torch raises an error when a setting is read after both families of names were used.
"""

from typing import TYPE_CHECKING

from autotune.config import Config, Value
from autotune.knob import Effect, Knob, Script, Stage
from autotune.target import Target

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline


def why_not(value: Value, target: Target) -> str | None:
    if value == "convolutions":
        return None
    fault = target.device.capability_fault(8)
    return f"TF32 {fault}" if fault else None


def clash(config: Config, target: Target) -> str | None:
    if config["tf32"] == "convolutions" or config["dtype"] == "fp32":
        return None
    if config["dtype"] == "fp16" and config["vae"] == "own" and target.pipeline.known.vae_upcasts_fp16:
        return None  # the VAE decodes in float32
    return f"TF32 concerns float32 only, and nothing is computed in float32 with dtype={config['dtype']}"


def apply(pipe: "DiffusionPipeline", config: Config, device: str) -> Effect:
    import torch

    products, convolutions = config["tf32"] == "on", config["tf32"] != "off"
    torch.set_float32_matmul_precision("high" if products else "highest")
    torch.backends.cudnn.allow_tf32 = convolutions
    # Read back: the settings that are as requested and not torch's default.
    changed = [
        products and torch.get_float32_matmul_precision() == "high",
        not convolutions and not torch.backends.cudnn.allow_tf32,
    ]
    what = "matrix products" if products else "convolutions"
    return Effect(count=sum(changed), what=f"kind of float32 arithmetic, {what}, with TF32 {config['tf32']}")


def script(config: Config, target: Target) -> Script:
    if config["tf32"] == "off":
        return Script(lines=("torch.backends.cudnn.allow_tf32 = False",))
    return Script(lines=('torch.set_float32_matmul_precision("high")', "torch.backends.cudnn.allow_tf32 = True"))


KNOB = Knob(
    name="tf32",
    stage=Stage.WEIGHTS,
    values=("convolutions", "off", "on"),
    changes_output=True,
    rounds=True,
    summary="where float32 is rounded to TF32",
    why_not=why_not,
    clash=clash,
    apply=apply,
    script=script,
)
