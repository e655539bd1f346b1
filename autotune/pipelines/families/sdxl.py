"""Stable Diffusion XL: 1024x1024 pictures, a UNet of 2.6 billion parameters, two text encoders. From text, from a
picture or into a hole in one; its distilled half (SSD-1B), and the four-step LCM-LoRA on top of it."""

from autotune.pipeline import Preset

TEXT = Preset(
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
PRESETS = (
    TEXT,
    TEXT.but(name="sdxl-img2img", task="image2image"),
    TEXT.but(name="sdxl-inpaint", task="inpainting"),
    TEXT.but(name="ssd-1b", source="segmind/SSD-1B", architecture="ssd-1b", guidance_scale=9.0),
    TEXT.but(
        name="sdxl-lcm",
        architecture=None,  # a LoRA of random numbers would show nothing
        lora="latent-consistency/lcm-lora-sdxl",
        scheduler="LCMScheduler",
        steps=4,
        guidance_scale=1.0,
    ),
)
