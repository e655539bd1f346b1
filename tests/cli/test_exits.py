"""What ends a command: each outcome has its exit code, each fault of the system is one sentence, never a traceback."""

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from autotune import cli
from autotune.cli import exits
from autotune.cli.options import read_fixes
from autotune.errors import UserError
from autotune.study_folder import StudyFolder


@pytest.fixture(autouse=True)
def handler() -> Iterator[None]:
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


def ended(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    """The exit code of the command."""
    monkeypatch.setattr(sys, "argv", ["autotune", *words])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert isinstance(caught.value.code, int)
    return caught.value.code


@pytest.fixture
def fails(monkeypatch: pytest.MonkeyPatch) -> Any:
    """fails(error): the exit code where a command raises this."""

    def with_error(error: BaseException) -> int:
        def schema() -> None:
            raise error

        monkeypatch.setattr("autotune.production.schema.schema", schema)
        return ended(monkeypatch, "schema")

    return with_error


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (PermissionError(errno.EACCES, "Permission denied", "/nowhere/.lock"), "'/nowhere/.lock': Permission denied"),
        (OSError(errno.EROFS, "Read-only file system", "/ro/study.json"), "'/ro/study.json': Read-only file system"),
        (FileNotFoundError(errno.ENOENT, "No usable temporary directory found in ['/tmp']"), "No usable temporary"),
        (NotADirectoryError(errno.ENOTDIR, "Not a directory", b"/etc/passwd/x"), "'/etc/passwd/x': Not a directory"),
        (OSError(errno.ENAMETOOLONG, "File name too long", "x" * 5000), "File name too long"),
        (OSError(errno.ENOSPC, "No space left on device"), "no room left on the disk"),
        (UnicodeEncodeError("utf-8", "\udcff", 0, 1, "surrogates not allowed"), "is not UTF-8"),
        (RuntimeError("Symlink loop from '/a/loop'"), "a symbolic link that leads back to itself"),
        (RuntimeError("Could not determine home directory."), "the home folder that ~ stands for"),
    ],
)
def test_any_fault_of_the_system_is_one_sentence(
    fails: Any, error: Exception, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fails(error) == exits.BAD_INPUT
    said = capsys.readouterr().err
    assert says in said
    assert said.startswith("autotune: ")
    assert said.count("\n") == 1
    assert len(said) < 300


def test_a_fault_of_autotune_keeps_its_traceback(fails: Any) -> None:
    for error in (ZeroDivisionError(), RuntimeError("what pathlib never says")):
        with pytest.raises(type(error)):
            fails(error)


def test_a_closed_pipe_and_signals_have_the_codes_of_their_table(
    fails: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(os, "dup2", lambda *_: None)
    assert fails(BrokenPipeError(errno.EPIPE, "Broken pipe")) == exits.CLOSED_PIPE == 128 + signal.SIGPIPE
    assert fails(KeyboardInterrupt()) == exits.STOPPED == 128 + signal.SIGINT
    assert fails(exits.Terminated()) == exits.TERMINATED == 128 + signal.SIGTERM
    assert capsys.readouterr().err.endswith("autotune: ended by SIGTERM.\n")


def test_sigterm_ends_a_search_with_the_last_word_of_ctrl_c(capsys: pytest.CaptureFixture[str]) -> None:
    signal.signal(signal.SIGTERM, exits.end)
    with pytest.raises(typer.Exit) as caught, exits.resumable():
        os.kill(os.getpid(), signal.SIGTERM)
    assert caught.value.exit_code == exits.TERMINATED
    assert capsys.readouterr().err == "autotune: ended by SIGTERM; the same command continues.\n"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["search", "--confirm-pairs", "-1"], "'--confirm-pairs': "),
        (["serch"], "No such command 'serch'"),
        (["search", "--budgett", "3"], "No such option: --budgett"),
        (["watch"], "Missing argument 'study'"),
        (["search", "--variant", "a", "--variant=b"], "--variant is given 2 times"),
    ],
)
def test_words_that_can_not_be_read_have_the_form_of_all_other_errors(
    monkeypatch: pytest.MonkeyPatch, words: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ended(monkeypatch, *words) == exits.BAD_INPUT
    said = capsys.readouterr().err
    assert said.startswith("autotune: ")
    assert says in said
    assert said.count("\n") == 1
    assert said.endswith((".\n", "?\n", ")\n"))


def test_a_knob_that_is_fixed_twice_is_refused() -> None:
    with pytest.raises(UserError, match="--fix dtype is given twice"):
        read_fixes(["dtype=bf16", "dtype=fp16"])


def test_help_and_done_are_0(monkeypatch: pytest.MonkeyPatch) -> None:
    assert ended(monkeypatch, "--help") == exits.DONE
    assert ended(monkeypatch, "schema") == exits.DONE


def test_a_reader_that_has_ended_is_told_from_a_slower_config() -> None:
    """1 is the code of `verify` for that, and what rich exits with where it writes into a closed pipe."""
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run([sys.executable, "-m", "autotune.cli", "--help"], stdout=writing, check=False)
    os.close(writing)
    assert done.returncode == exits.CLOSED_PIPE


def test_an_error_that_can_not_be_printed_keeps_its_code() -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run([sys.executable, "-m", "autotune.cli", "report", "gone"], stderr=full, check=False)
    assert done.returncode == exits.BAD_INPUT


def test_a_process_without_its_streams_works_and_writes_into_no_file(tmp_path: Path) -> None:
    """`autotune ... >&- 2>&-`: what is opened next would have the number of a stream."""
    (tmp_path / "closed.py").write_text(CLOSED)
    done = subprocess.run([sys.executable, "closed.py"], cwd=tmp_path, check=False)
    assert done.returncode == exits.BAD_INPUT
    assert (tmp_path / "opened").read_text() == "3"


CLOSED = """
import os, sys
sys.argv[1:] = ["report", "gone"]
for number in range(3):
    os.close(number)
sys.stdin = sys.stdout = sys.stderr = None  # as the interpreter has it
from autotune import cli
run = cli._run
def opening(words):
    with open("opened", "w") as file:
        file.write(str(file.fileno()))
        os.write(1, b"a library's words")
    return run(words)
cli._run = opening
cli.main()
"""
NOBODY = """
import os
os.environ.pop("HOME", None); os.environ.pop("XDG_CACHE_HOME", None)
os.getuid = lambda: 54321
from pathlib import Path
from autotune.study_folder import StudyFolder
print(StudyFolder(Path("study")).cache)
"""


def test_a_user_without_a_home_folder_has_a_cache_among_the_temporary_files() -> None:
    done = subprocess.run([sys.executable, "-c", NOBODY], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "/cache-54321/autotune/" in done.stdout


def test_a_study_folder_is_made_of_any_path_and_touches_nothing(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    for path in ("x" * 5000, "", "\udcff", tmp_path / "loop"):
        assert StudyFolder(Path(path)).cache
