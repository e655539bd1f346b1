"""The loop of a search: which runs may reuse earlier work, and which never do."""

from pathlib import Path
from typing import Any

import pytest
from conftest import make_target
from made_up import measured, record

from autotune.config import Config
from autotune.errors import UserError
from autotune.execution.isolate import ChildHeld
from autotune.goal import Budget
from autotune.knobs import complete
from autotune.measurement import Measurement
from autotune.reuse import Reuse
from autotune.study.space import SearchSpace, make_space
from autotune.study.space_file import shipped_space_file
from autotune.study.storage import InMemory, OnDisk, Store
from autotune.study.study import Study
from autotune.study_folder import StudyFolder
from autotune.trial import Failure
from autotune.tuning.events import ValueDropped
from autotune.tuning.explore import Explorer

SPACE = make_space(make_target(), shipped_space_file("demo.toml"), fix={}, exclude=(), baseline=complete({}))


class Remembering:
    """A runner that remembers what each run may reuse: of the trials by number, and of the anchors."""

    def __init__(self) -> None:
        self.trials, self.anchors = list[Reuse | None](), list[Reuse | None]()

    def run(self, place: Path, config: Config, *, reuse: Reuse | None = None, **_: Any) -> Measurement:
        (self.anchors if "anchors" in place.parts else self.trials).append(reuse)
        found = measured(0, config).measured
        assert found is not None
        return found


def explored(
    tmp_path: Path, *, reuse: bool = True, runner: Remembering | None = None, store: Store | None = None
) -> Remembering:
    folder, runner = StudyFolder(tmp_path), runner or Remembering()
    study = Study(folder, record(space=SPACE.values), SPACE, sampler="random", store=store or InMemory())
    Explorer(folder, study, runner, lambda event: None, reuse=reuse).explore(Budget(trials=10))
    return runner


def test_the_baseline_and_its_anchors_reuse_nothing(tmp_path: Path) -> None:
    runner = explored(tmp_path, reuse=True)
    assert runner.trials[0] is None
    assert runner.anchors == [None]
    assert all(reuse is not None and reuse.incumbents for reuse in runner.trials[1:])
    assert len(runner.trials) == 10


def test_without_reuse_no_run_reuses_anything(tmp_path: Path) -> None:
    runner = explored(tmp_path, reuse=False)
    assert [*runner.trials, *runner.anchors] == [None] * 11


def test_a_baseline_that_is_unlike_itself_ends_the_search_and_every_later_one(tmp_path: Path) -> None:
    """As after weights were overwritten: float32 on a CPU draws the same pictures."""

    class Drawing(Remembering):
        def run(self, place: Path, config: Config, *, reuse: Reuse | None = None, **_: Any) -> Measurement:
            (place / "images").mkdir(parents=True, exist_ok=True)
            return super().run(place, config, reuse=reuse)

    for _ in range(2):
        with pytest.raises(UserError, match=r"has SSIM 0\.80 to its own pictures.*anchors/0008/images"):
            explored(tmp_path, runner=Drawing(), store=OnDisk(StudyFolder(tmp_path)))


def test_the_error_of_a_baseline_names_its_log_once(tmp_path: Path) -> None:
    folder = StudyFolder(tmp_path)
    study = Study(folder, record(space=SPACE.values), SPACE, sampler="random", store=InMemory())
    searching = Explorer(folder, study, Remembering(), lambda event: None)
    log = str(folder.trial(0) / "log.txt")
    for reason in (f"no result after 1 s, killed; log at {log}", "it drew black pictures"):
        assert str(searching.baseline_failed(Failure(cause="timeout", reason=reason))).count(log) == 1


def test_a_value_that_always_fails_for_the_same_reason_is_dropped_told_and_not_tried_again(tmp_path: Path) -> None:
    class Breaking(Remembering):
        def run(self, place: Path, config: Config, **how: Any) -> Any:
            outcome = super().run(place, config, **how)
            return Failure(cause="error", reason=f"no kernel, line {place.name}") if config["qkv_fusion"] else outcome

    def demo() -> SearchSpace:
        return make_space(make_target(), shipped_space_file("demo.toml"), fix={}, exclude=(), baseline=complete({}))

    space, events = demo(), list[Any]()
    folder = StudyFolder(tmp_path)
    study = Study(folder, record(space=space.values), space, sampler="random", store=OnDisk(folder))
    Explorer(folder, study, Breaking(), events.append, reuse=False).explore(Budget(trials=40))
    [dropped] = [event.failing for event in events if isinstance(event, ValueDropped)]
    assert (dropped.knob, dropped.value) == ("qkv_fusion", True)
    assert [t.number for t in study.trials if t.values["qkv_fusion"]] == list(dropped.trials)
    again = Study(folder, study.record, demo(), sampler="random", store=OnDisk(folder))
    assert str(dropped) == again.space.objection(complete({"qkv_fusion": True}))


@pytest.mark.parametrize(("place", "of_config", "told"), [("0003", True, 4), ("0003", False, 3), ("anchors", True, 8)])
def test_a_config_whose_process_can_not_be_ended_has_crashed_and_is_not_tried_again(
    tmp_path: Path, place: str, of_config: bool, told: int
) -> None:
    """A child that judges pictures, and the baseline measured again, are not held against a config."""

    class Hanging(Remembering):
        def run(self, where: Path, config: Config, **how: Any) -> Measurement:
            if place in where.parts:
                raise ChildHeld("a child can't be ended.", "waits in the kernel", config if of_config else None)
            return super().run(where, config, **how)

    store = OnDisk(StudyFolder(tmp_path))
    with pytest.raises(ChildHeld):
        explored(tmp_path, runner=Hanging(), store=store)
    trials = store.trials()
    assert len(trials) == told
    failures = {trial.number: trial.outcome for trial in trials if isinstance(trial.outcome, Failure)}
    assert failures == ({3: Failure(cause="crash", reason="waits in the kernel")} if told == 4 else {})
