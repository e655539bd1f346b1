"""Isolate: run one job in a child process with a process group of its own, and read its outcome.

The child is a new interpreter (child.py) or a fork of the fork server (fork_client.py). Both run worker/main.py. The
parent copies the child's output into `log.txt`, up to a limit. When the child has ended or its time is up, the parent
kills its process group, then finds and kills descendants that left the group (traces.py). If the parent dies, by any
signal, the lifeline closes and the child's watcher kills the group (worker/main.py).
"""

import os
import re
import shutil
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from autotune.config import Config
from autotune.devices import environment
from autotune.errors import UserError
from autotune.execution import fork_client
from autotune.execution.child import Child, SpawnedChild, Stuck, supervise
from autotune.execution.host_limit import TooLarge
from autotune.execution.traces import marked
from autotune.execution.variables import check_variables, inherited
from autotune.frozen_model import read_json, write_json
from autotune.isolation import INTERPRETER, REQUESTED_AT, SAFE_PATH, STARTED_BY, Isolation
from autotune.job import DISK_FULL_STATUS, Job, JobOutcome, device_of, pipelines_of
from autotune.pipelines import factory
from autotune.study_folder import require_free_space
from autotune.trial import Failure

__all__ = ["WORKER", "ChildHeld", "choose", "close", "marked", "require_system", "run"]

WORKER = (*INTERPRETER, "-m", "autotune.worker")
# The jobs that a search runs many times, and its probe, which starts the server that the others are forked off. The
# others run once, and always in a new interpreter: some of them use the device directly, download or fork.
FORKED_KINDS = {"probe", "measure", "draw", "score"}

NO_HOST_MEMORY = re.compile(r"std::bad_alloc|memory allocation of \d+ bytes failed", re.IGNORECASE)


class ChildHeld(UserError):
    """A child can't be ended, because a driver holds it: nothing can be measured beside it.

    reason  a clause: which process it is, and where it waits
    config  that the child has built and run; None: it had none, or judged pictures only
    """

    def __init__(self, message: str, reason: str, config: Config | None) -> None:
        super().__init__(message)
        self.reason, self.config = reason, config


def run(
    folder: Path,
    job: Job,
    *,
    timeout_s: float,
    env: Mapping[str, str] | None = None,
    isolation: Isolation | None = None,
    command: Sequence[str] = WORKER,
) -> dict[str, Any] | Failure:
    """Run the job in a new child. Returns its result as JSON, or a Failure that says why there is none.

    folder     where job.json, log.txt and outcome.json go; what an earlier run left there is removed first
    timeout_s  the child is killed after so many seconds
    env        environment variables that are added to those of this process
    isolation  None: see choose(). With "fork", a child is still spawned where the fork server can't fork safely
    command    starts a new interpreter that runs the job

    Raises UserError where the folder can't be written, the disk is full, this system can't watch a child, a variable
    forbids to measure, or the pipe is built by code that the user did not allow; ChildHeld where the child can't be
    killed: what it holds of the device would disturb every later measurement.
    """
    require_system()
    check_variables(os.environ)
    allowed = factory.variables(pipelines_of(job))
    shutil.rmtree(folder, ignore_errors=True)
    try:
        folder.mkdir(parents=True)
        require_free_space(folder)
        write_json(folder / "job.json", job.to_json())
    except OSError as error:
        raise UserError(f"{str(folder)!r} can't be written: {error.strerror or error}.") from None
    kills_before = _kernel_oom_kills()
    how = choose(isolation) if job.kind in FORKED_KINDS else "spawn"
    device = device_of(job)
    alone = environment(device) if device is not None else {}  # a child sees its own GPU only, as torch's GPU 0
    given = {**SAFE_PATH, **alone, **allowed, **(env or {}), REQUESTED_AT: str(time.monotonic())}
    child_env = {**inherited(os.environ, given), **given}
    try:
        on_gpu = device is not None and device.is_gpu
        status = _run_child(how, command, folder, timeout_s, child_env, on_gpu)
    except TooLarge as error:
        reason = f"{error}: killed; log at {folder / 'log.txt'}"
        return Failure(cause="out_of_memory", reason=reason, memory="host")
    except Stuck as stuck:
        values = getattr(job, "values", None)
        raise ChildHeld(
            f"a child process can't be ended: {stuck}; a driver holds it, and nothing can be measured beside it. "
            "Restart the machine, then run the same command to continue. What has finished is kept, and "
            "`autotune report` shows it.",
            f"its process can't be ended: {stuck}",
            None if values is None else Config(values),
        ) from None
    return _read_outcome(folder, status, timeout_s, oom_killed=_kernel_oom_kills() > kills_before)


