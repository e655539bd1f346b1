"""Fork client: the parent's end of the fork server, and the life of that one server.

The fork server (worker/fork_server.py) is a process that has loaded the libraries and forks a child for each job. At
most one runs at a time. It starts with the first job that may be forked, and ends with this process. A job whose
environment differs in a variable that a library may have read at its import gets a new server in place of the old one.
Where the server can't fork safely, the reason is logged once, and each child is a new interpreter (child.py).
"""

import atexit
import contextlib
import json
import logging
import os
import signal
import socket
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from autotune.execution.child import Child
from autotune.isolation import BLANK_MARK, BUSY, INTERPRETER, LIFELINE, MARK, REQUESTED_AT, RUN_CODE, STARTED_BY, TIMED

SERVER = (*INTERPRETER, "-m", "autotune.worker.fork_server")
START_TIMEOUT_S = 600.0
ANSWER_TIMEOUT_S = 60.0
# Environment variables that are read when they are needed, by autotune or by Inductor: jobs that differ in them can
# share a server. A library may have read any other variable at its import.
READ_LATE = {MARK, LIFELINE, STARTED_BY, REQUESTED_AT, RUN_CODE, BUSY, TIMED, "TORCHINDUCTOR_CACHE_DIR"}


class UnsafeToFork(Exception):
    """The fork server refuses to fork, or does not answer. The message is the reason."""


class ServerEnded(Exception):
    """The fork server has ended."""


