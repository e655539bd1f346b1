"""A temporary folder is removed, and kept where an error tells the user to read a file in it."""

from pathlib import Path

import pytest

from autotune.errors import UserError
from autotune.execution.scratch import scratch


@pytest.mark.parametrize(("message", "kept"), [("see {}/log.txt.", True), ("a bad word.", False)])
def test_a_log_that_an_error_names_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, message: str, kept: bool
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    folders = []

    def fails() -> None:
        with scratch() as folder:
            folders.append(folder)
            raise UserError(message.format(folder))

    with pytest.raises(UserError):
        fails()
    assert [folder.exists() for folder in folders] == [kept]


def test_the_folder_is_removed_without_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with scratch() as folder:
        assert folder.is_dir()
    assert list(tmp_path.iterdir()) == []
