"""Stable Diffusion 1.5: 512x512 pictures, a UNet of 0.86 billion parameters."""

from autotune.pipeline import Preset

PRESET = Preset(
    name="sd15",
    source="stable-diffusion-v1-5/stable-diffusion-v1-5",
    architecture="sd15",
    scorer="openai/clip-vit-large-patch14",
    prompts="general.txt",
    space="default.toml",
    width=512,
    height=512,
    steps=50,
    guidance_scale=7.5,
)
