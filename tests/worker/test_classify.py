"""What an exception means: out of memory is told by every library in its own words, on the GPU or on the host.

The messages are those of the libraries' sources; no GPU has raised them here.
"""

import errno

import pytest
import torch

from autotune.trial import Memory
from autotune.worker.classify import classify


class OutOfResources(Exception):
    """As Triton raises it: a kernel needs more shared memory than one multiprocessor has."""


def of_the_driver(text: str, code: int) -> torch.AcceleratorError:
    error = torch.AcceleratorError(text)
    error.error_code = code  # as torch sets it
    return error


@pytest.mark.parametrize(
    ("error", "memory"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."), "device"),
        (of_the_driver("CUDA error: out of memory\nCUDA kernel errors might be asynchronous", 2), "device"),
        (of_the_driver("CUDA error: a message of a later version", 2), "device"),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), "device"),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), "device"),
        (RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"), "device"),
        (RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_HOST_ALLOCATION_FAILED"), "host"),
        (RuntimeError("CUDA error: CUSPARSE_STATUS_ALLOC_FAILED when calling `cusparseCreate(handle)`"), "device"),
        (RuntimeError("HIP error: HIPBLAS_STATUS_ALLOC_FAILED when calling `hipblasCreate(handle)`"), "device"),
        (RuntimeError("Triton Error [CUDA]: out of memory"), "device"),
        (RuntimeError("CUDA driver error: out of memory"), "device"),
        (RuntimeError("HIP out of memory. Tried to allocate 2.00 GiB."), "device"),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:128] DefaultCPUAllocator: can't allocate memory"), "host"),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), "host"),
        (Exception("SafetensorError: I/O error: Cannot allocate memory (os error 12)"), "host"),
        (MemoryError("std::bad_alloc"), "host"),
        (MemoryError(), "host"),
        (MemoryError("the CUDA context alone is larger than the limit of 1 bytes"), "device"),
    ],
)
def test_every_librarys_lack_of_memory_is_out_of_memory(error: BaseException, memory: Memory) -> None:
    found = classify(error)
    assert (found.cause, found.memory) == ("out_of_memory", memory)
    wrapped = RuntimeError("while compiling")
    wrapped.__cause__ = error
    assert classify(wrapped).memory == memory


@pytest.mark.parametrize(
    "error",
    [
        of_the_driver("CUDA error: an illegal memory access was encountered", 700),
        RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasGemmEx`"),
        RuntimeError("cuDNN error: CUDNN_STATUS_NOT_SUPPORTED"),
        OutOfResources("out of resource: shared memory, Required: 147456, Hardware limit: 101376."),
        RuntimeError("CUDA error: too many resources requested for launch"),
    ],
)
def test_other_errors_of_a_device_are_not(error: BaseException) -> None:
    assert classify(error).cause == "error"
    assert classify(error).memory is None
