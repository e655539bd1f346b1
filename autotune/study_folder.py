"""StudyFolder: where the files of a study lie, and the lock that a running search holds."""

import contextlib
import errno
import fcntl
import hashlib
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import IO

from autotune.errors import UserError

MIN_FREE_BYTES = 64 * 2**20  # several times what the pictures, the log and the database rows of a trial need

TEMPORARY = re.compile(r"\..+\.\d+")  # what frozen_model.write_json writes before it renames
LEFT_AFTER_S = 3600.0  # no file takes an hour to write
FORGOTTEN_AFTER_S = 14 * 86400.0  # compiled code that no search has touched for so long: it costs time to lose, no more
LOCK_CHECK_S = 0.1  # longer than is_locked() holds the lock


def require_free_space(folder: Path) -> None:
    """Raises UserError where the disk of `folder` has less than MIN_FREE_BYTES free."""
    free = shutil.disk_usage(folder).free
    if free < MIN_FREE_BYTES:
        raise UserError(
            f"no room on the disk: {str(folder)!r} has {free / 2**20:.0f} MiB free, a trial needs "
            f"{MIN_FREE_BYTES / 2**20:.0f} MiB; free some, then the same command continues."
        )


def caches() -> Path:
    """The folder of compiled code while a search runs, and of what is costly to find out again.

    It is not in the study folder, whose path may have a space, which breaks Inductor's calls of g++. A user without a
    home folder has one among the temporary files.
    """
    try:
        home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    except RuntimeError:  # no HOME, and no entry among the users
        home = Path(tempfile.gettempdir()) / f"cache-{os.getuid()}"
    return home / "autotune"


def picture_name(index: int) -> str:
    """The file name of the picture of the prompt with this index: 007.png."""
    return f"{index:03d}.png"


