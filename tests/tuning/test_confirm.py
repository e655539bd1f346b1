"""The pick is measured and looked at again before it is exported: what does not hold up is not. No processes here."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import pytest
from conftest import make_target
from made_up import failed, measured, record, shared

from autotune.config import Config
from autotune.device import UsedCard
from autotune.errors import UserError
from autotune.execution.isolate import ChildHeld
from autotune.goal import Goal, Minimise
from autotune.knobs import complete
from autotune.measurement import Measurement, Quality
from autotune.study.space import make_space
from autotune.study.space_file import SpaceFile
from autotune.study.study import Study
from autotune.study_folder import StudyFolder
from autotune.trial import Cause, Failure, Trial
from autotune.tuning.confirm import PAIRS, QUICK_PAIRS, QUICK_ROUNDS, ConfirmationPlan, Confirmer, more_pairs
from autotune.tuning.events import CardTold, Confirming, NotConfirmed
from autotune.tuning.export import about
from autotune.workload import Workload


class Again:
    """A runner that answers with the latencies that a config really has, and counts its calls.

    losses  what the pictures of a config really lose, in points; a pair in two loses twice as much, the other nothing
    """

    def __init__(
        self, truth: dict[Config, float], also: tuple[float, ...] = (), losses: dict[Config, float] | None = None
    ) -> None:
        self.truth, self.also, self.losses, self.calls = truth, also, losses or {}, 0
        self.outcomes: dict[Path, Measurement] = {}
        self.killed_at = 0
        self.killed_by: BaseException = KeyboardInterrupt()
        self.drawn: list[tuple[Config, Workload]] = []
        self.where: UsedCard | None = None
        self.on: dict[Path, UsedCard | None] = {}
        self.second: Any = None
        self.cause: Cause = "error"
        self.first: list[UsedCard | None] = []

    def elsewhere(self, cards: Sequence[UsedCard | None]) -> Any:
        self.first = list(cards)
        return self.second

    def run(self, place: Path, config: Config, *, pictures: bool, earlier: Sequence[Trial]) -> Measurement | Failure:
        self.calls += 1
        if self.calls == self.killed_at:
            raise self.killed_by
        place.mkdir(parents=True, exist_ok=True)
        if self.truth[config] <= 0:
            return failed(0, cause=self.cause).outcome
        outcome = measured(0, latency_s=self.truth[config], also=self.also).outcome
        assert isinstance(outcome, Measurement)
        self.outcomes[place], self.on[place] = outcome, self.where
        return outcome

    def finished(self, place: Path, config: Config, *, earlier: object = ()) -> Measurement | None:
        self.where = self.on.get(place, self.where)
        return self.outcomes.get(place)

    def draw(
        self, place: Path, config: Config, workload: Workload, reference: Path, *, earlier: Sequence[Trial]
    ) -> Quality | Failure:
        place.mkdir(parents=True, exist_ok=True)
        self.drawn.append((config, workload))
        scores = [30.0 - (i % 2) * 2 * self.losses.get(config, 0.0) for i in range(len(workload.prompts))]
        same = [1.0] * len(scores)
        return Quality(metric="clip", scorer="demo@0", clip_scores=tuple(scores), ssim=tuple(same), psnr_db=(None,))


FAST, FASTER = {"dtype": "bf16"}, {"dtype": "bf16", "memory_format": "channels_last"}
CONFIGS: tuple[dict[str, Any], ...] = ({}, FAST, FASTER)


def confirmer(
    folder: Path,
    runner: Any,
    *,
    goal: Goal | None = None,
    sizes: int = 1,
    pairs: int | None = 0,
    quick: bool = False,
) -> tuple[Confirmer, list[Any]]:
    """Of the study in this folder, which may be new, and what it says while it works."""
    target = make_target(sizes=sizes)
    space = make_space(target, SpaceFile(), fix={}, exclude=(), baseline=complete({}))
    folder.mkdir(exist_ok=True)
    study = Study(StudyFolder(folder), record(target, goal=goal, space=space.values), space)
    events: list[Confirming] = []
    plan = ConfirmationPlan.of(3, pairs, quick=quick)
    return Confirmer(study.folder, study, runner, plan, events.append), events


def confirm(
    folder: Path,
    truth: tuple[float, float, float],
    *,
    goal: Goal | None = None,
    also: tuple[float, ...] = (),
    losses: tuple[float, float, float] = (0.0, 0.0, 0.0),
    pairs: int | None = 0,
) -> tuple[Any, Again, list[Confirming]]:
    """At first the baseline took 1.0 s, FAST 0.8 s and FASTER 0.5 s; `truth` is what they take when measured again.

    also    what every config takes at each of the workload's other sizes
    losses  what the pictures of each really lose; none of them lost anything at first
    """
    configs = [complete(values) for values in CONFIGS]
    again = Again(dict(zip(configs, truth, strict=True)), also, dict(zip(configs, losses, strict=True)))
    ours, events = confirmer(folder, again, goal=goal, sizes=1 + len(also), pairs=pairs)
    for number, (values, latency_s) in enumerate(zip(CONFIGS, (1.0, 0.8, 0.5), strict=True)):
        ours.study.tell(measured(number, values, latency_s=latency_s, also=also))
    return ours.best(), again, events


def test_a_pick_that_holds_up_is_confirmed_in_turn_with_the_baseline(tmp_path: Path) -> None:
    (best, confirmation), again, events = confirm(tmp_path, (1.0, 0.8, 0.5))
    assert best.number == 2
    assert confirmation.verdict.word == "FASTER"
    assert confirmation.verdict.speedup == pytest.approx(2.0)
    assert again.calls == 6
    assert [event.round for event in events if isinstance(event, Confirming)] == [1, 2, 3]


@pytest.mark.parametrize(("killed_at", "rounds_left"), [(1, [1, 2, 3]), (4, [2, 3]), (6, [3])])
def test_a_confirmation_that_was_killed_goes_on_with_its_first_unfinished_round(
    tmp_path: Path, killed_at: int, rounds_left: list[int]
) -> None:
    """The 2nd, 4th and 6th measurement end a round. Of half a round, both sides are measured again."""
    configs = [complete(values) for values in CONFIGS]
    again = Again(dict(zip(configs, (1.0, 0.8, 0.5), strict=True)))
    ours, _ = confirmer(tmp_path, again)
    for number, (values, latency_s) in enumerate(zip(CONFIGS, (1.0, 0.8, 0.5), strict=True)):
        ours.study.tell(measured(number, values, latency_s=latency_s))
    again.killed_at = killed_at
    with pytest.raises(KeyboardInterrupt):
        ours.best()
    again.calls, again.killed_at = 0, 0
    ours, events = confirmer(tmp_path, again)
    best, confirmation = ours.best()
    assert best.number == 2
    assert confirmation is not None
    assert len(confirmation.tuned_latency_s) == 3
    assert [event.round for event in events] == rounds_left
    assert again.calls == 2 * len(rounds_left)


class Hanging(Again):
    """A runner whose child can't be ended in the `hangs_at`-th call, with the config that it ran."""

    hangs_at = 1

    def run(self, place: Path, config: Config, **how: Any) -> Measurement | Failure:
        if self.calls + 1 == self.hangs_at:
            self.calls += 1
            raise ChildHeld("a child can't be ended.", "it can't be ended", config)
        assert self.calls < self.hangs_at, "a child is started beside one that hangs"
        return super().run(place, config, **how)


