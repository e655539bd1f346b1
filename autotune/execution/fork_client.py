"""Our end of the nursery: the server process (autotune/nursery.py) that has loaded the libraries and forks children.

There is one at a time. It is started at the first job that may be forked and kept until we end; a job whose environment
differs in what the libraries may have read when they were imported gets another in its place. Where the nursery finds
that it can't fork safely, the reason is logged once, and children are fresh interpreters.
"""

import atexit
import contextlib
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from autotune.execution.child import Child
from autotune.isolation import ASKED_AT, BLANK, HOW, LIFELINE, MARK

SERVER = (sys.executable, "-m", "autotune.worker.fork_server")
START_TIMEOUT_S = 600.0
ANSWER_TIMEOUT_S = 60.0
# Read whenever they are needed, by us and by Inductor. Whatever else there is, some library may read at its import.
READ_LATE = {MARK, LIFELINE, HOW, ASKED_AT, "AUTOTUNE_BUSY", "TORCHINDUCTOR_CACHE_DIR"}


class Unsafe(Exception):
    """The nursery can't or won't fork; says why."""


class Lost(Exception):
    """The nursery has ended."""


class Nursery:
    """The server process. Forks for one job at a time."""

    def __init__(self, folder: Path, env: Mapping[str, str]) -> None:
        """folder  of the first job: its libraries are loaded. Raises Unsafe."""
        self.circumstances = circumstances(env)
        self._words = tempfile.TemporaryFile()  # noqa: SIM115 - what the libraries print while they are loaded
        self._socket, theirs = socket.socketpair()
        lifeline, self._lifeline = os.pipe()
        checked_by_nvml = {"PYTORCH_NVML_BASED_CUDA_CHECK": "1"}  # otherwise asking for a GPU would start CUDA
        with theirs:
            self._process = subprocess.Popen(
                [*SERVER, str(theirs.fileno()), str(folder)],
                stdin=subprocess.DEVNULL,
                stdout=self._words,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                pass_fds=[theirs.fileno(), lifeline],
                env={**env, **checked_by_nvml, MARK: BLANK, LIFELINE: str(lifeline)},
            )
        os.close(lifeline)
        try:
            self._answer("ready", START_TIMEOUT_S)
        except Lost as error:
            raise Unsafe(f"it ended before it was ready: {self._last_words()}") from error
        except BaseException:
            self.close()
            raise

    def fork(self, folder: Path, log: int, lifeline: int, env: Mapping[str, str]) -> "Forked":
        """A child for the job in this folder. Raises Unsafe, or Lost."""
        try:
            self._send({"folder": str(folder), "env": dict(env)}, [log, lifeline])
            return Forked(self, self._answer("pid"))
        except BaseException:  # what was begun must not go on behind our back
            self.close()
            raise

    def wait_for(self, pid: int) -> int:
        """The exit status of a child that has ended or been killed. One whose nursery is gone was killed with it."""
        try:
            self._send({"bury": pid})
            return int(self._answer("status"))
        except (Lost, Unsafe):
            self.close()
            return -signal.SIGKILL

    @property
    def process_id(self) -> int:
        return self._process.pid

    @property
    def lives(self) -> bool:
        return self._process.poll() is None

    def close(self) -> None:
        """End the server; its child, if it has one, is killed by the kernel."""
        if self._lifeline >= 0:
            os.close(self._lifeline)
            self._lifeline = -1
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._socket.close()
        self._words.close()

    def _send(self, message: dict[str, Any], descriptors: list[int] | None = None) -> None:
        try:
            socket.send_fds(self._socket, [b"{"], descriptors or [])
            self._socket.sendall(json.dumps(message)[1:].encode() + b"\n")
        except OSError as error:
            raise Lost from error

    def _answer(self, word: str, timeout_s: float | None = ANSWER_TIMEOUT_S) -> Any:
        """What the server says under this word. Raises Unsafe where it says why not, Lost where it has ended."""
        self._socket.settimeout(timeout_s)
        line = bytearray()
        try:
            while not line.endswith(b"\n"):
                block = self._socket.recv(4096)
                if not block:
                    raise Lost
                line += block
        except TimeoutError:
            raise Unsafe(f"it gave no answer for {timeout_s:.0f} s") from None
        except OSError as error:
            raise Lost from error
        answer = json.loads(line)
        if "fault" in answer:
            raise Unsafe(answer["fault"])
        return answer[word]

    def _last_words(self) -> str:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(10)
        self._words.seek(0)
        lines = self._words.read().decode(errors="replace").strip().splitlines()
        status, said = self._process.returncode, lines[-1] if lines else "without a word"
        self.close()
        return f"status {status}, {said}"


class Forked:
    """A child of the nursery."""

    def __init__(self, nursery: Nursery, pid: int) -> None:
        self._nursery, self.pid = nursery, pid

    def bury(self) -> int:
        return self._nursery.wait_for(self.pid)


_lock = threading.Lock()
_nursery: Nursery | None = None
_refused: dict[object, str] = {}  # circumstances -> why


@contextlib.contextmanager
def nursery(folder: Path, env: Mapping[str, str]) -> Any:
    """The nursery, for one job; None where a child must be a fresh interpreter."""
    if not _lock.acquire(blocking=False):
        yield None  # another thread's job is at work in it
        return
    try:
        yield _open(folder, env)
    finally:
        _lock.release()


def child(nursery: Nursery, folder: Path, log: int, lifeline: int, env: Mapping[str, str]) -> Child | None:
    """A forked child; None, for good, where the nursery has become unsafe, and for now where it has ended."""
    try:
        return nursery.fork(folder, log, lifeline, env)
    except Unsafe as error:
        _refuse(nursery.circumstances, str(error))
    except Lost:
        logging.getLogger("autotune").info("the process that forks children has ended; another one is started")
    return None


def circumstances(env: Mapping[str, str]) -> object:
    """What a child inherits from the nursery for good: two jobs that differ in it can't share one."""
    kept = tuple(sorted((name, value) for name, value in env.items() if name not in READ_LATE))
    umask = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("Umask"))
    return SERVER, kept, os.getcwd(), umask, frozenset(os.sched_getaffinity(0))


def close() -> None:
    """End the nursery, if there is one."""
    global _nursery
    if _nursery is not None:
        _nursery.close()
    _nursery = None


def _open(folder: Path, env: Mapping[str, str]) -> Nursery | None:
    global _nursery
    wanted = circumstances(env)
    if wanted in _refused:
        return None
    if _nursery is not None and (_nursery.circumstances != wanted or not _nursery.lives):
        close()
    if _nursery is None:
        try:
            _nursery = Nursery(folder, env)
            atexit.register(close)
        except Unsafe as error:
            _refuse(wanted, str(error))
    return _nursery


def _refuse(wanted: object, why: str) -> None:
    if why not in _refused.values():
        said = "children can't be forked here, each is a fresh interpreter that loads the libraries anew: %s."
        logging.getLogger("autotune").warning(said, why)
    _refused[wanted] = why
