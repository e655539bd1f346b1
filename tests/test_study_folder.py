"""Files that are never half-written, folders that are no study, the lock, and a full disk."""

import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from autotune import study_folder as folders
from autotune.errors import UserError
from autotune.frozen_model import read_json, write_json
from autotune.study_folder import StudyFolder, require_free_space

# Writes 100 kB, and is killed (by itself, with SIGKILL) while the rest is still to come.
KILLED_WHILE_WRITING = """
import os, signal, sys
from pathlib import Path
from autotune.frozen_model import write_json

class Deadly(dict):
    def __bool__(self): return True
    def items(self): os.kill(os.getpid(), signal.SIGKILL)

write_json(Path(sys.argv[1]), {"long": ["x" * 1000] * 100, "then": Deadly()})
"""


def test_what_was_written_is_what_is_read(tmp_path: Path) -> None:
    data = {"a": [1, 2.5, None, True], "ü": {"nested": "text"}}
    write_json(tmp_path / "a.json", data)
    assert read_json(tmp_path / "a.json", "file") == data
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


@pytest.mark.parametrize("existed", [True, False])
def test_a_writer_killed_midway_leaves_the_old_file_or_none(tmp_path: Path, existed: bool) -> None:
    path = tmp_path / "a.json"
    if existed:
        write_json(path, {"old": 1})
    done = subprocess.run([sys.executable, "-c", KILLED_WHILE_WRITING, str(path)], capture_output=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    half = [p for p in tmp_path.iterdir() if p != path]
    assert [p.stat().st_size > 8000 for p in half] == [True], "it was killed in the middle of writing"
    assert path.exists() == existed
    if existed:
        assert read_json(path, "file") == {"old": 1}


@pytest.mark.parametrize("bad", [{"x": object()}, {"x": math.nan}, {"x": math.inf}])
def test_what_is_not_json_leaves_the_old_file_and_nothing_beside_it(tmp_path: Path, bad: object) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"old": 1})
    with pytest.raises((TypeError, ValueError)):
        write_json(path, {"long": ["x" * 1000] * 100, "bad": bad})
    assert json.loads(path.read_text()) == {"old": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


@pytest.mark.parametrize(
    ("content", "says"),
    [(b'{"a": [1, 2', "not whole JSON.*cut short"), (b"", "not whole JSON"), (b"\xff\xfe", "can't be read")],
)
def test_a_file_that_is_not_json_is_refused_by_its_name(tmp_path: Path, content: bytes, says: str) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(UserError, match=rf"^config '.*a\.json'.* {says}"):
        read_json(path, "config")


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"there is no config at '.*gone\.json'"):
        read_json(tmp_path / "gone.json", "config")
    with pytest.raises(UserError, match="is a folder: name the file in it"):
        read_json(tmp_path, "config")


def test_making_a_study_folder_object_touches_nothing(tmp_path: Path) -> None:
    StudyFolder(tmp_path / "a" / "b")
    assert list(tmp_path.iterdir()) == []


def test_a_study_folder_is_made_with_its_parents_or_taken_empty(tmp_path: Path) -> None:
    StudyFolder(tmp_path / "a" / "b").create()
    StudyFolder(tmp_path / "a" / "b").create()
    assert (tmp_path / "a" / "b").is_dir()


def test_a_study_is_taken_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "study.json").write_text("{}")
    (tmp_path / "notes.txt").write_text("mine")
    StudyFolder(tmp_path).create()
    assert (tmp_path / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize("names", [["thesis.txt"], ["probe"], [".lock", "thesis.txt"], [".study.json.1"]])
def test_a_folder_with_other_things_in_it_is_refused_and_left_alone(tmp_path: Path, names: list[str]) -> None:
    for name in names:
        (tmp_path / name).write_text("mine")
    with pytest.raises(UserError, match="it is no study; name another --study"):
        StudyFolder(tmp_path).create()
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(names)


def test_what_a_search_killed_before_its_first_trial_has_left_is_taken(tmp_path: Path) -> None:
    folder = StudyFolder(tmp_path)
    folder.lock_file.touch()
    folder.probe.mkdir()
    (tmp_path / ".study.json.123").write_text('{"half')
    folder.create()
    with folder.lock():
        assert folder.probe.is_dir()


def test_a_file_is_no_study_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UserError, match="is a file, not a study folder"):
        StudyFolder(tmp_path / "file").create()
    with pytest.raises(UserError, match="can't be made: Not a directory"):
        StudyFolder(tmp_path / "file" / "study").create()
    assert (tmp_path / "file").read_text() == "mine"


