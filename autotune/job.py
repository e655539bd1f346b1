"""Job: one errand for a child process, written as `job.json` in a folder of its own. Its result is `outcome.json`."""

from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter

from autotune.config import Value
from autotune.device import Device
from autotune.frozen_model import FrozenModel
from autotune.pipeline import Pipeline
from autotune.reuse import Reuse
from autotune.target import Target
from autotune.trial import Failure

DISK_FULL_STATUS = 74  # a child's exit status where not even the outcome could be written (sysexits' EX_IOERR)


class DeviceJob(FrozenModel):
    """What can torch do with this device?"""

    kind: Literal["device"] = "device"
    device: Device


class ProbeJob(FrozenModel):
    """What is this pipeline, and what can torch do with this device? Downloads weights that are missing."""

    kind: Literal["probe"] = "probe"
    pipeline: Pipeline
    device: Device
    prompts: tuple[str, ...]  # must fit in the scorer's context


class MeasureJob(FrozenModel):
    """Build the pipe that `values` describe and measure it. Pictures, if wanted, go to the job's folder."""

    kind: Literal["measure"] = "measure"
    target: Target
    values: dict[str, Value]
    pictures: bool
    max_memory_bytes: int | None = None  # a GPU's allocator is capped so that the process keeps within it
    reuse: Reuse | None = None  # what need not be drawn


class DrawJob(FrozenModel):
    """Build the pipe that `values` describe and make a picture of every prompt, untimed, in the job's folder."""

    kind: Literal["draw"] = "draw"
    target: Target
    values: dict[str, Value]


class ArtifactsJob(FrozenModel):
    """Build the pipe that `values` describe, call it at every size, and keep what torch.compile has made of it."""

    kind: Literal["artifacts"] = "artifacts"
    target: Target
    values: dict[str, Value]


class Stage(FrozenModel):
    """One pipe of a chain: what is built, and what it is called with."""

    target: Target
    values: dict[str, Value]


class ChainJob(FrozenModel):
    """Build the pipes of a chain, each with its own config, and measure the whole: prompt in, last picture out."""

    kind: Literal["chain"] = "chain"
    stages: tuple[Stage, ...]


class CompatJob(FrozenModel):
    """Make the first call's pictures of many configs, each in a fork of its own. They go to `folder`."""

    kind: Literal["compat"] = "compat"
    target: Target
    configs: tuple[dict[str, Value], ...]
    folder: str
    at_once: int  # forks
    threads: int | None  # of each fork; None: as torch likes
    budget_s: float  # begin no config after this long
    limit_s: float  # the longest that one may take


class ScoreJob(FrozenModel):
    """Judge one folder of pictures against another."""

    kind: Literal["score"] = "score"
    images: str
    baseline: str
    prompts: tuple[str, ...]
    scorer: str | None


class MetricWish(FrozenModel):
    """One metric that is asked for: ours, with the source of its model (None: its own), or FILE.py:FUNCTION."""

    name: str
    source: str | None = None


class RescoreJob(FrozenModel):
    """Score the saved pictures of trials anew. `run_code`: the user lets their own functions run."""

    kind: Literal["rescore"] = "rescore"
    metrics: tuple[MetricWish, ...]
    images: dict[int, str]  # trial -> the folder of its pictures
    references: tuple[str, ...]  # a picture for each prompt
    prompts: tuple[str, ...]
    device: str
    run_code: bool


Job = Annotated[
    DeviceJob | ProbeJob | MeasureJob | DrawJob | ArtifactsJob | ChainJob | CompatJob | ScoreJob | RescoreJob,
    Field(discriminator="kind"),
]
JOB: TypeAdapter[Job] = TypeAdapter(Job)


class Report(FrozenModel):
    """What a child writes to `outcome.json`: a result or a failure."""

    result: dict[str, Any] | None = None
    failure: Failure | None = None
