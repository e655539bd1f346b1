"""Request: the options of a search, checked as far as possible before a process is started."""

import inspect
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from hashlib import sha256
from pathlib import Path
from types import MappingProxyType
from typing import Any

from autotune.config import Config, Value, read_value
from autotune.device import Device
from autotune.errors import UserError
from autotune.goal import Budget, Goal
from autotune.isolation import Isolation
from autotune.knob import Change
from autotune.knobs import check_value, complete, find_knob
from autotune.pipeline import Pipeline
from autotune.pipelines import requested_options
from autotune.production.tuned_config import TunedConfig
from autotune.study.space_file import SpaceFile
from autotune.study_folder import StudyFolder
from autotune.tuning.confirm import ConfirmationPlan
from autotune.tuning.explore import Team
from autotune.workload import Prompts, WorkloadRequest

DEFAULT_QUALITY_DROP = {"clip": 0.3, "likeness": 10.0}  # CLIP points (1 % or less); 100 x (1 - SSIM of 0.9)


@dataclass(frozen=True)
class Request:
    """What search() was called with, in the types that its steps take.

    prompts   all of them; `workload` has those of the search, the confirmation draws the others as well
    baseline  None: the plainest config that fits, see baseline.py
    fixed     knob -> the value at which it is held
    excluded  the knobs that keep the baseline's value
    later     what users do to the pipe after it is loaded
    earlier   paths of earlier studies for a warm start
    team      runs several trials at the same time; None: they run here, one after the other
    """

    pipeline: Pipeline
    device: Device
    space_file: SpaceFile
    baseline: Config | None
    fixed: Mapping[str, Value]
    excluded: frozenset[str]
    later: tuple[Change, ...]
    sampler: str
    confirmation: ConfirmationPlan
    budget: Budget
    prompts: Prompts
    workload: WorkloadRequest
    goal: Goal
    folder: StudyFolder
    earlier: Sequence[Path]
    isolation: Isolation | None
    reuse: bool
    listed_only: bool
    command: str
    team: Team | None = None


def default_folder(pipeline: Pipeline, device: Device, asked: Mapping[str, Any] = MappingProxyType({})) -> Path:
    """`reports/2026-11-21-sd15-cpu`, with what was requested beside the pipeline: `...-sd15-image2image-cpu`.

    asked  what makes it another study than pipeline and device alone, see asked_beyond(): a digest of it ends the name
    """
    values = (value.replace(":", "-") for value in requested_options(pipeline).values())
    names = (Path(value).name.lower() for value in values)
    requested = [name.removesuffix(".safetensors").removesuffix(".gguf") for name in names]
    digest = [sha256(repr(sorted(asked.items())).encode()).hexdigest()[:6]] if asked else []
    return Path("reports") / "-".join([date.today().isoformat(), pipeline.slug, *requested, device.slug, *digest])


def asked_beyond(
    call: Callable[..., Any], given: Mapping[str, Any], pipeline: Pipeline, device: Device, same: Collection[str]
) -> dict[str, Any]:
    """The arguments of `call` that are not at their defaults, without those with which a study goes on (`same`).

    The pipeline and the device are among them where their parts of the folder's name don't tell them from others.
    """
    defaults = {name: _plain(known.default) for name, known in inspect.signature(call).parameters.items()}
    asked = {name: _plain(value) for name, value in given.items() if name not in same}
    defaults |= {"pipeline": pipeline.slug, "device": 0}
    asked["device"] = device.index
    return {name: value for name, value in asked.items() if value != defaults[name]}


def _plain(value: object) -> object:
    """The value in a form that is the same for equal ones."""
    if isinstance(value, Mapping):
        return tuple(sorted((name, _plain(each)) for name, each in value.items())) or None
    if isinstance(value, Collection) and not isinstance(value, str):
        return tuple(map(_plain, value)) or None
    return str(value) if isinstance(value, Path) else value


def read_quality_drop(limit: float | None, pipeline: Pipeline) -> float:
    """The most that quality may drop: `limit`, or the default of the metric that this pipeline can be judged by.

    Raises UserError for a negative number, an infinite one or NaN.
    """
    if limit is None:
        return DEFAULT_QUALITY_DROP["clip" if pipeline.scorer else "likeness"]
    if not 0 <= limit < float("inf"):
        raise UserError(f"the most that quality may drop is {limit}; give a number that is 0 or more.")
    return limit


def read_baseline(word: str) -> Config | None:
    """The config that `--baseline` names; None for "default", the plainest that fits. Raises UserError.

    word  "default", number formats and KNOB=VALUE pairs ("bf16,offload=model"), or an exported file
    """
    if word == "default":
        return None
    if word.endswith(".json"):
        return TunedConfig.load(word).config
    values: dict[str, Value] = {}
    for part in (part.strip() for part in word.split(",")):
        name, equals, value = part.partition("=")
        if not equals and part in find_knob("dtype").values:
            name, value = "dtype", part
        if not (name and value):
            raise UserError(
                f"--baseline takes default, fp16, bf16, KNOB=VALUE pairs such as bf16,offload=model, or an exported "
                f"config (FILE.json), not {word!r}."
            )
        if name in values:
            raise UserError(f"--baseline {word}: {name} is given twice.")
        values[name] = check_value(name, read_value(value))
    config = complete(values)
    idle = next((name for name in values if name not in config), None)
    if idle is not None:
        modified = find_knob(idle).modifies
        raise UserError(f"--baseline {word}: {idle} acts only where {modified} is not at its default.")
    return config
