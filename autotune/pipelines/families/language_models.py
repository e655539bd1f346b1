"""Transformers whose text encoder is a language model or T5: Qwen-Image, Z-Image-Turbo, Sana, Lumina, PixArt-Sigma.

Steps, guidance and size are those of the model cards. Z-Image-Turbo is distilled: it runs without guidance.
"""

from autotune.pipeline import Preset

QWEN = Preset(
    name="qwen-image",
    source="Qwen/Qwen-Image",
    architecture="qwen-image",
    scorer="openai/clip-vit-large-patch14",
    prompts="general.txt",
    space="default.toml",
    width=1328,
    height=1328,
    steps=50,
    guidance_scale=4.0,
)
SQUARE = QWEN.replace(width=1024, height=1024)
PRESETS = (
    QWEN,
    SQUARE.replace(
        name="z-image-turbo",
        source="Tongyi-MAI/Z-Image-Turbo",
        architecture="z-image-turbo",
        steps=9,
        guidance_scale=0.0,
    ),
    SQUARE.replace(
        name="sana",
        source="Efficient-Large-Model/Sana_1600M_1024px_diffusers",
        architecture="sana",
        steps=20,
        guidance_scale=4.5,
    ),
    SQUARE.replace(name="lumina2", source="Alpha-VLLM/Lumina-Image-2.0", architecture="lumina2", steps=50),
    SQUARE.replace(
        name="pixart-sigma",
        source="PixArt-alpha/PixArt-Sigma-XL-2-1024-MS",
        architecture="pixart-sigma",
        steps=20,
        guidance_scale=4.5,
    ),
)
