"""What commands print: the same look everywhere, whole at 80 columns, without colours, and in a pipe."""

import io
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import make_target
from made_up import failed, measured
from rich.console import Console
from studies import VALUES, study, usual

from autotune.goal import Goal
from autotune.knobs import complete
from autotune.report.markdown import markdown
from autotune.report.summary import next_steps, read_summary
from autotune.report.terminal.live import BAR, LiveView, bar
from autotune.report.terminal.search import front_table
from autotune.report.terminal.show import PlainLines, as_data
from autotune.report.terminal.theme import show_heading, show_steps
from autotune.statistics.failing_values import failing_values
from autotune.study.space import make_space
from autotune.study.space_file import shipped_space_file
from autotune.tuning.events import Confirming, Probed, TrialEnded, TrialStarted, ValueDropped


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


REGIONAL, WHOLE = complete({"compile": "regional", "dtype": "bf16"}), complete({"compile": "denoiser"})


def test_a_trial_that_compiles_says_so_and_how_long_such_trials_took_before() -> None:
    lines, view = PlainLines(), LiveView(10, None, 3)
    for seconds, config in ((12.0, {}), (170.0, REGIONAL), (60.0, {**REGIONAL, "compile_mode": "max-autotune"})):
        trial = measured(len(lines.trials), config).model_copy(update={"seconds": seconds})
        lines.hear(TrialEnded(trial))
        view.hear(TrialEnded(trial))
    told = "compiling; such trials took 60 s to 2 min 50 s before"
    for config in (REGIONAL, WHOLE):  # the other one is of another setting: there is none of its own yet
        started = TrialStarted(3, config, "sampler")
        assert lines.hear(started) == [f"trial 3: {told}"]
        view.hear(started)
        console = narrow(200)
        console.print(view)
        assert told in said(console)
    assert lines.hear(TrialStarted(4, complete({"dtype": "bf16"}), "sampler")) == []
    lines.hear(TrialEnded(measured(3, WHOLE).model_copy(update={"seconds": 80.0})))
    assert lines.hear(TrialStarted(4, WHOLE, "sampler")) == ["trial 4: compiling; such trials took 80 s before"]


def test_the_live_view_shows_at_every_moment_what_it_does_and_the_best_beside_the_baseline() -> None:
    view = LiveView(10, None, 3)

    def shown() -> str:
        console = narrow(120)
        console.print(view)
        return said(console)

    assert "1 of 4: looking at the pipeline and the device" in shown()
    view.hear(TrialStarted(0, complete({}), "baseline"))
    assert "trial 0 (baseline)" in shown()
    view.hear(TrialEnded(measured(0)))
    assert f"baseline {'#' * BAR}" in shown()
    assert "3 of 4: trying configs" in shown()
    view.hear(TrialEnded(measured(1, {"dtype": "bf16"}, latency_s=0.5)))
    assert f"baseline {'#' * (BAR // 2)}{'-' * (BAR // 2)} 1 s" in shown()
    assert f"best     {'#' * BAR} trial 1" in shown()
    view.hear(Confirming(measured(1, {"dtype": "bf16"}), 1))
    assert "4 of 4: confirming the best" in shown()


def test_a_bar_is_never_empty() -> None:
    assert [bar(speed, 4).count("#") for speed in (0.01, 2, 4)] == [1, BAR // 2, BAR]


def test_a_config_that_oversteps_a_limit_is_not_the_best_of_the_live_view(tmp_path: Path) -> None:
    space = make_space(make_target(), shipped_space_file("demo.toml"), fix={}, exclude=(), baseline=complete({}))
    for limit_s, best in ((None, "trial 1"), (0.1, "nothing yet")):
        view, console = LiveView(10, None, 3), narrow(120)
        view.hear(Probed(make_target(), space, tmp_path, (), goal=Goal(max_quality_drop=1.0, max_latency_s=limit_s)))
        view.hear(TrialEnded(measured(0)))
        view.hear(TrialEnded(measured(1, {"dtype": "bf16"}, latency_s=0.5)))
        console.print(view)
        assert best in said(console)


def test_a_value_that_always_fails_is_told_once_with_its_trials_and_its_reason(tmp_path: Path) -> None:
    trials = [measured(0), failed(1, VALUES[0]), failed(2, VALUES[0])]
    folder = study(tmp_path / "study", trials)
    [dropped] = failing_values(trials, {})
    told = "dtype=bf16 failed alike in trials 1 and 2 (error: made up): no further trial has this value"
    assert PlainLines().hear(ValueDropped(dropped)) == [told]
    assert told in markdown(read_summary(folder.path)).replace("\\", "")
    assert as_data(ValueDropped(dropped))["trials"] == [1, 2]
