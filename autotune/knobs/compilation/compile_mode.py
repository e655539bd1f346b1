"""torch.compile's mode: how hard Inductor tries, and whether CUDA graphs take the launching off the processor."""

from autotune.config import Config, Value
from autotune.knob import Knob, Stage
from autotune.target import Target

CUDA_GRAPHS = ("reduce-overhead", "max-autotune")


def why_not(value: Value, target: Target) -> str | None:
    if value in CUDA_GRAPHS and target.device.kind != "cuda":
        return "its CUDA graphs need a GPU"
    processors = target.device.multiprocessors
    if str(value).startswith("max-autotune") and processors is not None and processors < 68:
        return f"Inductor tunes matrix products on 68 multiprocessors and more, this has {processors}"
    return None


def clash(config: Config, target: Target) -> str | None:
    mode = config.get("compile_mode")
    if mode != "default" and config["compile"] == "trace":
        return "torch.jit.trace has no modes"
    if mode not in CUDA_GRAPHS:
        return None
    if config["offload"] != "none":
        return "weights that move at every call can't be in CUDA graphs"
    fp16_vae = target.pipeline.known.vae_upcasts_fp16 and config["dtype"] == "fp16" and config["vae"] == "own"
    if fp16_vae and config["compile"] in ("denoiser+vae", "everything"):
        return "this VAE is cast to float32 and back at every call, so its CUDA graph would be recorded each time"
    if target.pipeline.known.controlnet_class and config["compile"] == "regional":
        return "with a ControlNet, CUDA graphs are told where a step begins only if the denoiser is compiled whole"
    return None


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
)
