"""TunedConfig: what leaves the house. Config, the numbers that justify it, and the fingerprint of where they hold.

The exported JSON is data: nothing in it is ever run, and a value that no knob knows is refused.
"""

import warnings
from pathlib import Path
from typing import Any

from pydantic import Field

from autotune import build
from autotune.config import Config, Value
from autotune.device import Device, find_device
from autotune.errors import UserError
from autotune.folders import read_json, write_json
from autotune.knobs import complete
from autotune.noun import Noun
from autotune.paired import Paired
from autotune.pipeline import Pipeline
from autotune.verdict import Verdict, judge
from autotune.workload import Workload

SCHEMA_VERSION = 1


class Evidence(Noun):
    """One config's numbers. Latency is of one call, which makes `workload.batch` pictures.

    Of a workload of several sizes `latency_s` is of one call at each together, the samples are the main size's.
    """

    latency_s: float
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


class ConfirmedQuality(Noun):
    """The pictures of the config beside the baseline's, over more prompts and seeds than the search could afford."""

    metric: str
    drop: Paired  # CLIP points, or 100 x (1 - SSIM) where only likeness could be judged
    prompts: int  # different ones; a pair is a prompt with a seed
    ssim_mean: float
    ssim_worst: float
    shortened_from: int | None = None  # so many pairs would have taken too long


class Confirmation(Noun):
    """The config and the baseline measured again, in turn, each time in a fresh process: one median a round.

    Of a workload of several sizes, the sum of each size's median.
    """

    baseline_latency_s: tuple[float, ...]
    tuned_latency_s: tuple[float, ...]
    tuned_latency_at_s: dict[str, tuple[float, ...]] = Field(default_factory=dict)  # of several sizes: each alone
    quality: ConfirmedQuality | None = None

    @property
    def verdict(self) -> Verdict | None:
        """Of the config on the baseline; None after a single round, which has no interval."""
        return judge(self.baseline_latency_s, self.tuned_latency_s) if len(self.tuned_latency_s) > 1 else None

    @property
    def is_faster(self) -> bool:
        return self.verdict is not None and self.verdict.word == "FASTER"


class TunedConfig(Noun):
    """A config that was measured, as JSON on disk; `pipeline_on` builds what was measured."""

    schema_version: int = SCHEMA_VERSION
    about: str
    created: str
    command: str
    pipeline_class: str
    pipeline: Pipeline
    workload: Workload
    knobs: dict[str, Value]
    tuned: Evidence
    baseline_knobs: dict[str, Value]
    baseline: Evidence
    confirmation: Confirmation | None
    device: Device
    versions: dict[str, str]
    inputs: dict[str, str] = Field(default_factory=dict)  # arguments of its call that take pictures -> of what

    @classmethod
    def load(cls, path: str | Path) -> "TunedConfig":
        """Read and check a JSON file that autotune has exported. Raises UserError saying what is wrong with it."""
        where = f"the config {str(path)!r}"
        data = read_json(Path(path), "config")
        version = data.get("schema_version") if isinstance(data, dict) else None
        if not isinstance(version, int):
            raise UserError(f"{where} is not one of autotune's: it has no schema_version.")
        if version > SCHEMA_VERSION:
            raise UserError(f"{where} was written by a newer autotune (schema {version}): upgrade autotune.")
        tuned = cls.parse(data, where)
        try:
            complete(tuned.knobs)
        except UserError as error:
            raise UserError(f"{where}: {error}") from None
        return tuned

    def save(self, path: str | Path) -> None:
        """Write the JSON, whole or not at all. Raises UserError where it can't be written."""
        try:
            write_json(Path(path), self.to_json())
        except OSError as error:
            raise UserError(f"{str(path)!r} can't be written: {error.strerror}.") from None

    @property
    def config(self) -> Config:
        return complete(self.knobs)

    def pipeline_on(self, device: str | None = None) -> Any:
        """An ordinary diffusers pipeline, built by the code that was measured. `device`: "cuda:0", "cpu" ...

        Its call's defaults are the workload's (size, steps, guidance): what the numbers hold for.
        """
        where = self._choose(device)
        pipe = build.load(self.pipeline, self.config, where)
        build.apply(pipe, self.config, self.workload, where)
        return pipe

    def apply(self, pipe: Any, device: str | None = None) -> Any:
        """Do the same, in place, to a pipeline that is loaded already; returns it.

        Raises UserError where a knob must act while loading, as the number format must.
        """
        build.apply(pipe, self.config, self.workload, self._choose(device))
        return pipe

    def _choose(self, device: str | None) -> str:
        """torch's name of the device; warns where it is not the one that was measured."""
        here = find_device(device or self.device.kind)
        if (here.kind, here.name) != (self.device.kind, self.device.name):
            warnings.warn(
                f"this config was measured on {self.device.name}, this is {here.name}: its numbers don't hold here.",
                stacklevel=3,
            )
        return here.torch_name


def load(path: str | Path, *, device: str | None = None) -> Any:
    """The diffusers pipeline of an exported config: `pipe = autotune.load("best.json"); pipe("a prompt").images[0]`.

    Raises UserError with a sentence where the file or the device can't be used.
    """
    return TunedConfig.load(path).pipeline_on(device)
