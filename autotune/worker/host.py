"""Host: a child lives within the memory that is free, and is the first that the kernel kills where that is wrong.

The limit is RLIMIT_DATA, which counts private memory that can be written. RLIMIT_AS would count address space, of which
CUDA reserves far more than it uses. RLIMIT_DATA is set for jobs on the processor only, where it was tried with torch
and torch.compile. By the kernel's rule (is_data_mapping in its mm/) it counts neither what is reserved without the
right to write nor what is shared, as mappings of device files usually are. What CUDA's closed library maps besides
has not been seen: tests/gpu/test_first_contact.py looks. A cgroup for each child needs one that was delegated to the
user, with no process in it. So a job on a GPU is watched by its parent (execution/host_limit.py), and the kernel kills
it before anything else on the machine. Both are told apart from a full GPU.
"""

import logging
import os
import resource
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from autotune.devices.host_memory import cgroup_limit_bytes, free_bytes, status_bytes
from autotune.measurement import HostMemory

if TYPE_CHECKING:
    from autotune.job import Job

FIRST_TO_GO = "1000"  # the most that proc(5) allows
# What threads reserve and hardly use: a stack and a buffer of OpenBLAS for each core.
THREAD_BYTES = 40 * 2**20


def live_within(job: "Job") -> None:
    """Limit this process, and those that it starts, to the memory that is free now."""
    from autotune.job import device_of

    try:
        Path("/proc/self/oom_score_adj").write_text(FIRST_TO_GO)
    except OSError as error:  # a sandbox without it, or with a read-only /proc: the kernel chooses as it always does
        logging.getLogger("autotune").warning("this process is not the first to end where memory does: %s", error)
    device, free, own = device_of(job), free_bytes(), status_bytes("VmData")
    if (device is not None and device.is_gpu) or free is None or own is None:
        return
    limit = own + free + _mapped_files_bytes(job) + THREAD_BYTES * (os.cpu_count() or 1)
    _, most = resource.getrlimit(resource.RLIMIT_DATA)
    if most != resource.RLIM_INFINITY:
        limit = min(limit, most)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))


def taken(before: int | None, above: Iterable[int]) -> HostMemory | None:
    """What this process took of the host's memory so far; None: the system does not tell.

    before, above  resident memory before the pipe was loaded, and peaks above it. On a processor they are metered by
                   phase, which resets the kernel's own peak (measure/memory.py)
    """
    peak = status_bytes("VmHWM")
    if peak is None or before is None:
        return None
    cuda = getattr(sys.modules.get("torch"), "cuda", None)
    pinned = cuda.host_memory_stats().get("allocated_bytes.peak", 0) if cuda and cuda.is_initialized() else None
    return HostMemory(
        peak_resident_bytes=max(peak, *(before + more for more in above), 0),
        peak_pinned_bytes=pinned,
        cgroup_limit_bytes=cgroup_limit_bytes(),
    )


def _mapped_files_bytes(job: "Job") -> int:
    """The bytes of the weight files of the pipeline and of what is loaded beside it.

    safetensors maps a file as private memory that could be written, and never writes. It counts, and takes no memory.
    """
    from autotune.errors import UserError
    from autotune.footprint import FLOAT32_BYTES
    from autotune.job import pipelines_of
    from autotune.pipelines import locate

    total = 0
    for pipeline in pipelines_of(job):
        if pipeline.weights == "random":
            continue
        if pipeline.factory is not None:  # its files are not known: as many bytes as its weights in full precision
            components = pipeline.traits.components if pipeline.traits is not None else ()
            total += sum(FLOAT32_BYTES * component.weights for component in components)
            continue
        try:
            places = [locate.folder_of(pipeline, local_files_only=True)]
            places += [locate.part_folder(source, local_files_only=True) for source in pipeline.added.values()]
        except UserError:  # the job will fail by it and say so
            continue
        alone = [
            path for path in (Path(pipeline.source), *places) if path.is_file()
        ]  # a checkpoint or LoRA in one file
        files = {*alone, *(path for place in places for path in place.rglob("*.safetensors"))}
        total += sum(path.stat().st_size for path in files if path.exists())
    return total
