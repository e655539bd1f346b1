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
    """Keep with the pipe what is known of its calls, for knobs to ask.

    traits         (Traits) of its pipeline
    revisions      of its pipeline's parts (Pipeline.part_revisions)
    workload       (Workload) whose calls it is built for
    task           for which the pipe was loaded, where the user has named one
    prepare        functions of the pipe, to be run before its first call
    calibrations   name -> numbers that were measured before a first call, of this pipe or of an earlier one
    unequal_sizes  True: a graph is made for sizes that are equal in one call and differ in another
    """
    vars(pipe)[_KNOWN] = _known_of(pipe) | {name: value for name, value in known.items() if value is not None}


def prepare_once(pipe: Any) -> None:
    """Run what is to be done before the pipe's first call (`prepare` of `remember`: functions of the pipe)."""
    known = _known_of(pipe)
    if known.get("prepare"):
        vars(pipe)[_KNOWN] = known | {"prepare": ()}
        for prepare in known["prepare"]:
            prepare(pipe)


def calibrations_for(pipe: Any) -> dict[str, tuple[float, ...]]:
    """Name -> numbers that were measured before the first call of this pipe, or of an earlier one."""
    return dict(_known_of(pipe).get("calibrations", {}))


def traits_for(pipe: Any) -> Any | None:
    """The Traits of the pipe's pipeline; None: it was not probed."""
    return _known_of(pipe).get("traits")


def revision_for(pipe: Any, part: str) -> str | None:
    """The recorded revision of this part of the pipe's pipeline; None: none is recorded."""
    found = _known_of(pipe).get("revisions", {}).get(part)
    return None if found is None else str(found)


def task_for(pipe: Any) -> str | None:
    """The task for which the pipe was loaded; None: that of its class."""
    task = _known_of(pipe).get("task")
    return None if task is None else str(task)


def has_unequal_sizes(pipe: Any) -> bool:
    """Is a graph of the pipe made for sizes that are equal in one call and differ in another?"""
    return bool(_known_of(pipe).get("unequal_sizes"))


def workload_for(pipe: Any) -> Any | None:
    """The Workload whose calls the pipe is built for; None: nobody said."""
    return _known_of(pipe).get("workload")


def _known_of(pipe: Any) -> dict[str, Any]:
    return dict(getattr(pipe, "__dict__", {}).get(_KNOWN, {}))