class ForkServer:
    """The server process. Forks for one job at a time."""

    def __init__(self, folder: Path, env: Mapping[str, str]) -> None:
        """Start the server and wait until it has loaded the libraries of the job in `folder`. Raises UnsafeToFork."""
        self.inherited = inherited_state(env)
        self._output = tempfile.TemporaryFile()  # noqa: SIM115 - what the libraries print while they are loaded
        self._socket, server_end = socket.socketpair()
        lifeline, self._lifeline = os.pipe()
        # The kernel ends the server with the thread that starts it: only the main thread lives as long as the process.
        in_main_thread = threading.current_thread() is threading.main_thread()
        ends_with = os.getpid() if in_main_thread else 0
        checked_by_nvml = {"PYTORCH_NVML_BASED_CUDA_CHECK": "1"}  # otherwise asking for a GPU would start CUDA
        with server_end:
            self._process = subprocess.Popen(
                [*SERVER, str(server_end.fileno()), str(folder), str(ends_with)],
                stdin=subprocess.DEVNULL,
                stdout=self._output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                pass_fds=[server_end.fileno(), lifeline],
                env={**env, **checked_by_nvml, MARK: BLANK_MARK, LIFELINE: str(lifeline)},
            )
        os.close(lifeline)
        try:
            self._answer("ready", START_TIMEOUT_S)
        except ServerEnded as error:
            raise UnsafeToFork(f"it ended before it was ready: {self._close_and_explain()}") from error
        except BaseException:
            self.close()
            raise

    def fork(self, folder: Path, log: int, lifeline: int, env: Mapping[str, str]) -> "ForkedChild":
        """Fork a child for the job in this folder. Raises UnsafeToFork or ServerEnded."""
        try:
            self._send({"folder": str(folder), "env": dict(env)}, [log, lifeline])
            return ForkedChild(self, self._answer("pid"))
        except BaseException:  # the server may have forked a child that nobody would supervise
            self.close()
            raise

    def reap(self, pid: int) -> int:
        """The exit status of a child that has ended or been killed; -SIGKILL where the server has ended."""
        try:
            self._send({"reap": pid})
            return self._answer("status")
        except (ServerEnded, UnsafeToFork):
            self.close()
            return -signal.SIGKILL  # the kernel killed the child together with the server

    @property
    def process_id(self) -> int:
        return self._process.pid

    @property
    def is_running(self) -> bool:
        return self._process.poll() is None

    def close(self) -> None:
        """End the server. The kernel kills its child, if it has one."""
        if self._lifeline >= 0:
            os.close(self._lifeline)
            self._lifeline = -1
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._socket.close()
        self._output.close()

    def _send(self, message: dict[str, Any], descriptors: list[int] | None = None) -> None:
        try:
            socket.send_fds(self._socket, [b"{"], descriptors or [])
            self._socket.sendall(json.dumps(message)[1:].encode() + b"\n")
        except OSError as error:
            raise ServerEnded from error

    def _answer(self, key: str, timeout_s: float = ANSWER_TIMEOUT_S) -> int:
        """The value of `key` in the server's next message. Raises UnsafeToFork for a "fault", or ServerEnded."""
        self._socket.settimeout(timeout_s)
        line = bytearray()
        try:
            while not line.endswith(b"\n"):
                block = self._socket.recv(4096)
                if not block:
                    raise ServerEnded
                line += block
        except TimeoutError:
            raise UnsafeToFork(f"it gave no answer for {timeout_s:.0f} s") from None
        except OSError as error:
            raise ServerEnded from error
        answer = json.loads(line)
        if "fault" in answer:
            raise UnsafeToFork(answer["fault"])
        return int(answer[key])

    def _close_and_explain(self) -> str:
        """Close a server that is ending. Returns its exit status and the last line that it printed."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(10)
        self._output.seek(0)
        lines = self._output.read().decode(errors="replace").strip().splitlines()
        status, last_line = self._process.returncode, lines[-1] if lines else "no output"
        self.close()
        return f"status {status}, {last_line}"


class ForkedChild:
    """A child that the fork server has forked."""

    def __init__(self, server: ForkServer, pid: int) -> None:
        self._server, self.pid = server, pid

    def reap(self) -> int:
        return self._server.reap(self.pid)


_lock = threading.Lock()
_server: ForkServer | None = None
_refused: dict[object, str] = {}  # inherited state -> why a server with this state can't fork


@contextlib.contextmanager
def fork_server(folder: Path, env: Mapping[str, str]) -> Iterator[ForkServer | None]:
    """The fork server, reserved for one job; None where the child must be a new interpreter."""
    if not _lock.acquire(blocking=False):
        yield None  # a job of another thread is using it
        return
    try:
        yield _open(folder, env)
    finally:
        _lock.release()


def fork_child(server: ForkServer, folder: Path, log: int, lifeline: int, env: Mapping[str, str]) -> Child | None:
    """A forked child, or None. A server that can't fork safely is not used again; one that has ended is replaced."""
    try:
        return server.fork(folder, log, lifeline, env)
    except UnsafeToFork as error:
        _refuse(server.inherited, str(error))
    except ServerEnded:
        logging.getLogger("autotune").info("the fork server has ended; another one is started")
    return None


def inherited_state(env: Mapping[str, str]) -> object:
    """What a child inherits from the server and can't change: two jobs that differ in it can't share a server."""
    kept = tuple(sorted((name, value) for name, value in env.items() if name not in READ_LATE))
    umask = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("Umask"))
    return SERVER, kept, os.getcwd(), umask, frozenset(os.sched_getaffinity(0))


def close() -> None:
    """End the fork server, if one is running."""
    global _server
    if _server is not None:
        _server.close()
    _server = None


def _open(folder: Path, env: Mapping[str, str]) -> ForkServer | None:
    global _server
    needed = inherited_state(env)
    if needed in _refused:
        return None
    if _server is not None and (_server.inherited != needed or not _server.is_running):
        close()
    if _server is None:
        try:
            _server = ForkServer(folder, env)
            atexit.register(close)
        except UnsafeToFork as error:
            _refuse(needed, str(error))
    return _server


def _refuse(inherited: object, why: str) -> None:
    if why not in _refused.values():
        message = "children can't be forked on this machine, so each one loads the libraries anew: %s."
        logging.getLogger("autotune").warning(message, why)
    _refused[inherited] = why
