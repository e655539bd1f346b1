"""Running: which tuned pipe's call runs in this thread. Caches in a denoiser that pipes share ask it."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

_PIPE: ContextVar[Any] = ContextVar("autotune_running_pipe", default=None)


@contextmanager
def running(pipe: Any) -> Iterator[None]:
    """The pipe's call runs while this context is open, in this thread."""
    token = _PIPE.set(pipe)
    try:
        yield
    finally:
        _PIPE.reset(token)


def running_pipe() -> Any | None:
    """The tuned pipe whose call runs; None: whoever calls the part is no tuned pipe, such as another pipeline's."""
    return _PIPE.get()
