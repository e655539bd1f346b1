"""Messenger: the cluster as the searching process sees it: it takes orders and tells what became of them."""

import contextlib
import json
import logging
import os
import queue
import shutil
import socket
import subprocess
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol

from autotune.cluster.order import Order, Result
from autotune.cluster.settings import Settings
from autotune.errors import UserError, shown
from autotune.frozen_model import write_json
from autotune.isolation import INTERPRETER, SAFE_PATH

COMMAND = (*INTERPRETER, "-m", "autotune.cluster.courier")
LOG = logging.getLogger("autotune")
GARBLED = "garbled"  # in place of a line that is no message
CLOSES_S = 8.0  # then the courier is killed, and Ray ends what it has left
REFUSED = b"InvalidAuthToken"  # what Ray's log says where a token is missing
RESTARTS = 5  # of the courier, one after the other without a result in between
PAUSE_S = (0.0, 2.0, 5.0, 15.0, 40.0)  # before each of them: a head that is restarted is back in a minute


@dataclass(frozen=True)
class Ready:
    """A card can take orders. `host`: the name of its machine."""

    card: int
    host: str


@dataclass(frozen=True)
class Gone:
    """Cards have gone, with their node or all at once. They may come back, as Ready."""

    cards: tuple[int, ...]


@dataclass(frozen=True)
class Done:
    """An order has come to its end. `files`: the folder of what it has left."""

    ticket: int
    result: Result
    files: Path


@dataclass(frozen=True)
class Lost:
    """An order will have no result: its process or its node has ended. `why`: a clause."""

    ticket: int
    why: str


News = Ready | Gone | Done | Lost


class Messenger(Protocol):
    """What a search needs of a cluster. Tests pass one without Ray."""

    def give(self, ticket: int, card: int, order: Order, root: Path) -> None:
        """Start an order on a card. `root`: the study's folder, of whose folders it wants some."""
        ...

    def news(self, timeout_s: float) -> News | None:
        """What has happened next; None: nothing within so many seconds. Raises UserError: the cluster is lost."""
        ...

    def close(self) -> None:
        """End all that runs."""
        ...


