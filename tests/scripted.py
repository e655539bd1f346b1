"""Children that run a script instead of a job: spawned, or forked by a fork server that has loaded no libraries."""

import os
import sys
from pathlib import Path
from typing import Any

from autotune.execution import fork_client, isolate
from autotune.isolation import Isolation
from autotune.job import ScoreJob
from autotune.trial import Failure

ANY_JOB = ScoreJob(images="", baseline="", prompts=("a",), scorer=None)  # of a kind that may be forked
SERVER = """
import os, signal, socket, sys
from pathlib import Path
from autotune.worker import fork_server
from autotune.worker import main as worker
connection = socket.socket(fileno=int(sys.argv[1]))
worker.die_with_parent()
if os.getppid() == int(sys.argv[3]): worker.when_the_parent_dies(signal.SIGKILL)
{first}
sys.argv = ["-c", str(fork_server.serve(connection))]
exec(os.environ["TEST_SCRIPT"])
"""


def server(first: str = "") -> tuple[str, ...]:
    """The command of a fork server whose children run the script. `first`: code that it runs before it forks."""
    return (sys.executable, "-c", SERVER.format(first=first))


def run_script(
    folder: Path, how: Isolation, script: str, *, timeout_s: float = 60, first: str = "", env: Any = None
) -> dict[str, Any] | Failure:
    fork_client.SERVER = server(first)
    fork_client.READ_LATE.add("TEST_SCRIPT")
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
        fork_client.SERVER = OWN_SERVER


OWN_SERVER = fork_client.SERVER


def with_tests_importable() -> dict[str, str]:
    """The environment of a process that imports this module."""
    here = str(Path(__file__).parent)
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [here, os.environ.get("PYTHONPATH")]))}
