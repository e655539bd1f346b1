"""Transformers whose text encoder is a language model or T5: Qwen-Image, HiDream, Z-Image-Turbo, Sana and others.

Steps, guidance and size are those of the model cards; those of Qwen-Image-Edit and HiDream are from memory.
Z-Image-Turbo is distilled: it runs without guidance. Qwen-Image-Edit starts from a picture. HiDream has four text
encoders; its repository lacks the fourth, Llama 3.1 8B, so that its published weights are loaded by a function of your
own (`--factory`).
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
    SQUARE.replace(name="qwen-image-edit", source="Qwen/Qwen-Image-Edit", architecture="qwen-image-edit"),
    SQUARE.replace(
        name="hidream",
        source="HiDream-ai/HiDream-I1-Full",
        architecture="hidream",
        guidance_scale=5.0,
    ),
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
