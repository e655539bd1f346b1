"""Cut off: a worker that can't reach the cluster's head any more ends itself, and its trial with it.

Ray notices there within minutes only. Meanwhile the trial would go on, although the search has given it to another card
and nobody hears its result. So while an order is run, a thread tries the head. To refuse a connection is no answer: a
head that is started again has forgotten the order.
"""

import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

EVERY_S = 1.0  # from the end of one try to the next one
ANSWERS_S = 1.5  # the longest wait for an answer: the kernel sends a lost packet again after 1 s
SILENT_S = 6.0  # then the head is out of reach: with the last try, 7.5 s at most after the link is cut
LOG = logging.getLogger("autotune")


def head_address() -> tuple[str, int]:
    """The host and the port of the head of this worker's cluster."""
    import ray  # only a worker has it loaded

    host, _, port = ray.get_runtime_context().gcs_address.rpartition(":")
    return host.strip("[]"), int(port)  # IPv6 has brackets


def end_process() -> None:
    """At once, whatever other threads do. The child and its process group end with it (see execution/isolate.py)."""
    os._exit(1)


@contextmanager
def ended_where_cut_off(
    host: str, port: int, *, silent_s: float = SILENT_S, end: Callable[[], None] = end_process
) -> Iterator[None]:
    """Inside, this process ends where nobody has answered at this address for so long.

    Raises OSError where the name is not known, which is asked for once: names need the network, too.
    """
    family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    over = threading.Event()

    def watch() -> None:
        heard = time.monotonic()
        while not over.wait(EVERY_S):
            if answers(family, address):
                heard = time.monotonic()
            elif time.monotonic() - heard > silent_s and not over.is_set():
                LOG.error("the cluster's head, %s:%s, does not answer: this worker and its trial end.", host, port)
                end()
                return

    watching = threading.Thread(target=watch, daemon=True)
    watching.start()
    try:
        yield
    finally:
        over.set()
        watching.join()


def answers(family: int, address: tuple[str, int] | tuple[str, int, int, int] | tuple[int, bytes]) -> bool:
    """Is a connection taken there?"""
    with socket.socket(family, socket.SOCK_STREAM) as tried:
        tried.settimeout(ANSWERS_S)
        return tried.connect_ex(address) == 0
