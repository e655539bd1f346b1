"""Demo: the pipeline that ships with autotune, 64x64 pictures of coloured shapes. Needs no GPU and no network."""

from autotune.pipeline import Preset

DEMO = Preset(
    name="demo",
    source="demo",
    scorer="demo",
    prompts="demo_256.txt",
    space="demo.toml",
    width=64,
    height=64,
    steps=20,
    guidance_scale=4.0,
)
PRESETS = (DEMO,)
