"""TunedConfig: the exported JSON of one config, its measured numbers, and the machine that they were measured on.

The JSON is data: nothing in it is ever run, and a value that no knob accepts is refused.
"""

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import Field, model_validator

from autotune.config import Config, Value
from autotune.device import Device
from autotune.errors import UserError
from autotune.frozen_model import FrozenModel, write_json
from autotune.knobs import check_value, complete
from autotune.measurement import HostMemory
from autotune.pipeline import Identifier, Pipeline
from autotune.pipelines.factory import Factory, given, refusal
from autotune.production import fingerprint, serving
from autotune.production import untrusted_input as untrusted
from autotune.production.artifacts import Artifacts, use
from autotune.production.serving import Serving
from autotune.production.thumbnail import Thumbnail
from autotune.production.turns import LOADING
from autotune.statistics.paired import Paired
from autotune.statistics.verdict import Verdict, judge
from autotune.target import Calibrations, Target
from autotune.trial import BaselineChoice
from autotune.workload import Workload

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

SCHEMA_VERSION = 2
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Evidence(FrozenModel):
    """The numbers of one config. A latency is that of one call, which draws `workload.batch` pictures.

    For a workload of several sizes, `latency_s` is the sum over the sizes, and the samples are those of the main size.
    """

    latency_s: Seconds
    latency_at_s: dict[str, float] = Field(default_factory=dict)  # several sizes: the median at each
    graphs_added_at: dict[str, int] = Field(default_factory=dict)  # several sizes: graphs compiled for each
    latency_samples_s: tuple[float, ...]
    first_call_s: float
    peak_memory_bytes: int
    host: HostMemory | None = None  # of the machine's memory; None: an older file
    energy_per_picture_j: float | None = None  # a rough figure; None: the GPU does not report it
    effects: dict[str, str]
    quality_metric: str
    quality_loss: float  # CLIP points, or 100 x (1 - SSIM) where the metric is likeness
    clip_score: float | None = None
    clip_drop: float | None = None
    clip_drop_interval: float | None = None  # half the width of the 95 % confidence interval
    clip_drop_smallest_detectable: float | None = None  # one-sided 5 %, power 80 %
    pairs: int | None = None  # (prompt, seed) pairs that both this config and the baseline have drawn
    ssim_mean: float
    ssim_worst: float
    psnr_worst_db: float | None = None  # None: all pictures equal the baseline's bit for bit, or an older file
    lpips_mean: float | None = None  # None: the weights of LPIPS were not on the disk
    lpips_worst: float | None = None
    worst_place_levels: float | None = None  # of 255: the worst cell, row or column; None: an older file
    temporal_mean_levels: float | None = None  # of clips: difference of the changes from frame to frame; None: pictures


class ConfirmedQuality(FrozenModel):
    """The quality of the config relative to the baseline, over more prompts and seeds than the search uses."""

    metric: str
    drop: Paired  # CLIP points, or 100 x (1 - SSIM) where the metric is likeness
    prompts: int  # distinct prompts; a pair is a prompt with a seed
    ssim_mean: float
    ssim_worst: float
    worst_place_levels: float | None = None  # of 255: the worst cell, row or column of all pictures
    temporal_mean_levels: float | None = None  # of clips: difference of the changes from frame to frame; None: pictures
    shortened_from: int | None = None  # the planned number of pairs, where these would have taken too long


class BesideSingle(FrozenModel):
    """The config's pictures of calls of a whole batch, beside those of calls of one picture: same prompts and seeds.

    Kernels are chosen by the batch, so that the sums of a layer are rounded otherwise.

    equal  the number of pictures that are the same bit for bit
    fault  why it could not be measured; None: it was
    """

    batch: int
    pictures: int = 0
    equal: int = 0
    ssim_mean: float | None = None
    ssim_worst: float | None = None
    fault: str | None = None


class OnSecondCard(FrozenModel):
    """The rounds of a confirmation once more, on a second card of a search on several: one median per round.

    card   None: no card was there
    fault  why there are no rounds; None: there are
    """

    card: str | None
    baseline_latency_s: tuple[Seconds, ...] = ()
    tuned_latency_s: tuple[Seconds, ...] = ()
    fault: str | None = None

    @property
    def verdict(self) -> Verdict | None:
        return judge(self.baseline_latency_s, self.tuned_latency_s) if len(self.tuned_latency_s) > 1 else None