@pytest.mark.parametrize(
    ("hangs_at", "picked"),
    [(1, FASTER), (2, FAST), (3, FAST)],  # the baseline's first run, FASTER's two; the order of a round alternates
)
def test_a_child_that_can_not_be_ended_leaves_the_best_by_first_figures_but_not_what_hung(
    tmp_path: Path, hangs_at: int, picked: dict[str, Any]
) -> None:
    configs = [complete(values) for values in CONFIGS]
    runner = Hanging(dict(zip(configs, (1.0, 0.8, 0.5), strict=True)))
    runner.hangs_at = hangs_at
    ours, _ = confirmer(tmp_path, runner)
    for number, (values, latency_s) in enumerate(zip(CONFIGS, (1.0, 0.8, 0.5), strict=True)):
        ours.study.tell(measured(number, values, latency_s=latency_s))
    best, confirmation = ours.best()
    assert (best.config, confirmation) == (complete(picked), None)
    assert str(ours.held) == "a child can't be ended."
    assert runner.calls == hangs_at


def test_while_a_child_hangs_an_earlier_confirmation_holds_and_nothing_is_run(tmp_path: Path) -> None:
    (best, confirmation), again, _ = confirm(tmp_path, (1.0, 0.8, 1.1))
    assert (best.number, again.calls) == (1, 12)  # trial 2 was rejected by its own confirmation
    ours, _ = confirmer(tmp_path, Hanging({}))
    ours.held = ChildHeld("a child can't be ended.", "it can't be ended", None)
    assert ours.best() == (best, confirmation)


