"""Ablation: what each knob of a pick brought, and the config that is left without those that brought nothing."""

from typing import Literal

from autotune.config import Config, Value
from autotune.frozen_model import FrozenModel, read_json
from autotune.statistics.dominance import SAME_MEMORY
from autotune.statistics.paired import Paired
from autotune.statistics.verdict import Verdict, judge
from autotune.study_folder import StudyFolder


class LeftOut(FrozenModel):
    """The pick without one knob (and without what refines it), measured in turn with the pick: a figure a round."""

    knobs: dict[str, Value]  # those put back -> the pick's values
    put_back: dict[str, Value]  # ... -> the baseline's
    failure: str | None = None  # why there is no such config, or none that runs; the figures are then empty
    without_latency_s: tuple[float, ...] = ()
    pick_latency_s: tuple[float, ...] = ()
    without_peak_memory_bytes: tuple[int, ...] = ()
    pick_peak_memory_bytes: tuple[int, ...] = ()
    gained: Paired | None = None  # what the pictures lose without it, against the pick's: the units of Quality.drops

    @property
    def name(self) -> str:
        return " ".join(f"{name}={value}" for name, value in self.knobs.items())

    @property
    def verdict(self) -> Verdict | None:
        """Of the pick on what is left without the knob: how much faster the knob makes it."""
        return judge(self.without_latency_s, self.pick_latency_s) if self.failure is None else None

    @property
    def memory_saved_bytes(self) -> int | None:
        """How much lower the knob makes the peak; below 0 where it costs memory."""
        if self.failure is not None:
            return None
        return max(self.without_peak_memory_bytes) - max(self.pick_peak_memory_bytes)

    @property
    def saves_memory(self) -> bool:
        """Is the pick's highest peak below the lowest one without the knob?"""
        if self.failure is not None:
            return False
        return max(self.pick_peak_memory_bytes) < (1 - SAME_MEMORY) * min(self.without_peak_memory_bytes)

    @property
    def brings_nothing(self) -> bool:
        """Neither speed nor memory nor better pictures, beyond the noise. What can't be left out brings something."""
        if self.verdict is None:
            return False
        better_pictures = self.gained is not None and self.gained.is_detectable
        return self.verdict.word != "FASTER" and not self.saves_memory and not better_pictures


class Minimal(FrozenModel):
    """The pick without the knobs that bring nothing, measured in turn with it before it may take its place."""

    values: dict[str, Value]
    pick_latency_s: tuple[float, ...] = ()
    minimal_latency_s: tuple[float, ...] = ()
    decision: Literal["taken", "kept the pick"]
    why: str

    @property
    def verdict(self) -> Verdict | None:
        """Of the minimal config on the pick."""
        return judge(self.pick_latency_s, self.minimal_latency_s) if self.minimal_latency_s else None


class Ablation(FrozenModel):
    """What `ablation.json` holds. `minimal` is None until all knobs are through, and where none brings nothing."""

    schema_version: int = 1
    trial: int
    values: dict[str, Value]
    rounds: int
    created: str
    left_out: tuple[LeftOut, ...] = ()
    minimal: Minimal | None = None

    @property
    def config(self) -> Config:
        return Config(self.values)

    @property
    def idle(self) -> tuple[LeftOut, ...]:
        """What brings nothing beyond the noise."""
        return tuple(one for one in self.left_out if one.brings_nothing)


def read_ablation(folder: StudyFolder) -> Ablation | None:
    """The study's ablation, None where none was made. Raises UserError where it can't be read."""
    if not folder.ablation.exists():
        return None
    return Ablation.parse(read_json(folder.ablation, "ablation"), f"the ablation {str(folder.ablation)!r}")
