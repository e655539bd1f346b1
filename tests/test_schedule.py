"""How long a search will take is told from what it has taken, the runs of the baseline and the confirmation counted."""

import pytest
from made_up import measured

from autotune.drift import due
from autotune.schedule import confirming_s, exploring_s, next_s, trial_s
from autotune.trial import Anchor, Trial


def took(*seconds: float) -> list[Trial]:
    return [measured(number).model_copy(update={"seconds": one}) for number, one in enumerate(seconds)]


def anchor(before: int, seconds: float) -> Anchor:
    return Anchor(before=before, outcome=measured(0).outcome, seconds=seconds)


def test_before_the_first_trial_nobody_knows() -> None:
    assert trial_s([]) is next_s([], []) is exploring_s([], [], 50) is confirming_s([], [], 3) is None


def test_the_first_trial_which_loads_the_libraries_counts_only_while_it_is_alone() -> None:
    assert trial_s(took(30.0)) == 30.0
    assert trial_s(took(30.0, 10.0, 20.0)) == 15.0


def test_a_search_that_is_predicted_takes_what_it_is_told_to_take() -> None:
    """Played to its end with the rule by which the baseline is measured again, from every state on the way."""
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
