"""The pick is measured again before it is exported: what does not hold up is not called faster. No processes here."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from conftest import make_target
from made_up import failed, measured, record

from autotune.config import Config
from autotune.folders import StudyFolder
from autotune.goal import Goal
from autotune.knobs import complete
from autotune.space import SpaceFile, make_space
from autotune.study import Study
from autotune.trial import Failure, Measurement, Trial
from autotune.tuner import Confirming, Event, _Run


class Again:
    """A runner that answers with the latencies that a config really has, and counts its calls."""

    def __init__(self, truth: dict[Config, float]) -> None:
        self.truth, self.calls = truth, 0

    def run(self, place: Path, config: Config, *, pictures: bool, earlier: Sequence[Trial]) -> Measurement | Failure:
        self.calls += 1
        place.mkdir(parents=True, exist_ok=True)
        if self.truth[config] <= 0:
            return failed(0).outcome
        return measured(0, latency_s=self.truth[config]).outcome


FAST, FASTER = {"dtype": "bf16"}, {"dtype": "bf16", "memory_format": "channels_last"}


def confirm(
    folder: Path, truth: tuple[float, float, float], *, goal: Goal | None = None
) -> tuple[Any, Again, list[Event]]:
    """At first the baseline took 1.0 s, FAST 0.8 s and FASTER 0.5 s; `truth` is what they take when measured again."""
    target = make_target()
    space = make_space(target, SpaceFile(), fix={}, exclude=(), baseline=complete({}))
    study = Study(StudyFolder(folder), record(target, goal=goal, space=space.values), space)
    configs: list[dict[str, Any]] = [{}, FAST, FASTER]
    for number, (values, latency_s) in enumerate(zip(configs, (1.0, 0.8, 0.5), strict=True)):
        study.tell(measured(number, values, latency_s=latency_s))
    events: list[Event] = []
    run = _Run(study.folder, study, 60.0, 3, events.append)
    again = Again({complete(values): seconds for values, seconds in zip(configs, truth, strict=True)})
    run.runner = again  # type: ignore[assignment]
    return run.confirm(), again, events


def test_a_pick_that_holds_up_is_confirmed_in_turn_with_the_baseline(tmp_path: Path) -> None:
    (best, confirmation), again, events = confirm(tmp_path, (1.0, 0.8, 0.5))
    assert best.number == 2
    assert confirmation.speedup == pytest.approx(2.0)
    assert again.calls == 6
    assert [event.round for event in events if isinstance(event, Confirming)] == [1, 2, 3]


def test_a_pick_that_was_lucky_gives_way_to_the_next_best(tmp_path: Path) -> None:
    (best, confirmation), _, _ = confirm(tmp_path, (1.0, 0.8, 1.0))
    assert best.number == 1
    assert confirmation.speedup == pytest.approx(1.25)


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


def test_what_was_confirmed_is_not_measured_again(tmp_path: Path) -> None:
    confirm(tmp_path, (1.0, 0.8, 0.5))
    study_folder = StudyFolder(tmp_path)
    assert study_folder.confirmation(2).exists()
    target = make_target()
    space = make_space(target, SpaceFile(), fix={}, exclude=(), baseline=complete({}))
    resumed = Study(study_folder, record(target, space=space.values), space)
    run = _Run(study_folder, resumed, 60.0, 3, lambda event: None)
    again = Again({})
    run.runner = again  # type: ignore[assignment]
    assert run.confirm()[0].number == 2
    assert again.calls == 0
