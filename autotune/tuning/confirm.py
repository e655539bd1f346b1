"""Confirm: the pick is measured again, interleaved with the baseline, before it is exported.

Each timed run is a fresh process. Pictures are compared over more prompts and seeds than the search could afford.

A pick that does not hold up is not exported: the next best trial is confirmed instead, and the baseline is exported
where none holds. A trial is picked by its first figures and judged by the new ones alone, so that a lucky first
measurement gains it nothing.
"""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path

from autotune.device import UsedCard
from autotune.errors import UserError
from autotune.execution import isolate
from autotune.execution.isolate import ChildHeld
from autotune.execution.rounds import Rounds
from autotune.execution.runner import Runner
from autotune.frozen_model import read_json, write_json
from autotune.measurement import Quality
from autotune.production.tuned_config import BesideSingle, Confirmation, ConfirmedQuality, OnSecondCard
from autotune.statistics.interleaved import Pair, Side
from autotune.statistics.paired import paired
from autotune.study.pareto_front import keeps, pick_trial
from autotune.study.study import Study
from autotune.study_folder import StudyFolder
from autotune.trial import NOT_THE_CONFIG, Failure, Trial
from autotune.tuning.events import CardTold, Confirming, NotConfirmed
from autotune.workload import Workload

CANDIDATES = 3  # at most this many trials are confirmed, best first, until one holds up
PAIRS = 128  # of pictures: with a usual spread they show a drop of 0.18 CLIP points
QUICK_ROUNDS, QUICK_PAIRS = 3, 32  # of two rounds, an interval is too wide to call a pick faster
QUICK_TIMING_S = 0.0  # of timed calls beyond the fewest: runs of one config differ by more than five calls leave open
QUICK_TIMES = 2  # rounds at most, as a multiple, where the machine is so noisy that three tell nothing
LEAST_DRAWING_S = 600.0  # drawing the pictures of a confirmation may take this long, however short the search was


@dataclass(frozen=True)
class ConfirmationPlan:
    """How thoroughly the pick is measured again."""

    rounds: int = 3  # at least; 0: no confirmation
    pairs: int | None = None  # of pictures; None: PAIRS, or fewer where these would take longer than the search
    quick: bool = False  # as few as may tell the pick from the baseline; said in the result

    def __post_init__(self) -> None:
        if self.rounds == 1:
            raise UserError(
                "one round has no interval: give --confirm-rounds 2 or more, or 0 to export the first figures."
            )

    @property
    def timing_s(self) -> float | None:
        """Seconds of a run's warm-up, and of timed calls beyond the fewest; None: as usual."""
        return QUICK_TIMING_S if self.quick else None

    @classmethod
    def of(cls, rounds: int, pairs: int | None, *, quick: bool) -> "ConfirmationPlan":
        """As the user asks for it. Raises UserError for a single round."""
        if not quick:
            return cls(rounds, pairs)
        return cls(min(rounds, QUICK_ROUNDS), None if pairs is None else min(pairs, QUICK_PAIRS), quick=True)


