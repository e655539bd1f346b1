"""Stable Diffusion XL: 1024x1024 pictures, a UNet of 2.6 billion parameters, two text encoders.

Text to image, image to image, inpainting; the distilled SSD-1B of half the size; LoRAs for few steps with the scheduler
and the guidance that each needs (LCM, TCD, SDXL-Lightning, Hyper-SD), and SDXL-Turbo.
"""

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
LCM = TEXT.replace(
    name="sdxl-lcm",
    architecture=None,  # a LoRA of random numbers would show nothing
    lora="latent-consistency/lcm-lora-sdxl",
    scheduler="LCMScheduler",
    steps=4,
    guidance_scale=1.0,
)
PRESETS = (
    TEXT,
    TEXT.replace(name="sdxl-img2img", task="image2image"),
    TEXT.replace(name="sdxl-inpaint", task="inpainting"),
    TEXT.replace(name="ssd-1b", source="segmind/SSD-1B", architecture="ssd-1b", guidance_scale=9.0),
    LCM,
    LCM.replace(name="sdxl-tcd", lora="h1t/TCD-SDXL-LoRA", scheduler="TCDScheduler", guidance_scale=0.0),
    LCM.replace(
        name="sdxl-lightning",
        lora="ByteDance/SDXL-Lightning:sdxl_lightning_4step_lora.safetensors",
        scheduler="EulerDiscreteScheduler",
        scheduler_settings={"timestep_spacing": "trailing"},
        guidance_scale=0.0,
    ),
    LCM.replace(
        name="sdxl-hyper",
        lora="ByteDance/Hyper-SD:Hyper-SDXL-8steps-lora.safetensors",
        scheduler="DDIMScheduler",
        scheduler_settings={"timestep_spacing": "trailing"},
        steps=8,
        guidance_scale=0.0,
    ),
    TEXT.replace(
        name="sdxl-turbo", source="stabilityai/sdxl-turbo", width=512, height=512, steps=4, guidance_scale=0.0
    ),
)
