"""The pick is measured again before it is exported, in turn with the baseline, each time in a fresh process.

What does not hold up is not called faster: the next best is tried, and where none holds the baseline is the pick.
"""

import statistics
from collections.abc import Callable
from dataclasses import dataclass

from autotune.errors import UserError
from autotune.folders import StudyFolder, read_json, write_json
from autotune.front import keeps, pick_trial
from autotune.runner import Runner
from autotune.study import Study
from autotune.trial import Failure, Measurement, Trial
from autotune.tuned import Confirmation

CANDIDATES = 3  # so many of the best are confirmed in turn until one holds


@dataclass(frozen=True)
class Confirming:
    trial: Trial
    round: int  # from 1


class Confirmer:
    """Chooses what a study exports. `rounds` 0: the best trial, on its first figures."""

    def __init__(
        self,
        folder: StudyFolder,
        study: Study,
        runner: Runner,
        rounds: int,
        listen: Callable[[Confirming], None],
    ) -> None:
        self.folder, self.study, self.runner, self.rounds, self.listen = folder, study, runner, rounds, listen
        self.goal = study.record.goal

    def best(self) -> tuple[Trial, Confirmation | None]:
        """The best trial that is still faster than the baseline when both are measured again, or the baseline."""
        baseline, rejected = self.study.baseline, set[int]()
        for _ in range(CANDIDATES):
            left = [t for t in self.study.trials if t.number not in rejected]
            best = pick_trial(left, baseline, self.goal)
            if best is None or best.number == baseline.number:
                return self._keeps_the_goal(best), None
            if self.rounds == 0:
                return best, None
            confirmation = self._measure_in_turn(best)
            if confirmation is not None and self._holds_up(best, confirmation):
                return best, confirmation
            rejected.add(best.number)
        return self._keeps_the_goal(baseline if keeps(baseline, baseline, self.goal) else None), None

    def _keeps_the_goal(self, best: Trial | None) -> Trial:
        if best is None:
            raise UserError(
                "no config keeps the limits that were set (the trials are kept; loosen --max-vram, --max-latency or "
                "--max-quality-drop in another study, or go on with a larger --budget)."
            )
        return best

    def _holds_up(self, trial: Trial, confirmation: Confirmation) -> bool:
        """Is the trial still what it was picked for: within the limit, and faster if it was faster at first?"""
        each = list(confirmation.tuned_latency_at_s.values()) if self.goal.minimise == "each" else []
        slowest_s = max(map(statistics.median, each or [confirmation.tuned_latency_s]))
        if self.goal.max_latency_s is not None and slowest_s > self.goal.max_latency_s:
            return False
        first, baseline = trial.measured, self.study.baseline.measured
        assert first is not None
        assert baseline is not None
        return confirmation.is_faster or first.latency_s >= baseline.latency_s

    def _measure_in_turn(self, trial: Trial) -> Confirmation | None:
        """Baseline and trial in turn, once a round, each in a fresh process. None where one of them fails.

        What was confirmed before, and lies on disk, is not measured again.
        """
        kept = self.folder.confirmation(trial.number)
        if kept.exists():
            return Confirmation.parse(read_json(kept, "confirmation"), f"the confirmation {str(kept)!r}")
        baseline = self.study.baseline
        again: dict[int, list[Measurement]] = {baseline.number: [], trial.number: []}
        for number in range(self.rounds):
            self.listen(Confirming(trial, number + 1))
            for one in (baseline, trial):
                place = kept.parent / f"round-{number + 1}-trial-{one.number}"
                outcome = self.runner.run(place, one.config, pictures=False, earlier=self.study.trials)
                if isinstance(outcome, Failure):
                    return None
                again[one.number].append(outcome)
        confirmation = self._confirmation(again[baseline.number], again[trial.number])
        write_json(kept, confirmation.to_json())
        return confirmation

    def _confirmation(self, baseline: list[Measurement], tuned: list[Measurement]) -> Confirmation:
        shapes = self.study.record.target.workload.shapes
        rounds = zip(*(measured.latencies_s for measured in tuned), strict=True)
        return Confirmation(
            baseline_latency_s=tuple(measured.latency_s for measured in baseline),
            tuned_latency_s=tuple(measured.latency_s for measured in tuned),
            tuned_latency_at_s=dict(zip(map(str, shapes), rounds, strict=True)) if len(shapes) > 1 else {},
        )
