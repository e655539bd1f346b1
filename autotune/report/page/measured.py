"""Measured: how a study was measured, as lines for a report: device, workload, noise, health, versions."""

import statistics
from collections import Counter
from collections.abc import Sequence

from autotune.config import Config
from autotune.measurement import Measurement, Phases
from autotune.report import words
from autotune.report.summary import StudySummary
from autotune.statistics.drift import PRIOR_WEIGHT
from autotune.study.record import read_untried
from autotune.trial import WARM_START


def how_measured(summary: StudySummary) -> list[tuple[str, str]]:
    """(what, in words) for everything that is known of this study."""
    record, target = summary.record, summary.record.target
    device = target.device
    versions = [f"{name} {version}" for name, version in target.versions.items()]
    lines = [
        ("command", record.command),
        ("pipeline", f"{target.pipeline.known.class_name} from {target.pipeline.source}, {_revision(summary)}"),
        ("workload", " ".join([target.calls, *target.notes])),
        ("device", f"{device.name}, {words.memory(device.memory_bytes)}"),
        ("evidence", "; ".join(device.evidence)),
        ("versions", ", ".join(versions + ([f"driver {device.driver}"] if device.driver else []))),
        ("environment", ", ".join(f"{name}={value}" for name, value in (target.environment or {}).items())),
        ("baseline", _baseline(summary)),
        ("limits", _limits(summary)),
        ("warm start", _warm_start(summary)),
        ("not tried", _not_tried(summary)),
        ("processes", _processes(summary)),
        ("noise", _noise(summary)),
        ("calls", _calls(_measurements(summary))),
        ("compiled", _compiled(_measurements(summary))),
        ("host memory", _host_memory(_measurements(summary))),
        ("pictures", _pictures(summary)),
        ("worst place", _worst_place(summary)),
        ("batch", _beside_single(summary)),
        ("second card", _second_card(summary)),
        ("not confirmed", _not_confirmed(summary)),
        ("motion", _motion(summary)),
        ("mismatches", _mismatches(_measurements(summary))),
        ("memory by part", _memory_of_parts(summary)),
        ("health", _health(_measurements(summary))),
        ("scorer", _scorer(summary)),
    ]
    return [(what, line) for what, line in lines if line]


def _baseline(summary: StudySummary) -> str:
    """The config of the baseline, and why it is not the pipeline as loaded."""
    record, choice = summary.record, summary.record.baseline_choice
    config = words.config(Config(record.baseline))
    return f"{config}, {choice.reason}" if choice and choice.rejected else config


def _revision(summary: StudySummary) -> str:
    pipeline = summary.record.target.pipeline
    return f"revision {pipeline.revision}, {pipeline.weights} weights"


def _measurements(summary: StudySummary) -> list[Measurement]:
    return [trial.measured for trial in summary.trials if trial.measured]


def _limits(summary: StudySummary) -> str:
    goal, baseline = summary.record.goal, summary.baseline
    metric = baseline.measured.quality.metric if baseline and baseline.measured and baseline.measured.quality else ""
    unit = {"clip": "CLIP points", "likeness": "of 100 x (1 - SSIM)"}.get(metric, "points")
    limits = [f"quality may drop by {goal.max_quality_drop:g} {unit}"]
    limits += [f"memory up to {words.memory(goal.max_vram_bytes)}"] if goal.max_vram_bytes else []
    limits += [f"host memory up to {words.memory(goal.max_ram_bytes)}"] if goal.max_ram_bytes else []
    limits += [f"latency up to {words.seconds(goal.max_latency_s)}"] if goal.max_latency_s else []
    worst = goal.max_worst_place_levels
    limits += [f"the worst place of a picture may differ by {worst:g} of 255 levels"] if worst is not None else []
    return ", ".join(limits)


def _host_memory(measurements: Sequence[Measurement]) -> str:
    """What the trials' processes took of the machine's memory at their peaks."""
    known = [measured.host for measured in measurements if measured.host is not None]
    if not known:
        return ""
    least, most = (words.memory(choose(host.peak_bytes for host in known)) for choose in (min, max))
    pinned = max((host.peak_pinned_bytes or 0 for host in known), default=0)
    limit = next((host.cgroup_limit_bytes for host in known if host.cgroup_limit_bytes), None)
    parts = [f"a process took {least} to {most} at its peak" if least != most else f"a process took {most} at its peak"]
    parts += [f"up to {words.memory(pinned)} of it pinned"] if pinned else []
    parts += [f"this container may take {words.memory(limit)}"] if limit else []
    return "; ".join(parts)


