"""conv1x1_as_linear: the denoiser's 1x1 convolutions become linear layers, so that quantization covers them, too.

The result is the same except for rounding. Each layer is put between two permutations of the axes, which cost nothing
with memory_format=channels_last. Convolutions with a stride, padding or groups are left as they are, because torchao's
function would drop these silently.
"""

from typing import TYPE_CHECKING, Any

from autotune.config import Config, Value
from autotune.knob import Effect, Knob, Script, Stage
from autotune.pipelines import parts
from autotune.target import Target

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline


def why_not(value: Value, target: Target) -> str | None:
    if value and not target.pipeline.known.conv1x1_shapes:
        return f"{target.pipeline.known.denoiser_class} has no 1x1 convolutions"
    return target.lacks("torchao") if value else None


def apply(pipe: "DiffusionPipeline", config: Config, device: str) -> Effect:
    from torchao.quantization import swap_conv2d_1x1_to_linear

    swapped = 0
    for denoiser in parts.denoisers(pipe).values():
        names = _plain_1x1(denoiser)
        swap_conv2d_1x1_to_linear(denoiser, lambda module, name, names=names: name in names)
        swapped += len(names - _plain_1x1(denoiser))
    return Effect(count=swapped, what="1x1 convolutions computed as linear layers")


def _plain_1x1(denoiser: Any) -> set[str]:
    return {name for name, module in denoiser.named_modules() if _is_plain_1x1(module)}


def _is_plain_1x1(module: Any) -> bool:
    import torch

    if not isinstance(module, torch.nn.Conv2d):
        return False
    return (*module.kernel_size, *module.stride) == (1, 1, 1, 1) and module.padding == (0, 0) and module.groups == 1


def script(config: Config, target: Target) -> Script:
    return Script(
        imports=("from torchao.quantization import swap_conv2d_1x1_to_linear",),
        lines=(
            "def is_plain_1x1(module, name):",
            "    if not isinstance(module, torch.nn.Conv2d):",
            "        return False",
            "    every_cell_once = (*module.kernel_size, *module.stride) == (1, 1, 1, 1) and module.padding == (0, 0)",
            "    return every_cell_once and module.groups == 1",
            "",
            *(f"swap_conv2d_1x1_to_linear(pipe.{name}, is_plain_1x1)" for name in target.pipeline.known.denoisers),
        ),
    )


KNOB = Knob(
    name="conv1x1_as_linear",
    stage=Stage.SURGERY,
    values=(False, True),
    changes_output=False,
    summary="1x1 convolutions as linear layers",
    why_not=why_not,
    apply=apply,
    script=script,
)
