"""measured(), failed(), stopped(), shared() and record(): made-up trials and records, without processes."""

from collections.abc import Mapping

from conftest import OTHER_SHAPES, make_target

from autotune.config import Value
from autotune.goal import Goal
from autotune.knob import Effect
from autotune.knobs import complete
from autotune.measurement import Measurement, Quality, ShapeCost
from autotune.reuse import SpotCheck
from autotune.study.record import Record
from autotune.target import Target
from autotune.trial import Cause, Failure, Trial

BASELINE_SCORES = (30.0, 31.0)


def quality(loss: float = 0.0) -> Quality:
    """A CLIP quality that is `loss` points below the baseline's."""
    scores = tuple(score - loss for score in BASELINE_SCORES)
    return Quality(metric="clip", scorer="demo@0", clip_scores=scores, ssim=(0.9, 0.8), psnr_db=(30.0, None))


def likeness(ssim: float) -> Quality:
    return Quality(metric="likeness", scorer=None, ssim=(ssim, ssim), psnr_db=(30.0, 30.0))


def measured(
    number: int,
    values: Mapping[str, Value] | None = None,
    *,
    latency_s: float = 1.0,
    also: tuple[float, ...] = (),
    memory_bytes: int = 100 * 2**20,
    loss: float = 0.0,
    judged: Quality | None = None,
    origin: str = "sampler",
) -> Trial:
    """A measured trial, whose five timed calls all took the same time.

    also    latencies in seconds at OTHER_SHAPES
    loss    in CLIP points
    judged  the quality, in place of one with this loss
    """
    others = tuple(
        ShapeCost(
            shape=shape,
            first_call_s=2 * seconds,
            warmup_s=(seconds,) * 2,
            latency_samples_s=(seconds,) * 5,
            graphs_added=0,
        )
        for shape, seconds in zip(OTHER_SHAPES, also, strict=False)
    )
    outcome = Measurement(
        load_s=0.1,
        apply_s=0.1,
        first_call_s=2 * latency_s,
        warmup_s=(latency_s, latency_s),
        latency_samples_s=(latency_s,) * 5,
        load_peak_memory_bytes=memory_bytes // 2,
        run_peak_memory_bytes=memory_bytes,
        peak_memory_bytes=memory_bytes,
        effects={"dtype": Effect(count=1, what="weights of the denoiser in float32")},
        attention_kernels={"flash": 28},
        quality=judged or quality(loss),
        also=others,
    )
    return Trial(number=number, origin=origin, values=dict(complete(values or {})), outcome=outcome, seconds=3.0)


def failed(
    number: int, values: Mapping[str, Value] | None = None, cause: Cause = "error", *, knob: str | None = None
) -> Trial:
    outcome = Failure(cause=cause, reason="made up", knob=knob)
    return Trial(number=number, origin="sampler", values=dict(complete(values or {})), outcome=outcome, seconds=3.0)


def changed(trial: Trial, **fields: object) -> Trial:
    """The trial with these fields of its measurement replaced."""
    assert trial.measured is not None
    return trial.model_copy(update={"outcome": trial.measured.model_copy(update=fields)})


def stopped(number: int, values: Mapping[str, Value] | None = None, **figures: float) -> Trial:
    """A trial that was timed and then stopped early, without pictures."""
    trial = measured(number, values, **figures)  # type: ignore[arg-type]
    return changed(trial, quality=None, stopped="can't reach the front", stopped_by="race")


def shared(
    number: int,
    source: int,
    values: Mapping[str, Value] | None = None,
    *,
    ssim: float = 0.999,
    latency_s: float = 1.0,
) -> Trial:
    """A trial that took over the quality of trial `source` after a spot check."""
    spot_check = SpotCheck(trial=source, prompt=0, ssim=ssim, psnr_db=60.0, largest_levels=1)
    return changed(measured(number, values, latency_s=latency_s), spot_check=spot_check, quality_of=source)


def record(
    target: Target | None = None,
    *,
    goal: Goal | None = None,
    baseline: Mapping[str, Value] | None = None,
    space: Mapping[str, tuple[Value, ...]] | None = None,
) -> Record:
    """The record of a study of the demo."""
    return Record(
        target=target or make_target(),
        goal=goal or Goal(max_quality_drop=0.3),
        baseline=dict(complete(baseline or {})),
        space=dict(space or {}),
        command="autotune search --pipeline demo",
    )
