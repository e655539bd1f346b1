"""Steps of `make gpu`, with scripted steps and a made-up card: no GPU is asked, nothing of torch is loaded."""

import json
import shlex
import shutil
import time
import tomllib
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from autotune.cli import app
from autotune.device import Device
from autotune.errors import UserError
from autotune.research.ladder.recipe import read_recipe_file
from tools import gpu, gpu_checks, gpu_reports
from tools.gpu import ROOT
from tools.gpu_ladders import LADDERS, cumulative, part
from tools.gpu_step import LIMIT_S, Step
from tools.gpu_steps import FEATURES, STEPS

CARD = gpu.Card("NVIDIA Made-up 80GB", {"torch": "2.13.0"}, "abc123")
COMMANDS = get_command(app).commands  # type: ignore[attr-defined]


@pytest.fixture
def runner(tmp_path: Path) -> gpu.Runner:
    return gpu.Runner(CARD, tmp_path / "reports", tmp_path / "work", stopping_s=0.3)


def scripted(tmp_path: Path, script: str, **fields: Any) -> Step:
    """A step that runs a Python script, with its folder as the argument."""
    path = tmp_path / "script.py"
    path.write_text(script, encoding="utf-8")
    return Step(**{"name": "scripted", "shows": "a script", "commands": (f"python -S {path} {{work}}",), **fields})


COUNTS = """
import pathlib, sys, time
count = pathlib.Path(sys.argv[1]) / "count"
before = count.read_text() if count.exists() else ""
count.write_text(before + "x")
print("runs before:", len(before), flush=True)
"""


def test_a_step_leaves_its_results_with_command_versions_and_card(runner: gpu.Runner, tmp_path: Path) -> None:
    record = runner.run(scripted(tmp_path, COUNTS, keep=("count",)))
    folder = tmp_path / "reports" / "gpu-made-up-80gb" / "scripted"
    assert record.outcome == "passed"
    assert gpu_reports.read_record(folder / "step.json") == record
    assert (record.card, record.versions, record.commit) == (CARD.name, CARD.versions, CARD.commit)
    assert "script.py" in record.commands[0]
    assert (folder / "count").read_text() == "x"
    assert "runs before: 0" in (folder / "output.txt").read_text()
    assert not (tmp_path / "work" / "gpu-made-up-80gb" / "scripted").exists()


def test_a_step_is_cut_off_at_its_limit_and_goes_on_with_its_own_files(runner: gpu.Runner, tmp_path: Path) -> None:
    step = scripted(tmp_path, COUNTS + "time.sleep(0 if before else 60)", limit_s=1.6)
    started = time.monotonic()
    cut = runner.run(step)
    assert time.monotonic() - started < 20
    assert (cut.outcome, len(cut.seconds)) == ("unfinished", 1)
    assert "limit" in cut.why
    whole = runner.run(step)
    assert (whole.outcome, len(whole.seconds)) == ("passed", 2)
    output = (runner.reports / "scripted" / "output.txt").read_text()
    assert "runs before: 0" in output
    assert "runs before: 1" in output
    assert "KeyboardInterrupt" in output  # it was asked to stop before it was killed


def test_a_search_that_goes_on_has_only_what_is_left_of_its_time(runner: gpu.Runner, tmp_path: Path) -> None:
    """Otherwise it would try configs anew each time, and be cut off in the confirmation each time."""
    stops, record = tmp_path / "stops.py", runner.reports / "search" / "step.json"
    stops.write_text("raise SystemExit(75)")
    step = Step("search", "", (f"python -S {stops} --time-budget {{search_s}}s",), search_s=240.0)
    given = []
    for seconds in ([100.0], [100.0, 200.0], []):
        given.append(runner.run(step).commands[0].split()[-1])
        record.write_text(json.dumps({**json.loads(record.read_text()), "seconds": seconds}))
    assert given == ["240s", "140s", "1s"]


