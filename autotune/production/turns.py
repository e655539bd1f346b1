"""Turns: one call of a pipe at a time. Calls that overlap are warned of, or with thread_safe=True wait for their turn.

A pipe keeps state between steps (its scheduler, caches, the guidance), so that calls that overlap draw wrong pictures.
Loading is never safe beside loading, because diffusers and transformers change settings of the whole process meanwhile.
"""

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager

LOG = logging.getLogger("autotune")
LOADING = threading.RLock()  # held while a pipe is loaded or tuned


class Turns:
    """The calls of one pipe.

    thread_safe  a call waits until the one before has ended. Calls within a call, in the same thread, don't wait
    """

    def __init__(self, *, thread_safe: bool) -> None:
        self._turn = threading.RLock() if thread_safe else None
        self._counting = threading.Lock()
        self._running, self._warned = 0, False

    @contextmanager
    def take(self) -> Iterator[None]:
        """One call of the pipe runs while this context is open."""
        if self._turn is not None:
            with self._turn:
                yield
            return
        with self._counting:
            self._running += 1
            overlaps, self._warned = self._running > 1 and not self._warned, self._warned or self._running > 1
        if overlaps:
            LOG.warning(
                "two calls of this pipe overlap, and their pictures may be wrong, because a pipe keeps state between "
                "steps: load it with thread_safe=True, or put a lock around the calls."
            )
        try:
            yield
        finally:
            with self._counting:
                self._running -= 1
