"""Which Failure an exception means: by its type and by the exceptions behind it."""

import errno
from collections.abc import Iterator

from autotune.building.build import NoEffect
from autotune.errors import UserError
from autotune.measure.health import BrokenOutput
from autotune.measure.latency import NoCleanSamples
from autotune.trial import Failure


def classify(error: BaseException) -> Failure:
    """The Failure that this exception means."""
    text = f"{type(error).__name__}: {next(iter(str(error).strip().splitlines()), 'no message')}"
    for link in _causes(error):
        if isinstance(link, NoEffect):
            return Failure(cause="no_effect", reason=str(link), knob=link.knob)
        if isinstance(link, BrokenOutput):
            return Failure(cause="broken_output", reason=str(link))
        if isinstance(link, NoCleanSamples):
            return Failure(cause=link.why, reason=str(link))
        if isinstance(link, UserError):
            return Failure(cause="bad_input", reason=str(link))
        if _is_disk_full(link):
            return Failure(cause="environment", reason="no room left on the disk")
        if _is_out_of_memory(link):
            return Failure(cause="out_of_memory", reason=text)
    unsupported = isinstance(error, NotImplementedError | ImportError) or "No available kernel" in str(error)
    return Failure(cause="unsupported" if unsupported else "error", reason=text)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """The exception and those behind it, the outermost first."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _is_disk_full(error: BaseException) -> bool:
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


def _is_out_of_memory(error: BaseException) -> bool:
    import torch

    known = (MemoryError, torch.OutOfMemoryError)
    return isinstance(error, known) or "can't allocate memory" in str(error)
