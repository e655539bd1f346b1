"""Job: what a child process is told to do. Written as `job.json`; its result is `outcome.json` beside it.

Every job has a folder of its own. `worker/main.py` lists the function that does each kind of job.
"""

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, TypeAdapter

from autotune.config import Value
from autotune.device import Device
from autotune.frozen_model import FrozenModel, renamed
from autotune.pipeline import Pipeline
from autotune.reuse import Reuse
from autotune.target import Target
from autotune.trial import Failure

DISK_FULL_STATUS = 74  # the child's exit status if the disk has no room for outcome.json (EX_IOERR of sysexits.h)


class DeviceJob(FrozenModel):
    """Find out what torch supports on this device."""

    kind: Literal["device"] = "device"
    device: Device


class ProbeJob(FrozenModel):
    """Read the traits of this pipeline and find out what torch supports on this device. Downloads missing weights.

    prompts              are checked against the lengths that the pipeline's and the scorer's text encoders read
    steps                that the user requested, which are tried; None: the pipeline's own number
    arguments            of the call, that the user requested
    negative_prompt      that the user requested
    timeout_s            the longest that it may take once everything is downloaded; None: no limit
    configurations_only  download no weights: a pipeline that is not on this disk is described by its configurations,
                         and a preset by those that ship with autotune
    quick                rehearse no calls and compile no kernel, which take seconds: what only they show is not known
    """

    kind: Literal["probe"] = "probe"
    pipeline: Pipeline
    device: Device
    prompts: tuple[str, ...]
    steps: int | None = None
    arguments: dict[str, Any] = Field(default_factory=dict)
    negative_prompt: str | None = None
    timeout_s: float | None = None
    configurations_only: bool = False
    quick: bool = False


class MeasureJob(FrozenModel):
    """Build the pipe of the config `values` and measure it.

    pictures          also draw the pictures of all prompts, into the job's folder
    max_memory_bytes  the GPU memory that the process may take: torch's allocator is limited to it; None: no limit
    reuse             the work that the child may skip
    timing_s          seconds of the warm-up, and of timed calls beyond those that draw the pictures; None: as usual
    breakdown         also time the parts of a call, and profile its first steps
    """

    kind: Literal["measure"] = "measure"
    target: Target
    values: dict[str, Value]
    pictures: bool
    max_memory_bytes: int | None = None
    reuse: Reuse | None = renamed("reuse", "thrift", default=None)
    timing_s: float | None = None
    breakdown: bool = True


class DrawJob(FrozenModel):
    """Build the pipe of the config `values` and draw a picture of every prompt, untimed, into the job's folder."""

    kind: Literal["draw"] = "draw"
    target: Target
    values: dict[str, Value]


class UntouchedJob(FrozenModel):
    """Call the pipe as diffusers loads it, in the number format of `values`, and look for a call that works.

    all_prompts  draw with all prompts until a picture is broken; otherwise with those of the first call
    budget_s     seconds after which no further way is tried
    """

    kind: Literal["untouched"] = "untouched"
    target: Target
    values: dict[str, Value]
    all_prompts: bool
    budget_s: float


class PackagesJob(FrozenModel):
    """Build the pipe of the config `values`, call it once, and note which packages run in which part of the call."""

    kind: Literal["packages"] = "packages"
    target: Target
    values: dict[str, Value]


class ArtifactsJob(FrozenModel):
    """Build the pipe of the config `values`, call it at every size, and keep the code that torch.compile made."""

    kind: Literal["artifacts"] = "artifacts"
    target: Target
    values: dict[str, Value]


class Stage(FrozenModel):
    """One pipe of a chain: its target and its config `values`."""

    target: Target
    values: dict[str, Value]


class ChainJob(FrozenModel):
    """Build the pipes of a chain, each with its own config, and measure calls of the whole chain."""

    kind: Literal["chain"] = "chain"
    stages: tuple[Stage, ...]


class CompatJob(FrozenModel):
    """Draw the pictures of the first call of many configs, each config in a fork of its own, into `folder`.

    at_once   the number of forks that run at the same time
    threads   of each fork; None: torch's default
    budget_s  seconds after which no further config is begun
    limit_s   seconds after which a fork is stopped
    captured  graphs are run as torch.compile captures them; nothing is compiled
    """

    kind: Literal["compat"] = "compat"
    target: Target
    configs: tuple[dict[str, Value], ...]
    folder: str
    at_once: int
    threads: int | None
    budget_s: float
    limit_s: float
    captured: bool = False


class ScoreJob(FrozenModel):
    """Score the pictures in the folder `images` against those in the folder `baseline`.

    scorer  the CLIP model, see Pipeline.scorer; None: only their likeness is measured
    frames  of each clip; None: these are pictures
    """

    kind: Literal["score"] = "score"
    images: str
    baseline: str
    prompts: tuple[str, ...]
    scorer: str | None
    frames: int | None = None


class MetricRequest(FrozenModel):
    """One requested metric.

    name    a metric of `measure/metrics`, or FILE.py:FUNCTION
    source  the hub id or the folder of its model; None: the metric's default
    """

    name: str
    source: str | None = None


class RescoreJob(FrozenModel):
    """Score the saved pictures of trials again.

    images      trial number -> the folder of its pictures
    references  the files of the pictures to compare with, one for each prompt
    device      torch's name
    card        the device itself, which the child is shown alone; None: the processor, or a job of an earlier version
    run_code    the user allows their own functions (FILE.py:FUNCTION) to run
    frames      of each clip; None: these are pictures
    """

    kind: Literal["rescore"] = "rescore"
    metrics: tuple[MetricRequest, ...]
    images: dict[int, str]
    references: tuple[str, ...]
    prompts: tuple[str, ...]
    device: str
    card: Device | None = None
    run_code: bool
    frames: int | None = None


Job = Annotated[
    DeviceJob
    | ProbeJob
    | MeasureJob
    | DrawJob
    | PackagesJob
    | UntouchedJob
    | ArtifactsJob
    | ChainJob
    | CompatJob
    | ScoreJob
    | RescoreJob,
    Field(discriminator="kind"),
]
JOB: TypeAdapter[Job] = TypeAdapter(Job, config=ConfigDict(defer_build=True))  # as for models, see FrozenModel


def device_of(job: Job) -> Device | None:
    """The device that the job runs on; None: it needs none but the processor."""
    match job:
        case DeviceJob() | ProbeJob():
            return job.device
        case ChainJob():
            return job.stages[0].target.device
        case RescoreJob():
            return job.card
        case ScoreJob():
            return None
        case _:
            return job.target.device


def pipelines_of(job: Job) -> tuple[Pipeline, ...]:
    """The pipelines that the job loads."""
    match job:
        case ProbeJob():
            return (job.pipeline,)
        case ChainJob():
            return tuple(stage.target.pipeline for stage in job.stages)
        case DeviceJob() | ScoreJob() | RescoreJob():
            return ()
        case _:
            return (job.target.pipeline,)


class JobOutcome(FrozenModel):
    """What a child writes to `outcome.json`: the result of the job's function, or a failure."""

    result: dict[str, Any] | None = None
    failure: Failure | None = None
