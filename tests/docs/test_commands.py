"""Every command in the docs is real: cheap ones are run, the others are read by the command line as a user's are."""

import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from autotune.cli.options import read_fixes
from autotune.goal import read_bytes, read_seconds
from autotune.knobs import all_knobs, check_value
from autotune.pipelines import presets
from autotune.workload import read_workload
from tools.docs.command_line import COMMANDS
from tools.docs.fences import ROOT, blocks, commands, pages

ALL = commands()
AUTOTUNE = [command for command in ALL if re.match(r"autotune [a-z]+( |$)", command.text)]
PLACEHOLDERS = {"COMMAND", "STUDY", "P", "FILE", "FOLDER"}
HUB_IDS = re.compile(r"[\w.-]+/[\w.-]+")
SHELL = {"python3", ".", "pip", "make", "python", "docker", "curl", "hf", "apt-get", "bash", "twine"}
SHELL |= {"optuna-dashboard", "uvicorn", "ray"}


def arguments(text: str) -> list[str]:
    return shlex.split(text)[1:]


def test_the_docs_show_every_command_of_the_app() -> None:
    assert {arguments(command.text)[0] for command in AUTOTUNE} >= set(COMMANDS)


@pytest.mark.parametrize("command", [c.text for c in AUTOTUNE if c.text != "autotune COMMAND --help"])
def test_a_command_of_autotune_can_be_read_by_the_command_line(command: str) -> None:
    name, *words = arguments(command)
    if not words:  # only its name
        assert name in COMMANDS
        return
    context = COMMANDS[name].make_context(name, list(words))
    assert context.args == []
    given = context.params
    pipeline = given.get("pipeline") or "demo"
    known = pipeline in presets() or HUB_IDS.fullmatch(pipeline) or pipeline.endswith(".safetensors")
    assert known or pipeline in PLACEHOLDERS, pipeline
    read_fixes(given.get("fix") or [])
    for knob, value in read_fixes(given.get("fix") or []).items():
        check_value(knob, value)
    assert set(given.get("exclude") or []) <= set(all_knobs())
    for option in ("max_vram", "max_ram", "vram"):
        if given.get(option):
            read_bytes(given[option])
    for option in ("timeout", "time_budget", "max_latency"):
        if given.get(option):
            read_seconds(given[option])
    for text in given.get("workload") or []:
        read_workload(text)


def test_a_wrong_option_would_be_found() -> None:
    with pytest.raises(Exception, match="No such option"):
        COMMANDS["search"].make_context("search", ["--no-such-option"])


def test_every_make_target_exists() -> None:
    lines = [shlex.split(command.text) for command in ALL if command.text.startswith("make ")]
    named = {words[1] for words in lines if "=" not in words[1]}
    targets = set(re.findall(r"^([\w-]+):(?!=)", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M))
    assert {"demo", "docs", "showcase", "test"} <= named | {"showcase"}
    assert named <= targets


def test_every_script_and_module_exists() -> None:
    for command in (c for c in ALL if c.text.startswith("python ")):
        words = shlex.split(command.text)
        if words[1] == "-m" and words[2].split(".")[0] in ("autotune", "tools"):
            path = ROOT / words[2].replace(".", "/")
            assert path.with_suffix(".py").exists() or (path / "__main__.py").exists(), command
        elif words[1].endswith(".py"):
            assert (ROOT / words[1]).is_file(), command


def test_every_other_command_begins_with_a_program_that_is_meant() -> None:
    lines = [re.sub(r"^(\w+=\S+ )+", "", command.text) for command in ALL]  # without variables in front
    programs = {shlex.split(line)[0] for line in lines} - {"autotune"}
    assert {program for program in programs if not program.startswith(".venv/")} <= SHELL


def test_knobs_and_values_in_the_text_exist() -> None:
    """`dtype=bf16` and the like, in the pages that are written by hand."""
    made = ROOT / "docs" / "reference"
    for page in (p for p in pages() if p.parent != made or p.name in ("techniques.md", "space-files.md")):
        for name, value in re.findall(r"`(\w+)=([\w.:+-]+)`", page.read_text(encoding="utf-8")):
            if name in all_knobs():
                check_value(name, read_fixes([f"{name}={value}"])[name])


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_blocks_of_python_and_toml_can_be_read(page: Path) -> None:
    for block in blocks(page):
        if block.language == "python":
            compile(block.text, f"{page}:{block.line}", "exec")
        if block.language == "toml":
            tomllib.loads(block.text)


CHEAP = {
    "autotune schema": "TunedConfig",
    "autotune table demo-study --format csv": "trial,origin,",
    "autotune table demo-study --samples": "run,number,",
    "autotune export demo-study --pick smallest -o small.json": "small.json: ",
    "autotune export demo-study --as python -o best.py": "best.py: ",
    "autotune export demo-study --as markdown -o card.md": "card.md: ",
}


@pytest.mark.parametrize("command", CHEAP)
def test_cheap_commands_of_the_docs_do_what_they_say(command: str, tmp_path: Path) -> None:
    """On the study of the demo that lies in reports/."""
    assert command in {c.text for c in ALL}
    (tmp_path / "reports").mkdir()
    (tmp_path / "reports" / "demo-cpu").symlink_to(ROOT / "reports" / "demo-cpu")
    (tmp_path / "demo-study").symlink_to(ROOT / "reports" / "demo-cpu")
    words = [sys.executable, "-m", "autotune.cli", *arguments(command)]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(words, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert CHEAP[command] in done.stdout + done.stderr
