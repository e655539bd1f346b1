"""The table of a study: a row a trial, and a header that says what it is of. See recording.py."""

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
from autotune.study.space import ENUMERABLE, Recipe, SearchSpace
from autotune.study_folder import StudyFolder
from autotune.target import Target
from autotune.trial import NO_RECIPE, Failure, Trial


def of_study(study: Path) -> Recording:
    """The table of a study, finished or not. Raises UserError where the folder is none, or nothing was measured.

    Trials that drew no pictures, took those of another over or ran what another had compiled are left out: every row
    has scores of its own, and has paid for its compilation.
    """
    folder = StudyFolder(study)
    record, trials = read_record(folder), read_trials(folder)
    baseline = trials[0].measured if trials else None
    if baseline is None or baseline.quality is None:
        raise UserError(f"{str(study)!r} has no measured baseline yet: there is nothing to make a table of.")
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
        recipes=tuple(Recipe(name=trial.origin, values=trial.values) for trial in own if trial.origin not in NO_RECIPE),
        metric=baseline.quality.metric,
        scorer=baseline.quality.scorer,
        allowed_configs=allowed,
        is_whole=left == 0,
    )
    rows = tuple(_row(trial, trials[0]) for trial in own)
    return Recording(header=header, rows=rows).check(f"the study {str(study)!r}")


def _without_place(target: Target) -> Target:
    """A table is made to be given away: of a local checkpoint it has the name as typed, not the folder it lies in."""
    pipeline = target.pipeline
    if not Path(pipeline.source).is_absolute():
        return target
    return target.model_copy(update={"pipeline": pipeline.model_copy(update={"source": pipeline.name})})


def _allowed(record: Record, trials: Sequence[Trial], own: Sequence[Trial]) -> tuple[int | None, int | None]:
    """(how many configs the rules allow, how many of them have no row); None where they are too many to count."""
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
    mine, quality, phases = trial.outcome, trial.outcome.quality, trial.outcome.phases
    assert quality is not None
    return Row(
        **common,
        outcome="measured",
        drift=trial.drift,
        latency_s=mine.latency_s / trial.drift,
        latency_samples_s=mine.latency_samples_s,
        also_latency_samples_s=tuple(cost.latency_samples_s for cost in mine.also),
        peak_memory_bytes=mine.peak_memory_bytes,
        load_peak_memory_bytes=mine.load_peak_memory_bytes,
        run_peak_memory_bytes=mine.run_peak_memory_bytes,
        quality_loss=objectives(trial, baseline)[-1],
        clip_scores=quality.clip_scores,
        ssim=quality.ssim,
        psnr_db=quality.psnr_db,
        lpips=quality.lpips,
        load_s=mine.load_s,
        apply_s=mine.apply_s,
        first_call_s=mine.first_call_s,
        also_first_call_s=tuple(cost.first_call_s for cost in mine.also),
        compile_s=mine.compilation.seconds if mine.compilation else None,
        warmup_s=mine.warmup_s,
        score_s=mine.score_s,
        text_encoding_s=phases.text_encoding_s if phases else None,
        denoising_step_s=phases.denoising_step_s if phases else None,
        vae_decode_s=phases.vae_decode_s if phases else None,
        energy_per_picture_j=mine.energy_per_picture_j,
    )
