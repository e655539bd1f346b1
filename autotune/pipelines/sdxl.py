"""Stable Diffusion XL: 1024x1024 pictures, a UNet of 2.6 billion parameters, two text encoders."""

from autotune.pipeline import Preset

PRESET = Preset(
    name="sdxl",
    source="stabilityai/stable-diffusion-xl-base-1.0",
    architecture="sdxl",
    scorer="openai/clip-vit-large-patch14",
    prompts="general.txt",
    space="default.toml",
    width=1024,
    height=1024,
    steps=30,
    guidance_scale=5.0,
)
