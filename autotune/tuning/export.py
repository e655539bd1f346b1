"""Export: turns a trial of a study into the TunedConfig that production loads, with a sentence about it."""

from datetime import UTC, datetime
from pathlib import Path

from autotune.errors import UserError
from autotune.frozen_model import read_json
from autotune.goal import PICKS
from autotune.measurement import Measurement, Quality
from autotune.production.serving import Serving
from autotune.production.thumbnail import Thumbnail, thumbnail_of, with_thumbnails
from autotune.production.tuned_config import Confirmation, ConfirmedQuality, Evidence, TunedConfig
from autotune.statistics.paired import paired_drop
from autotune.statistics.peak_memory import memory_words
from autotune.study.pareto_front import pick_trial
from autotune.study.record import Record, read_record, read_trials, usable_picture
from autotune.study_folder import StudyFolder, picture_name
from autotune.trial import Failure, Trial
from autotune.workload import Workload, open_picture


def export_from(study: Path, word: str) -> TunedConfig:
    """Export the trial of the study in this folder that `word` names, see chosen_trial(). Raises UserError."""
    folder = StudyFolder(study)
    record, trials = read_record(folder), read_trials(folder)
    trial = chosen_trial(folder, record, trials, word)
    kept = folder.confirmation(trial.number)
    confirmation = Confirmation.parse(read_json(kept, "confirmation"), f"{str(kept)!r}") if kept.exists() else None
    pictures = read_thumbnails(folder.trial(trial.pictures_of), record.target.workload)
    return export(record, trial, trials[0], confirmation, pictures)


def chosen_trial(folder: StudyFolder, record: Record, trials: list[Trial], word: str) -> Trial:
    """The measured trial that `word` names: "fastest", "smallest", "balanced" or a number. Raises UserError."""
    study = str(folder.path)
    if not trials:
        raise UserError(f"the study {study!r} has no finished trial yet.")
    if word.isdecimal():
        trial = next((t for t in trials if t.number == int(word)), None)
        if trial is None:
            raise UserError(f"the study {study!r} has trials 0 to {trials[-1].number}, no {word}.")
        if isinstance(trial.outcome, Failure):
            raise UserError(f"trial {word} failed ({trial.outcome.cause}: {trial.outcome.reason}); pick another.")
        if trial.judged is None:
            raise UserError(f"trial {word} was stopped, no pictures drawn ({trial.outcome.stopped}); pick another.")
    elif word in PICKS:
        trial = pick_trial(trials, trials[0], record.goal, word)
        if trial is None:
            raise UserError(f"no trial of {study!r} keeps the limits that its search was given.")
    else:
        raise UserError(f"--pick takes {', '.join(PICKS)} or the number of a trial, not {word!r}.")
    return trial


def read_thumbnails(place: Path, workload: Workload) -> tuple[Thumbnail, ...]:
    """Thumbnails of the first pictures in the folder of a run, of those that are still there."""
    first, thumbnails = with_thumbnails(workload), []
    for index, prompt in enumerate(first.prompts):
        path = place / "images" / picture_name(index)
        if path.exists() and usable_picture(path):
            image = open_picture(path, f"picture {str(path)!r}")
            thumbnails.append(thumbnail_of(image, prompt, first.seed_of(index)))
    return tuple(thumbnails)


def export(
    record: Record,
    trial: Trial,
    baseline: Trial,
    confirmation: Confirmation | None,
    pictures: tuple[Thumbnail, ...] = (),
) -> TunedConfig:
    """The trial as a TunedConfig. Without a confirmation its figures are of a single process, and it says so."""
    target = record.target
    tuned = TunedConfig(
        about=about(trial, baseline, confirmation),
        speedup=confirmation.verdict if confirmation else None,
        serving=Serving.of(target.workload),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        command=record.command,
        pipeline_class=target.pipeline.known.class_name,
        pipeline=target.pipeline,
        pictures=pictures,
        workload=target.workload,
        calibrations=_measured(trial).calibrations,
        knobs=trial.values,
        tuned=evidence(trial, baseline, target.workload),
        baseline_knobs=baseline.values,
        baseline_choice=record.baseline_choice,
        baseline=evidence(baseline, baseline, target.workload),
        confirmation=confirmation,
        device=target.device,
        versions=target.versions,
        environment=target.environment,
        inputs=target.pipeline.known.inputs,
    )
    return tuned.model_copy(update={"evidence_of": tuned.digest})


def about(trial: Trial, baseline: Trial, confirmation: Confirmation | None) -> str:
    """What the config brings, in one sentence. Every number in it was measured."""
    if trial.number == baseline.number:
        return "The baseline itself, no setting changed."
    tuned = _measured(trial)
    confirmed = confirmation.quality if confirmation else None
    quality = confirmed_quality_words(confirmed) if confirmed else quality_words(trial, baseline) + _source_words(tuned)
    compiling = f" (with what compiling took in trial {tuned.compiled_as.trial})" if tuned.compiled_as else ""
    memory = memory_words(tuned.peak_memory_bytes, _measured(baseline).peak_memory_bytes)
    sentence = f"{speed_words(trial, baseline, confirmation)}, {memory}{compiling}, {quality}."
    quick = confirmation is not None and confirmation.quick
    return f"{sentence} Confirmed quickly: without --quick, the same command takes full care." if quick else sentence


