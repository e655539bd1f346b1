"""The rooms of the house, read off the source: imports run one way, and each sharp tool has one place.

Imports inside functions and under TYPE_CHECKING count as well, so that no late import hides a way back.
"""

import ast
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

import autotune

ROOT = Path(autotune.__file__).parent

# The order of the rooms, from the top. A room imports only rooms below it. The files directly in autotune/ are the
# nouns: every room may import them, they import only one another.
ROOMS = (
    "cli",
    "report",
    "research",
    "compat",
    "cluster",
    "tuning",
    "recordings",
    "production",
    "study",
    "sampler",
    "execution",
    "worker",
    "building",
    "measure",
    "knobs",
    "pipelines",
    "devices",
    "statistics",
    "demo",
    "pictures",
    "nouns",
)
MOST_FILES = 17  # of a room, its folders apart: a folder of more is two rooms
MOST_NOUNS = 17
HEAVY = {"torch", "diffusers", "transformers", "torchao", "tomesd", "torchmetrics", "accelerate"}

FILES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in ROOT.rglob("*.py")
    if path != ROOT / "__init__.py"
}
SOURCES = {module: path.read_text(encoding="utf-8") for module, path in FILES.items()}
TREES = {module: ast.parse(source) for module, source in SOURCES.items()}
NOUNS = {module for module, path in FILES.items() if path.parent == ROOT}


def room(module: str) -> str:
    first = module.split(".")[0]
    return "nouns" if first in NOUNS else first


def imports(tree: ast.Module, *, at_the_top_only: bool = False) -> Iterator[str]:
    """Every module that this source imports, by its whole name: "autotune.study.record", "torch" ..."""
    for node in tree.body if at_the_top_only else ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "a relative import"
            assert node.module is not None
            for alias in node.names:
                deeper = f"{node.module}.{alias.name}"
                yield deeper if deeper.removeprefix("autotune.") in FILES else node.module


def ours(tree: ast.Module) -> set[str]:
    """Those of them that are ours, without the leading "autotune."."""
    names = {name.removeprefix("autotune.") for name in imports(tree) if name.startswith("autotune.")}
    return {name for name in names if name in FILES}


def foreign(module: str, *, at_the_top_only: bool = False) -> set[str]:
    """The packages of others that a module imports, by the first part of their names."""
    names = imports(TREES[module], at_the_top_only=at_the_top_only)
    return {name.split(".")[0] for name in names} - {"autotune"}


def called(module: str) -> Iterator[str]:
    """The names of the functions that a module calls: "print", "os.fork" ..."""
    for node in ast.walk(TREES[module]):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func)


def arrows_back(trees: Mapping[str, ast.Module]) -> list[str]:
    """The imports of a room from a room that is not below it."""
    height = {name: -depth for depth, name in enumerate(ROOMS)}
    return [
        f"{module} imports {name}"
        for module, tree in trees.items()
        for name in sorted(ours(tree))
        if room(name) != room(module) and height[room(name)] > height[room(module)]
    ]


def circles(trees: Mapping[str, ast.Module]) -> list[str]:
    """The files that, by their imports, need themselves. A package's `__init__` needs its own files, and they it."""
    graph = {module: ours(tree) for module, tree in trees.items()}
    found = []
    for module in graph:
        seen, new = set[str](), graph[module] - {module}
        while new:
            seen |= new
            new = {name for one in new for name in graph.get(one, set())} - seen
        if module in seen:
            found.append(module)
    return found


def test_imports_run_one_way_between_rooms() -> None:
    assert {room(module) for module in FILES} == set(ROOMS)
    assert arrows_back(TREES) == []


@pytest.mark.parametrize(
    "source",
    [
        "from autotune.tuning.search import search",
        "def late():\n    from autotune.tuning import search",
        "import autotune.report.summary",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from autotune.cli import app",
    ],
)
def test_a_deliberate_arrow_back_is_found(source: str) -> None:
    """A test of the test: at the top, inside a function, as a module, for types alone."""
    assert len(arrows_back({"study.record": ast.parse(source)})) == 1
    assert arrows_back({"study.record": ast.parse("from autotune.trial import Trial")}) == []
    assert len(arrows_back({"config": ast.parse("from autotune.knobs import all_knobs")})) == 1, "a noun"


def test_no_file_needs_itself() -> None:
    assert circles(TREES) == []
    two = {"measure.watch": "import autotune.measure.nvml", "measure.nvml": "import autotune.measure.watch"}
    assert circles({name: ast.parse(source) for name, source in two.items()}) == list(two), "a test of the test"


def test_a_room_can_be_taken_in_at_one_glance() -> None:
    folders = {path.parent for path in FILES.values()} - {ROOT}
    crowded = {str(f.relative_to(ROOT)): len(list(f.glob("*.py"))) for f in folders}
    assert {name: count for name, count in crowded.items() if count > MOST_FILES} == {}
    assert len(list(ROOT.glob("*.py"))) <= MOST_NOUNS


def test_every_file_says_what_it_is_in_its_first_line() -> None:
    for module, tree in TREES.items():
        assert ast.get_docstring(tree), module


def test_nouns_import_next_to_nothing_of_others() -> None:
    for noun in NOUNS:
        assert foreign(noun) - set(sys.stdlib_module_names) <= {"pydantic", "pydantic_core", "PIL"}, noun
        assert foreign(noun, at_the_top_only=True).isdisjoint({"numpy", "PIL"}), "`autotune --help` is instant"


def test_only_the_study_and_samplers_know_optuna() -> None:
    """The sampler is one of Optuna's, for anyone's study; nothing else of ours is in it."""
    assert {room(module) for module in FILES if {"optuna", "sqlalchemy"} & foreign(module)} == {"study", "sampler"}
    assert {room(name) for module in FILES if room(module) == "sampler" for name in ours(TREES[module])} == {"sampler"}