def require_system() -> None:
    """Raises UserError where this system has not what a child is watched and ended by, such as macOS."""
    if not hasattr(os, "pidfd_open") or not Path("/proc/self/environ").exists():
        raise UserError(
            f"autotune measures in child processes, which it watches by pidfd_open and /proc; {sys.platform} has not "
            "both: run this on Linux (a container or WSL2 will do). An exported config loads on this machine, too."
        )


def choose(requested: Isolation | None) -> Isolation:
    """How children are started: as requested, otherwise forked where that is safe.

    Forking is not safe on macOS, nor with knobs of other packages: importing them might start threads or CUDA.
    """
    return requested or ("fork" if sys.platform == "linux" and not _has_plugin_knobs() else "spawn")


@cache
def _has_plugin_knobs() -> bool:
    return bool(entry_points(group="autotune.knobs"))


def close() -> None:
    """End the fork server, if one is running. The next job that may be forked starts another."""
    fork_client.close()


def _run_child(
    how: Isolation, command: Sequence[str], folder: Path, timeout_s: float, env: Mapping[str, str], on_gpu: bool
) -> int | None:
    """The child's exit status (-N: signal N killed it), or None where its time was up."""

    def spawn(log: int, lifeline: int, env: Mapping[str, str]) -> Child:
        return SpawnedChild([*command, str(folder)], log, lifeline, {**env, STARTED_BY: "spawn"})

    if how == "spawn":
        return supervise(spawn, folder, timeout_s, env, host_limit=on_gpu)
    with fork_client.fork_server(folder, env) as server:

        def fork(log: int, lifeline: int, env: Mapping[str, str]) -> Child:
            args = (folder, log, lifeline, {**env, STARTED_BY: "fork"})
            forked = fork_client.fork_child(server, *args) if server else None
            return forked or spawn(log, lifeline, env)

        return supervise(fork, folder, timeout_s, env, host_limit=on_gpu)


def _read_outcome(folder: Path, status: int | None, timeout_s: float, *, oom_killed: bool) -> dict[str, Any] | Failure:
    log = folder / "log.txt"
    if status is None:
        return Failure(cause="timeout", reason=f"no result after {timeout_s:.0f} s, killed; log at {log}")
    if (folder / "outcome.json").exists():
        report = JobOutcome.parse(read_json(folder / "outcome.json", "outcome"), str(folder / "outcome.json"))
        return report.failure or report.result or {}
    if status == DISK_FULL_STATUS:
        return Failure(cause="environment", reason="no room left on the disk")
    if status >= 0:
        return Failure(cause="crash", reason=f"exited with status {status} and no outcome; log at {log}")
    if status == -signal.SIGALRM:  # the child has set itself a limit, see worker/probe.py
        return Failure(cause="timeout", reason=f"no result in the time that it was given, killed; log at {log}")
    name = signal.Signals(-status).name
    if status == -signal.SIGKILL and oom_killed:
        reason = f"the kernel killed it for lack of host memory; log at {log}"
        return Failure(cause="out_of_memory", reason=reason, memory="host")
    if status == -signal.SIGABRT and (last := _last_words(log)):
        return Failure(cause="out_of_memory", reason=f"{last}; log at {log}", memory="host")
    if -status in (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        return Failure(cause="environment", reason=f"another program or a user killed it ({name}); log at {log}")
    return Failure(cause="crash", reason=f"{name}; log at {log}")


def _last_words(log: Path) -> str | None:
    """What a library printed when it gave up for lack of host memory: Rust's allocator, or an exception of C++.

    Such a library ends the process by SIGABRT. None: there is no such line at the log's end.
    """
    lines = log.read_bytes()[-4096:].decode(errors="replace").splitlines() if log.exists() else []
    return next((line.strip() for line in reversed(lines) if NO_HOST_MEMORY.search(line)), None)


def _kernel_oom_kills() -> int:
    """How many processes the kernel has killed for lack of memory since it booted."""
    vmstat = Path("/proc/vmstat")
    lines = vmstat.read_text().splitlines() if vmstat.exists() else []
    return sum(int(line.split()[1]) for line in lines if line.startswith("oom_kill "))
