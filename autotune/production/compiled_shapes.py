"""Compiled shapes: how often a served pipe compiles again for calls of other shapes; further calls run uncompiled.

Every size, batch and guidance that a compiled pipe is called with makes graphs of their own, which take minutes to
compile on a large model and keep memory (CUDA graphs above all). So the measured sizes and MORE further calls compile.
After that, calls for which there is a graph use it, and others run as without torch.compile. This is logged once.
"""

import logging
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

LOG = logging.getLogger("autotune")
MORE = 16  # calls that may compile, beyond one for each measured size

_held: list[Any] = []  # torch's stance holds for the whole process, so all threads share it
_depth, _lock = 0, threading.Lock()


class CompiledShapes:
    """Counts the calls of one pipe that compiled something.

    measured  the number of measured sizes
    """

    def __init__(self, measured: int) -> None:
        self.left, self.told = measured + MORE, False

    @contextmanager
    def one_call(self) -> Iterator[None]:
        """One call of the pipe runs while this context is open."""
        before = _graphs()
        if self.left > 0:
            yield
            self.left -= _graphs() > before
            return
        if not self.told:
            self.told = True
            LOG.warning(
                "this pipe was compiled for %d other calls (sizes, batches, adapters): further ones run uncompiled, "
                "which is slower. Sizes that are compiled already stay compiled.",
                MORE,
            )
        with _uncompiled():
            yield


@contextmanager
def _uncompiled() -> Iterator[None]:
    """Compile nothing while this context is open; compiled code that fits is used.

    Where several threads do this, torch's former stance comes back when the last one ends.
    """
    from torch.compiler import set_stance

    global _depth
    with _lock:
        _depth += 1
        if _depth == 1:
            _held.append(set_stance("eager_on_recompile"))
    try:
        yield
    finally:
        with _lock:
            _depth -= 1
            if _depth == 0:
                _held.pop().__exit__(None, None, None)


def _graphs() -> int:
    """The number of graphs that torch.compile made in this process so far."""
    dynamo = sys.modules.get("torch._dynamo.utils")  # importing it takes a second: only where something is compiled
    return dynamo.counters["stats"]["unique_graphs"] if dynamo is not None else 0