def _worst_place(summary: StudySummary) -> str:
    """Where the pick's pictures differ most from the baseline's: a band between tiles hardly moves the mean."""
    quality = summary.pick.measured.quality if summary.pick and summary.pick.measured else None
    if quality is None or quality.worst_place_levels is None:
        return ""
    figures = {
        "cell of 16 x 16 pixels": quality.worst_cell_levels,
        "row": quality.worst_row_levels,
        "column": quality.worst_column_levels,
    }
    places = ", ".join(f"a {place} by {max(levels):.0f}" for place, levels in figures.items())
    return f"of 255 levels, the pick's pictures differ from the baseline's in {places} at most"


def _beside_single(summary: StudySummary) -> str:
    """How like the pick's pictures of a batch are to those of calls of one picture."""
    confirmation = summary.tuned.confirmation if summary.tuned else None
    beside = confirmation.beside_single if confirmation else None
    if beside is None:
        return ""
    if beside.ssim_mean is None or beside.ssim_worst is None:
        return f"its pictures of batch {beside.batch} could not be compared with those of batch 1: {beside.fault}"
    return (
        f"the pick's pictures of batch {beside.batch} beside those of batch 1, same prompts and seeds: SSIM "
        f"{beside.ssim_mean:.4f} (worst {beside.ssim_worst:.4f}), {beside.equal} of {beside.pictures} equal bit for bit"
    )


def _second_card(summary: StudySummary) -> str:
    """What the rounds of the confirmation showed on a second card, of a search on several."""
    confirmation = summary.tuned.confirmation if summary.tuned else None
    second = confirmation.second_card if confirmation else None
    if second is None:
        return ""
    if second.verdict is None:
        return f"the pick is confirmed on one card alone; {second.card or 'on a second one'}: {second.fault}"
    return f"{second.card}: " + second.verdict.words("the baseline's speed")


def _not_confirmed(summary: StudySummary) -> str:
    """The trials that were better by their first figures, and why they are not the pick."""
    kept = ((trial.number, summary.folder.not_confirmed(trial.number)) for trial in summary.trials)
    told = [(number, path.read_text(errors="replace").strip()) for number, path in kept if path.is_file()]
    return "; ".join(f"trial {number}: {why}" for number, why in told)


def _motion(summary: StudySummary) -> str:
    """How far the changes from frame to frame of the pick's clips lie from those of the baseline's."""
    quality = summary.pick.measured.quality if summary.pick and summary.pick.measured else None
    if quality is None or quality.temporal_mean_levels is None:
        return ""
    moves = sum(quality.motion_levels) / len(quality.motion_levels)
    return (
        f"from frame to frame, the pick's clips change by {moves:.1f} of 255 levels; these changes differ from the "
        f"baseline's by {quality.temporal_mean_levels:.1f}"
    )


def _warm_start(summary: StudySummary) -> str:
    """The earlier studies of a warm start, with their digests, and how many trials they have put first."""
    studies, first = summary.record.warm_start, sum(trial.origin == WARM_START for trial in summary.trials)
    if not studies:
        return ""
    named = ", ".join(map(str, studies))
    return f"{words.warm_start(studies, first)}; from {named}, no figure of theirs is in this report"


def _not_tried(summary: StudySummary) -> str:
    """The configs that the sampler had skipped when it was last asked. These are predictions, and the line says so."""
    skipped = read_untried(summary.folder)
    if skipped is None:
        return ""
    basis = f"by what {skipped.trials} trials have measured; {skipped.of} untried configs were looked at"
    return f"{words.untried(skipped)}, {basis}"


def _processes(summary: StudySummary) -> str:
    """How the processes of the trials were started, by --isolation and in fact."""
    named = {"fork": "forked off one that had loaded the libraries", "spawn": "an interpreter of its own"}
    counts = Counter(one.isolation for one in _measurements(summary) if one.isolation)
    if not counts:
        return ""
    started = ", ".join(
        f"{named[how]}{f' ({count} trials)' if len(counts) > 1 else ''}" for how, count in counts.items()
    )
    return f"each trial in a process of its own: {started} (--isolation {summary.record.isolation})"


def _noise(summary: StudySummary) -> str:
    if summary.baseline is None:
        return ""
    anchors = [anchor.measured for anchor in summary.anchors if anchor.measured]
    calls = statistics.median(one.latency_spread for one in _measurements(summary)) / 2
    of_calls = f"calls of one process +-{calls:.1%} (half the interquartile range, the median trial); "
    if not anchors:
        assumed = f"processes of one config are assumed to differ by {summary.spread:.1%}: not measured in this study"
        return of_calls + assumed
    drifts = [trial.drift - 1 for trial in summary.trials if trial.measured]
    counted = f"{len(anchors)} anchors, and a prior that counts as {PRIOR_WEIGHT}"
    drifted = f"; the device drifted by {min(drifts):+.1%} to {max(drifts):+.1%}, which is corrected"
    return of_calls + f"processes of one config differ by {summary.spread:.1%} ({counted})" + drifted


