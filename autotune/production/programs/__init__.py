"""Programs: files for other programs, made of what each of them takes of a config; the rest is listed with its reason.

Facts about their formats: diffusers from its installed source; cache-dit 1.5.3 and sglang 0.5.23 from the sources of
their releases; ComfyUI from its example of the API and from excerpts of sources, some of them forks'. The files were
not run in sglang and ComfyUI; cache-dit's own reader has read one. What stands in a file is a literal: text from an
exported config is quoted, or flattened into a comment.
"""

from collections.abc import Callable
from pathlib import Path

from autotune.errors import UserError
from autotune.production.programs import cache_dit, comfyui, diffusers, sglang
from autotune.production.programs.handed_on import HandedOn
from autotune.production.tuned_config import TunedConfig

PROGRAMS: dict[str, Callable[[TunedConfig, str], HandedOn]] = {
    "diffusers": diffusers.hand_on,
    "cache-dit": cache_dit.hand_on,
    "sglang": sglang.hand_on,
    "comfyui": comfyui.hand_on,
}
# The program is part of the name: a script for diffusers is not the script of --as python.
SUFFIXES = {
    "diffusers": ".diffusers.py",
    "cache-dit": ".cache-dit.yaml",
    "sglang": ".sglang.yaml",
    "comfyui": ".comfyui.json",
}


def write_for(tuned: TunedConfig, program: str, path: Path) -> HandedOn:
    """Write the file for this program. Raises UserError where there can be none, or it would take no setting."""
    ending = SUFFIXES[program].rpartition(".")[2]
    if path.suffix != f".{ending}":  # sglang reads a file of no other name, and ComfyUI opens no other
        raise UserError(f"{str(path)!r}: --as {program} writes a file whose name ends in .{ending}.")
    handed = PROGRAMS[program](tuned, path.name)
    try:
        path.write_text(handed.text, encoding="utf-8")
    except OSError as error:
        raise UserError(f"{str(path)!r} can't be written: {error.strerror}.") from None
    return handed
