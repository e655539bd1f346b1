"""recording_of(): a Recording made from a study folder, with a row for each trial."""

from collections.abc import Sequence
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

from autotune.errors import UserError
from autotune.knobs import complete
from autotune.recordings.recording import Header, Recording, Row
from autotune.study.pareto_front import objectives
from autotune.study.record import Record, read_record, read_trials
from autotune.study.space import ENUMERABLE, SearchSpace
from autotune.study.space_file import Recipe
from autotune.study_folder import StudyFolder
from autotune.target import Target
from autotune.trial import NO_RECIPE, Failure, Trial


def recording_of(study: Path) -> Recording:
    """The recording of a study, finished or not.

    Trials that drew no pictures, reused those of another trial or ran its compiled code are left out: every row has its
    own scores and its own compile time. Raises UserError if the folder is not a study or has no measured baseline.
    """
    folder = StudyFolder(study)
    record, trials = read_record(folder), read_trials(folder)
    baseline = trials[0].measured if trials else None
    if baseline is None or baseline.quality is None:
        raise UserError(f"{str(study)!r} has no measured baseline yet: no table can be made of it.")
    own = [t for t in trials if not t.measured or (t.judged and t.pictures_of == t.number and not t.judged.compiled_as)]
    allowed, left = _allowed(record, trials, own)
    header = Header(
        autotune_version=version("diffusers-autotune"),
        made=date.today().isoformat(),
        command=record.command,
        target=_without_place(record.target),
        goal=record.goal,
        baseline=record.baseline,
        space=record.space,
        ranges=record.ranges or {},
        recipes=tuple(Recipe(name=trial.origin, values=trial.values) for trial in own if trial.origin not in NO_RECIPE),
        metric=baseline.quality.metric,
        scorer=baseline.quality.scorer,
        allowed_configs=allowed,
        is_whole=left == 0,
    )
    rows = tuple(_row(trial, trials[0]) for trial in own)
    return Recording(header=header, rows=rows).check(f"the study {str(study)!r}")


def _without_place(target: Target) -> Target:
    """The target without the folder of a local checkpoint. A table is published, so it has only the name as typed."""
    pipeline = target.pipeline
    if not Path(pipeline.source).is_absolute():
        return target
    return target.model_copy(update={"pipeline": pipeline.model_copy(update={"source": pipeline.name})})


def _allowed(record: Record, trials: Sequence[Trial], own: Sequence[Trial]) -> tuple[int | None, int | None]:
    """(the number of allowed configs, how many of them have no row); None if there are too many to count."""
    if record.ranges:
        return None, None  # there is always another number
    space = SearchSpace(record.target, record.space)
    for trial in trials:
        space.learn(trial, trials)
    if space.combinations() > ENUMERABLE:
        return None, None
    tried = {complete(trial.values) for trial in own}
    allowed = list(space.all_configs())
    return len(allowed), sum(config not in tried for config in allowed)


def _row(trial: Trial, baseline: Trial) -> Row:
    common: dict[str, Any] = {
        "trial": trial.number,
        "origin": trial.origin,
        "values": trial.values,
        "seconds": trial.seconds,
    }
    if isinstance(trial.outcome, Failure):
        failure = trial.outcome
        return Row(**common, outcome=failure.cause, reason=failure.reason, knob=failure.knob, drift=trial.drift)
    measured, quality, phases = trial.outcome, trial.outcome.quality, trial.outcome.phases
    assert quality is not None
    return Row(
        **common,
        outcome="measured",
        drift=trial.drift,
        latency_s=measured.latency_s / trial.drift,
        latency_samples_s=measured.latency_samples_s,
        also_latency_samples_s=tuple(cost.latency_samples_s for cost in measured.also),
        peak_memory_bytes=measured.peak_memory_bytes,
        load_peak_memory_bytes=measured.load_peak_memory_bytes,
        run_peak_memory_bytes=measured.run_peak_memory_bytes,
        quality_loss=objectives(trial, baseline)[-1],
        clip_scores=quality.clip_scores,
        ssim=quality.ssim,
        psnr_db=quality.psnr_db,
        lpips=quality.lpips,
        load_s=measured.load_s,
        apply_s=measured.apply_s,
        first_call_s=measured.first_call_s,
        also_first_call_s=tuple(cost.first_call_s for cost in measured.also),
        compile_s=measured.compilation.seconds if measured.compilation else None,
        warmup_s=measured.warmup_s,
        score_s=measured.score_s,
        text_encoding_s=phases.text_encoding_s if phases else None,
        denoising_step_s=phases.denoising_step_s if phases else None,
        vae_decode_s=phases.vae_decode_s if phases else None,
        energy_per_picture_j=measured.energy_per_picture_j,
    )