def _calls(measured: list[Measurement]) -> str:
    if not measured:
        return ""
    counts = [len(one.latency_samples_s) for one in measured]
    ended = Counter(one.stopped_by for one in measured if one.stopped_by)
    why = "".join(f", {count} x ended by {reason}" for reason, count in ended.most_common())
    discarded = Counter(call.why for one in measured for call in one.discarded)
    lost = "".join(f", {count} discarded ({reason})" for reason, count in discarded.most_common())
    warm_up = f"{len(measured[0].warmup_s)} warm-up calls"
    return f"{min(counts)} to {max(counts)} timed calls a trial after {warm_up}{why}{lost}"


def _compiled(measured: list[Measurement]) -> str:
    """The trials that have reused compiled code, and what their figures mean."""
    shared = sum(one.compiled_as is not None for one in measured)
    if not shared:
        return ""
    return f"{_trials(shared)} ran what an earlier one had compiled: first call and peak memory are as if compiled anew"


def _pictures(summary: StudySummary) -> str:
    """The trials that have not drawn all their pictures, and why."""
    measured = _measurements(summary)
    shared = sum(one.quality_of is not None for one in measured)
    stopped = sum(one.stopped is not None for one in measured)
    parts = []
    if shared:
        parts.append(f"{_trials(shared)} drew one alone, equal to that of an earlier trial, and reused its quality")
    if stopped:
        parts.append(f"{_trials(stopped)} drew none, slower and larger than a trial that loses no quality")
    return "; ".join(parts)


def _trials(count: int) -> str:
    return f"{count} trial{'s' * (count > 1)}"


def _mismatches(measured: list[Measurement]) -> str:
    return "; ".join(one.spot_check.mismatch for one in measured if one.spot_check and one.spot_check.mismatch)


def _health(measured: list[Measurement]) -> str:
    health = [one.health for one in measured if one.health]
    reasons = Counter(reason for one in health for reason in one.throttle_reasons)
    columns = (
        ("load average up to {:.1f}", [h.load_average for h in health]),
        ("others used up to {:.0%} of the processor", [h.others_cpu_share for h in health]),
        ("SM clock up to {:.0f} MHz", [h.sm_clock_mhz for h in health]),
        ("up to {:.0f} degrees C", [h.temperature_c for h in health]),
        ("up to {:.0f} W", [h.power_w for h in health]),
    )
    parts = []
    for form, values in columns:
        known = [value for value in values if value is not None]
        parts += [form.format(max(known))] if known else []
    parts += [f"{reason} in {count} trials" for reason, count in reasons.most_common()]
    steadily = sum(one.slowed_steadily for one in health)
    parts += [f"slowed down in every call, its steady state, in {_trials(steadily)}"] if steadily else []
    launch_bound = sum(one.phases.launch_bound is True for one in measured if one.phases)
    parts += [f"waiting for the host to launch its work in {_trials(launch_bound)}"] if launch_bound else []
    return ", ".join(parts)


def _memory_of_parts(summary: StudySummary) -> str:
    """The peak memory of each part of a call: tensors on a GPU, resident memory on a processor."""
    named = {"text_encoding": "text encoding", "denoising": "denoising", "vae_decode": "VAE decode"}
    lines = []
    for whose, trial in (("baseline", summary.baseline), ("pick", summary.pick)):
        peaks = trial.measured.peaks if trial and trial.measured else {}
        sizes = {what: peaks[part] for part, what in named.items() if part in peaks}
        parts = [f"{what} {words.memory(p.allocated_bytes or p.device_bytes)}" for what, p in sizes.items()]
        lines += [f"{whose}: {', '.join(parts)}"] if parts else []
    return "; ".join(lines)


def _scorer(summary: StudySummary) -> str:
    quality = summary.baseline.measured.quality if summary.baseline and summary.baseline.measured else None
    if quality is None:
        return ""
    scorer = quality.scorer or "no CLIP model: only likeness to the baseline's pictures"
    return f"{scorer}, {len(quality.ssim)} pictures a trial"


def where_time_goes(summary: StudySummary) -> list[tuple[str, str, str]]:
    """(part of a call, the baseline's time, the pick's), first the whole call; [] where the parts were not timed."""
    measured = [trial.measured if trial else None for trial in (summary.baseline, summary.pick)]
    phases = [one.phases if one else None for one in measured]
    if phases[0] is None or phases[1] is None:
        return []
    batch = summary.record.target.workload.batch
    whole = [words.seconds(one.seconds_per_picture(batch)) for one in measured if one]
    named = {"text_encoding_s": "text encoding", "denoising_step_s": "a denoising step", "vae_decode_s": "VAE decode"}
    parts = [(what, _part(phases[0], name), _part(phases[1], name)) for name, what in named.items()]
    return [("a whole picture", whole[0], whole[1]), *parts]


def _part(phases: Phases, name: str) -> str:
    seconds: float | None = getattr(phases, name)
    return words.seconds(seconds) if seconds is not None else "not timed"
