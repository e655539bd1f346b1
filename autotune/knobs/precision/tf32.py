"""Where float32 products are rounded to TF32, ten bits of mantissa, on tensor cores: in the convolutions only, as torch
does it by itself, nowhere ("off", a true float32 baseline), or in matrix products as well ("on").

These are settings of the whole process, not of the pipe: other models in it compute with them too. Set through torch's
older names alone, because reading either family fails once both were used.
"""

from typing import Any

from autotune.config import Config, Value
from autotune.knob import Effect, Knob, Script, Stage
from autotune.target import Target


def why_not(value: Value, target: Target) -> str | None:
    if value == "convolutions":
        return None
    if target.device.kind != "cuda":
        return "TF32 is a format of NVIDIA's tensor cores, and this is no such GPU"
    if not target.device.at_least(8):
        have = ".".join(map(str, target.device.compute_capability or ()))
        lacking = "there is no TF32 to turn off" if value == "off" else "there is no TF32"
        return f"{lacking} below compute capability 8.0, this is {have}"
    return None


def clash(config: Config, target: Target) -> str | None:
    if config["tf32"] == "convolutions" or config["dtype"] == "fp32":
        return None
    if config["dtype"] == "fp16" and config["vae"] == "own" and target.pipeline.known.vae_upcasts_fp16:
        return None  # the VAE decodes in float32
    return f"nothing computes in float32 with dtype={config['dtype']}, so TF32 takes no part"


def apply(pipe: Any, config: Config, device: str) -> Effect:
    import torch

    products, convolutions = config["tf32"] == "on", config["tf32"] != "off"
    torch.set_float32_matmul_precision("high" if products else "highest")
    torch.backends.cudnn.allow_tf32 = convolutions
    # Read back: what is as asked, and not as torch has it by itself.
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
