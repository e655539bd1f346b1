"""Gate: few trials of one host load and compile at the same time, so that the timings of the others are not disturbed.

A trial that loads takes gigabytes of the host's memory, and one that compiles takes many cores: eight at the same time
leave nothing for the trials of other cards that are being timed. So a worker passes the gate before it starts a child,
and is through when the child says that its timed calls follow, or ends. Ray's own resources can't do this: a task holds
them until its end. The gate is a folder of locked files: a worker that is killed holds none of them.
"""

import fcntl
import os
import stat
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from autotune.devices.host_memory import free_bytes
from autotune.errors import UserError
from autotune.execution.runner import Runner
from autotune.isolation import TIMED, Isolation
from autotune.job import Job
from autotune.measurement import Quality
from autotune.trial import Failure
from autotune.workload import Workload

CORES_EACH = 16  # of the host, for each trial that may load or compile
LOOK_S = 0.5


class Gate:
    """The gate of this host.

    needs_bytes  of the host's memory that a trial takes; None: not known, and then one at a time passes
    folder       of the locks: that of all workers of this user
    waited_s     seconds that this worker has waited so far
    """

    def __init__(
        self,
        needs_bytes: int | None,
        folder: Path | None = None,
        *,
        cores: int | None = None,
        free: Callable[[], int | None] = free_bytes,
    ) -> None:
        self.needs_bytes, self.free = needs_bytes, free
        self.folder = folder or Path(tempfile.gettempdir()) / f"autotune-loading-{os.getuid()}"
        self.places = max(1, (cores or os.cpu_count() or 1) // CORES_EACH)
        self.waited_s = 0.0

    @contextmanager
    def passed(self) -> Iterator[None]:
        """Inside, a child may load and compile. The place is free again once it says that its calls are timed."""
        began = time.monotonic()
        held = self._wait()
        self.waited_s += time.monotonic() - began
        timed, ended = self.folder / f"{os.getpid()}.timed", threading.Event()
        timed.unlink(missing_ok=True)  # of a worker that was killed, and had this number
        os.environ[TIMED] = str(timed)

        def leave() -> None:
            while not timed.exists() and not ended.wait(LOOK_S):
                pass
            held.close()

        watching = threading.Thread(target=leave, daemon=True)
        watching.start()
        try:
            yield
        finally:
            ended.set()
            watching.join()
            timed.unlink(missing_ok=True)
            os.environ.pop(TIMED, None)

    def _wait(self) -> IO[str]:
        self.folder.mkdir(mode=0o700, exist_ok=True)
        self._require_own()
        while True:
            with (self.folder / "gate").open("w") as gate:  # one at a time looks who is there
                fcntl.flock(gate, fcntl.LOCK_EX)
                held = self._enter()
            if held is not None:
                return held
            time.sleep(LOOK_S)

    def _require_own(self) -> None:
        """Raises UserError where somebody else can write there, and so decides which files are emptied and locked."""
        found = self.folder.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o022:
            raise UserError(f"{str(self.folder)!r} is no folder that this user alone can write to: remove it.")

    def _enter(self) -> IO[str] | None:
        """A place, held as long as the file is open; None: there is none now."""
        free, taken = list[IO[str]](), 0
        for number in range(self.places):
            place = (self.folder / f"place-{number}").open("w")
            try:
                fcntl.flock(place, fcntl.LOCK_EX | fcntl.LOCK_NB)
                free.append(place)
            except BlockingIOError:
                place.close()
                taken += 1
        mine = free[0] if free and (not taken or self._has_memory(taken)) else None
        for other in free:
            if other is not mine:
                other.close()
        return mine

    def _has_memory(self, others: int) -> bool:
        """Is there memory for one more? The others may not have taken theirs yet."""
        free_bytes = self.free()
        return self.needs_bytes is not None and free_bytes is not None and free_bytes >= (others + 1) * self.needs_bytes


class GatedRunner(Runner):
    """A Runner of a host whose other cards are timed: what loads, compiles or judges pictures passes the gate first."""

    gate: Gate

    def _start(
        self, place: Path, job: Job, limit_s: float, cache: Path, how: Isolation | None = None
    ) -> dict[str, Any] | Failure:
        with self.gate.passed():
            return super()._start(place, job, limit_s, cache, how)

    def _judge(
        self, place: Path, reference: Path, workload: Workload, how: Isolation | None = None
    ) -> Quality | Failure:
        with self.gate.passed():
            return super()._judge(place, reference, workload, how)
