"""Token merging (ToMe): merge this share of the most similar tokens before self-attention, and unmerge them after it.

Where tokens merge is chosen without randomness (tomesd's `use_rand=False`): tomesd draws from a generator that lives on
between calls, so the same seed would give another picture at every call, and torch.compile could not capture it.
"""

import math
from typing import Any

from autotune.config import Config, Value
from autotune.knob import Effect, Knob, Script, Stage
from autotune.pipelines import parts
from autotune.target import Target


def also(value: Value) -> bool:
    return isinstance(value, float) and 0 < value <= 0.75


def why_not(value: Value, target: Target) -> str | None:
    if value and not target.pipeline.known.attention_downsamples:
        return f"{target.pipeline.known.denoiser_class} has no blocks that tomesd can patch"
    return None


def apply(pipe: Any, config: Config, device: str) -> Effect:
    import tomesd
    import torch

    from autotune.pipelines.inspect import downsample_of, transformer_blocks

    unet, deepest = parts.denoiser(pipe), int(config["tome_max_downsample"])
    tomesd.apply_patch(unet, ratio=float(config["tome_ratio"]), max_downsample=deepest, use_rand=False)
    # Never drawn from, but tomesd makes one inside the forward pass otherwise, which breaks compiled graphs.
    unet._tome_info["args"]["generator"] = torch.Generator(device)
    # tomesd derives a class for every block. With one for all of a kind, compiled blocks share their graphs: a large
    # UNet has more blocks than Dynamo allows graphs of one function.
    blocks = transformer_blocks(unet)
    kinds: dict[type, type] = {}
    for block in blocks.values():
        block.__class__ = kinds.setdefault(type(block)._parent, type(block))
    merging = [name for name in blocks if downsample_of(name, unet) <= deepest]
    return Effect(count=len(merging), what="transformer blocks merge tokens")


def verify(pipe: Any, config: Config, kernels: dict[str, int]) -> Effect:
    """How many tokens a step of the call merged: tomesd keeps all where a level is deeper than it may go."""
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
    """One token of each 2x2 cells is a destination and stays; tomesd merges no more than the others."""
    return min(rows * columns - (rows // 2) * (columns // 2), int(rows * columns * ratio))


def script(config: Config, target: Target) -> Script:
    how = f"ratio={config['tome_ratio']}, max_downsample={config['tome_max_downsample']}, use_rand=False"
    lines = [f"tomesd.apply_patch(pipe.unet, {how})"]
    lines.append(
        f'pipe.unet._tome_info["args"]["generator"] = torch.Generator("{target.device.kind}")  # never drawn from'
    )
    if config["compile"] == "regional":
        lines += [
            "kinds = {}  # tomesd derives a class for every block; with one for all of a kind they share their graphs",
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
    also=also,
    why_not=why_not,
    apply=apply,
    verify=verify,
    script=script,
)
