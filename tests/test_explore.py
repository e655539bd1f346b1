"""The loop of a search: which runs are spared something, and which never are."""

from pathlib import Path
from typing import Any

from conftest import make_target
from made_up import measured, record

from autotune.config import Config
from autotune.explore import Explorer
from autotune.folders import StudyFolder
from autotune.knobs import complete
from autotune.space import make_space, shipped_space_file
from autotune.store import InMemory
from autotune.study import Study
from autotune.thrift import Thrift
from autotune.trial import Measurement


class Asked:
    """A runner that remembers what each run was spared: by number for trials, for anchors apart."""

    def __init__(self) -> None:
        self.trials, self.anchors = list[Thrift | None](), list[Thrift | None]()

    def run(self, place: Path, config: Config, *, thrift: Thrift | None = None, **_: Any) -> Measurement:
        (self.anchors if "anchors" in place.parts else self.trials).append(thrift)
        found = measured(0, config).measured
        assert found is not None
        return found


def explored(tmp_path: Path, *, thrift: bool) -> Asked:
    space = make_space(make_target(), shipped_space_file("demo.toml"), fix={}, exclude=(), baseline=complete({}))
    folder, asked = StudyFolder(tmp_path), Asked()
    study = Study(folder, record(space=space.values), space, sampler="random", store=InMemory())
    Explorer(folder, study, asked, lambda event: None, thrift=thrift).explore(10, None)
    return asked


def test_the_baseline_and_its_runs_in_between_are_spared_nothing(tmp_path: Path) -> None:
    asked = explored(tmp_path, thrift=True)
    assert asked.trials[0] is None
    assert asked.anchors == [None]
    assert all(thrift is not None and thrift.rivals for thrift in asked.trials[1:])
    assert len(asked.trials) == 10


def test_without_thrift_no_run_is_spared_anything(tmp_path: Path) -> None:
    asked = explored(tmp_path, thrift=False)
    assert [*asked.trials, *asked.anchors] == [None] * 11
