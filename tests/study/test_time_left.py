"""Time left: estimated from the trials so far, with the anchors and the confirmation."""

from pathlib import Path

import pytest
from conftest import make_target
from made_up import measured, record

from autotune.config import Config
from autotune.goal import Budget
from autotune.knobs import complete
from autotune.measurement import Measurement
from autotune.report import words
from autotune.report.terminal.live import LiveView
from autotune.statistics.drift import due
from autotune.study.space import make_space
from autotune.study.space_file import shipped_space_file
from autotune.study.study import Study
from autotune.study.time_left import confirming_s, exploring_s, next_s, trial_s
from autotune.study_folder import StudyFolder
from autotune.trial import Anchor, Trial
from autotune.tuning.events import Probed, TrialEnded
from autotune.tuning.explore import Explorer


def took(*seconds: float) -> list[Trial]:
    return [measured(number).model_copy(update={"seconds": one}) for number, one in enumerate(seconds)]


def anchor(before: int, seconds: float) -> Anchor:
    return Anchor(before=before, outcome=measured(0).outcome, seconds=seconds)


def test_before_the_first_trial_there_is_no_estimate() -> None:
    assert trial_s([]) is next_s([], []) is exploring_s([], [], 50) is confirming_s([], [], 3) is None


def test_the_first_trial_counts_only_while_it_is_the_only_one() -> None:
    assert trial_s(took(30.0)) == 30.0
    assert trial_s(took(30.0, 10.0, 20.0)) == 15.0


def test_a_search_takes_as_long_as_predicted() -> None:
    """Simulated to its end with the rule for anchors; the prediction is checked after every trial."""
    for budget in (1, 2, 8, 9, 17, 40):
        trials, anchors, spent = took(5.0), list[Anchor](), [0.0]
        told = [exploring_s(trials, anchors, budget)]
        while len(trials) < budget:
            seconds = next_s(trials, anchors)
            if due(trials, anchors):
                anchors.append(anchor(len(trials), 5.0))
            trials = took(*[5.0] * (len(trials) + 1))
            assert seconds == 5.0 * (1 + (bool(anchors) and anchors[-1].before == len(trials) - 1))
            spent.append(spent[-1] + seconds)
            told.append(exploring_s(trials, anchors, budget))
        last = max((one.before for one in anchors), default=1)
        whole = spent[-1] + (5.0 if budget > last else 0.0)
        assert [one + so_far for one, so_far in zip(told, spent, strict=True)] == pytest.approx([whole] * len(told))


def test_each_round_of_the_confirmation_is_a_trial_and_a_run_of_the_baseline() -> None:
    assert confirming_s(took(30.0, 10.0), [anchor(2, 20.0)], 3) == 90.0
    assert confirming_s(took(30.0, 10.0), [], 3) == 120.0


class Clock:
    """A clock that only trials move, each by so many seconds."""

    def __init__(self, seconds: float) -> None:
        self.now, self.seconds = 1000.0, seconds

    def run(self, place: Path, config: Config, **_: object) -> Measurement:
        self.now += self.seconds
        found = measured(0, config).measured
        assert found is not None
        return found


@pytest.mark.parametrize(
    ("seconds", "budget_s", "trials"), [(10.0, 35.0, 3), (10.0, 30.0, 3), (10.0, 5.0, 1), (1.0, 20.0, 18)]
)
def test_no_trial_is_started_that_would_end_too_late(
    tmp_path: Path, seconds: float, budget_s: float, trials: int
) -> None:
    """Except the first. Of 20 s with runs of 1 s, two are anchors."""
    space = make_space(make_target(), shipped_space_file("demo.toml"), fix={}, exclude=(), baseline=complete({}))
    folder = StudyFolder(tmp_path)
    study = Study(folder, record(space=space.values), space, sampler="random")
    clock = Clock(seconds)
    explorer = Explorer(folder, study, clock, lambda event: None, clock=lambda: clock.now)
    assert explorer.explore(Budget(trials=50, time_s=budget_s)) is False
    assert len(study.trials) == trials
    assert clock.now - 1000 <= max(budget_s, seconds)


def test_the_live_view_counts_the_confirmation_and_keeps_to_a_budget_of_time(tmp_path: Path) -> None:
    space = make_space(make_target(), shipped_space_file("demo.toml"), fix={}, exclude=(), baseline=complete({}))
    for time_budget_s, left_s in ((None, 70.0), (20.0, 40.0)):
        view = LiveView(5, time_budget_s, 1)
        assert view._left(view.since) == "time left unknown"
        view.hear(Probed(make_target(), space, tmp_path, ()))
        view.hear(TrialEnded(took(10.0)[0]))
        view.started = view.since
        assert view._left(view.since) == f"about {words.seconds(left_s)} left"
