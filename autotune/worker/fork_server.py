"""The nursery: a process that has loaded the libraries, touched no device, and forks a child for every job.

Started and asked by `isolate/forked.py` over a socket, one JSON line a message. A forked child goes on as a fresh one
begins: with `worker.main()`. The server ends when its socket closes, and is killed like any child when the parent dies.

    parent: {"folder": ..., "env": {...}} + the child's log and lifeline    server: {"pid": ...} or {"fault": "why not"}
    parent: {"bury": pid}, when the child has ended or was killed           server: {"status": ...}
"""

import atexit
import gc
import json
import os
import socket
import sys
import traceback
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

from autotune.worker import forked as fresh
from autotune.worker import main as worker

# What a worker imports before it measures, draws or judges. Nothing here may start a thread or a GPU: that is checked.
# Inductor is not among them: what compiling takes, its own import included, is the config's cost.
LIBRARIES = (
    "diffusers",
    "transformers",
    "torch._dynamo.utils",
    "torchmetrics.functional.image",
    "autotune.measure.memory",
    "autotune.measure.quality",
    "autotune.measure.watch",
    "autotune.building.build",
    "autotune.pipelines.loading",
)


def main() -> None:
    connection = socket.socket(fileno=int(sys.argv[1]))
    worker.die_with_parent()
    prepare(Path(sys.argv[2]))
    sys.argv = ["autotune.worker", str(serve(connection))]
    try:
        worker.main()
    except SystemExit as end:
        leave(int(end.code or 0))
    leave(0)


def leave(status: int) -> NoReturn:
    """End this child as an interpreter ends, but without taking all modules apart that it has: it takes seconds."""
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def prepare(folder: Path) -> None:
    """Import whatever the job in this folder, and those that will follow it, import."""
    from autotune.frozen_model import read_json
    from autotune.job import JOB
    from autotune.knobs import all_knobs

    for name in LIBRARIES:
        import_module(name)
    all_knobs()
    job: Any = JOB.validate_python(read_json(folder / "job.json", "job"))
    if job.kind in ("measure", "draw"):
        try:
            import_module("autotune.pipelines.loading").import_classes(job.target.pipeline)
        except Exception:  # whatever it is, the job itself will meet it, and say so in its outcome
            traceback.print_exc()
    gc.collect()  # otherwise importing leaves one due that every child would pay anew, in its loading


def serve(connection: socket.socket) -> Path:
    """Fork a child for every request. Returns in the children only, each of which gets the folder of its job."""
    files, fault = _rehearse()
    _say(connection, {"fault": fault} if fault else {"ready": True})
    while True:
        request, descriptors = _hear(connection)
        if "bury" in request:
            _say(connection, {"status": os.waitstatus_to_exitcode(os.waitpid(request["bury"], 0)[1])})
            continue
        fault = fresh.fault()
        if fault:
            _say(connection, {"fault": fault})
            continue
        server = os.getpid()
        child = os.fork()
        if child == 0:
            connection.close()
            log, lifeline = descriptors
            fresh.begin(server, log, lifeline, request["env"], files)
            return Path(request["folder"])
        for descriptor in descriptors:
            os.close(descriptor)
        _say(connection, {"pid": child})


def _rehearse() -> tuple[list[fresh.Stretch], str | None]:
    """What every fork must map in, and why none can be made, if so.

    A first fork is for nothing: BLAS libraries stop their idle threads at a fork (they start them anew at the next
    call), so that threads which are there after it are of a kind that a fork would lose.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    ours, theirs = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(theirs, (fresh.fault_of_fork() or "").encode())
        os._exit(0)
    os.close(theirs)
    with os.fdopen(ours, encoding="utf-8") as said:
        fault = said.read()
    status = os.waitpid(child, 0)[1]
    if status:
        return [], f"a fork ended with status {os.waitstatus_to_exitcode(status)}"
    try:
        return fresh.files_in_memory(), fault or fresh.fault()
    except OSError as error:
        return [], f"the kernel doesn't show which pages are in memory ({error})"


def _say(connection: socket.socket, message: dict[str, Any]) -> None:
    connection.sendall(json.dumps(message).encode() + b"\n")


def _hear(connection: socket.socket) -> tuple[dict[str, Any], list[int]]:
    """The next request and the file descriptors that came with it. Ends the process where there will be none."""
    line, descriptors, _, _ = socket.recv_fds(connection, 1, 2)
    while line and not line.endswith(b"\n"):
        block = connection.recv(65536)
        line = line + block if block else b""
    if not line:
        os._exit(0)
    return json.loads(line), descriptors


if __name__ == "__main__":
    main()