def _source_words(measured: Measurement) -> str:
    """The trial whose pictures were judged; empty where they are the trial's own."""
    if measured.quality_of is None or measured.spot_check is None:
        return ""
    return f" (by the pictures of trial {measured.quality_of}: SSIM {measured.spot_check.ssim:.3f} in the one compared)"


def speed_words(trial: Trial, baseline: Trial, confirmation: Confirmation | None) -> str:
    """The speed relative to the baseline: the confirmed figure with its interval, then the first figure."""
    tuned = _measured(trial)
    what = "the baseline's speed" + (f" over {len(tuned.latencies_s)} sizes" if tuned.also else "")
    first = _measured(baseline).latency_s / (tuned.latency_s / trial.drift)
    verdict = confirmation.verdict if confirmation else None
    if verdict is None:
        return f"{first:.2f}x {what} in one process each (not confirmed)"
    return verdict.words(what, f"; {first:.2f}x at first")


def confirmed_quality_words(quality: ConfirmedQuality) -> str:
    """The quality of the pictures relative to the baseline's, over the pairs of the confirmation."""
    pairs = f"{quality.drop.n} pairs"
    if quality.shortened_from:
        pairs += f" instead of {quality.shortened_from}, which would have taken longer than the search"
    likeness = likeness_words(quality)
    if quality.metric == "likeness":
        return f"{likeness} to the baseline's pictures over {pairs}"
    return f"CLIP score {quality.drop.as_change} over {pairs}, {likeness}"


def quality_words(trial: Trial, baseline: Trial) -> str:
    """The quality of the trial's pictures relative to the baseline's: the paired drop of the CLIP score, and SSIM."""
    quality, reference = _measured(trial).quality, _measured(baseline).quality
    assert quality is not None
    assert reference is not None
    likeness = likeness_words(quality)
    if quality.metric == "likeness":
        return f"{likeness} to the baseline's pictures"
    drop = paired_drop(quality, reference)
    if drop.smallest_detectable is None:
        return f"CLIP score {0.0 - drop.mean:+.2f} by one prompt alone, {likeness}"
    within = "+- unknown" if drop.half_width is None else f"+- {drop.half_width:.2f}"
    # Where all pairs agree, as pairs of equal pictures do, the smallest drop that they could show is unknown.
    detectable = f" ({drop.n} pairs show a drop of {drop.smallest_detectable:.2f})" if drop.smallest_detectable else ""
    return f"CLIP score {0.0 - drop.mean:+.2f} {within}{detectable}, {likeness}"


def likeness_words(quality: Quality | ConfirmedQuality) -> str:
    """How like the baseline's pictures these are, on average and at their worst place."""
    worst = quality.worst_place_levels
    place = "" if worst is None else f", worst place {worst:.0f} of 255 levels off"
    flow = quality.temporal_mean_levels
    motion = "" if flow is None else f", motion {flow:.1f} of 255 levels off"
    return f"SSIM {quality.ssim_mean:.3f} (worst {quality.ssim_worst:.3f}{place}{motion})"


def evidence(trial: Trial, baseline: Trial, workload: Workload) -> Evidence:
    """The figures of a judged trial, as best.json has them."""
    measured, quality, reference = _measured(trial), _measured(trial).quality, _measured(baseline).quality
    assert quality is not None
    assert reference is not None
    drop = paired_drop(quality, reference) if quality.metric == "clip" else None
    scores = [score for score in quality.clip_scores if score is not None]
    sizes = map(str, workload.shapes)
    return Evidence(
        latency_s=measured.latency_s,
        latency_at_s=dict(zip(sizes, measured.latencies_s, strict=True)) if measured.also else {},
        graphs_added_at={str(cost.shape): cost.graphs_added for cost in measured.also},
        latency_samples_s=measured.latency_samples_s,
        first_call_s=measured.first_calls_s[0],
        peak_memory_bytes=measured.peak_memory_bytes,
        host=measured.host,
        energy_per_picture_j=measured.energy_per_picture_j,
        effects={name: str(effect) for name, effect in measured.effects.items()},
        quality_metric=quality.metric,
        quality_loss=quality.loss(reference),
        clip_score=sum(scores) / len(scores) if scores else None,
        clip_drop=drop.mean if drop else None,
        clip_drop_interval=drop.half_width if drop else None,
        clip_drop_smallest_detectable=drop.smallest_detectable if drop else None,
        pairs=drop.n if drop else None,
        ssim_mean=quality.ssim_mean,
        ssim_worst=quality.ssim_worst,
        psnr_worst_db=quality.psnr_worst_db,
        lpips_mean=quality.lpips_mean,
        lpips_worst=quality.lpips_worst,
        worst_place_levels=quality.worst_place_levels,
        temporal_mean_levels=quality.temporal_mean_levels,
    )


def _measured(trial: Trial) -> Measurement:
    assert trial.measured is not None, f"trial {trial.number} was not measured"
    return trial.measured
