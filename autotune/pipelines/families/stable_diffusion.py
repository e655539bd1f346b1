"""Stable Diffusion 1.5: 512x512 pictures, a UNet of 0.86 billion parameters.

Text to image, image to image, inpainting, a ControlNet of edges; the LCM-LoRA for four steps.
"""

from autotune.pipeline import Preset

TEXT = Preset(
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
PRESETS = (
    TEXT,
    TEXT.replace(name="sd15-img2img", task="image2image"),
    TEXT.replace(
        name="sd15-inpaint", source="stable-diffusion-v1-5/stable-diffusion-inpainting", architecture="sd15-inpaint"
    ),
    TEXT.replace(
        name="sd15-controlnet",
        controlnet="lllyasviel/sd-controlnet-canny",
        controlnet_architecture="controlnet-sd15-canny",
    ),
    TEXT.replace(
        name="sd15-lcm",
        architecture=None,  # a LoRA of random numbers would show nothing
        lora="latent-consistency/lcm-lora-sdv1-5",
        scheduler="LCMScheduler",
        steps=4,
        guidance_scale=1.0,
    ),
)