class RayMessenger:
    """A courier process (courier.py), started again where it has ended. Its cards are then new, and its orders lost.

    folder  for its settings, its log and the files that arrive
    """

    def __init__(self, settings: Settings, folder: Path) -> None:
        self.settings, self.folder = settings, folder
        self.cards: set[int] = set()
        self.running: set[int] = set()
        self._backlog: list[News] = []
        self._failures = 0
        self._token = False  # give this user's token
        self._warned = False  # of a line that is no message
        self._log_at = 0  # where the log of the present courier begins
        self._process: subprocess.Popen[str] | None = None
        self._heard: queue.Queue[dict[str, Any] | None] = queue.Queue()

    def give(self, ticket: int, card: int, order: Order, root: Path) -> None:
        folders = [str((root / wanted).resolve()) for wanted in order.wants]
        shutil.rmtree(self._files(ticket), ignore_errors=True)
        message = {"ticket": ticket, "card": card, "order": order.model_dump_json(), "folders": folders}
        self.running.add(ticket)
        process = self._process
        if process is None or process.stdin is None:
            raise RuntimeError("an order was given although no card is there")
        try:
            process.stdin.write(json.dumps({**message, "to": str(self._files(ticket))}) + "\n")
            process.stdin.flush()
        except OSError:  # it has ended: news() finds out, and tells that this order is lost, too
            return

    def news(self, timeout_s: float) -> News | None:
        if self._backlog:
            return self._backlog.pop(0)
        if self._process is None:
            self._start()
        try:
            message = self._heard.get(timeout=timeout_s)
        except queue.Empty:
            return None
        if message is None:
            return self._fallen("the process that talks to Ray has ended")
        if message["says"] == GARBLED:
            return self._fallen(self._garbled(message["line"]))
        if message["says"] == "unreachable":
            self._token = self._token or self._is_asked_for_a_token()
            return self._fallen(message["why"])
        return self._understood(message)

    def close(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        assert process.stdin is not None
        with contextlib.suppress(OSError):  # it has ended already
            process.stdin.close()
        try:
            process.wait(CLOSES_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        shutil.rmtree(self.folder / "arriving", ignore_errors=True)

    def _garbled(self, line: str) -> str:
        """Why its orders are lost, as a clause: which of them the line told of can't be known."""
        why = f"the process that talks to Ray has said what is no message, {shown(line.strip())}"
        if not self._warned:
            LOG.warning("%s: it is started again, and what it was to run is given out again.", why)
        self._warned = True
        return why

    def _is_asked_for_a_token(self) -> bool:
        """Has the cluster just asked for a token, and has this user one?

        Since Ray 2.60, `ray start` asks for it where its user has one, and a driver gives it only if it is told to. One
        that is told to where no token is asked for is taken for dead by the workers. Ray says so in its log alone.
        """
        asked = REFUSED in (self.folder / "courier.log").read_bytes()[self._log_at :]
        return asked and (Path.home() / ".ray" / "auth_token").exists()

    def _files(self, ticket: int) -> Path:
        return self.folder.resolve() / "arriving" / str(ticket)

    def _start(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / "courier.json"
        write_json(path, self.settings.to_json())
        with (self.folder / "courier.log").open("ab") as log:
            self._log_at = log.tell()
            self._process = subprocess.Popen(
                [*COMMAND, str(path)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                errors="replace",
                start_new_session=True,  # Ctrl-C ends the search, which ends it
                env=_environment(self.settings, token=self._token),
            )
        heard: queue.Queue[dict[str, Any] | None] = queue.Queue()
        self._heard = heard
        assert self._process.stdout is not None
        threading.Thread(target=_hear, args=(self._process.stdout, heard.put), daemon=True).start()

    def _understood(self, message: dict[str, Any]) -> News | None:
        match message["says"]:
            case "ready":
                self.cards.add(message["card"])
                return Ready(message["card"], message["host"])
            case "gone":
                self.cards.discard(message["card"])
                return Gone((message["card"],))
            case "done":
                self._failures = 0
                self.running.discard(message["ticket"])
                try:
                    result = Result.parse(message["result"], "the result of a worker")
                except UserError as error:  # its fields are not ours
                    result = Result(refused=f"it has another autotune ({str(error).rstrip('.')})")
                return Done(message["ticket"], result, self._files(message["ticket"]))
            case "lost":
                self.running.discard(message["ticket"])
                return Lost(message["ticket"], message["why"])
            case "cards" if not message["count"]:
                raise UserError(
                    f"the Ray cluster {self._where()} has no {self.settings.resource}: start its nodes with "
                    f"`ray start --num-gpus N`, or `--resources '{{\"card\": 1}}'` for a processor."
                )
        return None

    def _fallen(self, why: str) -> News | None:
        """The courier has ended: its orders are lost, its cards gone. Raises UserError where it does so for ever."""
        self._failures += 1
        if self._failures > RESTARTS:
            raise UserError(
                f"the Ray cluster {self._where()} can't be reached ({why}); see {self.folder / 'courier.log'}. What "
                "has finished is kept, and the same command continues."
            )
        self.close()
        threading.Event().wait(PAUSE_S[self._failures - 1])
        # All cards, and before what is lost: no order can be given to any of them.
        gone = [Gone(tuple(sorted(self.cards)))] if self.cards else []
        self._backlog = [*gone, *(Lost(ticket, why) for ticket in sorted(self.running))]
        self.running.clear()
        self.cards.clear()
        return self._backlog.pop(0) if self._backlog else None

    def _where(self) -> str:
        return self.settings.address or "of this machine"


def _environment(settings: Settings, *, token: bool) -> dict[str, str]:
    # Of a Ray of our own: it sends no usage statistics, and its workers run as the search does, not with a niceness of
    # 15 (see work.py). Ray takes 127.0.0.1 for this machine's address in the network, where everybody could send it
    # tasks, but where it is to be no cluster: so its name for that variable (it has nothing to do with Windows).
    own = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"} if settings.address is None else {}
    own |= {"CUDA_VISIBLE_DEVICES": settings.shown} if settings.shown else {}
    mode = {"RAY_AUTH_MODE": "token"} if token else {}
    return {**mode, **os.environ, **SAFE_PATH, **own, "RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0"}


def _hear(lines: IO[str], put: Callable[[dict[str, Any] | None], None]) -> None:
    """Each message, up to a line that is none: whatever that one has told is lost, so nothing is heard after it."""
    with lines:
        for line in lines:
            try:
                message = json.loads(line)
            except ValueError:
                message = None
            if not isinstance(message, dict) or "says" not in message:
                put({"says": GARBLED, "line": line})
                return
            put(message)
    put(None)


def this_host() -> str:
    return socket.gethostname()
