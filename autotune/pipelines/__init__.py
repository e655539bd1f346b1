"""Which pipelines can be named: the presets (a file for each family of them), hub ids and local diffusers folders.

`resolve` needs no torch and runs in the parent; `locate`, `loading` and `inspect` run in child processes.
"""

import re
from functools import cache
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules

from autotune.errors import UserError, nearest
from autotune.pipeline import TASKS, Pipeline, Preset, Weights
from autotune.pipelines import families

CLIP_FOR_OTHERS = "openai/clip-vit-large-patch14"
HUB_ID = re.compile(r"(?!\.)[\w.-]+/[\w.-]+")


@cache
def presets() -> dict[str, Preset]:
    """Every preset of this folder's families, by name."""
    names = [module.name for module in iter_modules(families.__path__, f"{families.__name__}.")]
    found = [preset for name in names for preset in import_module(name).PRESETS]
    return {preset.name: preset for preset in sorted(found, key=lambda preset: preset.name)}


def resolve(
    word: str,
    weights: Weights = "pretrained",
    *,
    task: str | None = None,
    controlnet: str | None = None,
    lora: str | None = None,
) -> Pipeline:
    """The pipeline that a user named: a preset, a hub id or a local folder. Raises UserError; loads nothing.

    task, controlnet, lora  what is asked for on top of it
    """
    named = _named(word, weights)
    asked = {"task": task and _task(task), "controlnet": controlnet and _controlnet(controlnet)}
    asked["lora"] = lora and _lora(lora)
    for what, value in asked.items():
        own = getattr(named, what)
        if value is not None and own not in (None, value):
            raise UserError(f"--{what} {value}: {word} comes with another ({own}); name another --pipeline.")
    return named.model_copy(update={what: value for what, value in asked.items() if value is not None})


def wished(pipeline: Pipeline) -> dict[str, str]:
    """What was asked for on top of the named pipeline: task, controlnet, lora."""
    preset = presets().get(pipeline.name)
    found = {what: getattr(pipeline, what) for what in ("task", "controlnet", "lora")}
    return {what: value for what, value in found.items() if value and value != getattr(preset, what, None)}


def _named(word: str, weights: Weights) -> Pipeline:
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
    if HUB_ID.fullmatch(word):
        return Pipeline(name=word, source=word, weights=weights, scorer=scorer)
    raise UserError(
        f"unknown pipeline {word!r}, neither a preset, a hub id (owner/name) nor a folder with a model_index.json: "
        f"{nearest(word, presets())}"
    )


def _task(word: str) -> str:
    if word not in TASKS:
        raise UserError(f"unknown task {word!r}: {nearest(word, TASKS)}")
    return word


def _controlnet(word: str) -> str:
    """The hub id, or the absolute path of the folder, of a ControlNet. What a hub id holds shows in the probe."""
    folder = Path(word).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise UserError(f"{word!r} is no ControlNet: it has no config.json.")
        return str(folder.resolve())
    if HUB_ID.fullmatch(word):
        return word
    raise UserError(f"--controlnet takes a hub id (owner/name) or a folder, and {word!r} is neither.")


def _lora(word: str) -> str:
    """The hub id, or the absolute path of the folder or the file, of a LoRA."""
    path = Path(word).expanduser()
    if path.is_dir() and not any(path.glob("*.safetensors")):
        raise UserError(f"{word!r} holds no LoRA: there is no .safetensors file in it.")
    if path.is_file() and path.suffix != ".safetensors":
        raise UserError(f"{word!r} is no .safetensors file: LoRAs are read from nothing else.")
    if path.exists():
        return str(path.resolve())
    if HUB_ID.fullmatch(word) and path.suffix != ".safetensors":
        return word
    raise UserError(f"--lora takes a hub id (owner/name), a folder or a .safetensors file, and {word!r} is none.")
