"""Whole searches of the demo, as a user runs them: through the command line, with real children.

The workload is as small as it can be (two prompts, two steps): what is tested is what a search does, not what it finds.
Searches that are killed, stopped or given another environment run in a process of their own, the others in this one,
with children that are forked (searches.py).
"""

import html
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import plugin
import pytest
from PIL import Image
from searches import REQUESTED, command_here

import autotune
from autotune.cli.exits import BROKEN, STOPPED, TERMINATED
from autotune.execution import isolate
from autotune.execution.child import Stuck
from autotune.execution.traces import mark_of, marked
from autotune.isolation import Isolation
from autotune.knobs import complete
from autotune.measurement import Measurement
from autotune.production.tuned_config import SCHEMA_VERSION, TunedConfig
from autotune.report.summary import answer, read_summary
from autotune.statistics import interleaved
from autotune.study.record import read_anchors, read_record, read_trials
from autotune.study_folder import StudyFolder
from autotune.trial import Failure

# Nothing is reused, so that every trial leaves all its files. See test_reuse.py for searches that reuse.
SMALL = ["--pipeline", "demo", "--steps", "2", "--device", "cpu", "--no-reuse"]
CONFIRM = ["--confirm-rounds", "2", "--confirm-pairs", "6"]
SPACE = "\n".join(
    [
        "[knobs]",
        *(f"{n} = {json.dumps(v)}" for n, v in complete({}).items() if n not in ("memory_format", "qkv_fusion")),
        "qkv_fusion = [false, true]",
        'memory_format = ["contiguous", "channels_last"]',
        "",
    ]
)
ONE_CONFIG = SPACE.replace('["contiguous", "channels_last"]', '"contiguous"').replace("[false, true]", "false")


# A search in a process of its own whose runs of a confirmation are forked, too: new interpreters take most of its time.
ALL_FORKED = """
import sys
sys.path.append({tests!r})
from searches import forked_children
from autotune.cli import main
with forked_children():
    main()
"""


def command(*words: object) -> list[str]:
    return [sys.executable, "-m", "autotune.cli", *map(str, words)]


def all_forked(*words: object) -> list[str]:
    code = ALL_FORKED.format(tests=str(Path(__file__).parents[1]))
    return [sys.executable, "-c", code, *map(str, words)]


def fresh(*words: object, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(*words), capture_output=True, text=True, env=env, check=False)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prompts file and a space file."""
    folder = tmp_path_factory.mktemp("files")
    prompts = (
        "a large red circle at the top on a white background\na small blue star at the left on a yellow background\n"
    )
    (folder / "prompts.txt").write_text(prompts)
    (folder / "space.toml").write_text(SPACE)
    return folder


@pytest.fixture(scope="module")
def study(files: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished study of two trials; the tests below go on with it."""
    folder = tmp_path_factory.mktemp("study") / "with a space"
    words = ["search", *small(files), "--study", folder, "--budget", "2", *CONFIRM]
    with pytest.MonkeyPatch.context() as patch:
        # As many rounds of confirmation as it is told, however wide the interval: a call of two steps is mostly noise.
        patch.setattr(interleaved, "MOST_TIMES", 1)
        done = command_here(*words)
    assert done.returncode == 0, done.stderr
    assert "Pareto front" in done.stdout
    return folder


def small(files: Path) -> list[object]:
    return [*SMALL, "--prompts", files / "prompts.txt", "--space", files / "space.toml"]


def test_a_search_leaves_a_config_that_production_loads(study: Path) -> None:
    tuned = TunedConfig.load(study / "best.json")
    pipe = autotune.load(study / "best.json")
    assert type(pipe).__name__ == tuned.pipeline_class == "StableDiffusionPipeline"
    pipe.set_progress_bar_config(disable=True)
    image = pipe("a large red circle at the top on a white background").images[0]
    assert image.size == (64, 64)


def test_trials_are_forked_and_the_confirmation_is_timed_in_new_interpreters(study: Path) -> None:
    """The confirmation's figures are exported; production starts new interpreters, too."""
    asked = {path.relative_to(study).parts: how for path, how in REQUESTED.items() if path.is_relative_to(study)}
    first = {parts: how for parts, how in asked.items() if parts[0] != "confirm"}
    assert set(first.values()) == {"fork"}
    assert {("probe",), ("trials", "0000"), ("trials", "0001", "score"), ("anchors", "0002")} <= set(first)
    runs = [how for parts, how in asked.items() if parts[0] == "confirm" and parts[2].startswith("round-")]
    # Noise may leave the baseline the fastest, as the calls have two steps: then nothing is confirmed.
    confirming = (study / "confirm" / "0001").exists()
    assert runs == ["spawn"] * (4 if confirming else 0)
    drawn = [how for parts, how in asked.items() if parts[0] == "confirm" and not parts[2].startswith("round-")]
    assert set(drawn) <= {"fork"}, "nothing is timed there"


