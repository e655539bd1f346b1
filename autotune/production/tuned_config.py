"""TunedConfig: what leaves the house. Config, the numbers that justify it, and the fingerprint of where they hold.

The exported JSON is data: nothing in it is ever run, and a value that no knob knows is refused.
"""

import hashlib
import json
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, model_validator

from autotune.config import Config, Value
from autotune.device import Device
from autotune.errors import UserError
from autotune.frozen_model import FrozenModel, write_json
from autotune.knobs import check_value, complete
from autotune.pipeline import Pipeline
from autotune.production import fingerprint as production
from autotune.production import serving
from autotune.production import untrusted_input as untrusted
from autotune.production.artifacts import Artifacts, use
from autotune.production.serving import Serving
from autotune.production.thumbnail import Thumbnail
from autotune.statistics.paired import Paired
from autotune.statistics.verdict import Verdict, judge
from autotune.target import Target
from autotune.workload import Workload

SCHEMA_VERSION = 2
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Evidence(FrozenModel):
    """One config's numbers. Latency is of one call, which makes `workload.batch` pictures.

    Of a workload of several sizes `latency_s` is of one call at each together, the samples are the main size's.
    """

    latency_s: Seconds
    latency_at_s: dict[str, float] = Field(default_factory=dict)  # of several sizes: the median at each
    graphs_added_at: dict[str, int] = Field(default_factory=dict)  # ... and what was compiled anew for it
    latency_samples_s: tuple[float, ...]
    first_call_s: float
    peak_memory_bytes: int
    energy_per_picture_j: float | None = None  # indicative, of a GPU that tells
    effects: dict[str, str]
    quality_metric: str
    quality_loss: float  # CLIP points, or 100 x (1 - SSIM) where only likeness could be judged
    clip_score: float | None = None
    clip_drop: float | None = None
    clip_drop_interval: float | None = None  # half the width of the 95 % interval
    clip_drop_smallest_detectable: float | None = None  # one-sided 5 %, power 80 %
    pairs: int | None = None  # prompts and seeds that both have drawn
    ssim_mean: float
    ssim_worst: float
    psnr_worst_db: float | None = None  # None: every picture is bit for bit the baseline's, or an older file
    lpips_mean: float | None = None  # None: its weights were not on the disk
    lpips_worst: float | None = None


class ConfirmedQuality(FrozenModel):
    """The pictures of the config beside the baseline's, over more prompts and seeds than the search could afford."""

    metric: str
    drop: Paired  # CLIP points, or 100 x (1 - SSIM) where only likeness could be judged
    prompts: int  # different ones; a pair is a prompt with a seed
    ssim_mean: float
    ssim_worst: float
    shortened_from: int | None = None  # so many pairs would have taken too long


class Confirmation(FrozenModel):
    """The config and the baseline measured again, in turn, each time in a fresh process: one median a round.

    Of a workload of several sizes, the sum of each size's median.
    """

    baseline_latency_s: tuple[Seconds, ...]
    tuned_latency_s: tuple[Seconds, ...]
    tuned_latency_at_s: dict[str, tuple[float, ...]] = Field(default_factory=dict)  # of several sizes: each alone
    quality: ConfirmedQuality | None = None

    @model_validator(mode="after")
    def _in_pairs(self) -> "Confirmation":
        if len(self.baseline_latency_s) != len(self.tuned_latency_s):
            raise ValueError("the baseline and the config were measured in different numbers of rounds")
        return self

    @property
    def verdict(self) -> Verdict | None:
        """Of the config on the baseline; None after a single round, which has no interval."""
        return judge(self.baseline_latency_s, self.tuned_latency_s) if len(self.tuned_latency_s) > 1 else None

    @property
    def is_faster(self) -> bool:
        return self.verdict is not None and self.verdict.word == "FASTER"


