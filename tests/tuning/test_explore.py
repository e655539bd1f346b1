"""The loop of a search: which runs are spared something, and which never are."""

from pathlib import Path
from typing import Any

from conftest import make_target
from made_up import measured, record

from autotune.config import Config
from autotune.goal import Budget
from autotune.knobs import complete
from autotune.measurement import Measurement
from autotune.reuse import Reuse
from autotune.study.space import make_space
from autotune.study.space_file import shipped_space_file
from autotune.study.storage import InMemory
from autotune.study.study import Study
from autotune.study_folder import StudyFolder
from autotune.tuning.explore import Explorer


class Asked:
    """A runner that remembers what each run was spared: by number for trials, for anchors apart."""

    def __init__(self) -> None:
        self.trials, self.anchors = list[Reuse | None](), list[Reuse | None]()

    def run(self, place: Path, config: Config, *, reuse: Reuse | None = None, **_: Any) -> Measurement:
        (self.anchors if "anchors" in place.parts else self.trials).append(reuse)
        found = measured(0, config).measured
        assert found is not None
        return found


def explored(tmp_path: Path, *, reuse: bool) -> Asked:
    space = make_space(make_target(), shipped_space_file("demo.toml"), fix={}, exclude=(), baseline=complete({}))
    folder, asked = StudyFolder(tmp_path), Asked()
    study = Study(folder, record(space=space.values), space, sampler="random", store=InMemory())
    Explorer(folder, study, asked, lambda event: None, reuse=reuse).explore(Budget(trials=10))
    return asked


def test_the_baseline_and_its_runs_in_between_are_spared_nothing(tmp_path: Path) -> None:
    asked = explored(tmp_path, reuse=True)
    assert asked.trials[0] is None
    assert asked.anchors == [None]
    assert all(reuse is not None and reuse.incumbents for reuse in asked.trials[1:])
    assert len(asked.trials) == 10


def test_without_thrift_no_run_is_spared_anything(tmp_path: Path) -> None:
    asked = explored(tmp_path, reuse=False)
    assert [*asked.trials, *asked.anchors] == [None] * 11