def test_a_child_that_can_not_be_ended_is_the_error_where_no_config_keeps_the_limits(tmp_path: Path) -> None:
    ours, _ = confirmer(tmp_path, Hanging({}), goal=Goal(max_quality_drop=0.3, max_latency_s=0.1))
    ours.study.tell(measured(0))
    ours.held = ChildHeld("a child can't be ended.", "it can't be ended", None)
    with pytest.raises(ChildHeld):
        ours.best()


@pytest.mark.parametrize(("there_s", "picked"), [(0.55, FASTER), (1.3, FAST)])
def test_a_pick_is_confirmed_on_a_second_card_where_there_is_one(
    tmp_path: Path, there_s: float, picked: dict[str, Any]
) -> None:
    """It gives way where the second card shows it to be slower."""
    configs = [complete(values) for values in CONFIGS]
    runner = Again(dict(zip(configs, (1.0, 0.8, 0.5), strict=True)))
    runner.second = Again(dict(zip(configs, (1.1, 0.9, there_s), strict=True)))
    runner.second.where = UsedCard(name="b/gpu-0")
    ours, _ = confirmer(tmp_path, runner)
    for number, (values, latency_s) in enumerate(zip(CONFIGS, (1.0, 0.8, 0.5), strict=True)):
        ours.study.tell(measured(number, values, latency_s=latency_s))
    best, confirmation = ours.best()
    assert best.config == complete(picked)
    assert confirmation is not None
    assert confirmation.second_card is not None
    assert confirmation.second_card.card == "b/gpu-0"
    assert confirmation.second_card.verdict is not None
    assert confirmation.second_card.verdict.word == "FASTER"


def lost(runner: Again, truth: tuple[float, float, float]) -> None:
    runner.killed_at, runner.killed_by = 3, UserError("its card is gone.")


def noisy(runner: Again, truth: tuple[float, float, float]) -> None:
    runner.truth[complete(FASTER)] = 0.0
    runner.cause = "noisy"


def without_baseline(runner: Again, truth: tuple[float, float, float]) -> None:
    runner.truth[complete({})] = 0.0


@pytest.mark.parametrize(
    ("fails", "why"),
    [
        (lost, "its card is gone."),
        (noisy, "the pick could not be measured there (noisy: made up"),
        (without_baseline, "the baseline could not be measured there (error: made up"),
    ],
)
def test_a_second_card_that_is_lost_costs_its_rounds_alone_and_is_tried_again_by_the_same_command(
    tmp_path: Path, fails: Any, why: str
) -> None:
    configs = [complete(values) for values in CONFIGS]
    runner = Again(dict(zip(configs, (1.0, 0.8, 0.5), strict=True)))
    runner.where = UsedCard(name="a/gpu-0")
    runner.second = Again(dict(runner.truth))
    runner.second.where = UsedCard(name="b/gpu-0")
    fails(runner.second, runner.truth)
    ours, events = confirmer(tmp_path, runner)
    for number, (values, latency_s) in enumerate(zip(CONFIGS, (1.0, 0.8, 0.5), strict=True)):
        ours.study.tell(measured(number, values, latency_s=latency_s))
    best, confirmation = ours.best()
    assert best.config == complete(FASTER)
    assert confirmation is not None
    assert confirmation.is_faster
    assert confirmation.second_card is not None
    assert confirmation.second_card.card == "b/gpu-0"
    assert (confirmation.second_card.fault or "").startswith(why)
    assert confirmation.second_card.verdict is None
    told = [(event.card, event.says) for event in events if isinstance(event, CardTold)]
    rounds = [event.on_second_card for event in events if isinstance(event, Confirming)]
    assert rounds[:4] == [False, False, False, True]
    assert told == [("b/gpu-0", f"the pick stands as confirmed on one card: {confirmation.second_card.fault}")]
    runner.second = Again(dict(zip(configs, (1.0, 0.8, 0.5), strict=True)))
    runner.second.where = UsedCard(name="b/gpu-1")
    calls = runner.calls
    again = Confirmer(ours.folder, ours.study, cast(Any, runner), ours.plan, events.append)
    best, confirmation = again.best()
    assert (best.config, runner.calls, runner.second.calls) == (complete(FASTER), calls, 6)
    assert runner.first == [UsedCard(name="a/gpu-0")] * 3, "the cards of rounds that are read from disk are known"
    assert confirmation is not None
    assert confirmation.second_card is not None
    assert (confirmation.second_card.card, confirmation.second_card.fault) == ("b/gpu-1", None)


