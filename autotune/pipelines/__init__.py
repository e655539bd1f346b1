"""Pipelines: the presets, and how a name, a hub id or a folder becomes a loaded pipeline.

A family of presets is one file in `families/`. `resolve` runs in the parent process and imports no torch; `locate`,
`loading` and `inspect` run in child processes.
"""

import re
from collections.abc import Callable, Sequence
from functools import cache
from importlib import import_module
from math import isfinite
from pathlib import Path
from pkgutil import iter_modules
from typing import Any

from autotune.config import Value, read_value
from autotune.errors import UserError, nearest, shown
from autotune.frozen_model import absolute
from autotune.pipeline import HUB_ID, TASKS, Pipeline, Preset, Weights, split_hub_file
from autotune.pipelines import adapters, checkpoint, families
from autotune.pipelines import factory as own

DEFAULT_SCORER = "openai/clip-vit-large-patch14"
FILES = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,127}")  # a variant, or a commit, tag or branch of the hub
NUMBER = re.compile(r"-?\d+(\.\d+)?")


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
    controlnet: str | Sequence[str] | None = None,
    lora: str | Sequence[str] | None = None,
    scheduler: str | None = None,
    ip_adapter: str | None = None,
    textual_inversion: str | Sequence[str] | None = None,
    config: str | None = None,
    variant: str | None = None,
    revision: str | None = None,
    gguf: str | None = None,
    factory: str | None = None,
    run_code: bool = False,
) -> Pipeline:
    """The pipeline that a user named. Loads nothing. Raises UserError.

    word                       a preset, a hub id, a local folder, or a single .safetensors file
    task, controlnet, lora     options on top of it, see Pipeline; None: the preset's. A ControlNet or a LoRA is SOURCE
                               or SOURCE:WEIGHT
    scheduler                  a class of diffusers, or CLASS:SETTING=VALUE,SETTING=VALUE; None: the preset's or its own
    ip_adapter, textual_inversion  see adapters.fields()
    config, variant, revision  which files are loaded, see Pipeline; None: as they are found
    gguf                       see adapters.with_gguf()
    factory, run_code          FILE.py:FUNCTION of the user, which builds the pipe instead, and that it may run
    """
    if factory is not None:
        others = {"task": task, "config": config, "variant": variant, "revision": revision}
        others |= {"controlnet": next(iter(_listed(controlnet)), None)}
        others |= {"ip-adapter": ip_adapter, "textual-inversion": str(textual_inversion) if textual_inversion else None}
        others |= {
            "scheduler": scheduler,
            "gguf": gguf,
            "weights": weights if weights == "random" else None,
            "pipeline": word if word != "demo" else None,
        }
        return _built(factory, lora, others, run_code=run_code)
    if run_code:
        raise UserError(own.ALONE)
    named = _files_of(_named(word, weights), word, config, variant, revision)
    options = {
        "task": None if task is None else _task(task),
        **_controlnets(_listed(controlnet)),
        **_loras(_listed(lora)),
        **_scheduler(scheduler),
        **adapters.fields(ip_adapter, textual_inversion, weights),
    }
    for option in ("task", "controlnet", "lora", "scheduler"):
        has, value = getattr(named, option), options.get(option)
        if value is not None and has not in (None, value):
            raise UserError(f"--{option} {value}: {word} comes with another ({has}); name another --pipeline.")
    found = named.model_copy(update={option: value for option, value in options.items() if value is not None})
    return found if gguf is None else adapters.with_gguf(found, gguf)


def _scheduler(word: str | None) -> dict[str, Any]:
    """The fields of a Pipeline that CLASS or CLASS:SETTING=VALUE,SETTING=VALUE stands for. Raises UserError."""
    if word is None:
        return {}
    name, _, rest = word.partition(":")
    pairs = [pair.partition("=") for pair in rest.split(",")] if rest else []
    settings = {key: read_value(value) for key, _, value in pairs}
    if not re.fullmatch(r"[A-Z]\w*Scheduler", name) or not all(map(_is_setting, settings.items())):
        raise UserError(
            f"--scheduler takes the name of a diffusers class, such as TCDScheduler, and settings after a colon "
            f"(EulerDiscreteScheduler:timestep_spacing=trailing), not {word!r}."
        )
    return {"scheduler": name, "scheduler_settings": settings}


