"""The layers of the house, read off the source: imports run downward only, and each sharp tool has one place.

Imports inside functions count as well, so that no late import hides a way up.
"""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import autotune
from autotune.pipelines import NO_FAMILIES

ROOT = Path(autotune.__file__).parent
NOUNS = {
    *("errors", "noun", "folders", "config", "device", "pipeline", "workload"),
    *("goal", "target", "knob", "trial", "job", "device_specs", "paired", "verdict", "turns", "drift"),
    *("glimpse", "untrusted", "isolation", "schedule", "earlier", "likeness", "thrift", "takeover"),
}
# From the top. A folder is one unit, except report/, whose parts stand at different heights.
LAYERS: tuple[set[str], ...] = (
    {"cli"},
    {"report.show", "report.terminal", "report.trust", "report.verify", "report.replay"},
    {"ladder", "replay", "nursery"},
    {"tuner", "worker"},  # the mains of the parent and of the child; the child is reached by starting a process
    {"explore"},
    {"report.page"},
    {"report.markdown"},
    {"report.measured", "report.watch", "report.merge"},
    {"ablate"},
    {"minimal"},
    {"report.story"},
    {"export", "export_as", "run", "confirm", "compare", "verify", "make_artifacts", "schema"},
    {"read_earlier"},
    {"selftest", "compat", "report.ladder", "report.score", "report.table", "recording_file", "make_table"},
    {"replay_spared"},
    {"chain", "ladder_record", "score", "recording"},
    {"study", "probe", "tuned", "ladder_recipe"},
    {"proposals", "importance", "our_sampler", "warm_start", "optuna_view"},
    {"pool", "curve"},
    {"production", "serving"},
    {"runner"},
    {"space", "build", "fallback", "artifacts", "floor", "sparing", "yardstick", "report.words"},
    {"knobs", "measure", "here", "fresh"},
    {"report.progress", "store", "sampler"},
    {"record", "front", "isolate", "pipelines", "report.pictures", "report.gallery", "ablation"},
    {"demo", "report", "report.look", "published", "hypervolume"},
    NOUNS,
)
HEIGHT = {unit: -depth for depth, layer in enumerate(LAYERS) for unit in layer}
HEAVY = {"torch", "diffusers", "transformers", "torchao", "tomesd", "torchmetrics", "accelerate"}

FILES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in ROOT.rglob("*.py")
    if path != ROOT / "__init__.py"
}
TREES = {module: ast.parse(path.read_text(encoding="utf-8")) for module, path in FILES.items()}


def unit(module: str) -> str:
    """The unit of a module: knobs.dtype belongs to knobs, report.words is its own."""
    first = module.split(".")[0]
    return module if first == "report" else first


def imported(module: str, *, at_the_top_only: bool = False) -> Iterator[str]:
    """Every module that this one imports, ours without the leading "autotune."."""
    tree = TREES[module]
    for node in tree.body if at_the_top_only else ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} has a relative import"
            assert node.module is not None
            deeper = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [name if name.removeprefix("autotune.") in FILES else node.module for name in deeper]
        else:
            continue
        yield from (name.removeprefix("autotune.") for name in names)


def foreign(module: str, *, at_the_top_only: bool = False) -> set[str]:
    """The packages of others that a module imports, by the first part of their names."""
    names = imported(module, at_the_top_only=at_the_top_only)
    return {name.split(".")[0] for name in names if name not in FILES and name != "autotune"}


def called(module: str) -> Iterator[str]:
    """The names of the functions that a module calls: "print", "os.fork" ..."""
    for node in ast.walk(TREES[module]):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func)


def test_every_file_has_a_place_and_every_place_a_file() -> None:
    assert {unit(module) for module in FILES} == set(HEIGHT)


@pytest.mark.parametrize("module", sorted(FILES))
def test_imports_run_downward_only(module: str) -> None:
    mine = unit(module)
    for name in imported(module):
        if name not in FILES:
            continue
        theirs = unit(name)
        same_house = theirs == mine or {mine, theirs} <= NOUNS or {mine, theirs} <= {"report.show", "report.terminal"}
        assert same_house or HEIGHT[theirs] < HEIGHT[mine], f"{module} imports {name}"


def test_nouns_import_only_nouns_and_next_to_nothing_of_others() -> None:
    for noun in NOUNS:
        assert {name for name in imported(noun) if name in FILES} <= NOUNS
        assert foreign(noun) - set(sys.stdlib_module_names) <= {"pydantic", "pynvml", "numpy", "PIL"}
        assert foreign(noun, at_the_top_only=True).isdisjoint({"numpy", "PIL"}), "`autotune --help` is instant"


