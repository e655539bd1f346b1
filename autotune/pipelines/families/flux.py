"""FLUX: transformers of 4 to 32 billion parameters that draw 1024x1024 pictures, and Chroma, which descends from them.

Steps and guidance are those of the model cards; FLUX.2 dev's are from memory. Kontext draws from words alone, too,
which is what the preset does.
"""

from autotune.pipeline import Preset

DEV = Preset(
    name="flux-dev",
    source="black-forest-labs/FLUX.1-dev",
    architecture="flux-dev",
    scorer="openai/clip-vit-large-patch14",
    prompts="general.txt",
    space="default.toml",
    width=1024,
    height=1024,
    steps=50,
    guidance_scale=3.5,
)
PRESETS = (
    DEV,
    DEV.replace(
        name="flux-schnell",
        source="black-forest-labs/FLUX.1-schnell",
        architecture="flux-schnell",
        steps=4,
        guidance_scale=0.0,
    ),
    DEV.replace(
        name="flux-kontext",
        source="black-forest-labs/FLUX.1-Kontext-dev",
        architecture="flux-kontext",
        steps=28,
        guidance_scale=2.5,
    ),
    DEV.replace(
        name="flux2-klein",
        source="black-forest-labs/FLUX.2-klein-4B",
        architecture="flux2-klein",
        steps=4,
        guidance_scale=1.0,
    ),
    DEV.replace(
        name="flux2-dev",
        source="black-forest-labs/FLUX.2-dev",
        architecture="flux2-dev",
        guidance_scale=4.0,
    ),
    DEV.replace(name="chroma", source="lodestones/Chroma1-HD", architecture="chroma", steps=40, guidance_scale=3.0),
)
