"""Recording: a search space measured config by config, as a table with a header.

It is for research and replay. from_study.py makes it from a study folder; parquet.py reads and writes it. A row keeps
the latency samples as they were timed, and the drift by which to divide them (statistics/drift.py). Other figures are
derived from these.
"""

import math
from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field

from autotune.config import Config, Range, Value
from autotune.errors import UserError
from autotune.frozen_model import FrozenModel
from autotune.goal import Goal
from autotune.measurement import Measurement, Quality, ShapeCost
from autotune.study.pareto_front import objectives
from autotune.study.record import Record
from autotune.study.space_file import Recipe
from autotune.target import Target
from autotune.trial import Cause, Failure, Trial

SCHEMA_VERSION = 1

Number = Annotated[float, Field(allow_inf_nan=False)]
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Timed = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Bytes = Annotated[int, Field(ge=0, lt=2**60)]


class Header(FrozenModel):
    """What was measured, and how.

    made             the day, YYYY-MM-DD
    target           pipeline, workload, device, versions
    space            knob -> the values that were available
    recipes          those that were run, in their order
    metric           what the quality loss is measured by
    allowed_configs  by the rules, without values that had no effect; None: too many to count
    is_whole         are all allowed configs in the table?
    ranges           knob -> the ranges between whose listed values numbers were tried, too
    """

    schema_version: int = SCHEMA_VERSION
    autotune_version: str
    made: str
    command: str
    target: Target
    goal: Goal
    baseline: dict[str, Value]
    space: dict[str, tuple[Value, ...]]
    recipes: tuple[Recipe, ...]
    metric: Literal["clip", "likeness"]
    scorer: str | None
    allowed_configs: int | None
    is_whole: bool
    ranges: dict[str, tuple[Range, ...]] = Field(default_factory=dict)


class Row(FrozenModel):
    """One trial. `values` holds the knobs that are active. What a failed trial has not measured is None or empty."""

    trial: Annotated[int, Field(ge=0, lt=2**31)]
    origin: str
    values: dict[str, Value]
    outcome: Literal["measured"] | Cause
    reason: str | None = None
    knob: str | None = None  # that caused the failure
    drift: Timed = 1.0  # how many times slower the device was than at trial 0
    latency_s: Timed | None = None  # the sum of the medians at all sizes, divided by the drift
    latency_samples_s: tuple[Timed, ...] = ()  # as timed, at the main size
    also_latency_samples_s: tuple[tuple[Timed, ...], ...] = ()  # at the workload's other sizes
    peak_memory_bytes: Bytes | None = None
    load_peak_memory_bytes: Bytes | None = None
    run_peak_memory_bytes: Bytes | None = None
    quality_loss: Number | None = None  # the mean paired drop, see Quality.loss
    clip_scores: tuple[Number | None, ...] = ()  # one per prompt, as all scores; None: too long for the CLIP model
    ssim: tuple[Number, ...] = ()
    psnr_db: tuple[Number | None, ...] = ()  # None: the picture is the baseline's, bit for bit
    lpips: tuple[Number, ...] = ()
    seconds: Seconds  # of the whole trial
    load_s: Seconds | None = None
    apply_s: Seconds | None = None
    first_call_s: Seconds | None = None
    also_first_call_s: tuple[Seconds, ...] = ()
    compile_s: Seconds | None = None  # within the first calls
    warmup_s: tuple[Seconds, ...] = ()
    score_s: Seconds | None = None
    text_encoding_s: Seconds | None = None
    denoising_step_s: Seconds | None = None
    vae_decode_s: Seconds | None = None
    energy_per_picture_j: Seconds | None = None


