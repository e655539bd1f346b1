"""Summary: what a report says about a study: the answer in a sentence, the pick, the front, a row a trial."""

import shlex
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from autotune.config import Config
from autotune.knobs import all_knobs
from autotune.production.tuned_config import TunedConfig
from autotune.report import words
from autotune.statistics.drift import PRIOR_SPREAD, process_spread
from autotune.statistics.failing_values import failing_values
from autotune.statistics.paired import Paired, paired_drop
from autotune.statistics.peak_memory import memory_words
from autotune.study.pareto_front import keeps, objectives, pareto_front, pick_trial
from autotune.study.record import Record, read_anchors, read_record, read_trials
from autotune.study_folder import StudyFolder
from autotune.trial import NO_RECIPE, Anchor, Failure, Trial
from autotune.tuning.ablation import Ablation, read_ablation
from autotune.tuning.export import export

Kind = Literal["baseline", "pick", "front", "recipe", "measured", "over the limits", "stopped", "failed"]


@dataclass(frozen=True)
class Row:
    """One trial as the report shows it; figures are None where it failed."""

    number: int
    kind: Kind
    origin: str
    config: str
    latency_s: float | None
    speed: str
    memory_bytes: int | None
    loss: float | None  # of quality: CLIP points, or 100 x (1 - SSIM)
    quality: str
    outcome: str
    reason: str
    log: str | None  # path relative to the study's folder
    seconds: float

    @property
    def latency(self) -> str:
        return words.seconds(self.latency_s) if self.latency_s is not None else ""

    @property
    def memory(self) -> str:
        return words.memory(self.memory_bytes) if self.memory_bytes is not None else ""


@dataclass(frozen=True)
class StudySummary:
    """A study as read from its folder, finished or not."""

    folder: StudyFolder
    record: Record
    trials: tuple[Trial, ...]
    anchors: tuple[Anchor, ...]
    front: tuple[Trial, ...]
    tuned: TunedConfig | None  # best.json, or what would be exported now; None: no config can be exported
    ablation: Ablation | None
    rows: tuple[Row, ...]

    @property
    def baseline(self) -> Trial | None:
        """Trial 0; None where it was not measured, and there is nothing to compare with."""
        return self.trials[0] if self.trials and self.trials[0].measured else None

    @property
    def pick(self) -> Trial | None:
        """The trial that was exported; of a minimal config, the trial that it was made from."""
        return _trial_of(self.tuned, self.trials, self.ablation)

    @property
    def is_minimal(self) -> bool:
        """Has an ablation replaced the pick by a minimal config?"""
        return self.tuned is not None and self.pick is not None and self.pick.config != Config(self.tuned.knobs)

    @property
    def spread(self) -> float:
        """Of the baseline's latency from process to process, as a share."""
        return process_spread(self.baseline, self.anchors) if self.baseline else PRIOR_SPREAD

    @property
    def failed(self) -> tuple[Row, ...]:
        return tuple(row for row in self.rows if row.kind == "failed")

    @property
    def failing_values(self) -> tuple[str, ...]:
        """The values that were not tried any more, because every trial with them had failed for the same reason."""
        defaults = {name: knob.default for name, knob in all_knobs().items()}
        return tuple(map(str, failing_values(self.trials, defaults)))

    @property
    def title(self) -> str:
        target = self.record.target
        return f"{target.pipeline.name} on {target.device.name}"


def read_summary(path: Path) -> StudySummary:
    """Read the study in this folder, finished or not. Raises UserError where it is no study, or can't be read."""
    folder = StudyFolder(path)
    record, trials, anchors = read_record(folder), read_trials(folder), read_anchors(folder)
    has_baseline = bool(trials) and trials[0].measured is not None
    front = pareto_front(trials, trials[0], record.goal.minimise) if has_baseline else []
    tuned, ablation = _tuned(folder, record, trials if has_baseline else []), read_ablation(folder)
    pick = _trial_of(tuned, trials, ablation)
    spread = process_spread(trials[0], anchors) if has_baseline else PRIOR_SPREAD
    kinds = {t.number: _kind(record, t, trials[0], front, pick) for t in trials}
    rows = tuple(_row(folder, trial, trials[0], kinds[trial.number], spread) for trial in trials)
    return StudySummary(folder, record, tuple(trials), tuple(anchors), tuple(front), tuned, ablation, rows)


def _tuned(folder: StudyFolder, record: Record, trials: list[Trial]) -> TunedConfig | None:
    """best.json, or while there is none, the export of the best trial so far."""
    if folder.best.exists():
        return TunedConfig.load(folder.best)
    best = pick_trial(trials, trials[0], record.goal) if trials else None
    return export(record, best, trials[0], None) if best else None


def _trial_of(tuned: TunedConfig | None, trials: Iterable[Trial], ablation: Ablation | None) -> Trial | None:
    """The trial that this config was exported from, or made from by an ablation."""
    if tuned is None:
        return None
    config = Config(tuned.knobs)
    origin = ablation.trial if ablation and ablation.minimal and Config(ablation.minimal.values) == config else None
    return next((trial for trial in trials if trial.config == config or trial.number == origin), None)


