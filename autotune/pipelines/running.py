"""Running: which tuned pipe's call runs in this thread, for caches in shared parts, and what is known of a pipe."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

_KNOWN = "_autotune_knows"  # the attribute of a pipe
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


def remember(pipe: Any, **known: Any) -> None:
    """Keep with the pipe what is known of its calls: `traits` (Traits) and `workload` (Workload), for knobs to ask."""
    vars(pipe)[_KNOWN] = _known_of(pipe) | {name: value for name, value in known.items() if value is not None}


def traits_for(pipe: Any) -> Any | None:
    """The Traits of the pipe's pipeline; None: it was not probed."""
    return _known_of(pipe).get("traits")


def workload_for(pipe: Any) -> Any | None:
    """The Workload whose calls the pipe is built for; None: nobody said."""
    return _known_of(pipe).get("workload")


def _known_of(pipe: Any) -> dict[str, Any]:
    return dict(getattr(pipe, "__dict__", {}).get(_KNOWN, {}))
