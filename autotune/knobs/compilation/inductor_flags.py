"""inductor_flags: Inductor's settings: its defaults, those of PyTorch's fast-diffusion guide, or two more sets.

"coordinate_descent" tunes each kernel's tile sizes for longer. "combo_kernels" launches independent kernels as one, and
fuses kernels, where Inductor has timed that to be faster. Both were found by reading torch 2.13's Inductor for settings
that it reads and whose default is off. Not yet seen on a GPU.

Current torch ignores two settings of the guide, use_mixed_mm and mixed_mm_choice, so they are left out. So are those
that the installed torch does not read (torch 2.13: force_fuse_int_mm_with_mul). The settings concern Triton kernels.
"""

from autotune.config import Config, Value
from autotune.knob import Knob, Stage
from autotune.knobs.compilation._inductor import FLAGS
from autotune.target import Target


def why_not(value: Value, target: Target) -> str | None:
    if value != "default" and not target.device.is_nvidia:
        return "sets options of Triton kernels, which need an NVIDIA GPU"
    return None


def clash(config: Config, target: Target) -> str | None:
    if config.get("inductor_flags", "default") != "default" and config["compile"] == "trace":
        return "torch.jit.trace does not use Inductor, so inductor_flags would have no effect"
    return None


KNOB = Knob(
    name="inductor_flags",
    stage=Stage.COMPILE,
    modifies="compile",
    values=tuple(FLAGS),
    changes_output=False,
    summary="Inductor's settings, as named sets",
    why_not=why_not,
    clash=clash,
)
