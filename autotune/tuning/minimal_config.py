"""Minimal config: the pick without the knobs that bring nothing, measured before it may replace the pick.

It must be no slower and no larger than the pick, faster than the baseline if the pick was, within the goal's limits,
and its pictures must not be worse. Only then it is exported, with its own figures.
"""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from autotune.config import Config
from autotune.execution.runner import Runner
from autotune.frozen_model import read_json
from autotune.knobs import complete
from autotune.measurement import Measurement, Quality
from autotune.production.tuned_config import Confirmation, ConfirmedQuality, TunedConfig
from autotune.statistics.interleaved import Pair, Side, interleave, verdict_of
from autotune.statistics.paired import Paired, paired
from autotune.statistics.peak_memory import is_larger, memory_words
from autotune.statistics.verdict import SAME_WITHIN, Verdict
from autotune.study.pareto_front import keeps
from autotune.study.record import Record
from autotune.study_folder import StudyFolder
from autotune.trial import Failure, Trial
from autotune.tuning.ablation import Minimal
from autotune.tuning.confirm import more_pairs
from autotune.tuning.export import export, read_thumbnails


@dataclass(frozen=True)
class Bench:
    """What every measurement of an ablation needs. `listen` is called with (what is measured, round from 1)."""

    folder: StudyFolder
    record: Record
    trials: Sequence[Trial]
    pick: Trial
    runner: Runner
    rounds: int
    listen: Callable[[str, int], None]

    @property
    def baseline(self) -> Trial:
        return self.trials[0]

    @staticmethod
    def run_folder(place: Path, number: int, side: Side) -> Path:
        """The folder of one run of interleave()."""
        return place / f"round-{number + 1}-{side}"

    def interleave(
        self, first: Config, second: Config, place: Path, names: tuple[str, str], *, pictures: Side
    ) -> list[Pair] | tuple[Side, Failure]:
        """Pairs of measurements of both configs; (side, failure) where one of them fails.

        pictures  the side that draws pictures in its first run
        """
        configs: dict[Side, tuple[Config, str]] = {"first": (first, names[0]), "second": (second, names[1])}
        failed: list[Side] = []

        def run(number: int, side: Side) -> Measurement | Failure:
            config, name = configs[side]
            self.listen(name, number + 1)
            where, draws = self.run_folder(place, number, side), side == pictures and number == 0
            outcome = self.runner.run(where, config, pictures=draws, earlier=self.trials)
            failed.extend([side] if isinstance(outcome, Failure) else [])
            return outcome

        pairs = interleave(run, least=self.rounds)
        return (failed[0], pairs) if isinstance(pairs, Failure) else pairs


def try_minimal(bench: Bench, config: Config, place: Path) -> tuple[Minimal, TunedConfig | None]:
    """Measure the config interleaved with the pick, then with the baseline.

    Returns the result, and the config to export: None where the pick is kept.
    """
    minimal = Minimal(values=dict(config), decision="kept the pick", why="")
    names = ("the pick", "the minimal config")
    pairs = bench.interleave(bench.pick.config, config, place / "pick", names, pictures="second")
    if isinstance(pairs, tuple):
        return minimal.model_copy(update={"why": f"it failed ({pairs[1].cause}: {pairs[1].reason})"}), None
    minimal = minimal.model_copy(
        update={
            "pick_latency_s": tuple(of_pick.latency_s for of_pick, _ in pairs),
            "minimal_latency_s": tuple(of_minimal.latency_s for _, of_minimal in pairs),
        }
    )
    verdict = verdict_of(pairs)
    trial = Trial(number=bench.pick.number, origin="minimal", values=dict(config), outcome=pairs[0][1], seconds=0.0)
    why = _is_slower(verdict) or _is_larger(pairs) or _is_worse(bench, trial)
    if why is not None:
        return minimal.model_copy(update={"why": why}), None
    tuned = _exported(bench, trial, place)
    if isinstance(tuned, str):
        return minimal.model_copy(update={"why": tuned}), None
    why = f"What is left has {verdict.words('the speed of the pick')}."
    return minimal.model_copy(update={"decision": "taken", "why": why}), tuned


def _is_slower(verdict: Verdict) -> str | None:
    """Why the minimal config is too slow; None where even the low end of the interval counts as the same speed."""
    if verdict.word != "SLOWER" and verdict.low > 1 / (1 + SAME_WITHIN):
        return None
    slower = verdict.word == "SLOWER"
    what = "it is slower than the pick" if slower else "it can't be shown here to be as fast as the pick"
    return f"{what} ({verdict.speedup:.2f}x its speed, 95 % interval {verdict.low:.2f} to {verdict.high:.2f})"


