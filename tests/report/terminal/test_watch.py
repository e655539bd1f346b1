"""autotune watch: it sees every trial once, says what is going on, and ends when the search does."""

import io
import threading
import time
from pathlib import Path

import pytest
from made_up import failed, measured
from rich.console import Console
from studies import VALUES, study, usual

from autotune.errors import UserError
from autotune.frozen_model import write_json
from autotune.report.terminal.watch import Watch, show_watch
from autotune.study.record import write_trial
from autotune.study_folder import StudyFolder


def plain() -> Console:
    return Console(file=io.StringIO(), width=80, no_color=True, highlight=False)


def said(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_every_trial_is_told_once(tmp_path: Path) -> None:
    folder = study(tmp_path / "study", [measured(0)])
    watch = Watch(folder.path)
    assert [line.split(":")[0] for line in watch.look().lines] == ["trial 0 (sampler) all defaults"]
    assert watch.look().lines == ()
    write_trial(folder, failed(1, VALUES[0], "crash"))
    seen = watch.look()
    assert seen.lines == ("trial 1 (sampler) dtype=bf16: crash: made up",)
    assert (seen.failed, seen.done) == ("1 crash", 2)


def test_it_says_what_is_being_measured(tmp_path: Path) -> None:
    folder = study(tmp_path / "study", [measured(0)])
    watch = Watch(folder.path)
    assert watch.look().now == "between two trials"
    folder.trial(1).mkdir(parents=True)
    write_json(folder.trial(1) / "job.json", {"values": VALUES[0]})
    assert watch.look().now == "trial 1: dtype=bf16"
    write_json(folder.trial(1) / "job.json", {"values": {"compile": "regional"}})
    assert watch.look().now == "trial 1: compile=regional (compiling; no such trial has run before)"
    folder.anchor(1).mkdir(parents=True)
    assert watch.look().now == "measuring the baseline again"
    folder.confirmation(1).parent.mkdir(parents=True)
    assert watch.look().now == "confirming trial 1 against the baseline"


def test_it_ends_with_the_search_and_tells_the_last_trial(tmp_path: Path) -> None:
    folder = study(tmp_path / "study", [measured(0)])
    console = plain()
    with folder.lock():
        watching = threading.Thread(
            target=show_watch, args=(folder.path,), kwargs={"console": console, "every_s": 0.02}
        )
        watching.start()
        time.sleep(0.2)
        assert watching.is_alive(), "the search is still running"
        write_trial(folder, measured(1, VALUES[0], latency_s=0.5))
    watching.join(timeout=20)
    assert not watching.is_alive()
    assert said(console).count("trial 0 ") == 1
    assert said(console).count("trial 1 ") == 1
    assert "2.00x the baseline's speed" in said(console)


def test_a_search_that_has_ended_is_told_at_once(tmp_path: Path) -> None:
    console = plain()
    show_watch(usual(tmp_path / "study").path, console=console)
    assert said(console).count("\ntrial ") == 7
    assert "no search is running" in said(console)


def test_looking_does_not_keep_a_search_from_starting(tmp_path: Path) -> None:
    folder = StudyFolder(tmp_path / "study")
    folder.create()
    with folder.lock():
        assert folder.is_locked()
    assert not folder.is_locked()
    end = time.monotonic() + 1
    looking = threading.Thread(target=lambda: [folder.is_locked() for _ in iter(lambda: time.monotonic() < end, False)])
    looking.start()
    for _ in range(50):
        with folder.lock():
            pass
    looking.join()


def test_a_folder_that_is_no_study_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not a study folder"):
        show_watch(tmp_path, console=plain())
