"""A fleet: its plan, the order of its searches, what starts warm from what, and how it goes on."""

import functools
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import typer
from conftest import make_target
from made_up import measured, record

from autotune.cli.fleet import fleet
from autotune.cluster.fleet import Cell, Plan, read_plan, run_fleet, statuses
from autotune.errors import UserError
from autotune.frozen_model import write_json
from autotune.study.record import write_trial
from autotune.study.space import SearchSpace
from autotune.study_folder import StudyFolder
from autotune.tuning.events import Listener, Probed, TrialEnded

PLAN = """
[search]
budget = 2
[[pipeline]]
pipeline = "sdxl"
[[pipeline]]
pipeline = "sd15"
[[workload]]
size = "1024x1024"
[[workload]]
size = "512x512"
batch = 4
"""


def plan(tmp_path: Path, text: str = PLAN) -> Plan:
    (tmp_path / "plan.toml").write_text(text)
    return read_plan(tmp_path / "plan.toml")


def test_a_plan_is_every_pipeline_at_every_workload(tmp_path: Path) -> None:
    whole = plan(tmp_path)
    names = ["sdxl-1024x1024", "sdxl-512x512-batch-4", "sd15-1024x1024", "sd15-512x512-batch-4"]
    assert [cell.name for cell in whole.cells] == names
    assert whole.cells[1].options == {"budget": 2, "pipeline": "sdxl", "size": (512, 512), "batch": 4}
    assert whole.folder == tmp_path / "plan"
    paths = plan(tmp_path, '[[pipeline]]\npipeline = "/models/mine"\n[[pipeline]]\npipeline = "../other"\n')
    assert [cell.name for cell in paths.cells] == ["models-mine", "other"], "no folder looks like an option"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[search]\nbudget = 2", "names no pipeline"),
        ("[[pipelines]]\n", "has 'pipelines'.*pipeline"),
        ("[[pipeline]]\npipelin = 'sd15'", "has the option 'pipelin'"),
        ("[[pipeline]]\npipeline = 'sd15'\nbudget = 'many'", "budget = 'many'"),
        ("[[pipeline]]\npipeline = 'sd15'\nstudy = 'x'", "has the option 'study'"),
        ("[[pipeline]]\npipeline = 'sd15'\n[[pipeline]]\npipeline = 'sd15'", "'sd15' twice"),
        ("pipeline = 'sd15'", "are tables"),
        ("[[pipeline", "can't be read"),
    ],
)
def test_a_plan_that_can_not_be_used_is_refused_in_a_sentence(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(UserError, match=says):
        plan(tmp_path, text)


class Searches:
    """Searches that leave a finished study, or are cut short, or fail."""

    def __init__(self) -> None:
        self.held: str | None = None
        self.calls: list[tuple[str, list[str]]] = []
        self.fails: set[str] = set()
        self.killed: set[str] = set()

    def __call__(self, *, study: Path, warm_start: list[Path], **options: Any) -> SimpleNamespace:
        self.calls.append((study.name, [path.name for path in warm_start]))
        if study.name in self.fails:
            raise UserError("no config keeps the limits.")
        folder = StudyFolder(study)
        folder.create()
        write_json(folder.study, record().to_json())
        write_trial(folder, measured(0))
        if study.name in self.killed:
            raise KeyboardInterrupt
        write_trial(folder, measured(1))
        write_json(folder.best, {})
        return SimpleNamespace(held=self.held)


def test_a_fleet_that_is_cut_short_goes_on_and_finished_neighbours_come_first(tmp_path: Path) -> None:
    whole, search, said = plan(tmp_path), Searches(), list[str]()

    def listen(cell: Cell, says: str) -> None:
        said.append(f"{cell.name} {says}")

    search.killed = {"sd15-1024x1024"}
    with pytest.raises(KeyboardInterrupt):
        run_fleet(whole, search, listen)
    assert search.calls == [
        ("sdxl-1024x1024", []),
        ("sdxl-512x512-batch-4", ["sdxl-1024x1024"]),
        ("sd15-1024x1024", []),
    ]
    assert [(status.state, status.trials) for status in statuses(whole)] == [
        *[("done", 2), ("done", 2), ("waiting", 1), ("waiting", 0)]
    ]
    search.killed, search.calls = set(), []
    done = run_fleet(plan(tmp_path), search, listen)
    assert search.calls == [("sd15-1024x1024", []), ("sd15-512x512-batch-4", ["sd15-1024x1024"])]
    assert [path.name for path in done] == [cell.name for cell in whole.cells]
    assert "sd15-1024x1024 goes on" in said
    assert said[-1] == "sd15-512x512-batch-4 is done"
    assert {status.state for status in statuses(whole)} == {"done"}


def test_a_search_that_fails_does_not_end_the_fleet_and_is_tried_again(tmp_path: Path) -> None:
    whole, search = plan(tmp_path), Searches()
    search.fails = {"sdxl-512x512-batch-4"}
    done = run_fleet(whole, search, lambda cell, says: None)
    assert [path.name for path in done] == ["sdxl-1024x1024", "sd15-1024x1024", "sd15-512x512-batch-4"]
    failed = statuses(whole)[1]
    assert (failed.state, failed.why) == ("failed", "no config keeps the limits.")
    search.fails, search.calls = set(), []
    assert len(run_fleet(whole, search, lambda cell, says: None)) == 4
    assert search.calls == [("sdxl-512x512-batch-4", ["sdxl-1024x1024"])]
    assert statuses(whole)[1].state == "done"


@pytest.mark.parametrize(("fails", "code"), [({"sdxl-512x512-batch-4"}, 2), (set(), 0)])
def test_the_command_exits_with_2_where_a_search_has_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: set[str], code: int
) -> None:
    whole, search = plan(tmp_path), Searches()
    search.fails = fails
    ended = functools.partial(run_fleet, whole, search)
    monkeypatch.setattr("autotune.cluster.fleet.run_fleet", lambda _, search, listen: ended(listen)[:1])
    found = 0
    try:
        fleet([tmp_path / "plan.toml"])
    except typer.Exit as error:
        found = error.exit_code
    assert found == code


