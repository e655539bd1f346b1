"""Another environment: it is asked for its packages, runs jobs, and is refused where it can't run the same autotune."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import make_target

from autotune.config import Config
from autotune.errors import UserError
from autotune.execution import interpreter, isolate
from autotune.execution.interpreter import Interpreter, Package, PackageDifference, other_interpreter, own_interpreter
from autotune.execution.runner import Runner
from autotune.study_folder import StudyFolder
from autotune.trial import Failure


@pytest.fixture(scope="module")
def own() -> Interpreter:
    return own_interpreter()


def environment(**packages: tuple[str, tuple[str, ...]]) -> Interpreter:
    found = {name: Package(version, frozenset(requires)) for name, (version, requires) in packages.items()}
    return Interpreter("/other/bin/python", "0.1.0", "f00", found)


def program(folder: Path, text: str) -> str:
    path = folder / "python"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


def answering(folder: Path, **changes: Any) -> str:
    """An interpreter that answers so, whatever it is asked."""
    answer = {"autotune": "0.1.0", "code": "f00", "python": "3.13.1", "packages": {"Torch_AO": ["0.9", ["torch>=2"]]}}
    return program(folder, f"cat << 'END'\n{json.dumps(answer | changes)}\nEND")


def test_this_environment_says_its_packages_and_what_they_ask_for(own: Interpreter) -> None:
    from importlib.metadata import version

    assert own.packages["torch"].version == version("torch")
    assert own.packages["python"].version == sys.version.split()[0]
    assert {"numpy", "safetensors", "regex"} <= own.with_required(["diffusers"])
    assert "diffusers" not in own.with_required(["torch"])
    assert own.versions(["DeepCache", "none"]) == {"DeepCache": version("DeepCache")}
    assert own.differences(own) == ()


def test_differences_name_what_is_missing_on_either_side() -> None:
    one, other = environment(a=("1", ()), b=("1", ()), c=("2", ())), environment(b=("1", ()), c=("3", ()), d=("4", ()))
    assert one.differences(other) == (
        PackageDifference(name="a", first="1", second=None),
        PackageDifference(name="c", first="2", second="3"),
        PackageDifference(name="d", first=None, second="4"),
    )


def test_packages_that_ask_for_one_another_end() -> None:
    assert environment(a=("1", ("b", "gone")), b=("1", ("a",))).with_required(["A"]) == {"a", "b"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"autotune": "0.0.1"}, r"has autotune 0\.0\.1, this is .*install the same version there"),
        ({}, "has other files of autotune"),
        ({"packages": 3}, "does not answer as Python"),
    ],
)
def test_an_environment_that_would_measure_otherwise_is_refused(
    changes: dict[str, Any], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own: Interpreter
) -> None:
    monkeypatch.setattr(interpreter, "own_interpreter", lambda: own)
    with pytest.raises(UserError, match=message):
        other_interpreter(answering(tmp_path, **changes))


def test_an_environment_without_autotune_is_refused_in_a_sentence(tmp_path: Path) -> None:
    lacking = program(tmp_path, "echo \"ModuleNotFoundError: No module named 'autotune'\" >&2; exit 1")
    with pytest.raises(
        UserError, match=r"can't import autotune \(ModuleNotFoundError.*install autotune in that"
    ) as told:
        other_interpreter(lacking)
    assert "\n" not in str(told.value)


def test_what_is_no_interpreter_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no such file"):
        other_interpreter(str(tmp_path / "bin" / "python"))
    with pytest.raises(UserError, match="is a folder: name the interpreter in it"):
        other_interpreter(str(tmp_path))
    (tmp_path / "text").write_text("words")
    with pytest.raises(UserError, match="can't be started"):
        other_interpreter(str(tmp_path / "text"))


def test_an_accepted_environment_runs_jobs_from_no_working_directory_and_has_compiled_code_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own: Interpreter
) -> None:
    monkeypatch.setattr(interpreter, "own_interpreter", lambda: own)
    link = tmp_path / "venv" / "bin" / "python"  # an environment's python is a link, whose own place decides
    link.parent.mkdir(parents=True)
    link.symlink_to(answering(tmp_path, code=own.code, autotune=own.autotune))
    found = other_interpreter(str(link))
    assert found.worker == (str(link), "-P", "-m", "autotune.worker")
    assert found.packages["torch-ao"] == Package("0.9", frozenset({"torch"}))

    started: list[tuple[Any, ...]] = []

    def run(folder: Path, job: Any, **how: Any) -> Failure:
        started.append((tuple(how["command"]), how["isolation"], how["env"]["TORCHINDUCTOR_CACHE_DIR"]))
        return Failure(cause="error", reason="not run")

    monkeypatch.setattr(isolate, "run", run)
    for python in (found, None):
        runner = Runner(StudyFolder(tmp_path), make_target(), 60, isolation="spawn", interpreter=python)
        runner.run(tmp_path, Config({}), pictures=False, earlier=())
        runner.packages(tmp_path, Config({}))
    assert [start[:2] for start in started] == [(found.worker, "spawn")] * 2 + [(isolate.WORKER, "spawn")] * 2
    assert started[0][2] == started[1][2] != started[2][2], "two environments share no compiled code"
