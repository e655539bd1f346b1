"""Fleet: many searches as one job: pipelines x workloads x devices, in the order of a plan, each a study of its own.

    [search]                # options of every search, by the names of autotune.search()
    budget = 40
    [[pipeline]]
    pipeline = "sdxl"
    [[pipeline]]
    pipeline = "sd15"
    [[workload]]
    size = "1024x1024"
    [[workload]]
    size = "768x768"
    batch = 4

A cell that is finished is not searched again, so the same plan goes on where it was cut short. A new cell starts warm
from the finished ones of the same pipeline.
"""

import inspect
import itertools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, TypeAdapter, ValidationError

from autotune.errors import UserError, cause, nearest
from autotune.execution.isolate import ChildHeld
from autotune.frozen_model import FrozenModel, read_json, read_toml, write_json
from autotune.study.record import read_trials
from autotune.study_folder import StudyFolder
from autotune.trial import Trial
from autotune.tuning.search import search
from autotune.workload import read_size

TABLES = ("pipeline", "workload", "device")
OWN = {"study", "listen", "command", "team", "warm_start"}  # options that the fleet sets
State = Literal["waiting", "running", "done", "failed"]


@dataclass(frozen=True)
class Cell:
    """One search of a fleet. `options`: of autotune.search(); `name`: of its folder."""

    name: str
    options: Mapping[str, Any]


@dataclass(frozen=True)
class Plan:
    """The cells in their order. `folder`: of their studies."""

    folder: Path
    cells: tuple[Cell, ...]

    def study(self, cell: Cell) -> Path:
        return self.folder / cell.name

    def neighbours(self, cell: Cell) -> list[Path]:
        """The finished studies of the same pipeline, from which this one starts warm."""
        same = (other for other in self.cells if other != cell and _of(other) == _of(cell))
        return [self.study(other) for other in same if is_done(self, other)]


class Ended(FrozenModel):
    """fleet.json: what has become of the cells, by their names.

    finished  the options with which the cell's search came to its end: other options begin it again
    failures  why a cell has no result
    """

    finished: dict[str, dict[str, Any]] = Field(default_factory=dict)
    failures: dict[str, str] = Field(default_factory=dict)


@dataclass(frozen=True)
class Status:
    """How far a cell is. `why`: it has failed."""

    cell: Cell
    state: State
    trials: int
    budget: int
    why: str | None = None


def read_plan(path: Path) -> Plan:
    """The plan in a TOML file; the studies go to a folder of its name beside it. Raises UserError."""
    try:
        data = read_toml(path)
    except FileNotFoundError:
        raise UserError(f"there is no plan {str(path)!r}.") from None
    except (OSError, ValueError) as error:
        raise UserError(f"the plan {str(path)!r} can't be read: {cause(error)}.") from None
    unknown = next((name for name in data if name not in ("search", *TABLES)), None)
    if unknown is not None:
        raise UserError(f"the plan {str(path)!r} has {unknown!r}: {nearest(unknown, ('search', *TABLES))}")
    if not data.get("pipeline"):
        raise UserError(f"the plan {str(path)!r} names no pipeline: add a table [[pipeline]] with pipeline = NAME.")
    columns = [data.get(table) or [{}] for table in TABLES]
    cells = [_cell(path, data.get("search", {}), parts) for parts in itertools.product(*columns)]
    names = [cell.name for cell in cells]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise UserError(f"the plan {str(path)!r} has the search {twice!r} twice: no two may be the same.")
    return Plan(path.with_suffix(""), tuple(cells))


def _cell(path: Path, shared: Mapping[str, Any], parts: Iterable[Mapping[str, Any]]) -> Cell:
    options = dict(shared)
    for part in parts:
        if not isinstance(part, dict):
            raise UserError(
                f"the plan {str(path)!r}: pipelines, workloads and devices are tables, such as [[workload]]."
            )
        options |= part
    checked = {name: _checked(path, name, value) for name, value in options.items()}
    return Cell(_name(parts, checked), checked)