def test_a_pick_that_fails_by_its_own_fault_on_a_second_card_is_not_exported(tmp_path: Path) -> None:
    configs = [complete(values) for values in CONFIGS]
    runner = Again(dict(zip(configs, (1.0, 0.8, 0.5), strict=True)))
    runner.second = Again(dict(zip(configs, (1.0, 0.8, 0.0), strict=True)))
    ours, _ = confirmer(tmp_path, runner)
    for number, (values, latency_s) in enumerate(zip(CONFIGS, (1.0, 0.8, 0.5), strict=True)):
        ours.study.tell(measured(number, values, latency_s=latency_s))
    assert ours.best()[0].config == complete(FAST)


def test_a_round_whose_card_is_gone_after_its_first_side_begins_again(tmp_path: Path) -> None:
    class Moving(Again):
        def run(self, *args: Any, **options: Any) -> Any:
            # the card of the second round's first side is gone
            self.where = UsedCard(name="a/gpu-0" if self.calls < 3 else "b/gpu-0")
            return super().run(*args, **options)

    configs = [complete(values) for values in CONFIGS]
    runner = Moving(dict(zip(configs, (1.0, 0.8, 0.5), strict=True)))
    ours, events = confirmer(tmp_path, runner)
    for number, (values, latency_s) in enumerate(zip(CONFIGS, (1.0, 0.8, 0.5), strict=True)):
        ours.study.tell(measured(number, values, latency_s=latency_s))
    _, confirmation = ours.best()
    assert confirmation is not None
    assert len(confirmation.tuned_latency_s) == 3
    assert runner.calls == 8, "three rounds of two sides, the second one twice"
    assert [event.round for event in events] == [1, 2, 3]


def test_a_pick_that_was_lucky_gives_way_to_the_next_best(tmp_path: Path) -> None:
    (best, confirmation), _, _ = confirm(tmp_path, (1.0, 0.8, 1.0))
    assert best.number == 1
    assert confirmation.verdict.speedup == pytest.approx(1.25)


def reasons(events: list[Any]) -> dict[int, str]:
    return {event.trial.number: event.why for event in events if isinstance(event, NotConfirmed)}


def test_each_candidate_that_does_not_hold_up_is_told_with_its_reason(tmp_path: Path) -> None:
    (best, _), _, events = confirm(tmp_path / "slow", (1.0, 1.0, 1.3))
    assert best.number == 0
    assert reasons(events) == {
        2: "it is not seen to be faster than the baseline (0.77x, 0.76 to 0.78)",
        1: "it is not seen to be faster than the baseline (1.00x, 0.99 to 1.01)",
    }
    kept = StudyFolder(tmp_path / "slow")
    assert kept.not_confirmed(2).read_text() == reasons(events)[2] + "\n"
    (best, _), _, events = confirm(tmp_path / "worse", (1.0, 0.8, 0.5), losses=(0.0, 0.0, 2.0), pairs=64)
    assert best.number == 1
    assert re.fullmatch(r"its quality drops by 2\.00 \(up to 2\.\d\d\), and the limit is 0\.3", reasons(events)[2])
    goal = Goal(max_quality_drop=0.3, max_latency_s=0.85)
    (best, _), _, events = confirm(tmp_path / "limit", (1.2, 0.8, 0.9), goal=goal)
    assert best.number == 1
    assert reasons(events) == {2: "a call takes 0.9 s, more than the limit of 0.85 s"}
    (best, _), _, events = confirm(tmp_path / "fails", (1.0, 0.8, -1.0))
    assert re.fullmatch(r"its confirmation failed \(\w+: .*\)", reasons(events)[2])


