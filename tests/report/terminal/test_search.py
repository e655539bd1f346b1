"""What commands print: the same look everywhere, whole at 80 columns, without colours, and in a pipe."""

import io
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from made_up import measured
from rich.console import Console
from studies import VALUES, study, usual

from autotune.report.summary import next_steps, read_summary
from autotune.report.terminal.search import front_table
from autotune.report.terminal.theme import show_heading, show_steps


def narrow(width: int = 80) -> Console:
    return Console(file=io.StringIO(), width=width, no_color=True, highlight=False)


def said(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_the_table_of_the_front_is_whole_at_80_columns(tmp_path: Path) -> None:
    long = {"dtype": "bf16", "quantization": "int8_weight_only", "tome_ratio": 0.5, "tome_max_downsample": 2}
    trials = [measured(0), measured(1, long, latency_s=0.5), measured(2, VALUES[1], memory_bytes=2**20)]
    console = narrow()
    console.print(front_table(trials, 1))
    assert "\u2026" not in said(console), "nothing is cut off"
    assert all(len(line) <= 80 for line in said(console).splitlines())
    for word in ("0.50", "2.00x", "quantization=int8_weight_only", "tome_max_downsample=2", "1*"):
        assert word in said(console).replace("500 ms", "0.50")


def test_a_command_to_copy_is_one_line_however_long(tmp_path: Path) -> None:
    folder = usual(tmp_path / "a folder with spaces", prompts=("it's a $HOME `prompt` " + "w" * 200, "b"))
    console, steps = narrow(40), next_steps(read_summary(folder.path))
    show_steps(console, steps)
    lines = [line.strip() for line in said(console).splitlines()]
    assert [line for line in lines if line.startswith("autotune ")] == [command for command, _ in steps]
    words = shlex.split(steps[0][0])
    assert words[:2] == ["autotune", "run"]
    assert words[2] == str(folder.best)
    assert words[4].startswith("it's a $HOME `prompt` w")


def test_square_brackets_are_no_markup(tmp_path: Path) -> None:
    console = narrow()
    show_heading(console, "search", "[bold]mine[/bold]")
    assert said(console) == "autotune search: [bold]mine[/bold]\n"


def test_only_what_can_be_done_is_offered(tmp_path: Path) -> None:
    unfinished = study(tmp_path / "study", [measured(0), measured(1, VALUES[0], latency_s=0.5)])
    commands = [command.split()[1] for command, _ in next_steps(read_summary(unfinished.path))]
    assert commands == ["table"]
    assert next_steps(read_summary(study(tmp_path / "empty", []).path)) == []


@pytest.mark.parametrize("env", [{}, {"NO_COLOR": "1"}, {"CI": "true"}, {"TERM": "dumb"}])
@pytest.mark.parametrize("words", [["report"], ["table", "--format", "markdown"], ["watch"]])
def test_piped_output_is_plain_text(tmp_path: Path, env: dict[str, str], words: list[str]) -> None:
    folder = usual(tmp_path / "study")
    command = [sys.executable, "-m", "autotune.cli", words[0], str(folder.path), *words[1:]]
    done = subprocess.run(command, env={**os.environ, **env}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "\x1b" not in done.stdout
    assert "\r" not in done.stdout
    assert done.stdout