class TunedConfig(FrozenModel):
    """A config that was measured, as JSON on disk; `pipeline_on` builds what was measured.

    What a reader wants to know comes first. Knobs may be edited by hand: the evidence is then no longer of this config,
    which `is_measured` tells.
    """

    schema_version: int = SCHEMA_VERSION
    about: str
    speedup: Verdict | None = None  # of the config on the baseline, measured in turn; None: it was not confirmed
    created: str  # day and time, UTC
    command: str
    knobs: dict[str, Value]
    serving: Serving | None = None  # what it was measured at; None: an older file
    pipeline_class: str
    workload: Workload
    device: Device
    versions: dict[str, str]
    tuned: Evidence
    baseline_knobs: dict[str, Value]
    baseline: Evidence
    confirmation: Confirmation | None
    evidence_of: str | None = None  # digest of what was measured; None: an older file
    pictures: tuple[Thumbnail, ...] = ()  # of the first prompts, as the trial drew them
    artifacts: Artifacts | None = None  # compiled code beside this file
    pipeline: Pipeline
    inputs: dict[str, str] = Field(default_factory=dict)  # arguments of its call that take pictures -> of what

    @classmethod
    def load(cls, path: str | Path) -> "TunedConfig":
        """Read and check a JSON file that autotune has exported. Raises UserError saying what is wrong with it."""
        where = f"the config {str(path)!r}"
        data = untrusted.read_untrusted(path, "config")
        version = data.get("schema_version") if isinstance(data, dict) else None
        if not isinstance(version, int):
            raise UserError(f"{where} is not one of autotune's: it has no schema_version.")
        if version > SCHEMA_VERSION:
            raise UserError(f"{where} was written by a newer autotune (schema {version}): upgrade autotune.")
        tuned = cls.parse(data, where)
        try:
            tuned.check()
        except UserError as error:
            raise UserError(f"{where}: {error}") from None
        return tuned

    def check(self) -> None:
        """Raises UserError where a knob is unknown, or where this can't be loaded in good faith."""
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
        """What it was measured for, and where."""
        return Target(pipeline=self.pipeline, workload=self.workload, device=self.device, versions=self.versions)

    @property
    def digest(self) -> str:
        """Of everything that decides what its numbers are of: pipeline, workload and knobs."""
        said: dict[str, Any] = {"knobs": {name: check_value(name, v) for name, v in sorted(self.knobs.items())}}
        said["workload"] = self.workload.model_dump(mode="json", exclude_defaults=True)
        weights = {"source", "revision", "weights", "task", "controlnet", "lora", "scheduler", "part_revisions"}
        said["pipeline"] = self.pipeline.model_dump(mode="json", include=weights, exclude_defaults=True)
        return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:16]

    @property
    def is_measured(self) -> bool:
        """Are the numbers of this config, or was it edited since? (An older file can't tell.)"""
        return self.evidence_of in (None, self.digest)

    @property
    def edited(self) -> list[str]:
        """A sentence where the config was edited, for whoever shows its numbers."""
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
    ) -> Any:
        """An ordinary diffusers pipeline, built by the code that was measured. `device`: "cuda:0", "cpu" ...

        Its call's defaults are the workload's (size, steps, guidance): what the numbers hold for.
        `artifacts_in`: the folder of the compiled code that came with the file, where that is to be used.
        """
        place = production.find_place(self.target, self.config, device, local_files_only=local_files_only)
        differences = [*self.edited, *place.differences]
        production.tell(differences, strict=strict)
        if artifacts_in is not None:
            use(self.artifacts, artifacts_in, differences)
        pipe = production.load(self.target, place, strict=strict, local_files_only=local_files_only)
        serving.note_other_shapes(pipe, self.workload)
        if warmup:
            serving.warm_up(pipe, self.workload)
        return pipe

    def apply(self, pipe: Any, device: str | None = None, *, strict: bool = False) -> Any:
        """Do the same, in place, to a pipeline that is loaded already; returns it.

        Raises UserError where a knob must act while loading, as the number format must, and where it would lose a LoRA
        that is not fused.
        """
        place = production.find_place(self.target, self.config, device, files=False)
        production.tell([*self.edited, *place.differences], strict=strict)
        production.apply(pipe, self.target, place, strict=strict)
        serving.note_other_shapes(pipe, self.workload)
        return pipe