def test_a_search_leaves_a_report_of_all_its_trials(study: Path) -> None:
    summary = read_summary(study)
    made = (study / "report.html").read_text(encoding="utf-8")
    assert html.escape(answer(summary)).replace("&#x27;", "&#39;") in made
    assert [f'id="trial-{trial.number}"' in made for trial in summary.trials] == [True, True]
    assert 'href="trials/0001/log.txt"' in made
    better = {trial.number for trial in summary.front} - {0}
    assert (made.count("data:image/png") >= 2 * (1 + len(better))) if better else "data:image" not in made
    assert (study / "report.md").read_text(encoding="utf-8").startswith("# autotune: demo on ")


def test_every_trial_can_be_looked_into_and_rerun_by_hand(study: Path) -> None:
    place = StudyFolder(study).trial(1)
    found = {path.name for path in place.iterdir()}
    assert {"job.json", "outcome.json", "trial.json", "log.txt", "images", "score"} <= found
    (place / "outcome.json").unlink()
    done = subprocess.run([sys.executable, "-m", "autotune.worker", place], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert len(json.loads((place / "outcome.json").read_text())["result"]["latency_samples_s"]) >= 5


def test_prompts_with_seeds_and_references_are_drawn_with_them_and_can_be_scored_later(
    files: Path, tmp_path: Path
) -> None:
    """From the prompts file to `autotune score`: its pictures lie in the study, whatever becomes of the file."""
    prompts = (files / "prompts.txt").read_text().splitlines()
    Image.new("RGB", (64, 64), "red").save(tmp_path / "red.png")
    lines = [{"prompt": prompts[0], "seed": 7, "reference": "red.png"}, {"prompt": prompts[1]}]
    (tmp_path / "mine.jsonl").write_text("\n".join(map(json.dumps, lines)))
    words = [
        *SMALL,
        "--space",
        files / "space.toml",
        "--prompts",
        tmp_path / "mine.jsonl",
        "--study",
        tmp_path / "study",
    ]
    done = command_here("search", *words, "--budget", "1", "--confirm-rounds", "0")
    assert done.returncode == 0, done.stderr
    folder = StudyFolder(tmp_path / "study")
    workload = read_record(folder).target.workload
    assert workload.seeds == (7, 1)
    (tmp_path / "red.png").unlink()
    assert Image.open(folder.reference(workload.references[0])).getpixel((0, 0)) == (255, 0, 0)
    assert workload.references[1] == ""
    scored = command_here("score", folder.path, "--metric", "clip_image", "--json")
    assert scored.returncode == 0, scored.stderr
    (red, own) = json.loads(scored.stdout)["trials"][0]["scores"]
    assert own == pytest.approx(100, abs=1e-3), "without a reference, the baseline's picture is its own"
    assert red < 99


def test_the_baseline_is_trial_0_and_loses_nothing_against_itself(study: Path) -> None:
    trials = read_trials(StudyFolder(study))
    assert trials[0].origin == "baseline"
    baseline = trials[0].measured
    assert baseline is not None
    assert baseline.quality is not None
    assert baseline.quality.loss(baseline.quality) == 0
    assert baseline.quality.ssim == (1.0, 1.0)
    assert baseline.quality.psnr_db == (None, None)


def test_the_baseline_is_measured_again_after_the_last_trial(study: Path) -> None:
    """Promise 9: an anchor on each side of every trial."""
    anchors = read_anchors(StudyFolder(study))
    assert [anchor.before for anchor in anchors] == [2]
    again = anchors[0].measured
    assert again is not None
    assert len(again.latency_samples_s) >= 5
    assert read_trials(StudyFolder(study))[1].drift != 1.0


def test_a_child_that_can_not_be_ended_ends_the_search_with_what_is_known(
    study: Path, files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a driver's state D does, which no test can make: the third trial is never ended."""
    folder = tmp_path / "copy"
    shutil.copytree(study, folder)
    for name in ("best.json", "report.html", "pictures.png"):
        (folder / name).unlink()
    run_child, started = isolate._run_child, list[str]()

    def hangs(how: Isolation, command: Sequence[str], place: Path, *more: Any) -> int | None:
        assert "0002" not in started, f"{place} is started beside a child that hangs"
        started.append(place.name)
        if place.name == "0002":
            raise Stuck("process 7 waits in the kernel (state D, in nvidia_ioctl)")
        return run_child(how, command, place, *more)

    monkeypatch.setattr(isolate, "_run_child", hangs)
    done = command_here("search", *small(files), "--study", folder, "--budget", "4", *CONFIRM)
    assert done.returncode == BROKEN
    assert "process 7 waits in the kernel (state D, in nvidia_ioctl); a driver holds it" in done.stderr
    assert "Restart the machine, then run the same command" in done.stderr
    assert "best.json is trial" in done.stdout
    trials = read_trials(StudyFolder(folder))
    hung = trials[2].outcome
    assert isinstance(hung, Failure)
    assert (len(trials), hung.cause) == (3, "crash")
    assert "state D" in hung.reason
    assert TunedConfig.load(folder / "best.json").knobs == TunedConfig.load(study / "best.json").knobs
    assert "state D" in (folder / "report.html").read_text(encoding="utf-8")


def test_a_larger_budget_goes_on_until_every_allowed_config_was_tried_once(study: Path, files: Path) -> None:
    done = command_here("search", *small(files), "--study", study, "--budget", "9", "--confirm-rounds", "0")
    assert done.returncode == 0, done.stderr
    assert "going on after 2 finished trials" in done.stdout
    assert "Every config that the space allows has been tried" in done.stdout
    trials = read_trials(StudyFolder(study))
    assert len({trial.config for trial in trials}) == len(trials) == 4


def test_a_study_of_another_kind_is_refused_and_left_alone(study: Path, files: Path) -> None:
    """What makes it another kind: tests/study/test_record.py."""
    before = {path: path.stat().st_mtime_ns for path in study.rglob("*.json") if "probe" not in path.parts}
    done = command_here("search", *small(files), "--study", study, "--budget", "9", "--steps", "3")
    assert done.returncode == 2
    assert "workload: steps" in done.stderr
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_json_output_is_one_object_a_line_and_ends_with_the_result(study: Path, files: Path) -> None:
    done = command_here("search", *small(files), "--study", study, "--budget", "4", "--confirm-rounds", "0", "--json")
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert [event["event"] for event in events[:1]] == ["probed"]
    assert events[-1]["event"] == "finished"
    assert events[-1]["best"]["schema_version"] == SCHEMA_VERSION


def test_every_kind_of_failure_is_a_typed_trial_and_the_search_goes_on(files: Path, tmp_path: Path) -> None:
    """A third party's knob fails in every way, inside the real worker, on the real demo."""
    values = plugin.KNOB.values[1:]
    recipes = "".join(f'[[recipes]]\nname = "{value}"\nvalues = {{ trouble = "{value}" }}\n' for value in values)
    space = tmp_path / "trouble.toml"
    space.write_text(ONE_CONFIG + recipes)
    env = plugin.install(tmp_path / "site")
    folder = tmp_path / "study"
    words = [*small(files)[:-1], space, "--study", folder, "--budget", "20", "--timeout", "30s", "--isolation", "fork"]
    done = fresh("search", *words, env=env)
    assert done.returncode == 0, done.stdout + done.stderr
    outcomes = {
        json.loads(path.read_text())["values"]["trouble"]: json.loads(path.read_text())["outcome"]
        for path in folder.glob("trials/*/trial.json")
    }
    assert {value: outcome.get("cause") for value, outcome in outcomes.items()} == {
        "none": None,
        "exception": "error",
        "out_of_memory": "out_of_memory",
        "exit": "crash",
        "segfault": "crash",
        "hang": "timeout",
        "unsupported": "unsupported",
        "nan": "broken_output",
        "black": "broken_output",
        "nothing": "no_effect",
    }
    assert "No other config that keeps the limits was better beyond the noise." in done.stdout
    assert "the baseline itself" in json.loads((folder / "best.json").read_text())["about"].lower()


def started(folder: Path, number: int) -> Path:
    """Wait until the child of this trial is at work; returns the trial's folder."""
    place = StudyFolder(folder).trial(number)
    begun(place)
    return place


def begun(*places: Path) -> None:
    """Wait until one of these jobs is at work."""
    deadline = time.monotonic() + 300
    while not any((place / "job.json").exists() for place in places):
        assert time.monotonic() < deadline, f"none of {places} did start"
        time.sleep(0.05)


def processes_of(folder: Path) -> list[str]:
    """The command lines of whatever still works on this study."""
    lines = []
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = process.read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue  # it ended while we looked
        if str(folder) in line:
            lines.append(line)
    return lines


def test_a_search_killed_in_a_trial_leaves_no_process_and_loses_that_trial_at_most(files: Path, tmp_path: Path) -> None:
    folder = tmp_path / "killed"
    words = ["search", *small(files), "--study", folder, "--budget", "2", "--confirm-rounds", "0"]
    search = subprocess.Popen(command(*words), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    place = started(folder, 1)
    os.kill(search.pid, signal.SIGKILL)
    search.wait()
    deadline = time.monotonic() + 10
    while processes_of(folder):
        assert time.monotonic() < deadline, processes_of(folder)
        time.sleep(0.1)
    cut_short = json.loads((place / "job.json").read_text())["values"]
    baseline = StudyFolder(folder).trial(0) / "trial.json"
    before = baseline.stat().st_mtime_ns

    done = command_here(*words)
    assert done.returncode == 0, done.stderr
    assert baseline.stat().st_mtime_ns == before
    trials = read_trials(StudyFolder(folder))
    assert [trial.number for trial in trials] == [0, 1]
    assert trials[1].values == cut_short
    assert all(isinstance(trial.outcome, Measurement) for trial in trials)


def test_a_search_goes_on_after_ctrl_c_after_sigterm_and_after_a_kill_while_it_confirms(
    files: Path, tmp_path: Path
) -> None:
    """Ctrl-C and SIGTERM in a trial, SIGKILL in the second round. A call of one step is surely faster: it is picked."""
    folder, space = tmp_path / "stopped", tmp_path / "space.toml"
    space.write_text(ONE_CONFIG.replace('steps = "workload"', 'steps = ["workload", 1]'))
    words = ["search", *small(files)[:-1], space, "--steps", "8", "--study", folder, "--budget", "2"]
    words += ["--max-quality-drop", "999", "--confirm-rounds", "2", "--confirm-pairs", "0"]
    for how, code, word in ((signal.SIGINT, STOPPED, "stopped"), (signal.SIGTERM, TERMINATED, "ended by SIGTERM")):
        search = subprocess.Popen(all_forked(*words), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        begun(StudyFolder(folder).trial(1))
        search.send_signal(how)
        out, err = search.communicate(timeout=60)
        assert search.returncode == code
        assert err.endswith(f"autotune: {word}; the same command continues.\n")
        assert "Traceback" not in err
        assert "Pareto front" in out
        assert processes_of(folder) == []
        assert len(read_trials(StudyFolder(folder))) == 1
        shutil.rmtree(StudyFolder(folder).trial(1))  # so that the next search is seen to begin it

    search = subprocess.Popen(all_forked(*words), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    rounds = folder / "confirm" / "0001"
    begun(*(rounds / f"round-2-trial-{number}" for number in (0, 1)))
    os.kill(search.pid, signal.SIGKILL)
    search.wait()
    first = {path: path.stat().st_mtime_ns for path in rounds.glob("round-1-*/*.json")}
    assert len({path.parent for path in first}) == 2

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(interleaved, "MOST_TIMES", 1)  # as many rounds as it is told
        done = command_here(*words)
    assert done.returncode == 0, done.stderr
    assert {path: path.stat().st_mtime_ns for path in rounds.glob("round-1-*/*.json")} == first, "they were kept"


def test_a_trial_killed_by_somebody_else_is_run_again_and_not_held_against_the_config(
    files: Path, tmp_path: Path
) -> None:
    folder, killed = tmp_path / "disturbed", list[int]()

    def kill() -> None:
        place = started(folder, 0)
        deadline = time.monotonic() + 300
        while not (children := [pid for pid in marked(mark_of(place, os.getpid())) if leads_a_group(pid)]):
            assert time.monotonic() < deadline
        os.kill(children[0], signal.SIGKILL)
        killed.append(children[0])

    somebody = threading.Thread(target=kill)
    somebody.start()
    done = command_here("search", *small(files), "--study", folder, "--budget", "1")
    somebody.join()
    assert done.returncode == 0, done.stderr
    assert len(killed) == 1
    assert not isinstance(read_trials(StudyFolder(folder))[0].outcome, Failure)


def leads_a_group(pid: int) -> bool:
    """Its watcher does not."""
    try:
        return os.getpgid(pid) == pid
    except ProcessLookupError:
        return False
