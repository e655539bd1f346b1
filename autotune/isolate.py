"""run(): one job in a process group of its own. The only place that starts a process.

The child gets a fresh interpreter; its output goes through us into `log.txt`, whose size is bounded; when it is over,
or its time is, the whole group is killed and whoever escaped the group is looked for. If we die ourselves, by whatever
signal, the lifeline closes and the child's watcher kills the group (see worker.py).
"""

import contextlib
import os
import select
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from autotune.errors import UserError
from autotune.folders import need_room, read_json, write_json
from autotune.job import DISK_FULL_STATUS, Job, Report
from autotune.trial import Failure

WORKER = (sys.executable, "-m", "autotune.worker")
LOG_HEAD_BYTES = 2 * 2**20
LOG_TAIL_BYTES = 2**20
FOR_ALL = {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}  # torch counts GPUs as NVML does, not by their speed
MARK = "AUTOTUNE_JOB"  # in the environment of every process that a job starts


def run(
    folder: Path,
    job: Job,
    *,
    timeout_s: float,
    env: Mapping[str, str] | None = None,
    command: Sequence[str] = WORKER,
) -> dict[str, Any] | Failure:
    """Do the job in a new child; its result, or the Failure that explains why there is none.

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
    status = _run_child([*command, str(folder)], folder, timeout_s, env or {})
    return _read_outcome(folder, status, timeout_s, oom_killed=_kernel_oom_kills() > kills_before)


def _run_child(command: Sequence[str], folder: Path, timeout_s: float, env: Mapping[str, str]) -> int | None:
    """The child's exit status (negative: the signal that ended it), or None where its time was up."""
    mark = f"{os.getpid()}:{folder.resolve()}"
    lifeline_read, lifeline_write = os.pipe()
    try:
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            pass_fds=[lifeline_read],
            env={**os.environ, **FOR_ALL, **env, MARK: mark, "AUTOTUNE_LIFELINE": str(lifeline_read)},
        )
    except BaseException:
        os.close(lifeline_write)
        raise
    finally:
        os.close(lifeline_read)
    log = threading.Thread(target=_copy_log, args=(child.stdout, folder / "log.txt"))
    log.start()
    try:
        return child.returncode if _wait(child, timeout_s) else None
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        os.close(lifeline_write)
        child.wait()
        kill_marked(mark)
        log.join()


def _wait(child: subprocess.Popen[bytes], timeout_s: float) -> bool:
    """Sleep until the child has ended (True) or its time is up (False), without waking in between."""
    watched = os.pidfd_open(child.pid)
    try:
        ended, _, _ = select.select([watched], [], [], timeout_s)
    finally:
        os.close(watched)
    if ended:
        child.wait()
    return bool(ended)


def _copy_log(source: Any, path: Path) -> None:
    """Everything that the child prints: the first LOG_HEAD_BYTES, then the last LOG_TAIL_BYTES, no matter how much.

    A full disk must not stop the reading: the child would hang on a full pipe.
    """
    tail: deque[bytes] = deque()
    head = kept = total = 0
    with source, contextlib.suppress(OSError), path.open("wb", buffering=0) as file:
        while block := source.read1(65536):
            total += len(block)
            if head < LOG_HEAD_BYTES:
                with contextlib.suppress(OSError):
                    file.write(block)
                head += len(block)
                continue
            tail.append(block)
            kept += len(block)
            while kept - len(tail[0]) >= LOG_TAIL_BYTES:
                kept -= len(tail.popleft())
        if total > head + kept:
            file.write(f"\n[autotune left out {total - head - kept} bytes here]\n".encode())
        file.write(b"".join(tail))


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


def marked(mark: str) -> list[int]:
    """The processes that a job has started and that still live, wherever they fled: they all carry its mark."""
    found = []
    needle = f"{MARK}={mark}".encode()
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            alive = (process / "stat").read_text().rpartition(")")[2].split()[0] != "Z"
            if alive and needle in (process / "environ").read_bytes().split(b"\0"):
                found.append(int(process.name))
    return found


def kill_marked(mark: str, *, patience_s: float = 10) -> None:
    """Kill whatever a job has left behind, until nothing is left. Raises RuntimeError where something will not die."""
    deadline = time.monotonic() + patience_s
    while left := marked(mark):
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if time.monotonic() > deadline:
            raise RuntimeError(f"processes {left} of a finished job can't be killed; they would disturb every timing")
        time.sleep(0.02)