def test_a_gain_of_less_than_one_percent_is_none(tmp_path: Path) -> None:
    (best, confirmation), _, _ = confirm(tmp_path, (1.0, 0.995, 0.995))
    assert (best.number, confirmation) == (0, None)


def test_a_pick_that_fails_when_it_is_measured_again_is_not_exported(tmp_path: Path) -> None:
    (best, _), _, _ = confirm(tmp_path, (1.0, 0.8, -1.0))
    assert best.number == 1


def test_a_limit_on_latency_holds_for_the_confirmed_figure(tmp_path: Path) -> None:
    goal = Goal(max_quality_drop=0.3, max_latency_s=0.85)
    (best, _), _, _ = confirm(tmp_path, (1.2, 0.8, 0.9), goal=goal)
    assert best.number == 1


def test_of_several_sizes_all_are_measured_again_and_their_sum_decides(tmp_path: Path) -> None:
    (best, confirmation), _, _ = confirm(tmp_path, (1.0, 0.8, 0.5), also=(0.25,))
    assert best.number == 2
    assert confirmation.baseline_latency_s == (1.25,) * 3
    assert confirmation.tuned_latency_s == (0.75,) * 3
    assert confirmation.tuned_latency_at_s == {"64x64@1": (0.5,) * 3, "96x96@2": (0.25,) * 3}


def limited(latency_s: float, minimise: Minimise) -> Goal:
    return Goal(max_quality_drop=0.3, max_latency_s=latency_s, minimise=minimise)


def test_a_limit_on_the_sum_holds_for_the_confirmed_sum(tmp_path: Path) -> None:
    """FASTER kept it at first, with 1.35 s; the others never did."""
    with pytest.raises(UserError, match="no config keeps the limits"):
        confirm(tmp_path, (1.0, 0.8, 0.6), also=(0.85,), goal=limited(1.4, "sum"))


def test_a_limit_on_each_size_holds_for_the_confirmed_latency_of_the_slowest(tmp_path: Path) -> None:
    (best, _), _, _ = confirm(tmp_path / "holds", (1.0, 0.8, 0.6), also=(0.85,), goal=limited(0.9, "each"))
    assert best.number == 2
    (best, _), _, _ = confirm(tmp_path / "not", (1.8, 0.8, 0.95), also=(0.85,), goal=limited(0.9, "each"))
    assert best.number == 1


def test_what_was_confirmed_is_not_measured_again(tmp_path: Path) -> None:
    confirm(tmp_path, (1.0, 0.8, 0.5))
    assert StudyFolder(tmp_path).confirmation(2).exists()
    again = Again({})
    resumed, _ = confirmer(tmp_path, again)
    assert resumed.best()[0].number == 2
    assert again.calls == 0


def test_a_pick_whose_pictures_are_worse_over_more_pairs_gives_way(tmp_path: Path) -> None:
    """Promise 12: at first nothing was lost; over 128 pairs FASTER may lose more than the 0.3 points allowed."""
    (best, confirmation), again, _ = confirm(tmp_path, (1.0, 0.8, 0.5), losses=(0.0, 0.1, 0.4), pairs=PAIRS)
    assert best.number == 1
    assert confirmation.quality.drop.n == PAIRS
    assert confirmation.quality.drop.mean == pytest.approx(0.1)
    assert not confirmation.quality.drop.may_exceed(0.3)
    assert [config for config, _ in again.drawn] == [complete({}), complete(FASTER), complete(FAST)]  # baseline once


def test_a_loss_below_the_limit_is_rejected_where_too_few_pairs_can_tell(tmp_path: Path) -> None:
    (best, _), _, _ = confirm(tmp_path / "few", (1.0, 1.0, 0.5), losses=(0.0, 0.0, 0.25), pairs=4)
    assert best.number == 0
    (best, _), _, _ = confirm(tmp_path / "many", (1.0, 1.0, 0.5), losses=(0.0, 0.0, 0.25), pairs=512)
    assert best.number == 2