def _row(folder: StudyFolder, trial: Trial, baseline: Trial, kind: Kind, spread: float) -> Row:
    measured, log = trial.measured, folder.trial(trial.number) / "log.txt"
    compared = measured is not None and baseline.measured is not None
    judged = compared and trial.judged is not None
    failure = trial.outcome if isinstance(trial.outcome, Failure) else None
    return Row(
        number=trial.number,
        kind=kind,
        origin=trial.origin,
        config="baseline" if trial.number == 0 else words.config(trial.config),
        latency_s=measured.latency_s / trial.drift if measured else None,
        speed=words.speed(trial, baseline, spread) if compared else "",
        memory_bytes=measured.peak_memory_bytes if measured else None,
        loss=objectives(trial, baseline)[-1] if judged else None,
        quality=words.quality(trial, baseline) if compared else "",
        outcome=failure.cause if failure else "stopped" if measured and measured.stopped else "measured",
        reason=failure.reason if failure else "; ".join(words.remarks(trial)),
        log=str(log.relative_to(folder.path)) if log.exists() else None,
        seconds=trial.seconds,
    )


def _kind(record: Record, trial: Trial, baseline: Trial, front: list[Trial], pick: Trial | None) -> Kind:
    if isinstance(trial.outcome, Failure):
        return "failed"
    if trial.number == 0:
        return "baseline"
    if trial.judged is None:
        return "stopped"
    if pick is not None and trial.number == pick.number:
        return "pick"
    if baseline.measured and not keeps(trial, baseline, record.goal):
        return "over the limits"
    if any(one.number == trial.number for one in front):
        return "front"
    return "recipe" if trial.origin not in NO_RECIPE else "measured"


def answer(summary: StudySummary) -> str:
    """The result of the study in one sentence. Every number in it was measured."""
    tuned, tried = summary.tuned, len(summary.trials)
    if not summary.trials:
        return "No trial has finished yet."
    if summary.baseline is None:
        return "The baseline itself failed, so there is nothing to compare with: see the trials below."
    if tuned is None:
        return f"No config keeps the limits that were set ({tried} tried): see the trials below."
    if tuned.knobs == tuned.baseline_knobs:
        others = "nothing else was tried" if tried == 1 else f"none of {tried - 1} other configs was better"
        return f"Stay with the baseline: {others}{'' if tried == 1 else ' beyond the noise within the limits'}."
    memory = memory_words(tuned.tuned.peak_memory_bytes, tuned.baseline.peak_memory_bytes)
    sentence = ", ".join([_speed(tuned), memory, _quality(tuned, _drop(summary))])
    return f"{sentence[0].upper()}{sentence[1:]}."


def _speed(tuned: TunedConfig) -> str:
    verdict = tuned.confirmation.verdict if tuned.confirmation else None
    if verdict is None:
        ratio = tuned.baseline.latency_s / tuned.tuned.latency_s
        return f"{ratio:.2f}x the baseline's speed in one process each (not confirmed)"
    return verdict.words("the baseline's speed")


def _drop(summary: StudySummary) -> Paired | None:
    """The quality that the pick loses: over the pairs of the confirmation, else over those of the search."""
    if summary.tuned and summary.tuned.confirmation and summary.tuned.confirmation.quality:
        return summary.tuned.confirmation.quality.drop
    pick = summary.pick.measured if summary.pick and not summary.is_minimal else None
    baseline = summary.baseline.measured if summary.baseline else None
    if pick is None or baseline is None or pick.quality is None or baseline.quality is None:
        return None
    return paired_drop(pick.quality, baseline.quality)


def _quality(tuned: TunedConfig, drop: Paired | None) -> str:
    confirmed = tuned.confirmation.quality if tuned.confirmation else None
    likeness = f"SSIM {(confirmed or tuned.tuned).ssim_mean:.3f} to the baseline's pictures"
    if tuned.tuned.quality_metric == "likeness":
        return f"{likeness} (their quality was not judged)"
    if drop is not None:
        return f"{quality_verdict(drop)}, {likeness}"
    lost, half = tuned.tuned.clip_drop or 0.0, tuned.tuned.clip_drop_interval
    interval = f"+- {half:.2f}" if half is not None else "(too few pairs for an interval)"
    return f"CLIP score {0.0 - lost:+.2f} {interval}, {likeness}"


def quality_verdict(drop: Paired) -> str:
    """Is quality lost? With the smallest loss that this number of pairs can show."""
    if drop.is_detectable:
        return f"CLIP score {drop.as_change} over {drop.n} pairs"
    if drop.smallest_detectable is None:
        return "quality unknown (too few pairs)"
    return f"no detectable loss of quality ({_smallest(drop.smallest_detectable, drop.n)})"


def _smallest(points: float, pairs: int) -> str:
    if points == 0:
        return f"all {pairs} pairs agree"
    return f"smallest detectable drop {points:.2f} CLIP points, {pairs} pairs"


def next_steps(summary: StudySummary) -> list[tuple[str, str]]:
    """What to do next with this study: commands, and what each is for."""
    where = summary.folder.path
    best, steps = where / "best.json", list[tuple[str, str]]()
    if summary.tuned is not None and summary.folder.best.exists():
        prompt = summary.record.target.workload.prompts[0]
        clips = summary.record.target.workload.frames is not None
        file, what = ("out.webp", "one clip") if clips else ("out.png", "one picture")
        pipeline = summary.record.target.pipeline
        allowed = words.naming(pipeline) if pipeline.factory else []
        steps.append((shlex.join(["autotune", "run", str(best), *allowed, "--prompt", prompt, "-o", file]), what))
    can_ablate = summary.folder.best.exists() and summary.pick is not None and summary.pick.number != 0
    if can_ablate and summary.ablation is None:
        steps.append((shlex.join(["autotune", "ablate", str(where)]), "what each knob of the pick brings"))
    if summary.trials:
        steps.append((shlex.join(["autotune", "table", str(where), "--format", "csv"]), "every trial as a table"))
    return steps
