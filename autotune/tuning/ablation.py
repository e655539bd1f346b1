"""Ablation: what each knob of a pick brings, and the minimal config without those that bring nothing."""

from typing import Literal

from autotune.config import Config, Value
from autotune.frozen_model import FrozenModel, read_json
from autotune.statistics.paired import Paired
from autotune.statistics.peak_memory import is_larger
from autotune.statistics.verdict import Verdict, judge
from autotune.study_folder import StudyFolder


class LeftOut(FrozenModel):
    """The pick without one knob and its modifiers, measured interleaved with the pick: one figure a round."""

    knobs: dict[str, Value]  # the knobs that were put back -> the pick's values
    put_back: dict[str, Value]  # the same knobs -> the baseline's values
    failure: str | None = None  # why this config does not exist or does not run; the figures are then empty
    without_latency_s: tuple[float, ...] = ()
    pick_latency_s: tuple[float, ...] = ()
    without_peak_memory_bytes: tuple[int, ...] = ()
    pick_peak_memory_bytes: tuple[int, ...] = ()
    gained: Paired | None = None  # quality lost without the knob, compared with the pick, in the units of Quality.drops

    @property
    def name(self) -> str:
        return " ".join(f"{name}={value}" for name, value in self.knobs.items())

    @property
    def verdict(self) -> Verdict | None:
        """How much faster the pick is than the config without the knob; None where that failed."""
        return judge(self.without_latency_s, self.pick_latency_s) if self.failure is None else None

    @property
    def memory_saved_bytes(self) -> int | None:
        """How much the knob lowers peak memory; negative where it costs memory; None where the config failed."""
        if self.failure is not None:
            return None
        return max(self.without_peak_memory_bytes) - max(self.pick_peak_memory_bytes)

    @property
    def saves_memory(self) -> bool:
        """Is the pick's highest peak below the lowest one without the knob?"""
        if self.failure is not None:
            return False
        return is_larger(min(self.without_peak_memory_bytes), max(self.pick_peak_memory_bytes))

    @property
    def brings_nothing(self) -> bool:
        """Does it bring neither speed nor memory nor quality beyond the noise? False where it can't be left out."""
        if self.verdict is None:
            return False
        better_pictures = self.gained is not None and self.gained.is_detectable
        return self.verdict.word != "FASTER" and not self.saves_memory and not better_pictures


class Minimal(FrozenModel):
    """The pick without the knobs that bring nothing, and whether it replaces the pick."""

    values: dict[str, Value]
    pick_latency_s: tuple[float, ...] = ()
    minimal_latency_s: tuple[float, ...] = ()
    decision: Literal["taken", "kept the pick"]
    why: str

    @property
    def verdict(self) -> Verdict | None:
        """The speed of the minimal config relative to the pick; None where it was not measured."""
        return judge(self.pick_latency_s, self.minimal_latency_s) if self.minimal_latency_s else None


class Ablation(FrozenModel):
    """The content of ablation.json. `minimal` is None while knobs are left to measure, and if each brings something."""

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
        """The knobs that bring nothing beyond the noise."""
        return tuple(knob for knob in self.left_out if knob.brings_nothing)


def read_ablation(folder: StudyFolder) -> Ablation | None:
    """The ablation of a study; None where there is none. Raises UserError where the file can't be read."""
    if not folder.ablation.exists():
        return None
    return Ablation.parse(read_json(folder.ablation, "ablation"), f"the ablation {str(folder.ablation)!r}")
