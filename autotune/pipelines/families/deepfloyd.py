"""DeepFloyd IF: diffusion of pixels in three stages of 64, 256 and 1024 pixels, with a T5-XXL text encoder.

The third stage is Stability AI's x4 upscaler, as in DeepFloyd's own examples.
"""

from autotune.pipeline import Preset

FIRST = Preset(
    name="if-stage1",
    source="DeepFloyd/IF-I-XL-v1.0",
    architecture="if-stage1",
    scorer="openai/clip-vit-large-patch14",
    prompts="general.txt",
    space="default.toml",
    width=64,
    height=64,
    steps=100,
    guidance_scale=7.0,
)
PRESETS = (
    FIRST,
    FIRST.replace(
        name="if-stage2",
        source="DeepFloyd/IF-II-L-v1.0",
        architecture="if-stage2",
        width=256,
        height=256,
        steps=50,
        guidance_scale=4.0,
    ),
    FIRST.replace(
        name="if-stage3",
        source="stabilityai/stable-diffusion-x4-upscaler",
        architecture="if-stage3",
        width=1024,
        height=1024,
        steps=75,
        guidance_scale=9.0,
    ),
)
