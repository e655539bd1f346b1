"""Stable Diffusion 3.5: 1024x1024 pictures, a transformer of 2.2 or 8.1 billion parameters, three text encoders."""

from autotune.pipeline import Preset

MEDIUM = Preset(
    name="sd3.5-medium",
    source="stabilityai/stable-diffusion-3.5-medium",
    architecture="sd3.5-medium",
    scorer="openai/clip-vit-large-patch14",
    prompts="general.txt",
    space="default.toml",
    width=1024,
    height=1024,
    steps=40,
    guidance_scale=4.5,
)
PRESETS = (
    MEDIUM,
    MEDIUM.replace(
        name="sd3.5-large",
        source="stabilityai/stable-diffusion-3.5-large",
        architecture="sd3.5-large",
        steps=28,
        guidance_scale=3.5,
    ),
)
