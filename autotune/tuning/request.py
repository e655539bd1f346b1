"""Request: the options of a search, checked as far as possible before a process is started."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from autotune.config import Config, Value
from autotune.device import Device
from autotune.errors import UserError
from autotune.goal import Budget, Goal
from autotune.isolation import Isolation
from autotune.knobs import complete
from autotune.pipeline import Pipeline
from autotune.pipelines import requested_options
from autotune.production.tuned_config import TunedConfig
from autotune.study.space_file import SpaceFile
from autotune.study_folder import StudyFolder
from autotune.tuning.confirm import ConfirmationPlan
from autotune.workload import Prompts, WorkloadRequest

DEFAULT_QUALITY_DROP = {"clip": 0.3, "likeness": 10.0}  # CLIP points (1 % or less); 100 x (1 - SSIM of 0.9)


@dataclass(frozen=True)
class Request:
    """What search() was called with, in the types that its steps take.

    prompts   all of them; `workload` has those of the search, the confirmation draws the others as well
    fixed     knob -> the value at which it is held
    excluded  the knobs that keep the baseline's value
    earlier   paths of earlier studies for a warm start
    """

    pipeline: Pipeline
    device: Device
    space_file: SpaceFile
    baseline: Config
    fixed: Mapping[str, Value]
    excluded: frozenset[str]
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
    command: str


def default_folder(pipeline: Pipeline, device: Device) -> Path:
    """`reports/2026-11-21-sd15-cpu`, with what was requested beside the pipeline: `...-sd15-image2image-cpu`."""
    requested = [
        Path(value).name.lower().removesuffix(".safetensors") for value in requested_options(pipeline).values()
    ]
    return Path("reports") / "-".join([date.today().isoformat(), pipeline.slug, *requested, device.slug])


def read_quality_drop(limit: float | None, pipeline: Pipeline) -> float:
    """The most that quality may drop: `limit`, or the default of the metric that this pipeline can be judged by.

    Raises UserError for a negative number, an infinite one or NaN.
    """
    if limit is None:
        return DEFAULT_QUALITY_DROP["clip" if pipeline.scorer else "likeness"]
    if not 0 <= limit < float("inf"):
        raise UserError(f"the most that quality may drop is {limit}; give a number that is 0 or more.")
    return limit


def read_baseline(word: str) -> Config:
    """The config that `--baseline` names: default, fp16, bf16 or an exported file. Raises UserError."""
    if word in ("default", "fp16", "bf16"):
        return complete({} if word == "default" else {"dtype": word})
    if not word.endswith(".json"):
        raise UserError(f"--baseline takes default, fp16, bf16 or an exported config (FILE.json), not {word!r}.")
    return TunedConfig.load(word).config
