"""Which pipelines can be named: the presets (a file for each family of them), hub ids and local diffusers folders.

`resolve` needs no torch and runs in the parent; `locate`, `loading` and `inspect` run in child processes.
"""

import re
from functools import cache
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules

from autotune.errors import UserError, nearest
from autotune.pipeline import Pipeline, Preset, Weights

NO_FAMILIES = ("inputs", "inspect", "loading", "locate", "parts", "pictures")
CLIP_FOR_OTHERS = "openai/clip-vit-large-patch14"


@cache
def presets() -> dict[str, Preset]:
    """Every preset of this folder's families, by name."""
    names = [module.name for module in iter_modules(__path__) if module.name not in NO_FAMILIES]
    found = [preset for name in names for preset in import_module(f"{__name__}.{name}").PRESETS]
    return {preset.name: preset for preset in sorted(found, key=lambda preset: preset.name)}


def resolve(word: str, weights: Weights = "pretrained") -> Pipeline:
    """The pipeline that a user named: a preset, a hub id or a local folder. Raises UserError; loads nothing."""
    if word in presets():
        preset = presets()[word]
        if weights == "random" and preset.architecture is None:
            why = "ships its own" if preset.source == "demo" else "is what its LoRA's weights make of it"
            raise UserError(f"--weights random is for pipelines whose weights don't matter; {word} {why}.")
        return Pipeline(
            name=word,
            source=preset.source,
            weights=weights,
            scorer=preset.scorer if weights == "pretrained" else None,
            task=preset.task,
            controlnet=preset.controlnet,
            lora=preset.lora,
            scheduler=preset.scheduler,
        )
    scorer = CLIP_FOR_OTHERS if weights == "pretrained" else None
    folder = Path(word).expanduser()
    if folder.is_dir():
        if not (folder / "model_index.json").is_file():
            raise UserError(f"{word!r} is not a diffusers pipeline: it has no model_index.json.")
        return Pipeline(name=word, source=str(folder.resolve()), weights=weights, scorer=scorer)
    if re.fullmatch(r"[\w.-]+/[\w.-]+", word) and not word.startswith("."):
        return Pipeline(name=word, source=word, weights=weights, scorer=scorer)
    raise UserError(
        f"unknown pipeline {word!r}, neither a preset, a hub id (owner/name) nor a folder with a model_index.json: "
        f"{nearest(word, presets())}"
    )