class Confirmer:
    """Chooses the trial that a study exports. With 0 rounds: the best one by its first figures.

    held           a child can't be ended: no other is started, and what is on disk decides. None: none is held so far
    not_confirmed  the candidates that did not hold up, each with the reason
    """

    def __init__(
        self,
        folder: StudyFolder,
        study: Study,
        runner: Runner,
        plan: ConfirmationPlan,
        listen: Callable[[Confirming | NotConfirmed | CardTold], None],
        held: ChildHeld | None = None,
    ) -> None:
        self.folder, self.study, self.runner, self.plan, self.listen = folder, study, runner, plan, listen
        self.held = held
        self.not_confirmed: list[NotConfirmed] = []
        self.goal = study.record.goal

    def best(self) -> tuple[Trial, Confirmation | None]:
        """The best trial that holds up when it and the baseline are measured again, or the baseline.

        Raises UserError where no config keeps the limits.
        """
        baseline, rejected = self.study.baseline, set[int]()
        for _ in range(CANDIDATES):
            left = [t for t in self.study.trials if t.number not in rejected]
            best = pick_trial(left, baseline, self.goal)
            if best is None or best.number == baseline.number:
                return self._keeps_the_goal(best), None
            if self.plan.rounds == 0:
                return best, None
            confirmation = self._confirm_unless_held(best)
            why = self._why_not(best, confirmation)
            self.folder.not_confirmed(best.number).unlink(missing_ok=True)
            if why is None and isinstance(confirmation, Confirmation):
                return best, confirmation
            if confirmation is None and self.held is not None and self.held.config != best.config:
                return best, None
            self._reject(best, str(why))
            rejected.add(best.number)
        return self._keeps_the_goal(baseline if keeps(baseline, baseline, self.goal) else None), None

    def _reject(self, trial: Trial, why: str) -> None:
        """Tell that the trial is not confirmed, and keep the reason for the report."""
        self.not_confirmed.append(NotConfirmed(trial, why))
        self.listen(self.not_confirmed[-1])
        kept = self.folder.not_confirmed(trial.number)
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_text(f"{why}\n")

    def _keeps_the_goal(self, best: Trial | None) -> Trial:
        if best is None and self.held is not None:
            raise self.held
        if best is None:
            raise UserError(
                "no config keeps the limits that were set (the trials are kept; loosen --max-vram, --max-ram, "
                "--max-latency or --max-quality-drop in another study, or go on with a larger --budget)."
            )
        return best

    def _why_not(self, trial: Trial, found: Confirmation | Failure | None) -> str | None:
        """Why the trial is not to be exported, as a clause; None: it holds up."""
        if found is None:
            return "a child process can't be ended, so that nothing more is measured"
        if isinstance(found, Failure):
            return f"its confirmation failed ({found.cause}: {found.reason})"
        second = found.second_card
        if second is not None and second.verdict is not None and second.verdict.word == "SLOWER":
            return "it is slower than the baseline on a second card"
        return self._why_not_as_fast(trial, found) or self._why_not_as_good(found.quality)

    def _why_not_as_fast(self, trial: Trial, found: Confirmation) -> str | None:
        """Is the trial still within the latency limit, and still faster if it was faster at first?"""
        each = list(found.tuned_latency_at_s.values()) if self.goal.minimise == "each" else []
        slowest_s = max(map(statistics.median, each or [found.tuned_latency_s]))
        if self.goal.max_latency_s is not None and slowest_s > self.goal.max_latency_s:
            return f"a call takes {slowest_s:.3g} s, more than the limit of {self.goal.max_latency_s:g} s"
        first, baseline = trial.measured, self.study.baseline.measured
        assert first is not None
        assert baseline is not None
        if found.is_faster or first.latency_s / trial.drift >= baseline.latency_s:
            return None
        verdict = found.verdict
        speed = f"{verdict.speedup:.2f}x, {verdict.low:.2f} to {verdict.high:.2f}" if verdict else "too few rounds"
        return f"it is not seen to be faster than the baseline ({speed})"

    def _why_not_as_good(self, quality: Quality | ConfirmedQuality | None) -> str | None:
        """Does its loss of quality keep the limit, by the one-sided 95 % bound, and the worst place of its pictures?"""
        if quality is None:
            return None
        worst, most = quality.worst_place_levels, self.goal.max_worst_place_levels
        if worst is not None and most is not None and worst > most:
            return f"a place of its pictures differs by {worst:.0f} levels, more than the limit of {most:g}"
        limit = self.goal.max_quality_drop
        if isinstance(quality, Quality) or not quality.drop.may_exceed(limit):
            return None
        upper = "too few pairs for a bound" if quality.drop.upper is None else f"up to {quality.drop.upper:.2f}"
        return f"its quality drops by {quality.drop.mean:.2f} ({upper}), and the limit is {limit:g}"

    def _confirm_unless_held(self, trial: Trial) -> Confirmation | Failure | None:
        """As _confirm; while a child is held, only what is on disk. None where a run would be needed."""
        if self.held is not None:
            return self._confirmed(trial)
        try:
            return self._confirm(trial)
        except ChildHeld as error:
            self.held = error
            return None

    def _confirmed(self, trial: Trial) -> Confirmation | None:
        """What is on disk already; None: nothing."""
        kept = self.folder.confirmation(trial.number)
        if not kept.exists():
            return None
        return Confirmation.parse(read_json(kept, "confirmation"), f"the confirmation {str(kept)!r}")

    def _is_whole(self, found: Confirmation) -> bool:
        """A quick one goes on where full care is asked for, and one whose second card was lost is tried there again."""
        lost = found.second_card is not None and found.second_card.fault is not None
        return (self.plan.quick or not found.quick) and not lost

    def _confirm(self, trial: Trial) -> Confirmation | Failure:
        """Measure the speed, then compare pictures. What is on disk already is read."""
        found = self._confirmed(trial)
        if found is not None and self._is_whole(found):
            return found
        kept = self.folder.confirmation(trial.number)
        began, rounds = time.monotonic(), self._rounds(trial, self.runner, kept.parent)
        pairs = self._measure(rounds, trial)
        if isinstance(pairs, Failure):
            return pairs
        confirmation, took_s = self._confirmation(pairs), time.monotonic() - began
        if self._why_not_as_fast(trial, confirmation) is None:
            quality = self._draw_and_judge(trial)
            if isinstance(quality, Failure):
                return quality
            beside = self._beside_single(trial)
            second = self._on_second_card(trial, rounds.cards, took_s)
            if isinstance(second, Failure):
                return second
            more = {"quality": quality, "beside_single": beside, "second_card": second}
            confirmation = confirmation.model_copy(update=more)
        write_json(kept, confirmation.to_json())
        return confirmation

    def _on_second_card(
        self, trial: Trial, cards: Sequence[UsedCard | None], took_s: float
    ) -> OnSecondCard | Failure | None:
        """The same rounds on another card than these, if they take no longer than all trials together.

        None: there is no other card, or no time. What is not the trial's fault costs these rounds alone: it is told,
        and the same command tries them again. A Failure: the trial itself has failed there.
        """
        searched_s = sum(done.seconds for done in self.study.trials)
        second = self.runner.elsewhere(cards) if not self.plan.quick and took_s <= searched_s else None
        if second is None:
            return None
        parent = self.folder.confirmation(trial.number).parent / "second-card"
        rounds = self._rounds(trial, second, parent, on_second_card=True)
        try:
            pairs = self._measure(rounds, trial)
        except UserError as error:  # its card is lost, or the cluster
            return self._not_on(second, str(error))
        if isinstance(pairs, Failure):
            if rounds.failed == "second" and pairs.cause not in {*NOT_THE_CONFIG, "environment"}:
                return pairs
            what = "the baseline" if rounds.failed == "first" else "the pick"
            return self._not_on(second, f"{what} could not be measured there ({pairs.cause}: {pairs.reason})")
        return OnSecondCard(
            card=", ".join(dict.fromkeys(card.name for card in rounds.cards if card)),
            baseline_latency_s=tuple(baseline.latency_s for baseline, _ in pairs),
            tuned_latency_s=tuple(tuned.latency_s for _, tuned in pairs),
        )

    def _not_on(self, second: Runner, fault: str) -> OnSecondCard:
        card = second.where.name if second.where else None
        self.listen(CardTold(card or "a second card", f"the pick stands as confirmed on one card: {fault}"))
        return OnSecondCard(card=card, fault=fault)

    def _rounds(self, trial: Trial, runner: Runner, parent: Path, *, on_second_card: bool = False) -> Rounds:
        """Of the baseline and the trial. A round of a command that was cut short is kept."""
        sides: dict[Side, Trial] = {"first": self.study.baseline, "second": trial}

        def begin(number: int) -> None:
            self.listen(Confirming(trial, number, on_second_card))

        return Rounds(runner, sides, parent, self.study.trials, begin)

    def _measure(self, rounds: Rounds, trial: Trial) -> list[Pair] | Failure:
        """A quick one ends where its interval would tell the trial's first speedup from none."""
        if not self.plan.quick:
            isolate.close()  # the fork server's half a gigabyte is not held while the pick is timed
            return rounds.measure(least=self.plan.rounds)
        first, baseline = trial.measured, self.study.baseline.measured
        assert first is not None
        assert baseline is not None
        speedup = baseline.latency_s * trial.drift / first.latency_s
        return rounds.measure(least=self.plan.rounds, most=QUICK_TIMES * self.plan.rounds, to_be_told=speedup)

    def _confirmation(self, pairs: list[Pair]) -> Confirmation:
        shapes = self.study.record.target.workload.shapes
        rounds = zip(*(tuned.latencies_s for _, tuned in pairs), strict=True)
        return Confirmation(
            baseline_latency_s=tuple(baseline.latency_s for baseline, _ in pairs),
            tuned_latency_s=tuple(tuned.latency_s for _, tuned in pairs),
            tuned_latency_at_s=dict(zip(map(str, shapes), rounds, strict=True)) if len(shapes) > 1 else {},
            quick=self.plan.quick,
        )

    def _draw_and_judge(self, trial: Trial) -> ConfirmedQuality | Failure | None:
        """Draw pictures with both configs over `plan.pairs` prompts and seeds, and judge the trial's by the baseline's.

        None where there is time for no more pairs than the search has drawn.
        """
        usual = QUICK_PAIRS if self.plan.quick else PAIRS
        wanted = usual if self.plan.pairs is None else self.plan.pairs
        affordable = wanted if self.plan.pairs is not None else min(wanted, self._affordable(trial))
        record = self.study.record
        if affordable <= len(record.target.workload.prompts):
            return None if trial.pictures_of == trial.number else self._in_its_own_pictures(trial)
        workload = more_pairs(record.target.workload, record.all_prompts, affordable)
        self.listen(Confirming(trial, 0))
        reference = self.folder.confirmation(0).parent / f"{affordable}-pairs"
        baseline = self._drawn(self.study.baseline, workload, reference, reference)
        place = self.folder.confirmation(trial.number).parent / reference.name
        tuned = baseline if isinstance(baseline, Failure) else self._drawn(trial, workload, place, reference)
        if isinstance(tuned, Failure):
            return tuned
        assert isinstance(baseline, Quality)
        return ConfirmedQuality(
            metric=tuned.metric,
            drop=paired(tuned.drops(baseline)),
            prompts=len(set(workload.prompts)),
            ssim_mean=tuned.ssim_mean,
            ssim_worst=tuned.ssim_worst,
            worst_place_levels=tuned.worst_place_levels,
            temporal_mean_levels=tuned.temporal_mean_levels,
            shortened_from=wanted if affordable < wanted else None,
        )

    def _beside_single(self, trial: Trial) -> BesideSingle | None:
        """Draw the search's pictures one a call, and compare them with those of its batch; None: its batch is 1."""
        workload = self.study.record.target.workload
        if workload.batch == 1:
            return None
        parent, reference = self.folder.confirmation(trial.number).parent, self.folder.trial(trial.number)
        if trial.pictures_of != trial.number:  # it has no pictures of its own in the search
            reference = parent / "own-pictures"
            own = self._drawn(trial, workload.at(workload.shapes[0]), reference, self.folder.trial(0))
            if isinstance(own, Failure):
                return BesideSingle(batch=workload.batch, fault=own.reason)
        self.listen(Confirming(trial, 0))
        alone = workload.model_copy(update={"batch": 1, "also": ()})
        found = self._drawn(trial, alone, parent / "one-a-call", reference)
        if isinstance(found, Failure):
            return BesideSingle(batch=workload.batch, fault=found.reason)
        return BesideSingle(
            batch=workload.batch,
            pictures=len(found.ssim),
            equal=sum(psnr is None for psnr in found.psnr_db),
            ssim_mean=found.ssim_mean,
            ssim_worst=found.ssim_worst,
        )

    def _in_its_own_pictures(self, trial: Trial) -> Failure | None:
        """Draw the search's pictures with a pick that was judged by another trial's pictures.

        A Failure where its own pictures lose more quality than the limit allows.
        """
        workload, baseline = self.study.record.target.workload, self.study.baseline.measured
        self.listen(Confirming(trial, 0))
        place = self.folder.confirmation(trial.number).parent / "own-pictures"
        quality = self._drawn(trial, workload.at(workload.shapes[0]), place, self.folder.trial(0))
        if isinstance(quality, Failure):
            return quality
        assert baseline is not None
        assert baseline.quality is not None
        loss = quality.loss(baseline.quality)
        if loss > self.goal.max_quality_drop:
            return Failure(cause="broken_output", reason=f"its own pictures lose {loss:.2f}, another trial's did not")
        worse = self._why_not_as_good(quality)
        return None if worse is None else Failure(cause="broken_output", reason=worse)

    def _drawn(self, trial: Trial, workload: Workload, place: Path, reference: Path) -> Quality | Failure:
        """The quality of the trial's pictures, drawn now unless the result is on disk."""
        kept = place / "quality.json"
        if kept.exists():
            return Quality.parse(read_json(kept, "quality"), f"the quality {str(kept)!r}")
        quality = self.runner.draw(place, trial.config, workload, reference, earlier=self.study.trials)
        if isinstance(quality, Quality):
            write_json(kept, quality.to_json())
        return quality

    def _affordable(self, trial: Trial) -> int:
        """The number of pairs of pictures that take no longer to draw than the search took."""
        baseline = self.study.baseline.measured
        assert baseline is not None
        assert trial.measured is not None
        batch = self.study.record.target.workload.batch
        seconds_a_pair = (baseline.latencies_s[0] + trial.measured.latencies_s[0]) / batch
        searched_s = sum(done.seconds for done in self.study.trials)
        return int(max(searched_s, LEAST_DRAWING_S) / seconds_a_pair)


def more_pairs(workload: Workload, prompts: tuple[str, ...], pairs: int) -> Workload:
    """The main size of the workload for this many pairs: all prompts, then all again with other seeds.

    The seeds are new even for the search's own prompts: a pick that was lucky with the search's pairs meets none again.
    """
    first = workload.at(workload.shapes[0])
    fresh = {"prompts": tuple(islice(cycle(prompts), pairs)), "seed": (workload.seed + 1_000_003) % 2**32, "seeds": ()}
    return first.model_copy(update=fresh)