class StudyFolder:
    """The paths of one study. The constructor touches no file."""

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
        self.cache = caches() / hashlib.sha256(os.fsencode(os.path.realpath(path))).hexdigest()[:12]
        self.lock_file = path / ".lock"
        self._made: list[Path] = []  # the folders that create() made, deepest first

    def trial(self, number: int) -> Path:
        return self.path / "trials" / f"{number:04d}"

    def anchor(self, before: int) -> Path:
        return self.path / "anchors" / f"{before:04d}"

    def put_aside_baseline(self, index: int) -> None:
        """Keep the run of a config that was tried as the baseline and does not fit: baselines/INDEX, with its log."""
        aside = self.path / "baselines" / f"{index:04d}"
        shutil.rmtree(aside, ignore_errors=True)
        aside.parent.mkdir(exist_ok=True)
        if self.trial(0).exists():
            self.trial(0).rename(aside)

    def confirmation(self, number: int) -> Path:
        return self.path / "confirm" / f"{number:04d}" / "confirmation.json"

    def not_confirmed(self, number: int) -> Path:
        """Why a candidate for the export did not hold up, as a clause."""
        return self.confirmation(number).with_name("not-confirmed.txt")

    def reference(self, digest: str) -> Path:
        """The user's own picture of a prompt, by its digest."""
        return self.references / f"{digest}.png"

    def scores(self, metric: str) -> Path:
        """The scores that `autotune score` wrote."""
        return self.path / "scores" / f"{metric}.json"

    def trial_folders(self) -> list[Path]:
        return _numbered(self.path / "trials")

    def anchor_folders(self) -> list[Path]:
        return _numbered(self.path / "anchors")

    def confirmation_folders(self) -> list[Path]:
        return _numbered(self.path / "confirm")

    def next_trial(self) -> int:
        """The number after every trial that has ended, one whose file is damaged too: no folder of these is reused.

        A trial that was cut short has a folder, but has not ended: it is run again under its number.
        """
        return max((int(place.name) for place in self.trial_folders() if ended(place)), default=-1) + 1

    def create(self) -> None:
        """Make the folder, or accept one that is empty or holds a study. Raises UserError for any other."""
        if self.path.exists() and not self.path.is_dir():
            raise UserError(f"{str(self.path)!r} is a file, not a study folder; name another with --study.")
        if self.path.is_dir() and not self.study.exists() and not self._is_unfinished():
            raise UserError(f"{str(self.path)!r} holds no study.json: it is no study; name another --study.")
        self._made = [folder for folder in (self.path, *self.path.parents) if not folder.exists()]
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"the study folder {str(self.path)!r} can't be made: {error.strerror}.") from None

    def _is_unfinished(self) -> bool:
        """Is the folder empty, or does it hold only what a search writes before its study.json?"""
        names = {path.name for path in self.path.iterdir()}
        early = {self.lock_file.name, self.probe.name, self.references.name}
        return not names or (
            self.lock_file.name in names and all(n in early or n.startswith(f".{self.study.name}.") for n in names)
        )

    def discard(self) -> None:
        """Remove what create() and lock() made, if no study.json was written."""
        if self.study.exists():
            return
        for folder in (self.probe, self.references):
            shutil.rmtree(folder, ignore_errors=True)
        self.lock_file.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # the folder is not empty: it has other files, too
            for folder in self._made:
                folder.rmdir()

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the lock during a search: two searches at once would disturb each other's timings. Raises UserError."""
        try:
            file = _opened(self.lock_file, os.O_RDWR | os.O_CREAT)
        except OSError as error:
            raise UserError(f"{str(self.path)!r} can't be written: {error.strerror}.") from None
        with file:
            if not _locked(file, fcntl.LOCK_EX):
                time.sleep(LOCK_CHECK_S)
                if not _locked(file, fcntl.LOCK_EX):
                    where = repr(str(self.path))
                    raise UserError(f"another search is running in {where}: wait for it, or use another --study.")
            self._sweep()
            yield

    def _sweep(self) -> None:
        """Remove what killed processes have left: half-written files here, and compiled code of studies long ago."""
        for path in (found for depth in ("", "*/*/") for found in self.path.glob(f"{depth}.*.[0-9]*")):
            if TEMPORARY.fullmatch(path.name) and path.is_file() and _age_s(path) > LEFT_AFTER_S:
                path.unlink(missing_ok=True)
        for cache in caches().glob("[0-9a-f]" * 12):
            if cache != self.cache and min(map(_age_s, (cache, *cache.glob("*")))) > FORGOTTEN_AFTER_S:
                shutil.rmtree(cache, ignore_errors=True)

    def is_locked(self) -> bool:
        """Is a search running in this folder? Holds the lock for less than LOCK_CHECK_S if it is free."""
        try:
            with _opened(self.lock_file, os.O_RDONLY) as file:
                return not _locked(file, fcntl.LOCK_SH)
        except FileNotFoundError:
            return False


def _age_s(path: Path) -> float:
    """Seconds since it was changed; 0 where it is gone or can't be asked."""
    try:
        return time.time() - path.stat().st_mtime
    except OSError:
        return 0.0


def _numbered(folder: Path) -> list[Path]:
    """The folders in it whose name is a number, by that number. Anything else there is not ours."""
    numbered = (path for path in folder.glob("[0-9]*") if path.name.isdecimal() and path.is_dir())
    return sorted(numbered, key=lambda path: (int(path.name), path.name))


def set_aside(path: Path) -> Path:
    """Give a file that can't be used another name beside it, and return that. Raises UserError."""
    names = (path.with_name(f"{path.name}.damaged{number or ''}") for number in count())
    free = next(name for name in names if not name.exists())
    try:
        return path.rename(free)
    except OSError as error:
        raise UserError(f"{str(path)!r} can't be used, nor set aside as {free.name!r}: {error.strerror}.") from None


def aside(path: Path) -> bool:
    """Was a file of this name set aside?"""
    return path.with_name(f"{path.name}.damaged").exists()


def ended(place: Path) -> bool:
    """Has the trial of this folder ended, one whose file is damaged too?"""
    return (place / "trial.json").exists() or aside(place / "trial.json")


def _opened(path: Path, flags: int) -> IO[bytes]:
    """A lock file, unchanged. In a study of somebody else it may be a link to a file of the user, or a pipe."""
    return os.fdopen(os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666), "rb")


def _locked(file: IO[bytes], how: int) -> bool:
    """Try to take the lock; False: another process holds it. Closing the file releases it."""
    try:
        fcntl.flock(file, how | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EAGAIN):
            raise
        return False
    return True