def _is_setting(pair: tuple[str, Value]) -> bool:
    name, value = pair
    fits = re.fullmatch(r"[A-Za-z0-9_]{1,64}", value) if isinstance(value, str) else isfinite(value)
    return bool(fits) and name.isascii() and name.isidentifier()


def _built(word: str, lora: str | Sequence[str] | None, others: dict[str, str | None], *, run_code: bool) -> Pipeline:
    """The pipeline that the user's function builds. Raises UserError for an option that means nothing then."""
    for option, value in others.items():
        if value is not None:
            raise UserError(f"--{option} {value}: --factory {word} builds the whole pipe; leave --{option} to it.")
    built = own.described(word, run_code=run_code).model_copy(update={"scorer": DEFAULT_SCORER})
    return built.model_copy(update=_loras(_listed(lora)))


def _listed(words: str | Sequence[str] | None) -> Sequence[str]:
    return [words] if isinstance(words, str) else words or ()


def requested_options(pipeline: Pipeline) -> dict[str, str]:
    """The options that were requested on top of the named pipeline: "task", "controlnet", "lora" ... -> value."""
    preset = presets().get(pipeline.name)
    options = {
        option: getattr(pipeline, option)
        for option in ("task", "controlnet", "lora", "scheduler", "ip_adapter", "gguf")
    }
    other = {
        "scheduler": preset is not None and pipeline.scheduler_settings != preset.scheduler_settings,
        "controlnet": pipeline.controlnet_weight is not None or bool(pipeline.more_controlnets),
        "lora": pipeline.lora_weight != 1.0 or bool(pipeline.more_loras),
    }
    return {
        option: value
        for option, value in options.items()
        if value and (value != getattr(preset, option, None) or other.get(option))
    }


def _files_of(named: Pipeline, word: str, config: str | None, variant: str | None, revision: str | None) -> Pipeline:
    """The pipeline with the files that the options name. Raises UserError."""
    for option, value in (("variant", variant), ("revision", revision)):
        if value is not None and not FILES.fullmatch(value):
            raise UserError(f"--{option} takes the name of a {option} on the hub, not {shown(value)}.")
    if config is not None and not checkpoint.is_single_file(named.source):
        raise UserError(f"--config {config}: only a single .safetensors file needs one, and {word} is none.")
    if revision is not None and (Path(named.source).is_absolute() or named.source == "demo"):
        raise UserError(f"--revision {revision}: {word} does not come from the hub.")
    if config is not None:
        folder = Path(config).expanduser()
        if not (folder / "model_index.json").is_file() and (folder.is_dir() or not HUB_ID.fullmatch(config)):
            raise UserError(
                f"--config takes a hub id (owner/name) or a folder with a model_index.json, not {config!r}."
            )
        config = str(absolute(folder)) if folder.is_dir() else config
    return named.model_copy(update={"config": config, "variant": variant, "revision": revision})


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
            scheduler_settings=preset.scheduler_settings,
        )
    scorer = DEFAULT_SCORER if weights == "pretrained" else None
    folder = Path(word).expanduser()
    if folder.is_file():
        if folder.suffix == ".gguf":
            raise UserError(
                f"{word!r} holds a denoiser alone: name the pipeline that it belongs to, such as --pipeline flux-dev "
                f"--gguf {word}."
            )
        if not checkpoint.is_single_file(word):
            whole = f" Or give the folder {str(folder.parent)!r}." if folder.name == "model_index.json" else ""
            raise UserError(f"{word!r} is not a .safetensors file: weights are loaded from safetensors only.{whole}")
        if weights == "random":
            raise UserError(f"--weights random is not available for the single file {word!r}.")
        return Pipeline(name=word, source=str(absolute(folder)), weights=weights, scorer=scorer)
    if folder.is_dir():
        folder = checkpoint.snapshot_of(folder) or folder
        if not (folder / "model_index.json").is_file():
            raise UserError(f"{word!r} is not a diffusers pipeline: it has no model_index.json.")
        return Pipeline(name=word, source=str(absolute(folder)), weights=weights, scorer=scorer)
    is_path = "/" in word and checkpoint.looks_like_path(word)
    if HUB_ID.fullmatch(word) and not is_path:
        return Pipeline(name=word, source=word, weights=weights, scorer=scorer)
    if is_path or checkpoint.is_single_file(word):
        raise UserError(
            f"there is no folder or file {word!r}: give the path of one, a preset or a hub id (owner/name)."
        )
    raise UserError(
        f"unknown pipeline {word!r}, neither a preset, a hub id (owner/name) nor a folder with a model_index.json: "
        f"{nearest(word, presets())}"
    )