def test_only_execution_starts_processes() -> None:
    starters = {"subprocess", "multiprocessing", "concurrent", "pty"}
    # A replay's processes measure nothing and load no pipeline: they share arithmetic among the cores. The process that
    # talks to Ray measures nothing either.
    assert {m for m in FILES if starters & foreign(m)} == {
        "execution.child",
        "execution.fork_client",
        "execution.interpreter",  # asks another environment for its versions
        "cluster.messenger",
        "research.replay.replay",
    }
    by_os = ("os.system", "os.popen", "os.exec", "os.spawn", "os.posix_spawn")
    assert [(m, c) for m in FILES for c in called(m) if c.startswith(by_os)] == []
    assert {m for m in FILES if "os.fork" in called(m)} == {"worker.main", "worker.fork_server"}


def test_only_the_command_line_and_the_report_print() -> None:
    prints = {m for m in FILES for c in called(m) if c == "print" or c.endswith(("console.print", "console().print"))}
    mains = {"compat.__main__", "demo.train"}  # python -m ...
    assert {room(m) for m in prints - mains} == {"cli", "report"}


def test_only_mains_end_the_process() -> None:
    endings = {"sys.exit", "exit", "quit", "os._exit", "SystemExit"}
    enders = {m for m in FILES if endings & set(called(m))}
    # Ray's main runs an order, and can't be told to end from a thread.
    assert enders <= {"cli", "compat.__main__", "worker.main", "worker.fork_server", "demo.train", "cluster.cut_off"}


def test_nothing_is_evaluated_or_unpickled() -> None:
    dangerous = {"eval", "exec", "pickle.load", "pickle.loads", "torch.load", "yaml.load"}
    assert [(m, c) for m in FILES for c in called(m) if c in dangerous] == []
    assert not [m for m in FILES if "pickle" in foreign(m)]


def reached(module: str) -> set[str]:
    """The module, and all of ours that it imports, and they in turn."""
    found, new = set[str](), {module}
    while new:
        found |= new
        new = {name for m in new for name in ours(TREES[m])} - found
    return found


def test_every_job_has_a_function_and_the_worker_imports_none_by_name() -> None:
    from autotune.job import Job
    from autotune.worker.main import JOBS

    kinds = {cls.model_fields["kind"].default for cls in Job.__origin__.__args__}  # type: ignore[attr-defined]
    assert set(JOBS) == kinds
    for place in JOBS.values():
        module, _, function = place.removeprefix("autotune.").partition(":")
        names = {node.name for node in TREES[module].body if isinstance(node, ast.FunctionDef)}
        assert function in names, place
        assert module not in ours(TREES["worker.main"])


def test_who_watches_a_search_needs_no_optuna() -> None:
    """It runs beside the trials, on the machine that is being timed."""
    assert not {"study.study", "tuning.search"} & reached("report.terminal.watch")


def test_the_child_can_not_see_the_search() -> None:
    from autotune.worker.main import JOBS

    jobs = {place.removeprefix("autotune.").partition(":")[0] for place in JOBS.values()}
    seen = set[str]().union(*(reached(m) for m in ("worker.main", "worker.fork_server", *jobs)))
    assert {room(module) for module in seen} & {"cli", "report", "research", "tuning", "recordings", "study"} == set()
    assert not {m for m in seen if room(m) == "execution"}


def test_production_can_not_see_the_search_or_the_terminal() -> None:
    seen = reached("production.tuned_config") | reached("production.chain")  # TunedConfig and load()
    assert {room(m) for m in seen} & {"study", "tuning", "execution", "cli", "report", "worker", "measure"} == set()
    assert not [m for m in seen if {"optuna", "typer", "rich"} & foreign(m)]


THE_CHILD = """
import sys
import autotune.worker.main
from autotune.devices import find_device
from autotune.job import DeviceJob
assert "torch" not in sys.modules, "the watcher is forked before torch is loaded"
autotune.worker.main.run(DeviceJob(device=find_device("cpu")), None)
assert "torch" in sys.modules
forbidden = {"optuna", "sqlalchemy", "typer", "rich", "autotune.study.study", "autotune.execution.isolate"}
print(sorted(forbidden & sys.modules.keys()))
"""


def test_a_child_at_work_has_loaded_no_optuna() -> None:
    done = subprocess.run([sys.executable, "-c", THE_CHILD], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "[]\n"


def is_private(module: str) -> bool:
    return module.rpartition(".")[2].startswith("_")


KNOBS = sorted(m for m, p in FILES.items() if room(m) == "knobs" and p.name != "__init__.py" and not is_private(m))


@pytest.mark.parametrize("knob", KNOBS)
def test_a_knob_imports_no_other_knob(knob: str) -> None:
    assert all(is_private(name) for name in ours(TREES[knob]) if room(name) == "knobs")


def test_measure_knows_no_knob() -> None:
    seen = {name for m in FILES if room(m) == "measure" for name in ours(TREES[m])}
    assert "measurement" in seen
    assert not [name for name in seen if room(name) in ("knobs", "building", "study") or name == "knob"]


def test_only_modules_of_the_child_load_torch_when_they_are_imported() -> None:
    """The parent imports all the others: its own, every knob, every preset."""
    heavy = {module for module in FILES if HEAVY & foreign(module, at_the_top_only=True)}
    parts = ("rehearse", "stand_in", "watch", "values", "facts")  # of the probe, and of a knob when applied
    rehearsal = {f"pipelines.rehearsal.{part}" for part in parts}
    assert heavy == {"pipelines.loading", "pipelines.inspect", "worker.measure", "demo.train"} | rehearsal