def test_a_pick_with_a_band_in_its_pictures_is_rejected(tmp_path: Path) -> None:
    """The search's few pictures had none; of the confirmation's, one row differs by more than the limit."""

    class Banded(Again):
        def draw(self, place: Path, config: Config, *rest: Any, **more: Any) -> Any:
            drawn: Any = super().draw(place, config, *rest, **more)
            levels = 60.0 if config == complete(FASTER) else 3.0
            return drawn.model_copy(update={"worst_row_levels": (levels,)})

    again = Banded(dict(zip([complete(values) for values in CONFIGS], (1.0, 0.8, 0.5), strict=True)))
    goal = Goal(max_quality_drop=0.3, max_worst_place_levels=40)
    ours, _ = confirmer(tmp_path, again, goal=goal, pairs=PAIRS)
    for number, (values, latency_s) in enumerate(zip(CONFIGS, (1.0, 0.8, 0.5), strict=True)):
        ours.study.tell(measured(number, values, latency_s=latency_s))
    best, confirmation = ours.best()
    assert best.number == 1
    assert confirmation is not None
    assert confirmation.quality is not None
    assert confirmation.quality.worst_place_levels == 3.0


def test_pictures_are_drawn_only_of_what_is_still_faster(tmp_path: Path) -> None:
    _, again, _ = confirm(tmp_path, (1.0, 0.8, 1.0), pairs=PAIRS)
    assert complete(FASTER) not in [config for config, _ in again.drawn]


def test_fewer_pairs_than_usual_are_said_to_be_fewer(tmp_path: Path) -> None:
    """128 pairs of 30 s and 24 s would take two hours; the search took seconds."""
    again = Again({complete({}): 30.0, complete(FAST): 24.0})
    ours, _ = confirmer(tmp_path, again, pairs=None)
    for number, (values, latency_s) in enumerate((({}, 30.0), (FAST, 24.0))):
        ours.study.tell(measured(number, values, latency_s=latency_s))
    _, confirmation = ours.best()
    assert confirmation is not None
    assert confirmation.quality is not None
    assert (confirmation.quality.drop.n, confirmation.quality.shortened_from) == (11, PAIRS)


@pytest.mark.parametrize(("first_s", "rounds"), [(0.55, 4), (0.9, 6)], ids=["told by four", "told by none"])
def test_a_quick_confirmation_takes_more_rounds_where_noise_would_hide_the_first_speedup(
    tmp_path: Path, first_s: float, rounds: int
) -> None:
    """A machine whose speed changes from process to process: three rounds reach from 0.9 to 4 times the speed."""

    class Unsteady(Again):
        seen = iter((0.29, 0.38, 0.21, 0.28, 0.31, 0.30))

        def run(self, place: Path, config: Config, **more: Any) -> Measurement | Failure:
            self.truth[complete(FASTER)] = next(self.seen) if config == complete(FASTER) else 0.0
            return super().run(place, config, **more)

    runner = Unsteady({complete({}): 0.55, complete(FASTER): 0.0})
    quick, _ = confirmer(tmp_path, runner, pairs=0, quick=True)
    quick.study.tell(measured(0, CONFIGS[0], latency_s=1.0))
    quick.study.tell(measured(1, FASTER, latency_s=first_s))
    best, confirmation = quick.best()
    assert best.number == 1
    assert confirmation is not None
    assert len(confirmation.tuned_latency_s) == rounds


def test_a_quick_confirmation_says_so_and_goes_on_where_full_care_is_asked_for(tmp_path: Path) -> None:
    again = Again({complete({}): 1.0, complete(FAST): 0.8, complete(FASTER): 0.5})
    quick, _ = confirmer(tmp_path, again, pairs=None, quick=True)
    for number, (values, latency_s) in enumerate(zip(CONFIGS, (1.0, 0.8, 0.5), strict=True)):
        quick.study.tell(measured(number, values, latency_s=latency_s))
    best, confirmation = quick.best()
    assert confirmation is not None
    assert confirmation.quality is not None
    assert (confirmation.quick, len(confirmation.tuned_latency_s)) == (True, QUICK_ROUNDS)
    assert confirmation.quality.drop.n == QUICK_PAIRS
    assert "without --quick" in about(best, quick.study.baseline, confirmation)
    assert confirmer(tmp_path, again, pairs=None, quick=True)[0].best() == (best, confirmation)
    calls = again.calls
    _, careful = confirmer(tmp_path, again, pairs=None)[0].best()
    assert careful is not None
    assert careful.quality is not None
    assert (careful.quick, len(careful.tuned_latency_s), careful.quality.drop.n) == (False, 3, PAIRS)
    assert again.calls == calls, "rounds that were timed alike are kept"
    assert "--quick" not in about(best, quick.study.baseline, careful)


