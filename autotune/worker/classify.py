"""Classify: turn an exception into a Failure, by its type and by the exceptions that caused it."""

import errno
import re
from collections.abc import Iterator

from autotune.building.build import NoEffect
from autotune.errors import UserError
from autotune.measure.health import BrokenOutput
from autotune.measure.latency import NoCleanSamples
from autotune.trial import Failure, Memory

# What the libraries say where torch's allocator is not the one that failed: cuBLAS, cuDNN, cuSPARSE and their likes on
# AMD (the status in their headers), CUDA's and HIP's own errors, Triton ("Triton Error [CUDA]: out of memory").
DEVICE_IS_FULL = re.compile(
    r"\b(CU|HIP|ROC|MIOPEN)[A-Z]*_(STATUS_)?(INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED|ALLOC_FAILED)\b"
    r"|\b(CUDA|HIP|XPU|MPS)\b.*\bout of memory\b|\bcudaErrorMemoryAllocation\b|\bhipErrorOutOfMemory\b",
    re.IGNORECASE,
)
# torch on the CPU, the C library (also as Rust's safetensors has it), C++, cuDNN
HOST_IS_FULL = re.compile(
    r"can(no|')t allocate memory|\bos error 12\b|\bstd::bad_alloc\b|_HOST_ALLOCATION_FAILED\b", re.IGNORECASE
)
MEMORY_ALLOCATION = 2  # cudaErrorMemoryAllocation and hipErrorOutOfMemory, the code of a torch.AcceleratorError


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
        full = _full_memory(cause)
        if full is not None:
            return Failure(cause="out_of_memory", reason=text, memory=full)
    unsupported = isinstance(error, NotImplementedError | ImportError) or "No available kernel" in str(error)
    return Failure(cause="unsupported" if unsupported else "error", reason=text)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """The exception and those that caused it, the outermost first."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _is_disk_full(error: BaseException) -> bool:
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


def _full_memory(error: BaseException) -> Memory | None:
    """Which memory was too small, if that is what this exception says. None: it says something else."""
    import torch

    text = str(error)
    if isinstance(error, torch.OutOfMemoryError) or DEVICE_IS_FULL.search(text):
        return "device"
    if isinstance(error, torch.AcceleratorError) and getattr(error, "error_code", None) == MEMORY_ALLOCATION:
        return "device"
    if isinstance(error, MemoryError):
        return "device" if "CUDA" in text else "host"  # measure/memory.py caps a GPU
    out_of_pages = isinstance(error, OSError) and error.errno == errno.ENOMEM
    return "host" if out_of_pages or HOST_IS_FULL.search(text) else None