class Confirmation(FrozenModel):
    """The config and the baseline measured again, interleaved, each run in a fresh process: one median per round.

    For a workload of several sizes, the sum over the sizes of each size's median.
    """

    baseline_latency_s: tuple[Seconds, ...]
    tuned_latency_s: tuple[Seconds, ...]
    tuned_latency_at_s: dict[str, tuple[float, ...]] = Field(default_factory=dict)  # several sizes: each alone
    quality: ConfirmedQuality | None = None
    beside_single: BesideSingle | None = None  # None: the batch is 1, or an older file
    quick: bool = False  # fewer rounds and pairs than usual, as the user asked for (--quick)
    second_card: OnSecondCard | None = None  # None: there was one card, or no time, or an older file

    @model_validator(mode="after")
    def _in_pairs(self) -> "Confirmation":
        if len(self.baseline_latency_s) != len(self.tuned_latency_s):
            raise ValueError("the baseline and the config were measured in different numbers of rounds")
        return self

    @property
    def verdict(self) -> Verdict | None:
        """How fast the config is relative to the baseline; None after a single round, which has no interval."""
        return judge(self.baseline_latency_s, self.tuned_latency_s) if len(self.tuned_latency_s) > 1 else None

    @property
    def is_faster(self) -> bool:
        return self.verdict is not None and self.verdict.word == "FASTER"