def test_the_pairs_of_the_confirmation_are_new_ones() -> None:
    workload = make_target().workload.model_copy(update={"prompts": ("a", "b")})
    more = more_pairs(workload, ("a", "b", "c"), 8)
    assert more.prompts == ("a", "b", "c", "a", "b", "c", "a", "b")
    seeds = [seed for _, call in more.calls() for seed in call]
    assert len(set(seeds)) == 8
    assert not set(seeds) & {seed for _, call in workload.calls() for seed in call}


@pytest.mark.parametrize(
    ("own", "loses", "best"), [(True, 0.0, 1), (False, 0.0, 1), (False, 1.0, 0)], ids=["own", "same", "worse"]
)
def test_a_pick_whose_pictures_are_anothers_must_hold_up_in_its_own(
    tmp_path: Path, own: bool, loses: float, best: int
) -> None:
    """Even where no more pairs are asked for than the search has drawn."""
    config = complete(FASTER)
    again = Again({complete({}): 1.0, config: 0.5}, losses={config: loses})
    ours, _ = confirmer(tmp_path, again, pairs=0, goal=Goal(max_quality_drop=1.0))
    target = ours.study.record.target
    workload = target.workload.model_copy(update={"prompts": ("one", "two")})
    two = {"target": target.model_copy(update={"workload": workload})}
    ours.study.record = ours.study.record.model_copy(update=two)
    ours.study.tell(measured(0))
    ours.study.tell(measured(1, FASTER, latency_s=0.5) if own else shared(1, 0, FASTER, latency_s=0.5))
    found, confirmation = ours.best()
    assert found.number == best
    assert again.drawn == ([] if own else [(config, workload)])
    assert confirmation is None or confirmation.quality is None, "the same prompts again are no confirmation"


class InBatches(Again):
    """Of two pictures drawn one a call, one is that of the batch, and the other differs a little."""

    fault: Failure | None = None

    def draw(
        self, place: Path, config: Config, workload: Workload, reference: Path, *, earlier: Sequence[Trial]
    ) -> Quality | Failure:
        drawn = super().draw(place, config, workload, reference, earlier=earlier)
        if workload.batch > 1:
            return drawn
        self.reference = reference
        return self.fault or Quality(metric="likeness", scorer=None, ssim=(1.0, 0.98), psnr_db=(None, 41.0))


@pytest.mark.parametrize("fault", [None, Failure(cause="out_of_memory", reason="too large")])
def test_pictures_of_a_batch_are_compared_with_those_of_single_calls(tmp_path: Path, fault: Failure | None) -> None:
    target = make_target(batch=4)
    space = make_space(target, SpaceFile(), fix={}, exclude=(), baseline=complete({}))
    study = Study(StudyFolder(tmp_path), record(target, space=space.values), space)
    study.tell(measured(0))
    study.tell(measured(1, FAST, latency_s=0.5))
    runner = InBatches({complete({}): 1.0, complete(FAST): 0.5})
    runner.fault = fault
    plan = ConfirmationPlan.of(2, 0, quick=False)
    best, confirmation = Confirmer(study.folder, study, cast("Any", runner), plan, lambda event: None).best()
    assert best.number == 1
    assert confirmation is not None
    beside = confirmation.beside_single
    assert beside is not None
    (alone,) = [(config, workload) for config, workload in runner.drawn if workload.batch == 1]
    assert alone == (complete(FAST), target.workload.model_copy(update={"batch": 1}))
    assert runner.reference == study.folder.trial(1)
    if fault is not None:
        assert (beside.batch, beside.fault, beside.ssim_mean) == (4, "too large", None)
    else:
        assert beside.ssim_mean == pytest.approx(0.99)
        assert (beside.batch, beside.pictures, beside.equal, beside.ssim_worst) == (4, 2, 1, 0.98)


def test_a_workload_of_single_pictures_is_not_compared_with_itself(tmp_path: Path) -> None:
    (_, confirmation), again, _ = confirm(tmp_path, (1.0, 0.8, 0.5))
    assert confirmation.beside_single is None
    assert again.drawn == []
