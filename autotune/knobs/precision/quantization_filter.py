"""quantization_filter: which linear layers are quantized: all, those of a minimum width, or those of the SDXL guide.

"sdxl" is the list of the PyTorch team's guide. In small layers, quantizing the activations takes more time than the
matrix product saves.
"""

from autotune.config import Value
from autotune.knob import Knob, Stage
from autotune.knobs.precision._linear_layers import selected
from autotune.target import Target


def also(value: Value) -> bool:
    kind, _, least = str(value).partition(":")
    return kind == "min_features" and least.isdecimal() and int(least) > 0


def why_not(value: Value, target: Target) -> str | None:
    shapes = target.pipeline.known.linear_shapes
    chosen = [shape for shape in shapes if selected(str(value), shape)]
    if not chosen:
        return "selects none of this denoiser's linear layers"
    if len(chosen) == len(shapes) and value != "all":
        return "selects every linear layer, as 'all' does"
    if value == "sdxl" and "XL" not in target.pipeline.known.class_name:
        return "is a list of layer shapes of SDXL"
    return None


KNOB = Knob(
    name="quantization_filter",
    stage=Stage.QUANTIZE,
    modifies="quantization",
    values=("all", "min_features:512", "sdxl"),
    changes_output=True,
    rounds=True,
    nearest={"sdxl": ("min_features:512",)},
    summary="which linear layers are quantized",
    also=also,
    why_not=why_not,
)
