"""Inductor's settings as named sets: its own defaults, or those of the PyTorch team's fast-diffusion guide that still
act (use_mixed_mm and mixed_mm_choice of that guide are ignored by today's torch). They act on Triton's kernels."""

from autotune.config import Config, Value
from autotune.knob import Knob, Stage
from autotune.target import Target


def why_not(value: Value, target: Target) -> str | None:
    if value != "default" and target.device.kind != "cuda":
        return "these settings act on Triton's kernels, which need a GPU"
    return None


def clash(config: Config, target: Target) -> str | None:
    if config.get("inductor_flags", "default") != "default" and config["compile"] == "trace":
        return "torch.jit.trace does not go through Inductor"
    return None


KNOB = Knob(
    name="inductor_flags",
    stage=Stage.COMPILE,
    modifies="compile",
    values=("default", "fast_diffusion"),
    changes_output=False,
    summary="Inductor's settings, as named sets",
    why_not=why_not,
    clash=clash,
)