def _checked(path: Path, name: str, value: Any) -> Any:
    """The value as search() takes it. Raises UserError for an unknown option, or one of another type."""
    known = {n: p for n, p in inspect.signature(search).parameters.items() if n not in OWN}
    if name not in known:
        raise UserError(f"the plan {str(path)!r} has the option {name!r}: {nearest(name, tuple(known))}")
    if name == "size" and isinstance(value, str):
        return read_size(value)
    try:
        return TypeAdapter(known[name].annotation).validate_python(value)
    except ValidationError as error:
        raise UserError(
            f"the plan {str(path)!r}: {name} = {value!r} is no value of it ({error.errors()[0]['msg']})."
        ) from None


def _name(parts: Iterable[Mapping[str, Any]], options: Mapping[str, Any]) -> str:
    """`sdxl-1024x1024`: what tells the cell from the others."""
    words = []
    for name, value in ((name, value) for part in parts for name, value in part.items()):
        shown = "x".join(map(str, options[name])) if name == "size" else str(value)
        words.append(shown if name in ("pipeline", "size", "device") else f"{name}-{shown}")
    named = "-".join(word.replace("/", "-").replace(":", "-").replace(" ", "-").lower() for word in words)
    return named.lstrip("-.")  # of a path: no command takes the folder for an option


def _of(cell: Cell) -> Any:
    return cell.options.get("pipeline")


def is_done(plan: Plan, cell: Cell) -> bool:
    """Has this search ended with these options? It may end before its budget: by time, or in a small space."""
    finished = _ended(plan).finished.get(cell.name)
    return StudyFolder(plan.study(cell)).best.exists() and finished == _as_json(cell.options)


def _as_json(options: Mapping[str, Any]) -> dict[str, Any]:
    made: dict[str, Any] = TypeAdapter(dict[str, Any]).dump_python(dict(options), mode="json")
    return made


def _budget(options: Mapping[str, Any]) -> int:
    return int(options.get("budget", inspect.signature(search).parameters["budget"].default))


def _trials(folder: StudyFolder) -> list[Trial]:
    return read_trials(folder) if folder.study.exists() else []


def statuses(plan: Plan) -> list[Status]:
    """How far each cell is, from the files alone: another process may be at work. Raises UserError."""
    failures = _ended(plan).failures
    found = []
    for cell in plan.cells:
        folder, budget = StudyFolder(plan.study(cell)), _budget(cell.options)
        trials, why = len(_trials(folder)), failures.get(cell.name)
        if is_done(plan, cell):
            state: State = "done"
        elif folder.is_locked():
            state, why = "running", None
        else:
            state = "failed" if why else "waiting"
        found.append(Status(cell, state, trials, budget, why if state == "failed" else None))
    return found


def _ended(plan: Plan) -> Ended:
    path = plan.folder / "fleet.json"
    return Ended.parse(read_json(path, "record of a fleet"), str(path)) if path.exists() else Ended()


def run_fleet(plan: Plan, search: Callable[..., Any], listen: Callable[[Cell, str], None]) -> list[Path]:
    """Search every cell that is not finished. Returns the folders of the finished ones, in the plan's order.

    search  as autotune.search(); it is told the study's folder and what to start warm from
    listen  is told of each cell what becomes of it

    A cell that fails does not end the fleet: its reason is kept, and the same command tries it again. A child that
    can't be ended does end it: only a restart of the machine helps.
    """
    plan.folder.mkdir(parents=True, exist_ok=True)
    for cell in plan.cells:
        study = plan.study(cell)
        if is_done(plan, cell):
            listen(cell, "is finished")
            continue
        begun = StudyFolder(study).study.exists()
        warm = [] if begun else plan.neighbours(cell)
        started = (
            f"starts warm from {', '.join(path.name for path in warm)}" if warm else "goes on" if begun else "starts"
        )
        listen(cell, started)
        ended = _ended(plan)
        finished, failures = dict(ended.finished), dict(ended.failures)
        try:
            why = search(**cell.options, study=study, warm_start=warm).held
            held = why is not None
        except UserError as error:
            why, held = str(error), isinstance(error, ChildHeld)
        if why is None:
            failures.pop(cell.name, None)
            finished[cell.name] = _as_json(cell.options)
            listen(cell, "is done")
        else:
            failures[cell.name] = why
            listen(cell, f"has {'ended early' if held else 'failed'}: {why}")
        write_json(plan.folder / "fleet.json", Ended(finished=finished, failures=failures).to_json())
        if held:
            break
    return [plan.study(cell) for cell in plan.cells if StudyFolder(plan.study(cell)).best.exists()]
