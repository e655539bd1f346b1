"""The child's main: reads `job.json`, does the job, writes `outcome.json`.

Repeat any trial by hand: python -m autotune.worker FOLDER

It knows nothing of the search. `execution/isolate.py` starts it in a process group of its own, with a pipe
(AUTOTUNE_LIFELINE) whose other end only the parent holds. When that end closes, however the parent died, the whole
group is killed.
"""

import contextlib
import errno
import os
import signal
import sys
import traceback
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autotune.isolation import LIFELINE

if TYPE_CHECKING:
    from autotune.job import Job

# kind of job -> module:function(job, folder) that does it and returns its result as JSON. The function lives in the
# room that the job is about; only the module of the job at hand is imported.
JOBS = {
    "device": "autotune.devices.probe:run_device_job",
    "probe": "autotune.worker.probe:run_probe_job",
    "measure": "autotune.worker.measure:run_measure_job",
    "draw": "autotune.worker.measure:run_draw_job",
    "chain": "autotune.worker.measure:run_chain_job",
    "artifacts": "autotune.production.artifacts:run_artifacts_job",
    "compat": "autotune.compat.pictures:run_compat_job",
    "score": "autotune.measure.quality:run_score_job",
    "rescore": "autotune.measure.rescore:run_rescore_job",
}


def main() -> None:
    folder = Path(sys.argv[1])
    die_with_parent()
    # Imported late: the watcher above is forked while this process is small and has one thread.
    from autotune.frozen_model import read_json, write_json
    from autotune.job import DISK_FULL_STATUS, JOB, Report
    from autotune.worker.classify import classify

    try:
        report = Report(result=run(JOB.validate_python(read_json(folder / "job.json", "job")), folder))
    except Exception as error:
        traceback.print_exc()
        report = Report(failure=classify(error))
    try:
        write_json(folder / "outcome.json", report.to_json())
    except OSError as error:
        traceback.print_exc()
        sys.exit(DISK_FULL_STATUS if error.errno in (errno.ENOSPC, errno.EDQUOT) else 1)


def run(job: "Job", folder: Path) -> dict[str, Any]:
    """Do the job; returns its result as JSON."""
    module, _, function = JOBS[job.kind].partition(":")
    result: dict[str, Any] = getattr(import_module(module), function)(job, folder)
    return result


def fork(work: Callable[[], None]) -> int:
    """Do the work in a fork of this process, which then ends. Returns the fork's process id."""
    process = os.fork()
    if process:
        return process
    try:
        work()
        os._exit(0)
    finally:
        os._exit(1)  # whatever was raised, it must not run on as a second worker


def die_with_parent() -> None:
    """Fork a watcher that kills this process group when the parent's end of the lifeline closes."""
    word = os.environ.pop(LIFELINE, None)
    if word is None:
        return  # run by hand
    lifeline = int(word)
    if os.fork() == 0:
        for descriptor in map(int, os.listdir("/dev/fd")):
            if descriptor > 2 and descriptor != lifeline:  # it keeps nothing open whose end others wait for
                with contextlib.suppress(OSError):  # the listing's own is closed by now
                    os.close(descriptor)
        os.read(lifeline, 1)  # the parent never writes: this returns when its end has closed
        os.killpg(0, signal.SIGKILL)
    os.close(lifeline)
