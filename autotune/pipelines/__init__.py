"""Pipelines: the presets, and how a name, a hub id or a folder becomes a loaded pipeline.

A family of presets is one file in `families/`. `resolve` runs in the parent process and imports no torch; `locate`,
`loading` and `inspect` run in child processes.
"""

import re
from functools import cache
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules

from autotune.errors import UserError, nearest
from autotune.pipeline import TASKS, Pipeline, Preset, Weights
from autotune.pipelines import families

DEFAULT_SCORER = "openai/clip-vit-large-patch14"
HUB_ID = re.compile(r"(?!\.)[\w.-]+/[\w.-]+")


@cache
def presets() -> dict[str, Preset]:
    """Every preset of the files in `families/`, by name."""
    names = [module.name for module in iter_modules(families.__path__, f"{families.__name__}.")]
    every = [preset for name in names for preset in import_module(name).PRESETS]
    return {preset.name: preset for preset in sorted(every, key=lambda preset: preset.name)}


def resolve(
    word: str,
    weights: Weights = "pretrained",
    *,
    task: str | None = None,
    controlnet: str | None = None,
    lora: str | None = None,
) -> Pipeline:
    """The pipeline that a user named. Loads nothing. Raises UserError.

    word                    a preset, a hub id or a local folder
    task, controlnet, lora  options on top of it, see Pipeline; None: the preset's
    """
    named = _named(word, weights)
    options = {
        "task": task and _task(task),
        "controlnet": controlnet and _controlnet(controlnet),
        "lora": lora and _lora(lora),
    }
    for option, value in options.items():
        own = getattr(named, option)
        if value is not None and own not in (None, value):
            raise UserError(f"--{option} {value}: {word} comes with another ({own}); name another --pipeline.")
    return named.model_copy(update={option: value for option, value in options.items() if value is not None})


def requested_options(pipeline: Pipeline) -> dict[str, str]:
    """The options that were requested on top of the named pipeline: "task", "controlnet", "lora" -> value."""
    preset = presets().get(pipeline.name)
    options = {option: getattr(pipeline, option) for option in ("task", "controlnet", "lora")}
    return {option: value for option, value in options.items() if value and value != getattr(preset, option, None)}


def _named(word: str, weights: Weights) -> Pipeline:
    if word in presets():
        preset = presets()[word]
        if weights == "random" and preset.architecture is None:
            why = "has weights of its own" if preset.source == "demo" else "depends on the weights of its LoRA"
            raise UserError(f"--weights random is not available for {word}, which {why}.")
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
    scorer = DEFAULT_SCORER if weights == "pretrained" else None
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
    """The hub id or the absolute folder of a ControlNet. The probe checks what a hub id holds. Raises UserError."""
    folder = Path(word).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise UserError(f"{word!r} is not a ControlNet: it has no config.json.")
        return str(folder.resolve())
    if HUB_ID.fullmatch(word):
        return word
    raise UserError(f"--controlnet takes a hub id (owner/name) or a folder, not {word!r}.")


def _lora(word: str) -> str:
    """The hub id, or the absolute path of the folder or file, of a LoRA. Raises UserError."""
    path = Path(word).expanduser()
    if path.is_dir() and not any(path.glob("*.safetensors")):
        raise UserError(f"{word!r} has no LoRA: it has no .safetensors file.")
    if path.is_file() and path.suffix != ".safetensors":
        raise UserError(f"{word!r} is not a .safetensors file: LoRAs are loaded from safetensors only.")
    if path.exists():
        return str(path.resolve())
    if HUB_ID.fullmatch(word) and path.suffix != ".safetensors":
        return word
    raise UserError(f"--lora takes a hub id (owner/name), a folder or a .safetensors file, not {word!r}.")
