"""Options that several commands have, and the reading of their words."""

from pathlib import Path
from typing import Annotated, Any

import typer

from autotune.errors import UserError
from autotune.isolation import ISOLATIONS, Isolation

PipelineName = Annotated[
    str, typer.Option(help="A preset (demo, sd15, sdxl, if-stage1 ...), a hub id or a local folder.")
]
Task = Annotated[str | None, typer.Option(help="text2image, image2image or inpainting: the sister pipeline for it.")]
ControlNet = Annotated[str | None, typer.Option(help="A ControlNet to load with it: a hub id or a local folder.")]
LoRA = Annotated[str | None, typer.Option(help="A LoRA to fuse: a hub id, a folder or a .safetensors file.")]
DeviceName = Annotated[str | None, typer.Option(help="cuda, cuda:N or cpu. Default: the first GPU, else the CPU.")]
Weights = Annotated[str, typer.Option(help="pretrained, or random: the full architecture with random weights.")]


def read_fixes(words: list[str]) -> dict[str, Any]:
    from autotune.config import read_value

    pairs = [word.partition("=") for word in words]
    for name, equals, value in pairs:
        if not (name and equals and value):
            raise UserError(f"--fix takes KNOB=VALUE such as dtype=bf16, not {name + equals + value!r}.")
    return {name: read_value(value) for name, _, value in pairs}


def by_name(words: list[str], paths: list[Path]) -> list[str]:
    """The command line as it is recorded, and exported: of these paths, where on this machine they lie is left away."""
    known = {str(path): path.resolve().name for path in paths}
    return [known.get(word, _after_equals(word, known)) for word in words]


def _after_equals(word: str, known: dict[str, str]) -> str:
    option, equals, path = word.partition("=")
    return f"{option}={known[path]}" if equals and path in known else word


def read_weights(word: str) -> Any:
    if word not in ("pretrained", "random"):
        raise UserError(f"--weights takes pretrained or random, not {word!r}.")
    return word


def read_isolation(word: str | None) -> Isolation | None:
    known: dict[str | None, Isolation | None] = {None: None, **{how: how for how in ISOLATIONS}}
    if word not in known:
        raise UserError(f"--isolation takes fork or spawn, not {word!r}.")
    return known[word]


def at_least_one(numbers: dict[str, int | None]) -> None:
    for name, number in numbers.items():
        if number is not None and number < 1:
            raise UserError(f"{name} {number}: give at least 1.")