def test_what_ignores_the_request_to_stop_is_killed_with_its_children(runner: gpu.Runner, tmp_path: Path) -> None:
    stubborn = """
import pathlib, signal, subprocess, sys, time
signal.signal(signal.SIGINT, signal.SIG_IGN)
late = pathlib.Path(sys.argv[1]) / "late"
subprocess.Popen([sys.executable, "-S", "-c", f"import time; time.sleep(1.1); open({str(late)!r}, 'w')"])
time.sleep(60)
"""
    started = time.monotonic()
    assert runner.run(scripted(tmp_path, stubborn, limit_s=0.7)).outcome == "unfinished"
    assert time.monotonic() - started < 20
    time.sleep(max(0, started + 1.5 - time.monotonic()))
    assert not (runner.work / "scripted" / "late").exists()


def test_a_step_that_failed_begins_anew_and_stops_at_the_command_that_failed(
    runner: gpu.Runner, tmp_path: Path
) -> None:
    step = scripted(tmp_path, COUNTS)
    step = replace(step, commands=(*step.commands, "python -S -c 'raise SystemExit(3)'", *step.commands))
    for _ in range(2):
        record = runner.run(step)
        assert record.outcome == "failed"
        assert "exit status 3" in record.why
        output = (runner.reports / "scripted" / "output.txt").read_text()
        assert output.count("runs before") == 1
        assert "runs before: 0" in output


SUMMARY = """
print("..s. [100%]")
print("SKIPPED [1] tests/gpu/test_cuda.py:30: not possible on this card: the flash kernel")
print("SKIPPED [2] tests/gpu/test_cuda.py:59: not possible on this card: TF32, which needs compute capability 8.0")
"""


def test_what_the_card_can_not_do_is_said_in_the_summary(runner: gpu.Runner, tmp_path: Path) -> None:
    record = runner.run(scripted(tmp_path, SUMMARY))
    assert record.outcome == "passed"
    assert record.not_possible == ("the flash kernel", "TF32, which needs compute capability 8.0")
    told = gpu_reports.summary(tmp_path / "reports", [scripted(tmp_path, SUMMARY)])
    assert "not possible on this card: the flash kernel, TF32, which needs" in told
    assert gpu_reports.read_record(runner.reports / "scripted" / "step.json") == record


def test_a_test_that_is_skipped_for_another_reason_fails_its_step(runner: gpu.Runner, tmp_path: Path) -> None:
    record = runner.run(scripted(tmp_path, 'print("SKIPPED [1] tests/gpu/test_a.py:3: no network")'))
    assert (record.outcome, record.why) == ("failed", "skipped: no network")


def test_a_record_of_an_earlier_version_is_read(runner: gpu.Runner, tmp_path: Path) -> None:
    runner.run(scripted(tmp_path, "print()"))
    path = runner.reports / "scripted" / "step.json"
    data = json.loads(path.read_text())
    del data["not_possible"]
    path.write_text(json.dumps(data))
    record = gpu_reports.read_record(path)
    assert record is not None
    assert record.not_possible == ()


def test_a_check_that_says_go_on_leaves_the_step_unfinished(runner: gpu.Runner, tmp_path: Path) -> None:
    assert runner.run(scripted(tmp_path, "raise SystemExit(75)")).outcome == "unfinished"


def test_the_output_of_a_command_can_be_kept_in_a_file(runner: gpu.Runner, tmp_path: Path) -> None:
    step = Step("kept", "", ("python -S -c 'print(42)' > {work}/answer.json",), keep=("answer.json",))
    assert runner.run(step).outcome == "passed"
    assert (runner.reports / "kept" / "answer.json").read_text() == "42\n"


