"""Speed figures that others have published, with the GPU and the setting that they were measured in.

results.csv has one figure a line: `value` is a number in the unit of `metric`, or why there is none ("OOM"). They are
facts to lay beside one's own numbers, of other GPUs and other versions; nothing here is an expectation.
"""

import csv
import re
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Literal

from autotune.frozen_model import FrozenModel

RESULTS = Path(__file__).parent / "results.csv"


class Setting(FrozenModel):
    """Where a figure was measured: figures of one table and one setting can be compared with each other."""

    gpu: str
    pipeline: str
    resolution: int | None  # pixels of a square picture's side
    batch: int
    steps: int | None

    def __str__(self) -> str:
        size = f", {self.resolution}x{self.resolution}" if self.resolution else ""
        steps = f", {self.steps} steps" if self.steps else ""
        return f"{self.pipeline} on {self.gpu}{size}, batch {self.batch}{steps}"


class Figure(FrozenModel):
    """One line of results.csv, its columns as they stand there."""

    table: str
    gpu: str
    pipeline: str
    resolution: int | None
    batch: int
    steps: int | None
    config: str
    metric: Literal["latency_s", "iterations_per_s", "seconds_per_iteration"]
    value: str

    @property
    def number(self) -> float | None:
        """None where no speed was published, but a failure."""
        return float(self.value) if re.fullmatch(r"\d+(\.\d+)?", self.value) else None

    @property
    def setting(self) -> Setting:
        return Setting(**{name: getattr(self, name) for name in Setting.model_fields})

    def speedup_over(self, first: "Figure") -> float | None:
        """How many times the speed of `first`; None where either failed, or is given in another unit."""
        mine, theirs = self.number, first.number
        if mine is None or theirs is None or self.metric != first.metric:
            return None
        return mine / theirs if self.metric == "iterations_per_s" else theirs / mine

    def __str__(self) -> str:
        unit = {"latency_s": " s", "iterations_per_s": " it/s", "seconds_per_iteration": " s/it"}[self.metric]
        return self.value + (unit if self.number is not None else "")


@cache
def figures() -> tuple[Figure, ...]:
    """Every line of results.csv. Raises UserError where one can't be read."""
    with RESULTS.open(encoding="utf-8", newline="") as file:
        lines = list(csv.DictReader(file))
    return tuple(
        Figure.parse({name: text or None for name, text in line.items()}, f"line {number} of {RESULTS}")
        for number, line in enumerate(lines, start=2)
    )


def tables() -> dict[str, tuple[str, ...]]:
    """The configs of each table, by the table's name."""
    found: dict[str, dict[str, None]] = {}
    for figure in figures():
        found.setdefault(figure.table, {})[figure.config] = None
    return {table: tuple(configs) for table, configs in found.items()}


def find_figures(
    table: str, configs: Iterable[str], *, pipeline: str, width: int, height: int, batch: int, device: str
) -> Mapping[str, Figure]:
    """The figures of these configs, by config, all of one setting: that of the same pipeline, size and batch where the
    table has it, otherwise the nearest one (in this order, then the same GPU, then the table's first)."""
    wanted = set(configs)
    candidates = [figure for figure in figures() if figure.table == table and figure.config in wanted]

    def likeness(setting: Setting) -> tuple[bool, bool, bool, bool]:
        same_size = (setting.resolution, setting.resolution) == (width, height)
        is_same = is_of_pipeline(setting.pipeline, pipeline)
        return is_same, same_size, setting.batch == batch, is_of_gpu(setting.gpu, device)

    settings = list(dict.fromkeys(figure.setting for figure in candidates))
    if not settings:
        return {}
    nearest = max(settings, key=likeness)  # of several, the first
    return {figure.config: figure for figure in candidates if figure.setting == nearest}


def is_of_pipeline(published: str, pipeline: str) -> bool:
    """Is that the pipeline that we call so? A table that says no more than "sd" means Stable Diffusion 1."""
    return published in (pipeline, f"{pipeline}-txt2img") or (published == "sd-txt2img" and pipeline == "sd15")


def is_of_gpu(published: str, device: str) -> bool:
    """Does the model's number, such as A100 or 4090, stand in the name that NVML gives to this device?"""
    model = re.search(r"\S*\d\S*", published)
    return model is not None and model[0].lower() in re.split(r"[^a-z0-9]+", device.lower())
