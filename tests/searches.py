"""command_here(): the autotune command inside this process, with children that are forked wherever that is possible.

A fresh interpreter takes ten seconds of a core to load the libraries. A command in a process of its own starts two or
more of them: its fork server, and each run of a confirmation or a comparison, which are spawned on purpose. Commands
that run here share one fork server. How children are started is tested elsewhere: tests/execution, tests/worker, and
the searches in tests/tuning/test_search.py that run in a process of their own.
"""

import contextlib
import io
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from autotune import cli
from autotune.execution import isolate
from autotune.execution.variables import trial_environment
from autotune.isolation import Isolation
from autotune.job import Job
from autotune.trial import Failure

REQUESTED: dict[Path, Isolation | None] = {}  # folder of a job that ran here -> how its child was to be started


@contextlib.contextmanager
def forked_children() -> Iterator[None]:
    """Inside the block, every measurement is forked, also where `spawn` was asked; the fork server stays."""

    def run(
        folder: Path,
        job: Job,
        *,
        env: Mapping[str, str] | None = None,
        isolation: Isolation | None = None,
        **options: Any,
    ) -> dict[str, Any] | Failure:
        REQUESTED[folder] = isolation
        alike = {**trial_environment(folder / "compiled"), **(env or {})}  # jobs that differ in it share no server
        return isolated(folder, job, env=alike, isolation="fork", **options)

    isolated = isolate.run
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(isolate, "run", run)
        patch.setattr(isolate, "FORKED_KINDS", isolate.FORKED_KINDS | {"chain"})
        patch.setattr(isolate, "close", lambda: None)
        yield


def command_here(*words: object) -> subprocess.CompletedProcess[str]:
    """Run `autotune WORDS` in this process. Returns its exit code and what it printed."""
    out, err, texts = io.StringIO(), io.StringIO(), [str(word) for word in words]
    handler = signal.getsignal(signal.SIGTERM)
    with pytest.MonkeyPatch.context() as patch, forked_children():
        patch.setattr(sys, "argv", ["autotune", *texts])
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), pytest.raises(SystemExit) as end:
            cli.main()
    signal.signal(signal.SIGTERM, handler)
    return subprocess.CompletedProcess(["autotune", *texts], int(end.value.code or 0), out.getvalue(), err.getvalue())