def test_only_the_study_and_samplers_know_optuna() -> None:
    """The sampler is one of Optuna's, for anyone's study; nothing else of ours is in it."""
    assert {unit(module) for module in FILES if {"optuna", "sqlalchemy"} & foreign(module)} == {
        "study",
        "proposals",
        "importance",
        "sampler",
    }
    ours = {name for module in FILES if unit(module) == "sampler" for name in imported(module) if name in FILES}
    assert all(unit(name) == "sampler" for name in ours)


def test_only_isolate_starts_processes() -> None:
    starters = {"subprocess", "multiprocessing", "concurrent", "pty"}
    # A replay's processes measure nothing and load no pipeline: they share arithmetic among the cores.
    assert {unit(module) for module in FILES if starters & foreign(module)} == {"isolate", "replay"}
    by_os = ("os.system", "os.popen", "os.exec", "os.spawn", "os.posix_spawn")
    assert [(m, c) for m in FILES for c in called(m) if c.startswith(by_os)] == []
    assert {m for m in FILES if "os.fork" in called(m)} == {"worker", "nursery"}  # see there


def test_only_the_command_line_the_terminal_and_the_training_script_print() -> None:
    prints = {m for m in FILES for c in called(m) if c == "print" or c.endswith(("console.print", "console().print"))}
    prints = {"cli" if m.startswith("cli.") else m for m in prints}
    assert prints == {"cli", "compat.__main__", "report.show", "report.watch", "report.look", "demo.train"}


def test_only_mains_end_the_process() -> None:
    endings = {"sys.exit", "exit", "quit", "os._exit", "SystemExit"}
    assert {m for m in FILES if endings & set(called(m))} <= {
        "cli",
        "compat.__main__",
        "worker",
        "nursery",
        "demo.train",
    }


def test_nothing_is_evaluated_or_unpickled() -> None:
    dangerous = {"eval", "exec", "pickle.load", "pickle.loads", "torch.load", "yaml.load"}
    assert [(m, c) for m in FILES for c in called(m) if c in dangerous] == []
    assert not [m for m in FILES if "pickle" in foreign(m)]


def test_the_child_is_imported_by_nobody_but_whoever_becomes_it() -> None:
    assert [module for module in FILES if "worker" in imported(module)] == ["nursery"]
    assert [module for module in FILES if {"nursery", "fresh"} & set(imported(module))] == ["nursery"]


def reached(module: str) -> set[str]:
    """The module, and all of ours that it imports, and they in turn."""
    found, new = set(), {module}
    while new:
        found |= new
        new = {name for m in new for name in imported(m) if name in FILES} - found
    return found


def test_who_watches_a_search_needs_no_optuna() -> None:
    """It runs beside the trials, on the machine that is being timed."""
    assert not {"study", "tuner"} & reached("report.watch")


def test_the_child_can_not_see_the_search() -> None:
    assert reached("nursery") & {"study", "tuner", "space", "runner", "isolate", "record", "cli", "export"} == set()


def test_production_can_not_see_the_search_or_the_terminal() -> None:
    seen = reached("tuned")
    assert seen & {"study", "tuner", "space", "runner", "isolate", "cli", "worker", "measure"} == set()
    assert not [m for m in seen if {"optuna", "typer", "rich"} & foreign(m)]


THE_CHILD = """
import sys
import autotune.worker
from autotune.device import find_device
from autotune.job import DeviceJob
assert "torch" not in sys.modules, "the watcher is forked before torch is loaded"
autotune.worker.run(DeviceJob(device=find_device("cpu")), None)
assert "torch" in sys.modules
print(sorted({"optuna", "sqlalchemy", "typer", "rich", "autotune.study", "autotune.isolate"} & sys.modules.keys()))
"""


def test_a_child_at_work_has_loaded_no_optuna() -> None:
    done = subprocess.run([sys.executable, "-c", THE_CHILD], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "[]\n"


KNOBS = sorted(m for m in FILES if m.startswith("knobs.") and not m.startswith("knobs._"))


@pytest.mark.parametrize("knob", KNOBS)
def test_a_knob_imports_no_other_knob(knob: str) -> None:
    theirs = {name for name in imported(knob) if name.split(".")[0] == "knobs"}
    assert all(name.startswith("knobs._") for name in theirs)


def test_measure_knows_no_knob() -> None:
    seen = {name for m in FILES if unit(m) == "measure" for name in imported(m)}
    assert "trial" in seen
    assert not [name for name in seen if unit(name) in ("knobs", "knob", "build", "study", "space")]


def test_only_modules_of_the_child_load_torch_when_they_are_imported() -> None:
    """The parent imports all the others: its own, every knob, every preset."""
    heavy = {module for module in FILES if HEAVY & foreign(module, at_the_top_only=True)}
    assert heavy == {"pipelines.loading", "pipelines.inspect", "demo.train"}
    assert {m.removeprefix("pipelines.") for m in heavy if m.startswith("pipelines.")} <= set(NO_FAMILIES)
