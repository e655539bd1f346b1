"""The traits of a pipeline are what its real classes do: counted on models without weights, checked by running them."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from live import configurations, configured

from autotune import demo
from autotune.pipeline import Traits
from autotune.pipelines.inspect import downsample_of, traits_of, transformer_blocks
from autotune.pipelines.locate import ARCHITECTURES
from autotune.pipelines.random_weights import assemble

FOLDERS = {"demo": demo.PIPELINE, "sd15": ARCHITECTURES / "sd15", "sdxl": ARCHITECTURES / "sdxl"}

every_folder = pytest.mark.parametrize("name", FOLDERS)


@pytest.fixture(scope="module")
def traits() -> dict[str, Traits]:
    return {name: traits_of(configured(folder)) for name, folder in FOLDERS.items()}


def on_meta(name: str) -> Any:
    return assemble(configured(FOLDERS[name]), dtype=torch.float32, device="meta")


@pytest.mark.parametrize(
    ("name", "denoiser", "whole"),
    [("sd15", 859_520_964, 1_066_235_307), ("sdxl", 2_567_463_684, 3_468_837_867), ("demo", 4_283_012, 5_383_227)],
)
def test_the_models_have_their_real_size(name: str, denoiser: int, whole: int) -> None:
    pipe = on_meta(name)
    sizes = [sum(p.numel() for p in m.parameters()) for m in pipe.components.values() if isinstance(m, torch.nn.Module)]
    assert sum(p.numel() for p in pipe.unet.parameters()) == denoiser
    assert sum(sizes) == whole


@every_folder
def test_nothing_is_allocated_to_read_the_traits(name: str) -> None:
    models = [m for m in on_meta(name).components.values() if isinstance(m, torch.nn.Module)]
    assert {p.device.type for m in models for p in m.parameters()} == {"meta"}


@pytest.mark.parametrize(
    ("name", "levels", "blocks"), [("demo", (1, 2), 7), ("sd15", (1, 2, 4, 8), 16), ("sdxl", (2, 4), 70)]
)
def test_the_levels_with_attention_are_those_that_tomesd_sees(
    traits: dict[str, Traits], name: str, levels: tuple[int, ...], blocks: int
) -> None:
    """tomesd takes the level from the number of tokens in the running model; the traits from the block's name."""
    unet = on_meta(name).unet
    side, seen = unet.config.sample_size, {}
    found = transformer_blocks(unet)

    def watch(block: str) -> Any:
        def hook(_: Any, given: tuple[torch.Tensor, ...]) -> None:
            seen[block] = math.ceil(math.sqrt(side * side // given[0].shape[1]))  # tomesd.patch.compute_merge

        return hook

    for block, module in found.items():
        module.register_forward_pre_hook(watch(block))
    text = torch.empty(1, 77, unet.config.cross_attention_dim, device="meta")
    added = {"text_embeds": torch.empty(1, 1280, device="meta"), "time_ids": torch.empty(1, 6, device="meta")}
    unet(
        torch.empty(1, 4, side, side, device="meta"),
        torch.tensor(1, device="meta"),
        text,
        added_cond_kwargs=added if name == "sdxl" else None,
    )
    assert seen == {block: downsample_of(block, unet) for block in found}
    assert len(seen) == blocks
    assert traits[name].attention_downsamples == tuple(sorted(set(seen.values()))) == levels


@every_folder
def test_every_linear_shape_is_listed_once(traits: dict[str, Traits], name: str) -> None:
    linear = [m for m in on_meta(name).unet.modules() if isinstance(m, torch.nn.Linear)]
    shapes = [tuple(m.weight.shape[::-1]) for m in linear]
    assert set(traits[name].linear_shapes) == set(shapes)
    assert len(set(traits[name].linear_shapes)) == len(traits[name].linear_shapes)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (
            "demo",
            {
                "class_name": "StableDiffusionPipeline",
                "default_width": 64,
                "size_multiple": 4,
                "vae_tile_px": 64,
                "vae_upcasts_fp16": False,
                "prompt_tokens": 24,
                "convolutions": 39,
            },
        ),
        (
            "sd15",
            {
                "class_name": "StableDiffusionPipeline",
                "default_width": 512,
                "size_multiple": 8,
                "vae_tile_px": 512,
                "vae_upcasts_fp16": False,
                "prompt_tokens": 77,
                "default_guidance_scale": 7.5,
            },
        ),
        (
            "sdxl",
            {
                "class_name": "StableDiffusionXLPipeline",
                "default_width": 1024,
                "size_multiple": 8,
                "vae_tile_px": 1024,
                "vae_upcasts_fp16": True,
                "prompt_tokens": 77,
                "default_guidance_scale": 5.0,
            },
        ),
    ],
)
def test_the_traits_are_those_of_the_class(traits: dict[str, Traits], name: str, expected: dict[str, object]) -> None:
    read = traits[name].model_dump()
    assert {key: read[key] for key in expected} == expected
    assert read["denoiser"] == "unet"
    assert read["denoiser_class"] == "UNet2DConditionModel"
    assert read["vae_class"] == "AutoencoderKL"
    assert read["fuses_qkv"]
    assert read["slices_attention"]
    assert read["repeated_blocks"] == ("BasicTransformerBlock",)
    assert read["default_height"] == read["default_width"]
    assert read["default_steps"] == 50


@every_folder
def test_traits_survive_json(traits: dict[str, Traits], name: str) -> None:
    assert Traits.parse(traits[name].to_json(), "the traits") == traits[name]


def test_random_weights_of_the_demo_have_the_demos_traits(traits: dict[str, Traits], tmp_path: Path) -> None:

    read = traits_of(configured(configurations(tmp_path / "tiny")))
    assert read == traits["demo"]
