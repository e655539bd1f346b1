"""What an exported JSON may say. It comes from anywhere: nothing in it is run, and what it names is looked at first.

Held here: its size, where weights may come from (the hub by an id, or a folder that exists), and numbers that would
make a server work for a week. That a knob's value is one that the knob has, `knobs.check_value` says. Remote code is
never trusted, whatever a file says: nothing here passes `trust_remote_code`, and weights are safetensors only.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from autotune.config import Value
from autotune.errors import UserError, shown
from autotune.frozen_model import read_json
from autotune.pipeline import Pipeline
from autotune.workload import Workload

MOST_BYTES = 16 * 2**20
HUB_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}/[A-Za-z0-9][A-Za-z0-9._-]{0,95}")
REVISION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
CLASS_NAME = re.compile(r"[A-Za-z][A-Za-z0-9]{0,95}")
FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
MOST = {"width": 2**15, "height": 2**15, "batch": 2**12, "steps": 10**4}


def read_untrusted(path: str | Path, what: str) -> Any:
    """The decoded JSON of a file that may come from anywhere. Raises UserError."""
    return read_json(Path(path), what, most_bytes=MOST_BYTES)


def check(pipeline: Pipeline, workload: Workload, knobs: Mapping[str, Value]) -> None:
    """Raises UserError where this can't be loaded in good faith. Touches no file but to see whether it is there."""
    _check_source("pipeline.source", pipeline.source, "demo")
    for name in ("scorer", "controlnet", "lora"):
        if (source := getattr(pipeline, name)) is not None:
            _check_source(f"pipeline.{name}", source, "demo")
    if (vae := knobs.get("vae")) not in (None, "own", "fp16_fix", "tiny"):
        _check_source("knobs.vae", str(vae))
    revisions = {"pipeline.revision": pipeline.revision}
    revisions |= {f"the revision of the {shown(part)}": value for part, value in pipeline.part_revisions.items()}
    for name, revision in revisions.items():
        if revision is not None and not REVISION.fullmatch(revision):
            raise UserError(f"{name} {shown(revision)} is no commit of the hub.")
    if pipeline.scheduler is not None and not CLASS_NAME.fullmatch(pipeline.scheduler):
        raise UserError(f"pipeline.scheduler {shown(pipeline.scheduler)} is no name of a class.")
    _check_numbers(workload)


def check_file_name(name: str) -> None:
    """A file beside the JSON, by its plain name: no path leads out of the folder. Raises UserError."""
    if not FILE_NAME.fullmatch(name) or ".." in name:
        raise UserError(f"{shown(name)} is no plain file name.")


def _check_source(field: str, source: str, *also: str) -> None:
    """A hub id, or an absolute path that is there. A relative path is neither: it depends on who loads it where."""
    if source in also or (HUB_ID.fullmatch(source) and ".." not in source):
        return
    plain = source.isprintable() and len(source) < 1024
    if not (plain and Path(source).is_absolute() and ".." not in Path(source).parts):
        raise UserError(f"{field} {shown(source)} is neither a hub id (owner/name) nor the whole path of a folder.")
    try:
        found = Path(source).exists()
    except OSError:
        found = False
    if not found:
        raise UserError(f"{field} {shown(source)} is not on this disk.")


def _check_numbers(workload: Workload) -> None:
    if not workload.prompts:
        raise UserError("workload.prompts is empty.")
    if workload.seeds and len(workload.seeds) != len(workload.prompts):
        raise UserError("workload.seeds has another length than workload.prompts.")
    seeds = [workload.seed + len(workload.prompts), workload.seed, *workload.seeds]
    if not all(0 <= seed < 2**62 for seed in seeds):
        raise UserError("a seed of the workload is out of range.")
    given = [("steps", workload.steps)]
    given += [(name, getattr(shape, name)) for shape in workload.shapes for name in ("width", "height", "batch")]
    for name, number in given:
        if not 1 <= number <= MOST[name]:
            raise UserError(f"the workload's {name} {shown(number)} is not between 1 and {MOST[name]}.")