class Recording(FrozenModel):
    """`rows[0]` is the baseline."""

    header: Header
    rows: tuple[Row, ...]

    def check(self, where: str) -> "Recording":
        """The recording itself. Raises UserError if its rows contradict each other or the header."""
        try:
            self._check()
        except ValueError as error:
            raise UserError(f"{where} can't be used: {error}.") from None
        return self

    def _check(self) -> None:
        if not self.rows or self.rows[0].outcome != "measured":
            raise ValueError("the first row is not a measured baseline")
        if Config(self.rows[0].values) != Config(self.header.baseline):
            raise ValueError("the first row is not the header's baseline")
        if len({Config(row.values) for row in self.rows}) < len(self.rows):
            raise ValueError("a config has two rows")
        prompts = len(self.header.target.workload.prompts)
        for row in self.rows:
            if row.outcome == "measured":
                _check_measured(row, prompts, len(self.header.target.workload.also), self.header.metric)
        baseline, *others = self.trials()
        for row, trial in zip(self.rows, [baseline, *others], strict=True):
            if trial.measured:
                _check_derived(row, objectives(trial, baseline))

    def record(self) -> Record:
        """The record of a study of this space."""
        head = self.header
        return Record(
            target=head.target,
            goal=head.goal,
            baseline=head.baseline,
            space=head.space,
            ranges=head.ranges,
            command=head.command,
        )

    def trials(self) -> list[Trial]:
        """The rows as trials of a device without drift."""
        return [
            Trial(
                number=row.trial, origin=row.origin, values=row.values, outcome=self.outcome(row), seconds=row.seconds
            )
            for row in self.rows
        ]

    def outcome(self, row: Row) -> Measurement | Failure:
        """The outcome of a row, without drift."""
        if row.outcome != "measured":
            return Failure(cause=row.outcome, reason=row.reason or "", knob=row.knob)
        quality = Quality(
            metric=self.header.metric,
            scorer=self.header.scorer,
            clip_scores=row.clip_scores,
            ssim=row.ssim,
            psnr_db=row.psnr_db,
            lpips=row.lpips,
        )
        assert row.peak_memory_bytes is not None
        return Measurement(
            load_s=row.load_s or 0.0,
            apply_s=row.apply_s or 0.0,
            first_call_s=row.first_call_s or 0.0,
            warmup_s=row.warmup_s,
            latency_samples_s=_undrifted(row, row.latency_samples_s),
            load_peak_memory_bytes=row.load_peak_memory_bytes or 0,
            run_peak_memory_bytes=row.run_peak_memory_bytes or 0,
            peak_memory_bytes=row.peak_memory_bytes,
            effects={},
            attention_kernels={},
            quality=quality,
            also=self._also(row),
        )

    def _also(self, row: Row) -> tuple[ShapeCost, ...]:
        shapes = self.header.target.workload.also
        firsts = row.also_first_call_s or (0.0,) * len(shapes)
        return tuple(
            ShapeCost(
                shape=shape,
                first_call_s=first,
                warmup_s=(),
                latency_samples_s=_undrifted(row, samples),
                graphs_added=0,
            )
            for shape, first, samples in zip(shapes, firsts, row.also_latency_samples_s, strict=True)
        )


def _check_measured(row: Row, prompts: int, others: int, metric: str) -> None:
    if len(row.latency_samples_s) < 2 or row.peak_memory_bytes is None:
        raise ValueError(f"trial {row.trial} has no latency samples or no memory")
    if len(row.also_latency_samples_s) != others or not all(row.also_latency_samples_s):
        raise ValueError(f"trial {row.trial} was not timed at every size of the workload")
    if len(row.also_first_call_s) not in (0, others):
        raise ValueError(f"trial {row.trial} has not a first call for each size of the workload")
    scores = row.clip_scores if metric == "clip" else row.ssim
    if len(scores) != prompts:
        raise ValueError(f"trial {row.trial} has {len(scores)} scores for {prompts} prompts")


def _check_derived(row: Row, derived: Sequence[float]) -> None:
    """Raises ValueError if the figures that are stored for convenience differ from what the raw ones give."""
    latency_s, _, loss = derived
    if row.latency_s is None or not math.isclose(row.latency_s, latency_s, rel_tol=1e-6):
        raise ValueError(f"trial {row.trial}: latency_s is not the median of its samples divided by the drift")
    if row.quality_loss is None or not math.isclose(row.quality_loss, loss, rel_tol=1e-6, abs_tol=1e-9):
        raise ValueError(f"trial {row.trial}: quality_loss does not follow from its scores")


def _undrifted(row: Row, samples_s: Sequence[float]) -> tuple[float, ...]:
    return tuple(sample / row.drift for sample in samples_s)