def _is_larger(pairs: list[Pair]) -> str | None:
    pick, minimal = (max(pair[side].peak_memory_bytes for pair in pairs) for side in (0, 1))
    return f"it needs {memory_words(minimal, pick)} than the pick" if is_larger(minimal, pick) else None


def _is_worse(bench: Bench, trial: Trial) -> str | None:
    """Why it is not good enough: it exceeds a limit of the goal, or its pictures are worse than the pick's."""
    if not keeps(trial, bench.baseline, bench.record.goal):
        return "it exceeds a limit of the search"
    more = lost_without(_quality(trial), bench)
    return "its pictures are worse than the pick's" if more is not None and more.is_detectable else None


def lost_without(quality: Quality | None, bench: Bench) -> Paired | None:
    """What pictures of this quality lose compared with the pick's, pair by pair; None where they were not judged."""
    of_pick, reference = _quality(bench.pick), _quality(bench.baseline)
    if quality is None or of_pick is None or reference is None:
        return None
    drops = zip(quality.drops(reference), of_pick.drops(reference), strict=True)
    return paired([drop - drop_of_pick for drop, drop_of_pick in drops])


def _quality(trial: Trial) -> Quality | None:
    return trial.measured.quality if trial.measured else None


def _exported(bench: Bench, trial: Trial, place: Path) -> TunedConfig | str:
    """The minimal config with its own confirmation, or the reason why it may not be exported."""
    if complete(trial.values) == complete(bench.baseline.values):
        pictures = read_thumbnails(bench.folder.trial(bench.baseline.number), bench.record.target.workload)
        return export(bench.record, bench.baseline, bench.baseline, None, pictures)
    names = ("the baseline", "the minimal config")
    pairs = bench.interleave(bench.baseline.config, trial.config, place / "baseline", names, pictures="first")
    if isinstance(pairs, tuple):
        return f"{names[pairs[0] == 'second']} failed ({pairs[1].cause}: {pairs[1].reason})"
    confirmation = Confirmation(
        baseline_latency_s=tuple(baseline.latency_s for baseline, _ in pairs),
        tuned_latency_s=tuple(minimal.latency_s for _, minimal in pairs),
    )
    if _was_faster(bench) and not confirmation.is_faster:
        return "it is not faster than the baseline beyond the noise"
    quality = _over_more_pairs(bench, trial.config, place)
    if isinstance(quality, str):
        return quality
    now_s = statistics.median(confirmation.baseline_latency_s)
    assert bench.baseline.measured is not None
    drift = now_s / bench.baseline.measured.latency_s  # the device may be slower today than when trial 0 ran
    confirmation = confirmation.model_copy(update={"quality": quality})
    pictures = read_thumbnails(bench.run_folder(place / "pick", 0, "second"), bench.record.target.workload)
    return export(bench.record, trial.model_copy(update={"drift": drift}), bench.baseline, confirmation, pictures)


def _was_faster(bench: Bench) -> bool:
    assert bench.pick.measured is not None
    assert bench.baseline.measured is not None
    return bench.pick.measured.latency_s / bench.pick.drift < bench.baseline.measured.latency_s


def _over_more_pairs(bench: Bench, config: Config, place: Path) -> ConfirmedQuality | str | None:
    """The quality of its pictures over the pairs that the confirmation of the search has used.

    None where the confirmation drew no pictures; a sentence where the quality is not good enough.
    """
    references = sorted(bench.folder.confirmation(0).parent.glob("*-pairs/quality.json"))
    if not references:
        return None
    reference = references[-1].parent
    workload = more_pairs(
        bench.record.target.workload, bench.record.all_prompts, int(reference.name.removesuffix("-pairs"))
    )
    bench.listen("pictures of the minimal config", 1)
    drawn = bench.runner.draw(place / reference.name, config, workload, reference, earlier=bench.trials)
    if isinstance(drawn, Failure):
        return f"its pictures could not be drawn ({drawn.cause}: {drawn.reason})"
    baseline = Quality.parse(read_json(references[-1], "quality"), f"the quality {str(references[-1])!r}")
    drop = paired(drawn.drops(baseline))
    if drop.may_exceed(bench.record.goal.max_quality_drop):
        return f"over {drop.n} pairs its pictures may lose more than the limit"
    worst, most = drawn.worst_place_levels, bench.record.goal.max_worst_place_levels
    if worst is not None and most is not None and worst > most:
        return f"over {drop.n} pairs a place of its pictures differs by {worst:.0f} levels, more than the limit"
    return ConfirmedQuality(
        metric=drawn.metric,
        drop=drop,
        prompts=len(set(workload.prompts)),
        ssim_mean=drawn.ssim_mean,
        ssim_worst=drawn.ssim_worst,
        worst_place_levels=worst,
        temporal_mean_levels=drawn.temporal_mean_levels,
    )
