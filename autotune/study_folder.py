"""Folders: what lies where in a study, files that are never half-written, and the lock of a running search."""

import contextlib
import errno
import fcntl
import hashlib
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from autotune.errors import UserError

LEAST_FREE_BYTES = 64 * 2**20  # a trial's pictures, log and database rows fit in this many times over

LOOKED_AT_S = 0.1  # is_locked() holds the lock for less, when nobody has it


def need_room(folder: Path) -> None:
    """Raises UserError where the disk under `folder` is all but full."""
    free = shutil.disk_usage(folder).free
    if free < LEAST_FREE_BYTES:
        raise UserError(
            f"no room on the disk: {str(folder)!r} has {free / 2**20:.0f} MiB free, a trial needs "
            f"{LEAST_FREE_BYTES / 2**20:.0f} MiB; free some, then the same command continues."
        )


def _caches() -> Path:
    """Where compiled code lies while a search runs: not in the study, whose path may have a space: g++ is lost then."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "autotune"


def picture_name(index: int) -> str:
    """The file of the picture of this prompt."""
    return f"{index:03d}.png"


class StudyFolder:
    """The paths of one study. Making the object touches nothing."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.study = path / "study.json"
        self.database = path / "study.db"
        self.best = path / "best.json"
        self.pictures = path / "pictures.png"
        self.report = path / "report.html"
        self.report_markdown = path / "report.md"
        self.untried = path / "untried.json"
        self.ablation = path / "ablation.json"
        self.probe = path / "probe"
        self.references = path / "references"
        self.cache = _caches() / hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:12]
        self.lock_file = path / ".lock"
        self._made: list[Path] = []  # folders made by create(), the deepest first

    def trial(self, number: int) -> Path:
        return self.path / "trials" / f"{number:04d}"

    def anchor(self, before: int) -> Path:
        return self.path / "anchors" / f"{before:04d}"

    def confirmation(self, number: int) -> Path:
        return self.path / "confirm" / f"{number:04d}" / "confirmation.json"

    def reference(self, digest: str) -> Path:
        """The user's own picture of a prompt."""
        return self.references / f"{digest}.png"

    def scores(self, metric: str) -> Path:
        """What `autotune score` found."""
        return self.path / "scores" / f"{metric}.json"

    def trial_folders(self) -> list[Path]:
        return sorted((self.path / "trials").glob("[0-9]*"))

    def anchor_folders(self) -> list[Path]:
        return sorted((self.path / "anchors").glob("[0-9]*"))

    def create(self) -> None:
        """Make the folder, or accept an empty one or a study; raises UserError for anything else."""
        if self.path.exists() and not self.path.is_dir():
            raise UserError(f"{str(self.path)!r} is a file, not a study folder; name another with --study.")
        if self.path.is_dir() and not self.study.exists() and not self._is_ours({p.name for p in self.path.iterdir()}):
            raise UserError(f"{str(self.path)!r} holds no study.json: it is no study; name another --study.")
        self._made = [folder for folder in (self.path, *self.path.parents) if not folder.exists()]
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"the study folder {str(self.path)!r} can't be made: {error.strerror}.") from None

    def _is_ours(self, names: set[str]) -> bool:
        """Nothing, or what a search leaves that was killed before it knew what to study."""
        mine = {self.lock_file.name, self.probe.name, self.references.name}
        return not names or (
            self.lock_file.name in names and all(n in mine or n.startswith(f".{self.study.name}.") for n in names)
        )

    def discard(self) -> None:
        """Take back what create() and lock() have made, where no study came of it."""
        if self.study.exists():
            return
        for folder in (self.probe, self.references):
            shutil.rmtree(folder, ignore_errors=True)
        self.lock_file.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # not empty: somebody else's as well
            for folder in self._made:
                folder.rmdir()

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Held while a search runs: two searches in one folder would time each other. Raises UserError."""
        try:
            file = self.lock_file.open("w")
        except OSError as error:
            raise UserError(f"{str(self.path)!r} can't be written: {error.strerror}.") from None
        with file:
            if not _locked(file, fcntl.LOCK_EX):
                time.sleep(LOOKED_AT_S)
                if not _locked(file, fcntl.LOCK_EX):
                    where = repr(str(self.path))
                    raise UserError(f"another search is running in {where}: wait for it, or use another --study.")
            yield

    def is_locked(self) -> bool:
        """Is a search running in this folder? Asked without standing in its way for longer than LOOKED_AT_S."""
        try:
            with self.lock_file.open() as file:
                return not _locked(file, fcntl.LOCK_SH)
        except FileNotFoundError:
            return False


def _locked(file: IO[str], how: int) -> bool:
    """Take the lock, if nobody has it; closing the file gives it back."""
    try:
        fcntl.flock(file, how | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EAGAIN):
            raise
        return False
    return True
