"""Main of the child process: it reads `job.json`, runs the job, and writes `outcome.json`.

Repeat any trial by hand: python -m autotune.worker FOLDER

The child knows nothing of the search. execution/isolate.py starts it in a process group of its own. It passes the read
end of a pipe, the lifeline (AUTOTUNE_LIFELINE), and keeps the write end. When the parent dies, for whatever reason, the
write end closes, and a watcher process kills the group. Where the group was stopped (SIGSTOP), the kernel kills the
child, which wakes the watcher.
"""

import contextlib
import ctypes
import errno
import os
import signal
import sys
import traceback
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autotune.isolation import LIFELINE, MARK, TIMED

if TYPE_CHECKING:
    from autotune.job import Job

PR_SET_PDEATHSIG = 1

# kind of job -> module:function. function(job, folder) runs the job and returns its result as JSON. It lives in the
# room that the job is about. Only the module of the current job is imported.
JOBS = {
    "device": "autotune.devices.probe:run_device_job",
    "probe": "autotune.worker.probe:run_probe_job",
    "measure": "autotune.worker.measure:run_measure_job",
    "draw": "autotune.worker.measure:run_draw_job",
    "untouched": "autotune.worker.untouched:run_untouched_job",
    "packages": "autotune.worker.packages:run_packages_job",
    "chain": "autotune.worker.measure:run_chain_job",
    "artifacts": "autotune.production.artifacts:run_artifacts_job",
    "compat": "autotune.compat.pictures:run_compat_job",
    "score": "autotune.measure.quality:run_score_job",
    "rescore": "autotune.measure.rescore:run_rescore_job",
}


def main() -> None:
    folder = Path(sys.argv[1])
    die_with_parent()
    # Imported late: die_with_parent() forks, so this process must be small and have one thread until then.
    from autotune.devices import environment
    from autotune.frozen_model import read_json, write_json
    from autotune.job import DISK_FULL_STATUS, JOB, JobOutcome, device_of
    from autotune.worker.classify import classify
    from autotune.worker.host import live_within

    try:
        job = JOB.validate_python(read_json(folder / "job.json", "job"))
        device = device_of(job)
        if device is not None:  # the parent has set the same; this is for a job that is repeated by hand
            os.environ.update(environment(device))
        live_within(job)
        report = JobOutcome(result=run(job, folder))
    except Exception as error:
        traceback.print_exc()
        report = JobOutcome(failure=classify(error))
    try:
        write_json(folder / "outcome.json", report.to_json())
    except OSError as error:
        traceback.print_exc()
        sys.exit(DISK_FULL_STATUS if error.errno in (errno.ENOSPC, errno.EDQUOT) else 1)


def run(job: "Job", folder: Path) -> dict[str, Any]:
    """Run the job and return its result as JSON. Raises whatever the job raises."""
    module, _, function = JOBS[job.kind].partition(":")
    result: dict[str, Any] = getattr(import_module(module), function)(job, folder)
    return result


def fork(work: Callable[[], None]) -> int:
    """Run `work` in a fork of this process. The fork ends when it is done. Returns the fork's process id."""
    process = os.fork()
    if process:
        return process
    try:
        work()
        os._exit(0)
    finally:
        os._exit(1)  # after any exception: the fork must not go on as a second worker


def when_the_parent_dies(send: signal.Signals) -> None:
    """Let the kernel send this process a signal when its parent dies; SIGCONT and SIGKILL reach a stopped one, too.

    The parent is the thread that started this process, so it must wait for the process.
    """
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, send)


def tell_timed() -> None:
    """Tell a worker of a search on several cards that loading and compiling are over, see cluster/gate.py."""
    path = os.environ.get(TIMED)
    if path is not None:
        Path(path).touch()


def die_with_parent() -> None:
    """Fork a watcher that kills this process group when the parent's end of the lifeline closes.

    The kernel is asked to kill this process as well, which does not depend on a watcher that may have been stopped.
    """
    variable = os.environ.pop(LIFELINE, None)
    if variable is None:
        return  # run by hand
    lifeline = int(variable)
    if os.environ.get(MARK, "").startswith(f"{os.getppid()}:"):  # the mark names the parent; see also forked.py
        when_the_parent_dies(signal.SIGKILL)
    ready, watching = os.pipe()
    if os.fork() == 0:
        when_the_parent_dies(signal.SIGCONT)
        for descriptor in map(int, os.listdir("/dev/fd")):
            if descriptor > 2 and descriptor != lifeline:  # otherwise readers of these pipes would wait for the watcher
                with contextlib.suppress(OSError):  # os.listdir's own descriptor is closed by now
                    os.close(descriptor)
        os.read(lifeline, 1)  # the parent never writes, so this returns when the write end closes
        os.killpg(0, signal.SIGKILL)
    os.close(lifeline)
    os.close(watching)
    os.read(ready, 1)  # returns when the watcher has closed its copy: a child never works unwatched
    os.close(ready)