def test_the_command_prints_the_trials_of_each_search(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    searches, found = Searches(), make_target()

    def search(*, listen: Listener, workers: None, address: None, command: str, **options: Any) -> SimpleNamespace:
        listen(Probed(found, SearchSpace(found, {}), options["study"], (), (), record().goal))
        listen(TrialEnded(measured(0)))
        return searches(**options)

    monkeypatch.setattr("autotune.report.searched.search", search)
    monkeypatch.setattr("autotune.report.merge.merge", lambda done: done)
    monkeypatch.setattr("autotune.report.page.page.write_merged", lambda *_: [])
    plan(tmp_path)
    fleet([tmp_path / "plan.toml"])
    said = capsys.readouterr().out.splitlines()
    first, second = said.index("sdxl-1024x1024: starts"), said.index("sdxl-1024x1024: is done")
    assert any(line.startswith("trial 0 (") for line in said[first:second])
    assert sum(line.startswith("trial 0 (") for line in said) == 4


def test_a_child_that_can_not_be_ended_ends_the_fleet_and_its_search_goes_on_later(tmp_path: Path) -> None:
    whole, search, said = plan(tmp_path), Searches(), list[str]()
    search.held = "a child process can't be ended."
    done = run_fleet(whole, search, lambda cell, says: said.append(f"{cell.name} {says}"))
    assert [path.name for path in done] == ["sdxl-1024x1024"]  # its best.json has what is known
    assert said[1:] == ["sdxl-1024x1024 has ended early: a child process can't be ended."]
    assert [status.state for status in statuses(whole)] == ["failed", *["waiting"] * 3]
    search.held = None
    assert len(run_fleet(whole, search, lambda cell, says: None)) == 4


def test_a_search_that_ends_before_its_budget_is_finished_and_a_larger_budget_goes_on(tmp_path: Path) -> None:
    """By --time-budget, or since every config was tried: two trials of a budget of nine."""
    text, search = PLAN.replace("budget = 2", "budget = 9\ntime_budget_s = 60"), Searches()
    run_fleet(plan(tmp_path, text), search, lambda cell, says: None)
    assert {(status.state, status.trials) for status in statuses(plan(tmp_path, text))} == {("done", 2)}
    search.calls = []
    run_fleet(plan(tmp_path, text), search, lambda cell, says: None)
    assert search.calls == []
    run_fleet(plan(tmp_path, text.replace("budget = 9", "budget = 10")), search, lambda cell, says: None)
    assert len(search.calls) == 4