def test_discarding_takes_back_exactly_what_was_made(tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    folder = StudyFolder(tmp_path / "kept" / "reports" / "today")
    folder.create()
    with folder.lock():
        folder.probe.mkdir()
        (folder.probe / "log.txt").write_text("words")
        folder.discard()
    assert [path.name for path in tmp_path.rglob("*")] == ["kept"]


def test_discarding_leaves_a_study_and_other_studies_alone(tmp_path: Path) -> None:
    folder = StudyFolder(tmp_path / "reports" / "a")
    folder.create()
    folder.study.write_text("{}")
    folder.discard()
    assert folder.study.exists()
    other = StudyFolder(tmp_path / "reports" / "b")
    other.create()
    other.discard()
    assert sorted(path.name for path in (tmp_path / "reports").iterdir()) == ["a"]


def test_two_searches_in_one_folder_are_refused_and_the_lock_ends_with_its_holder(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).mkdir()
    with StudyFolder(tmp_path / "a").lock():
        with pytest.raises(UserError, match="another search is running"), StudyFolder(tmp_path / "a").lock():
            pass
        with StudyFolder(tmp_path / "b").lock():
            pass  # another folder's lock is another lock
    with StudyFolder(tmp_path / "a").lock():
        assert (tmp_path / "a" / ".lock").exists()


def test_a_killed_holder_frees_the_lock(tmp_path: Path) -> None:
    script = (
        "import sys, pathlib; from autotune.study_folder import StudyFolder\n"
        "with StudyFolder(pathlib.Path(sys.argv[1])).lock():\n"
        "    print('held', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", script, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(UserError, match="another search is running"), StudyFolder(tmp_path).lock():
            pass
        holder.kill()
        holder.wait()
        with StudyFolder(tmp_path).lock():
            assert holder.returncode == -signal.SIGKILL


def test_the_lock_of_somebody_else_s_study_empties_no_file_and_is_never_waited_for(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    (tmp_path / ".lock").symlink_to("mine.txt")
    with pytest.raises(UserError, match="can't be written: Too many levels of symbolic links"):
        StudyFolder(tmp_path).lock().__enter__()
    assert (tmp_path / "mine.txt").read_text() == "mine"
    (tmp_path / ".lock").unlink()
    os.mkfifo(tmp_path / ".lock")
    assert not StudyFolder(tmp_path).is_locked()
    with StudyFolder(tmp_path).lock():
        assert StudyFolder(tmp_path).is_locked()


def test_a_folder_in_which_no_lock_can_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / ".lock").mkdir()
    with pytest.raises(UserError, match="can't be written: Is a directory"), StudyFolder(tmp_path).lock():
        pass


def test_a_full_disk_is_refused_with_what_is_free_and_what_is_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    require_free_space(tmp_path)
    monkeypatch.setattr(folders, "MIN_FREE_BYTES", 2**80)
    with pytest.raises(UserError, match=r"no room on the disk: .* has \d+ MiB free, a trial needs \d+ MiB"):
        require_free_space(tmp_path)


def test_trials_are_listed_by_number_however_many_there_are(tmp_path: Path) -> None:
    folder = StudyFolder(tmp_path)
    for number in (10, 2, 0, 9999):
        folder.trial(number).mkdir(parents=True)
    (tmp_path / "trials" / "notes").mkdir()
    assert [path.name for path in folder.trial_folders()] == ["0000", "0002", "0010", "9999"]


def test_what_killed_processes_have_left_is_swept_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = StudyFolder(tmp_path / "study")
    old, forgotten = time.time() - 2 * folders.LEFT_AFTER_S, time.time() - 2 * folders.FORGOTTEN_AFTER_S
    place = folder.trial(3)
    place.mkdir(parents=True)
    left = [folder.path / ".best.json.4711", place / ".trial.json.12"]
    kept = [folder.path / ".notes", folder.path / "best.json", folder.path / ".best.json.99", place / ".hidden.txt"]
    for path in (*left, *kept):
        path.write_text("x")
        os.utime(path, (old, old))
    os.utime(kept[2])  # is being written
    gone, young = (tmp_path / "cache" / "autotune" / name for name in ("0" * 12, "1" * 12))
    for cache in (gone, young):
        cache.mkdir(parents=True)
        (cache / "kernel.so").write_text("x")
        os.utime(cache / "kernel.so", (forgotten, forgotten))
        os.utime(cache, (forgotten, forgotten))
    os.utime(young / "kernel.so")
    with folder.lock():
        assert [path for path in left if path.exists()] == []
        assert [path for path in kept if not path.exists()] == []
        assert (gone.exists(), young.exists()) == (False, True)
