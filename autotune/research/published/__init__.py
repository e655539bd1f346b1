"""Published: speed figures from tutorials and papers, with the GPU and the setting of each.

results.csv has one figure per line: `value` is a number in the unit of `metric`, or the reason for its absence ("OOM").
The figures were measured on other GPUs with other versions. They are shown for comparison; nothing expects them.
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
    """How a figure was measured. Figures of the same table and setting can be compared with each other."""

    gpu: str
    pipeline: str
    resolution: int | None  # the side of a square picture in pixels
    batch: int
    steps: int | None

    def __str__(self) -> str:
        size = f", {self.resolution}x{self.resolution}" if self.resolution else ""
        steps = f", {self.steps} steps" if self.steps else ""
        return f"{self.pipeline} on {self.gpu}{size}, batch {self.batch}{steps}"


class Figure(FrozenModel):
    """One line of results.csv; the fields are its columns."""

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
        """The value in the unit of `metric`; None where a failure was published."""
        return float(self.value) if re.fullmatch(r"\d+(\.\d+)?", self.value) else None

    @property
    def setting(self) -> Setting:
        return Setting(**{name: getattr(self, name) for name in Setting.model_fields})

    def speedup_over(self, first: "Figure") -> float | None:
        """This figure's speed divided by that of `first`; None where one of them failed, or where the units differ."""
        own, other = self.number, first.number
        if own is None or other is None or self.metric != first.metric:
            return None
        return own / other if self.metric == "iterations_per_s" else other / own

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
    """Table -> its configs."""
    configs_of: dict[str, dict[str, None]] = {}
    for figure in figures():
        configs_of.setdefault(figure.table, {})[figure.config] = None
    return {table: tuple(configs) for table, configs in configs_of.items()}


def find_figures(
    table: str, configs: Iterable[str], *, pipeline: str, width: int, height: int, batch: int, device: str
) -> Mapping[str, Figure]:
    """Config -> figure, for those of these configs that the table has. All figures are of one setting.

    That is the setting most like the given one. The same pipeline counts most, then the same size, then the same batch,
    then the same GPU; of several settings alike, the table's first is used.

    device  the name of the device, as NVML gives it
    """
    wanted = set(configs)
    candidates = [figure for figure in figures() if figure.table == table and figure.config in wanted]

    def likeness(setting: Setting) -> tuple[bool, bool, bool, bool]:
        same_size = (setting.resolution, setting.resolution) == (width, height)
        is_same = is_of_pipeline(setting.pipeline, pipeline)
        return is_same, same_size, setting.batch == batch, is_of_gpu(setting.gpu, device)

    settings = list(dict.fromkeys(figure.setting for figure in candidates))
    if not settings:
        return {}
    nearest = max(settings, key=likeness)  # of several, max() returns the first
    return {figure.config: figure for figure in candidates if figure.setting == nearest}


def is_of_pipeline(published: str, pipeline: str) -> bool:
    """Does a published name mean this pipeline? A table that says only "sd" means Stable Diffusion 1."""
    return published in (pipeline, f"{pipeline}-txt2img") or (published == "sd-txt2img" and pipeline == "sd15")


def is_of_gpu(published: str, device: str) -> bool:
    """Is the number of the GPU's model, such as A100 or 4090, a word in the name that NVML gives to this device?"""
    model = re.search(r"\S*\d\S*", published)
    return model is not None and model[0].lower() in re.split(r"[^a-z0-9]+", device.lower())
