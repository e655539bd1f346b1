"""tome_ratio: token merging (ToMe): the share of tokens that are merged before self-attention, and unmerged after it.

Merged tokens are chosen without randomness (tomesd's `use_rand=False`). tomesd's generator keeps its state between
calls, so a seed would give another picture at every call, and torch.compile could not capture it.
"""

import math
from typing import TYPE_CHECKING

from autotune.config import Config, Range, Value
from autotune.knob import Effect, Knob, Script, Stage
from autotune.pipelines import parts
from autotune.target import Target

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline


def also(value: Value) -> bool:
    return isinstance(value, float) and 0 < value <= 0.75


def why_not(value: Value, target: Target) -> str | None:
    if value and not target.pipeline.known.attention_downsamples:
        return f"{target.pipeline.known.denoiser_class} has no transformer blocks that tomesd supports"
    if value and target.pipeline.known.frames_argument:
        return f"tomesd merges tokens of a picture, and {target.pipeline.known.denoiser_class} attends over frames"
    if value and target.pipeline.known.names_sample:
        return f"tomesd reads the size off the first argument, and {target.pipeline.known.class_name} gives all by name"
    return target.lacks("tomesd") if value else None


def apply(pipe: "DiffusionPipeline", config: Config, device: str) -> Effect:
    import tomesd
    import torch

    from autotune.pipelines.inspect import downsample_of, transformer_blocks

    unet, deepest = parts.denoiser(pipe), int(config["tome_max_downsample"])
    tomesd.apply_patch(unet, ratio=float(config["tome_ratio"]), max_downsample=deepest, use_rand=False)
    # Never used, but tomesd would make one inside the forward pass, which breaks compiled graphs.
    unet._tome_info["args"]["generator"] = torch.Generator(device)
    # tomesd makes a subclass for every block. With one subclass for all blocks of a class, compiled blocks share their
    # graphs: a large UNet has more blocks than Dynamo allows graphs of one function.
    blocks = transformer_blocks(unet)
    kinds: dict[type, type] = {}
    for block in blocks.values():
        block.__class__ = kinds.setdefault(type(block)._parent, type(block))
    merging = [name for name in blocks if downsample_of(name, unet) <= deepest]
    return Effect(count=len(merging), what="transformer blocks merge tokens")


def verify(pipe: "DiffusionPipeline", config: Config, kernels: dict[str, int]) -> Effect:
    """The number of tokens that a step of the call merged. Levels below tome_max_downsample merge none."""
    from autotune.pipelines.inspect import downsample_of, transformer_blocks

    unet, deepest = parts.denoiser(pipe), int(config["tome_max_downsample"])
    height, width = unet._tome_info["size"]
    tokens = merged = 0
    for name in transformer_blocks(unet):
        factor = downsample_of(name, unet)
        if factor <= deepest:
            rows, columns = math.ceil(height / factor), math.ceil(width / factor)
            tokens += rows * columns
            merged += _merged(rows, columns, float(config["tome_ratio"]))
    return Effect(count=merged, what=f"of {tokens} tokens merged in each step")


def _merged(rows: int, columns: int, ratio: float) -> int:
    """The number of merged tokens. tomesd keeps one token of every 2x2 cells as a destination."""
    return min(rows * columns - (rows // 2) * (columns // 2), int(rows * columns * ratio))


def script(config: Config, target: Target) -> Script:
    how = f"ratio={config['tome_ratio']}, max_downsample={config['tome_max_downsample']}, use_rand=False"
    lines = [f"tomesd.apply_patch(pipe.unet, {how})"]
    lines.append(
        f'pipe.unet._tome_info["args"]["generator"] = torch.Generator("{target.device.torch_type}")  # never used'
    )
    if config["compile"] == "regional":
        lines += [
            "kinds = {}  # tomesd makes a subclass for every block; with one per class, blocks share compiled graphs",
            "for block in pipe.unet.modules():",
            '    if hasattr(type(block), "_parent"):',
            "        block.__class__ = kinds.setdefault(type(block)._parent, type(block))",
        ]
    return Script(imports=("import tomesd",), lines=tuple(lines))


KNOB = Knob(
    name="tome_ratio",
    stage=Stage.PATCH,
    values=(0.0, 0.25, 0.5, 0.75),
    changes_output=True,
    summary="share of tokens merged before self-attention",
    ranges=lambda target: (Range(low=0.1, high=0.75),),
    also=also,
    why_not=why_not,
    apply=apply,
    verify=verify,
    reads_kernels=False,
    script=script,
)
