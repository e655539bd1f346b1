"""GPU ladders: the published guides' tables at full size, in steps that measure a few rungs each."""

import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tools.gpu_step import Step

LADDERS = Path(__file__).parent.parent / "search_spaces" / "ladders"
PROMPTS = "a red bicycle leaning on a white wall\na bowl of fruit on a wooden table, soft light\n"


def part(recipe: str, first: str, *then: str) -> str:
    """A recipe (TOML) with some rungs of a shipped one, which sets for each rung exactly what the shipped one sets.

    first  the name of the rung that the others are compared with
    """
    shipped = tomllib.loads((LADDERS / f"{recipe}.toml").read_text(encoding="utf-8"))
    whole = cumulative(shipped)
    lines = [f"published = {json.dumps(shipped['published'])}"]
    for rung in (rung for rung in shipped["rungs"] if rung["name"] in (first, *then)):
        values = whole[rung["name"]]
        assert whole[first].keys() <= values.keys(), f"{first!r} sets what {rung['name']!r} leaves alone"
        lines += ["", "[[rungs]]"]
        lines += [f"{key} = {json.dumps(rung[key])}" for key in ("name", "published", "note") if key in rung]
        lines += [f"on = {json.dumps(first)}"] if rung["name"] != first else []
        lines += ["[rungs.set]", *(f"{knob} = {json.dumps(value)}" for knob, value in values.items())]
    return "\n".join(lines) + "\n"


def cumulative(recipe: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Name of a rung -> everything that is set on it, by itself and by the rungs that it builds on."""
    whole: dict[str, dict[str, Any]] = {}
    below: dict[str, Any] = {}
    for rung in recipe["rungs"]:
        below = whole[rung["name"]] = {**(whole[rung["on"]] if "on" in rung else below), **rung["set"]}
    return whole


def ladder(name: str, shows: str, options: str, recipe: str | None = None) -> Step:
    """A ladder with random weights and two prompts. recipe: the text of a part; None: a shipped one is in `options`."""
    given = " --recipe {work}/recipe.toml" if recipe else ""
    return Step(
        name,
        shows,
        (
            f"autotune ladder {options}{given} --weights random --device cuda --prompts {{work}}/prompts.txt"
            " -o {work}/ladder",
            "python -m tools.gpu_checks ladder {work}/ladder",
        ),
        keep=("ladder/ladder.json", "ladder/ladder.md", "recipe.toml"),
        files={"prompts.txt": PROMPTS, **({"recipe.toml": recipe} if recipe else {})},
    )


EFFICIENT, COMPILED = "memory-efficient attention", "torch.compile of denoiser and VAE"
SDXL = "--pipeline sdxl --size 1024x1024 --steps 30"
SD15 = "--pipeline sd15 --size 512x512 --steps 50"


def _sdxl() -> list[Step]:
    """The fast-diffusion guide: its eager rungs, then each compiled one beside SDPA, so that float32 runs once."""
    compiled = {"compile": COMPILED, "qkv": "fused QKV projections", "int8": "int8 dynamic quantization"}
    return [
        ladder(
            "ladder-sdxl",
            "fast-diffusion guide, SDXL: float32, bfloat16, SDPA",
            SDXL,
            part("fast-diffusion", "fp32, vanilla attention", "bf16", "SDPA"),
        ),
        *(
            ladder(f"ladder-sdxl-{word}", f"... {rung}", SDXL, part("fast-diffusion", "SDPA", rung))
            for word, rung in compiled.items()
        ),
    ]


def _memory() -> list[Step]:
    """The memory tutorial. The rungs without a published figure are compared with the attention that they build on."""
    vanilla = "fp32, vanilla attention"
    return [
        ladder(
            "ladder-memory",
            "memory tutorial, SD 1.5: float16, channels last",
            SD15,
            part("memory", vanilla, "fp16", "channels last"),
        ),
        ladder(
            "ladder-memory-attention",
            "... traced UNet, memory-efficient attention",
            SD15,
            part("memory", vanilla, "traced UNet", EFFICIENT),
        ),
        ladder(
            "ladder-memory-slicing",
            "... VAE tiling, sliced attention, layerwise casting",
            SD15,
            part("memory", EFFICIENT, "VAE tiling", "sliced attention", "layerwise casting"),
        ),
        ladder(
            "ladder-memory-offload",
            "... model and group offload",
            SD15,
            part("memory", EFFICIENT, "model offload", "group offload"),
        ),
        ladder(
            "ladder-memory-sequential", "... sequential offload", SD15, part("memory", EFFICIENT, "sequential offload")
        ),
    ]


def _tome() -> list[Step]:
    steps = [
        ladder(
            f"ladder-tome-{side}",
            f"token merging, SD 1.5 at {side}x{side}",
            f"--pipeline sd15 --recipe tome --size {side}x{side} --steps 50",
        )
        for side in (512, 768)
    ]
    large, first = "--pipeline sd15 --size 1024x1024 --steps 50", "fp16, vanilla attention"
    rungs = {
        "ladder-tome-1024": ("ToMe 0.5",),
        "ladder-tome-1024-efficient": ("ToMe 0.5, memory-efficient attention",),
        "ladder-tome-1024-without": ("memory-efficient attention without ToMe",),
    }
    return [
        *steps,
        *(
            ladder(name, f"token merging, SD 1.5 at 1024x1024: {then[0]}", large, part("tome", first, *then))
            for name, then in rungs.items()
        ),
    ]


def _torch2() -> list[Step]:
    """The PyTorch 2.0 guide. At batch 16 each compiled rung is a step of its own."""
    steps = []
    for pipeline in ("sd15", "sd15-img2img", "sd15-inpaint", "sd15-controlnet"):
        options, about = f"--pipeline {pipeline} --size 512x512 --steps 50 --batch", f"PyTorch 2.0 guide, {pipeline}"
        for batch in (1, 4):
            name = f"ladder-torch2-{pipeline}-{batch}"
            steps.append(ladder(name, f"{about}, batch {batch}", f"{options} {batch} --recipe torch2"))
        for word, rung in (("graphs", "compiled, reduce-overhead"), ("regional", "compiled by regions")):
            name = f"ladder-torch2-{pipeline}-16-{word}"
            steps.append(ladder(name, f"{about}, batch 16: {rung}", f"{options} 16", part("torch2", "eager", rung)))
    return steps


LADDER_STEPS = (*_sdxl(), *_memory(), *_tome(), *_torch2())
