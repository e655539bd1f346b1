"""tome_max_downsample: the levels of the UNet that merge tokens: those that are downsampled by at most this factor.

SDXL has no attention at full resolution, so tomesd's default of 1 has no effect there, and tomesd does not say so.
"""

from autotune.config import Value
from autotune.knob import Knob, Stage
from autotune.target import Target


def why_not(value: Value, target: Target) -> str | None:
    levels = target.pipeline.known.attention_downsamples
    if levels and value not in levels:
        return f"this UNet has attention at the downsampling factors {', '.join(map(str, levels))} only"
    return None


KNOB = Knob(
    name="tome_max_downsample",
    stage=Stage.PATCH,
    modifies="tome_ratio",
    values=(1, 2, 4, 8),
    changes_output=True,
    summary="how deep into the UNet tokens are merged",
    why_not=why_not,
)
