"""Fork server: a process that loads the libraries once, touches no device, and forks a child for each job.

execution/fork_client.py starts the server and talks to it over a socket, one JSON line per message. A forked child goes
on with worker.main(), as a new interpreter does. The server ends when its socket closes. Like any child, it is killed
when the parent dies.

    parent: {"folder": ..., "env": {...}} + file descriptors: log, lifeline   server: {"pid": ...} or {"fault": reason}
    parent: {"reap": pid}, when the child has ended or was killed             server: {"status": ...}
"""

import atexit
import gc
import json
import os
import signal
import socket
import sys
import traceback
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from autotune.worker import forked
from autotune.worker import main as worker

if TYPE_CHECKING:
    from autotune.device import Device
    from autotune.job import Job

# The modules that a worker imports before it measures, draws or judges. None of them may start a thread or CUDA; that
# is checked. Inductor is left out: compiling, with the import of the compiler, is a cost of the config.
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
    if os.getppid() == int(sys.argv[3]):
        worker.when_the_parent_dies(signal.SIGKILL)
    starters = prepare(Path(sys.argv[2]))
    sys.argv = ["autotune.worker", str(serve(connection, starters))]
    try:
        worker.main()
    except SystemExit as end:
        leave(int(end.code or 0))
    leave(0)


def leave(status: int) -> NoReturn:
    """End this child as an interpreter ends, but without tearing down its modules, which takes seconds."""
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def prepare(folder: Path) -> list[str]:
    """Import the modules that the job in this folder and later jobs need. Returns those that started CUDA."""
    from autotune.frozen_model import read_json
    from autotune.job import JOB

    job: Job = JOB.validate_python(read_json(folder / "job.json", "job"))
    cards = _cards(job)
    from autotune.worker.cuda_answers import answered

    with answered(cards) as starters:
        _load(job)
    gc.collect()  # otherwise each child would run the collection that the imports made due, and time it as loading
    return starters


def _load(job: "Job") -> None:
    from autotune.job import DrawJob, MeasureJob, ProbeJob
    from autotune.knobs import all_knobs

    for name in LIBRARIES:
        import_module(name)
    all_knobs()
    if isinstance(job, MeasureJob | DrawJob | ProbeJob):
        from autotune.pipelines.loading import import_classes

        pipeline = job.pipeline if isinstance(job, ProbeJob) else job.target.pipeline
        if pipeline.factory is not None:
            return  # the user's code may start threads: it runs in the children only
        try:
            import_classes(pipeline)
        except Exception:  # the job itself will fail in the same way and report it in its outcome
            traceback.print_exc()


def _cards(job: "Job") -> list["Device"]:
    """The NVIDIA cards that CUDA would count here, in its order: the job's own, which its children see alone.

    Of a job that runs on the processor, NVML is asked, in a fork: this process must not open a device. None where NVML
    tells of several cards: CUDA may count them in another order.
    """
    from autotune.job import device_of

    device = device_of(job)
    if device is not None and device.is_gpu:
        return [device] if device.compute_capability is not None else []
    read_end, write_end = os.pipe()
    process = worker.fork(lambda: _write_cards(write_end))
    os.close(write_end)
    with os.fdopen(read_end, encoding="utf-8") as pipe:
        told = pipe.read()
    os.waitpid(process, 0)
    from autotune.device import Device

    cards = [Device.parse(fields, "what NVML says of a card") for fields in json.loads(told or "[]")]
    return cards if len(cards) == 1 else []


def _write_cards(descriptor: int) -> None:
    from autotune.devices.cuda import find_nvidia_gpus

    os.write(descriptor, json.dumps([card.to_json() for card in find_nvidia_gpus().devices]).encode())


def serve(connection: socket.socket, starters: Sequence[str] = ()) -> Path:
    """Fork a child for each request. Returns in the children only, with the folder of the child's job.

    starters  the modules that started CUDA while they were loaded: this process can't be forked then
    """
    files, fault = _rehearse()
    if fault and starters:
        fault = f"{starters[0]} has started CUDA while it was loaded"
    _send(connection, {"fault": fault} if fault else {"ready": True})
    while True:
        request, descriptors = _receive(connection)
        if "reap" in request:
            _send(connection, {"status": os.waitstatus_to_exitcode(os.waitpid(request["reap"], 0)[1])})
            continue
        fault = forked.fault()
        if fault:
            _send(connection, {"fault": fault})
            continue
        server = os.getpid()
        child = os.fork()
        if child == 0:
            connection.close()
            log, lifeline = descriptors
            forked.begin(server, log, lifeline, request["env"], files)
            return Path(request["folder"])
        for descriptor in descriptors:
            os.close(descriptor)
        _send(connection, {"pid": child})


def _rehearse() -> tuple[list[forked.Span], str | None]:
    """Fork once for trial. Returns the file pages that each child must map in, and why forking is not safe, if so.

    The trial fork is needed because BLAS libraries stop their idle threads at a fork and start new ones at their next
    call. A thread that is still there afterwards is of another kind: a child would lack it.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(write_end, (forked.fault_of_fork() or "").encode())
        os._exit(0)
    os.close(write_end)
    with os.fdopen(read_end, encoding="utf-8") as pipe:
        fault = pipe.read()
    status = os.waitpid(child, 0)[1]
    if status:
        return [], f"a fork ended with status {os.waitstatus_to_exitcode(status)}"
    try:
        return forked.files_in_memory(), fault or forked.fault()
    except OSError as error:
        return [], f"the kernel doesn't show which pages are in memory ({error})"


def _send(connection: socket.socket, message: dict[str, Any]) -> None:
    connection.sendall(json.dumps(message).encode() + b"\n")


def _receive(connection: socket.socket) -> tuple[dict[str, Any], list[int]]:
    """The next request and the file descriptors that came with it. Ends this process when the socket has closed."""
    line, descriptors, _, _ = socket.recv_fds(connection, 1, 2)
    while line and not line.endswith(b"\n"):
        block = connection.recv(65536)
        line = line + block if block else b""
    if not line:
        os._exit(0)
    return json.loads(line), descriptors


if __name__ == "__main__":
    main()
