"""Classify: turn an exception into a Failure, by its type and by the exceptions that caused it."""

import errno
from collections.abc import Iterator

from autotune.building.build import NoEffect
from autotune.errors import UserError
from autotune.measure.health import BrokenOutput
from autotune.measure.latency import NoCleanSamples
from autotune.trial import Failure


def classify(error: BaseException) -> Failure:
    """The Failure for this exception. The first exception of a known type decides, from the outermost to its causes."""
    text = f"{type(error).__name__}: {next(iter(str(error).strip().splitlines()), 'no message')}"
    for cause in _chain(error):
        if isinstance(cause, NoEffect):
            return Failure(cause="no_effect", reason=str(cause), knob=cause.knob)
        if isinstance(cause, BrokenOutput):
            return Failure(cause="broken_output", reason=str(cause))
        if isinstance(cause, NoCleanSamples):
            return Failure(cause=cause.why, reason=str(cause))
        if isinstance(cause, UserError):
            return Failure(cause="bad_input", reason=str(cause))
        if _is_disk_full(cause):
            return Failure(cause="environment", reason="no room left on the disk")
        if _is_out_of_memory(cause):
            return Failure(cause="out_of_memory", reason=text)
    unsupported = isinstance(error, NotImplementedError | ImportError) or "No available kernel" in str(error)
    return Failure(cause="unsupported" if unsupported else "error", reason=text)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """The exception and those that caused it, the outermost first."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _is_disk_full(error: BaseException) -> bool:
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


def _is_out_of_memory(error: BaseException) -> bool:
    import torch

    known = (MemoryError, torch.OutOfMemoryError)
    return isinstance(error, known) or "can't allocate memory" in str(error)
