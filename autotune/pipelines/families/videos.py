"""Videos: Wan 2.2 with 5 billion parameters, and LTX-Video with 2 billion.

Size, steps, guidance and frames are those of the model cards, from memory as all figures here. The mean and the spread
of Wan's latents, which are no sizes, are left at 0 and 1 for random weights.
"""

from autotune.pipeline import Preset

WAN = Preset(
    name="wan2.2-5b",
    source="Wan-AI/Wan2.2-TI2V-5B-Diffusers",
    architecture="wan2.2-5b",
    scorer="openai/clip-vit-large-patch14",
    prompts="general.txt",
    space="default.toml",
    width=1280,
    height=704,
    steps=50,
    guidance_scale=5.0,
    frames=121,
)
PRESETS = (
    WAN,
    WAN.replace(
        name="ltx",
        source="Lightricks/LTX-Video",
        architecture="ltx",
        width=704,
        height=480,
        guidance_scale=3.0,
        frames=161,
    ),
)
