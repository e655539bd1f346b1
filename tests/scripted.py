"""Children that do what a script says instead of a job: fresh ones, or forks of a nursery that has loaded nothing."""

import os
import sys
from pathlib import Path
from typing import Any

from autotune.execution import fork_client as forked
from autotune.execution import isolate
from autotune.isolation import Isolation
from autotune.job import ScoreJob
from autotune.trial import Failure

ANY_JOB = ScoreJob(images="", baseline="", prompts=("a",), scorer=None)  # of a kind that may be forked
SERVER = """
import os, socket, sys
from pathlib import Path
from autotune.worker import fork_server as nursery
from autotune.worker import main as worker
connection = socket.socket(fileno=int(sys.argv[1]))
worker.die_with_parent()
{first}
sys.argv = ["-c", str(nursery.serve(connection))]
exec(os.environ["TEST_SCRIPT"])
"""


def server(first: str = "") -> tuple[str, ...]:
    """The command of a nursery whose children do the script. `first`: what it does before it forks."""
    return (sys.executable, "-c", SERVER.format(first=first))


def run_script(
    folder: Path, how: Isolation, script: str, *, timeout_s: float = 60, first: str = "", env: Any = None
) -> dict[str, Any] | Failure:
    forked.SERVER = server(first)
    forked.READ_LATE.add("TEST_SCRIPT")
    try:
        return isolate.run(
            folder / "job",
            ANY_JOB,
            timeout_s=timeout_s,
            env={"TEST_SCRIPT": script, **(env or {})},
            isolation=how,
            command=(sys.executable, "-c", script),
        )
    finally:
        forked.SERVER = OWN_SERVER


OWN_SERVER = forked.SERVER


def with_tests_importable() -> dict[str, str]:
    """The environment of a process that imports this module."""
    here = str(Path(__file__).parent)
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [here, os.environ.get("PYTHONPATH")]))}
