"""Options of earlier versions keep working, and what several commands share means the same in each."""

import re
from dataclasses import fields
from types import SimpleNamespace
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from autotune.cli import app
from autotune.cli.options import Call, Model
from autotune.cli.search import PANELS

REUSE = [
    ([], True),
    (["--reuse"], True),
    (["--no-reuse"], False),
    (["--thrift"], True),
    (["--no-thrift"], False),
    (["--no-reuse", "--thrift"], True),
]


@pytest.fixture
def called(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The arguments with which a command has called what does its work."""
    arguments: dict[str, Any] = {}

    def work(*positional: Any, **named: Any) -> list[Any]:
        arguments.update(named)
        return []

    def searched(**named: Any) -> Any:
        work(**named)
        return SimpleNamespace(held=None)

    monkeypatch.setattr("autotune.report.terminal.show.show_search", searched)
    monkeypatch.setattr("autotune.report.terminal.ladder.show_ladder", work)
    monkeypatch.setattr("autotune.tuning.selftest.selftest", work)
    monkeypatch.setattr("autotune.report.terminal.trust.selftest_data", lambda result: {})
    monkeypatch.setattr("autotune.research.replay.replay.replay", work)
    monkeypatch.setattr("autotune.research.replay.replay.heads", lambda tables: {})
    return arguments


@pytest.mark.parametrize("command", [["search"], ["replay", "demo.parquet"]], ids=lambda words: words[0])
@pytest.mark.parametrize(("words", "reuse"), REUSE, ids=lambda value: str(value))
def test_thrift_is_another_name_of_reuse(
    called: dict[str, Any], command: list[str], words: list[str], reuse: bool
) -> None:
    done = CliRunner().invoke(app, [*command, *words])
    assert done.exit_code == 0, done.output
    assert called["reuse"] is reuse


COMMANDS = typer.main.get_command(app).commands  # type: ignore[attr-defined] # a group: it has them


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_shows_each_option_with_all_its_words(command: str) -> None:
    """What stands in square brackets is markup to the library that prints it, and is gone."""
    wide = {"COLUMNS": "600", "TERMINAL_WIDTH": "600"}
    words = CliRunner().invoke(app, [command, "--help"], env=wide).output.split()
    shown = " ".join(word for word in words if word not in "│─")
    for option in COMMANDS[command].params:
        if option.param_type_name == "option" and not option.hidden:
            assert " ".join(option.help.split()) in shown, option.name


def test_the_first_panel_of_a_search_is_what_a_first_search_needs() -> None:
    shown = CliRunner().invoke(app, ["search", "--help"], env={"COLUMNS": "100", "TERMINAL_WIDTH": "100"}).output
    first, *others = shown.split("╭─ ")[1:]
    assert re.findall(r"│ (--[a-z-]+)", first) == [
        *("--pipeline", "--budget", "--study", "--time-budget", "--max-vram", "--max-quality-drop", "--quick"),
        *("--device", "--json", "--help"),
    ]
    assert [panel.split(" ─")[0] for panel in others] == list(PANELS)


@pytest.mark.parametrize("command", ["search", "replay"])
def test_the_old_name_is_not_shown(command: str) -> None:
    done = CliRunner().invoke(app, [command, "--help"], env={"COLUMNS": "200", "TERMINAL_WIDTH": "200"})
    assert "--no-reuse" in done.output
    assert "thrift" not in done.output


WORDS = "--guidance 0 --negative-prompt grey --call max_sequence_length=64 --steps 3 --size 64x32 --batch 2"


@pytest.mark.parametrize("command", ["search", "ladder", "record", "selftest"])
def test_every_command_that_draws_takes_what_is_loaded_and_how_it_is_called(
    called: dict[str, Any], command: str
) -> None:
    words = [
        "--pipeline",
        "owner/name",
        "--task",
        "image2image",
        "--lora",
        "a:0.5",
        "--variant",
        "fp16",
        *WORDS.split(),
    ]
    more = {"record": ["--all"], "selftest": ["--json"]}.get(command, [])
    CliRunner().invoke(
        app, [command, *words, *WORDS.split(), *more]
    )  # `record` then looks for the study, which nothing has made
    loaded = {"pipeline": "owner/name", "task": "image2image", "lora": ["a:0.5"], "variant": "fp16"}
    how = {"guidance": 0.0, "negative_prompt": "grey", "call": {"max_sequence_length": 64}}
    expected = {**loaded, "weights": "pretrained", **how, "steps": 3, "size": (64, 32), "batch": 2}
    assert {name: called.get(name) for name in expected} == expected


def test_a_command_that_takes_a_pipeline_has_every_option_of_the_group() -> None:
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    options = {name: {parameter.name for parameter in command.params} for name, command in commands.items()}
    of_models = {name for name, found in options.items() if "pipeline" in found}
    assert of_models == {"search", "ladder", "record", "selftest", "fit", "knobs"}
    assert all({field.name for field in fields(Model)} <= options[name] for name in of_models)
    of_calls = {name for name, found in options.items() if "steps" in found}
    assert of_calls == {"search", "ladder", "record", "selftest"}
    assert all({field.name for field in fields(Call)} <= options[name] for name in of_calls)