def _task(word: str) -> str:
    if word not in TASKS:
        raise UserError(f"unknown task {word!r}: {nearest(word, TASKS)}")
    return word


def _controlnets(words: Sequence[str]) -> dict[str, Any]:
    """The fields of a Pipeline for these ControlNets, each SOURCE or SOURCE:WEIGHT. Raises UserError."""
    weights = _weighted(words, "--controlnet", _controlnet)
    if not weights:
        return {}
    first, *others = weights
    more = {name: weights[name] for name in others}
    return {"controlnet": first, "controlnet_weight": weights[first], "more_controlnets": more}


def _controlnet(word: str) -> str:
    """The hub id or the absolute folder of a ControlNet. The probe checks what a hub id holds. Raises UserError."""
    folder = Path(word).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise UserError(f"{word!r} is not a ControlNet: it has no config.json.")
        return str(absolute(folder))
    if folder.is_file():
        raise UserError(f"--controlnet {word} is a file: give its folder, or a hub id (owner/name).")
    if HUB_ID.fullmatch(word) and not checkpoint.looks_like_path(word):
        return word
    raise UserError(f"--controlnet takes a hub id (owner/name) or a folder, not {word!r}.")


def _loras(words: Sequence[str]) -> dict[str, Any]:
    """The fields of a Pipeline for these LoRAs, each SOURCE or SOURCE:WEIGHT. Raises UserError.

    A source may be owner/name:FILE.safetensors, one of the files of a repository.
    """
    weights = {source: 1.0 if w is None else w for source, w in _weighted(words, "--lora", _lora).items()}
    if not weights:
        return {}
    first, *others = weights
    return {"lora": first, "lora_weight": weights[first], "more_loras": {name: weights[name] for name in others}}


def _weighted(words: Sequence[str], option: str, find: Callable[[str], str]) -> dict[str, float | None]:
    """Source -> weight of these SOURCE or SOURCE:WEIGHT; None where none is given. Raises UserError.

    find  the source that a word names
    """
    weights: dict[str, float | None] = {}
    for word in words:
        source, colon, number = word.rpartition(":")
        weighted = bool(colon) and not Path(word).expanduser().exists() and split_hub_file(word) is None
        if weighted and not (NUMBER.fullmatch(number) and isfinite(float(number))):
            raise UserError(
                f"{option} {word}: the weight after the colon is a number such as 0.8, not {shown(number)}."
            )
        found = find(source if weighted else word)
        if found in weights:
            raise UserError(f"{option} {word} is given twice: give every one once.")
        weights[found] = float(number) if weighted else None
    return weights


def _lora(word: str) -> str:
    """The hub id, or the absolute path of the folder or file, of a LoRA. Raises UserError."""
    path = Path(word).expanduser()
    files = sorted(found.name for found in path.glob("*.safetensors")) if path.is_dir() else []
    if path.is_dir() and not files:
        raise UserError(f"{word!r} has no LoRA: it has no .safetensors file.")
    if len(files) > 1:
        raise UserError(f"{word!r} has several LoRAs: give one of its files, {', '.join(files)}.")
    if path.exists() and not path.is_dir() and (path.suffix != ".safetensors" or not path.is_file()):
        raise UserError(f"{word!r} is not a .safetensors file: LoRAs are loaded from safetensors only.")
    if path.exists():
        return str(absolute(path))
    if split_hub_file(word) is not None or (HUB_ID.fullmatch(word) and not checkpoint.looks_like_path(word)):
        return word
    raise UserError(
        "--lora takes a hub id (owner/name), a file of it (owner/name:FILE.safetensors), a folder or a .safetensors "
        f"file, not {word!r}."
    )
