"""run(): one job in a process group of its own. The only place that starts a process.

The child is a fresh interpreter (child.py) or a fork of a process that has only loaded the libraries (forked.py); both
do what `worker.py` says. Its output goes through us into `log.txt`, whose size is bounded; when it is over, or its time
is, the whole group is killed and whoever escaped the group is looked for (traces.py). If we die ourselves, by whatever
signal, the lifeline closes and the child's watcher kills the group (see worker.py).
"""

import os
import shutil
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from autotune.errors import UserError
from autotune.execution import fork_client as forked
from autotune.execution.child import Child, Fresh, look_after
from autotune.execution.traces import marked
from autotune.frozen_model import read_json, write_json
from autotune.isolation import ASKED_AT, HOW, Isolation
from autotune.job import DISK_FULL_STATUS, Job, Report
from autotune.study_folder import need_room
from autotune.trial import Failure

__all__ = ["WORKER", "choose", "close", "marked", "run"]

WORKER = (sys.executable, "-m", "autotune.worker")
FOR_ALL = {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}  # torch counts GPUs as NVML does, not by their speed
# Done again and again in one search. Of the others some ask the device itself, download, fork by themselves or run the
# user's code; each is done once, and by a fresh interpreter.
FORKED_KINDS = {"measure", "draw", "score"}


def run(
    folder: Path,
    job: Job,
    *,
    timeout_s: float,
    env: Mapping[str, str] | None = None,
    isolation: Isolation | None = None,
    command: Sequence[str] = WORKER,
) -> dict[str, Any] | Failure:
    """Do the job in a new child; its result, or the Failure that explains why there is none.

    isolation  None: forked where that is safe, see choose(); "fork" is a wish that an unsafe nursery refuses
    command    of a fresh interpreter

    Everything that an earlier run left in the folder is removed first. Raises UserError where the disk is full.
    """
    shutil.rmtree(folder, ignore_errors=True)
    try:
        folder.mkdir(parents=True)
        need_room(folder)
        write_json(folder / "job.json", job.to_json())
    except OSError as error:
        raise UserError(f"{str(folder)!r} can't be written: {error.strerror or error}.") from None
    kills_before = _kernel_oom_kills()
    how = choose(isolation) if job.kind in FORKED_KINDS else "spawn"
    whole = {**os.environ, **FOR_ALL, **(env or {}), ASKED_AT: str(time.monotonic())}
    status = _run_child(how, command, folder, timeout_s, whole)
    return _read_outcome(folder, status, timeout_s, oom_killed=_kernel_oom_kills() > kills_before)


def choose(wish: Isolation | None) -> Isolation:
    """How children are started. Where the user says nothing: forked, but on Linux only (macOS can't bear it),
    and not where other packages' knobs would be imported beside ours: nobody knows what they do to a process."""
    return wish or ("fork" if sys.platform == "linux" and not _others_knobs() else "spawn")


@cache
def _others_knobs() -> bool:
    return bool(entry_points(group="autotune.knobs"))


def close() -> None:
    """End the process that children are forked off, if there is one. The next job starts another."""
    forked.close()


def _run_child(
    how: Isolation, command: Sequence[str], folder: Path, timeout_s: float, env: Mapping[str, str]
) -> int | None:
    """The child's exit status (negative: the signal that ended it), or None where its time was up."""

    def fresh(log: int, lifeline: int, env: Mapping[str, str]) -> Child:
        return Fresh([*command, str(folder)], log, lifeline, {**env, HOW: "spawn"})

    if how == "spawn":
        return look_after(fresh, folder, timeout_s, env)
    with forked.nursery(folder, env) as nursery:

        def child(log: int, lifeline: int, env: Mapping[str, str]) -> Child:
            found = forked.child(nursery, folder, log, lifeline, {**env, HOW: "fork"}) if nursery else None
            return found or fresh(log, lifeline, env)

        return look_after(child, folder, timeout_s, env)


def _read_outcome(folder: Path, status: int | None, timeout_s: float, *, oom_killed: bool) -> dict[str, Any] | Failure:
    log = folder / "log.txt"
    if status is None:
        return Failure(cause="timeout", reason=f"no result after {timeout_s:.0f} s, killed; log at {log}")
    if (folder / "outcome.json").exists():
        report = Report.parse(read_json(folder / "outcome.json", "outcome"), str(folder / "outcome.json"))
        return report.failure or report.result or {}
    if status == DISK_FULL_STATUS:
        return Failure(cause="environment", reason="no room left on the disk")
    if status >= 0:
        return Failure(cause="crash", reason=f"exited with status {status} and no outcome; log at {log}")
    name = signal.Signals(-status).name
    if status == -signal.SIGKILL and oom_killed:
        return Failure(cause="out_of_memory", reason=f"the host ran out of memory and killed it; log at {log}")
    if -status in (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        return Failure(cause="environment", reason=f"somebody else killed it ({name}); log at {log}")
    return Failure(cause="crash", reason=f"{name}; log at {log}")


def _kernel_oom_kills() -> int:
    """How many processes the kernel has killed for lack of memory since it started."""
    vmstat = Path("/proc/vmstat")
    lines = vmstat.read_text().splitlines() if vmstat.exists() else []
    return sum(int(line.split()[1]) for line in lines if line.startswith("oom_kill "))
