"""steps: the denoiser runs as often as it says, when the caller says nothing else."""

from typing import Any

import pytest
from conftest import make_target
from live import WORKLOAD, built, picture

from autotune.knobs import find_knob

KNOB = find_knob("steps")


def calls(pipe: Any) -> list[int]:
    seen: list[int] = []
    pipe.unet.register_forward_hook(lambda *_: seen.append(1))
    return seen


@pytest.mark.parametrize(("value", "steps"), [("workload", WORKLOAD.steps), (2, 2), (5, 5)])
def test_the_denoiser_runs_once_a_step(value: str | int, steps: int) -> None:
    pipe, _ = built(steps=value)
    seen = calls(pipe)
    picture(pipe)
    assert len(seen) == steps


def test_the_workload_is_not_offered_twice() -> None:
    target = make_target()
    assert KNOB.why_not(target.workload.steps, target) == "is the workload's number of steps"
    assert KNOB.why_not(target.workload.steps - 1, target) is None
    assert KNOB.why_not("workload", target) is None


def test_any_number_of_steps_is_a_value() -> None:
    assert [KNOB.accepts(value) for value in (1, 30, "workload")] == [True] * 3
    assert [KNOB.accepts(value) for value in (0, -1, True, 2.0, "30")] == [False] * 5


def test_a_strength_that_leaves_no_step_is_seen_wherever_it_is_given() -> None:
    target = make_target(default_strength=0.8, strength_rounds="down")
    assert KNOB.why_not(3, target) is None
    for given in ({"call": {"strength": 0.3}}, {"strength": 0.3}):
        other = target.model_copy(update={"workload": target.workload.model_copy(update=given)})
        assert KNOB.why_not(3, other) == "leaves no step at strength 0.3"