def test_a_users_leave_to_be_disturbed_does_not_reach_a_step(
    runner: gpu.Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AUTOTUNE_BUSY", "accept")
    script = "import os; raise SystemExit('AUTOTUNE_BUSY' in os.environ)"
    assert runner.run(scripted(tmp_path, script)).outcome == "passed"


def test_steps_that_have_passed_are_not_run_again(runner: gpu.Runner, tmp_path: Path) -> None:
    steps = [scripted(tmp_path, COUNTS), Step("fails", "", ("python -S -c 'raise SystemExit(1)'",))]
    assert not gpu.run_all(runner, steps)
    written = runner.reports / "scripted" / "step.json"
    first_ns = written.stat().st_mtime_ns
    assert not gpu.run_all(runner, steps)
    assert written.stat().st_mtime_ns == first_ns
    assert gpu.run_all(runner, steps[:1], again=True)
    assert written.stat().st_mtime_ns > first_ns


def made_up(reports: Path, card: str, step: str, outcome: gpu_reports.Outcome) -> None:
    record = gpu_reports.Record(step, card, outcome, "", "2026-11-28T00:00:00+00:00", (61.0,), ("x",), {}, "abc123")
    folder = reports / gpu.Card(card, {}, "").folder / step
    folder.mkdir(parents=True)
    (folder / "step.json").write_text(json.dumps(asdict(record)))


def test_the_summary_and_the_table_name_what_has_passed_where_and_nothing_else(tmp_path: Path) -> None:
    assert "none, on no GPU" in gpu_reports.summary(tmp_path)
    assert set(gpus_of(gpu_reports.table(tmp_path))) == {"never"}
    made_up(tmp_path, "NVIDIA H100", "first-contact", "passed")
    made_up(tmp_path, "NVIDIA T4", "first-contact", "failed")
    made_up(tmp_path, "NVIDIA T4", "search-sd15", "passed")
    lines = {line.split()[0]: line for line in gpu_reports.summary(tmp_path).splitlines()}
    assert "NVIDIA H100: passed 2026-11-28 at abc123, 61 s; NVIDIA T4: failed" in lines["first-contact"]
    assert "never run" in lines["knobs"]
    assert lines["passed"].endswith("1 on NVIDIA H100, 1 on NVIDIA T4")
    cells = dict(zip((feature for feature, _, _ in FEATURES), gpus_of(gpu_reports.table(tmp_path)), strict=True))
    assert cells["Finding the card: memory, kernels, formats, compiler"] == "NVIDIA H100"
    assert cells["... of SD 1.5 and SDXL at full size, confirmed"] == "NVIDIA T4, in part: search-sd15"
    assert cells["Forced SDPA kernels, CUDA graphs, offload, TF32"] == "never"


def gpus_of(table: str) -> list[str]:
    return [line.split(" | ")[2] for line in table.splitlines()[2:]]


def test_the_table_of_the_docs_is_that_of_the_reports() -> None:
    """`python -m tools.gpu --table` makes it."""
    text = (ROOT / gpu_reports.PAGE).read_text(encoding="utf-8")
    assert gpu_reports.page(text, ROOT / "reports") == text


def test_every_step_ends_within_8_minutes_and_shows_a_feature_of_the_table() -> None:
    names = [step.name for step in STEPS]
    assert len(set(names)) == len(names)
    assert all(step.limit_s <= LIMIT_S <= 8 * 60 for step in STEPS)
    assert next(step for step in STEPS if step.name == "first-contact").limit_s <= 3 * 60
    assert {name for _, _, steps in FEATURES for name in steps} == set(names)


def test_every_command_of_a_step_can_be_read(tmp_path: Path) -> None:
    """By the command line of autotune; scripts and tests exist."""
    for command in (command for step in STEPS for command in step.commands):
        program, *words = shlex.split(command.format(work=str(tmp_path), report="r", search_s=9).partition(" > ")[0])
        if program == "autotune":
            COMMANDS[words[0]].make_context(words[0], words[1:])
        elif words[0] == "-m" and words[1] == "tools.gpu_checks":
            assert words[2] in gpu_checks.CHECKS
        else:
            files = [word for word in words if word.endswith(".py")]
            assert all((ROOT / file).is_file() for file in files)
            assert files or words[1] == "autotune.compat"


def test_the_parts_of_a_ladder_set_what_the_shipped_recipe_sets(tmp_path: Path) -> None:
    """Together they have every rung of it, and each can be read as a recipe."""
    for shipped in ("fast-diffusion", "memory", "tome"):
        whole = cumulative(tomllib.loads((LADDERS / f"{shipped}.toml").read_text()))
        seen = {}
        texts = [text for step in STEPS if (text := step.files.get("recipe.toml"))]
        for text in dict.fromkeys(texts):
            recipe = tomllib.loads(text)
            if {rung["name"] for rung in recipe["rungs"]} <= whole.keys():
                (tmp_path / "recipe.toml").write_text(text)
                assert len(read_recipe_file(tmp_path / "recipe.toml").rungs) == len(recipe["rungs"]) > 1
                seen.update({rung["name"]: rung["set"] for rung in recipe["rungs"]})
        assert seen == whole


def test_a_part_can_not_leave_out_what_its_first_rung_sets() -> None:
    with pytest.raises(AssertionError, match="leaves alone"):
        part("memory", "traced UNet", "fp16")


def faults(kind: str, path: Path, *more: str) -> list[str]:
    return list(gpu_checks.CHECKS[kind](path, *more))


def test_the_checks_accept_what_a_step_should_leave_and_name_what_is_missing(tmp_path: Path) -> None:
    reports = ROOT / "reports"
    assert faults("ladder", reports / "ladder-demo-cpu") == []
    assert faults("compat", reports / "compat-cpu.json") == []
    assert gpu_checks.main(["compat", str(reports / "compat-cpu.json")]) == 0
    whole = json.loads((reports / "compat-cpu.json").read_text())
    first = next(iter(whole["pipelines"]["flux"]["pairs"]))
    whole["pipelines"]["flux"]["pairs"][first] = {"outcome": "not run"}
    (tmp_path / "compat.json").write_text(json.dumps(whole))
    assert gpu_checks.main(["compat", str(tmp_path / "compat.json")]) == gpu_checks.GOES_ON
    processor = json.loads((reports / "demo-cpu" / "best.json").read_text())["device"]["name"]
    assert faults("search", reports / "demo-cpu", "8") == [f"it ran on the processor ({processor})"]
    assert "8 trials instead of 50 or more" in faults("search", reports / "demo-cpu", "50")

    rows = [{"name": "a", "latency_s": 1.0}, {"name": "b", "notes": []}]
    (tmp_path / "ladder.json").write_text(json.dumps({"table": rows}))
    missing = ["ladder.md is missing", "fewer than two of 2 rungs were measured", "rung 'b' says nothing"]
    assert faults("ladder", tmp_path) == missing

    path = tmp_path / "answer.json"
    path.write_text(json.dumps({"false_alarms": 0.2, "worst": 0.01, "failed": ["out of memory"]}))
    assert len(faults("selftest", path)) == 2
    path.write_text(
        json.dumps({"pipelines": {"sd": {"pairs": {"a + b": {"outcome": "failed", "reason": "it broke"}}}}})
    )
    assert faults("compat", path) == ["sd, a + b: it broke"]
    assert gpu_checks.main(["compat", str(path)]) == 1


def test_a_search_without_a_measured_baseline_does_not_pass(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "reports" / "demo-cpu", tmp_path / "study", ignore=shutil.ignore_patterns("*.png"))
    trial = tmp_path / "study" / "trials" / "0000" / "trial.json"
    text = json.loads(trial.read_text())
    trial.write_text(json.dumps({**text, "outcome": {"cause": "error", "reason": "no kernel image"}}))
    (tmp_path / "study" / "best.json").unlink()
    found = faults("search", tmp_path / "study", "8")
    assert "the baseline was not measured: no kernel image" in found
    assert "a trial ended with error: no kernel image" in found
    assert "best.json is missing" in found


def test_a_word_that_is_no_step_and_a_machine_without_a_gpu_end_in_a_sentence(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert gpu.main(["ladder-sdx"]) == 2
    assert "ladder-sdxl" in capsys.readouterr().err

    def none(word: str) -> Device:
        raise UserError(f"--device {word}: no GPU was found here.")

    monkeypatch.setattr("autotune.devices.find_device", none)
    assert gpu.main(["knobs"]) == 2
    assert "--device cuda" in capsys.readouterr().err