class TunedConfig(FrozenModel):
    """A measured config as JSON on disk; `pipeline_on` builds the pipeline that was measured.

    The fields that a reader looks for come first. Knobs may be edited by hand: then the numbers belong to another
    config, and `is_measured` is false.
    """

    schema_version: int = SCHEMA_VERSION
    about: str
    speedup: Verdict | None = None  # relative to the baseline, interleaved; None: it was not confirmed
    created: str  # date and time, UTC
    command: str
    knobs: dict[str, Value]
    serving: Serving | None = None  # the measured sizes and prompt lengths; None: an older file
    pipeline_class: Identifier
    workload: Workload
    device: Device
    versions: dict[str, str]
    environment: dict[str, str] | None = None  # variables that the libraries read; None: an older file
    tuned: Evidence
    baseline_knobs: dict[str, Value]
    baseline_choice: BaselineChoice | None = None  # why it is the baseline; None: it was named, or an older file
    baseline: Evidence
    confirmation: Confirmation | None
    evidence_of: str | None = None  # digest of the measured config; None: an older file
    pictures: tuple[Thumbnail, ...] = ()  # the trial's pictures of the first prompts
    artifacts: Artifacts | None = None  # compiled code beside this file
    calibrations: Calibrations = Field(default_factory=dict)  # with which it was measured, and draws
    pipeline: Pipeline
    inputs: dict[Identifier, str] = Field(default_factory=dict)  # arguments of the call -> kind of picture

    @classmethod
    def load(cls, path: str | Path) -> "TunedConfig":
        """Read and check an exported JSON file. Raises UserError, which says what is wrong with the file."""
        where = f"the config {str(path)!r}"
        data = untrusted.read_untrusted(path, "config")
        if isinstance(data, dict) and data.get("kind") == "chain":
            raise UserError(
                f"{where} is of a chain, which autotune.load() and `autotune run` take: give a stage's file."
            )
        version = data.get("schema_version") if isinstance(data, dict) else None
        if not isinstance(version, int):
            raise UserError(f"{where} was not exported by autotune: it has no schema_version.")
        if version > SCHEMA_VERSION:
            raise UserError(f"{where} was written by a newer autotune (schema {version}): upgrade autotune.")
        tuned = cls.parse(data, where)
        try:
            tuned.check()
        except UserError as error:
            raise UserError(f"{where}: {error}") from None
        return tuned

    def check(self) -> None:
        """Raises UserError where a knob or its value is unknown, or where the file is not safe to load."""
        complete(self.knobs)
        untrusted.check(self.pipeline, self.workload, self.knobs)
        if self.artifacts is not None:
            untrusted.check_file_name(self.artifacts.file)

    def save(self, path: str | Path) -> None:
        """Write the JSON, whole or not at all. Raises UserError where it can't be written."""
        try:
            write_json(Path(path), self.to_json())
        except OSError as error:
            raise UserError(f"{str(path)!r} can't be written: {error.strerror}.") from None

    @property
    def config(self) -> Config:
        return complete(self.knobs)

    @property
    def target(self) -> Target:
        """The pipeline, workload, device and versions that the config was measured with."""
        return Target(
            pipeline=self.pipeline,
            workload=self.workload,
            device=self.device,
            versions=self.versions,
            environment=self.environment,
            calibrations=self.calibrations,
        )

    @property
    def digest(self) -> str:
        """Identifies what was measured: pipeline, workload, knobs and calibrations. 16 hexadecimal digits."""
        weights = {"source", "revision", "weights", "task", "controlnet", "lora", "scheduler", "part_revisions"}
        weights |= {"scheduler_settings", "controlnet_weight", "more_controlnets"}
        weights |= {"config", "variant", "lora_weight", "more_loras", "factory", "gguf"}
        weights |= {"ip_adapter", "ip_adapter_scale", "textual_inversions"}
        identity: dict[str, object] = {
            "knobs": {name: check_value(name, value) for name, value in self.knobs.items()},
            "workload": self.workload.model_dump(mode="json", exclude_defaults=True),
            "pipeline": self.pipeline.model_dump(mode="json", include=weights, exclude_defaults=True),
        }
        if self.calibrations:  # older files have none
            identity["calibrations"] = self.calibrations
        return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]

    @property
    def is_measured(self) -> bool:
        """Do the numbers belong to this config, or was it edited since? (Older files don't say: then True.)"""
        return self.evidence_of in (None, self.digest)

    @property
    def edited(self) -> list[str]:
        """A warning where the config was edited after the measurement, otherwise nothing."""
        if self.is_measured:
            return []
        return ["this config was edited after it was measured: its numbers are of another one."]

    def pipeline_on(
        self,
        device: str | None = None,
        *,
        local_files_only: bool = False,
        strict: bool = False,
        warmup: bool = False,
        artifacts_in: Path | None = None,
        thread_safe: bool = False,
        factory: Factory | None = None,
    ) -> "DiffusionPipeline":
        """Load an ordinary diffusers pipeline, built by the same code that the measurement used.

        The defaults of its call are those of the workload (size, steps, guidance), because the numbers hold for these.

        artifacts_in  the folder of the compiled code that came with the file; None: that code is not used

        The other arguments are those of autotune.load(). Raises UserError where the pipeline or device can't be used.
        """
        self._check_factory(factory)
        with LOADING, given(factory):
            place = fingerprint.find_place(self.target, self.config, device, local_files_only=local_files_only)
            differences = [*self.edited, *place.differences]
            fingerprint.report(differences, strict=strict)
            if artifacts_in is not None:
                use(self.artifacts, artifacts_in, differences)
            pipe = fingerprint.load(self.target, place, strict=strict, local_files_only=local_files_only)
            serving.serve(pipe, place.config, self.workload, thread_safe=thread_safe)
        if warmup:
            serving.warm_up(pipe, self.workload)
        return pipe

    def _check_factory(self, factory: Factory | None) -> None:
        """Raises UserError unless a function is given exactly where the measured pipe was built by one."""
        if factory is None and self.pipeline.factory is not None:
            raise refusal(self.pipeline)
        if factory is not None and self.pipeline.factory is None:
            raise UserError("the pipe of this config is loaded by diffusers, not built by a factory: leave it out.")

    def apply(
        self,
        pipe: "DiffusionPipeline",
        device: str | None = None,
        *,
        strict: bool = False,
        thread_safe: bool = False,
    ) -> "DiffusionPipeline":
        """Apply the config to a pipeline that is already loaded, in place; returns the pipeline.

        Raises UserError where a knob can only act while the pipeline is loaded, such as the number format, and where a
        LoRA that is not fused, or an IP-Adapter, would be lost.
        """
        with LOADING:
            place = fingerprint.find_place(self.target, self.config, device, files=False)
            fingerprint.report([*self.edited, *place.differences], strict=strict)
            fingerprint.apply(pipe, self.target, place, strict=strict)
            serving.serve(pipe, place.config, self.workload, thread_safe=thread_safe)
        return pipe
