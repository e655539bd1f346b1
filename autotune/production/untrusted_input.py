"""Checks of an exported JSON from an unknown source, before anything that it names is loaded.

Checked here: the size of the file, the sources of the weights (a hub id, or an existing folder), and numbers that
would keep a server busy for a week. `knobs.check_value` checks the values of the knobs. Remote code never runs,
whatever the file says: autotune never passes `trust_remote_code`, and loads safetensors only.
"""

import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from autotune.config import Value
from autotune.errors import UserError, shown
from autotune.frozen_model import read_json
from autotune.pipeline import GGUF, SAFETENSORS, Pipeline, split_hub_file
from autotune.workload import MOST, Workload

MOST_BYTES = 2**20  # of the file: an exported config has some 15 KB
MOST_TOKEN = 128  # characters of a textual inversion's token
MOST_ITEMS = 10_000  # of all lists and objects together: a config has some 500
HUB_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}/[A-Za-z0-9][A-Za-z0-9._-]{0,95}")
REVISION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
CLASS_NAME = re.compile(r"[A-Za-z][A-Za-z0-9]{0,95}")
FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


def read_untrusted(path: str | Path, what: str) -> Any:
    """The decoded JSON of a file from an unknown source. Raises UserError where it is too large or no JSON.

    what  the name of this kind of file in the message
    """
    data = read_json(Path(path), what, most_bytes=MOST_BYTES)
    if _items(data) > MOST_ITEMS:
        raise UserError(f"{what} {str(path)!r} can't be used: its lists have more than {MOST_ITEMS} items together.")
    return data


def _items(data: Any) -> int:
    """The number of items of all lists and objects in it, counted up to MOST_ITEMS."""
    count, open_ = 0, [data]
    while open_ and count <= MOST_ITEMS:
        inside = open_.pop()
        found = list(inside.values()) if isinstance(inside, dict) else inside if isinstance(inside, list) else ()
        count += len(found)
        open_ += found
    return count


def check(pipeline: Pipeline, workload: Workload, knobs: Mapping[str, Value]) -> None:
    """Raises UserError where this is not safe to load. Opens no file: it only checks that a named file exists."""
    if pipeline.factory is None:
        _check_source("pipeline.source", pipeline.source, allowed=("demo",))
    else:  # a name: what is run is the function that the user gives
        _check_path("pipeline.source", pipeline.source)
    for name in ("scorer", "controlnet", "lora", "config"):
        if (source := getattr(pipeline, name)) is not None:
            _check_source(f"pipeline.{name}", source, allowed=("demo",))
    for name, source in pipeline.added.items():
        _check_source(f"pipeline, the {name}", source, allowed=("demo",))
    for token in pipeline.textual_inversions.values():
        if not token.isprintable() or len(token) > MOST_TOKEN:
            raise UserError(f"the token {shown(token)} of a textual inversion is not a word.")
    for source in pipeline.more_loras:
        _check_source("pipeline.more_loras", source)
    if (vae := knobs.get("vae")) not in (None, "own", "fp16_fix", "tiny"):
        _check_source("knobs.vae", str(vae))
    revisions = {"pipeline.revision": pipeline.revision, "pipeline.variant": pipeline.variant}
    revisions |= {f"the revision of the {shown(part)}": value for part, value in pipeline.part_revisions.items()}
    for name, revision in revisions.items():
        if revision is not None and not REVISION.fullmatch(revision):
            raise UserError(f"{name} {shown(revision)} is not a commit of the hub.")
    if pipeline.scheduler is not None:
        check_class_name(pipeline.scheduler)
    _check_numbers(workload)


def check_class_name(scheduler: str) -> None:
    """Raises UserError where the scheduler's class has no name that can be imported and written into a script."""
    if not CLASS_NAME.fullmatch(scheduler):
        raise UserError(f"pipeline.scheduler {shown(scheduler)} is not the name of a class.")


def check_file_name(name: str) -> None:
    """Raises UserError where this is not a plain file name, but for example a path out of the JSON's folder."""
    if not FILE_NAME.fullmatch(name) or ".." in name:
        raise UserError(f"{shown(name)} is not a plain file name.")


def _check_source(field: str, source: str, *, allowed: Collection[str] = ()) -> None:
    """Raises UserError where `source` is neither a hub id nor an existing absolute path, nor one of `allowed`.

    A relative path is refused, because its meaning depends on the folder that the process was started in.
    """
    hub_id, _ = split_hub_file(source, (SAFETENSORS, GGUF)) or (source, None)
    if source in allowed or (HUB_ID.fullmatch(hub_id) and ".." not in source):
        return
    _check_path(field, source)
    try:
        exists = Path(source).exists()
    except OSError:
        exists = False
    if not exists:
        raise UserError(f"{field} {shown(source)} is not on this disk.")


def _check_path(field: str, source: str) -> None:
    plain = source.isprintable() and len(source) < 1024
    if not (plain and Path(source).is_absolute() and ".." not in Path(source).parts):
        raise UserError(f"{field} {shown(source)} is neither a hub id (owner/name) nor the absolute path of a folder.")


def _check_numbers(workload: Workload) -> None:
    if not workload.prompts:
        raise UserError("workload.prompts is empty.")
    if workload.seeds and len(workload.seeds) != len(workload.prompts):
        raise UserError("workload.seeds and workload.prompts have different lengths.")
    seeds = [workload.seed + len(workload.prompts), workload.seed, *workload.seeds]
    if not all(0 <= seed < 2**62 for seed in seeds):
        raise UserError("a seed of the workload is out of range.")
    if workload.strength is not None and not 0 < workload.strength <= 1:
        raise UserError(f"the workload's strength {workload.strength} is not above 0 and up to 1.")
    numbers = [("steps", workload.steps)]
    numbers += [(name, getattr(shape, name)) for shape in workload.shapes for name in ("width", "height", "batch")]
    for name, number in numbers:
        if not 1 <= number <= MOST[name]:
            raise UserError(f"the workload's {name} {shown(number)} is not between 1 and {MOST[name]}.")
