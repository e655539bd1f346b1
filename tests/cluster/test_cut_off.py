"""A worker that the cluster's head does not answer ends itself. Real sockets stand in for the head, without Ray."""

import contextlib
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from autotune.cluster import cut_off
from autotune.cluster.cut_off import ended_where_cut_off

SILENT_S = 0.2


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cut_off, "EVERY_S", 0.02)
    monkeypatch.setattr(cut_off, "ANSWERS_S", 0.1)


@contextlib.contextmanager
def head(host: str = "127.0.0.1", port: int = 0, backlog: int = 128) -> Iterator[tuple[str, int]]:
    """The address of a socket that takes connections, up to its backlog, as long as the block lasts."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, port), family=family, backlog=backlog) as server:
        yield host, server.getsockname()[1]


@contextlib.contextmanager
def worker(address: tuple[str, int]) -> Iterator[threading.Event]:
    """A worker with an order: the event is set where its process would end."""
    ended = threading.Event()
    with ended_where_cut_off(*address, silent_s=SILENT_S, end=ended.set):
        yield ended


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1"])
def test_a_worker_whose_head_answers_goes_on(host: str) -> None:
    if host == "::1" and not Path("/proc/net/if_inet6").exists():
        pytest.skip("this machine has no IPv6")
    with head(host) as address, worker(address) as ended:
        assert not ended.wait(2 * SILENT_S)


def test_a_worker_whose_head_has_gone_ends() -> None:
    with contextlib.ExitStack() as stack:
        address = stack.enter_context(head())
        with worker(address) as ended:
            assert not ended.wait(2 * SILENT_S)
            stack.close()
            assert ended.wait(10)


def test_a_worker_whose_packets_are_dropped_ends() -> None:
    """The kernel drops what asks for a connection where the backlog is full."""
    with head(backlog=0) as address, socket.create_connection(address), worker(address) as ended:
        assert ended.wait(10)


def test_a_head_that_is_away_for_less_costs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each try takes a second of a made-up clock. Of the last ones, the seventh is the first after more than 6 s."""
    tries = iter([True, *[False] * 6, True, *[False] * 6, True, *[False] * 7])
    asked = list[float]()
    monkeypatch.setattr(cut_off, "EVERY_S", 0.0)
    monkeypatch.setattr(cut_off, "answers", lambda *address: asked.append(len(asked) + 1.0) or next(tries))
    monkeypatch.setattr(cut_off, "time", SimpleNamespace(monotonic=lambda: float(len(asked))))
    ended = threading.Event()
    with ended_where_cut_off("127.0.0.1", 1, end=ended.set):
        assert ended.wait(10)
    assert len(asked) == 22


def test_when_the_order_has_ended_nobody_is_tried_any_more() -> None:
    before = threading.active_count()
    with head() as address, worker(address) as ended:
        assert threading.active_count() == before + 1
    assert threading.active_count() == before
    assert not ended.wait(2 * SILENT_S)


WORKER = """
import sys
from autotune.cluster.cut_off import ended_where_cut_off
with ended_where_cut_off("127.0.0.1", int(sys.argv[1]), silent_s=0.0):
    sys.stdin.read()
"""


def test_the_process_ends_although_its_main_thread_waits_and_its_log_says_why() -> None:
    with head() as (_, port):
        """Nobody listens there any more."""
    worker = subprocess.Popen([sys.executable, "-c", WORKER, str(port)], stdin=-1, stderr=-1, text=True)
    assert worker.wait(60) == 1
    _, said = worker.communicate()
    assert said == f"the cluster's head, 127.0.0.1:{port}, does not answer: this worker and its trial end.\n"
