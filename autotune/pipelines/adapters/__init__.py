"""Adapters: what is put on a pipe after it is loaded: an IP-Adapter, textual inversions, encoded prompts.

This reads the options of the first two, and imports no torch. The other files put them on a pipe, in child processes
and in production.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from autotune.errors import UserError
from autotune.frozen_model import absolute
from autotune.pipeline import GGUF, HUB_ID, Pipeline, Weights, split_hub_file

MAGIC = b"GGUF"  # with which such a file begins
NUMBER = re.compile(r"-?\d+(\.\d+)?")


def fields(ip_adapter: str | None, textual_inversion: str | Sequence[str] | None, weights: Weights) -> dict[str, Any]:
    """The fields of a Pipeline for these options. Raises UserError.

    ip_adapter         a .safetensors file: a path, or owner/name:PATH of the hub; or one of them and ":SCALE"
    textual_inversion  each a file as above or a hub id, or one of them and ":TOKEN"
    """
    words = [textual_inversion] if isinstance(textual_inversion, str) else textual_inversion or ()
    for option, word in (("--ip-adapter", ip_adapter), ("--textual-inversion", next(iter(words), None))):
        if word is not None and weights == "random":
            raise UserError(f"{option} {word}: random weights have learned nothing that it could be added to.")
    found: dict[str, Any] = {}
    if ip_adapter is not None:
        source, scale = _split(ip_adapter)
        if scale and not NUMBER.fullmatch(scale):
            raise UserError(f"--ip-adapter {ip_adapter}: the scale after the colon is a number such as 0.6.")
        found |= {"ip_adapter": _file(source, "--ip-adapter"), "ip_adapter_scale": float(scale or 1)}
    tokens: dict[str, str] = {}
    for word in words:
        source, token = _split(word)
        on_hub = HUB_ID.fullmatch(source) and not source.endswith(".safetensors")
        source = source if on_hub else _file(source, "--textual-inversion")
        if source in tokens:
            raise UserError(f"--textual-inversion {word} is given twice: give every one once.")
        tokens[source] = token
    return found | ({"textual_inversions": tokens} if tokens else {})


def _split(word: str) -> tuple[str, str]:
    """`SOURCE:REST` -> (SOURCE, REST); without a rest, it is empty. Sources may have a colon of their own."""
    source, colon, rest = word.rpartition(":")
    whole = not colon or Path(word).expanduser().exists() or split_hub_file(word) is not None
    return (word, "") if whole else (source, rest)


def _file(word: str, option: str) -> str:
    """The absolute path of the file, or the file of the hub. Raises UserError."""
    path = Path(word).expanduser()
    if path.is_file() and path.suffix == ".safetensors":
        return str(absolute(path))
    if split_hub_file(word) is not None:
        return word
    raise UserError(f"{option} takes a .safetensors file (a path, or owner/name:PATH of the hub), not {word!r}.")


def with_gguf(pipeline: Pipeline, word: str) -> Pipeline:
    """The pipeline with its denoiser from this GGUF file: a path, or owner/name:PATH of the hub. Raises UserError."""
    path = Path(word).expanduser()
    if path.is_file():
        try:
            with path.open("rb") as file:
                is_one = file.read(len(MAGIC)) == MAGIC
        except OSError as error:
            raise UserError(f"--gguf {word} can't be read: {error.strerror}.") from None
        if not is_one:
            raise UserError(f"--gguf {word}: this is no GGUF file.")
    elif split_hub_file(word, (GGUF,)) is None:
        raise UserError(f"--gguf takes a .gguf file (a path that exists, or owner/name:PATH of the hub), not {word!r}.")
    if pipeline.weights == "random":
        raise UserError(f"--gguf {word}: random weights take the place of those in a file; leave out one of the two.")
    if Path(pipeline.source).suffix == ".safetensors":
        raise UserError(
            f"--gguf {word}: {pipeline.source!r} has a denoiser of its own; name a preset, a hub id or a folder."
        )
    for option, source in (("--lora", pipeline.lora), ("--ip-adapter", pipeline.ip_adapter)):
        if source is not None:
            raise UserError(
                f"{option} {source}: it changes weights that --gguf {word} has packed; leave out one of the two."
            )
    return pipeline.model_copy(update={"gguf": str(absolute(path)) if path.is_file() else word})
