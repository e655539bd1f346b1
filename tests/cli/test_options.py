"""Options of earlier versions keep working, and what several commands share means the same in each."""

from typing import Any

import pytest
from typer.testing import CliRunner

from autotune.cli import app

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

    monkeypatch.setattr("autotune.report.terminal.show.show_search", work)
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


@pytest.mark.parametrize("command", ["search", "replay"])
def test_the_old_name_is_not_shown(command: str) -> None:
    done = CliRunner().invoke(app, [command, "--help"], env={"COLUMNS": "200", "TERMINAL_WIDTH": "200"})
    assert "--no-reuse" in done.output
    assert "thrift" not in done.output
